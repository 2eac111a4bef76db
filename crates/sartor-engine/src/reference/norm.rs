//! Normalizations by their definitions.

use sartor_ir::BatchNormalization;

/// Factor and addend of each channel: `y = x factor + addend` is
/// `scale (x - mean) / sqrt(var + epsilon) + shift`.
pub fn batch_norm_affine(
    it: &BatchNormalization,
    scale: &[f32],
    shift: &[f32],
    mean: &[f32],
    var: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let factor =
        |c: usize| f64::from(scale[c]) / (f64::from(var[c]) + f64::from(it.epsilon)).sqrt();
    let addend = |c: usize| (f64::from(shift[c]) - f64::from(mean[c]) * factor(c)) as f32;
    ((0..scale.len()).map(|c| factor(c) as f32).collect(), (0..scale.len()).map(addend).collect())
}

/// `exp(x_i) / sum of exp(x_j)` or its logarithm, along the middle axis of `[outer, n, inner]`, in 64 bits
/// and relative to the largest so that nothing overflows.
pub fn softmax(x: &[f32], n: usize, inner: usize, logarithm: bool, y: &mut [f32]) {
    if n * inner == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(n * inner).zip(y.chunks_exact_mut(n * inner)) {
        for lane in 0..inner {
            let at = |i: usize| f64::from(x[i * inner + lane]);
            let largest = (0..n).map(at).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..n).map(|i| (at(i) - largest).exp()).sum();
            for i in 0..n {
                let shifted = at(i) - largest;
                let value = if logarithm { shifted - sum.ln() } else { shifted.exp() / sum };
                y[i * inner + lane] = value as f32;
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
        let mut y = [0.0; 4];
        softmax(&[1000.0, 1000.0, -1e30, 1000.0], 2, 2, false, &mut y);
        assert_eq!(y, [1.0, 0.5, 0.0, 0.5]);
        softmax(&[0.0, f32::NAN], 2, 1, false, &mut y[..2]);
        assert!(y[0].is_nan() && y[1].is_nan());
    }

    #[test]
    fn batch_norm_is_affine() {
        let it = BatchNormalization { epsilon: 0.0, momentum: 0.9 };
        assert_eq!(batch_norm_affine(&it, &[2.0], &[1.0], &[3.0], &[4.0]), (vec![1.0], vec![-2.0]));
    }
}
