//! Pooling by its definition.

use super::{
    conv::{Window, tap_table},
    elementwise::{Float, Number},
};

/// Largest element under the window at each position of each plane, NaN if one is; and its index within the
/// whole tensor, row-major.
pub(crate) fn max_pool<T: Number>(x: &[T], planes: usize, axes: &[Window]) -> (Vec<T>, Vec<i64>) {
    let (inputs, outputs, taps) = plane_sizes(axes);
    let table = tap_table(axes);
    let mut values = Vec::with_capacity(planes * outputs);
    let mut indices = Vec::with_capacity(planes * outputs);
    for p in 0..planes {
        let plane = &x[p * inputs..][..inputs];
        for at in 0..outputs {
            let mut best: Option<(T, usize)> = None;
            for &index in &table[at * taps..][..taps] {
                if let Some(&value) = plane.get(index)
                    && best.is_none_or(|it| value > it.0 || value.is_nan())
                {
                    best = Some((value, index));
                }
            }
            let (value, index) = best.unwrap_or((T::ENDS.0, 0));
            values.push(value);
            indices.push((p * inputs + index) as i64);
        }
    }
    (values, indices)
}

/// Mean under the window at each position of each plane. `padded` gives, for each axis, the extent with
/// padding on both sides if pads count as zeros; a window that reaches beyond it is cut there.
pub(crate) fn average_pool<T: Float>(
    x: &[T],
    planes: usize,
    axes: &[Window],
    padded: Option<&[usize]>,
) -> Vec<T> {
    let (inputs, outputs, taps) = plane_sizes(axes);
    let table = tap_table(axes);
    let counts = average_counts(axes, padded);
    let mut y = Vec::with_capacity(planes * outputs);
    for p in 0..planes {
        let plane = &x[p * inputs..][..inputs];
        for at in 0..outputs {
            let under = table[at * taps..][..taps].iter().filter_map(|&it| plane.get(it));
            let sum: f64 = under.map(|&it| it.into()).sum();
            y.push(T::narrow(sum / counts[at] as f64));
        }
    }
    y
}

/// How many elements the mean at each position is taken over; `padded` as in `average_pool`.
pub fn average_counts(axes: &[Window], padded: Option<&[usize]>) -> Vec<usize> {
    let (_, outputs, taps) = plane_sizes(axes);
    let table = tap_table(axes);
    let count = |at: usize| match padded {
        None => table[at * taps..][..taps].iter().filter(|&&it| it != usize::MAX).count(),
        Some(padded) => taps_within(axes, padded, at),
    };
    (0..outputs).map(count).collect()
}

/// Number of taps at position `at` that lie within the padded extents.
fn taps_within(axes: &[Window], padded: &[usize], mut at: usize) -> usize {
    let mut count = 1;
    for (axis, &extent) in axes.iter().zip(padded).rev() {
        let start = at % axis.output * axis.stride;
        count *= (0..axis.kernel).filter(|tap| start + tap * axis.dilation < extent).count();
        at /= axis.output;
    }
    count
}

fn plane_sizes(axes: &[Window]) -> (usize, usize, usize) {
    let product = |of: fn(&Window) -> usize| axes.iter().map(of).product();
    (product(|it| it.input), product(|it| it.output), product(|it| it.kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: u8) -> Vec<f32> {
        (1..=n).map(f32::from).collect()
    }

    /// `maxpool_2d_precomputed_pads`, `averagepool_2d_precomputed_pads` and the ceiling form of ONNX's pages.
    #[test]
    fn onnx_examples() {
        let axis = Window { input: 5, output: 5, kernel: 5, stride: 1, dilation: 1, pad: 2 };
        let (y, indices) = max_pool(&ramp(25), 1, &[axis; 2]);
        assert_eq!((&y[..5], indices[0]), ([13., 14., 15., 15., 15.].as_slice(), 12));
        let means = average_pool(&ramp(25), 1, &[axis; 2], None);
        assert_eq!(means[..5], [7., 7.5, 8., 8.5, 9.]);
        let zeros = average_pool(&ramp(25), 1, &[axis; 2], Some(&[9, 9]));
        assert!((zeros[0] - 2.52).abs() < 1e-6);
        let ceiling = Window { input: 4, output: 2, kernel: 3, stride: 2, dilation: 1, pad: 0 };
        assert_eq!(max_pool(&ramp(16), 1, &[ceiling; 2]).0, [11., 12., 15., 16.]);
        assert_eq!(average_pool(&ramp(16), 1, &[ceiling; 2], Some(&[4, 4])), [6., 7.5, 12., 13.5]);
    }
}
