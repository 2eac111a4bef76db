//! What the array is asked to do, one operator at a time.

use std::sync::Arc;

use super::machine::Volume;

/// What an operator computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    /// Convolution or matrix product: every input channel goes to every output channel.
    Conv,
    /// Every channel has filters of its own.
    Depthwise,
    /// The maximum of a window.
    MaxPool,
    /// The mean of a window, and plain copies.
    Pool,
    /// The sum over the depth.
    ReduceSum,
    /// Element by element.
    Elementwise(Elementwise),
}

/// What an elementwise operator computes, as far as its speed depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Elementwise {
    /// Sum or difference.
    Sum,
    /// Product.
    Product,
    /// Quotient, U85 alone.
    Quotient,
    /// Anything else.
    Other,
}

impl Work {
    /// Whether input and output are equally deep, channel by channel.
    pub(crate) fn keeps_depth(self) -> bool {
        !matches!(self, Work::Conv | Work::ReduceSum)
    }

    pub(crate) fn is_elementwise(self) -> bool {
        matches!(self, Work::Elementwise(_))
    }

    pub(crate) fn has_weights(self) -> bool {
        matches!(self, Work::Conv | Work::Depthwise)
    }

    pub(crate) fn is_pool(self) -> bool {
        matches!(self, Work::MaxPool | Work::Pool)
    }
}

/// What is done to each output on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Activation {
    /// Nothing.
    None,
    /// Limits, as a rectifier has.
    Clamp,
    /// A look-up table of so many bytes, which has to be fetched first.
    Table(u64),
}

/// Where a feature map lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Home {
    /// With the weights: it is a constant.
    Constants,
    /// Where graph inputs and outputs lie.
    Features,
    /// In the staging memory.
    Staging,
}

/// A feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Map {
    pub(crate) size: Volume,
    /// Bits of an element.
    pub(crate) bits: u64,
    /// Whether channels lie one after the other, not in bricks of 16.
    pub(crate) linear: bool,
    pub(crate) home: Home,
}

impl Map {
    /// Elements with the depth rounded up to whole bricks.
    pub(crate) fn stored(&self) -> Volume {
        if self.linear { self.size } else { self.size.with_depth(self.size.d.next_multiple_of(16)) }
    }

    /// Bytes that it takes in a memory.
    pub(crate) fn bytes(&self) -> u64 {
        (self.stored().elements() * self.bits).div_ceil(8).next_multiple_of(16)
    }
}

/// A kernel and how it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kernel {
    pub(crate) h: u64,
    pub(crate) w: u64,
    pub(crate) stride_h: u64,
    pub(crate) stride_w: u64,
    pub(crate) dilation_h: u64,
    pub(crate) dilation_w: u64,
}

impl Kernel {
    pub(crate) const POINT: Kernel =
        Kernel { h: 1, w: 1, stride_h: 1, stride_w: 1, dilation_h: 1, dilation_w: 1 };

    pub(crate) fn elements(self) -> u64 {
        self.h * self.w
    }

    /// Height and width with the gaps of a dilation.
    pub(crate) fn dilated(self) -> (u64, u64) {
        ((self.h - 1) * self.dilation_h + 1, (self.w - 1) * self.dilation_w + 1)
    }

    /// Kernels of at most 8 × 8 into which the array cuts it.
    pub(crate) fn parts(self) -> impl Iterator<Item = u64> {
        let sides = |all: u64| (0..all).step_by(8).map(move |at| (all - at).min(8));
        sides(self.w).flat_map(move |w| sides(self.h).map(move |h| w * h))
    }
}

/// Weights as they are quantized, or what is known of them.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    /// Output channels; for depthwise kernels all channels.
    pub(crate) outputs: u64,
    /// Input channels; 1 for depthwise kernels.
    pub(crate) inputs: u64,
    pub(crate) h: u64,
    pub(crate) w: u64,
    /// Quantized, zero point taken off, in the order outputs, height, width, inputs. `None`: they are not known.
    pub(crate) values: Option<Arc<[i16]>>,
    /// Stored bytes for each weight where they are not known.
    pub(crate) ratio: f64,
    /// Whether two of four inputs are zero at least, where the weights are not known or are to be taken so.
    pub(crate) sparse: Option<bool>,
}

impl Weights {
    pub(crate) fn count(&self) -> u64 {
        self.outputs * self.inputs * self.h * self.w
    }
}

/// An elementwise operator that takes an output from inside the array; U85 alone.
#[derive(Clone, Debug)]
pub(crate) struct Chained {
    pub(crate) work: Elementwise,
    /// The operand that comes from memory.
    pub(crate) operand: Option<Map>,
    pub(crate) output: Map,
}

/// One operator.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) work: Work,
    pub(crate) input: Map,
    /// The second operand of an elementwise operator.
    pub(crate) operand: Option<Map>,
    pub(crate) output: Map,
    pub(crate) kernel: Kernel,
    pub(crate) weights: Option<Weights>,
    pub(crate) activation: Activation,
    pub(crate) chain: Vec<Chained>,
}

impl Task {
    /// The larger operand.
    pub(crate) fn widest(&self) -> Volume {
        match &self.operand {
            Some(other) if other.size.elements() > self.input.size.elements() => other.size,
            _ => self.input.size,
        }
    }
}
