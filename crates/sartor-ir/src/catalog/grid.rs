//! Sampling at given places (<https://onnx.ai/onnx/operators/onnx__GridSample.html>, opsets 16, 20 and 22,
//! <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>,
//! <https://onnx.ai/onnx/operators/onnx__DeformConv.html>).

use super::{Entry, Made, no_axes, passing_channels, shapeless, typed, value};
use crate::{
    Attr, Conv, Dim, Fact, Named,
    op::{required, shape_of},
    shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "GridSample", infer: infer_grid_sample, axes: passing_channels },
    Entry { domain: "", name: "AffineGrid", infer: infer_affine_grid, axes: no_axes },
    Entry { domain: "", name: "DeformConv", infer: infer_deform_conv, axes: no_axes },
];

fn infer_grid_sample(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let (Some(x), Some(grid)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else {
        return Ok(vec![shapeless(inputs, 0)]);
    };
    let fits = x.len() >= 3
        && grid.len() == x.len()
        && x[0].compatible(&grid[0])
        && grid[x.len() - 1].compatible(&Dim::Known(x.len() - 2));
    if !fits {
        return Err(format!("grid {} does not fit input {}", list(grid), list(x)));
    }
    let shape = [&[x[0].or(&grid[0]), x[1].clone()], &grid[1..x.len() - 1]].concat();
    Ok(vec![typed(inputs, 0, shape)])
}

/// `theta [n, d, d + 1], size [n, c, …]`: where the grid of an affine map lies.
fn infer_affine_grid(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let Some(theta) = required(inputs, 0) else { return Ok(vec![None]) };
    let size = required(inputs, 1).and_then(|it| it.value.as_ref());
    let Some(size) = size else { return Ok(vec![shapeless(inputs, 0)]) };
    let dims: Vec<Dim> = size.elements().iter().map(crate::Scalar::to_dim).collect();
    if !(4..=5).contains(&dims.len()) {
        return Err(format!("size {} has no 2 or 3 axes of space", list(&dims)));
    }
    let mut shape = vec![dims[0].clone()];
    shape.extend_from_slice(&dims[2..]);
    shape.push(Dim::Known(dims.len() - 2));
    Ok(vec![value(theta.ty.dtype, Some(shape))])
}

/// `X, W, offset, B?, mask?`: the shape is that of the plain convolution.
fn infer_deform_conv(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Made {
    let mut plain = inputs.to_vec();
    plain.truncate(2);
    plain.push(required(inputs, 3));
    deformed(op)?.infer(&plain, n_outputs)
}

/// The convolution that `DeformConv` is without its offsets.
fn deformed(op: &Named) -> Result<crate::Op, String> {
    let mut attributes = op.attributes.clone();
    attributes.take("offset_group");
    // Without the attribute the weight says it.
    if let Some(Attr::Ints(it)) = attributes.get("kernel_shape")
        && it.is_empty()
    {
        attributes.take("kernel_shape");
    }
    match crate::Op::from_attributes("Conv", attributes) {
        Some(it) => it.map_err(|it| it.to_string()),
        None => Ok(crate::Op::Conv(Conv { group: 1, spatial: crate::Spatial::default() })),
    }
}
