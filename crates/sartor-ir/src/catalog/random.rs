//! Random numbers (<https://onnx.ai/onnx/operators/onnx__RandomNormal.html>,
//! <https://onnx.ai/onnx/operators/onnx__RandomUniform.html>, their forms `…Like`,
//! <https://onnx.ai/onnx/operators/onnx__Bernoulli.html>,
//! <https://onnx.ai/onnx/operators/onnx__Multinomial.html>, <https://onnx.ai/onnx/operators/onnx__Dropout.html>).

use super::{Entry, Made, extent_of, no_axes, passing, same, same_truth, value};
use crate::{
    AxisLink, DType, Fact, Named, TensorType,
    op::{required, shape_of},
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "RandomNormal", infer: infer_shaped, axes: no_axes },
    Entry { domain: "", name: "RandomUniform", infer: infer_shaped, axes: no_axes },
    Entry { domain: "", name: "RandomNormalLike", infer: infer_like, axes: no_axes },
    Entry { domain: "", name: "RandomUniformLike", infer: infer_like, axes: no_axes },
    Entry { domain: "", name: "Bernoulli", infer: infer_like, axes: no_axes },
    Entry { domain: "", name: "Multinomial", infer: infer_multinomial, axes: no_axes },
    Entry { domain: "", name: "Dropout", infer: infer_dropout, axes: axes_dropout },
];

/// The forms that the closed set has not: with a seed, or training.
fn infer_dropout(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let mut made = same(op, inputs, 1)?;
    // The mask of opset 7 is of the input's type.
    made.extend(if op.version < 10 { same(op, inputs, 1)? } else { same_truth(op, inputs, 1)? });
    Ok(made)
}

fn axes_dropout(_: &Named, inputs: &[Option<&Fact>], _: &[Option<&TensorType>]) -> Vec<AxisLink> {
    passing(inputs, 0..usize::MAX)
}

fn infer_shaped(op: &Named, _: &[Option<&Fact>], _: usize) -> Made {
    let shape = op.ints("shape")?.ok_or("attribute `shape`: is required")?;
    let shape = shape.iter().map(|&it| extent_of(it)).collect::<Result<_, _>>()?;
    Ok(vec![value(op.dtype("dtype")?.unwrap_or(DType::F32), Some(shape))])
}

fn infer_like(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let dtype = op.dtype("dtype")?;
    Ok(vec![required(inputs, 0).map(|it| it.with_dtype(dtype.unwrap_or(it.ty.dtype)))])
}

fn infer_multinomial(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let dtype = op.dtype("dtype")?.unwrap_or(DType::I32);
    let count = extent_of(op.int("sample_size", 1)?)?;
    let shape = shape_of(inputs, 0).and_then(|it| Some(vec![it.first()?.clone(), count]));
    Ok(vec![value(dtype, shape)])
}
