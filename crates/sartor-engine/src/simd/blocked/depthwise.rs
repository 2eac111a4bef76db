//! Convolution of each channel by itself over blocked channels: lanes are channels, so that every tap is a product of
//! vectors, and a row of inputs is loaded once for all taps of a kernel row.
#![expect(unsafe_code, reason = "raw pointers and instructions of one processor family")]
#![expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]

use super::super::aligned::Aligned;
use super::super::conv::ConvShape;
use super::super::{Level, Tail, tasks, vector};
use super::lanes;
use vector::Vector;

/// Multiply-accumulates of one task.
const TASK_WORK: usize = 1 << 16;

/// A convolution with one input channel and one output for each group, whose weights were laid out once.
#[derive(Clone, Debug)]
pub(crate) struct BlockedDepthwise {
    shape: ConvShape,
    level: Level,
    /// [block, tap, lane].
    weights: Aligned,
    /// [block, lane].
    bias: Aligned,
    /// Output rows of a task.
    rows: usize,
}

impl BlockedDepthwise {
    /// Whether there is a kernel for `shape`, and one that gains: few lanes would be empty.
    pub(crate) fn serves(level: Level, shape: &ConvShape) -> bool {
        let lanes = lanes(level);
        shape.groups == shape.in_channels
            && shape.groups == shape.out_channels
            && shape.terms() > 0
            && shape.groups * 3 >= shape.groups.next_multiple_of(lanes) * 2
    }

    /// Lays out `weights` [c, 1, kh, kw] and `bias` [c].
    pub(crate) fn new(
        level: Level,
        shape: &ConvShape,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let (lanes, terms) = (lanes(level), shape.terms());
        let channels = shape.groups.next_multiple_of(lanes);
        let mut it = Self {
            shape: *shape,
            level,
            weights: Aligned::zeros(channels * terms),
            bias: Aligned::zeros(channels),
            rows: (TASK_WORK / (lanes * terms * shape.out_w).max(1)).clamp(1, shape.out_h.max(1)),
        };
        if let Some(bias) = bias {
            it.bias[..bias.len()].copy_from_slice(bias);
        }
        for (at, &weight) in weights.iter().enumerate() {
            let (c, tap) = (at / terms, at % terms);
            it.weights[(c / lanes * terms + tap) * lanes + c % lanes] = weight;
        }
        it
    }

    /// Multiplies channel `c` by `factor[c]` and adds `addend[c]`, before the tail.
    pub(crate) fn scale(&mut self, factor: &[f32], addend: &[f32]) {
        let (lanes, terms) = (lanes(self.level), self.shape.terms());
        for (c, (&factor, &addend)) in factor.iter().zip(addend).enumerate() {
            self.bias[c] = self.bias[c] * factor + addend;
            for tap in 0..terms {
                self.weights[(c / lanes * terms + tap) * lanes + c % lanes] *= factor;
            }
        }
    }

    /// y = tail(x ∗ weights + bias + residual), all blocked.
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&self, x: &[f32], residual: Option<&[f32]>, tail: Tail, y: &mut [f32]) {
        let (s, lanes) = (&self.shape, lanes(self.level));
        let blocks = s.groups.div_ceil(lanes);
        let (x_plane, y_plane) = (s.in_h * s.in_w * lanes, s.out_h * s.out_w * lanes);
        assert_eq!(x.len(), s.batch * blocks * x_plane, "input of {s:?}");
        assert_eq!(y.len(), s.batch * blocks * y_plane, "output of {s:?}");
        assert!(residual.is_none_or(|r| r.len() == y.len()), "residual of {s:?}");
        if y.is_empty() {
            return;
        }
        let line = s.out_w * lanes;
        let per_plane = s.out_h.div_ceil(self.rows);
        let work = |at: usize, y: &mut [f32]| {
            let (plane, row) = (at / s.out_h, at % s.out_h);
            let (block, start) = (plane % blocks, plane * y_plane + row * line);
            let walk = Row {
                shape: s,
                weights: &self.weights[block * s.terms() * lanes..][..s.terms() * lanes],
                bias: &self.bias[block * lanes..][..lanes],
                x: &x[plane * x_plane..][..x_plane],
                residual: residual.map(|r| &r[start..start + line]),
                bounds: tail.bounds(),
                at: row,
            };
            // SAFETY: the level was found on this processor, and the walk's slices have the lengths of its shape.
            unsafe { run(self.level, &walk, y) };
        };
        tasks::for_each_chunk(y, line, y_plane.div_ceil(per_plane), work);
    }
}

/// One row of outputs of one block of channels.
struct Row<'a> {
    shape: &'a ConvShape,
    weights: &'a [f32],
    bias: &'a [f32],
    /// The block's [h, w, lane].
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    bounds: (f32, f32),
    /// Which row.
    at: usize,
}

