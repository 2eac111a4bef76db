//! The register tile of the dense convolution: a few output channels × a few vectors of positions, walking the taps.
#![expect(unsafe_code, reason = "raw pointers and instructions of one processor family")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Level, vector};
use vector::Vector;

/// One task: some images, some rows and some output channels of one group.
///
/// Element (image, channel, tap, position) of the unrolled input is
/// `source[image · source_image + channel · source_channel + taps[tap] + position]`; element (image, output, position)
/// of `y` and `residual` is at `image · y_image + output · y_channel + position`.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    /// [block, channel, tap, output of the block].
    pub(super) weights: &'a [f32],
    /// One for each output of each block.
    pub(super) bias: &'a [f32],
    /// Outputs of the group; the last block may be filled up with zero weights.
    pub(super) outputs: usize,
    pub(super) channels: usize,
    pub(super) taps: &'a [usize],
    pub(super) source: *const f32,
    pub(super) source_image: usize,
    pub(super) source_channel: usize,
    pub(super) images: usize,
    pub(super) positions: usize,
    pub(super) y: *mut f32,
    pub(super) residual: Option<*const f32>,
    pub(super) y_image: usize,
    pub(super) y_channel: usize,
    pub(super) bounds: (f32, f32),
}

/// Output channels of a block of weights at `level`. Where an output sees one channel only, sharing inputs between
/// outputs gains nothing.
pub(super) fn block_outputs(level: Level, channels: usize) -> usize {
    match level {
        _ if channels == 1 => 1,
        Level::Avx512 => 8,
        Level::Avx2 => 6,
        Level::Portable => 4,
    }
}

/// Computes the given blocks of output channels.
///
/// # Safety
/// The processor must have the instructions of `level`, for which the weights were laid out. All elements that [`Walk`] names must be readable at `source`
/// and `residual` and writable at `y` by this task alone; up to 15 elements behind the last position of each tap must
/// be readable too.
pub(super) unsafe fn run(level: Level, walk: &Walk<'_>, blocks: Range<usize>) {
    match level {
        // SAFETY: passed on to the caller.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512(walk, blocks) },
        // SAFETY: passed on to the caller.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { run_avx2(walk, blocks) },
        // SAFETY: passed on to the caller.
        _ if walk.channels == 1 => unsafe { run_with::<vector::Plain, 1, 4>(walk, blocks) },
        // SAFETY: passed on to the caller.
        _ => unsafe { run_with::<vector::Plain, 4, 2>(walk, blocks) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn run_avx512(walk: &Walk<'_>, blocks: Range<usize>) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe {
        if walk.channels == 1 {
            run_with::<std::arch::x86_64::__m512, 1, 4>(walk, blocks);
        } else {
            run_with::<std::arch::x86_64::__m512, 8, 3>(walk, blocks);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(walk: &Walk<'_>, blocks: Range<usize>) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe {
        if walk.channels == 1 {
            run_with::<std::arch::x86_64::__m256, 1, 4>(walk, blocks);
        } else {
            run_with::<std::arch::x86_64::__m256, 6, 2>(walk, blocks);
        }
    }
}

#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]
unsafe fn run_with<V: Vector, const O: usize, const N: usize>(
    walk: &Walk<'_>,
    blocks: Range<usize>,
) {
    let vectors = walk.images * walk.positions.div_ceil(V::LANES);
    for block in blocks {
        let mut next = Place { image: 0, position: 0 };
        for _ in 0..vectors / N {
            // SAFETY: passed on to the caller.
            unsafe { tile::<V, O, N>(walk, block, &mut next) };
        }
        for _ in 0..vectors % N {
            // SAFETY: passed on to the caller.
            unsafe { tile::<V, O, 1>(walk, block, &mut next) };
        }
    }
}

/// Where a vector starts.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    position: usize,
}

/// `O` outputs of `N` vectors of positions, from `next` on, which moves behind them.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn tile<V: Vector, const O: usize, const N: usize>(
    walk: &Walk<'_>,
    block: usize,
    next: &mut Place,
) {
    let mut places = [*next; N];
    for n in 0..N {
        places[n] = *next;
        next.position += V::LANES;
        if next.position >= walk.positions {
            *next = Place { image: next.image + 1, position: 0 };
        }
    }
    let outputs = O.min(walk.outputs - block * O);
    // SAFETY: blocks lie inside `weights` and `bias`; the caller answers for `source`, `residual` and `y`, of which
    // only elements of real outputs and positions are touched.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; O];
        for o in 0..O {
            sums[o] = [V::splat(*walk.bias.get_unchecked(block * O + o)); N];
        }
        let mut from = [walk.source; N];
        for n in 0..N {
            from[n] = walk.source.add(places[n].image * walk.source_image + places[n].position);
        }
        let mut weights = walk.weights.as_ptr().add(block * O * walk.channels * walk.taps.len());
        for _ in 0..walk.channels {
            for &tap in walk.taps {
                let mut inputs = [V::splat(0.0); N];
                for n in 0..N {
                    inputs[n] = V::load(from[n].add(tap));
                }
                for o in 0..O {
                    let weight = V::splat(*weights.add(o));
                    for n in 0..N {
                        sums[o][n] = sums[o][n].add_product(weight, inputs[n]);
                    }
                }
                weights = weights.add(O);
            }
            for n in 0..N {
                from[n] = from[n].wrapping_add(walk.source_channel);
            }
        }
        // The sums leave their registers here: a rolled loop over them would keep them in memory from the start.
        let mut done = MaybeUninit::<[[V; N]; O]>::uninit();
        let done = done.as_mut_ptr().cast::<V>();
        for o in 0..O {
            for n in 0..N {
                done.add(o * N + n).write(sums[o][n]);
            }
        }
        let bounds = (V::splat(walk.bounds.0), V::splat(walk.bounds.1));
        for o in 0..outputs {
            for n in 0..N {
                let at = places[n].image * walk.y_image
                    + (block * O + o) * walk.y_channel
                    + places[n].position;
                finish(
                    walk,
                    done.add(o * N + n).read(),
                    at,
                    walk.positions - places[n].position,
                    bounds,
                );
            }
        }
    }
}

/// Adds the residual, clamps and stores the first `count` lanes (all, if there are fewer) of a sum.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]
unsafe fn finish<V: Vector>(
    walk: &Walk<'_>,
    mut sum: V,
    at: usize,
    count: usize,
    (low, high): (V, V),
) {
    // SAFETY: the caller answers for `count` elements at `at`.
    unsafe {
        if count >= V::LANES {
            if let Some(residual) = walk.residual {
                sum = sum.add(V::load(residual.add(at)));
            }
            sum.clamp(low, high).store(walk.y.add(at));
        } else {
            if let Some(residual) = walk.residual {
                sum = sum.add(V::load_first(residual.add(at), count));
            }
            sum.clamp(low, high).store_first(walk.y.add(at), count);
        }
    }
}
