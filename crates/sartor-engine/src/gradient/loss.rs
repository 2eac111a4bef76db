//! Gradients of the loss operators (<https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>).

use sartor_ir::Named;

use super::{Context, Made, Rule, floats};
use crate::{
    Array,
    reference::named::loss::{Reduction, Terms, logarithms},
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "NegativeLogLikelihoodLoss", backward: loss },
    Rule { domain: "", name: "SoftmaxCrossEntropyLoss", backward: loss },
];

/// Of the scores: `-weight` at the target's score, through softmax `d - p sum of d` over the classes.
fn loss(op: &Named, context: &Context<'_>) -> Made {
    context.first(|| {
        let scores = context.input(0)?;
        let terms = Terms::new(op, context.inputs)?;
        let mut sums = context.gradient(1).map_or_else(|| vec![0.0; scores.len()], Array::to_f64);
        if let Some(g) = context.gradient(0) {
            let (g, divisor) = (floats(g), terms.divisor());
            for (i, pick) in terms.picks.iter().enumerate() {
                let g = g[if terms.reduction == Reduction::None { i } else { 0 }];
                if let Some((at, weight)) = pick {
                    sums[*at] -= weight * f64::from(g) / divisor;
                }
            }
        }
        if op.name == "SoftmaxCrossEntropyLoss" {
            let (lanes, values) = (terms.lanes, logarithms(&scores.to_f64(), terms.lanes));
            for first in lanes.starts() {
                let at = |c: usize| first + c * lanes.inner;
                let sum: f64 = (0..lanes.extent).map(|c| sums[at(c)]).sum();
                (0..lanes.extent).for_each(|c| sums[at(c)] -= values[at(c)].exp() * sum);
            }
        }
        Ok(Array::f32(&scores.shape, sums.into_iter().map(|it| it as f32).collect()))
    })
}
