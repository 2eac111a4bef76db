//! Convolution (ONNX `Conv`) with fused bias, residual and activation.

use rayon::prelude::*;

use super::{Tail, clamp};

/// Geometry of a convolution over NCHW; one-dimensional ones have height 1. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvShape {
    /// Images.
    pub(crate) batch: usize,
    /// Channels of the input.
    pub(crate) in_channels: usize,
    /// Rows of the input.
    pub(crate) in_h: usize,
    /// Columns of the input.
    pub(crate) in_w: usize,
    /// Channels of the output.
    pub(crate) out_channels: usize,
    /// Rows of the output.
    pub(crate) out_h: usize,
    /// Columns of the output.
    pub(crate) out_w: usize,
    /// Taps.
    pub(crate) kernel: (usize, usize),
    /// Steps between outputs, at least 1.
    pub(crate) strides: (usize, usize),
    /// Steps between taps, at least 1.
    pub(crate) dilations: (usize, usize),
    /// Zeros before the first row and column.
    pub(crate) pads_begin: (usize, usize),
    /// Groups; divides both channel counts.
    pub(crate) groups: usize,
}

/// A convolution whose weights were laid out for its kernel once.
#[derive(Clone, Debug)]
pub(crate) struct PackedConv {
    shape: ConvShape,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl PackedConv {
    /// Lays out `weights` [o, c / groups, kh, kw] and `bias` [o].
    pub(crate) fn new(shape: &ConvShape, weights: &[f32], bias: Option<&[f32]>) -> Self {
        let bias = bias.map_or_else(|| vec![0.0; shape.out_channels], <[f32]>::to_vec);
        Self { shape: *shape, weights: weights.to_vec(), bias }
    }

    /// y [n, o, oh, ow] = tail(x [n, c, h, w] ∗ weights + bias + residual [n, o, oh, ow]).
    pub(crate) fn run(&self, x: &[f32], residual: Option<&[f32]>, tail: Tail, y: &mut [f32]) {
        let s = &self.shape;
        let (plane, image) = (s.out_h * s.out_w, s.in_channels * s.in_h * s.in_w);
        if plane == 0 {
            return;
        }
        let (inputs, outputs) = (s.in_channels / s.groups, s.out_channels / s.groups);
        let taps = s.kernel.0 * s.kernel.1;
        y.par_chunks_mut(plane).enumerate().for_each(|(index, y)| {
            let (n, o) = (index / s.out_channels, index % s.out_channels);
            for (position, y) in y.iter_mut().enumerate() {
                let (oy, ox) = (position / s.out_w, position % s.out_w);
                let mut sum = self.bias[o];
                for c in 0..inputs {
                    let x = &x[n * image + (o / outputs * inputs + c) * s.in_h * s.in_w..];
                    for tap in 0..taps {
                        let (ky, kx) = (tap / s.kernel.1, tap % s.kernel.1);
                        let iy =
                            (oy * s.strides.0 + ky * s.dilations.0).wrapping_sub(s.pads_begin.0);
                        let ix =
                            (ox * s.strides.1 + kx * s.dilations.1).wrapping_sub(s.pads_begin.1);
                        if iy < s.in_h && ix < s.in_w {
                            sum +=
                                x[iy * s.in_w + ix] * self.weights[(o * inputs + c) * taps + tap];
                        }
                    }
                }
                let residual = residual.map_or(0.0, |r| r[index * plane + position]);
                *y = clamp(sum + residual, tail.bounds());
            }
        });
    }
}
