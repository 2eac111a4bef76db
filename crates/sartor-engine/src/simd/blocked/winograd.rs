//! 3 × 3 convolution by Winograd's F(2 × 2, 3 × 3) over blocked channels: 16 products for 4 outputs instead of 36.
//!
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1: a tile of 4 × 4 inputs d and
//! the kernel g give the 2 × 2 outputs Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A. Summed over channels, each of the 16 elementwise
//! products is a matrix product of tiles × channels by channels × outputs. All factors are 0, ±1 and ½: the error is
//! that of a few more additions.
#![expect(unsafe_code, reason = "raw pointers and instructions of one processor family")]
#![expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]

use super::super::aligned::Aligned;
use super::super::conv::ConvShape;
use super::super::{Level, Tail, scratch, tasks, vector};
use super::lanes;
use super::tile::{self, GROUP, Steps, Walk};
use vector::Vector;

/// Elements of a transformed tile.
const POINTS: usize = 16;
/// Tiles of a task, at most.
const TILES: usize = 64;
/// Tiles below which reading the larger weights costs more than their products save.
const LEAST_TILES: usize = 16;
/// Multiply-accumulates of a task, about.
const TASK_WORK: usize = 1 << 19;
/// Floats of weights that are met with all tiles of a task before the next: most of L1.
const CHUNK: usize = 6144;

/// A convolution of 3 × 3 taps that moves by one, whose weights were transformed once.
#[derive(Clone, Debug)]
pub(crate) struct BlockedWinograd {
    shape: ConvShape,
    level: Level,
    /// [point, group of blocks of outputs, channel, block of outputs, lane].
    weights: Aligned,
    /// [block of outputs, lane].
    bias: Aligned,
    /// Where sums begin: zeros.
    zeros: Aligned,
    /// Tiles of a task.
    tiles: usize,
}

impl BlockedWinograd {
    /// Whether there is a kernel for `shape`, and one that gains.
    pub(crate) fn serves(level: Level, shape: &ConvShape) -> bool {
        let s = shape;
        let lanes = lanes(level);
        let tiles = s.out_h.div_ceil(2) * s.out_w.div_ceil(2);
        s.groups == 1
            && s.kernel == (3, 3)
            && s.strides == (1, 1)
            && s.dilations == (1, 1)
            && s.in_channels >= lanes
            && s.out_channels >= lanes
            && s.out_channels * 3 >= s.out_channels.next_multiple_of(lanes) * 2
            && s.batch * tiles >= LEAST_TILES
            && tiles * 16 <= s.out_h * s.out_w * 5
    }

    /// Transforms `weights` [o, c, 3, 3] and lays out `bias` [o].
    pub(crate) fn new(
        level: Level,
        shape: &ConvShape,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let (s, lanes) = (*shape, lanes(level));
        let outputs = s.out_channels.next_multiple_of(lanes);
        let all = s.batch * s.out_h.div_ceil(2) * s.out_w.div_ceil(2);
        let parts = (all * POINTS * s.in_channels * s.out_channels / TASK_WORK).clamp(1, 16);
        let tiles = all.div_ceil(parts).next_multiple_of(8).min(TILES);
        let mut it = Self {
            shape: s,
            level,
            weights: Aligned::zeros(POINTS * outputs * s.in_channels),
            bias: Aligned::zeros(outputs),
            zeros: Aligned::zeros(outputs),
            tiles,
        };
        if let Some(bias) = bias {
            it.bias[..bias.len()].copy_from_slice(bias);
        }
        for (at, kernel) in weights.as_chunks::<9>().0.iter().enumerate() {
            let (o, c) = (at / s.in_channels, at % s.in_channels);
            for (point, value) in transform_kernel(kernel).into_iter().enumerate() {
                let slot = it.slot(point, o, c);
                it.weights[slot] = value;
            }
        }
        it
    }