/// # Safety
/// The processor must have the instructions of `level`; the slices must have the lengths of the shape.
unsafe fn run(level: Level, row: &Row<'_>, y: &mut [f32]) {
    match level {
        // SAFETY: passed on to the caller, also below.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512(row, y) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { run_avx2(row, y) },
        _ => unsafe { run_with::<vector::Plain>(row, y) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn run_avx512(row: &Row<'_>, y: &mut [f32]) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe { run_with::<std::arch::x86_64::__m512>(row, y) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(row: &Row<'_>, y: &mut [f32]) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe { run_with::<std::arch::x86_64::__m256>(row, y) }
}

#[inline(always)]
unsafe fn run_with<V: Vector>(row: &Row<'_>, y: &mut [f32]) {
    let s = row.shape;
    // SAFETY: passed on to the caller.
    unsafe {
        match (s.kernel.1, s.strides.1, s.dilations.1) {
            (3, 1, 1) => line::<V, 3, 1>(row, y),
            (3, 2, 1) => line::<V, 3, 2>(row, y),
            (5, 1, 1) => line::<V, 5, 1>(row, y),
            (5, 2, 1) => line::<V, 5, 2>(row, y),
            (7, 1, 1) => line::<V, 7, 1>(row, y),
            _ => {
                for column in 0..s.out_w {
                    position::<V>(row, column, y);
                }
            }
        }
    }
}

/// The outputs of a row for a kernel of `K` columns that moves by `S`.
#[inline(always)]
unsafe fn line<V: Vector, const K: usize, const S: usize>(row: &Row<'_>, y: &mut [f32]) {
    let width = row.shape.out_w;
    // SAFETY: passed on to the caller.
    unsafe {
        if width >= 8 && V::LANES > 4 {
            tiles::<V, K, S, 8>(row, y);
        } else if width >= 4 {
            tiles::<V, K, S, 4>(row, y);
        } else {
            tiles::<V, K, S, 1>(row, y);
        }
    }
}

/// Tiles of `P` ≤ width columns; the last may compute some of the last but one again.
#[inline(always)]
unsafe fn tiles<V: Vector, const K: usize, const S: usize, const P: usize>(
    row: &Row<'_>,
    y: &mut [f32],
) {
    let s = row.shape;
    let pad = s.pads_begin.1;
    let mut column = 0;
    while column < s.out_w {
        let first = column.min(s.out_w - P);
        let inside = first * S >= pad && (first + P - 1) * S + K <= s.in_w + pad;
        // SAFETY: passed on to the caller; `inside` says that no column falls outside.
        unsafe {
            if inside {
                tile::<V, K, S, P, true>(row, first, y);
            } else {
                tile::<V, K, S, P, false>(row, first, y);
            }
        }
        column += P;
    }
}

/// `P` outputs from `first` on.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn tile<V: Vector, const K: usize, const S: usize, const P: usize, const INSIDE: bool>(
    row: &Row<'_>,
    first: usize,
    y: &mut [f32],
) {
    let s = row.shape;
    // SAFETY: rows and columns are checked against the plane unless they are known to lie inside; the rest is passed on
    // to the caller.
    unsafe {
        let mut sums = [V::load(row.bias.as_ptr()); P];
        for ky in 0..s.kernel.0 {
            let y = (row.at * s.strides.0 + ky * s.dilations.0).wrapping_sub(s.pads_begin.0);
            if y >= s.in_h {
                continue;
            }
            let line = row.x.as_ptr().add(y * s.in_w * V::LANES);
            let mut weights = [V::splat(0.0); K];
            for kx in 0..K {
                weights[kx] = V::load(row.weights.as_ptr().add((ky * K + kx) * V::LANES));
            }
            for j in 0..(P - 1) * S + K {
                let column = (first * S + j).wrapping_sub(s.pads_begin.1);
                let x = if INSIDE || column < s.in_w {
                    V::load(line.add(column * V::LANES))
                } else {
                    V::splat(0.0)
                };
                for p in 0..P {
                    if j >= p * S && j - p * S < K {
                        sums[p] = sums[p].add_product(x, weights[j - p * S]);
                    }
                }
            }
        }
        for p in 0..P {
            finish(row, sums[p], first + p, y);
        }
    }
}

/// One output of any geometry.
#[inline(always)]
unsafe fn position<V: Vector>(row: &Row<'_>, column: usize, y: &mut [f32]) {
    let s = row.shape;
    // SAFETY: rows and columns are checked against the plane; the rest is passed on to the caller.
    unsafe {
        let mut sum = V::load(row.bias.as_ptr());
        for ky in 0..s.kernel.0 {
            let y = (row.at * s.strides.0 + ky * s.dilations.0).wrapping_sub(s.pads_begin.0);
            for kx in 0..s.kernel.1 {
                let x = (column * s.strides.1 + kx * s.dilations.1).wrapping_sub(s.pads_begin.1);
                if y < s.in_h && x < s.in_w {
                    let tap = (ky * s.kernel.1 + kx) * V::LANES;
                    let weight = V::load(row.weights.as_ptr().add(tap));
                    let x = V::load(row.x.as_ptr().add((y * s.in_w + x) * V::LANES));
                    sum = sum.add_product(x, weight);
                }
            }
        }
        finish(row, sum, column, y);
    }
}

/// Adds the residual, clamps and stores.
#[inline(always)]
unsafe fn finish<V: Vector>(row: &Row<'_>, mut sum: V, column: usize, y: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe {
        if let Some(residual) = row.residual {
            sum = sum.add(V::load(residual.as_ptr().add(column * V::LANES)));
        }
        let (low, high) = (V::splat(row.bounds.0), V::splat(row.bounds.1));
        sum.clamp(low, high).store(y.as_mut_ptr().add(column * V::LANES));
    }
}
