//! Pools: means over whole planes, and the largest of a window.

use rayon::prelude::*;
use sartor_ir::{GlobalPool, Op, Pool, PoolKind, ReduceKind};

use super::{Fast, Made, Reads, Seen, Site, made};
use crate::{
    reference::{self, conv::Window},
    simd::{ConvShape, Into, global_average, global_average_backward, max_pool_backward},
};

/// The mean of each run of so many elements.
#[derive(Debug)]
struct PlaneMean(usize);

pub(super) fn prepare(site: &Site<'_>) -> Option<Made> {
    match &site.step.op {
        Op::Pool(it) if it.kind == PoolKind::Max => max_pool(it, site),
        _ => mean(site),
    }
}

/// A pool or reduction that is the mean over all but the first axes.
fn mean(site: &Site<'_>) -> Option<Made> {
    let x = &site.shapes[0];
    let kept = match &site.step.op {
        Op::GlobalPool(GlobalPool::Average) => 2,
        Op::Pool(it) if it.kind == PoolKind::Average && site.step.outputs.len() == 1 => {
            let axes =
                reference::windows(&it.spatial, &[], x.get(2..)?, site.output.get(2..)?).ok()?;
            let whole = |it: &Window| {
                it.output == 1 && it.kernel == it.input && it.pad == 0 && it.dilation == 1
            };
            if !axes.iter().all(whole) {
                return None;
            }
            2
        }
        Op::Reduce(it) if it.kind == ReduceKind::Mean => {
            let known = !site.given(1) || site.constants[1].is_some();
            let list = known.then(|| reference::integers(&site.constants, 1))?;
            let axes = it.resolve(list.as_deref(), x.len()).ok()?;
            let kept = x.len() - axes.len();
            (axes == (kept..x.len()).collect::<Vec<_>>()).then_some(kept)?
        }
        _ => return None,
    };
    let positions: usize = x.get(kept..)?.iter().product();
    if positions == 0 || !site.floats(1) {
        return None;
    }
    made(PlaneMean(positions), &[0])
}

impl Fast for PlaneMean {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        global_average(self.0, inputs[0], y);
    }

    fn backward(&mut self, _seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        if let Some(dx) = &mut into[0] {
            global_average_backward(self.0, dy, dx.accumulate, dx.values);
        }
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }
}

#[derive(Debug)]
struct MaxPool {
    axes: Vec<Window>,
    shape: ConvShape,
}

fn max_pool(it: &Pool, site: &Site<'_>) -> Option<Made> {
    let (x, y) = (&site.shapes[0], &site.output);
    let axes = reference::windows(&it.spatial, &[], x.get(2..)?, y.get(2..)?).ok()?;
    let shape = ConvShape::of_windows(&axes, (x[0], x[1], x[1]), x[1])?;
    if site.floats(1) { made(MaxPool { axes, shape }, &[0]) } else { None }
}

impl Fast for MaxPool {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        let s = &self.shape;
        let (input, output) = (s.in_h * s.in_w, s.out_h * s.out_w);
        if output == 0 {
            return;
        }
        let planes = 16384usize.div_ceil(output.max(input));
        y.par_chunks_mut(planes * output).enumerate().for_each(|(i, y)| {
            let count = y.len() / output;
            let x = &inputs[0][i * planes * input..][..count * input];
            y.copy_from_slice(&reference::pool::max_pool(x, count, &self.axes).0);
        });
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        if let Some(dx) = &mut into[0] {
            max_pool_backward(&self.shape, seen.inputs[0], dy, dx.accumulate, dx.values);
        }
    }

    fn reads(&self) -> Reads {
        Reads::inputs(&[0])
    }
}
