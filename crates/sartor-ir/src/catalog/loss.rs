//! Losses (<https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html>,
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>).

use super::{Entry, Made, no_axes, shapeless, typed};
use crate::{Fact, Named, op::shape_of, shape::list};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "NegativeLogLikelihoodLoss", infer, axes: no_axes },
    Entry { domain: "", name: "SoftmaxCrossEntropyLoss", infer, axes: no_axes },
];

/// `scores [n, c, …], target [n, …], weights? [c]`, and of the second operator the logarithms of softmax.
fn infer(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let (scores, target) = (shape_of(inputs, 0), shape_of(inputs, 1));
    if let (Some(scores), Some(target)) = (scores, target) {
        let fits = scores.len() >= 2
            && target.len() + 1 == scores.len()
            && scores[0].compatible(&target[0])
            && scores[2..].iter().zip(&target[1..]).all(|(a, b)| a.compatible(b));
        if !fits {
            return Err(format!("target {} does not fit scores {}", list(target), list(scores)));
        }
    }
    let loss = match (op.text("reduction", "mean")?, target) {
        ("mean" | "sum", _) => typed(inputs, 0, Vec::new()),
        ("none", Some(target)) => typed(inputs, 0, target.clone()),
        ("none", None) => shapeless(inputs, 0),
        (other, _) => return Err(format!("attribute `reduction`: `{other}` is not known")),
    };
    let logarithms = match scores {
        Some(scores) => typed(inputs, 0, scores.clone()),
        None => shapeless(inputs, 0),
    };
    Ok(vec![loss, logarithms])
}
