//! Elementwise work that is done on the output of another kernel while it is near.

use sartor_ir::{Binary, DType, Unary, narrow};

use crate::{
    reference::elementwise::{self, Number},
    simd::{self, Grid, Tail, tasks},
};

/// The expression with `$f` as the function that the operator is, so that its loop is compiled for each.
macro_rules! for_operator {
    ($op:expr, $swapped:expr, $f:ident => $body:expr) => {
        match ($op, $swapped) {
            (Binary::Add, _) => {
                let $f = |a: f32, b: f32| a + b;
                $body
            }
            (Binary::Mul, _) => {
                let $f = |a: f32, b: f32| a * b;
                $body
            }
            (Binary::Sub, false) => {
                let $f = |a: f32, b: f32| a - b;
                $body
            }
            (Binary::Sub, true) => {
                let $f = |a: f32, b: f32| b - a;
                $body
            }
            (Binary::Div, false) => {
                let $f = |a: f32, b: f32| a / b;
                $body
            }
            (Binary::Div, true) => {
                let $f = |a: f32, b: f32| b / a;
                $body
            }
            (op, false) => {
                let $f = |a: f32, b: f32| f32::arithmetic(op, a, b);
                $body
            }
            (op, true) => {
                let $f = |a: f32, b: f32| f32::arithmetic(op, b, a);
                $body
            }
        }
    };
}
pub(crate) use for_operator;

/// One elementwise step. Vectors hold one number for each index of an axis, `inner` elements apart.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// A function of the element.
    Unary(Unary),
    /// `min(max(x, low), high)`.
    Clip(f32, f32),
    /// `x factor + addend`.
    Affine { factor: Vec<f32>, addend: Vec<f32>, inner: usize },
    /// `x` or `slope x` below 0.
    Slope { slope: Vec<f32>, inner: usize },
    /// Arithmetic with another tensor of the same shape: the step's input `with`.
    Tensor { op: Binary, swapped: bool, with: usize },
    /// Arithmetic with numbers along an axis.
    Along { op: Binary, swapped: bool, values: Vec<f32>, inner: usize },
    /// Quantization and back.
    FakeQuantize { grids: Vec<Grid>, inner: usize },
    /// To the nearest value of a narrow float type.
    Round(DType),
}

impl Stage {
    /// As the tail of a kernel that clamps by itself.
    pub(crate) fn as_tail(&self) -> Option<Tail> {
        match self {
            Stage::Unary(Unary::Relu) => Some(Tail::Relu),
            Stage::Clip(low, high) => Some(Tail::Clip(*low, *high)),
            _ => None,
        }
    }

    /// Whether the stage does the same to all elements, wherever they lie.
    pub(crate) fn ignores_layout(&self) -> bool {
        match self {
            Stage::Unary(_) | Stage::Clip(..) | Stage::Tensor { .. } | Stage::Round(_) => true,
            Stage::Affine { factor: values, .. }
            | Stage::Slope { slope: values, .. }
            | Stage::Along { values, .. } => values.len() == 1,
            Stage::FakeQuantize { grids, .. } => grids.len() == 1,
        }
    }

    /// As [`Stage::apply`] on a copy of `from`, in one pass; `false` if there is no such kernel.
    fn apply_to_copy(&self, from: &[f32], y: &mut [f32], offset: usize, inputs: &[&[f32]]) -> bool {
        match self {
            Stage::Tensor { op: Binary::Add, with, .. } => {
                simd::add(Tail::None, from, &inputs[*with][offset..][..y.len()], y);
            }
            _ => match self.as_tail() {
                Some(tail) => simd::activate(tail, from, y),
                None => return false,
            },
        }
        true
    }

