//! The register tile of the weight gradient: a few output channels × a few taps, each a dot product over positions.
#![expect(unsafe_code, reason = "raw pointers and instructions of one processor family")]

use std::{mem::MaybeUninit, ops::Range};

use super::{Level, vector};
use vector::Vector;

/// Positions of a pass: the output gradients of a tile stay in L1 while all taps pass by.
pub(super) const PASS: usize = 1024;

/// Where a tap is read and where its sum goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    /// Offset of its first position from [`Dots::source`].
    pub(super) source: usize,
    /// Place in a row of [`Dots::sums`].
    pub(super) place: usize,
}

/// `sums[o · row + tap.place] += Σ dy[image · dy_image + o · dy_channel + p] · source[image · source_image + tap.source + p]`
/// over all images and positions p, for each output o and each tap.
#[derive(Clone, Copy)]
pub(super) struct Dots<'a> {
    pub(super) outputs: usize,
    pub(super) taps: &'a [Tap],
    pub(super) images: usize,
    pub(super) positions: usize,
    pub(super) dy: *const f32,
    pub(super) dy_image: usize,
    pub(super) dy_channel: usize,
    pub(super) source: *const f32,
    pub(super) source_image: usize,
    pub(super) sums: *mut f32,
    pub(super) row: usize,
}

/// Computes the sums.
///
/// # Safety
/// The processor must have the instructions of `level`. All elements that [`Dots`] names must be readable, those of
/// `sums` writable by this task alone.
pub(super) unsafe fn run(level: Level, dots: &Dots<'_>) {
    match level {
        // SAFETY: passed on to the caller.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512(dots) },
        // SAFETY: passed on to the caller.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { run_avx2(dots) },
        // SAFETY: passed on to the caller.
        _ => unsafe { run_with::<vector::Plain, 2, 3>(dots) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn run_avx512(dots: &Dots<'_>) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe { run_with::<std::arch::x86_64::__m512, 4, 6>(dots) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(dots: &Dots<'_>) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller.
    unsafe { run_with::<std::arch::x86_64::__m256, 4, 3>(dots) }
}

/// Images and positions of a pass.
#[derive(Clone)]
struct Span {
    images: Range<usize>,
    positions: Range<usize>,
}

#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]
unsafe fn run_with<V: Vector, const O: usize, const T: usize>(dots: &Dots<'_>) {
    let images = (PASS / dots.positions.max(1)).max(1);
    let positions = dots.positions.min(PASS);
    for image in (0..dots.images).step_by(images) {
        for position in (0..dots.positions).step_by(positions.max(1)) {
            let span = Span {
                images: image..dots.images.min(image + images),
                positions: position..dots.positions.min(position + positions),
            };
            // SAFETY: passed on to the caller.
            unsafe { pass::<V, O, T>(dots, &span) };
        }
    }
}

/// All outputs and taps over one span.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]
unsafe fn pass<V: Vector, const O: usize, const T: usize>(dots: &Dots<'_>, span: &Span) {
    let mut output = 0;
    // SAFETY: passed on to the caller; outputs and taps are those of `dots`.
    unsafe {
        while output + O <= dots.outputs {
            let mut taps = dots.taps;
            while let Some((these, rest)) = taps.split_first_chunk::<T>() {
                tile::<V, O, T>(dots, span, output, these);
                taps = rest;
            }
            while let Some((these, rest)) = taps.split_first_chunk::<2>() {
                tile::<V, O, 2>(dots, span, output, these);
                taps = rest;
            }
            if let Some((these, _)) = taps.split_first_chunk::<1>() {
                tile::<V, O, 1>(dots, span, output, these);
            }
            output += O;
        }
        while output < dots.outputs {
            let mut taps = dots.taps;
            while let Some((these, rest)) = taps.split_first_chunk::<9>() {
                tile::<V, 1, 9>(dots, span, output, these);
                taps = rest;
            }
            while let Some((these, rest)) = taps.split_first_chunk::<3>() {
                tile::<V, 1, 3>(dots, span, output, these);
                taps = rest;
            }
            while let Some((these, rest)) = taps.split_first_chunk::<1>() {
                tile::<V, 1, 1>(dots, span, output, these);
                taps = rest;
            }
            output += 1;
        }
    }
}

/// `O` outputs from `output` on × `T` taps.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn tile<V: Vector, const O: usize, const T: usize>(
    dots: &Dots<'_>,
    span: &Span,
    output: usize,
    taps: &[Tap; T],
) {
    let end = span.positions.end;
    // SAFETY: the caller answers for the elements; the last vector of an image touches only its own positions.
    unsafe {
        let mut sums = [[V::splat(0.0); T]; O];
        for image in span.images.clone() {
            let dy = dots.dy.add(image * dots.dy_image + output * dots.dy_channel);
            let source = dots.source.add(image * dots.source_image);
            let mut position = span.positions.start;
            while position + V::LANES <= end {
                step(
                    &mut sums,
                    |o| V::load(dy.add(o * dots.dy_channel + position)),
                    |t| V::load(source.add(taps[t].source + position)),
                );
                position += V::LANES;
            }
            if position < end {
                let count = end - position;
                step(
                    &mut sums,
                    |o| V::load_first(dy.add(o * dots.dy_channel + position), count),
                    |t| V::load_first(source.add(taps[t].source + position), count),
                );
            }
        }
        // The sums leave their registers here: a rolled loop over them would keep them in memory from the start.
        let mut done = MaybeUninit::<[[V; T]; O]>::uninit();
        let done = done.as_mut_ptr().cast::<V>();
        for o in 0..O {
            for t in 0..T {
                done.add(o * T + t).write(sums[o][t]);
            }
        }
        for o in 0..O {
            for t in 0..T {
                let sum = dots.sums.add((output + o) * dots.row + taps[t].place);
                *sum += done.add(o * T + t).read().sum();
            }
        }
    }
}

/// Adds the products of one vector of positions.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn step<V: Vector, const O: usize, const T: usize>(
    sums: &mut [[V; T]; O],
    dy: impl Fn(usize) -> V,
    source: impl Fn(usize) -> V,
) {
    let mut inputs = [source(0); T];
    for t in 1..T {
        inputs[t] = source(t);
    }
    for o in 0..O {
        let dy = dy(o);
        for t in 0..T {
            // SAFETY: the caller answers for the instructions.
            sums[o][t] = unsafe { sums[o][t].add_product(dy, inputs[t]) };
        }
    }
}
