//! The input of a dense convolution, laid out so that each tap is a constant offset.
//!
//! For each channel, each vertical phase of the stride and each tap column there is one plane whose rows are as wide as
//! the *output*: row j, column x of plane (phase, kx) is the padded input at (j · stride + phase, x · stride + kx ·
//! dilation). Output position p then meets tap (ky, kx) at `plane + row(ky) · width + p`: positions of whole images are
//! one contiguous run with nothing between rows, and they are those of the output too.

use super::conv::ConvShape;

/// Which planes a convolution needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planes {
    /// Distinct vertical phases.
    phases: Vec<usize>,
    /// (index of the phase, row inside its plane) of each tap row.
    tap_rows: Vec<(usize, usize)>,
    /// Rows that a plane has more than the output.
    halo: usize,
}

impl Planes {
    pub(super) fn new(shape: &ConvShape) -> Self {
        let mut phases = Vec::new();
        let mut tap_rows = Vec::with_capacity(shape.kernel.0);
        for ky in 0..shape.kernel.0 {
            let (row, phase) = (
                ky * shape.dilations.0 / shape.strides.0,
                ky * shape.dilations.0 % shape.strides.0,
            );
            let index = phases.iter().position(|&p| p == phase).unwrap_or_else(|| {
                phases.push(phase);
                phases.len() - 1
            });
            tap_rows.push((index, row));
        }
        let halo = tap_rows.iter().map(|&(_, row)| row).max().unwrap_or(0);
        Self { phases, tap_rows, halo }
    }

    /// Length of one plane for `rows` output rows: whole cache lines, no multiple of the distance at which lines share
    /// their place in L1.
    fn plane_len(&self, shape: &ConvShape, rows: usize) -> usize {
        let len = ((rows + self.halo) * shape.out_w).next_multiple_of(16);
        if len.is_multiple_of(256) { len + 16 } else { len }
    }

    /// Length of the planes of one channel for `rows` output rows.
    pub(super) fn channel_len(&self, shape: &ConvShape, rows: usize) -> usize {
        self.phases.len() * shape.kernel.1 * self.plane_len(shape, rows)
    }

    /// Offset of each tap, rows first, inside the planes of a channel.
    pub(super) fn taps(&self, shape: &ConvShape, rows: usize) -> Vec<usize> {
        let len = self.plane_len(shape, rows);
        let columns = shape.kernel.1;
        self.tap_rows
            .iter()
            .flat_map(|&(phase, row)| {
                (0..columns).map(move |kx| (phase * columns + kx) * len + row * shape.out_w)
            })
            .collect()
    }

    /// Fills the planes of one channel for `rows` output rows from `first_row` on; `x` is the channel's [h, w].
    pub(super) fn fill(
        &self,
        shape: &ConvShape,
        x: &[f32],
        (first_row, rows): (usize, usize),
        planes: &mut [f32],
    ) {
        let len = self.plane_len(shape, rows);
        let mut slots = planes.chunks_exact_mut(len);
        for &phase in &self.phases {
            for kx in 0..shape.kernel.1 {
                let Some(plane) = slots.next() else { return };
                let plane = &mut plane[..(rows + self.halo) * shape.out_w];
                fill_plane(
                    shape,
                    x,
                    (first_row * shape.strides.0 + phase, kx * shape.dilations.1),
                    plane,
                );
            }
        }
    }
}

/// Fills one plane whose element (0, 0) is the padded input at `start`.
fn fill_plane(shape: &ConvShape, x: &[f32], start: (usize, usize), plane: &mut [f32]) {
    let (width, rows) = (shape.out_w, plane.len() / shape.out_w);
    let (top, bottom) = inside(shape.in_h, shape.pads_begin.0, start.0, shape.strides.0, rows);
    let (left, right) = inside(shape.in_w, shape.pads_begin.1, start.1, shape.strides.1, width);
    if left == right {
        plane.fill(0.0);
        return;
    }
    plane[..top * width].fill(0.0);
    plane[bottom * width..].fill(0.0);
    if top == bottom {
        return;
    }
    let first = top * shape.strides.0 + start.0 - shape.pads_begin.0;
    let column = left * shape.strides.1 + start.1 - shape.pads_begin.1;
    let body = &mut plane[top * width..bottom * width];
    if shape.strides == (1, 1) && width == shape.in_w {
        // Shifted rows of equal pitch are one run; what wraps around the row ends is put to zero after.
        let run = (bottom - top - 1) * width + (right - left);
        let from = first * width + column;
        body[left..left + run].copy_from_slice(&x[from..from + run]);
        if left > 0 || right < width {
            for row in body.chunks_exact_mut(width) {
                row[..left].fill(0.0);
                row[right..].fill(0.0);
            }
        }
        return;
    }
    for (row, line) in body.chunks_exact_mut(width).enumerate() {
        let x = &x[(first + row * shape.strides.0) * shape.in_w..][..shape.in_w];
        line[..left].fill(0.0);
        line[right..].fill(0.0);
        gather(&x[column..], shape.strides.1, &mut line[left..right]);
    }
}

/// The range of the `count` places `start + place · stride − pad` that lie inside 0..`size`.
fn inside(size: usize, pad: usize, start: usize, stride: usize, count: usize) -> (usize, usize) {
    let low = pad.saturating_sub(start).div_ceil(stride).min(count);
    let high = (size + pad).saturating_sub(start).div_ceil(stride).clamp(low, count);
    (low, high)
}

/// to[i] = from[i · stride].
fn gather(from: &[f32], stride: usize, to: &mut [f32]) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => {
            let (pairs, last) = from.as_chunks::<2>();
            for (to, pair) in to.iter_mut().zip(pairs) {
                *to = pair[0];
            }
            if let (Some(to), Some(&last)) = (to.get_mut(pairs.len()), last.first()) {
                *to = last;
            }
        }
        _ => {
            for (to, &from) in to.iter_mut().zip(from.iter().step_by(stride)) {
                *to = from;
            }
        }
    }
}
