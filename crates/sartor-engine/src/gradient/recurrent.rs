//! Gradients of `RNN`, `GRU` and `LSTM` through time (Werbos 1990, "Backpropagation through time"): the walk
//! is repeated, then undone step by step; the gradients of the weights are products over all steps at once.

mod cell;

use std::borrow::Cow;

use rayon::prelude::*;
use sartor_ir::{
    Named,
    catalog::{Cell, Recurrent},
};

use super::{Context, Made, Rule, floats, narrowed};
use crate::{
    Array,
    reference::{
        gemm::Matrix,
        layout::View,
        recurrent::{Operands, Product, Sizes, Trace, Walk, swapped},
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "GRU", backward },
    Rule { domain: "", name: "LSTM", backward },
    Rule { domain: "", name: "RNN", backward },
];

/// Gradients of one direction.
struct Parts {
    x: Vec<f32>,
    w: Vec<f32>,
    r: Vec<f32>,
    b: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    p: Vec<f32>,
}

fn backward(op: &Named, context: &Context<'_>) -> Made {
    let inputs = narrowed(context.inputs);
    let inputs: Vec<_> = inputs.iter().map(Option::as_deref).collect();
    let operands = Operands::<f32>::new(Recurrent::of(op)?, &inputs)?;
    let outside = Outside::new(&operands, context);
    let directions: Vec<_> = (0..operands.it.reversed.len()).map(|d| operands.walk(d)).collect();
    let parts: Vec<Parts> = directions
        .par_iter()
        .enumerate()
        .map(|(d, walk)| Undo::new(walk, &outside, d).run([0, 1, 2].map(|i| context.wants(i))))
        .collect();
    Ok(assemble(&operands, context, &parts))
}

/// d loss / d output, in the order of steps.
struct Outside<'a> {
    /// `[steps, directions, batch, hidden]`.
    y: Option<Cow<'a, [f32]>>,
    /// Last states `[directions, batch, hidden]`.
    h: Option<Cow<'a, [f32]>>,
    c: Option<Cow<'a, [f32]>>,
    directions: usize,
}

impl<'a> Outside<'a> {
    fn new(operands: &Operands<'_, f32>, context: &Context<'a>) -> Self {
        let first = operands.it.batch_first;
        let last = |i: usize| {
            let it = context.gradient(i)?;
            Some(if first { Cow::Owned(swapped(&it.shape, &floats(it))) } else { floats(it) })
        };
        let y = context.gradient(0).map(|it| {
            if first {
                Cow::Owned(View::transpose(&it.shape, &[1, 2, 0, 3]).read(&floats(it)))
            } else {
                floats(it)
            }
        });
        Outside { y, h: last(1), c: last(2), directions: operands.it.reversed.len() }
    }
}

fn assemble(
    operands: &Operands<'_, f32>,
    context: &Context<'_>,
    parts: &[Parts],
) -> super::Gradients {
    let Sizes { steps, batch, input, hidden, .. } = operands.sizes;
    let mut made = context.zero();
    let stack = |pick: fn(&Parts) -> &[f32]| parts.iter().map(pick).collect::<Vec<_>>().concat();
    let first = operands.it.batch_first;
    let state = |values: Vec<f32>| {
        if first { swapped(&[parts.len(), batch, hidden], &values) } else { values }
    };
    for (i, (slot, input_array)) in made.iter_mut().zip(context.inputs).enumerate() {
        let (Some(array), true) = (input_array, context.wants(i)) else { continue };
        let values = match i {
            0 => {
                let mut sum = vec![0.0; steps * batch * input];
                for part in parts {
                    sum.iter_mut().zip(&part.x).for_each(|(sum, it)| *sum += it);
                }
                if first { swapped(&[steps, batch, input], &sum) } else { sum }
            }
            1 => stack(|it| &it.w),
            2 => stack(|it| &it.r),
            3 => stack(|it| &it.b),
            5 => state(stack(|it| &it.h)),
            6 => state(stack(|it| &it.c)),
            7 => stack(|it| &it.p),
            _ => continue,
        };
        *slot = Some(Array::f32(&array.shape, values));
    }
    made
}

/// A walk on its way back.
struct Undo<'a> {
    walk: &'a Walk<'a, f32>,
    trace: Trace<f32>,
    /// d loss / d output of this direction, `[steps, batch, hidden]`.
    dy: Vec<f32>,
    /// d loss / d state, behind the step at work: `[batch, hidden]`.
    dh: Vec<f32>,
    dc: Vec<f32>,
    /// d loss / d what the functions of the gates were applied to, by time.
    sums: Vec<f32>,
    /// The same for the product with the states, where a late reset gate stands between.
    products: Option<Vec<f32>>,
    /// d loss / d peephole weights.
    peepholes: Vec<f64>,
}

