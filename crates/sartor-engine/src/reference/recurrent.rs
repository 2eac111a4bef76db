//! Recurrent cells by their definitions (<https://onnx.ai/onnx/operators/onnx__LSTM.html>): Elman 1990, "Finding
//! structure in time"; Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", section
//! 2.3; Hochreiter & Schmidhuber 1997 with the peepholes of Gers & Schmidhuber 2000.
//!
//! Inputs are multiplied for all steps at once, states step by step. Functions are computed in 64 bits.

mod cell;

use std::borrow::Cow;

use rayon::prelude::*;
use sartor_ir::{
    Unary,
    catalog::{Activation, Cell, Recurrent},
};

use super::{
    elementwise::{Float, unary_f64},
    evaluate::{array, integers, optional, values},
    gemm::{self, Matrix},
    layout::{View, concat},
};
use crate::{
    Array,
    simd::{self, Strided, Tail},
};

/// Floats with a matrix product for the engine's use, faster than the reference's where there is one.
pub(crate) trait Product: Float {
    /// `y = a b` for matrices of these forms; `y` is stored row by row.
    fn product(a: &[Self], a_form: Matrix, b: &[Self], b_form: Matrix, y: &mut [Self]);
}

impl Product for f32 {
    fn product(a: &[f32], a_form: Matrix, b: &[f32], b_form: Matrix, y: &mut [f32]) {
        let strided =
            |data, it: Matrix| Strided { data, row: it.row_stride, col: it.column_stride };
        let sizes = (a_form.rows, b_form.columns, a_form.columns);
        simd::gemm(sizes, strided(a, a_form), strided(b, b_form), y, None, Tail::None);
    }
}

impl Product for f64 {
    fn product(a: &[f64], a_form: Matrix, b: &[f64], b_form: Matrix, y: &mut [f64]) {
        gemm::matmul(a, a_form, b, b_form, y);
    }
}

/// The value of a function of a cell.
pub(crate) fn activate(function: Activation, x: f64) -> f64 {
    match function {
        Activation::Unary(Unary::Sigmoid) => 1.0 / (1.0 + (-x).exp()),
        Activation::Unary(Unary::Tanh) => x.tanh(),
        Activation::Unary(it) => unary_f64(it, x),
        Activation::Affine { alpha, beta } => f64::from(alpha) * x + f64::from(beta),
        Activation::ScaledTanh { alpha, beta } => f64::from(alpha) * (f64::from(beta) * x).tanh(),
    }
}

/// The operands of a recurrent operator, checked.
pub(crate) struct Operands<'a, T: Float> {
    /// Attributes.
    pub(crate) it: Recurrent,
    /// Extents.
    pub(crate) sizes: Sizes,
    /// `[steps, batch, input]`.
    pub(crate) x: Cow<'a, [T]>,
    w: &'a [T],
    r: &'a [T],
    b: Option<&'a [T]>,
    p: Option<&'a [T]>,
    /// `[directions, batch, hidden]`.
    h: Option<Cow<'a, [T]>>,
    c: Option<Cow<'a, [T]>>,
    /// Steps of each sequence.
    pub(crate) lengths: Vec<usize>,
}

/// Extents of a recurrent operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Steps of the longest sequence.
    pub(crate) steps: usize,
    /// Sequences.
    pub(crate) batch: usize,
    /// Elements of an input.
    pub(crate) input: usize,
    /// Elements of a state.
    pub(crate) hidden: usize,
    /// Rows of the weights: gates times elements of a state.
    pub(crate) rows: usize,
}

/// Swaps the first two axes of an array.
pub(crate) fn swapped<T: Copy>(shape: &[usize], x: &[T]) -> Vec<T> {
    let mut perm: Vec<usize> = (0..shape.len()).collect();
    perm.swap(0, 1);
    View::transpose(shape, &perm).read(x)
}

