//! Picking and placing by indices (<https://onnx.ai/onnx/operators/onnx__GatherElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherND.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html>,
//! <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>).

use super::{Entry, Made, no_axes, same, shapeless, typed};
use crate::{Fact, Named, op::shape_of, shape::list};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "GatherElements", infer: infer_gather_elements, axes: no_axes },
    Entry { domain: "", name: "GatherND", infer: infer_gather_nd, axes: no_axes },
    Entry { domain: "", name: "Scatter", infer: same, axes: no_axes },
    Entry { domain: "", name: "ScatterElements", infer: same, axes: no_axes },
    Entry { domain: "", name: "ScatterND", infer: same, axes: no_axes },
    Entry { domain: "", name: "TensorScatter", infer: same, axes: no_axes },
];

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_gather_elements(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    Ok(vec![match shape_of(inputs, 1) {
        Some(indices) => typed(inputs, 0, indices.clone()),
        None => shapeless(inputs, 0),
    }])
}

/// Indices of the last axis name an element or a slice of the rest, after `batch_dims` common axes.
fn infer_gather_nd(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let (Some(x), Some(indices)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else {
        return Ok(vec![shapeless(inputs, 0)]);
    };
    let batch = usize::try_from(op.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let Some((depth, lead)) = indices.split_last() else {
        return Err("the indices are a scalar".to_owned());
    };
    let Some(depth) = depth.known() else { return Ok(vec![shapeless(inputs, 0)]) };
    let named = batch.saturating_add(depth);
    if batch > lead.len() || named > x.len() {
        return Err(format!(
            "indices {} with {batch} common axes do not fit input {}",
            list(indices),
            list(x)
        ));
    }
    Ok(vec![typed(inputs, 0, [lead, &x[named..]].concat())])
}