impl<'a> Undo<'a> {
    fn new(walk: &'a Walk<'a, f32>, outside: &Outside<'_>, d: usize) -> Self {
        let Sizes { steps, batch, hidden, rows, .. } = walk.sizes;
        let size = batch * hidden;
        let state = |it: &Option<Cow<'_, [f32]>>| {
            let mut state = match it {
                Some(it) => it[d * size..(d + 1) * size].to_vec(),
                None => vec![0.0; size],
            };
            walk.clear_empty(&mut state);
            state
        };
        let mut dy = vec![0.0; steps * size];
        if let Some(y) = &outside.y {
            for (t, to) in dy.chunks_exact_mut(size.max(1)).enumerate() {
                to.copy_from_slice(&y[(t * outside.directions + d) * size..][..size]);
            }
        }
        let late = walk.it.cell == Cell::Gru && walk.it.linear_before_reset;
        Undo {
            trace: walk.run(),
            dy,
            dh: state(&outside.h),
            dc: state(&outside.c),
            sums: vec![0.0; steps * batch * rows],
            products: late.then(|| vec![0.0; steps * batch * rows]),
            peepholes: vec![0.0; 3 * hidden],
            walk,
        }
    }

    fn run(mut self, wanted: [bool; 3]) -> Parts {
        let Sizes { steps, batch, input, hidden, rows } = self.walk.sizes;
        let mut part = vec![0.0; batch * rows];
        let mut back = vec![0.0; batch * hidden];
        for s in (0..steps).rev() {
            self.step(s, &mut part, &mut back);
        }
        let all = steps * batch;
        let form = Matrix::stored(all, rows, false);
        let mut parts = Parts {
            x: vec![0.0; if wanted[0] { all * input } else { 0 }],
            w: vec![0.0; rows * input],
            r: vec![0.0; rows * hidden],
            b: [by_row(&self.sums, rows), by_row(self.products(), rows)].concat(),
            h: std::mem::take(&mut self.dh),
            c: std::mem::take(&mut self.dc),
            p: self.peepholes.iter().map(|&it| it as f32).collect(),
        };
        let inputs = Matrix::stored(all, input, false);
        if wanted[0] {
            let w = Matrix::stored(rows, input, false);
            f32::product(&self.sums, form, self.walk.w, w, &mut parts.x);
        }
        if wanted[1] {
            f32::product(&self.sums, form.transposed(), self.walk.x, inputs, &mut parts.w);
        }
        if wanted[2] {
            self.by_recurrent(&mut parts.r);
        }
        parts
    }

    fn products(&self) -> &[f32] {
        self.products.as_deref().unwrap_or(&self.sums)
    }

    /// The row of the state before step `s` of sequence `n`; `None` for the first state.
    fn before(&self, n: usize, s: usize) -> Option<usize> {
        let time = self.walk.time(n, s.checked_sub(1)?)?;
        Some(time * self.walk.sizes.batch + n)
    }

    /// The state or cell state before step `s` of sequence `n`.
    fn state_before<'b>(
        &'b self,
        states: &'b [f32],
        first: &'b [f32],
        n: usize,
        s: usize,
    ) -> &'b [f32] {
        let hidden = self.walk.sizes.hidden;
        match self.before(n, s) {
            Some(row) => &states[row * hidden..][..hidden],
            None => &first[n * hidden..][..hidden],
        }
    }

    /// `dr = productsᵀ states before`; of a `GRU` whose reset gate acts early the last block saw what that
    /// left of the states.
    fn by_recurrent(&self, r: &mut [f32]) {
        let Sizes { steps, batch, hidden, rows, .. } = self.walk.sizes;
        let mut states = vec![0.0; steps * batch * hidden];
        for (s, n) in (0..steps).flat_map(|s| (0..batch).map(move |n| (s, n))) {
            if let Some(t) = self.walk.time(n, s) {
                let state = self.state_before(&self.trace.h, &self.walk.h, n, s);
                states[(t * batch + n) * hidden..][..hidden].copy_from_slice(state);
            }
        }
        let block = |rows_of: usize| Matrix {
            rows: rows_of,
            columns: steps * batch,
            row_stride: 1,
            column_stride: rows,
        };
        let form = Matrix::stored(steps * batch, hidden, false);
        let direct = self.walk.direct_rows();
        let (own, rest) = r.split_at_mut(direct * hidden);
        f32::product(self.products(), block(direct), &states, form, own);
        if !rest.is_empty() && !self.trace.reset.is_empty() {
            let from = self.products().get(direct..).unwrap_or_default();
            f32::product(from, block(rows - direct), &self.trace.reset, form, rest);
        }
    }
}

/// Sums of the rows of `[…, rows]`.
fn by_row(x: &[f32], rows: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; rows];
    for row in x.chunks_exact(rows.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, &it)| *sum += f64::from(it));
    }
    sums.into_iter().map(|it| it as f32).collect()
}
