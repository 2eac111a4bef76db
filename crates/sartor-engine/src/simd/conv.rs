//! Convolution (ONNX `Conv`) with fused bias, residual and activation.
#![expect(unsafe_code, reason = "tasks write disjoint parts of one output")]

use rayon::prelude::*;

use super::planes::Planes;
use super::tile::{self, Walk};
use super::{Level, Tail, level, scratch, tasks};

/// Geometry of a convolution over NCHW; one-dimensional ones have height 1. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvShape {
    /// Images.
    pub(crate) batch: usize,
    /// Channels of the input.
    pub(crate) in_channels: usize,
    /// Rows of the input.
    pub(crate) in_h: usize,
    /// Columns of the input.
    pub(crate) in_w: usize,
    /// Channels of the output.
    pub(crate) out_channels: usize,
    /// Rows of the output.
    pub(crate) out_h: usize,
    /// Columns of the output.
    pub(crate) out_w: usize,
    /// Taps.
    pub(crate) kernel: (usize, usize),
    /// Steps between outputs, at least 1.
    pub(crate) strides: (usize, usize),
    /// Steps between taps, at least 1.
    pub(crate) dilations: (usize, usize),
    /// Zeros before the first row and column.
    pub(crate) pads_begin: (usize, usize),
    /// Groups; divides both channel counts.
    pub(crate) groups: usize,
}

/// Floats that one task keeps in its scratch: half of a 1 MiB L2.
const SCRATCH: usize = 1 << 17;
/// Multiply-accumulates below which a task is not cut further.
const TASK_WORK: usize = 1 << 19;
/// Weights below which they are laid out by one thread.
const PACK_WORK: usize = 1 << 15;
/// Tasks wanted where there is work for them.
const TASKS: usize = 16;

/// A convolution whose weights were laid out for its kernel once.
#[derive(Clone, Debug)]
pub(crate) struct PackedConv {
    shape: ConvShape,
    level: Level,
    planes: Planes,
    /// [group, block, channel, tap, output of the block].
    weights: Vec<f32>,
    /// [group, block, output of the block].
    bias: Vec<f32>,
    split: Split,
}

/// How the work is cut: by the shape alone.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// Images, groups, output rows and output blocks of a task.
    images: usize,
    groups: usize,
    rows: usize,
    blocks: usize,
}

impl PackedConv {
    /// Lays out `weights` [o, c / groups, kh, kw] and `bias` [o].
    pub(crate) fn new(shape: &ConvShape, weights: &[f32], bias: Option<&[f32]>) -> Self {
        Self::at(level(), shape, weights, bias)
    }

    /// [`Self::new`] for a level that this processor has.
    pub(super) fn at(
        level: Level,
        shape: &ConvShape,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let mut packed = Self::empty(level, shape);
        packed.pack(weights, bias);
        packed
    }

    /// A convolution that waits for its weights ([`Self::pack`], [`Self::pack_with`]).
    pub(super) fn empty(level: Level, shape: &ConvShape) -> Self {
        let shape = regular(shape);
        let block = tile::block_outputs(level, shape.in_channels / shape.groups);
        let blocks = (shape.out_channels / shape.groups).div_ceil(block);
        let weights = vec![0.0; shape.groups * blocks * shape.terms() * block];
        let bias = vec![0.0; shape.groups * blocks * block];
        let planes = Planes::new(&shape);
        let split = Split::new(&shape, &planes, blocks);
        Self { shape, level, planes, weights, bias, split }
    }

    /// Lays out other `weights` [o, c / groups, kh, kw] and `bias` [o] in the same place.
    pub(super) fn pack(&mut self, weights: &[f32], bias: Option<&[f32]>) {
        let (outputs, terms) = (self.shape.out_channels / self.shape.groups, self.shape.terms());
        let taps = self.shape.kernel.0 * self.shape.kernel.1;
        self.pack_with(
            |group, o, c, tap| weights[(group * outputs + o) * terms + c * taps + tap],
            bias,
        );
    }

