//! The fenced room: kernels by instruction set. The only place with `unsafe`; its faces are safe functions over slices.
//!
//! Which instructions run is found at run time ([`level`]) and can be forced down ([`force`]), so that every level is
//! tested on one machine. Work is cut by shapes alone and each output element is summed in one fixed order: results are
//! the same bits for any number of threads.

mod aligned;
mod batch_norm;
pub(crate) mod blocked;
#[cfg(test)]
mod blocked_tests;
mod bytes;
mod conv;
mod conv_input;
mod conv_train;
mod conv_weight;
mod dots;
mod elementwise;
mod matmul;
#[cfg(test)]
mod norm_tests;
mod optimizer;
mod planes;
mod pool_train;
mod scratch;
mod shared;
pub(crate) mod tasks;
#[cfg(test)]
mod tests;
mod tile;
#[cfg(test)]
mod train_tests;
mod vector;

use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) use aligned::Aligned;
pub(crate) use batch_norm::{
    Activated, BatchNorm, BatchStatistics, Into, Target, activate_backward, bias_gradient,
};
pub(crate) use bytes::{
    Affine, ByteConv, Requant, Sink, add_bytes, dequantize_planes, max_rows, mul_bytes,
    pair_by_channel, quantize_planes, scale_sums, sum_rows,
};
pub(crate) use conv::{ConvShape, PackedConv};
pub(crate) use conv_train::TrainConv;
pub use elementwise::{Grid, abs_max, fake_quantize, min_max, quantize_i8, quantize_u8};
pub(crate) use elementwise::{
    activate, activate_in_place, add, add_in_place, learned_step, partly_quantize, straight_through,
};
pub(crate) use matmul::{Strided, gemm, gemm_onto};
pub use optimizer::{AdamW, Sgd, adamw_step, sgd_step};
pub(crate) use pool_train::{global_average, global_average_backward, max_pool_backward};
use shared::Shared;

/// A set of instructions, poorest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the target guarantees: SSE2 on x86-64, NEON on aarch64.
    Portable,
    /// AVX2 with FMA: 8 lanes.
    Avx2,
    /// AVX-512F: 16 lanes.
    Avx512,
}

/// Highest level allowed by [`force`], as the discriminant of [`Level`].
static CEILING: AtomicU8 = AtomicU8::new(Level::Avx512 as u8);

/// Forbids all levels above `ceiling` to what is prepared from now on; raising it again is allowed.
pub fn force(ceiling: Level) {
    CEILING.store(ceiling as u8, Ordering::Relaxed);
}

/// The best level that this processor has and [`force`] allows.
pub fn level() -> Level {
    let ceiling = CEILING.load(Ordering::Relaxed);
    [Level::Avx512, Level::Avx2]
        .into_iter()
        .find(|&level| level as u8 <= ceiling && available(level))
        .unwrap_or(Level::Portable)
}

/// Whether this processor has the instructions of `level`.
#[cfg(target_arch = "x86_64")]
fn available(level: Level) -> bool {
    let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    match level {
        Level::Portable => true,
        Level::Avx2 => avx2(),
        Level::Avx512 => avx2() && is_x86_feature_detected!("avx512f"),
    }
}

/// Whether this processor has the instructions of `level`.
#[cfg(not(target_arch = "x86_64"))]
fn available(level: Level) -> bool {
    level == Level::Portable
}

/// What is applied to a sum after its bias and residual. NaN stays NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tail {
    /// Nothing.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, low), high)`.
    Clip(f32, f32),
}

impl Tail {
    /// The tail as the two bounds of a clamp.
    fn bounds(self) -> (f32, f32) {
        match self {
            Self::None => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::Clip(low, high) => (low, high),
        }
    }
}

/// `min(max(x, low), high)` that lets NaN through.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "must become part of the loop that was compiled for a richer instruction set"
)]
fn clamp(x: f32, (low, high): (f32, f32)) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}
