//! Convolution of bytes, dense and grouped; depthwise ones go their own way.
#![expect(unsafe_code, reason = "tasks write disjoint parts of one output")]

use rayon::prelude::*;

use super::{
    ByteLevel, Requant, Sink,
    depthwise::Depthwise,
    lanes::Line,
    tile::{self, Positions, Results, Target, Walk},
};
use crate::simd::{conv::ConvShape, scratch};

/// Bytes of the padded input of a task: a part of a 1 MiB L2, whose rest is for weights.
const SCRATCH: usize = 1 << 17;
/// Products below which work is not cut for a second thread.
const TASK_WORK: usize = 1 << 22;
/// Tasks wanted where there is work for them.
const TASKS: usize = 16;

/// A convolution `x [n, h, w, c] ∗ weights → y [n, h, w, o]` of bytes, prepared once.
#[derive(Clone, Debug)]
pub(crate) struct ByteConv {
    shape: ConvShape,
    /// Positions of an image of the output.
    plane: usize,
    kind: Kind,
    requant: Requant,
}

#[derive(Clone, Debug)]
enum Kind {
    Dense(Dense),
    Depthwise(Depthwise),
}

/// A convolution whose groups have several channels.
#[derive(Clone, Debug)]
struct Dense {
    level: ByteLevel,
    /// [group, block, run, group of four inputs, vector of the block].
    weights: Vec<Line>,
    /// First vector and number of vectors of each block.
    blocks: Vec<(usize, usize)>,
    /// The byte that stands for 0 in the input.
    pad: u8,
    split: Split,
}

/// How the work is cut: by the shape alone.
#[derive(Clone, Copy, Debug)]
struct Split {
    images: usize,
    rows: usize,
    blocks: usize,
}

/// The part of the output that a task makes.
#[derive(Clone, Copy)]
struct Part {
    image: usize,
    images: usize,
    row: usize,
    rows: usize,
}

/// An output of which each task writes its own elements.
pub(super) struct Shared {
    y: Target,
    /// Channels of a position.
    step: usize,
}

// SAFETY: tasks write disjoint elements only.
unsafe impl Sync for Shared {}

impl Shared {
    /// `plane` is the number of positions of an image.
    fn new(y: Sink<'_>, plane: usize, step: usize) -> Self {
        let y = match y {
            Sink::Bytes(y) => Target::Bytes(y.as_mut_ptr()),
            Sink::Floats(y) => Target::Floats(y.as_mut_ptr()),
            Sink::Planes(y) => {
                Target::Planes { y: y.as_mut_ptr(), first: 0, plane, channel: 0, channels: step }
            }
        };
        Shared { y, step }
    }

    /// The target from a position of the batch and a channel on, which lie inside the output.
    pub(super) fn from(&self, position: usize, channel: usize) -> Target {
        let at = position * self.step + channel;
        match self.y {
            Target::Bytes(y) => Target::Bytes(y.wrapping_add(at)),
            Target::Floats(y) => Target::Floats(y.wrapping_add(at)),
            Target::Planes { y, plane, channels, .. } => {
                Target::Planes { y, first: position, plane, channel, channels }
            }
        }
    }
}

impl ByteConv {
    /// Lays out `weights` [o, c / groups, kh, kw]; `pad` is the byte that stands for 0 in the input.
    pub(crate) fn new(shape: &ConvShape, weights: &[i8], pad: u8, requant: &Requant) -> Self {
        Self::at(ByteLevel::here(), shape, weights, pad, requant)
    }

    /// [`Self::new`] for a level that this processor has.
    pub(super) fn at(
        level: ByteLevel,
        shape: &ConvShape,
        weights: &[i8],
        pad: u8,
        requant: &Requant,
    ) -> Self {
        let plane = shape.out_h * shape.out_w;
        let shape = regular(shape);
        let depthwise = shape.groups > 1
            && shape.in_channels == shape.groups
            && shape.out_channels == shape.groups;
        let (kind, per_group) = if depthwise {
            (Kind::Depthwise(Depthwise::new(level, &shape, weights, pad)), shape.out_channels)
        } else {
            (Kind::Dense(Dense::new(level, &shape, weights, pad)), shape.outputs())
        };
        let requant = padded(requant, per_group, level.lanes());
        ByteConv { shape, plane, kind, requant }
    }

