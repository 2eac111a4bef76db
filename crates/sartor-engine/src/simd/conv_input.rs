//! Gradient of a convolution by its input: convolutions of the output gradient with turned weights.
//!
//! Input position i meets tap k at output (i + pad − k · dilation) / stride where that is whole. Positions of one phase
//! (i + pad) mod stride meet the same taps, so each phase is a convolution of dy with stride 1 whose channels are
//! exchanged and whose taps are reversed.

use rayon::prelude::*;

use super::Level;
use super::conv::{ConvShape, PackedConv};

/// dx [n, c, h, w] of a convolution, planned for one shape.
#[derive(Clone, Debug)]
pub(crate) struct ConvInputGradient {
    shape: ConvShape,
    phases: Vec<Phase>,
    /// Whether every input position belongs to a phase.
    complete: bool,
    /// The gradient of one phase, where there are several.
    room: Vec<f32>,
}

/// Input positions `first + i · stride`.
#[derive(Clone, Debug)]
struct Phase {
    conv: PackedConv,
    first: (usize, usize),
    count: (usize, usize),
    /// For each tap of `conv` that of the forward weights; a missing one is zero.
    taps: Vec<Option<usize>>,
}

/// One phase along one axis.
#[derive(Debug)]
struct Axis {
    first: usize,
    count: usize,
    taps: Vec<Option<usize>>,
    dilation: usize,
    pad: usize,
}

impl Axis {
    /// All phases in which input positions meet a tap.
    fn phases(size: usize, kernel: usize, stride: usize, dilation: usize, pad: usize) -> Vec<Self> {
        let phase = |first: usize| {
            let met = |k: &usize| (k * dilation) % stride == (first + pad) % stride;
            let mut taps: Vec<_> = (0..kernel).filter(met).rev().map(Some).collect();
            let furthest = taps.first().copied().flatten()? * dilation;
            let step = match taps.as_slice() {
                [Some(a), Some(b), ..] => (a - b) * dilation / stride,
                _ => 1,
            };
            // The output position that the first tap meets at `first` is −pad of the new convolution; where it lies
            // inside, taps of zeros go before it.
            let inside = (first + pad).saturating_sub(furthest) / stride;
            let zeros = inside.div_ceil(step);
            taps.splice(0..0, std::iter::repeat_n(None, zeros));
            let outside = furthest.saturating_sub(first + pad) / stride;
            Some(Self {
                first,
                count: (size - first).div_ceil(stride),
                taps,
                dilation: step,
                pad: outside + zeros * step - inside,
            })
        };
        (0..stride.min(size)).filter_map(phase).collect()
    }
}

impl ConvInputGradient {
    /// Plans for `shape` at a level that this processor has.
    pub(super) fn at(level: Level, shape: &ConvShape) -> Self {
        let s = shape;
        let rows = Axis::phases(s.in_h, s.kernel.0, s.strides.0, s.dilations.0, s.pads_begin.0);
        let columns = Axis::phases(s.in_w, s.kernel.1, s.strides.1, s.dilations.1, s.pads_begin.1);
        let mut phases = Vec::with_capacity(rows.len() * columns.len());
        for y in &rows {
            for x in &columns {
                phases.push(Phase::new(level, s, y, x));
            }
        }
        let covered: usize = phases.iter().map(|it| it.count.0 * it.count.1).sum();
        let most = phases.iter().map(|it| it.count.0 * it.count.1).max().unwrap_or(0);
        let room = if s.strides == (1, 1) { 0 } else { s.batch * s.in_channels * most };
        Self { shape: *s, phases, complete: covered == s.in_h * s.in_w, room: vec![0.0; room] }
    }

    /// dx = gradient of the input, or dx += it if `accumulate`, given `weights` [o, c / groups, kh, kw] and
    /// dy [n, o, oh, ow].
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&mut self, weights: &[f32], dy: &[f32], accumulate: bool, dx: &mut [f32]) {
        let s = &self.shape;
        assert_eq!(weights.len(), s.out_channels * s.terms(), "weights of {s:?}");
        assert_eq!(dx.len(), s.batch * s.in_channels * s.in_h * s.in_w, "input of {s:?}");
        if !(self.complete || accumulate) {
            dx.par_chunks_mut(1 << 14).for_each(|dx| dx.fill(0.0));
        }
        for phase in &mut self.phases {
            phase.pack(s, weights);
            if s.strides == (1, 1) {
                phase.conv.run_onto(dy, accumulate, dx);
                continue;
            }
            let plane = phase.count.0 * phase.count.1;
            let room = &mut self.room[..s.batch * s.in_channels * plane];
            phase.conv.run_onto(dy, false, room);
            dx.par_chunks_mut(s.in_h * s.in_w)
                .zip(room.par_chunks(plane))
                .with_min_len(((1 << 13) / plane).max(1))
                .for_each(|(dx, part)| phase.spread(s, part, accumulate, dx));
        }
    }
}

impl Phase {
    fn new(level: Level, s: &ConvShape, y: &Axis, x: &Axis) -> Self {
        let shape = ConvShape {
            batch: s.batch,
            in_channels: s.out_channels,
            in_h: s.out_h,
            in_w: s.out_w,
            out_channels: s.in_channels,
            out_h: y.count,
            out_w: x.count,
            kernel: (y.taps.len(), x.taps.len()),
            strides: (1, 1),
            dilations: (y.dilation, x.dilation),
            pads_begin: (y.pad, x.pad),
            groups: s.groups,
        };
        let tap = |(ky, kx): (Option<usize>, Option<usize>)| Some(ky? * s.kernel.1 + kx?);
        let taps = y.taps.iter().flat_map(|&ky| x.taps.iter().map(move |&kx| (ky, kx)));
        Self {
            conv: PackedConv::empty(level, &shape),
            first: (y.first, x.first),
            count: (y.count, x.count),
            taps: taps.map(tap).collect(),
        }
    }

    /// Lays out the forward weights with channels exchanged.
    fn pack(&mut self, s: &ConvShape, weights: &[f32]) {
        let (channels, outputs) = (s.in_channels / s.groups, s.out_channels / s.groups);
        let kernel = s.kernel.0 * s.kernel.1;
        let taps = &self.taps;
        self.conv.pack_with(
            |group, c, o, tap| {
                let row = ((group * outputs + o) * channels + c) * kernel;
                taps[tap].map_or(0.0, |tap| weights[row + tap])
            },
            None,
        );
    }

    /// Writes or adds the gradient of this phase's positions to the plane `dx`.
    fn spread(&self, s: &ConvShape, part: &[f32], accumulate: bool, dx: &mut [f32]) {
        let rows = dx.chunks_exact_mut(s.in_w).skip(self.first.0).step_by(s.strides.0);
        for (dx, part) in rows.zip(part.chunks_exact(self.count.1)) {
            let places = dx[self.first.1..].iter_mut().step_by(s.strides.1);
            if accumulate {
                places.zip(part).for_each(|(dx, part)| *dx += part);
            } else {
                places.zip(part).for_each(|(dx, part)| *dx = *part);
            }
        }
    }
}
