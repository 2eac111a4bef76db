//! Elementwise operators that networks are rarely pruned through: bits, remainders and marks of odd floats
//! (<https://onnx.ai/onnx/operators/onnx__BitShift.html>, <https://onnx.ai/onnx/operators/onnx__Mod.html>,
//! <https://onnx.ai/onnx/operators/onnx__IsInf.html>).

use super::{Entry, Made, no_axes, same, same_truth};
use crate::{Binary, Fact, Named, Op};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "BitShift", infer: broadcast, axes: no_axes },
    Entry { domain: "", name: "BitwiseAnd", infer: broadcast, axes: no_axes },
    Entry { domain: "", name: "BitwiseOr", infer: broadcast, axes: no_axes },
    Entry { domain: "", name: "BitwiseXor", infer: broadcast, axes: no_axes },
    Entry { domain: "", name: "BitwiseNot", infer: same, axes: no_axes },
    Entry { domain: "", name: "Mod", infer: broadcast, axes: no_axes },
    Entry { domain: "", name: "IsInf", infer: same_truth, axes: no_axes },
    Entry { domain: "", name: "IsNaN", infer: same_truth, axes: no_axes },
];

fn broadcast(_: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Made {
    Op::Binary(Binary::Add).infer(inputs, n_outputs)
}
