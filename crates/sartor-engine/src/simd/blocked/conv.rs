//! Dense convolution over blocked channels, with fused bias, residual and activation.
#![expect(unsafe_code, reason = "tasks write disjoint parts of one output")]

use super::super::aligned::Aligned;
use super::super::conv::ConvShape;
use super::super::{Level, Tail, scratch, tasks};
use super::lanes;
use super::tile::{self, GROUP, Steps, Walk};

/// Floats of weights that are met with all positions of a task before the next: most of L1.
const CHUNK: usize = 6144;
/// Floats of padded input of one task: half of a 1 MiB L2.
const SCRATCH: usize = 1 << 17;
/// Multiply-accumulates below which a task is not cut further.
const TASK_WORK: usize = 1 << 19;
/// Tasks wanted where there is work for them.
const TASKS: usize = 16;
/// Channels up to which the input is read as it came, [n, c, h, w].
const PLAIN_CHANNELS: usize = 4;

/// A convolution with one group whose weights were laid out once. Inputs of few channels are plain, [n, c, h, w].
#[derive(Clone, Debug)]
pub(crate) struct BlockedConv {
    shape: ConvShape,
    level: Level,
    /// [group of blocks of outputs, block of inputs, tap, channel, block of outputs, lane].
    weights: Aligned,
    /// [block of outputs, lane].
    bias: Aligned,
    input: Input,
    split: Split,
}

/// How a task sees its input.
#[derive(Clone, Copy, Debug)]
struct Input {
    plain: bool,
    /// Read where it lies: no tap falls outside.
    direct: bool,
    /// Floats of one column.
    column: usize,
    /// Blocks of channels.
    blocks: usize,
    /// Terms of a tap in each block but the last, and in the last.
    width: (usize, usize),
    /// Taps; those of one row of a plain input are one.
    taps: usize,
    /// Columns of the padded input.
    columns: usize,
}

/// How the work is cut: by the shape alone.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// Images, output rows and groups of blocks of outputs of a task.
    images: usize,
    rows: usize,
    groups: usize,
}

impl BlockedConv {
    /// Whether there is a kernel for `shape`, and one that gains: few lanes would be empty.
    pub(crate) fn serves(level: Level, shape: &ConvShape) -> bool {
        let lanes = lanes(level);
        shape.groups == 1
            && shape.terms() > 0
            && (1..=MAX_TAPS).contains(&(shape.kernel.0 * shape.kernel.1))
            && shape.out_channels * 3 >= shape.out_channels.next_multiple_of(lanes) * 2
    }

    /// Whether the input is plain.
    pub(crate) fn reads_plain(&self) -> bool {
        self.input.plain
    }

    /// Lays out `weights` [o, c, kh, kw] and `bias` [o].
    pub(crate) fn new(
        level: Level,
        shape: &ConvShape,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let shape = regular(shape);
        let lanes = lanes(level);
        let outputs = shape.out_channels.next_multiple_of(lanes);
        let input = Input::new(&shape, lanes);
        let mut it = Self {
            shape,
            level,
            weights: Aligned::zeros(outputs * shape.terms()),
            bias: Aligned::zeros(outputs),
            input,
            split: Split::new(&shape, &input, lanes),
        };
        if let Some(bias) = bias {
            it.bias[..bias.len()].copy_from_slice(bias);
        }
        it.pack(weights);
        it
    }

    fn pack(&mut self, weights: &[f32]) {
        let (s, lanes) = (&self.shape, lanes(self.level));
        let (terms, taps) = (s.terms(), s.kernel.0 * s.kernel.1);
        let channels = if self.input.plain { s.in_channels } else { lanes };
        let blocks = s.out_channels.div_ceil(lanes);
        let mut slots = self.weights.chunks_exact_mut(lanes);
        for first in (0..blocks).step_by(GROUP) {
            for block in 0..self.input.blocks {
                let inputs = block * channels..s.in_channels.min((block + 1) * channels);
                for (tap, c) in (0..taps).flat_map(|tap| inputs.clone().map(move |c| (tap, c))) {
                    for b in first..blocks.min(first + GROUP) {
                        let Some(slot) = slots.next() else { return };
                        for (slot, o) in slot.iter_mut().zip(b * lanes..s.out_channels) {
                            *slot = weights[o * terms + c * taps + tap];
                        }
                    }
                }
            }
        }
    }

    /// Multiplies output `o` by `factor[o]` and adds `addend[o]`, before residual and tail.
    pub(crate) fn scale(&mut self, factor: &[f32], addend: &[f32]) {
        let lanes = lanes(self.level);
        let (terms, outputs) = (self.shape.terms(), self.shape.out_channels);
        for ((bias, &factor), &addend) in self.bias.iter_mut().zip(factor).zip(addend) {
            *bias = *bias * factor + addend;
        }
        let blocks = outputs.div_ceil(lanes);
        for (at, slot) in self.weights.chunks_exact_mut(lanes).enumerate() {
            let first = at / (GROUP * terms) * GROUP;
            let block = first + at % GROUP.min(blocks - first);
            for (slot, o) in slot.iter_mut().zip(block * lanes..outputs) {
                *slot *= factor[o];
            }
        }
    }

