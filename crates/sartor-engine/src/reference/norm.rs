//! Normalizations by their definitions.

use sartor_ir::BatchNormalization;

use super::elementwise::Float;

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