    /// Computes `y` from `x`.
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&self, x: &[u8], y: Sink<'_>) {
        let s = &self.shape;
        assert_eq!(x.len(), s.batch * s.in_channels * s.in_h * s.in_w, "input of {s:?}");
        assert_eq!(y.len(), s.batch * s.out_channels * s.out_h * s.out_w, "output of {s:?}");
        if y.len() == 0 {
            return;
        }
        let y = Shared::new(y, self.plane, s.out_channels);
        match &self.kind {
            Kind::Dense(it) => it.run(s, &self.requant, x, &y),
            Kind::Depthwise(it) => it.run(s, &self.requant, x, &y),
        }
    }
}

/// The parameters of each group filled up to whole vectors.
fn padded(it: &Requant, per_group: usize, lanes: usize) -> Requant {
    fn fill<T: Copy + Default>(values: &[T], per_group: usize, lanes: usize) -> Vec<T> {
        let mut all = Vec::new();
        for group in values.chunks(per_group.max(1)) {
            all.extend_from_slice(group);
            all.resize(all.len().next_multiple_of(lanes), T::default());
        }
        all
    }
    Requant {
        bias: fill(&it.bias, per_group, lanes),
        factor: fill(&it.factor, per_group, lanes),
        addend: fill(&it.addend, per_group, lanes),
        ..*it
    }
}

impl Requant {
    /// The parameters of the outputs from `first` on, as a task writes them to `y`.
    pub(super) fn results(
        &self,
        first: usize,
        outputs: usize,
        y: Target,
        step: usize,
    ) -> Results<'_> {
        Results {
            bias: &self.bias[first..],
            factor: &self.factor[first..],
            addend: &self.addend[first..],
            bounds: self.bounds,
            zero: self.zero,
            outputs,
            y,
            step,
        }
    }
}

/// A pointwise convolution does not care where rows and images end.
fn regular(shape: &ConvShape) -> ConvShape {
    let positions = shape.batch * shape.in_h * shape.in_w;
    if !shape.is_pointwise() || positions == 0 {
        return *shape;
    }
    ConvShape { batch: 1, in_h: positions, in_w: 1, out_h: positions, out_w: 1, ..*shape }
}

impl Dense {
    fn new(level: ByteLevel, shape: &ConvShape, weights: &[i8], pad: u8) -> Self {
        let (channels, outputs) = (shape.channels(), shape.outputs());
        let (lanes, taps) = (level.lanes(), shape.kernel.0 * shape.kernel.1);
        let vectors = outputs.div_ceil(lanes);
        let blocks = blocks(vectors, tile::block_vectors(level));
        let quads = channels.div_ceil(4);
        let mut lines = Vec::with_capacity(shape.groups * vectors * taps * quads);
        for group in 0..shape.groups {
            for &(first, width) in &blocks {
                for step in 0..taps * quads {
                    let (tap, quad) = (step / quads, step % quads);
                    for vector in first..first + width {
                        lines.push(Line::pack(lanes, |lane, input| {
                            let (o, c) = (vector * lanes + lane, quad * 4 + input);
                            if o < outputs && c < channels {
                                weights[((group * outputs + o) * channels + c) * taps + tap]
                            } else {
                                0
                            }
                        }));
                    }
                }
            }
        }
        let split = Split::new(shape, blocks.len());
        Dense { level, weights: lines, blocks, pad, split }
    }

