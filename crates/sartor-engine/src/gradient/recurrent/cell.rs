//! One step of each kind of cell, undone.

use sartor_ir::catalog::{Activation, Cell};

use super::{Matrix, Product, Sizes, Undo};
use crate::{gradient::elementwise::slope, reference::recurrent::activate};

/// d y / d x of a function of a cell at `x`, where its value is `y`.
fn derivative(function: Activation, x: f64, y: f64) -> f64 {
    match function {
        Activation::Unary(it) => slope(it, x as f32, y as f32).into(),
        Activation::Affine { alpha, .. } => alpha.into(),
        Activation::ScaledTanh { alpha, beta } => {
            let t = (f64::from(beta) * x).tanh();
            f64::from(alpha) * f64::from(beta) * (1.0 - t * t)
        }
    }
}

/// What a row of gates is made of.
struct Row<'a> {
    sums: &'a [f32],
    gates: &'a [f32],
    clip: f64,
    functions: &'a [Activation],
}

impl Row<'_> {
    fn gate(&self, at: usize) -> f64 {
        self.gates[at].into()
    }

    /// d gate / d sum: nothing passes where the sum is clipped.
    fn slope(&self, function: usize, at: usize, value: f64) -> f64 {
        let sum = f64::from(self.sums[at]);
        if sum.abs() >= self.clip { 0.0 } else { derivative(self.functions[function], sum, value) }
    }
}