    /// Works on `y`, which begins at element `offset` of the tensor.
    fn apply(&self, y: &mut [f32], offset: usize, inputs: &[&[f32]]) {
        match self {
            Stage::Unary(Unary::Relu) => simd::activate_in_place(Tail::Relu, y),
            Stage::Unary(op) => y.iter_mut().for_each(|it| *it = elementwise::unary(*op, *it)),
            Stage::Clip(low, high) => simd::activate_in_place(Tail::Clip(*low, *high), y),
            Stage::Affine { factor, addend, inner } => {
                along(y, offset, factor.len(), *inner, |it, c| it * factor[c] + addend[c]);
            }
            Stage::Slope { slope, inner } => {
                along(
                    y,
                    offset,
                    slope.len(),
                    *inner,
                    |it, c| if it < 0.0 { it * slope[c] } else { it },
                );
            }
            Stage::Tensor { op, swapped, with } => {
                tensor(*op, *swapped, y, &inputs[*with][offset..][..y.len()]);
            }
            Stage::Along { op, swapped, values, inner } => {
                for_operator!(*op, *swapped, f => {
                    along(y, offset, values.len(), *inner, |it, c| f(it, values[c]));
                });
            }
            Stage::FakeQuantize { grids, inner } => {
                along(y, offset, grids.len(), *inner, |it, c| fake_quantize(it, grids[c]));
            }
            Stage::Round(dtype) => {
                for it in y {
                    *it = narrow::round(*dtype, *it, true);
                }
            }
        }
    }
}

/// Adding and subtracting this rounds to the nearest integer, ties to even, below 2^22 in magnitude.
const ROUNDER: f32 = 12_582_912.0;

/// `(clamp(round(x / scale) + zero) - zero) scale`; limits and zero points are integers, so that it is the
/// same to clamp first, which keeps the rounding trick in its range. A NaN goes to the lowest value.
fn fake_quantize(x: f32, grid: Grid) -> f32 {
    let scaled = (x / grid.scale).max(grid.low - grid.zero_point).min(grid.high - grid.zero_point);
    (scaled + ROUNDER - ROUNDER) * grid.scale
}

fn tensor(op: Binary, swapped: bool, y: &mut [f32], with: &[f32]) {
    if op == Binary::Add {
        return simd::add_in_place(Tail::None, with, y);
    }
    for_operator!(op, swapped, f => y.iter_mut().zip(with).for_each(|(y, &with)| *y = f(*y, with)));
}

/// Replaces each element by `f(element, index along the axis)`.
fn along(y: &mut [f32], offset: usize, extent: usize, inner: usize, f: impl Fn(f32, usize) -> f32) {
    if extent == 1 {
        for it in y {
            *it = f(*it, 0);
        }
        return;
    }
    let (mut c, mut within) = (offset / inner % extent, offset % inner);
    let mut rest = y;
    while !rest.is_empty() {
        let (run, tail) = rest.split_at_mut((inner - within).min(rest.len()));
        for it in run {
            *it = f(*it, c);
        }
        (rest, within) = (tail, 0);
        c = if c + 1 == extent { 0 } else { c + 1 };
    }
}

/// Elements that one task works on: all stages pass over them while they are in the cache.
const CHUNK: usize = 1 << 13;

/// Applies `stages` to `y`, after copying `from` to it if given.
pub(crate) fn apply(stages: &[Stage], from: Option<&[f32]>, inputs: &[&[f32]], y: &mut [f32]) {
    if stages.is_empty() && from.is_none() {
        return;
    }
    tasks::for_each_chunk(y, CHUNK, CHUNK, |i, y| {
        let offset = i * CHUNK;
        let mut rest = stages;
        if let Some(from) = from {
            let from = &from[offset..][..y.len()];
            match stages.split_first() {
                Some((first, others)) if first.apply_to_copy(from, y, offset, inputs) => {
                    rest = others;
                }
                _ => y.copy_from_slice(from),
            }
        }
        for it in rest {
            it.apply(y, offset, inputs);
        }
    });
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;
    use crate::reference::quantize;

    #[test]
    fn fake_quantize_is_quantize_and_back() {
        let grid = Grid { scale: 0.1, zero_point: 3.0, low: -128.0, high: 127.0 };
        for i in -3000..3000i16 {
            let x = f32::from(i) * 0.01;
            let q = quantize::quantize(x, 0.1, 3, (-128, 127));
            assert_eq!(
                fake_quantize(x, grid).to_bits(),
                (quantize::dequantize(i64::from(q), 0.1, 3) + 0.0).to_bits(),
                "{x}"
            );
        }
        assert_eq!(fake_quantize(f32::NAN, grid), (-128.0 - 3.0) * 0.1);
    }

    #[test]
    fn axes_by_chunk() {
        let mut y = vec![0.0; 10];
        along(&mut y, 5, 3, 2, |_, c| c as f32);
        assert_eq!(y, [2., 0., 0., 1., 1., 2., 2., 0., 0., 1.]);
    }
}