    fn run(&self, s: &ConvShape, requant: &Requant, x: &[u8], y: &Shared) {
        let images = s.batch.div_ceil(self.split.images);
        let rows = s.out_h.div_ceil(self.split.rows);
        let parts = self.blocks.len().div_ceil(self.split.blocks);
        let task = |index: usize| {
            let (rest, part) = (index / parts, index % parts);
            let (rest, row) = (rest / rows, rest % rows * self.split.rows);
            let (image, group) = (rest / s.groups * self.split.images, rest % s.groups);
            let part_of_output = Part {
                image,
                images: self.split.images.min(s.batch - image),
                row,
                rows: self.split.rows.min(s.out_h - row),
            };
            let blocks = self.blocks.chunks(self.split.blocks).nth(part).unwrap_or_default();
            self.task(s, requant, (x, y), part_of_output, group, blocks);
        };
        match images * s.groups * rows * parts {
            1 => task(0),
            tasks => (0..tasks).into_par_iter().for_each(task),
        }
    }

    fn task(
        &self,
        s: &ConvShape,
        requant: &Requant,
        (x, y): (&[u8], &Shared),
        part: Part,
        group: usize,
        blocks: &[(usize, usize)],
    ) {
        let (channels, outputs) = (s.channels(), s.outputs());
        let first = (part.image * s.out_h + part.row) * s.out_w;
        let padded = requant.bias.len() / s.groups;
        let quads = channels.div_ceil(4);
        let lines = self.weights.len() / s.groups;
        let mut walk = Walk {
            weights: &self.weights[group * lines..][..lines],
            runs: &[0],
            groups: quads,
            source: x.as_ptr(),
            places: Positions {
                columns: s.out_w,
                rows: part.rows,
                column_step: s.strides.1 * s.in_channels,
                row_step: s.strides.0 * s.in_w * s.in_channels,
                image_step: s.in_h * s.in_w * s.in_channels,
            },
            positions: part.images * part.rows * s.out_w,
            results: requant.results(
                group * padded,
                outputs,
                y.from(first, group * outputs),
                s.out_channels,
            ),
        };
        if s.reads_in_place() {
            let row = (part.image * s.in_h + part.row * s.strides.0) * s.in_w;
            walk.source = x[row * s.in_channels + group * channels..].as_ptr();
            // SAFETY: the level is this processor's; taps of all positions lie in the input, whose channels are whole
            // groups of four; tasks differ in image, group, rows or blocks, so each writes its own elements.
            unsafe { self.blocks(&walk, blocks) };
            return;
        }
        let wide = quads * 4;
        let band = Band::new(s, part.rows);
        scratch::with_bytes(part.images * band.rows * band.columns * wide, |planes| {
            for (n, plane) in planes.chunks_exact_mut(band.rows * band.columns * wide).enumerate() {
                let image = part.image + n;
                let from = (image * s.in_h * s.in_w * s.in_channels, group * channels);
                band.fill(s, x, from, part.row, (channels, wide, self.pad), plane);
            }
            let line = band.columns * wide;
            // Neighbouring taps of a row are one run.
            let whole = s.dilations.1 == 1;
            let (per_row, taps) = if whole { (1, s.kernel.1) } else { (s.kernel.1, 1) };
            let runs: Vec<usize> = (0..s.kernel.0 * per_row)
                .map(|i| i / per_row * s.dilations.0 * line + i % per_row * s.dilations.1 * wide)
                .collect();
            let places = Positions {
                column_step: s.strides.1 * wide,
                row_step: s.strides.0 * line,
                image_step: band.rows * line,
                ..walk.places
            };
            let source = planes.as_ptr();
            let walk = Walk { runs: &runs, groups: taps * quads, source, places, ..walk };
            // SAFETY: as above; the planes hold every tap of every position.
            unsafe { self.blocks(&walk, blocks) };
        });
    }

    /// # Safety
    /// As [`tile::run`].
    unsafe fn blocks(&self, walk: &Walk<'_>, blocks: &[(usize, usize)]) {
        for &(first, width) in blocks {
            // SAFETY: passed on to the caller.
            unsafe { tile::run(self.level, walk, first, width) };
        }
    }
}

