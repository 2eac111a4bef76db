//! Gradients of reductions, by the derivatives of their definitions
//! (<https://onnx.ai/onnx/operators/onnx__ReduceMean.html> and its kin). `ReduceMax` and `ReduceMin` pass
//! the gradient to the first element that has the value.

use sartor_ir::{Reduce, ReduceKind};

use super::{Context, Made, floats};
use crate::{
    Array,
    reference::{integers, reduce::ReduceView},
};

pub(super) fn reduce(it: &Reduce, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let axes = it.resolve(integers(context.inputs, 1).as_deref(), x.shape.len())?;
        let view = ReduceView::new(&x.shape, &axes);
        let (values, y, dy) = (floats(x), floats(context.output(0)?), floats(g));
        let mut dx = vec![0.0; x.len()];
        for ((&at, &y), &g) in view.kept.iter().zip(y.iter()).zip(dy.iter()) {
            lane(it.kind, &view.reduced, at, (&values, y, g), &mut dx);
        }
        Ok(Array::f32(&x.shape, dx))
    })
}

/// The elements of one result: `x` at `at` and the offsets `by`, the result `y` and its gradient `g`.
#[expect(clippy::float_cmp, reason = "the largest is one of the elements, to the bit")]
fn lane(kind: ReduceKind, by: &[usize], at: usize, (x, y, g): (&[f32], f32, f32), dx: &mut [f32]) {
    let count = by.len();
    if let ReduceKind::Max | ReduceKind::Min = kind {
        let same = |by: &&usize| x[at + **by] == y || x[at + **by].is_nan();
        if let Some(first) = by.iter().find(same) {
            dx[at + first] = g;
        }
        return;
    }
    let sign = |x: f32| if x == 0.0 { 0.0 } else { x.signum() };
    for (i, &offset) in by.iter().enumerate() {
        let it = x[at + offset];
        dx[at + offset] = g * match kind {
            ReduceKind::Mean => 1.0 / count as f32,
            ReduceKind::Sum => 1.0,
            ReduceKind::L1 => sign(it),
            ReduceKind::L2 if y == 0.0 => 0.0,
            ReduceKind::L2 => it / y,
            ReduceKind::SumSquare => 2.0 * it,
            // d ln(s) / d s = 1 / s, and s is exp(y).
            ReduceKind::LogSum => (-y).exp(),
            ReduceKind::LogSumExp => (it - y).exp(),
            ReduceKind::Prod => others(by, i, at, x),
            ReduceKind::Max | ReduceKind::Min => 0.0,
        };
    }
}

/// The product of all elements but the `own`-th, right also where one is 0.
fn others(by: &[usize], own: usize, at: usize, x: &[f32]) -> f32 {
    let rest = by.iter().enumerate().filter(|it| it.0 != own);
    rest.map(|(_, by)| f64::from(x[at + by])).product::<f64>() as f32
}
