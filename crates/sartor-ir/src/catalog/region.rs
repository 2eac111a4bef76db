//! Regions of interest and boxes (<https://onnx.ai/onnx/operators/onnx__RoiAlign.html>, opsets 10, 16 and
//! 22, <https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>).

use super::{Entry, Made, extent_of, no_axes, shapeless, typed, value};
use crate::{DType, Dim, Fact, Named, op::shape_of, shape::list};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "RoiAlign", infer: infer_align, axes: no_axes },
    Entry { domain: "", name: "MaxRoiPool", infer: infer_max_pool, axes: no_axes },
    Entry { domain: "", name: "NonMaxSuppression", infer: infer_suppression, axes: no_axes },
];

fn pooled(inputs: &[Option<&Fact>], height: i64, width: i64) -> Made {
    let (Some(x), Some(regions)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else {
        return Ok(vec![shapeless(inputs, 0)]);
    };
    if x.len() != 4 || regions.len() != 2 {
        return Err(format!("regions {} do not fit input {}", list(regions), list(x)));
    }
    let shape = vec![regions[0].clone(), x[1].clone(), extent_of(height)?, extent_of(width)?];
    Ok(vec![typed(inputs, 0, shape)])
}

fn infer_align(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    pooled(inputs, op.int("output_height", 1)?, op.int("output_width", 1)?)
}

fn infer_max_pool(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    match op.ints("pooled_shape")? {
        Some(&[height, width]) => pooled(inputs, height, width),
        other => Err(format!("attribute `pooled_shape`: expected two extents, found {other:?}")),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_suppression(_: &Named, _: &[Option<&Fact>], _: usize) -> Made {
    Ok(vec![value(DType::I64, Some(vec![Dim::Unknown, Dim::Known(3)]))])
}