    /// Lays out weights by their group, output of the group, channel of the group and tap, and `bias` [o].
    pub(super) fn pack_with(
        &mut self,
        weight: impl Fn(usize, usize, usize, usize) -> f32 + Sync,
        bias: Option<&[f32]>,
    ) {
        let (outputs, terms) = (self.shape.out_channels / self.shape.groups, self.shape.terms());
        let taps = self.shape.kernel.0 * self.shape.kernel.1;
        let (channels, blocks) = (self.shape.in_channels / self.shape.groups, self.blocks());
        let block = tile::block_outputs(self.level, channels);
        for (at, slot) in self.bias.chunks_exact_mut(block).enumerate() {
            for (slot, o) in slot.iter_mut().zip(at % blocks * block..outputs) {
                *slot = bias.map_or(0.0, |bias| bias[at / blocks * outputs + o]);
            }
        }
        if terms == 0 {
            return;
        }
        let fill = |(at, packed): (usize, &mut [f32])| {
            let (group, first) = (at / blocks, at % blocks * block);
            for (c, packed) in packed.chunks_exact_mut(taps * block).enumerate() {
                for (tap, slot) in packed.chunks_exact_mut(block).enumerate() {
                    for (slot, o) in slot.iter_mut().zip(first..outputs) {
                        *slot = weight(group, o, c, tap);
                    }
                }
            }
        };
        if self.weights.len() < PACK_WORK {
            self.weights.chunks_exact_mut(terms * block).enumerate().for_each(fill);
        } else {
            let least = (PACK_WORK / 4).div_ceil(terms * block);
            let chunks = self.weights.par_chunks_exact_mut(terms * block);
            chunks.enumerate().with_min_len(least).for_each(fill);
        }
    }

    /// y [n, o, oh, ow] = tail(x [n, c, h, w] ∗ weights + bias + residual [n, o, oh, ow]).
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&self, x: &[f32], residual: Option<&[f32]>, tail: Tail, y: &mut [f32]) {
        let s = &self.shape;
        assert!(residual.is_none_or(|r| r.len() == y.len()), "residual of {s:?}");
        self.launch(x, residual.map_or(Residual::None, Residual::Other), tail, y);
    }

    /// y = x ∗ weights + bias, added to what `y` holds if `accumulate`.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub(super) fn run_onto(&self, x: &[f32], accumulate: bool, y: &mut [f32]) {
        let residual = if accumulate { Residual::Output } else { Residual::None };
        self.launch(x, residual, Tail::None, y);
    }

    fn launch(&self, x: &[f32], residual: Residual<'_>, tail: Tail, y: &mut [f32]) {
        let s = &self.shape;
        assert_eq!(x.len(), s.batch * s.in_channels * s.in_h * s.in_w, "input of {s:?}");
        assert_eq!(y.len(), s.batch * s.out_channels * s.out_h * s.out_w, "output of {s:?}");
        if y.is_empty() {
            return;
        }
        let counts = self.counts();
        let (y, bounds) = (Shared(y.as_mut_ptr()), tail.bounds());
        let task = |index: usize| {
            let (rest, part) = (index / counts.3, index % counts.3);
            let (rest, row) = (rest / counts.2, rest % counts.2);
            let (image, groups) = (rest / counts.1, rest % counts.1 * self.split.groups);
            for group in groups..s.groups.min(groups + self.split.groups) {
                self.task(x, residual, bounds, &y, (image, group, row, part));
            }
        };
        tasks::for_each(counts.0 * counts.1 * counts.2 * counts.3, task);
    }

    /// Number of tasks along images, groups, rows and blocks.
    fn counts(&self) -> (usize, usize, usize, usize) {
        let s = &self.shape;
        (
            s.batch.div_ceil(self.split.images),
            s.groups.div_ceil(self.split.groups),
            s.out_h.div_ceil(self.split.rows),
            self.blocks().div_ceil(self.split.blocks),
        )
    }

    /// Blocks of outputs of a group.
    fn blocks(&self) -> usize {
        let s = &self.shape;
        (s.out_channels / s.groups)
            .div_ceil(tile::block_outputs(self.level, s.in_channels / s.groups))
    }

    /// Runs the task at (images, group, rows, blocks).
    fn task(
        &self,
        x: &[f32],
        residual: Residual<'_>,
        bounds: (f32, f32),
        y: &Shared,
        (image, group, row, part): (usize, usize, usize, usize),
    ) {
        let s = &self.shape;
        let first_image = image * self.split.images;
        let images = self.split.images.min(s.batch - first_image);
        let first_row = row * self.split.rows;
        let rows = self.split.rows.min(s.out_h - first_row);
        let blocks = part * self.split.blocks..self.blocks().min((part + 1) * self.split.blocks);
        let (channels, outputs) = (s.in_channels / s.groups, s.out_channels / s.groups);
        let (x_plane, y_plane) = (s.in_h * s.in_w, s.out_h * s.out_w);
        let start =
            (first_image * s.out_channels + group * outputs) * y_plane + first_row * s.out_w;
        let x = &x[(first_image * s.in_channels + group * channels) * x_plane..];
        let (weights, bias) = (self.weights.len() / s.groups, self.bias.len() / s.groups);
        let mut walk = Walk {
            weights: &self.weights[group * weights..][..weights],
            bias: &self.bias[group * bias..][..bias],
            outputs,
            channels,
            taps: &[0],
            source: x.as_ptr().wrapping_add(first_row * s.in_w),
            source_image: s.in_channels * x_plane,
            source_channel: x_plane,
            images,
            positions: rows * s.out_w,
            y: y.0.wrapping_add(start),
            residual: match residual {
                Residual::None => None,
                Residual::Other(r) => Some(r.as_ptr().wrapping_add(start)),
                Residual::Output => Some(y.0.wrapping_add(start).cast_const()),
            },
            y_image: s.out_channels * y_plane,
            y_channel: y_plane,
            bounds,
        };
        if s.is_its_own_plane() {
            // SAFETY: the level was found on this processor. The input is read at rows of the output, which are whole
            // vectors; tasks differ in image, group, rows or blocks, so each writes its own elements.
            unsafe { tile::run(self.level, &walk, blocks) };
            return;
        }
        let taps = self.planes.taps(s, rows);
        let channel = self.planes.channel_len(s, rows);
        scratch::with(images * channels * channel + 16, |planes| {
            let mut slots = planes.chunks_exact_mut(channel);
            for n in 0..images {
                for (c, slot) in slots.by_ref().take(channels).enumerate() {
                    let x = &x[(n * s.in_channels + c) * x_plane..][..x_plane];
                    self.planes.fill(s, x, (first_row, rows), slot);
                }
            }
            walk.taps = &taps;
            walk.source = planes.as_ptr();
            walk.source_image = channels * channel;
            walk.source_channel = channel;
            // SAFETY: as above; the planes hold every tap of every position, and 16 elements follow the last.
            unsafe { tile::run(self.level, &walk, blocks) };
        });
    }
}

