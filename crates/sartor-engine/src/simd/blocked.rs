//! The inner layout of feature maps: channels in blocks of one vector, [n, ⌈c / lanes⌉, h, w, lanes].
//!
//! Lanes are channels, so that planes of any size fill whole vectors, taps and strides are offsets, and a convolution by
//! depth is a product of vectors. The lanes behind the last channel hold arbitrary numbers that nobody uses.

mod conv;
mod depthwise;
mod select;
mod tile;
mod winograd;

pub(crate) use conv::BlockedConv;
pub(crate) use depthwise::BlockedDepthwise;
pub(crate) use select::BlockedSelect;
pub(crate) use winograd::BlockedWinograd;

use super::{Level, tasks};

/// Channels of a block at `level`.
pub(crate) fn lanes(level: Level) -> usize {
    match level {
        Level::Avx512 => 16,
        Level::Avx2 => 8,
        Level::Portable => 4,
    }
}

/// Elements of one task of a change of layout.
const TASK: usize = 1 << 15;

/// y [n, blocks, plane, lanes] = x [n, c, plane]; lanes without a channel become 0.
///
/// # Panics
/// If a slice does not have the length of its shape: a bug of the caller. So do the others.
pub(crate) fn to_blocked(lanes: usize, channels: usize, plane: usize, x: &[f32], y: &mut [f32]) {
    if x.is_empty() {
        return;
    }
    let blocks = channels.div_ceil(lanes);
    assert_eq!(x.len() / (channels * plane), y.len() / (blocks * lanes * plane), "images");
    let block = |at: usize, y: &mut [f32]| {
        let (image, first) = (at / blocks, at % blocks * lanes);
        let count = lanes.min(channels - first);
        let x = &x[(image * channels + first) * plane..][..count * plane];
        if count < lanes {
            y.fill(0.0);
        }
        for (c, x) in x.chunks_exact(plane).enumerate() {
            for (y, &x) in y[c..].iter_mut().step_by(lanes).zip(x) {
                *y = x;
            }
        }
    };
    tasks::for_each_chunk(y, lanes * plane, TASK, block);
}

/// y [n, c, plane] = x [n, blocks, plane, lanes].
pub(crate) fn from_blocked(lanes: usize, channels: usize, plane: usize, x: &[f32], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let blocks = channels.div_ceil(lanes);
    assert_eq!(y.len() / (channels * plane), x.len() / (blocks * lanes * plane), "images");
    let channel = |at: usize, y: &mut [f32]| {
        let (image, c) = (at / channels, at % channels);
        let x = &x[(image * blocks + c / lanes) * lanes * plane + c % lanes..];
        for (y, &x) in y.iter_mut().zip(x.iter().step_by(lanes)) {
            *y = x;
        }
    };
    tasks::for_each_chunk(y, plane, TASK, channel);
}

/// y [n, c] = mean of each plane of x [n, blocks, plane, lanes], summed in the order of positions.
pub(crate) fn plane_means(lanes: usize, channels: usize, plane: usize, x: &[f32], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let blocks = channels.div_ceil(lanes);
    assert_eq!(y.len() / channels * blocks * lanes * plane, x.len(), "images");
    let scale = 1.0 / plane as f32;
    let image = |at: usize, y: &mut [f32]| {
        let x = &x[at * blocks * lanes * plane..][..blocks * lanes * plane];
        for (y, x) in y.chunks_mut(lanes).zip(x.chunks_exact(lanes * plane)) {
            let mut sums = [0.0; 16];
            for x in x.chunks_exact(lanes) {
                for (sum, &x) in sums.iter_mut().zip(x) {
                    *sum += x;
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = sum * scale;
            }
        }
    };
    tasks::for_each_chunk(y, channels, TASK.div_ceil(plane), image);
}
