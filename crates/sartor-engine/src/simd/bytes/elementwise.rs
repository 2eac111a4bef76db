//! Bytes element by element, sums and maxima of positions, and the doors between floats and bytes.
#![expect(
    unsafe_code,
    reason = "calls loops that were compiled for instruction sets found at run time"
)]

use rayon::prelude::*;

use crate::simd::{Grid, Level, elementwise::leveled, level};

/// Elements of one task.
const TASK: usize = 1 << 16;
/// 1.5 · 2²³: adding it rounds half to even, and leaves the integer in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// The result of arithmetic on two tensors of bytes: `clamp(round_half_even(…), bounds) + zero`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Affine {
    /// The bytes that stand for 0 in the operands.
    pub(crate) zeros: (f32, f32),
    /// Steps of the result in one step of an operand; for products, of both, and 1.
    pub(crate) factors: (f32, f32),
    /// Limits less `zero`.
    pub(crate) bounds: (f32, f32),
    /// The byte that stands for 0 in the result.
    pub(crate) zero: u8,
}

/// The byte of a number of steps.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the loop that was compiled for a richer instruction set"
)]
fn byte(steps: f32, bounds: (f32, f32), zero: u8) -> u8 {
    let x = if steps > bounds.0 { steps } else { bounds.0 };
    let x = if x < bounds.1 { x } else { bounds.1 };
    ((x + MAGIC).to_bits() as u8).wrapping_add(zero)
}

leveled! {
    fn add_slice(by: Affine, a: &[u8], b: &[u8], y: &mut [u8]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            let a = (f32::from(a) - by.zeros.0) * by.factors.0;
            let b = (f32::from(b) - by.zeros.1) * by.factors.1;
            *y = byte(a + b, by.bounds, by.zero);
        }
    }
}

leveled! {
    fn mul_slice(by: Affine, a: &[u8], b: &[u8], y: &mut [u8]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            let product = (f32::from(a) - by.zeros.0) * (f32::from(b) - by.zeros.1);
            *y = byte(product * by.factors.0, by.bounds, by.zero);
        }
    }
}

leveled! {
    fn add_to_sums(x: &[u8], sums: &mut [i32]) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += i32::from(x);
        }
    }
}

leveled! {
    fn max_slice(x: &[u8], y: &mut [u8]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (*y).max(x);
        }
    }
}

leveled! {
    fn scale_slice(offset: i32, factor: f32, count: f32, bounds: (f32, f32), zero: u8, sums: &[i32], y: &mut [u8]) {
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y = byte((sum - offset) as f32 * factor / count, bounds, zero);
        }
    }
}

leveled! {
    fn quantize_slice(grid: Grid, x: &[f32], y: &mut [u8]) {
        let bounds = (grid.low - grid.zero_point, grid.high - grid.zero_point);
        for (y, &x) in y.iter_mut().zip(x) {
            *y = byte(x / grid.scale, bounds, grid.zero_point as u8);
        }
    }
}

leveled! {
    fn dequantize_slice(scale: f32, zero: f32, x: &[u8], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (f32::from(x) - zero) * scale;
        }
    }
}

fn by_parts(a: &[u8], b: &[u8], y: &mut [u8], part: impl Fn(&[u8], &[u8], &mut [u8]) + Sync) {
    assert!(a.len() == y.len() && b.len() == y.len(), "operands of equal lengths");
    if y.len() <= TASK {
        return part(a, b, y);
    }
    y.par_chunks_mut(TASK)
        .zip(a.par_chunks(TASK).zip(b.par_chunks(TASK)))
        .for_each(|(y, (a, b))| part(a, b, y));
}

/// y = a + b, each with its scale.
pub(crate) fn add_bytes(by: Affine, a: &[u8], b: &[u8], y: &mut [u8]) {
    by_parts(a, b, y, |a, b, y| add_slice(by, a, b, y));
}

/// y = a · b.
pub(crate) fn mul_bytes(by: Affine, a: &[u8], b: &[u8], y: &mut [u8]) {
    by_parts(a, b, y, |a, b, y| mul_slice(by, a, b, y));
}