impl ConvShape {
    /// Products in one sum.
    pub(crate) fn terms(&self) -> usize {
        self.in_channels / self.groups * self.kernel.0 * self.kernel.1
    }

    /// A kernel of one tap that moves by one and sees no padding: output and input positions are the same.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1)
            && self.strides == (1, 1)
            && self.pads_begin == (0, 0)
            && (self.in_h, self.in_w) == (self.out_h, self.out_w)
    }

    /// Pointwise, with rows of whole vectors: needs no planes.
    fn is_its_own_plane(&self) -> bool {
        self.is_pointwise() && self.in_w.is_multiple_of(16)
    }
}

/// A pointwise convolution does not care where rows end: makes them one vector wide where that fits.
fn regular(shape: &ConvShape) -> ConvShape {
    let plane = shape.in_h * shape.in_w;
    if !shape.is_pointwise() {
        return *shape;
    }
    let (h, w) = if plane.is_multiple_of(16) { (plane / 16, 16) } else { (1, plane) };
    ConvShape { in_h: h, in_w: w, out_h: h, out_w: w, ..*shape }
}

impl Split {
    fn new(shape: &ConvShape, planes: &Planes, blocks: usize) -> Self {
        let channels = shape.in_channels / shape.groups;
        let whole = (channels * planes.channel_len(shape, shape.out_h)).max(1);
        let work = shape.batch * shape.out_channels * shape.out_h * shape.out_w * shape.terms();
        let wanted = (work / TASK_WORK).clamp(1, TASKS);
        // One channel alone is read so little that it should come from L1.
        let room = if channels == 1 { SCRATCH / 16 } else { SCRATCH };
        let images = (room / whole).min(shape.batch.div_ceil(wanted)).max(1);
        let mut tasks = shape.batch.div_ceil(images).max(1);
        let groups = shape.groups.div_ceil(wanted.div_ceil(tasks));
        tasks *= shape.groups.div_ceil(groups);
        let mut split = Self { images, groups, rows: shape.out_h.max(1), blocks: blocks.max(1) };
        let missing = wanted.div_ceil(tasks);
        let mut parts = whole.div_ceil(SCRATCH);
        if blocks >= 4 && shape.terms() * shape.out_channels / shape.groups > whole {
            split.blocks = blocks.div_ceil(missing).max(2);
        } else {
            parts = parts.max(missing);
        }
        // Rows that together fill whole vectors.
        let even = 16 >> shape.out_w.trailing_zeros().min(4);
        split.rows = shape.out_h.div_ceil(parts).next_multiple_of(even).clamp(1, split.rows);
        split
    }
}

/// What is added to the sums.
#[derive(Clone, Copy)]
enum Residual<'a> {
    None,
    /// A tensor of the output's shape.
    Other(&'a [f32]),
    /// What the output holds.
    Output,
}

/// An output of which each task writes its own elements.
struct Shared(*mut f32);

// SAFETY: tasks write disjoint elements only.
unsafe impl Sync for Shared {}
