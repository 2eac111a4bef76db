//! Gradients of operators that move elements: each element's gradient goes back to where it came from.

use sartor_ir::{Pad, PadMode, Transpose, normalize_axis};

use super::{Context, Made, broadcast, floats};
use crate::{
    Array,
    reference::{
        integers,
        layout::{View, strides},
        pad_tables, slice_windows,
    },
};

/// The same elements under another shape.
pub(super) fn reshape(context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let shape = context.input(0)?.shape.clone();
        g.clone().reshaped(shape).ok_or_else(|| "the element counts differ".to_owned())
    })
}

pub(super) fn transpose(it: &Transpose, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let perm = it.resolve(g.shape.len())?;
        let mut back = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(to, &from)| back[from] = to);
        let view = View::transpose(&g.shape, &back);
        Ok(Array::f32(&view.shape, view.read(&floats(g))))
    })
}

/// Sends `g` back through a view of an input of `shape`.
fn unviewed(view: &View, g: &Array, shape: &[usize]) -> Array {
    let mut sums = vec![0.0; shape.iter().product()];
    broadcast::scatter(view, &floats(g), &mut sums);
    Array::f32(shape, sums.into_iter().map(|it| it as f32).collect())
}

/// A window of the gradient along one axis.
fn window(g: &Array, axis: usize, start: usize, count: usize) -> Array {
    let mut windows: Vec<_> = g.shape.iter().map(|&n| (0, 1, n)).collect();
    windows[axis] = (start, 1, count);
    let view = View::slice(&g.shape, &windows);
    Array::f32(&view.shape, view.read(&floats(g)))
}

pub(super) fn concat(axis: i64, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let axis = normalize_axis(axis, g.shape.len())?;
    let mut start = 0;
    for (i, part) in made.iter_mut().enumerate() {
        let Some(input) = context.optional(i) else { continue };
        if context.wants(i) {
            *part = Some(window(g, axis, start, input.shape[axis]));
        }
        start += input.shape[axis];
    }
    Ok(made)
}

pub(super) fn split(axis: i64, context: &Context<'_>) -> Made {
    context.first(|| {
        let x = context.input(0)?;
        let axis = normalize_axis(axis, x.shape.len())?;
        let n = x.shape[axis];
        let given = integers(context.inputs, 1);
        let part = n.div_ceil(context.gradients.len().max(1));
        let inner: usize = x.shape[axis + 1..].iter().product();
        let row = n * inner;
        let (mut dx, mut start) = (vec![0.0; x.len()], 0);
        for i in 0..context.gradients.len() {
            let count = given.as_ref().map_or(part.min(n - start), |it| it[i] as usize);
            let run = count * inner;
            if let (Some(g), true) = (context.gradient(i), row > 0 && run > 0) {
                for (dx, g) in dx.chunks_exact_mut(row).zip(floats(g).chunks_exact(run)) {
                    dx[start * inner..][..run].copy_from_slice(g);
                }
            }
            start += count;
        }
        Ok(Array::f32(&x.shape, dx))
    })
}

pub(super) fn slice(context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let view = View::slice(&x.shape, &slice_windows(&x.shape, context.inputs)?);
        Ok(unviewed(&view, g, &x.shape))
    })
}

/// Elements that stand in several places get the sum; the value of a constant padding gets what falls
/// outside the input.
pub(super) fn pad(it: &Pad, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let x = context.input(0)?;
    let tables = pad_tables(it, &x.shape, context.inputs)?;
    let from = strides(&x.shape);
    let (mut sums, mut outside) = (vec![0.0f64; x.len()], 0.0f64);
    for (i, &g) in floats(g).iter().enumerate() {
        let (mut rest, mut at) = (i, Some(0));
        for (axis, table) in tables.iter().enumerate().rev() {
            let own = table[rest % table.len()];
            at = at.zip(own).map(|(sum, own)| sum + own * from[axis]);
            rest /= table.len();
        }
        match at {
            Some(at) => sums[at] += f64::from(g),
            None => outside += f64::from(g),
        }
    }
    if context.wants(0) {
        made[0] = Some(Array::f32(&x.shape, sums.into_iter().map(|it| it as f32).collect()));
    }
    if let (true, Some(fill), PadMode::Constant) = (context.wants(2), context.optional(2), it.mode)
    {
        made[2] = Some(Array::f32(&fill.shape, vec![outside as f32]));
    }
    Ok(made)
}

pub(super) fn expand(context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| broadcast::reduced(g, &context.input(0)?.shape))
}

/// A row that was picked several times gets the sum.
pub(super) fn gather(axis: i64, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let (x, indices) = (context.input(0)?, context.input(1)?.to_i64());
        let axis = normalize_axis(axis, x.shape.len())?;
        let (extent, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
        let mut dx = vec![0.0f32; x.len()];
        let slab = indices.len() * inner;
        if slab > 0 && extent > 0 {
            let g = floats(g);
            for (dx, g) in dx.chunks_exact_mut(extent * inner).zip(g.chunks_exact(slab)) {
                for (&index, g) in indices.iter().zip(g.chunks_exact(inner)) {
                    let at = normalize_axis(index, extent)?;
                    let row = &mut dx[at * inner..][..inner];
                    row.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
                }
            }
        }
        Ok(Array::f32(&x.shape, dx))
    })
}
