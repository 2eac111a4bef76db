//! Kernels over bytes: products of `u8` and `s8` summed exactly in `i32`, then requantized where they are.
//!
//! Tensors of bytes lie channels last, so that a few channels of one position are one group of four bytes: what one
//! instruction multiplies and sums.

mod conv;
mod depthwise;
mod elementwise;
mod lanes;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use conv::ByteConv;
pub(crate) use elementwise::{
    Affine, add_bytes, dequantize_planes, max_rows, mul_bytes, pair_by_channel, quantize_planes,
    scale_sums, sum_rows,
};

use super::{Level, level};

/// Which instructions multiply bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteLevel {
    /// Plain Rust.
    Portable,
    /// AVX2: bytes widened to 16 bits, whose pairs are summed exactly.
    Avx2,
    /// AVX-512 with VNNI: four products at once in each of 16 lanes.
    Vnni,
}

impl ByteLevel {
    /// The best for a processor that is used at `level`.
    pub(super) fn of(level: Level) -> Self {
        match level {
            Level::Avx512 if vnni() => ByteLevel::Vnni,
            Level::Avx512 | Level::Avx2 => ByteLevel::Avx2,
            Level::Portable => ByteLevel::Portable,
        }
    }

    fn here() -> Self {
        Self::of(level())
    }

    /// Outputs of one vector.
    fn lanes(self) -> usize {
        match self {
            ByteLevel::Vnni => 16,
            ByteLevel::Avx2 | ByteLevel::Portable => 8,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn vnni() -> bool {
    false
}

/// How exact sums become outputs: `factor (sum + bias) + addend`, and then, for bytes,
/// `clamp(round_half_even(…), bounds) + zero`; for floats `clamp(…, bounds)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Requant {
    /// By output, in steps of the sum; the zero point of the input is in it.
    pub(crate) bias: Vec<i32>,
    /// By output: steps of the result in one step of the sum.
    pub(crate) factor: Vec<f32>,
    /// By output, in steps of the result.
    pub(crate) addend: Vec<f32>,
    /// Limits of the result; for bytes less `zero`.
    pub(crate) bounds: (f32, f32),
    /// The byte that stands for 0.
    pub(crate) zero: i32,
}

/// Where results go.
pub(crate) enum Sink<'a> {
    /// Requantized.
    Bytes(&'a mut [u8]),
    /// As real numbers, channels last.
    Floats(&'a mut [f32]),
    /// As real numbers, channels first.
    Planes(&'a mut [f32]),
}

impl Sink<'_> {
    fn len(&self) -> usize {
        match self {
            Sink::Bytes(y) => y.len(),
            Sink::Floats(y) | Sink::Planes(y) => y.len(),
        }
    }
}