/// Cuts `vectors` into blocks of at most `most`, as even as can be: first vector and width.
fn blocks(vectors: usize, most: usize) -> Vec<(usize, usize)> {
    let count = vectors.div_ceil(most);
    (0..count)
        .map(|i| {
            let (first, end) = (i * vectors / count, (i + 1) * vectors / count);
            (first, end - first)
        })
        .collect()
}

/// Padded rows of an input, as many as some output rows see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Band {
    pub(super) fn new(s: &ConvShape, rows: usize) -> Self {
        let seen = |outputs: usize, kernel: usize, stride: usize, dilation: usize| {
            (outputs.max(1) - 1) * stride + (kernel - 1) * dilation + 1
        };
        Band {
            rows: seen(rows, s.kernel.0, s.strides.0, s.dilations.0),
            columns: seen(s.out_w, s.kernel.1, s.strides.1, s.dilations.1),
        }
    }

    /// Copies `channels` of the image that begins at `from` (image, first channel), `wide` bytes a position.
    pub(super) fn fill(
        self,
        s: &ConvShape,
        x: &[u8],
        (image, channel): (usize, usize),
        first_row: usize,
        (channels, wide, pad): (usize, usize, u8),
        plane: &mut [u8],
    ) {
        let left = s.pads_begin.1.min(self.columns);
        let right = (s.in_w + s.pads_begin.1).min(self.columns).max(left);
        let pixels = s.in_channels;
        for (row, line) in plane.chunks_exact_mut(self.columns * wide).enumerate() {
            let row = (first_row * s.strides.0 + row).checked_sub(s.pads_begin.0);
            let Some(row) = row.filter(|&it| it < s.in_h) else {
                line.fill(pad);
                continue;
            };
            line[..left * wide].fill(pad);
            line[right * wide..].fill(pad);
            let inner = &mut line[left * wide..right * wide];
            let from = &x[image + row * s.in_w * pixels + channel..];
            if channels == pixels && channels == wide {
                inner.copy_from_slice(&from[..inner.len()]);
                continue;
            }
            for (to, from) in inner.chunks_exact_mut(wide).zip(from.chunks(pixels)) {
                to[..channels].copy_from_slice(&from[..channels]);
                to[channels..].fill(pad);
            }
        }
    }
}

impl Split {
    fn new(s: &ConvShape, blocks: usize) -> Self {
        let work = s.batch * s.out_channels * s.out_h * s.out_w * s.terms();
        let wanted = (work / TASK_WORK).clamp(1, TASKS);
        let band = Band::new(s, s.out_h);
        let plane = (band.rows * band.columns * s.channels().next_multiple_of(4)).max(1);
        let images = (SCRATCH / plane).min(s.batch.div_ceil(wanted)).max(1);
        let tasks = (s.batch.div_ceil(images) * s.groups).max(1);
        let mut split = Split { images, rows: s.out_h.max(1), blocks: blocks.max(1) };
        let missing = wanted.div_ceil(tasks);
        let mut bands = if s.reads_in_place() { 1 } else { plane.div_ceil(2 * SCRATCH) };
        if blocks > 1 && s.terms() * s.outputs() > plane {
            split.blocks = blocks.div_ceil(missing).max(1);
        } else {
            bands = bands.max(missing);
        }
        // The positions of a task are one run of the output: parts of several images are none.
        if images == 1 {
            split.rows = s.out_h.div_ceil(bands).max(1);
        }
        split
    }
}

impl ConvShape {
    /// Channels of a group.
    fn channels(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Outputs of a group.
    fn outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    /// One tap, no padding, and channels that are whole groups of four: nothing needs to be copied.
    fn reads_in_place(&self) -> bool {
        self.kernel == (1, 1)
            && self.pads_begin == (0, 0)
            && (self.out_h.max(1) - 1) * self.strides.0 < self.in_h
            && (self.out_w.max(1) - 1) * self.strides.1 < self.in_w
            && self.channels().is_multiple_of(4)
    }
}
