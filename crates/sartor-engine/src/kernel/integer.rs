//! Kernels over values that are held in bytes between quantizers.

mod elementwise;
mod moves;
mod pool;
mod product;

pub(crate) use elementwise::{PairSite, prepare_pair, prepare_table};
pub(crate) use moves::prepare as prepare_move;
pub(crate) use pool::prepare as prepare_pool;
pub(crate) use product::{ProductSite, Weights, prepare as prepare_product};

use std::{borrow::Cow, fmt::Debug};

use crate::{
    reference::quantize,
    simd::{self, Grid, Sink},
};

/// What a kernel reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// A value that is held in bytes.
    Bytes(&'a [u8]),
    /// A value that is held as it is.
    Floats(&'a [f32]),
}

impl<'a> Source<'a> {
    /// The bytes; nothing if there are none.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Source::Bytes(it) => it,
            Source::Floats(_) => &[],
        }
    }

    /// The floats; nothing if there are none.
    pub(crate) fn floats(self) -> &'a [f32] {
        match self {
            Source::Floats(it) => it,
            Source::Bytes(_) => &[],
        }
    }
}

/// A prepared kernel that reads or writes bytes.
pub(crate) trait IntegerKernel: Debug + Send + Sync {
    /// Computes `y`, bytes or floats as it was prepared for.
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>);

    /// Multiply-accumulates of one run, 0 where it is not made of them.
    fn macs(&self) -> usize {
        0
    }

    /// Whether it computes; it only converts between floats and bytes otherwise.
    fn computes(&self) -> bool {
        true
    }
}

/// How bytes stand for a value. Signed integers are held 128 higher, so that all are unsigned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Held {
    /// Width of a step.
    pub(crate) scale: f32,
    /// The byte that stands for 0.
    pub(crate) zero: u8,
    /// Whether axis 1 lies behind all others; never where that makes no difference.
    pub(crate) channels_last: bool,
}

impl Held {
    /// The integers and their meaning.
    pub(crate) fn grid(self) -> Grid {
        Grid { scale: self.scale, zero_point: f32::from(self.zero), low: 0.0, high: 255.0 }
    }

    /// The steps from 0 of the byte that stands for `x`.
    fn steps(self, x: f32) -> f32 {
        let zero = i32::from(self.zero);
        (quantize::quantize(x, self.scale, zero, (0, 255)) - zero) as f32
    }

    /// The steps of two limits of real numbers.
    fn bounds(self, (low, high): (f32, f32)) -> (f32, f32) {
        (self.steps(low), self.steps(high))
    }

    /// Whether bytes mean the same.
    fn same_grid(self, other: Held) -> bool {
        self.scale.to_bits() == other.scale.to_bits() && self.zero == other.zero
    }
}

/// Channels and positions of a shape; without axes behind the channels there is one position.
pub(crate) fn planes(shape: &[usize]) -> (usize, usize) {
    match shape {
        [_, channels, space @ ..] => (*channels, space.iter().product()),
        _ => (shape.iter().product(), 1),
    }
}

/// Whether it matters for a value of this shape where its channels lie.
pub(crate) fn has_layout(shape: &[usize]) -> bool {
    let (channels, positions) = planes(shape);
    channels > 1 && positions > 1
}

/// The order in which the axes of a value lie.
fn order(rank: usize, channels_last: bool) -> Vec<usize> {
    if channels_last && rank > 2 {
        [0].into_iter().chain(2..rank).chain([1]).collect()
    } else {
        (0..rank).collect()
    }
}

/// `x` with its channels where they are wanted.
fn turned<'a>(x: &'a [u8], shape: &[usize], from: bool, to: bool) -> Cow<'a, [u8]> {
    let (channels, positions) = planes(shape);
    if from == to || !has_layout(shape) {
        return Cow::Borrowed(x);
    }
    let (outer, inner) = if to { (channels, positions) } else { (positions, channels) };
    let mut y = vec![0; x.len()];
    for (x, y) in x.chunks(outer * inner).zip(y.chunks_mut(outer * inner)) {
        for (o, row) in x.chunks(inner).enumerate() {
            for (i, &byte) in row.iter().enumerate() {
                y[i * outer + o] = byte;
            }
        }
    }
    Cow::Owned(y)
}

/// From floats into bytes.
#[derive(Debug)]
pub(crate) struct Enter {
    /// What is made.
    pub(crate) held: Held,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
}

impl IntegerKernel for Enter {
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>) {
        let Sink::Bytes(y) = y else { return };
        let planes = if self.held.channels_last { planes(&self.shape) } else { (1, y.len()) };
        simd::quantize_planes(self.held.grid(), planes, inputs[0].floats(), y);
    }

    fn computes(&self) -> bool {
        false
    }
}

/// From bytes back into floats.
#[derive(Debug)]
pub(crate) struct Leave {
    /// What is read.
    pub(crate) held: Held,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
}

impl IntegerKernel for Leave {
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>) {
        let Sink::Floats(y) = y else { return };
        let planes = if self.held.channels_last { planes(&self.shape) } else { (1, y.len()) };
        simd::dequantize_planes(self.held.grid(), planes, inputs[0].bytes(), y);
    }

    fn computes(&self) -> bool {
        false
    }
}