    /// Where the weight of output `o` and channel `c` lies.
    fn slot(&self, point: usize, o: usize, c: usize) -> usize {
        let (s, lanes) = (&self.shape, lanes(self.level));
        let blocks = s.out_channels.div_ceil(lanes);
        let first = o / lanes / GROUP * GROUP;
        let group = GROUP.min(blocks - first);
        ((point * blocks + first) * s.in_channels + c * group + o / lanes - first) * lanes
            + o % lanes
    }

    /// Multiplies output `o` by `factor[o]` and adds `addend[o]`, before residual and tail.
    pub(crate) fn scale(&mut self, factor: &[f32], addend: &[f32]) {
        for (o, (&factor, &addend)) in factor.iter().zip(addend).enumerate() {
            self.bias[o] = self.bias[o] * factor + addend;
            for (point, c) in
                (0..POINTS).flat_map(|point| (0..self.shape.in_channels).map(move |c| (point, c)))
            {
                let slot = self.slot(point, o, c);
                self.weights[slot] *= factor;
            }
        }
    }

    /// y = tail(x ∗ weights + bias + residual), all blocked.
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&self, x: &[f32], residual: Option<&[f32]>, tail: Tail, y: &mut [f32]) {
        let (s, lanes) = (&self.shape, lanes(self.level));
        let blocks = (s.in_channels.div_ceil(lanes), s.out_channels.div_ceil(lanes));
        assert_eq!(x.len(), s.batch * blocks.0 * lanes * s.in_h * s.in_w, "input of {s:?}");
        assert_eq!(y.len(), s.batch * blocks.1 * lanes * s.out_h * s.out_w, "output of {s:?}");
        assert!(residual.is_none_or(|r| r.len() == y.len()), "residual of {s:?}");
        if y.is_empty() {
            return;
        }
        let all = s.batch * s.out_h.div_ceil(2) * s.out_w.div_ceil(2);
        let y = Shared(y.as_mut_ptr());
        tasks::for_each(all.div_ceil(self.tiles), |at| {
            let first = at * self.tiles;
            let count = self.tiles.min(all - first);
            let plane = count * lanes;
            scratch::with(POINTS * (blocks.0 + blocks.1) * plane, |scratch| {
                let (inputs, sums) = scratch.split_at_mut(POINTS * blocks.0 * plane);
                let part = Part {
                    shape: s,
                    first,
                    count,
                    x,
                    inputs,
                    sums,
                    bias: &self.bias,
                    y: y.get(),
                    residual,
                    bounds: tail.bounds(),
                };
                // SAFETY: the level was found on this processor; the slices have the lengths of the shape, the scratch
                // those of the tiles, and tasks have tiles of their own.
                unsafe { run(self.level, part, |part| self.multiply(part)) };
            });
        });
    }

    /// The matrix product of each point.
    fn multiply(&self, part: &mut Part<'_>) {
        let (s, lanes) = (&self.shape, lanes(self.level));
        let plane = part.count * lanes;
        let blocks = (s.in_channels.div_ceil(lanes), s.out_channels.div_ceil(lanes));
        let last = s.in_channels - (blocks.0 - 1) * lanes;
        let size = blocks.1 * lanes * s.in_channels;
        for point in 0..POINTS {
            let source = &part.inputs[point * blocks.0 * plane..][..blocks.0 * plane];
            let sums = &mut part.sums[point * blocks.1 * plane..][..blocks.1 * plane];
            let weights = &self.weights[point * size..][..size];
            for first_output in (0..blocks.1).step_by(GROUP) {
                let group = GROUP.min(blocks.1 - first_output);
                let weights = &weights[first_output * lanes * s.in_channels..];
                let chunk = (CHUNK / (group * lanes * lanes)).max(1);
                for first in (0..blocks.0).step_by(chunk) {
                    let end = blocks.0.min(first + chunk);
                    let walk = Walk {
                        weights: &weights[first * lanes * group * lanes..],
                        bias: &self.zeros,
                        group,
                        blocks: end - first,
                        width: (lanes, if end == blocks.0 { last } else { lanes }),
                        taps: &[0],
                        source: source[first * plane..].as_ptr(),
                        source_block: plane,
                        source_steps: Steps { image: 0, row: 0, column: lanes },
                        y: sums[first_output * plane..].as_mut_ptr(),
                        residual: None,
                        y_block: plane,
                        y_image: 0,
                        images: 1,
                        rows: 1,
                        columns: part.count,
                        first: first == 0,
                        last: None,
                    };
                    // SAFETY: the level was found on this processor; source and sums are [block, tile, lane].
                    unsafe { tile::run(self.level, &walk) };
                }
            }
        }
    }
}

