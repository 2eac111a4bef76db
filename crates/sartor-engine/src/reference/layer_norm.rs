//! Normalization of runs of elements: layer normalization (Ba, Kiros, Hinton, "Layer Normalization", 2016)
//! and its form without mean (Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019).

use super::elementwise::Float;

/// Where the spread of a run is measured from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Centre {
    /// From the mean of the run, which is subtracted.
    Mean,
    /// From zero: nothing is subtracted.
    Zero,
}

/// What is computed of runs of elements.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Normalized<T> {
    /// The elements, normalized.
    pub(crate) values: Vec<T>,
    /// What was subtracted, one number a run.
    pub(crate) means: Vec<T>,
    /// `1 / sqrt(variance + epsilon)`, one number a run.
    pub(crate) inverse_deviations: Vec<T>,
}

/// `y = (x - m) / sqrt(mean of (x - m)² + epsilon)` of each run of `n` elements, in 64 bits; `m` as `centre`
/// says. Element `i` of a run is then multiplied by `scale[i]` and `shift[i]` is added to it.
pub(crate) fn layer_norm<T: Float>(
    x: &[T],
    n: usize,
    centre: Centre,
    epsilon: f64,
    scale: Option<&[T]>,
    shift: Option<&[T]>,
) -> Normalized<T> {
    let wide = |it: T| -> f64 { it.into() };
    let mut made =
        Normalized { values: Vec::new(), means: Vec::new(), inverse_deviations: Vec::new() };
    if n == 0 {
        return made;
    }
    for run in x.chunks_exact(n) {
        let mean = match centre {
            Centre::Mean => run.iter().map(|&it| wide(it)).sum::<f64>() / n as f64,
            Centre::Zero => 0.0,
        };
        let variance = run.iter().map(|&it| (wide(it) - mean).powi(2)).sum::<f64>() / n as f64;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for (i, &it) in run.iter().enumerate() {
            let factor = scale.map_or(1.0, |it| wide(it[i]));
            let addend = shift.map_or(0.0, |it| wide(it[i]));
            made.values.push(T::narrow((wide(it) - mean) * inverse * factor + addend));
        }
        made.means.push(T::narrow(mean));
        made.inverse_deviations.push(T::narrow(inverse));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_mean_and_by_zero() {
        let x = [1f32, 3., 3., 4.];
        let both = layer_norm(&x, 2, Centre::Mean, 0.0, Some(&[2., 2.]), Some(&[0., 1.]));
        assert_eq!(both.values, [-2., 3., -2., 3.]);
        assert_eq!((both.means, both.inverse_deviations), (vec![2., 3.5], vec![1., 2.]));
        let root = layer_norm(&x[2..], 2, Centre::Zero, 3.5, None, None);
        assert_eq!(root.values, [0.75, 1.0]);
        assert!(layer_norm::<f32>(&[], 0, Centre::Mean, 0.0, None, None).values.is_empty());
    }
}