/// Optional input `i` of this shape.
fn shaped<'a, T: Float>(
    inputs: &[Option<&'a Array>],
    i: usize,
    shape: &[usize],
) -> Result<Option<&'a [T]>, String> {
    let Some(found) = optional(inputs, i) else { return Ok(None) };
    if found.shape != shape {
        return Err(format!("input {i} has shape {:?}, expected {shape:?}", found.shape));
    }
    values(inputs, i).map(Some)
}

impl<'a, T: Float> Operands<'a, T> {
    /// Reads the inputs of a node.
    ///
    /// # Errors
    /// An input that is missing or does not fit.
    pub(crate) fn new(it: Recurrent, inputs: &[Option<&'a Array>]) -> Result<Self, String> {
        let (x, r) = (array(inputs, 0)?, array(inputs, 2)?);
        let (&[mut steps, mut batch, input], &[_, _, hidden]) = (&x.shape[..], &r.shape[..]) else {
            return Err(format!("input {:?} and R {:?} need three axes", x.shape, r.shape));
        };
        if it.batch_first {
            std::mem::swap(&mut steps, &mut batch);
        }
        let (directions, rows) = (it.reversed.len(), it.cell.gates() * hidden);
        let given = |i: usize, shape: &[usize]| shaped::<T>(inputs, i, shape);
        let missing = || "input 1 or 2 is missing".to_owned();
        let state = |i: usize| -> Result<Option<Cow<'a, [T]>>, String> {
            if it.batch_first {
                let shape = [batch, directions, hidden];
                return Ok(given(i, &shape)?.map(|it| Cow::Owned(swapped(&shape, it))));
            }
            Ok(given(i, &[directions, batch, hidden])?.map(Cow::Borrowed))
        };
        let lstm = it.cell == Cell::Lstm;
        let x = values::<T>(inputs, 0)?;
        Ok(Operands {
            w: given(1, &[directions, rows, input])?.ok_or_else(missing)?,
            r: given(2, &[directions, rows, hidden])?.ok_or_else(missing)?,
            b: given(3, &[directions, 2 * rows])?,
            lengths: lengths(inputs, steps, batch)?,
            h: state(5)?,
            c: if lstm { state(6)? } else { None },
            p: if lstm { given(7, &[directions, 3 * hidden])? } else { None },
            x: if it.batch_first {
                Cow::Owned(swapped(&[batch, steps, input], x))
            } else {
                Cow::Borrowed(x)
            },
            sizes: Sizes { steps, batch, input, hidden, rows },
            it,
        })
    }

    /// What direction `d` needs.
    pub(crate) fn walk(&self, d: usize) -> Walk<'_, T> {
        let Sizes { batch, input, hidden, rows, .. } = self.sizes;
        let state = |it: &Option<Cow<'_, [T]>>| match it {
            Some(it) => it[d * batch * hidden..][..batch * hidden].to_vec(),
            None => vec![T::default(); batch * hidden],
        };
        Walk {
            it: &self.it,
            sizes: self.sizes,
            x: &self.x,
            lengths: &self.lengths,
            w: &self.w[d * rows * input..][..rows * input],
            r: &self.r[d * rows * hidden..][..rows * hidden],
            b: self.b.map(|it| &it[d * 2 * rows..][..2 * rows]),
            p: self.p.map(|it| &it[d * 3 * hidden..][..3 * hidden]),
            h: state(&self.h),
            c: state(&self.c),
            functions: &self.it.functions[d],
            reversed: self.it.reversed[d],
        }
    }
}

fn lengths(inputs: &[Option<&Array>], steps: usize, batch: usize) -> Result<Vec<usize>, String> {
    let Some(given) = integers(inputs, 4) else { return Ok(vec![steps; batch]) };
    let fits = |&it: &i64| usize::try_from(it).ok().filter(|it| *it <= steps);
    let lengths: Option<Vec<usize>> = given.iter().map(fits).collect();
    lengths.filter(|it| it.len() == batch).ok_or_else(|| {
        format!("lengths {given:?} do not fit {batch} sequences of up to {steps} steps")
    })
}

