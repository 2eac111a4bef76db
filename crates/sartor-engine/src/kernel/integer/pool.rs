//! Pooling of bytes, channels last.

use rayon::prelude::*;
use sartor_ir::{GlobalPool, Node, Op, PoolKind, ReduceKind};

use super::{Held, IntegerKernel, Source, has_layout, planes, turned};
use crate::{
    reference::{self, conv::Window, pool},
    simd::{self, Sink},
};

/// Elements below which images are not worth a second thread.
const PARALLEL: usize = 1 << 16;

#[derive(Debug)]
struct PoolKernel {
    shape: Vec<usize>,
    from: bool,
    channels: usize,
    inputs: usize,
    /// Input positions under each output position.
    windows: Vec<Vec<usize>>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Max,
    /// Zero of the input, steps of the result in one of the input, numbers under each position, limits and zero of the
    /// result.
    Mean {
        from_zero: i32,
        factor: f32,
        counts: Vec<f32>,
        bounds: (f32, f32),
        zero: u8,
    },
}

/// The kernel for a pooling node that reads `x` of this shape; `None` if it is none, or a maximum on another grid.
pub(crate) fn prepare(
    node: &Node,
    shape: &[usize],
    made: &[usize],
    axes: Option<&[i64]>,
    (x, y): (Held, Held),
    limits: (f32, f32),
) -> Option<Box<dyn IntegerKernel>> {
    let space = shape.get(2..).filter(|it| !it.is_empty())?;
    let (mean, windows, counts) = match &node.op {
        Op::Pool(it) => {
            if node.outputs.get(1).copied().flatten().is_some() {
                return None;
            }
            let axes = reference::windows(&it.spatial, &[], space, &made[2..]).ok()?;
            let rows = it.spatial.geometry(&[], space).ok()?;
            let padded: Vec<_> =
                rows.iter().zip(space).map(|(row, &n)| row[3] + n + row[4]).collect();
            let padded = it.count_include_pad.then_some(padded);
            let counts = pool::average_counts(&axes, padded.as_deref());
            (it.kind == PoolKind::Average, windows_of(&axes), counts)
        }
        Op::GlobalPool(it) => global(*it == GlobalPool::Average, space),
        Op::Reduce(it) if matches!(it.kind, ReduceKind::Mean | ReduceKind::Max) => {
            let axes = it.resolve(axes, shape.len()).ok()?;
            if axes != (2..shape.len()).collect::<Vec<_>>() {
                return None;
            }
            global(it.kind == ReduceKind::Mean, space)
        }
        _ => return None,
    };
    let unlimited = limits == (f32::NEG_INFINITY, f32::INFINITY);
    if windows.iter().any(Vec::is_empty) || !(mean || x.same_grid(y) && unlimited) {
        return None;
    }
    let work = if mean {
        Work::Mean {
            from_zero: i32::from(x.zero),
            factor: x.scale / y.scale,
            counts: counts.iter().map(|&it| it as f32).collect(),
            bounds: y.bounds(limits),
            zero: y.zero,
        }
    } else {
        Work::Max
    };
    let (channels, inputs) = planes(shape);
    let from = x.channels_last;
    Some(Box::new(PoolKernel { shape: shape.to_vec(), from, channels, inputs, windows, work }))
}

fn global(mean: bool, space: &[usize]) -> (bool, Vec<Vec<usize>>, Vec<usize>) {
    let all = space.iter().product();
    (mean, vec![(0..all).collect()], vec![all])
}

/// The input positions under each position of a window over one or more axes.
fn windows_of(axes: &[Window]) -> Vec<Vec<usize>> {
    let mut windows = vec![vec![0]];
    for axis in axes {
        let mut wider = Vec::with_capacity(windows.len() * axis.output);
        for window in &windows {
            for at in 0..axis.output {
                let taps: Vec<_> = (0..axis.kernel).filter_map(|tap| axis.index(at, tap)).collect();
                let under = |&outer: &usize| taps.iter().map(move |&it| outer * axis.input + it);
                wider.push(window.iter().flat_map(under).collect());
            }
        }
        windows = wider;
    }
    windows
}

impl PoolKernel {
    fn image(&self, x: &[u8], y: &mut [u8]) {
        let row = |at: usize| &x[at * self.channels..][..self.channels];
        let mut sums = vec![0; self.channels];
        for (at, (y, window)) in y.chunks_mut(self.channels).zip(&self.windows).enumerate() {
            match &self.work {
                Work::Max => {
                    y.copy_from_slice(row(window[0]));
                    window[1..].iter().for_each(|&it| simd::max_rows(row(it), y));
                }
                Work::Mean { from_zero, factor, counts, bounds, zero } => {
                    sums.fill(0);
                    for &it in window {
                        simd::sum_rows(row(it), &mut sums);
                    }
                    let offset = from_zero * window.len() as i32;
                    simd::scale_sums((offset, *factor, counts[at]), *bounds, *zero, &sums, y);
                }
            }
        }
    }
}

impl IntegerKernel for PoolKernel {
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>) {
        let Sink::Bytes(y) = y else { return };
        let x = turned(inputs[0].bytes(), &self.shape, self.from, has_layout(&self.shape));
        let (from, to) = (self.inputs * self.channels, self.windows.len() * self.channels);
        if from * to == 0 {
            return;
        }
        if x.len() <= PARALLEL {
            x.chunks(from).zip(y.chunks_mut(to)).for_each(|(x, y)| self.image(x, y));
        } else {
            x.par_chunks(from).zip(y.par_chunks_mut(to)).for_each(|(x, y)| self.image(x, y));
        }
    }
}
