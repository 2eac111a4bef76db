//! The adjoint of broadcasting: sums over what was repeated.

use crate::{Array, reference::layout::View};

/// The sum of `gradient` over the axes along which an operand of `shape` was repeated to the gradient's
/// shape, accumulated in 64 bits.
///
/// # Errors
/// If `shape` does not broadcast to the gradient's.
pub(crate) fn reduced(gradient: &Array, shape: &[usize]) -> Result<Array, String> {
    if gradient.shape == shape {
        return Ok(gradient.clone());
    }
    let g = super::floats(gradient);
    Ok(Array::f32(shape, sum(&g, &gradient.shape, shape)?))
}

/// As [`reduced`], on slices.
pub(crate) fn sum(g: &[f32], from: &[usize], to: &[usize]) -> Result<Vec<f32>, String> {
    let view = View::expand(to, from)
        .ok_or_else(|| format!("shape {to:?} does not broadcast to {from:?}"))?;
    let mut sums = vec![0.0f64; to.iter().product()];
    scatter(&view, g, &mut sums);
    Ok(sums.into_iter().map(|it| it as f32).collect())
}

/// Adds each element of `g`, in the view's order, to the element of `x` that the view shows there: the
/// adjoint of [`View::copy`].
pub(crate) fn scatter(view: &View, g: &[f32], x: &mut [f64]) {
    let (row, stride) =
        (view.shape.last().copied().unwrap_or(1), view.strides.last().copied().unwrap_or(1));
    let mut rest = g;
    view.for_each_row(|at| {
        let (run, tail) = rest.split_at(row);
        rest = tail;
        match stride {
            0 => x[at] += run.iter().map(|&it| f64::from(it)).sum::<f64>(),
            1 => x[at..at + row].iter_mut().zip(run).for_each(|(x, &g)| *x += f64::from(g)),
            _ => {
                for (i, &g) in run.iter().enumerate() {
                    x[at.wrapping_add_signed(i.cast_signed() * stride)] += f64::from(g);
                }
            }
        }
    });
}

/// `array` repeated to `shape`.
///
/// # Errors
/// If it does not broadcast to it.
pub(crate) fn spread(array: &Array, shape: &[usize]) -> Result<Vec<f32>, String> {
    let view = View::expand(&array.shape, shape)
        .ok_or_else(|| format!("shape {:?} does not broadcast to {shape:?}", array.shape))?;
    Ok(view.read(&super::floats(array)))
}
