//! Gradients of pooling.

use rayon::prelude::*;

use super::conv::ConvShape;

/// y = the mean of each plane of `positions` (`GlobalAveragePool`).
pub(crate) fn global_average(positions: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len() * positions, "planes of {positions}");
    if x.is_empty() {
        return;
    }
    let least = ((1 << 14) / positions).max(1);
    y.par_iter_mut().zip(x.par_chunks(positions)).with_min_len(least).for_each(|(y, x)| {
        let mut lanes = [0.0_f32; 16];
        let (whole, rest) = x.as_chunks::<16>();
        for x in whole {
            lanes.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
        lanes.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x);
        let sum: f64 = lanes.iter().map(|&it| f64::from(it)).sum();
        *y = (sum / positions as f64) as f32;
    });
}

/// dx = dy / positions at each of the positions of each plane (gradient of `GlobalAveragePool`), or that added to `dx`.
pub(crate) fn global_average_backward(
    positions: usize,
    dy: &[f32],
    accumulate: bool,
    dx: &mut [f32],
) {
    assert_eq!(dx.len(), dy.len() * positions, "planes of {positions}");
    if dx.is_empty() {
        return;
    }
    let least = ((1 << 14) / positions).max(1);
    let planes = dx.par_chunks_mut(positions).zip(dy).with_min_len(least);
    planes.for_each(|(dx, dy)| {
        let share = dy / positions as f32;
        if accumulate {
            for dx in dx {
                *dx += share;
            }
        } else {
            dx.fill(share);
        }
    });
}

/// dx = dy at the first largest input of each window (gradient of `MaxPool`), 0 elsewhere, or that added to `dx`.
/// Channels and groups of `shape` do not count beyond the number of planes: x [n, c, h, w], dy [n, c, oh, ow].
pub(crate) fn max_pool_backward(
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    dx: &mut [f32],
) {
    let (x_plane, y_plane) = (shape.in_h * shape.in_w, shape.out_h * shape.out_w);
    let planes = shape.batch * shape.in_channels;
    assert!(x.len() == planes * x_plane && dx.len() == x.len(), "input of {shape:?}");
    assert_eq!(dy.len(), planes * y_plane, "output of {shape:?}");
    if dx.is_empty() {
        return;
    }
    let least = ((1 << 12) / x_plane).max(1);
    dx.par_chunks_mut(x_plane).enumerate().with_min_len(least).for_each(|(plane, dx)| {
        if !accumulate {
            dx.fill(0.0);
        }
        let x = &x[plane * x_plane..][..x_plane];
        for (at, &g) in dy[plane * y_plane..][..y_plane].iter().enumerate() {
            if let Some(largest) = largest(shape, x, (at / shape.out_w, at % shape.out_w)) {
                dx[largest] += g;
            }
        }
    });
}

/// Place of the first largest input of the window of an output; NaN is larger than all.
fn largest(s: &ConvShape, x: &[f32], (oy, ox): (usize, usize)) -> Option<usize> {
    let mut best: Option<usize> = None;
    for ky in 0..s.kernel.0 {
        let iy = (oy * s.strides.0 + ky * s.dilations.0).wrapping_sub(s.pads_begin.0);
        if iy >= s.in_h {
            continue;
        }
        for kx in 0..s.kernel.1 {
            let ix = (ox * s.strides.1 + kx * s.dilations.1).wrapping_sub(s.pads_begin.1);
            if ix >= s.in_w {
                continue;
            }
            let at = iy * s.in_w + ix;
            let better = |best: usize| x[at] > x[best] || (x[at].is_nan() && !x[best].is_nan());
            if best.is_none_or(better) {
                best = Some(at);
            }
        }
    }
    best
}
