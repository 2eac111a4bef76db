//! Operators that move elements without computing (<https://onnx.ai/onnx/operators/>).

mod reshape;
mod select;

pub use reshape::{Flatten, Reshape, Shape, Transpose};
pub(super) use reshape::{
    axes_reshape, axes_shape, infer_expand, infer_size, infer_squeeze, infer_unsqueeze,
};
pub use select::slice_bounds;
pub use select::{Concat, ConstantOfShape, Gather, Pad, PadMode, Split};
pub(super) use select::{axes_slice, infer_pad, infer_range, infer_slice};

/// An axis counted from the front.
///
/// # Errors
/// An axis outside `-rank..rank`.
pub fn normalize_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = rank as i64;
    match axis {
        it if (0..signed).contains(&it) => Ok(it as usize),
        it if (-signed..0).contains(&it) => Ok((it + signed) as usize),
        _ => Err(format!("axis {axis} is out of range for rank {rank}")),
    }
}

/// Several axes counted from the front, in ascending order.
pub(crate) fn normalize_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut list =
        axes.iter().map(|&it| normalize_axis(it, rank)).collect::<Result<Vec<_>, _>>()?;
    list.sort_unstable();
    let count = list.len();
    list.dedup();
    if list.len() < count { Err(format!("axes {axes:?} repeat an axis")) } else { Ok(list) }
}

/// A file may claim a shape of any length; no tensor has more axes than this.
const MOST_AXES: usize = 64;

/// A shape of `rank` unknown extents; `None` for a rank beyond reason.
fn unknown_shape(rank: usize) -> Option<Vec<crate::Dim>> {
    (rank <= MOST_AXES).then(|| vec![crate::Dim::Unknown; rank])
}
