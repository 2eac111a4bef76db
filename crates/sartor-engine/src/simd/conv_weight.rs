//! Gradient of a convolution by its weights: dots of output gradients with the planes of the forward walk.
#![expect(unsafe_code, reason = "tasks add to disjoint parts of one gradient")]

use rayon::prelude::*;

use super::conv::ConvShape;
use super::dots::{self, Dots, PASS, Tap};
use super::planes::Planes;
use super::{Level, scratch};

/// Floats that a task keeps in its scratch: half of a 512 KiB L2.
const SCRATCH: usize = 1 << 16;
/// Multiply-accumulates below which a task is not cut further.
const TASK_WORK: usize = 1 << 19;
/// Tasks wanted where there is work for them.
const TASKS: usize = 16;
/// Weights above which tasks differ in their channels rather than each having a copy of the gradient.
const COPIED: usize = 1 << 16;

/// dw [o, c / groups, kh, kw] of a convolution, planned for one shape.
#[derive(Clone, Debug)]
pub(crate) struct ConvWeightGradient {
    shape: ConvShape,
    level: Level,
    planes: Planes,
    cut: Cut,
    /// Taps of a block of channels for all rows of a pass and for those of the last.
    taps: [Vec<Tap>; 2],
    /// [part, as dw]: what each part of the images adds, where there are several.
    partial: Vec<f32>,
}

/// How the work is cut: by the shape alone.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Parts of the batch and images of each.
    parts: usize,
    images: usize,
    /// Groups of a task.
    groups: usize,
    /// Channels of a task.
    channels: usize,
    /// Images whose planes are there at the same time, and their rows.
    at_once: usize,
    rows: usize,
}

impl Cut {
    fn new(s: &ConvShape, planes: &Planes) -> Self {
        let per_group = s.in_channels / s.groups;
        let weights = s.out_channels * s.terms();
        let work = s.batch * s.out_h * s.out_w * weights;
        let wanted = (work / TASK_WORK).clamp(1, TASKS);
        let plane = |rows| {
            if s.is_pointwise() { rows * s.out_w } else { planes.channel_len(s, rows) }
        };
        let mut rows = s.out_h.max(1);
        while rows > 1 && plane(rows) > SCRATCH / 4 {
            rows = rows.div_ceil(2);
        }
        let at_once = PASS.div_ceil((rows * s.out_w).max(1)).clamp(1, s.batch.max(1));
        let mut blocks = per_group.div_ceil((SCRATCH / (at_once * plane(rows)).max(1)).max(1));
        if weights > COPIED {
            blocks = blocks.max(wanted.min(per_group.div_ceil(16)));
        }
        let channels = per_group.div_ceil(blocks.max(1)).max(1);
        let blocks = per_group.div_ceil(channels).max(1);
        let groups = s.groups.div_ceil(wanted.div_ceil(blocks)).max(1);
        let tasks = blocks * s.groups.div_ceil(groups);
        let images = s.batch.div_ceil(wanted.div_ceil(tasks)).max(1);
        let parts = s.batch.div_ceil(images).max(1);
        Self { parts, images, groups, channels, at_once, rows }
    }
}

impl ConvWeightGradient {
    /// Plans for `shape` at a level that this processor has.
    pub(super) fn at(level: Level, shape: &ConvShape) -> Self {
        let planes = Planes::new(shape);
        let cut = Cut::new(shape, &planes);
        let last = match shape.out_h % cut.rows {
            0 => cut.rows,
            rest => rest,
        };
        let taps = [cut.rows, last].map(|rows| taps(shape, &planes, cut.channels, rows));
        let copies = if cut.parts > 1 { cut.parts } else { 0 };
        let partial = vec![0.0; copies * shape.out_channels * shape.terms()];
        Self { shape: *shape, level, planes, cut, taps, partial }
    }