/// One direction of a recurrent operator.
pub(crate) struct Walk<'a, T> {
    /// Attributes.
    pub(crate) it: &'a Recurrent,
    /// Extents.
    pub(crate) sizes: Sizes,
    /// `[steps, batch, input]`.
    pub(crate) x: &'a [T],
    lengths: &'a [usize],
    /// `[rows, input]`.
    pub(crate) w: &'a [T],
    /// `[rows, hidden]`.
    pub(crate) r: &'a [T],
    /// `[2 rows]`: for the inputs' product, then for the states'.
    pub(crate) b: Option<&'a [T]>,
    /// `[3 hidden]`: of input, output and forget gate.
    pub(crate) p: Option<&'a [T]>,
    /// First states `[batch, hidden]`.
    pub(crate) h: Vec<T>,
    /// First cell states.
    pub(crate) c: Vec<T>,
    /// Functions of this direction.
    pub(crate) functions: &'a [Activation],
    /// Whether from the end to the start.
    pub(crate) reversed: bool,
}

/// What a walk made, by time: rows of step `t` and sequence `n` stand at `t batch + n`; those behind the
/// end of a sequence are zeros in `h` and `c` and mean nothing in the others.
pub(crate) struct Trace<T> {
    /// What the functions of the gates were applied to, before clipping: `[steps, batch, rows]`.
    pub(crate) sums: Vec<T>,
    /// What they gave.
    pub(crate) gates: Vec<T>,
    /// Of a `GRU` the state times the reset gate, or, if that acts behind it, the recurrent product.
    pub(crate) reset: Vec<T>,
    /// States `[steps, batch, hidden]`.
    pub(crate) h: Vec<T>,
    /// Cell states of an `LSTM`.
    pub(crate) c: Vec<T>,
    /// Last states `[batch, hidden]`.
    pub(crate) last_h: Vec<T>,
    /// Last cell states.
    pub(crate) last_c: Vec<T>,
}

impl<T: Float> Walk<'_, T> {
    /// The time at which sequence `n` is in step `s` of the walk; `None` behind its end.
    pub(crate) fn time(&self, n: usize, s: usize) -> Option<usize> {
        let length = self.lengths[n];
        (s < length).then(|| if self.reversed { length - 1 - s } else { s })
    }

    /// The rows of the weights that are multiplied with the state itself: a `GRU` whose reset gate acts
    /// before the product multiplies the last block with what it leaves of the state.
    pub(crate) fn direct_rows(&self) -> usize {
        let late = self.it.cell == Cell::Gru && !self.it.linear_before_reset;
        if late { 2 * self.sizes.hidden } else { self.sizes.rows }
    }

    /// A function of the clipped sum.
    fn function(&self, i: usize, sum: T) -> f64 {
        let (sum, limit): (f64, f64) = (sum.into(), self.it.clip.into());
        activate(self.functions[i], sum.clamp(-limit, limit))
    }
}

