//! The register tile of a dense convolution over blocked channels: a few blocks of outputs × a few positions.
//!
//! Each step loads the weights of one input channel, a vector for each block of outputs, and meets them with that
//! channel at each position.
#![expect(unsafe_code, reason = "raw pointers and instructions of one processor family")]
#![expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]

use super::super::{Level, vector};
use vector::Vector;

/// Blocks of outputs that are computed together.
pub(super) const GROUP: usize = 2;

/// One group of output blocks, one chunk of input blocks, and all positions of a task.
pub(super) struct Walk<'a> {
    /// [block of inputs, tap, channel, block of outputs, lane], from the chunk's first on.
    pub(super) weights: &'a [f32],
    /// Bias of the group: [block of outputs, lane].
    pub(super) bias: &'a [f32],
    /// Blocks of outputs, 1 or [`GROUP`].
    pub(super) group: usize,
    /// Blocks of inputs in the chunk.
    pub(super) blocks: usize,
    /// Channels of each block but the last, and of the last.
    pub(super) width: (usize, usize),
    /// Offsets of the taps.
    pub(super) taps: &'a [usize],
    /// First element of the chunk's first block at position 0 of image 0.
    pub(super) source: *const f32,
    /// Distances in the source.
    pub(super) source_block: usize,
    pub(super) source_steps: Steps,
    /// Element (position 0, block 0 of the group, lane 0) of image 0.
    pub(super) y: *mut f32,
    /// The same of what is added.
    pub(super) residual: Option<*const f32>,
    /// Distances in `y` and the residual.
    pub(super) y_block: usize,
    pub(super) y_image: usize,
    pub(super) images: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Whether sums begin here, else they go on from what `y` holds.
    pub(super) first: bool,
    /// The bounds of the clamp where sums end here.
    pub(super) last: Option<(f32, f32)>,
}

/// Distances between images, rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Computes all positions of a walk.
///
/// # Safety
/// The processor must have the instructions of `level`, for whose lanes everything is laid out. All elements that
/// [`Walk`] names must be readable at `source`, `residual` and writable at `y` by this task alone.
pub(super) unsafe fn run(level: Level, walk: &Walk<'_>) {
    match level {
        // SAFETY: passed on to the caller, also below.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512(walk) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { run_avx2(walk) },
        _ => unsafe { run_with::<vector::Plain, 4, 2>(walk) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn run_avx512(walk: &Walk<'_>) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe { run_with::<std::arch::x86_64::__m512, 8, 4>(walk) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(walk: &Walk<'_>) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe { run_with::<std::arch::x86_64::__m256, 6, 3>(walk) }
}

/// Where a position lies.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    row: usize,
    column: usize,
}

#[inline(always)]
unsafe fn run_with<V: Vector, const P: usize, const HALF: usize>(walk: &Walk<'_>) {
    // SAFETY: passed on to the caller.
    unsafe {
        if walk.group == 1 {
            positions::<V, 1, P, HALF>(walk);
        } else {
            positions::<V, GROUP, P, HALF>(walk);
        }
    }
}

#[inline(always)]
unsafe fn positions<V: Vector, const B: usize, const P: usize, const HALF: usize>(walk: &Walk<'_>) {
    let mut left = walk.images * walk.rows * walk.columns;
    let mut next = Place { image: 0, row: 0, column: 0 };
    while left > 0 {
        // SAFETY: passed on to the caller.
        unsafe {
            if left > HALF {
                tile::<V, B, P>(walk, &mut next, left);
                left = left.saturating_sub(P);
            } else {
                tile::<V, B, HALF>(walk, &mut next, left);
                left = 0;
            }
        }
    }
}

/// `P` positions from `next` on, which moves behind them; where fewer are left the last is computed several times.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn tile<V: Vector, const B: usize, const P: usize>(
    walk: &Walk<'_>,
    next: &mut Place,
    left: usize,
) {
    let (mut from, mut to) = ([walk.source; P], [0; P]);
    let steps = &walk.source_steps;
    for p in 0..P {
        if p < left {
            let at = next.image * steps.image + next.row * steps.row + next.column * steps.column;
            from[p] = walk.source.wrapping_add(at);
            to[p] = next.image * walk.y_image + (next.row * walk.columns + next.column) * V::LANES;
            next.column += 1;
            if next.column == walk.columns {
                (next.column, next.row) = (0, next.row + 1);
                if next.row == walk.rows {
                    (next.row, next.image) = (0, next.image + 1);
                }
            }
        } else {
            (from[p], to[p]) = (from[p - 1], to[p - 1]);
        }
    }
    // SAFETY: the caller answers for all elements that the walk names, and only those are touched.
    unsafe {
        let mut sums = [[V::splat(0.0); B]; P];
        for b in 0..B {
            let bias = V::load(walk.bias.as_ptr().add(b * V::LANES));
            for p in 0..P {
                sums[p][b] = bias;
            }
        }
        if !walk.first {
            for p in 0..P {
                for b in 0..B {
                    sums[p][b] = V::load(walk.y.add(to[p] + b * walk.y_block));
                }
            }
        }
        let mut weights = walk.weights.as_ptr();
        for block in 0..walk.blocks {
            let count = if block + 1 == walk.blocks { walk.width.1 } else { walk.width.0 };
            for &tap in walk.taps {
                let offset = block * walk.source_block + tap;
                let mut inputs = from;
                for p in 0..P {
                    inputs[p] = from[p].add(offset);
                }
                for c in 0..count {
                    let mut weight = [V::splat(0.0); B];
                    for b in 0..B {
                        weight[b] = V::load(weights.add(b * V::LANES));
                    }
                    for p in 0..P {
                        let input = V::splat(*inputs[p].add(c));
                        for b in 0..B {
                            sums[p][b] = sums[p][b].add_product(input, weight[b]);
                        }
                    }
                    weights = weights.add(B * V::LANES);
                }
            }
        }
        finish(walk, &sums, &to);
    }
}

/// Adds the residual and clamps where sums end, and stores them.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn finish<V: Vector, const B: usize, const P: usize>(
    walk: &Walk<'_>,
    sums: &[[V; B]; P],
    to: &[usize; P],
) {
    // SAFETY: the caller answers for all elements that the walk names.
    unsafe {
        let Some((low, high)) = walk.last else {
            for p in 0..P {
                for b in 0..B {
                    sums[p][b].store(walk.y.add(to[p] + b * walk.y_block));
                }
            }
            return;
        };
        let (low, high) = (V::splat(low), V::splat(high));
        for p in 0..P {
            for b in 0..B {
                let at = to[p] + b * walk.y_block;
                let mut sum = sums[p][b];
                if let Some(residual) = walk.residual {
                    sum = sum.add(V::load(residual.add(at)));
                }
                sum.clamp(low, high).store(walk.y.add(at));
            }
        }
    }
}