    /// dw += gradient of the weights, given x [n, c, h, w] and dy [n, o, oh, ow].
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&mut self, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let s = &self.shape;
        assert_eq!(x.len(), s.batch * s.in_channels * s.in_h * s.in_w, "input of {s:?}");
        assert_eq!(dy.len(), s.batch * s.out_channels * s.out_h * s.out_w, "output of {s:?}");
        assert_eq!(dw.len(), s.out_channels * s.terms(), "weights of {s:?}");
        if dy.is_empty() || dw.is_empty() {
            return;
        }
        let mut partial = std::mem::take(&mut self.partial);
        if self.cut.parts == 1 {
            self.launch(x, dy, dw);
        } else {
            partial.par_chunks_mut(1 << 14).for_each(|it| it.fill(0.0));
            self.launch(x, dy, &mut partial);
            let len = dw.len();
            dw.par_chunks_mut(1 << 12).enumerate().for_each(|(chunk, dw)| {
                for part in partial.chunks_exact(len) {
                    for (dw, add) in dw.iter_mut().zip(&part[chunk << 12..]) {
                        *dw += add;
                    }
                }
            });
        }
        self.partial = partial;
    }

    /// Runs all tasks; part i of the images adds to the i-th gradient in `sums`.
    fn launch(&self, x: &[f32], dy: &[f32], sums: &mut [f32]) {
        let s = &self.shape;
        let blocks = (s.in_channels / s.groups).div_ceil(self.cut.channels);
        let ranges = s.groups.div_ceil(self.cut.groups);
        let sums = Shared(sums.as_mut_ptr());
        (0..self.cut.parts * ranges * blocks).into_par_iter().for_each(|task| {
            let (part, rest) = (task / (ranges * blocks), task % (ranges * blocks));
            let (range, block) = (rest / blocks, rest % blocks);
            let last = s.groups.min((range + 1) * self.cut.groups);
            for group in range * self.cut.groups..last {
                self.task(x, dy, &sums, (part, group, block * self.cut.channels));
            }
        });
    }

    /// Adds the gradient of channels from `first` on of a group over one part of the images.
    fn task(
        &self,
        x: &[f32],
        dy: &[f32],
        sums: &Shared,
        (part, group, first): (usize, usize, usize),
    ) {
        let (s, cut) = (&self.shape, &self.cut);
        let (per_group, outputs) = (s.in_channels / s.groups, s.out_channels / s.groups);
        let channels = cut.channels.min(per_group - first);
        let (kernel, terms) = (s.kernel.0 * s.kernel.1, s.terms());
        let (x_plane, y_plane) = (s.in_h * s.in_w, s.out_h * s.out_w);
        let at = (part * s.out_channels + group * outputs) * terms + first * kernel;
        let sums = sums.0.wrapping_add(at);
        let last = s.batch.min((part + 1) * cut.images);
        for image in (part * cut.images..last).step_by(cut.at_once) {
            for row in (0..s.out_h).step_by(cut.rows) {
                let images = cut.at_once.min(last - image);
                let rows = cut.rows.min(s.out_h - row);
                let taps = &self.taps[usize::from(rows < cut.rows)][..channels * kernel];
                let x = &x[(image * s.in_channels + group * per_group + first) * x_plane..];
                let dy_at = (image * s.out_channels + group * outputs) * y_plane + row * s.out_w;
                let dots = Dots {
                    outputs,
                    taps,
                    images,
                    positions: rows * s.out_w,
                    dy: dy[dy_at..].as_ptr(),
                    dy_image: s.out_channels * y_plane,
                    dy_channel: y_plane,
                    source: x.as_ptr().wrapping_add(row * s.in_w),
                    source_image: s.in_channels * x_plane,
                    sums,
                    row: terms,
                };
                self.pass(x, dots, channels, (row, rows));
            }
        }
    }

    /// Lays out the planes where they are needed, and adds.
    fn pass(&self, x: &[f32], mut dots: Dots<'_>, channels: usize, (row, rows): (usize, usize)) {
        let s = &self.shape;
        if s.is_pointwise() {
            // SAFETY: the level was found on this processor. The input is read at positions of the output; tasks
            // differ in part, group or channels, so each adds to its own sums.
            unsafe { dots::run(self.level, &dots) };
            return;
        }
        let len = self.planes.channel_len(s, rows);
        scratch::with(dots.images * channels * len, |planes| {
            let mut slots = planes.chunks_exact_mut(len);
            for n in 0..dots.images {
                for (c, slot) in slots.by_ref().take(channels).enumerate() {
                    let x = &x[(n * s.in_channels + c) * s.in_h * s.in_w..][..s.in_h * s.in_w];
                    self.planes.fill(s, x, (row, rows), slot);
                }
            }
            dots.source = planes.as_ptr();
            dots.source_image = channels * len;
            // SAFETY: as above; the planes hold every tap of every position.
            unsafe { dots::run(self.level, &dots) };
        });
    }
}

/// The taps of `channels` channels whose planes hold `rows` rows. Those of a column follow each other: they are read
/// from the same plane.
fn taps(s: &ConvShape, planes: &Planes, channels: usize, rows: usize) -> Vec<Tap> {
    if s.is_pointwise() {
        return (0..channels).map(|c| Tap { source: c * s.in_h * s.in_w, place: c }).collect();
    }
    let (offsets, len) = (planes.taps(s, rows), planes.channel_len(s, rows));
    let (kh, kw) = s.kernel;
    let mut taps = Vec::with_capacity(channels * kh * kw);
    for c in 0..channels {
        for kx in 0..kw {
            for ky in 0..kh {
                let tap = ky * kw + kx;
                taps.push(Tap { source: c * len + offsets[tap], place: c * kh * kw + tap });
            }
        }
    }
    taps
}

/// A gradient of which each task adds to its own elements.
struct Shared(*mut f32);

// SAFETY: tasks write disjoint elements only.
unsafe impl Sync for Shared {}
