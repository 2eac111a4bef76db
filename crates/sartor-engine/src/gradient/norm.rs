//! Gradients of normalizations.

use rayon::prelude::*;
use sartor_ir::{BatchNormalization, normalize_axis};

use super::{Context, Made, floats};
use crate::Array;

/// Sums over all positions of each channel of `[outer, channels, inner]`.
fn by_channel(
    channels: usize,
    inner: usize,
    each: impl Fn(usize, usize) -> f64,
    len: usize,
) -> Vec<f64> {
    let mut sums = vec![0.0; channels];
    for (i, start) in (0..len).step_by(inner.max(1)).enumerate() {
        let c = i % channels;
        sums[c] += (start..start + inner).map(|at| each(at, c)).sum::<f64>();
    }
    sums
}

fn narrow(shape: &[usize], values: &[f64]) -> Array {
    Array::f32(shape, values.iter().map(|&it| it as f32).collect())
}

/// `BatchNormalization` with stored statistics, which is affine: `y = scale (x - mean) r + shift` with
/// `r = 1 / sqrt(var + epsilon)` (<https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>).
pub(super) fn batch_norm(it: &BatchNormalization, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (x, dy) = (context.floats(0)?, floats(g));
    let (scale, mean, var) = (context.floats(1)?, context.floats(3)?, context.floats(4)?);
    let (channels, inner) = (scale.len(), g.shape[2..].iter().product::<usize>());
    let root = |c: usize| 1.0 / (f64::from(var[c]) + f64::from(it.epsilon)).sqrt();
    let roots: Vec<f64> = (0..channels).map(root).collect();
    let factor = |c: usize| f64::from(scale[c]) * roots[c];
    if context.wants(0) {
        let factors: Vec<f32> = (0..channels).map(|c| factor(c) as f32).collect();
        let own = |(i, g): (usize, &f32)| g * factors[i / inner.max(1) % channels];
        made[0] = Some(Array::f32(&g.shape, dy.iter().enumerate().map(own).collect()));
    }
    let plain = by_channel(channels, inner, |at, _| f64::from(dy[at]), dy.len());
    let centred = by_channel(
        channels,
        inner,
        |at, c| f64::from(dy[at]) * (f64::from(x[at]) - f64::from(mean[c])),
        dy.len(),
    );
    let rows: [&dyn Fn(usize) -> f64; 4] =
        [&|c| centred[c] * roots[c], &|c| plain[c], &|c| -plain[c] * factor(c), &|c| {
            -0.5 * centred[c] * f64::from(scale[c]) * roots[c].powi(3)
        }];
    for (i, row) in rows.into_iter().enumerate().filter(|it| context.wants(it.0 + 1)) {
        let sums: Vec<f64> = (0..channels).map(row).collect();
        made[i + 1] = Some(narrow(&[channels], &sums));
    }
    Ok(made)
}

/// What `BatchNormalization` with the batch's own statistics made.
#[derive(Clone, Debug)]
pub(crate) struct BatchStatistics {
    /// Mean of each channel over batch and space.
    pub(crate) mean: Vec<f32>,
    /// Population variance of each channel.
    pub(crate) var: Vec<f32>,
    /// `1 / sqrt(var + epsilon)`.
    pub(crate) root: Vec<f32>,
}

/// `BatchNormalization` with the batch's own statistics (Ioffe & Szegedy 2015, algorithm 1).
pub(crate) fn batch_norm_train(
    it: &BatchNormalization,
    x: &Array,
    scale: &[f32],
    shift: &[f32],
) -> (Array, BatchStatistics) {
    let values = floats(x);
    let (channels, inner) = (scale.len(), x.shape[2..].iter().product::<usize>());
    let count = (values.len() / channels.max(1)).max(1) as f64;
    let mut mean = by_channel(channels, inner, |at, _| f64::from(values[at]), values.len());
    for it in &mut mean {
        *it /= count;
    }
    let square = |at: usize, c: usize| (f64::from(values[at]) - mean[c]).powi(2);
    let mut var = by_channel(channels, inner, square, values.len());
    for it in &mut var {
        *it /= count;
    }
    let epsilon = f64::from(it.epsilon);
    let root: Vec<f64> = var.iter().map(|var| 1.0 / (var + epsilon).sqrt()).collect();
    let own = |(i, &x): (usize, &f32)| {
        let c = i / inner.max(1) % channels;
        ((f64::from(x) - mean[c]) * root[c] * f64::from(scale[c]) + f64::from(shift[c])) as f32
    };
    let y = Array::f32(&x.shape, values.iter().enumerate().map(own).collect());
    let [mean, var, root] = [mean, var, root].map(|it| it.iter().map(|&it| it as f32).collect());
    (y, BatchStatistics { mean, var, root })
}

