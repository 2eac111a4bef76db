//! Operators that choose, repeat or mark elements (<https://onnx.ai/onnx/operators/>).

use super::{Entry, Made, no_axes, passing, same, shapeless, typed, value};
use crate::{
    AxisLink, DType, Dim, Fact, Named, TensorType, normalize_axis,
    op::{required, shape_of},
    shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Tile", infer: infer_tile, axes: no_axes },
    Entry { domain: "", name: "OneHot", infer: infer_one_hot, axes: no_axes },
    Entry { domain: "", name: "NonZero", infer: infer_non_zero, axes: no_axes },
    Entry { domain: "", name: "Compress", infer: infer_compress, axes: no_axes },
    Entry { domain: "", name: "ReverseSequence", infer: same, axes: axes_reverse },
    Entry { domain: "", name: "Trilu", infer: same, axes: no_axes },
    Entry { domain: "", name: "EyeLike", infer: infer_eye_like, axes: no_axes },
    Entry { domain: "", name: "CumSum", infer: same, axes: no_axes },
    Entry { domain: "", name: "CumProd", infer: same, axes: no_axes },
    Entry { domain: "", name: "Det", infer: infer_det, axes: no_axes },
];

fn infer_tile(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    let Some(repeats) = required(inputs, 1).and_then(|it| it.value.as_ref()) else {
        return Ok(vec![typed(inputs, 0, vec![Dim::Unknown; x.len()])]);
    };
    if repeats.elements().len() != x.len() {
        return Err(format!("{} repeats for input {}", repeats.elements().len(), list(x)));
    }
    let repeated = x.iter().zip(repeats.elements()).map(|(dim, by)| dim.times(&by.to_dim()));
    Ok(vec![typed(inputs, 0, repeated.collect())])
}

/// `indices, depth, values`: an axis of extent `depth` is inserted.
fn infer_one_hot(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let Some(indices) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 2)]) };
    let axis = normalize_axis(op.int("axis", -1)?, indices.len() + 1)?;
    let depth = required(inputs, 1).and_then(|it| {
        let float = it.floats.as_ref().and_then(|it| it.first().map(|&it| it as i64));
        it.integers().and_then(|it| it.first().copied()).or(float)
    });
    let depth = depth.and_then(|it| usize::try_from(it).ok());
    let mut shape = indices.clone();
    shape.insert(axis, depth.map_or(Dim::Unknown, Dim::Known));
    Ok(vec![typed(inputs, 2, shape)])
}

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_non_zero(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let rank = shape_of(inputs, 0).map_or(Dim::Unknown, |it| Dim::Known(it.len()));
    Ok(vec![value(DType::I64, Some(vec![rank, Dim::Unknown]))])
}

fn infer_compress(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    if op.attributes.get("axis").is_none() {
        return Ok(vec![typed(inputs, 0, vec![Dim::Unknown])]);
    }
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    let axis = normalize_axis(op.int("axis", 0)?, x.len())?;
    let mut shape = x.clone();
    shape[axis] = Dim::Unknown;
    Ok(vec![typed(inputs, 0, shape)])
}

/// All axes but the two that take part.
fn axes_reverse(_: &Named, inputs: &[Option<&Fact>], _: &[Option<&TensorType>]) -> Vec<AxisLink> {
    passing(inputs, 2..usize::MAX)
}

fn infer_eye_like(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let dtype = op.dtype("dtype")?;
    let like = required(inputs, 0);
    Ok(vec![like.map(|it| it.with_dtype(dtype.unwrap_or(it.ty.dtype)))])
}

fn infer_det(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    let [lead @ .., rows, columns] = x.as_slice() else {
        return Err(format!("input {} is no matrix", list(x)));
    };
    if !rows.compatible(columns) {
        return Err(format!("the matrices of input {} are not square", list(x)));
    }
    Ok(vec![typed(inputs, 0, lead.to_vec())])
}