impl Undo<'_> {
    /// Step `s` of all sequences that have one. `part` has room for `[batch, rows]`, `back` for states.
    pub(super) fn step(&mut self, s: usize, part: &mut [f32], back: &mut [f32]) {
        let Sizes { batch, hidden, rows, .. } = self.walk.sizes;
        let row = |walk: &crate::reference::recurrent::Walk<'_, f32>, n: usize| {
            walk.time(n, s).map(|t| t * batch + n)
        };
        for n in 0..batch {
            let Some(at) = row(self.walk, n) else { continue };
            let dy = &self.dy[at * hidden..][..hidden];
            self.dh[n * hidden..][..hidden].iter_mut().zip(dy).for_each(|(sum, it)| *sum += it);
            match self.walk.it.cell {
                Cell::Rnn => self.rnn(at, n),
                Cell::Lstm => self.lstm(at, n, s),
                Cell::Gru => self.gru(at, n, s),
            }
        }
        let direct = self.walk.direct_rows();
        if direct < rows {
            self.early_reset(s, part, back);
        }
        part.fill(0.0);
        for n in 0..batch {
            if let Some(at) = row(self.walk, n) {
                let own = &self.products()[at * rows..][..direct];
                part[n * direct..][..direct].copy_from_slice(own);
            }
        }
        let (left, r) =
            (Matrix::stored(batch, direct, false), Matrix::stored(direct, hidden, false));
        f32::product(&part[..batch * direct], left, self.walk.r, r, back);
        self.dh.iter_mut().zip(&*back).for_each(|(sum, it)| *sum += it);
    }

    fn row(&self, at: usize) -> Row<'_> {
        let rows = self.walk.sizes.rows;
        Row {
            sums: &self.trace.sums[at * rows..][..rows],
            gates: &self.trace.gates[at * rows..][..rows],
            clip: self.walk.it.clip.into(),
            functions: self.walk.functions,
        }
    }

    fn rnn(&mut self, at: usize, n: usize) {
        let hidden = self.walk.sizes.hidden;
        for j in 0..hidden {
            let row = self.row(at);
            let by_sum = row.slope(0, j, row.gate(j));
            self.sums[at * hidden + j] = (f64::from(self.dh[n * hidden + j]) * by_sum) as f32;
            self.dh[n * hidden + j] = 0.0;
        }
    }

    fn lstm(&mut self, at: usize, n: usize, s: usize) {
        let Sizes { hidden, rows, .. } = self.walk.sizes;
        let before = self.state_before(&self.trace.c, &self.walk.c, n, s).to_vec();
        for j in 0..hidden {
            let [i, o, f, g] = [0, 1, 2, 3].map(|gate| gate * hidden + j);
            let own = n * hidden + j;
            let (before, after) = (f64::from(before[j]), f64::from(self.trace.c[at * hidden + j]));
            let peep = |gate: usize| self.walk.p.map_or(0.0, |it| f64::from(it[gate * hidden + j]));
            let row = self.row(at);
            let [input, output, forget, candidate] = [i, o, f, g].map(|at| row.gate(at));
            let dh = f64::from(self.dh[own]);
            let shown = activate(self.walk.functions[2], after);
            let by_o = dh * shown * row.slope(0, o, output);
            let dc = f64::from(self.dc[own])
                + dh * output * derivative(self.walk.functions[2], after, shown)
                + by_o * peep(1);
            let by_g = dc * input * row.slope(1, g, candidate);
            let (mut by_input, mut by_forget) = (dc * candidate, dc * before);
            if self.walk.it.input_forget {
                by_input -= by_forget;
                by_forget = 0.0;
            }
            let by_i = by_input * row.slope(0, i, input);
            let by_f = by_forget * row.slope(0, f, forget);
            self.dc[own] = (dc * forget + by_i * peep(0) + by_f * peep(2)) as f32;
            self.dh[own] = 0.0;
            let through = [by_i * before, by_o * after, by_f * before];
            for (gate, it) in through.into_iter().enumerate() {
                self.peepholes[gate * hidden + j] += it;
            }
            for (gate, it) in [(i, by_i), (o, by_o), (f, by_f), (g, by_g)] {
                self.sums[at * rows + gate] = it as f32;
            }
        }
    }

    /// All of a `GRU` but an early reset gate, which waits for the product behind it.
    fn gru(&mut self, at: usize, n: usize, s: usize) {
        let Sizes { hidden, rows, .. } = self.walk.sizes;
        let before = self.state_before(&self.trace.h, &self.walk.h, n, s).to_vec();
        for j in 0..hidden {
            let [z, r, g] = [0, 1, 2].map(|gate| gate * hidden + j);
            let own = n * hidden + j;
            let row = self.row(at);
            let [update, reset, candidate] = [z, r, g].map(|at| row.gate(at));
            let (dh, before) = (f64::from(self.dh[own]), f64::from(before[j]));
            let by_z = dh * (before - candidate) * row.slope(0, z, update);
            let by_g = dh * (1.0 - update) * row.slope(1, g, candidate);
            let product = f64::from(self.trace.reset[at * hidden + j]);
            let by_r = by_g * product * row.slope(0, r, reset);
            self.dh[own] = (dh * update) as f32;
            let sums = &mut self.sums[at * rows..][..rows];
            sums[z] = by_z as f32;
            sums[g] = by_g as f32;
            if let Some(products) = &mut self.products {
                sums[r] = by_r as f32;
                let products = &mut products[at * rows..][..rows];
                products[z] = sums[z];
                products[r] = sums[r];
                products[g] = (by_g * reset) as f32;
            }
        }
    }

    /// The reset gate of a `GRU` that acts on the state before the product.
    fn early_reset(&mut self, s: usize, part: &mut [f32], back: &mut [f32]) {
        let Sizes { batch, hidden, rows, .. } = self.walk.sizes;
        let direct = self.walk.direct_rows();
        part.fill(0.0);
        for n in 0..batch {
            if let Some(t) = self.walk.time(n, s) {
                let own = &self.sums[(t * batch + n) * rows + direct..][..hidden];
                part[n * hidden..][..hidden].copy_from_slice(own);
            }
        }
        let (left, r) =
            (Matrix::stored(batch, hidden, false), Matrix::stored(hidden, hidden, false));
        f32::product(&part[..batch * hidden], left, &self.walk.r[direct * hidden..], r, back);
        for n in 0..batch {
            let Some(t) = self.walk.time(n, s) else { continue };
            let at = t * batch + n;
            let before = self.state_before(&self.trace.h, &self.walk.h, n, s).to_vec();
            for j in 0..hidden {
                let row = self.row(at);
                let reset = row.gate(hidden + j);
                let left = f64::from(back[n * hidden + j]);
                let by_r = left * f64::from(before[j]) * row.slope(0, hidden + j, reset);
                self.sums[at * rows + hidden + j] = by_r as f32;
                self.dh[n * hidden + j] += (left * reset) as f32;
            }
        }
    }
}
