//! Order and extremes along an axis (<https://onnx.ai/onnx/operators/onnx__TopK.html>, opsets 1, 10 and
//! 11, <https://onnx.ai/onnx/operators/onnx__ArgMax.html>, <https://onnx.ai/onnx/operators/onnx__Unique.html>).

use super::{Entry, Made, extent_of, no_axes, shapeless, typed, value};
use crate::{
    DType, Dim, Fact, Named, normalize_axis,
    op::{required, shape_of},
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "TopK", infer: infer_top, axes: no_axes },
    Entry { domain: "", name: "ArgMax", infer: infer_arg, axes: no_axes },
    Entry { domain: "", name: "ArgMin", infer: infer_arg, axes: no_axes },
    Entry { domain: "", name: "Unique", infer: infer_unique, axes: no_axes },
];

fn infer_top(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let Some(x) = shape_of(inputs, 0) else {
        return Ok(vec![shapeless(inputs, 0), value(DType::I64, None)]);
    };
    let axis = normalize_axis(op.int("axis", -1)?, x.len())?;
    let mut shape = x.clone();
    shape[axis] = if op.version < 10 {
        extent_of(op.int("k", -1)?)?
    } else {
        let count = required(inputs, 1).and_then(|it| it.value.as_ref());
        count.and_then(|it| it.elements().first()).map_or(Dim::Unknown, crate::Scalar::to_dim)
    };
    if let (Some(count), Some(extent)) = (shape[axis].known(), x[axis].known())
        && count > extent
    {
        return Err(format!("{count} of {extent} elements were asked for"));
    }
    Ok(vec![typed(inputs, 0, shape.clone()), value(DType::I64, Some(shape))])
}

fn infer_arg(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let keep = op.flag("keepdims", true)?;
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![value(DType::I64, None)]) };
    let axis = normalize_axis(op.int("axis", 0)?, x.len())?;
    let mut shape = x.clone();
    if keep {
        shape[axis] = Dim::Known(1);
    } else {
        shape.remove(axis);
    }
    Ok(vec![value(DType::I64, Some(shape))])
}

fn infer_unique(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let indices = || value(DType::I64, Some(vec![Dim::Unknown]));
    let values = if op.attributes.get("axis").is_none() {
        typed(inputs, 0, vec![Dim::Unknown])
    } else if let Some(x) = shape_of(inputs, 0) {
        let axis = normalize_axis(op.int("axis", 0)?, x.len())?;
        let mut shape = x.clone();
        shape[axis] = Dim::Unknown;
        typed(inputs, 0, shape)
    } else {
        shapeless(inputs, 0)
    };
    Ok(vec![values, indices(), indices(), indices()])
}
