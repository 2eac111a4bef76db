//! Pooling and reductions.

use rayon::prelude::*;
use sartor_ir::{GlobalPool, Pool, PoolKind, Reduce, ReduceKind};

use super::{Kernel, Prepared, Site, of_first};
use crate::reference::{
    self,
    conv::Window,
    pool,
    reduce::{self, ReduceView},
};

#[derive(Debug)]
struct PoolKernel {
    kind: PoolKind,
    axes: Vec<Window>,
    /// Extents with padding, where pads count as zeros.
    padded: Option<Vec<usize>>,
}

pub(super) fn prepare(it: &Pool, site: &Site<'_>) -> Option<Prepared> {
    if site.node.outputs.get(1).copied().flatten().is_some() {
        return None;
    }
    let x = site.shape_of(0)?;
    let axes = reference::windows(&it.spatial, &[], &x[2..], &site.shape[2..]).ok()?;
    let rows = it.spatial.geometry(&[], &x[2..]).ok()?;
    let padded = rows.iter().zip(&x[2..]).map(|(row, &n)| row[3] + n + row[4]).collect();
    of_first(PoolKernel { kind: it.kind, axes, padded: it.count_include_pad.then_some(padded) })
}

impl Kernel for PoolKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let input: usize = self.axes.iter().map(|it| it.input).product();
        let output: usize = self.axes.iter().map(|it| it.output).product();
        if output == 0 {
            return;
        }
        let planes = 16384usize.div_ceil(output.max(input).max(1));
        y.par_chunks_mut(planes * output).enumerate().for_each(|(i, y)| {
            let count = y.len() / output;
            let x = &inputs[0][i * planes * input..][..count * input];
            y.copy_from_slice(&match self.kind {
                PoolKind::Max => pool::max_pool(x, count, &self.axes).0,
                PoolKind::Average => {
                    pool::average_pool(x, count, &self.axes, self.padded.as_deref())
                }
            });
        });
    }
}

#[derive(Debug)]
struct ReduceKernel {
    kind: ReduceKind,
    view: ReduceView,
}

pub(super) fn prepare_global(it: GlobalPool, site: &Site<'_>) -> Option<Prepared> {
    let x = site.shape_of(0)?;
    let axes: Vec<usize> = (2..x.len()).collect();
    let kind = match it {
        GlobalPool::Average => ReduceKind::Mean,
        GlobalPool::Max => ReduceKind::Max,
    };
    of_first(ReduceKernel { kind, view: ReduceView::new(x, &axes) })
}

pub(super) fn prepare_reduce(it: &Reduce, site: &Site<'_>) -> Option<Prepared> {
    let x = site.shape_of(0)?;
    if !site.absent(1) && site.constants.get(1)?.is_none() {
        return None;
    }
    let axes = it.resolve(reference::integers(&site.arrays(), 1).as_deref(), x.len()).ok()?;
    of_first(ReduceKernel { kind: it.kind, view: ReduceView::new(x, &axes) })
}

impl Kernel for ReduceKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let (x, reduced) = (inputs[0], &self.view.reduced);
        let straight = reduced.iter().enumerate().all(|(i, &at)| i == at);
        let lanes = 16384usize.div_ceil(reduced.len().max(1));
        y.par_chunks_mut(lanes).zip(self.view.kept.par_chunks(lanes)).for_each(|(y, kept)| {
            for (y, &at) in y.iter_mut().zip(kept) {
                *y = if straight {
                    reduce::reduce(
                        self.kind,
                        x[at..at + reduced.len()].iter().copied(),
                        reduced.len(),
                    )
                } else {
                    reduce::reduce(self.kind, reduced.iter().map(|&by| x[at + by]), reduced.len())
                };
            }
        });
    }
}
