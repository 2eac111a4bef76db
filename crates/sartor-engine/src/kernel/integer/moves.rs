//! Moving bytes: slices, pads, concatenations, transpositions and new shapes, on the same grid.

use rayon::prelude::*;
use sartor_ir::{Op, normalize_axis};

use super::{Held, IntegerKernel, Source, order, turned};
use crate::{
    kernel::Site,
    reference::{
        self,
        layout::{self, View},
    },
    simd::Sink,
};

/// Bytes below which images are not worth a second thread.
const PARALLEL: usize = 1 << 16;

#[derive(Debug)]
struct MoveKernel {
    /// Shape and place of the channels of each input, and where they are wanted.
    inputs: Vec<(Vec<usize>, bool, bool)>,
    /// Shape of the result, whether its channels are moved last after the work, and where they are after.
    shape: Vec<usize>,
    turn: bool,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Copy,
    View { view: View, images: usize },
    Pad { shape: Vec<usize>, tables: Vec<Vec<Option<usize>>>, fill: u8 },
    Concat { outer: usize, runs: Vec<usize> },
}

/// The kernel for a node that moves what `xs` hold into `y`; `None` if it is none or grids differ.
pub(crate) fn prepare(site: &Site<'_>, xs: &[Held], y: Held) -> Option<Box<dyn IntegerKernel>> {
    let x = xs.first()?;
    if !xs.iter().all(|it| it.same_grid(y)) {
        return None;
    }
    let shape = site.shape_of(0)?;
    let last = y.channels_last && x.channels_last && site.shape.len() == shape.len();
    let axes = order(shape.len(), last);
    let lie = |shape: &[usize]| -> Vec<usize> { axes.iter().map(|&it| shape[it]).collect() };
    let work = match &site.node.op {
        Op::Slice if (1..5).all(|i| site.is_known(i)) => {
            let windows = reference::slice_windows(shape, &site.arrays()).ok()?;
            let windows: Vec<_> = axes.iter().map(|&it| windows[it]).collect();
            by_image(View::slice(&lie(shape), &windows), shape)
        }
        Op::Pad(it) if site.is_known(3) => {
            let fill = if site.absent(2) { 0.0 } else { *site.floats(2)?.first()? };
            let tables = reference::pad_tables(it, shape, &site.arrays()).ok()?;
            let tables = axes.iter().map(|&it| tables[it].clone()).collect();
            let fill = (y.steps(fill) + f32::from(y.zero)) as u8;
            Work::Pad { shape: lie(shape), tables, fill }
        }
        Op::Concat(it) => {
            let axis = normalize_axis(it.axis, shape.len()).ok()?;
            let at = axes.iter().position(|&it| it == axis)?;
            let run = |i: usize| Some(lie(site.shape_of(i)?)[at..].iter().product());
            let runs = (0..xs.len()).map(run).collect::<Option<_>>()?;
            Work::Concat { outer: lie(&site.shape)[..at].iter().product(), runs }
        }
        Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze | Op::Identity => Work::Copy,
        Op::Transpose(it) => {
            let view = View::transpose(shape, &it.resolve(shape.len()).ok()?);
            Work::View { view, images: 1 }
        }
        _ => return None,
    };
    let last = last && !matches!(work, Work::Copy) && !matches!(site.node.op, Op::Transpose(_));
    let inputs = xs
        .iter()
        .enumerate()
        .map(|(i, it)| Some((site.shape_of(i)?.to_vec(), it.channels_last, last)))
        .collect::<Option<_>>()?;
    let turn = y.channels_last && !last;
    Some(Box::new(MoveKernel { inputs, shape: site.shape.clone(), turn, work }))
}

/// A view that keeps the first axis is done image by image.
fn by_image(view: View, shape: &[usize]) -> Work {
    let image: usize = shape[1..].iter().product();
    let same = view.shape[0] == shape[0] && view.strides[0] == image.cast_signed();
    if same && view.offset < image && shape[0] > 1 {
        let images = shape[0];
        let mut view = view;
        view.shape[0] = 1;
        return Work::View { view, images };
    }
    Work::View { view, images: 1 }
}

impl Work {
    fn run(&self, xs: &[&[u8]], y: &mut [u8]) {
        match self {
            Work::Copy => y.copy_from_slice(xs[0]),
            Work::View { view, images } => {
                let (from, to) = (xs[0].len() / images, y.len() / images);
                if from * to == 0 {
                    return;
                }
                if y.len() <= PARALLEL {
                    xs[0].chunks(from).zip(y.chunks_mut(to)).for_each(|(x, y)| view.copy(x, y));
                } else {
                    let parts = xs[0].par_chunks(from).zip(y.par_chunks_mut(to));
                    parts.for_each(|(x, y)| view.copy(x, y));
                }
            }
            Work::Pad { shape, tables, fill } => pad(xs[0], shape, tables, *fill, y),
            Work::Concat { outer, runs } => {
                let parts: Vec<_> = xs.iter().copied().zip(runs.iter().copied()).collect();
                layout::concat(&parts, *outer, y);
            }
        }
    }
}

/// As [`layout::pad`], whole rows at once where the last axis only gets longer.
fn pad(x: &[u8], shape: &[usize], tables: &[Vec<Option<usize>>], fill: u8, y: &mut [u8]) {
    let (Some((last, outer)), Some(&n)) = (tables.split_last(), shape.last()) else { return };
    let before = last.iter().take_while(|it| it.is_none()).count();
    let inner = last.iter().skip(before).take(n).copied();
    if last.is_empty() {
        return;
    }
    let whole = inner.eq((0..n).map(Some)) && last.iter().flatten().count() == n;
    if !whole || n == 0 {
        return layout::pad(x, shape, tables, fill, y);
    }
    for (i, row) in y.chunks_exact_mut(last.len()).enumerate() {
        let (mut rest, mut at, mut pitch) = (i, Some(0), n);
        for (table, extent) in outer.iter().zip(shape).rev() {
            let own = table[rest % table.len()];
            at = at.zip(own).map(|(sum, own)| sum + own * pitch);
            (rest, pitch) = (rest / table.len(), pitch * extent);
        }
        row.fill(fill);
        if let Some(at) = at {
            row[before..before + n].copy_from_slice(&x[at..at + n]);
        }
    }
}

impl IntegerKernel for MoveKernel {
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>) {
        let Sink::Bytes(y) = y else { return };
        let turned_inputs: Vec<_> = inputs
            .iter()
            .zip(&self.inputs)
            .map(|(x, (shape, from, to))| turned(x.bytes(), shape, *from, *to))
            .collect();
        let xs: Vec<&[u8]> = turned_inputs.iter().map(AsRef::as_ref).collect();
        self.work.run(&xs, y);
        if self.turn {
            let made = turned(y, &self.shape, false, true).into_owned();
            y.copy_from_slice(&made);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_get_longer_are_padded() {
        let tables = [vec![None, Some(0), Some(1)], vec![None, Some(0), Some(1), Some(2), None]];
        let x = [1, 2, 3, 4, 5, 6];
        let (mut fast, mut plain) = ([0; 15], [0; 15]);
        pad(&x, &[2, 3], &tables, 9, &mut fast);
        layout::pad(&x, &[2, 3], &tables, 9, &mut plain);
        assert_eq!(fast, plain);
        assert_eq!(fast, [9, 9, 9, 9, 9, 9, 1, 2, 3, 9, 9, 4, 5, 6, 9]);
    }
}