    /// y = tail(x ∗ weights + bias + residual); y and residual are blocked, x too unless it is plain.
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&self, x: &[f32], residual: Option<&[f32]>, tail: Tail, y: &mut [f32]) {
        let (s, lanes) = (&self.shape, lanes(self.level));
        let per_plane = self.input.blocks * self.input.column;
        assert_eq!(x.len(), s.batch * per_plane * s.in_h * s.in_w, "input of {s:?}");
        let blocks = s.out_channels.div_ceil(lanes);
        assert_eq!(y.len(), s.batch * blocks * lanes * s.out_h * s.out_w, "output of {s:?}");
        assert!(residual.is_none_or(|r| r.len() == y.len()), "residual of {s:?}");
        if y.is_empty() {
            return;
        }
        let groups = blocks.div_ceil(GROUP);
        let counts = (
            s.batch.div_ceil(self.split.images),
            s.out_h.div_ceil(self.split.rows),
            groups.div_ceil(self.split.groups),
        );
        let y = Shared(y.as_mut_ptr());
        tasks::for_each(counts.0 * counts.1 * counts.2, |at| {
            let (rest, part) = (at / counts.2, at % counts.2);
            let part = part * self.split.groups..groups.min((part + 1) * self.split.groups);
            self.task(x, residual, tail, &y, (rest / counts.1, rest % counts.1, part));
        });
    }

    /// Runs the task at (images, rows, groups).
    fn task(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        tail: Tail,
        y: &Shared,
        (image, row, groups): (usize, usize, std::ops::Range<usize>),
    ) {
        let (s, input) = (&self.shape, &self.input);
        let first_image = image * self.split.images;
        let images = self.split.images.min(s.batch - first_image);
        let first_row = row * self.split.rows;
        let rows = self.split.rows.min(s.out_h - first_row);
        let part = Part { first_image, images, first_row, rows };
        let x = &x[first_image * input.blocks * input.column * s.in_h * s.in_w..];
        if input.direct {
            let pitch = s.in_w * input.column;
            let source = x.as_ptr().wrapping_add(first_row * s.strides.0 * pitch);
            self.walk(source, s.in_h, s.in_w, &part, residual, tail, y, groups);
            return;
        }
        let padded = (rows - 1) * s.strides.0 + (s.kernel.0 - 1) * s.dilations.0 + 1;
        let plane = padded * input.columns * input.column;
        scratch::with(images * input.blocks * plane, |scratch| {
            for (at, scratch) in scratch.chunks_exact_mut(plane).enumerate() {
                let len = input.column * s.in_h * s.in_w;
                input.fill(s, &x[at * len..][..len], first_row * s.strides.0, scratch);
            }
            let source = scratch.as_ptr();
            self.walk(source, padded, input.columns, &part, residual, tail, y, groups);
        });
    }

    /// All groups of a task over a source of planes of `height` × `width` columns.
    #[expect(clippy::too_many_arguments, reason = "the task and where its input lies")]
    fn walk(
        &self,
        source: *const f32,
        height: usize,
        width: usize,
        part: &Part,
        residual: Option<&[f32]>,
        tail: Tail,
        y: &Shared,
        groups: std::ops::Range<usize>,
    ) {
        let (s, input, lanes) = (&self.shape, &self.input, lanes(self.level));
        let pitch = width * input.column;
        let mut taps = [0; MAX_TAPS];
        let taps = input.offsets(s, pitch, &mut taps);
        let blocks = s.out_channels.div_ceil(lanes);
        let y_block = s.out_h * s.out_w * lanes;
        let source_block = height * pitch;
        for group in groups {
            let count = GROUP.min(blocks - group * GROUP);
            let start = (part.first_image * blocks + group * GROUP) * y_block
                + part.first_row * s.out_w * lanes;
            let per_block = count * lanes * input.taps * input.width.0;
            let chunk = (CHUNK / per_block).max(1);
            let weights = &self.weights[group * GROUP * lanes * s.terms()..];
            for first in (0..input.blocks).step_by(chunk) {
                let end = input.blocks.min(first + chunk);
                let last = end == input.blocks;
                let walk = Walk {
                    weights: &weights[first * per_block..],
                    bias: &self.bias[group * GROUP * lanes..],
                    group: count,
                    blocks: end - first,
                    width: (input.width.0, if last { input.width.1 } else { input.width.0 }),
                    taps,
                    source: source.wrapping_add(first * source_block),
                    source_block,
                    source_steps: Steps {
                        image: input.blocks * source_block,
                        row: s.strides.0 * pitch,
                        column: s.strides.1 * input.column,
                    },
                    y: y.0.wrapping_add(start),
                    residual: residual.map(|r| r.as_ptr().wrapping_add(start)),
                    y_block,
                    y_image: blocks * y_block,
                    images: part.images,
                    rows: part.rows,
                    columns: s.out_w,
                    first: first == 0,
                    last: last.then(|| tail.bounds()),
                };
                // SAFETY: the level was found on this processor. Tasks differ in image, rows or groups, so each writes
                // its own elements; the source holds every tap of every position.
                unsafe { tile::run(self.level, &walk) };
            }
        }
    }
}