/// G g Gᵀ of one kernel.
fn transform_kernel(g: &[f32; 9]) -> [f32; POINTS] {
    let along = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let columns: [[f32; 4]; 3] = std::array::from_fn(|x| along(g[x], g[3 + x], g[6 + x]));
    let mut points = [0.0; POINTS];
    for y in 0..4 {
        let row = along(columns[0][y], columns[1][y], columns[2][y]);
        points[4 * y..4 * y + 4].copy_from_slice(&row);
    }
    points
}

/// Some tiles, in the order of images, rows and columns.
struct Part<'a> {
    shape: &'a ConvShape,
    first: usize,
    count: usize,
    x: &'a [f32],
    /// [point, block of channels, tile, lane].
    inputs: &'a mut [f32],
    /// [point, block of outputs, tile, lane].
    sums: &'a mut [f32],
    bias: &'a [f32],
    y: *mut f32,
    residual: Option<&'a [f32]>,
    bounds: (f32, f32),
}

impl Part<'_> {
    /// (image, first output row, first output column) of each tile.
    #[inline(always)]
    fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (rows, columns) = (self.shape.out_h.div_ceil(2), self.shape.out_w.div_ceil(2));
        let mut column = self.first % columns;
        let mut row = self.first / columns % rows;
        let mut image = self.first / columns / rows;
        (0..self.count).map(move |_| {
            let place = (image, 2 * row, 2 * column);
            column += 1;
            if column == columns {
                (column, row) = (0, row + 1);
                if row == rows {
                    (row, image) = (0, image + 1);
                }
            }
            place
        })
    }
}