/// d loss / d (x, scale, shift) of [`batch_norm_train`] (Ioffe & Szegedy 2015, section 3). With
/// `n = (x - mean) r`: `dx = scale r (dy - mean of dy - n mean of (dy n))`.
pub(crate) fn batch_norm_train_backward(
    x: &Array,
    scale: &[f32],
    statistics: &BatchStatistics,
    gradient: &Array,
) -> [Array; 3] {
    let (values, dy) = (floats(x), floats(gradient));
    let (channels, inner) = (scale.len(), x.shape[2..].iter().product::<usize>());
    let count = (values.len() / channels.max(1)).max(1) as f64;
    let normal = |at: usize, c: usize| {
        (f64::from(values[at]) - f64::from(statistics.mean[c])) * f64::from(statistics.root[c])
    };
    let shift = by_channel(channels, inner, |at, _| f64::from(dy[at]), dy.len());
    let by_scale = by_channel(channels, inner, |at, c| f64::from(dy[at]) * normal(at, c), dy.len());
    let own = |(at, &g): (usize, &f32)| {
        let c = at / inner.max(1) % channels;
        let factor = f64::from(scale[c]) * f64::from(statistics.root[c]);
        let rest = (shift[c] + normal(at, c) * by_scale[c]) / count;
        (factor * (f64::from(g) - rest)) as f32
    };
    let dx = Array::f32(&x.shape, dy.iter().enumerate().map(own).collect());
    [dx, narrow(&[channels], &by_scale), narrow(&[channels], &shift)]
}

/// `Softmax`: `dx = y (g - sum of g y)`; `LogSoftmax`: `dx = g - exp(y) sum of g`; sums run along the axis.
pub(super) fn softmax(axis: i64, logarithm: bool, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    let shape = &g.shape;
    let axis = normalize_axis(axis, shape.len())?;
    softmax_along((shape[axis], shape[axis + 1..].iter().product()), logarithm, context)
}

/// As [`softmax`], along the middle axis of `[outer, n, inner]`.
pub(super) fn softmax_along(
    (n, inner): (usize, usize),
    logarithm: bool,
    context: &Context<'_>,
) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let output = context.output(0)?;
        let (y, dy) = (floats(output), floats(g));
        let mut dx = vec![0.0; y.len()];
        let slab = (n * inner).max(1);
        let chunk = slab * 4096usize.div_ceil(slab);
        let parts = dx.par_chunks_mut(chunk).zip(y.par_chunks(chunk)).zip(dy.par_chunks(chunk));
        parts.for_each(|((dx, y), dy)| {
            let slabs = dx.chunks_mut(slab).zip(y.chunks(slab)).zip(dy.chunks(slab));
            slabs.for_each(|((dx, y), dy)| softmax_slab(dx, y, dy, inner, logarithm));
        });
        Ok(Array::f32(&output.shape, dx))
    })
}

/// One slab `[n, inner]`.
fn softmax_slab(dx: &mut [f32], y: &[f32], dy: &[f32], inner: usize, logarithm: bool) {
    for lane in 0..inner {
        let along = || (lane..y.len()).step_by(inner);
        let term = |i: usize| f64::from(dy[i]) * if logarithm { 1.0 } else { f64::from(y[i]) };
        let sum: f64 = along().map(term).sum();
        for i in along() {
            let (y, dy) = (f64::from(y[i]), f64::from(dy[i]));
            dx[i] = if logarithm { dy - y.exp() * sum } else { y * (dy - sum) } as f32;
        }
    }
}
