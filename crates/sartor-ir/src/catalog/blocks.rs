//! Blocks of channels and space (<https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>,
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>,
//! <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html>).

use super::{Entry, Made, no_axes, shapeless, typed};
use crate::{
    Dim, Fact, Named, normalize_axis,
    op::{required, shape_of},
    shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "DepthToSpace", infer: infer_blocks, axes: no_axes },
    Entry { domain: "", name: "SpaceToDepth", infer: infer_blocks, axes: no_axes },
    Entry { domain: "", name: "CenterCropPad", infer: infer_center, axes: no_axes },
];

fn infer_blocks(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let block = usize::try_from(op.int("blocksize", 0)?).unwrap_or(0);
    if block == 0 || block > 1 << 16 {
        return Err(format!("attribute `blocksize`: {block} is no block"));
    }
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    let [n, c, h, w] = x.as_slice() else {
        return Err(format!("input {} is not of rank 4", list(x)));
    };
    let grown = |dim: &Dim, by: usize| dim.times(&Dim::Known(by));
    let shrunk = |dim: &Dim, by: usize| match dim.known() {
        Some(n) if n % by == 0 => Ok(Dim::Known(n / by)),
        Some(n) => Err(format!("an extent of {n} does not split into blocks of {by}")),
        None => Ok(Dim::Unknown),
    };
    let shape = if op.name == "DepthToSpace" {
        vec![n.clone(), shrunk(c, block * block)?, grown(h, block), grown(w, block)]
    } else {
        vec![n.clone(), grown(c, block * block), shrunk(h, block)?, shrunk(w, block)?]
    };
    Ok(vec![typed(inputs, 0, shape)])
}

fn infer_center(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    let all: Vec<i64> = (0..x.len() as i64).collect();
    let axes = op.ints("axes")?.unwrap_or(&all);
    let wanted = required(inputs, 1).and_then(|it| it.value.as_ref());
    let mut shape = x.clone();
    for (i, &axis) in axes.iter().enumerate() {
        let at = normalize_axis(axis, x.len())?;
        shape[at] = match wanted {
            Some(it) => {
                it.elements().get(i).ok_or("the shape has fewer entries than axes")?.to_dim()
            }
            None => Dim::Unknown,
        };
    }
    Ok(vec![typed(inputs, 0, shape)])
}