/// # Safety
/// The processor must have the instructions of `level`; slices must have the lengths of shape and tiles, and the tiles
/// of `y` must be this task's alone.
unsafe fn run(level: Level, mut part: Part<'_>, multiply: impl FnOnce(&mut Part<'_>)) {
    match level {
        // SAFETY: passed on to the caller, also below.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe {
            inputs_avx512(&mut part);
            multiply(&mut part);
            outputs_avx512(&mut part);
        },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe {
            inputs_avx2(&mut part);
            multiply(&mut part);
            outputs_avx2(&mut part);
        },
        _ => unsafe {
            transform_inputs::<vector::Plain>(&mut part);
            multiply(&mut part);
            transform_outputs::<vector::Plain>(&mut part);
        },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn inputs_avx512(part: &mut Part<'_>) {
    // SAFETY: the features are those of the vector; the rest is passed on to the caller. So below.
    unsafe { transform_inputs::<std::arch::x86_64::__m512>(part) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn outputs_avx512(part: &mut Part<'_>) {
    // SAFETY: as above.
    unsafe { transform_outputs::<std::arch::x86_64::__m512>(part) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn inputs_avx2(part: &mut Part<'_>) {
    // SAFETY: as above.
    unsafe { transform_inputs::<std::arch::x86_64::__m256>(part) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn outputs_avx2(part: &mut Part<'_>) {
    // SAFETY: as above.
    unsafe { transform_outputs::<std::arch::x86_64::__m256>(part) }
}

/// Bᵀ d along one axis.
#[inline(always)]
unsafe fn along<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: the caller answers for the instructions.
    unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
}

/// Fills [`Part::inputs`].
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers; closures would not have the instructions"
)]
unsafe fn transform_inputs<V: Vector>(part: &mut Part<'_>) {
    let s = part.shape;
    let blocks = s.in_channels.div_ceil(V::LANES);
    let (plane, count) = (s.in_h * s.in_w * V::LANES, part.count);
    let to = part.inputs.as_mut_ptr();
    for block in 0..blocks {
        for (tile, (image, row, column)) in part.places().enumerate() {
            // SAFETY: rows and columns are checked against the plane; the caller answers for the slices.
            unsafe {
                let x = part.x.as_ptr().add((image * blocks + block) * plane);
                let (top, left) =
                    (row.wrapping_sub(s.pads_begin.0), column.wrapping_sub(s.pads_begin.1));
                let mut lines = [[V::splat(0.0); 4]; 4];
                if top < s.in_h && top + 4 <= s.in_h && left < s.in_w && left + 4 <= s.in_w {
                    for y in 0..4 {
                        let from = x.add(((top + y) * s.in_w + left) * V::LANES);
                        for i in 0..4 {
                            lines[y][i] = V::load(from.add(i * V::LANES));
                        }
                    }
                } else {
                    for y in 0..4 {
                        for i in 0..4 {
                            let (row, column) = (top.wrapping_add(y), left.wrapping_add(i));
                            if row < s.in_h && column < s.in_w {
                                lines[y][i] = V::load(x.add((row * s.in_w + column) * V::LANES));
                            }
                        }
                    }
                }
                let mut columns = lines;
                for i in 0..4 {
                    let turned = along([lines[0][i], lines[1][i], lines[2][i], lines[3][i]]);
                    for y in 0..4 {
                        columns[y][i] = turned[y];
                    }
                }
                let to = to.add((block * count + tile) * V::LANES);
                for y in 0..4 {
                    let points = along(columns[y]);
                    for i in 0..4 {
                        points[i].store(to.add((y * 4 + i) * blocks * count * V::LANES));
                    }
                }
            }
        }
    }
}

/// Aᵀ m along one axis.
#[inline(always)]
unsafe fn back<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: the caller answers for the instructions.
    unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
}

/// Turns [`Part::sums`] into outputs.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers; closures would not have the instructions"
)]
unsafe fn transform_outputs<V: Vector>(part: &mut Part<'_>) {
    let s = part.shape;
    let blocks = s.out_channels.div_ceil(V::LANES);
    let (plane, count) = (s.out_h * s.out_w * V::LANES, part.count);
    for block in 0..blocks {
        // SAFETY: outputs behind the last row or column are left out; the caller answers for the slices.
        unsafe {
            let bias = V::load(part.bias.as_ptr().add(block * V::LANES));
            let (low, high) = (V::splat(part.bounds.0), V::splat(part.bounds.1));
            for (tile, (image, row, column)) in part.places().enumerate() {
                let from = part.sums.as_ptr().add((block * count + tile) * V::LANES);
                let mut lines = [[bias; 4]; 2];
                for i in 0..4 {
                    let mut points = [bias; 4];
                    for y in 0..4 {
                        let at = (y * 4 + i) * blocks * count * V::LANES;
                        points[y] = V::load(from.add(at));
                    }
                    let turned = back(points);
                    (lines[0][i], lines[1][i]) = (turned[0], turned[1]);
                }
                for y in 0..2 {
                    if row + y == s.out_h {
                        break;
                    }
                    let sums = back(lines[y]);
                    for i in 0..2 {
                        if column + i == s.out_w {
                            break;
                        }
                        let at = (image * blocks + block) * plane
                            + ((row + y) * s.out_w + column + i) * V::LANES;
                        let mut sum = sums[i].add(bias);
                        if let Some(residual) = part.residual {
                            sum = sum.add(V::load(residual.as_ptr().add(at)));
                        }
                        sum.clamp(low, high).store(part.y.add(at));
                    }
                }
            }
        }
    }
}

/// An output of which each task writes its own elements.
struct Shared(*mut f32);

impl Shared {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: tasks write disjoint elements only.
unsafe impl Sync for Shared {}