/// Images and output rows of a task.
struct Part {
    first_image: usize,
    images: usize,
    first_row: usize,
    rows: usize,
}

/// Taps of the largest kernel that is served.
const MAX_TAPS: usize = 128;

impl Input {
    fn new(s: &ConvShape, lanes: usize) -> Self {
        let plain = s.in_channels <= PLAIN_CHANNELS;
        let (rows, columns) = needed(s);
        let merged = plain && s.dilations.1 == 1;
        let direct = s.pads_begin == (0, 0) && rows <= s.in_h && columns <= s.in_w;
        let last = s.in_channels - (s.in_channels.div_ceil(lanes) - 1) * lanes;
        let along = if merged { s.in_channels * s.kernel.1 } else { s.in_channels };
        Self {
            plain,
            direct: direct && (!plain || s.in_channels == 1),
            column: if plain { s.in_channels } else { lanes },
            blocks: if plain { 1 } else { s.in_channels.div_ceil(lanes) },
            width: if plain { (along, along) } else { (lanes, last) },
            taps: if merged { s.kernel.0 } else { s.kernel.0 * s.kernel.1 },
            columns,
        }
    }

    /// Distances of the taps from the first.
    fn offsets<'a>(
        &self,
        s: &ConvShape,
        pitch: usize,
        taps: &'a mut [usize; MAX_TAPS],
    ) -> &'a [usize] {
        let across = self.taps / s.kernel.0;
        for (at, tap) in taps[..self.taps].iter_mut().enumerate() {
            *tap = at / across * s.dilations.0 * pitch + at % across * s.dilations.1 * self.column;
        }
        &taps[..self.taps]
    }

    /// Fills a padded plane whose first row is row `first` of the padded input.
    fn fill(&self, s: &ConvShape, x: &[f32], first: usize, padded: &mut [f32]) {
        let pitch = self.columns * self.column;
        let left = s.pads_begin.1.min(self.columns);
        let copied = s.in_w.min(self.columns - left);
        for (row, padded) in padded.chunks_exact_mut(pitch).enumerate() {
            let row = (first + row).wrapping_sub(s.pads_begin.0);
            if row >= s.in_h {
                padded.fill(0.0);
                continue;
            }
            let (start, end) = (left * self.column, (left + copied) * self.column);
            padded[..start].fill(0.0);
            padded[end..].fill(0.0);
            let inside = &mut padded[start..end];
            if !self.plain {
                inside.copy_from_slice(&x[row * s.in_w * self.column..][..inside.len()]);
                continue;
            }
            for c in 0..self.column {
                let x = &x[(c * s.in_h + row) * s.in_w..][..copied];
                for (to, &x) in inside[c..].iter_mut().step_by(self.column).zip(x) {
                    *to = x;
                }
            }
        }
    }
}

/// Rows and columns of the padded input that outputs see.
fn needed(s: &ConvShape) -> (usize, usize) {
    let seen = |out: usize, kernel: usize, stride: usize, dilation: usize| {
        out.saturating_sub(1) * stride + (kernel - 1) * dilation + 1
    };
    (
        seen(s.out_h, s.kernel.0, s.strides.0, s.dilations.0),
        seen(s.out_w, s.kernel.1, s.strides.1, s.dilations.1),
    )
}

/// A pointwise convolution does not care where rows end: makes them short where that fits, so that rows can be shared
/// out.
fn regular(shape: &ConvShape) -> ConvShape {
    let plane = shape.in_h * shape.in_w;
    if !shape.is_pointwise() {
        return *shape;
    }
    let (h, w) = if plane.is_multiple_of(8) { (plane / 8, 8) } else { (1, plane) };
    ConvShape { in_h: h, in_w: w, out_h: h, out_w: w, ..*shape }
}

impl Split {
    fn new(s: &ConvShape, input: &Input, lanes: usize) -> Self {
        let (rows, columns) = needed(s);
        let whole = (input.blocks * input.column * rows * columns).max(1);
        let work = s.batch * s.out_channels * s.out_h * s.out_w * s.terms();
        let wanted = (work / TASK_WORK).clamp(1, TASKS);
        let images = (SCRATCH / whole).min(s.batch.div_ceil(wanted)).max(1);
        let groups = s.out_channels.div_ceil(lanes * GROUP).max(1);
        let missing = wanted.div_ceil(s.batch.div_ceil(images).max(1));
        let mut split = Self { images, rows: s.out_h.max(1), groups };
        let mut parts = if input.direct { 1 } else { whole.div_ceil(SCRATCH) };
        if groups >= 2 && s.terms() * s.out_channels > whole {
            split.groups = groups.div_ceil(missing);
        } else {
            parts = parts.max(missing);
        }
        split.rows = s.out_h.div_ceil(parts).clamp(1, split.rows);
        split
    }
}

/// An output of which each task writes its own elements.
struct Shared(*mut f32);

// SAFETY: tasks write disjoint elements only.
unsafe impl Sync for Shared {}
