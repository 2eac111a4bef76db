//! Normalizations by their definitions.

use sartor_ir::{BatchNormalization, Named};

use super::{elementwise::Float, layout::View};

/// Factor and addend of each channel: `y = x factor + addend` is
/// `scale (x - mean) / sqrt(var + epsilon) + shift`.
pub(crate) fn batch_norm_affine<T: Float>(
    it: &BatchNormalization,
    scale: &[T],
    shift: &[T],
    mean: &[T],
    var: &[T],
) -> (Vec<T>, Vec<T>) {
    let wide = |it: T| -> f64 { it.into() };
    let factor = |c: usize| wide(scale[c]) / (wide(var[c]) + f64::from(it.epsilon)).sqrt();
    let addend = |c: usize| T::narrow(wide(shift[c]) - wide(mean[c]) * factor(c));
    (
        (0..scale.len()).map(|c| T::narrow(factor(c))).collect(),
        (0..scale.len()).map(addend).collect(),
    )
}

/// `exp(x_i) / sum of exp(x_j)` or its logarithm, along the middle axis of `[outer, n, inner]`, in 64 bits
/// and relative to the largest so that nothing overflows.
pub(crate) fn softmax<T: Float>(x: &[T], n: usize, inner: usize, logarithm: bool, y: &mut [T]) {
    if n * inner == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(n * inner).zip(y.chunks_exact_mut(n * inner)) {
        for lane in 0..inner {
            let at = |i: usize| -> f64 { x[i * inner + lane].into() };
            let largest = (0..n).map(at).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..n).map(|i| (at(i) - largest).exp()).sum();
            for i in 0..n {
                let shifted = at(i) - largest;
                let value = if logarithm { shifted - sum.ln() } else { shifted.exp() / sum };
                y[i * inner + lane] = T::narrow(value);
            }
        }
    }
}

/// The elements that are normalized together along the middle axis of `[outer, n, inner]`: their indices.
pub(crate) fn lanes(
    len: usize,
    n: usize,
    inner: usize,
) -> impl Iterator<Item = std::iter::StepBy<std::ops::Range<usize>>> {
    let slab = n * inner;
    let starts = (0..len).step_by(slab.max(1)).take_while(move |_| slab > 0);
    starts.flat_map(move |start| {
        (start..start + inner).map(move |first| (first..start + slab).step_by(inner))
    })
}

/// The norm of a vector: the sum of magnitudes for `p = 1`, the Euclidean length for `p = 2`.
///
/// # Errors
/// Another `p`, which ONNX does not have.
pub(crate) fn length(p: i64, x: impl Iterator<Item = f64>) -> Result<f64, String> {
    match p {
        1 => Ok(x.map(f64::abs).sum()),
        2 => Ok(x.map(|it| it * it).sum::<f64>().sqrt()),
        other => Err(format!("`p` is {other}, expected 1 or 2")),
    }
}

/// Added to the standard deviation by `MeanVarianceNormalization`.
pub(crate) const MOMENT_EPSILON: f64 = 1e-9;

fn moved_last(rank: usize, axes: &[usize]) -> Vec<usize> {
    (0..rank).filter(|it| !axes.contains(it)).chain(axes.iter().copied()).collect()
}

/// The view of a tensor of `shape` with `axes` (ascending) as its last ones.
pub(crate) fn last_axes(shape: &[usize], axes: &[usize]) -> View {
    View::transpose(shape, &moved_last(shape.len(), axes))
}

/// The inverse of [`last_axes`].
pub(crate) fn first_axes(shape: &[usize], axes: &[usize]) -> View {
    let perm = moved_last(shape.len(), axes);
    let moved: Vec<usize> = perm.iter().map(|&it| shape[it]).collect();
    let mut back = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
    View::transpose(&moved, &back)
}

/// Mean and population variance of the elements of each channel.
pub(crate) fn batch_moments(
    x: &[f64],
    channels: usize,
    channel: impl Fn(usize) -> usize,
) -> (Vec<f64>, Vec<f64>) {
    let count = x.len().checked_div(channels).unwrap_or(0).max(1) as f64;
    let (mut mean, mut var) = (vec![0.0; channels], vec![0.0; channels]);
    x.iter().enumerate().for_each(|(at, x)| mean[channel(at)] += x / count);
    x.iter().enumerate().for_each(|(at, x)| {
        let c = channel(at);
        var[c] += (x - mean[c]).powi(2) / count;
    });
    (mean, var)
}

/// `LRN` of an input `[batch, channels, …]` (<https://onnx.ai/onnx/operators/onnx__LRN.html>):
/// `y = x / (bias + alpha / size sum of x² over neighbouring channels)^beta`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lrn {
    /// `alpha / size`.
    pub(crate) factor: f64,
    /// Exponent.
    pub(crate) beta: f64,
    bias: f64,
    /// Channels before and behind that are neighbours.
    reach: (usize, usize),
    channels: usize,
    plane: usize,
}

impl Lrn {
    /// Reads the attributes for an input of `shape`.
    ///
    /// # Errors
    /// An input without channels or a size that is not positive.
    pub(crate) fn of(op: &Named, shape: &[usize]) -> Result<Self, String> {
        let size = usize::try_from(op.int("size", 0)?).ok().filter(|it| *it > 0);
        let size = size.ok_or("`size` must be positive")?;
        let &[_, channels, ..] = shape else {
            return Err(format!("input {shape:?} has no channels"));
        };
        Ok(Lrn {
            factor: f64::from(op.float("alpha", 1e-4)?) / size as f64,
            beta: op.float("beta", 0.75)?.into(),
            bias: op.float("bias", 1.0)?.into(),
            reach: ((size - 1) / 2, size / 2),
            channels,
            plane: shape[2..].iter().product(),
        })
    }

    /// What is raised to `-beta`, by element.
    pub(crate) fn bases(&self, x: &[f64]) -> Vec<f64> {
        let squares: Vec<f64> = x.iter().map(|it| it * it).collect();
        let base = |sum: f64| self.bias + self.factor * sum;
        self.summed(&squares, self.reach).into_iter().map(base).collect()
    }

    /// The sums of `x` over the channels of which an element is a neighbour: the adjoint of the sums over
    /// its neighbours.
    pub(crate) fn summed_back(&self, x: &[f64]) -> Vec<f64> {
        self.summed(x, (self.reach.1, self.reach.0))
    }

    fn summed(&self, x: &[f64], (before, behind): (usize, usize)) -> Vec<f64> {
        let one = |at: usize| {
            let c = at / self.plane % self.channels;
            let (first, last) = (c.saturating_sub(before), (c + behind).min(self.channels - 1));
            (first..=last).map(|it| x[at + it * self.plane - c * self.plane]).sum()
        };
        (0..x.len()).map(one).collect()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_large_numbers() {
        let mut y = [0f32; 4];
        softmax(&[1000.0, 1000.0, -1e30, 1000.0], 2, 2, false, &mut y);
        assert_eq!(y, [1.0, 0.5, 0.0, 0.5]);
        softmax(&[0.0, f32::NAN], 2, 1, false, &mut y[..2]);
        assert!(y[0].is_nan() && y[1].is_nan());
    }

    #[test]
    fn batch_norm_is_affine() {
        let it = BatchNormalization { epsilon: 0.0, momentum: 0.9 };
        assert_eq!(
            batch_norm_affine(&it, &[2f32], &[1.0], &[3.0], &[4.0]),
            (vec![1.0], vec![-2.0])
        );
    }
}
