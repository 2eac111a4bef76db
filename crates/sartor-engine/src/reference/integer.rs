//! Products of integers, and of floats with integers of few bits, by their definitions.

use rayon::prelude::*;

use super::conv::{ConvShape, Window, tap_table};

/// Where the taps of one column of windows fall: output positions from `first` on, `count` of them, see the
/// input from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: usize,
    count: usize,
    start: usize,
}

/// The positions at which tap `tap` lies within the input.
fn span(axis: &Window, tap: usize) -> Span {
    let first = (0..axis.output).find(|&at| axis.index(at, tap).is_some());
    let Some(first) = first else { return Span { first: 0, count: 0, start: 0 } };
    let start = axis.index(first, tap).unwrap_or(0);
    let room = (axis.input - start).div_ceil(axis.stride);
    Span { first, count: room.min(axis.output - first), start }
}

/// As [`super::conv::conv`] without bias, on integers from which their zero points are subtracted already,
/// so that pads are zeros. Sums wrap at 32 bits, as ONNX allows.
pub(crate) fn conv(shape: &ConvShape, x: &[i32], w: &[i32]) -> Vec<i32> {
    let Some((last, outer)) = shape.axes.split_last() else { return Vec::new() };
    let product = |of: fn(&Window) -> usize| outer.iter().map(of).product::<usize>();
    let (rows_in, rows_out, rows_tap) =
        (product(|it| it.input), product(|it| it.output), product(|it| it.kernel));
    let table = tap_table(outer);
    let spans: Vec<Span> = (0..last.kernel).map(|tap| span(last, tap)).collect();
    let (plane, image) = (rows_in * last.input, rows_out * last.output);
    let groups = shape.batch * shape.groups;
    let mut y = vec![0i32; groups * shape.filters * image];
    if y.is_empty() {
        return y;
    }
    y.par_chunks_mut(image).enumerate().for_each(|(at, y)| {
        let (group, filter) = (at / shape.filters, at % shape.filters);
        let o = group % shape.groups * shape.filters + filter;
        for c in 0..shape.channels {
            let x = &x[(group * shape.channels + c) * plane..][..plane];
            let weights = &w[(o * shape.channels + c) * rows_tap * last.kernel..];
            for (row, y) in y.chunks_exact_mut(last.output).enumerate() {
                for tap in 0..rows_tap {
                    let from = table[row * rows_tap + tap];
                    if from == usize::MAX {
                        continue;
                    }
                    let x = &x[from * last.input..][..last.input];
                    let weights = &weights[tap * last.kernel..][..last.kernel];
                    for (&weight, span) in weights.iter().zip(&spans) {
                        let y = &mut y[span.first..][..span.count];
                        add_scaled(weight, &x[span.start..], last.stride, y);
                    }
                }
            }
        }
    });
    y
}

/// `y[i] += weight x[i stride]`, wrapping.
fn add_scaled(weight: i32, x: &[i32], stride: usize, y: &mut [i32]) {
    let add = |(y, &x): (&mut i32, &i32)| *y = y.wrapping_add(weight.wrapping_mul(x));
    if stride == 1 {
        y.iter_mut().zip(x).for_each(add);
    } else {
        y.iter_mut().zip(x.iter().step_by(stride)).for_each(add);
    }
}

/// Scale and zero point that map the range of `x`, widened to hold 0, to `0..=255`
/// (<https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>).
pub(crate) fn dynamic_parameters(x: &[f32]) -> (f32, u8) {
    let low = x.iter().copied().fold(0.0, f32::min);
    let high = x.iter().copied().fold(0.0, f32::max);
    // All zeros need some scale.
    let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
    let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    (scale, zero as u8)
}

/// Number `i` of those of `bits` bits each that are packed into bytes, low bits first.
pub(crate) fn unpacked(bytes: &[u8], bits: usize, i: usize) -> Option<u8> {
    let byte = bytes.get(i * bits / 8)?;
    let mask = if bits == 8 { u8::MAX } else { (1 << bits) - 1 };
    Some(byte >> (i * bits % 8) & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::conv::conv as by_definition;

    /// Over many geometries the same numbers as the definition gives.
    #[test]
    fn convolution_as_defined() {
        let mut seed = 7u32;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for case in 0..200 {
            let n_axes = 1 + case % 3;
            let mut axes = Vec::new();
            for _ in 0..n_axes {
                let (kernel, stride, dilation) =
                    (1 + next(3) as usize, 1 + next(3) as usize, 1 + next(2) as usize);
                let (input, pad, end) = (1 + next(6) as usize, next(3) as usize, next(3) as usize);
                let reach = (kernel - 1) * dilation + 1;
                let Some(room) = (input + pad + end).checked_sub(reach) else { continue };
                axes.push(Window {
                    input,
                    output: room / stride + 1,
                    kernel,
                    stride,
                    dilation,
                    pad,
                });
            }
            if axes.len() < n_axes {
                continue;
            }
            let shape = ConvShape {
                batch: 1 + next(2) as usize,
                groups: 1 + next(2) as usize,
                channels: 1 + next(3) as usize,
                filters: 1 + next(3) as usize,
                axes,
            };
            let (plane, taps): (usize, usize) = (
                shape.axes.iter().map(|it| it.input).product(),
                shape.axes.iter().map(|it| it.kernel).product(),
            );
            let mut list = |len: usize| -> Vec<i32> {
                (0..len).map(|_| next(511).cast_signed() - 255).collect()
            };
            let x = list(shape.batch * shape.groups * shape.channels * plane);
            let w = list(shape.groups * shape.filters * shape.channels * taps);
            assert_eq!(conv(&shape, &x, &w), by_definition(&shape, &x, &w, None), "{shape:?}");
        }
    }

    /// The examples of ONNX's page on `DynamicQuantizeLinear`.
    #[test]
    fn dynamic_ranges() {
        assert_eq!(dynamic_parameters(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]), (5.0 / 255.0, 153));
        assert_eq!(dynamic_parameters(&[-1.0, -2.1, -1.3, -2.5, -3.34, -4.0]), (4.0 / 255.0, 255));
        assert_eq!(dynamic_parameters(&[1.0, 2.1, 1.3, 2.5, 3.34, 4.0]), (4.0 / 255.0, 0));
        assert_eq!(dynamic_parameters(&[0.0, 0.0]), (1.0, 0));
    }

    #[test]
    fn numbers_of_few_bits() {
        let bytes = [0b1110_0100u8, 0x5a];
        let list =
            |bits: usize| -> Vec<u8> { (0..).map_while(|i| unpacked(&bytes, bits, i)).collect() };
        assert_eq!(list(2), [0, 1, 2, 3, 2, 2, 1, 1]);
        assert_eq!(list(4), [4, 14, 10, 5]);
        assert_eq!(list(8), bytes);
    }
}
