//! Moving floats, and arithmetic with general broadcasting.

use sartor_ir::{Binary, Op, normalize_axis};

use super::{Kernel, Prepared, Site, of_first};
use crate::{
    reference::{
        self,
        elementwise::Number,
        layout::{self, View},
    },
    stage::for_operator,
};

/// The affine view of input 0 that the node's output is, if it is one.
pub(crate) fn view(site: &Site<'_>) -> Option<View> {
    let x = site.shape_of(0)?;
    let known = |i: usize| site.absent(i) || site.constants.get(i).is_some_and(Option::is_some);
    match &site.node.op {
        Op::Transpose(it) => Some(View::transpose(x, &it.resolve(x.len()).ok()?)),
        Op::Expand => View::expand(x, &site.shape),
        Op::Slice if (1..5).all(known) => {
            Some(View::slice(x, &reference::slice_windows(x, &site.arrays()).ok()?))
        }
        Op::Split(it) if known(1) => {
            let axis = normalize_axis(it.axis, x.len()).ok()?;
            let start = match reference::integers(&site.arrays(), 1) {
                Some(parts) => parts[..site.output].iter().map(|&it| it as usize).sum(),
                None => x[axis].div_ceil(site.node.outputs.len()) * site.output,
            };
            let mut windows: Vec<_> = x.iter().map(|&n| (0, 1, n)).collect();
            windows[axis] = (start, 1, site.shape[axis]);
            Some(View::slice(x, &windows))
        }
        _ => None,
    }
}

#[derive(Debug)]
struct ViewKernel(View);

impl Kernel for ViewKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        self.0.copy(inputs[0], y);
    }
}

#[derive(Debug)]
struct ConcatKernel {
    outer: usize,
    runs: Vec<usize>,
}

impl Kernel for ConcatKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let parts: Vec<_> = inputs.iter().copied().zip(self.runs.iter().copied()).collect();
        layout::concat(&parts, self.outer, y);
    }
}

#[derive(Debug)]
struct PadKernel {
    shape: Vec<usize>,
    tables: Vec<Vec<Option<usize>>>,
    fill: f32,
}

impl Kernel for PadKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        layout::pad(inputs[0], &self.shape, &self.tables, self.fill, y);
    }
}

#[derive(Debug)]
struct GatherKernel {
    extent: usize,
    inner: usize,
    picks: Vec<usize>,
}

impl Kernel for GatherKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        layout::gather(inputs[0], self.extent, self.inner, &self.picks, y);
    }
}

pub(super) fn prepare(site: &Site<'_>) -> Option<Prepared> {
    if let Some(view) = view(site) {
        return of_first(ViewKernel(view));
    }
    match &site.node.op {
        Op::Concat(it) => {
            let shapes: Vec<_> =
                (0..site.shapes.len()).map(|i| site.shape_of(i)).collect::<Option<_>>()?;
            let axis = normalize_axis(it.axis, site.shape.len()).ok()?;
            let runs = shapes.iter().map(|it| it[axis..].iter().product()).collect();
            let kernel = ConcatKernel { outer: site.shape[..axis].iter().product(), runs };
            Some(Prepared { kernel: Box::new(kernel), inputs: (0..shapes.len()).collect() })
        }
        Op::Pad(it) => {
            let fill = if site.absent(2) { 0.0 } else { *site.floats(2)?.first()? };
            let shape = site.shape_of(0)?.to_vec();
            let known = site.absent(3) || site.constants.get(3)?.is_some();
            let tables = if known {
                reference::pad_tables(it, &shape, &site.arrays()).ok()?
            } else {
                return None;
            };
            of_first(PadKernel { shape, tables, fill })
        }
        Op::Gather(it) => {
            let x = site.shape_of(0)?;
            let axis = normalize_axis(it.axis, x.len()).ok()?;
            let indices = site.constants.get(1)?.as_ref()?.to_i64();
            let picks = indices
                .iter()
                .map(|&it| normalize_axis(it, x[axis]))
                .collect::<Result<_, _>>()
                .ok()?;
            of_first(GatherKernel { extent: x[axis], inner: x[axis + 1..].iter().product(), picks })
        }
        _ => None,
    }
}

#[derive(Debug)]
struct BroadcastKernel {
    op: Binary,
    a: View,
    b: View,
    constants: [Option<Vec<f32>>; 2],
}

/// Arithmetic where neither side has the shape of the result or both are computed.
pub(super) fn prepare_broadcast(op: Binary, site: &Site<'_>) -> Option<Prepared> {
    let constants = [0, 1].map(|i| site.floats(i).map(<[f32]>::to_vec));
    let view = |i| View::expand(site.shape_of(i)?, &site.shape);
    let inputs = (0..2).filter(|&i| constants[i].is_none()).collect();
    Some(Prepared {
        kernel: Box::new(BroadcastKernel { op, a: view(0)?, b: view(1)?, constants }),
        inputs,
    })
}

impl Kernel for BroadcastKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let mut live = inputs.iter().copied();
        let [a, b] = [0, 1]
            .map(|i| self.constants[i].as_deref().or_else(|| live.next()).unwrap_or_default());
        let row = self.a.shape.last().copied().unwrap_or(1);
        let step = |it: &View| it.strides.last().map_or(1, |it| it.cast_unsigned());
        let (step_a, step_b) = (step(&self.a), step(&self.b));
        let mut starts = Vec::new();
        self.a.for_each_row(|at| starts.push(at));
        let mut next = 0;
        let mut rest = y;
        self.b.for_each_row(|at_b| {
            let at_a = starts[next];
            next += 1;
            let (run, tail) = std::mem::take(&mut rest).split_at_mut(row);
            rest = tail;
            for_operator!(self.op, false, f => match (step_a, step_b) {
                (1, 0) => run.iter_mut().zip(&a[at_a..]).for_each(|(y, &a)| *y = f(a, b[at_b])),
                (0, 1) => run.iter_mut().zip(&b[at_b..]).for_each(|(y, &b)| *y = f(a[at_a], b)),
                _ => run.iter_mut().enumerate().for_each(|(i, y)| *y = f(a[at_a + i * step_a], b[at_b + i * step_b])),
            });
        });
    }
}