impl<T: Product> Walk<'_, T> {
    /// Walks along all sequences.
    pub(crate) fn run(&self) -> Trace<T> {
        let Sizes { steps, batch, hidden, rows, .. } = self.sizes;
        let zeros = |count: usize| vec![T::default(); count];
        let states = steps * batch * hidden;
        let gru = if self.it.cell == Cell::Gru { states } else { 0 };
        let lstm = if self.it.cell == Cell::Lstm { states } else { 0 };
        let mut trace = Trace {
            sums: self.input_sums(),
            gates: zeros(steps * batch * rows),
            reset: zeros(gru),
            h: zeros(states),
            c: zeros(lstm),
            last_h: self.h.clone(),
            last_c: self.c.clone(),
        };
        let mut product = zeros(batch * rows);
        for s in 0..steps {
            self.step(s, &mut trace, &mut product);
        }
        self.clear_empty(&mut trace.last_h);
        self.clear_empty(&mut trace.last_c);
        trace
    }

    /// Makes zeros of the states `[batch, hidden]` of sequences without a step, as ONNX Runtime does: the
    /// standard does not say what their last states are.
    pub(crate) fn clear_empty(&self, states: &mut [T]) {
        let states = states.chunks_exact_mut(self.sizes.hidden.max(1)).zip(self.lengths);
        states.filter(|it| *it.1 == 0).for_each(|(state, _)| state.fill(T::default()));
    }

    /// `x wᵀ` for all steps, with the biases that are added to it.
    fn input_sums(&self) -> Vec<T> {
        let Sizes { steps, batch, input, hidden, rows } = self.sizes;
        let mut sums = vec![T::default(); steps * batch * rows];
        let (x, w) =
            (Matrix::stored(steps * batch, input, false), Matrix::stored(rows, input, true));
        T::product(self.x, x, self.w, w, &mut sums);
        if let Some(b) = self.b {
            // A late reset gate also acts on the second bias of its block.
            let late = self.it.cell == Cell::Gru && self.it.linear_before_reset;
            let both = if late { 2 * hidden } else { rows };
            let wide = |i: usize| -> f64 { b[i].into() };
            let bias: Vec<f64> =
                (0..rows).map(|i| wide(i) + if i < both { wide(rows + i) } else { 0.0 }).collect();
            for row in sums.chunks_exact_mut(rows.max(1)) {
                row.iter_mut().zip(&bias).for_each(|(sum, bias)| add(sum, *bias));
            }
        }
        sums
    }
}

pub(crate) fn add<T: Float>(sum: &mut T, term: f64) {
    let own: f64 = (*sum).into();
    *sum = T::narrow(own + term);
}

/// Outputs of one direction side by side with those of the other: parts `[outer, run]` as `[outer,
/// directions, run]`.
fn beside<T: Float>(parts: &[&[T]], outer: usize) -> Vec<T> {
    let run = |part: &[T]| part.len().checked_div(outer).unwrap_or(0);
    let parts: Vec<(&[T], usize)> = parts.iter().map(|&it| (it, run(it))).collect();
    let mut y = vec![T::default(); parts.iter().map(|it| it.0.len()).sum()];
    concat(&parts, outer, &mut y);
    y
}

/// The outputs of a recurrent operator.
///
/// # Errors
/// Inputs that do not fit.
pub(crate) fn evaluate<T: Product>(
    it: Recurrent,
    inputs: &[Option<&Array>],
) -> Result<Vec<Array>, String> {
    let operands = Operands::<T>::new(it, inputs)?;
    let directions = operands.it.reversed.len();
    let walks: Vec<_> = (0..directions).map(|d| operands.walk(d)).collect();
    let traces: Vec<_> = walks.par_iter().map(Walk::run).collect();
    let Sizes { steps, batch, hidden, .. } = operands.sizes;
    let pick = |part: fn(&Trace<T>) -> &[T]| traces.iter().map(part).collect::<Vec<_>>();
    let all = beside(&pick(|it| &it.h), steps);
    let lasts = [pick(|it| &it.last_h).concat(), pick(|it| &it.last_c).concat()];
    let array = |shape: &[usize], values| Array { shape: shape.to_vec(), data: T::wrap(values) };
    let mut made = vec![if operands.it.batch_first {
        let all = View::transpose(&[steps, directions, batch, hidden], &[2, 0, 1, 3]).read(&all);
        array(&[batch, steps, directions, hidden], all)
    } else {
        array(&[steps, directions, batch, hidden], all)
    }];
    for last in lasts {
        let shape = [directions, batch, hidden];
        made.push(if operands.it.batch_first {
            array(&[batch, directions, hidden], swapped(&shape, &last))
        } else {
            array(&shape, last)
        });
    }
    Ok(made)
}
