//! One step of each kind of cell.

use sartor_ir::catalog::Cell;

use super::{Matrix, Product, Sizes, Trace, Walk, add};

/// One row of a trace at work.
struct Row<'a, T> {
    sums: &'a mut [T],
    gates: &'a mut [T],
    reset: &'a mut [T],
    /// The state, before and after.
    h: &'a mut [T],
    c: &'a mut [T],
}

impl<T> Trace<T> {
    /// Row `at` and the state of sequence `n`.
    fn row(&mut self, at: usize, n: usize, sizes: Sizes) -> Row<'_, T> {
        let Sizes { hidden, rows, .. } = sizes;
        Row {
            sums: &mut self.sums[at * rows..][..rows],
            gates: &mut self.gates[at * rows..][..rows],
            reset: self.reset.get_mut(at * hidden..(at + 1) * hidden).unwrap_or_default(),
            h: &mut self.last_h[n * hidden..][..hidden],
            c: &mut self.last_c[n * hidden..][..hidden],
        }
    }
}

impl<T: Product> Walk<'_, T> {
    /// Step `s` of all sequences that have one; `product` has room for `[batch, rows]`.
    pub(super) fn step(&self, s: usize, trace: &mut Trace<T>, product: &mut [T]) {
        let Sizes { batch, hidden, .. } = self.sizes;
        let direct = self.direct_rows();
        let state = Matrix::stored(batch, hidden, false);
        let r = Matrix::stored(direct, hidden, true);
        T::product(&trace.last_h, state, self.r, r, &mut product[..batch * direct]);
        let rows = |n: usize| self.time(n, s).map(|t| t * batch + n);
        for (n, at) in (0..batch).filter_map(|n| Some((n, rows(n)?))) {
            let mut row = trace.row(at, n, self.sizes);
            let product = &product[n * direct..][..direct];
            match self.it.cell {
                Cell::Rnn => self.rnn(&mut row, product),
                Cell::Lstm => self.lstm(&mut row, product),
                Cell::Gru => self.gru_gates(&mut row, product),
            }
        }
        if self.it.cell == Cell::Gru {
            self.gru_states(s, trace, product);
        }
        for (n, at) in (0..batch).filter_map(|n| Some((n, rows(n)?))) {
            let (now, then) = (n * hidden..(n + 1) * hidden, at * hidden..(at + 1) * hidden);
            trace.h[then.clone()].copy_from_slice(&trace.last_h[now.clone()]);
            if let Some(c) = trace.c.get_mut(then) {
                c.copy_from_slice(&trace.last_c[now]);
            }
        }
    }

    /// `h = f(x wᵀ + h rᵀ + b)`.
    fn rnn(&self, row: &mut Row<'_, T>, product: &[T]) {
        for (j, &product) in product.iter().enumerate() {
            add(&mut row.sums[j], product.into());
            row.gates[j] = T::narrow(self.function(0, row.sums[j]));
            row.h[j] = row.gates[j];
        }
    }

    /// With gates `i`, `o`, `f` and candidate `g`: `c' = f c + i g`, `h = o tanh(c')`; peepholes let `i` and
    /// `f` see `c`, and `o` see `c'`.
    fn lstm(&self, row: &mut Row<'_, T>, product: &[T]) {
        let hidden = self.sizes.hidden;
        row.sums.iter_mut().zip(product).for_each(|(sum, &it)| add(sum, it.into()));
        let peep = |gate: usize, j: usize| -> f64 {
            self.p.map_or(0.0, |it| it[gate * hidden + j].into())
        };
        for j in 0..hidden {
            let [i, o, f, g] = [0, 1, 2, 3].map(|gate| gate * hidden + j);
            let before: f64 = row.c[j].into();
            add(&mut row.sums[i], peep(0, j) * before);
            add(&mut row.sums[f], peep(2, j) * before);
            let input = self.function(0, row.sums[i]);
            let forget =
                if self.it.input_forget { 1.0 - input } else { self.function(0, row.sums[f]) };
            let candidate = self.function(1, row.sums[g]);
            let after = forget * before + input * candidate;
            add(&mut row.sums[o], peep(1, j) * after);
            let output = self.function(0, row.sums[o]);
            for (at, value) in [(i, input), (o, output), (f, forget), (g, candidate)] {
                row.gates[at] = T::narrow(value);
            }
            row.c[j] = T::narrow(after);
            row.h[j] = T::narrow(output * super::activate(self.functions[2], after));
        }
    }

    /// The gates `z` and `r` of a `GRU`, and what the reset gate leaves.
    fn gru_gates(&self, row: &mut Row<'_, T>, product: &[T]) {
        let Sizes { hidden, rows, .. } = self.sizes;
        row.sums[..2 * hidden].iter_mut().zip(product).for_each(|(sum, &it)| add(sum, it.into()));
        for j in 0..2 * hidden {
            row.gates[j] = T::narrow(self.function(0, row.sums[j]));
        }
        for j in 0..hidden {
            row.reset[j] = if self.it.linear_before_reset {
                let bias: f64 = self.b.map_or(0.0, |it| it[rows + 2 * hidden + j].into());
                T::narrow(bias + product[2 * hidden + j].into())
            } else {
                let (r, h): (f64, f64) = (row.gates[hidden + j].into(), row.h[j].into());
                T::narrow(r * h)
            };
        }
    }

    /// With gates `z` and `r` and candidate `g`: `h' = (1 - z) g + z h`.
    fn gru_states(&self, s: usize, trace: &mut Trace<T>, product: &mut [T]) {
        let Sizes { batch, hidden, .. } = self.sizes;
        let late = self.it.linear_before_reset;
        if !late {
            let mut left = vec![T::default(); batch * hidden];
            for n in 0..batch {
                if let Some(t) = self.time(n, s) {
                    let at = (t * batch + n) * hidden;
                    left[n * hidden..][..hidden].copy_from_slice(&trace.reset[at..at + hidden]);
                }
            }
            let state = Matrix::stored(batch, hidden, false);
            let r = Matrix::stored(hidden, hidden, true);
            let weights = &self.r[2 * hidden * hidden..];
            T::product(&left, state, weights, r, &mut product[..batch * hidden]);
        }
        for n in 0..batch {
            let Some(t) = self.time(n, s) else { continue };
            let row = trace.row(t * batch + n, n, self.sizes);
            for j in 0..hidden {
                let [update, reset, g] = [0, 1, 2].map(|gate| gate * hidden + j);
                let term: f64 = if late {
                    let (r, product): (f64, f64) = (row.gates[reset].into(), row.reset[j].into());
                    r * product
                } else {
                    product[n * hidden + j].into()
                };
                add(&mut row.sums[g], term);
                let candidate = self.function(1, row.sums[g]);
                row.gates[g] = T::narrow(candidate);
                let (z, h): (f64, f64) = (row.gates[update].into(), row.h[j].into());
                row.h[j] = T::narrow((1.0 - z) * candidate + z * h);
            }
        }
    }
}