/// y = a + b, or a · b if `product`, where `b` [n, channels] is the same at all positions of `a` [n, positions, channels].
pub(crate) fn pair_by_channel(
    by: Affine,
    product: bool,
    (channels, positions): (usize, usize),
    (a, b): (&[u8], &[u8]),
    y: &mut [u8],
) {
    assert!(a.len() == y.len() && b.len() * positions == y.len(), "one row for each image");
    if y.is_empty() {
        return;
    }
    let image = channels * positions;
    let part = |((y, a), b): ((&mut [u8], &[u8]), &[u8])| {
        for (y, a) in y.chunks_exact_mut(channels).zip(a.chunks_exact(channels)) {
            if product { mul_slice(by, a, b, y) } else { add_slice(by, a, b, y) }
        }
    };
    if y.len() <= TASK {
        y.chunks_mut(image).zip(a.chunks(image)).zip(b.chunks(channels)).for_each(part);
    } else {
        let parts = y.par_chunks_mut(image).zip(a.par_chunks(image));
        parts.zip(b.par_chunks(channels)).for_each(part);
    }
}

/// Adds one row of bytes to `sums`.
pub(crate) fn sum_rows(x: &[u8], sums: &mut [i32]) {
    add_to_sums(x, sums);
}

/// The larger of `x` and `y`, element by element.
pub(crate) fn max_rows(x: &[u8], y: &mut [u8]) {
    max_slice(x, y);
}

/// y = (sums − offset) · factor / count on a grid of bytes.
pub(crate) fn scale_sums(
    (offset, factor, count): (i32, f32, f32),
    bounds: (f32, f32),
    zero: u8,
    sums: &[i32],
    y: &mut [u8],
) {
    scale_slice(offset, factor, count, bounds, zero, sums, y);
}

/// Positions that are turned at once.
const BLOCK: usize = 64;

/// Quantizes `x` [n, channels, positions] to bytes [n, positions, channels]; `grid` holds its integers as bytes.
pub(crate) fn quantize_planes(
    grid: Grid,
    (channels, positions): (usize, usize),
    x: &[f32],
    y: &mut [u8],
) {
    assert_eq!(x.len(), y.len(), "quantization of equal lengths");
    if x.is_empty() {
        return;
    }
    let image = channels * positions;
    let turn = |(x, y): (&[f32], &mut [u8])| {
        if channels == 1 || positions == 1 {
            return quantize_slice(grid, x, y);
        }
        let mut bytes = [0; BLOCK];
        for (part, y) in y.chunks_mut(BLOCK * channels).enumerate() {
            let count = y.len() / channels;
            for c in 0..channels {
                let x = &x[c * positions + part * BLOCK..][..count];
                quantize_slice(grid, x, &mut bytes[..count]);
                for (pixel, &byte) in y.chunks_exact_mut(channels).zip(&bytes) {
                    pixel[c] = byte;
                }
            }
        }
    };
    if x.len() <= TASK {
        x.chunks(image).zip(y.chunks_mut(image)).for_each(turn);
    } else {
        x.par_chunks(image).zip(y.par_chunks_mut(image)).for_each(turn);
    }
}

/// The floats [n, channels, positions] of bytes [n, positions, channels].
pub(crate) fn dequantize_planes(
    grid: Grid,
    (channels, positions): (usize, usize),
    x: &[u8],
    y: &mut [f32],
) {
    assert_eq!(x.len(), y.len(), "dequantization of equal lengths");
    if x.is_empty() {
        return;
    }
    let image = channels * positions;
    let turn = |(x, y): (&[u8], &mut [f32])| {
        if channels == 1 || positions == 1 {
            return dequantize_slice(grid.scale, grid.zero_point, x, y);
        }
        let mut bytes = [0; BLOCK];
        for (part, x) in x.chunks(BLOCK * channels).enumerate() {
            let count = x.len() / channels;
            for c in 0..channels {
                for (byte, pixel) in bytes.iter_mut().zip(x.chunks_exact(channels)) {
                    *byte = pixel[c];
                }
                let y = &mut y[c * positions + part * BLOCK..][..count];
                dequantize_slice(grid.scale, grid.zero_point, &bytes[..count], y);
            }
        }
    };
    if x.len() <= TASK {
        x.chunks(image).zip(y.chunks_mut(image)).for_each(turn);
    } else {
        x.par_chunks(image).zip(y.par_chunks_mut(image)).for_each(turn);
    }
}
