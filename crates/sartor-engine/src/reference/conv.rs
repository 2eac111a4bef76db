//! Convolution by its definition, over any number of spatial axes.

use super::elementwise::Number;

/// A window along one spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Extent of the input.
    pub input: usize,
    /// Number of positions.
    pub output: usize,
    /// Number of taps.
    pub kernel: usize,
    /// Step between positions.
    pub stride: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Elements of padding before the input.
    pub pad: usize,
}

impl Window {
    /// The input index under tap `tap` at position `at`; `None` in the padding.
    pub fn index(&self, at: usize, tap: usize) -> Option<usize> {
        (at * self.stride + tap * self.dilation).checked_sub(self.pad).filter(|&it| it < self.input)
    }
}

/// Sizes of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Channel groups.
    pub groups: usize,
    /// Input channels of one group.
    pub channels: usize,
    /// Output channels of one group.
    pub filters: usize,
    /// The spatial axes, outermost first.
    pub axes: Vec<Window>,
}

/// `y[n, o, p] = bias[o] + sum over c, t of w[o, c, t] x[n, c, p * stride + t * dilation - pad]`, floats summed
/// in 64 bits. Layouts: `x [n, g * c, …]`, `w [g * o, c, …]`, `y [n, g * o, …]`.
pub(crate) fn conv<T: Number>(shape: &ConvShape, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    let (inputs, outputs, taps) = sizes(&shape.axes);
    let table = tap_table(&shape.axes);
    let all = shape.groups * shape.filters;
    let mut y = Vec::with_capacity(shape.batch * all * outputs);
    for n in 0..shape.batch {
        for o in 0..all {
            let first = (n * shape.groups + o / shape.filters) * shape.channels;
            for at in 0..outputs {
                let start = bias.map_or(T::default(), |it| it[o]);
                let terms = (0..shape.channels).flat_map(|c| {
                    let plane = &x[(first + c) * inputs..][..inputs];
                    let filter = &w[(o * shape.channels + c) * taps..][..taps];
                    let here = filter.iter().zip(&table[at * taps..]);
                    here.filter_map(|(&weight, &index)| Some((weight, *plane.get(index)?)))
                });
                y.push(T::dot(start, terms));
            }
        }
    }
    y
}

/// Elements of one input plane, of one output plane and of one filter plane.
fn sizes(axes: &[Window]) -> (usize, usize, usize) {
    let product = |of: fn(&Window) -> usize| axes.iter().map(of).product();
    (product(|it| it.input), product(|it| it.output), product(|it| it.kernel))
}

/// Input index of every tap at every position (`usize::MAX` in the padding), taps innermost.
pub(crate) fn tap_table(axes: &[Window]) -> Vec<usize> {
    let (_, outputs, taps) = sizes(axes);
    let mut table = Vec::with_capacity(outputs * taps);
    for at in 0..outputs {
        for tap in 0..taps {
            let (mut at, mut tap, mut index, mut stride) = (at, tap, Some(0), 1);
            for axis in axes.iter().rev() {
                let own = axis.index(at % axis.output, tap % axis.kernel);
                index = index.zip(own).map(|(sum, own)| sum + own * stride);
                (at, tap, stride) = (at / axis.output, tap / axis.kernel, stride * axis.input);
            }
            table.push(index.unwrap_or(usize::MAX));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of ONNX's page on `Conv`: a 5 × 5 ramp under 3 × 3 ones.
    #[test]
    fn onnx_examples() {
        let x: Vec<f32> = (0..25u8).map(f32::from).collect();
        let run = |pad, stride, output| {
            let axis = Window { input: 5, output, kernel: 3, stride, dilation: 1, pad };
            let shape =
                ConvShape { batch: 1, groups: 1, channels: 1, filters: 1, axes: vec![axis; 2] };
            conv(&shape, &x, &[1.0f32; 9], None)
        };
        assert_eq!(run(0, 1, 3), [54., 63., 72., 99., 108., 117., 144., 153., 162.]);
        assert_eq!(run(1, 2, 3), [12., 27., 24., 63., 108., 81., 72., 117., 84.]);
    }
}
