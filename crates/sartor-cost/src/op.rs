//! What each operator computes: one answer for every operator, one file for every family that multiplies.

mod conv;
mod gemm;

use sartor_ir::{Node, Op};

use crate::shapes::Shapes;

/// The work of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Multiplies and sums.
    Product(Product),
    /// Reads its inputs, computes a little for each element, writes its outputs.
    Elementwise,
    /// Reads as much as it writes.
    Window,
}

/// A convolution or matrix product: `groups` times, `outputs` sums over `channels · taps` at `positions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    /// Independent products of the sizes below.
    pub(crate) groups: u64,
    /// Inputs to each output, apart from the kernel's taps.
    pub(crate) channels: u64,
    /// Elements of the kernel.
    pub(crate) taps: u64,
    /// Output channels.
    pub(crate) outputs: u64,
    /// Output positions, batch included.
    pub(crate) positions: u64,
    /// Whether every channel has filters of its own.
    pub(crate) depthwise: bool,
    /// The axis of the weights along which `channels` lie.
    pub(crate) reduction_axis: usize,
    /// The axis of the weights along which `outputs` lie.
    pub(crate) output_axis: usize,
}

impl Product {
    /// Multiply-accumulates.
    pub(crate) fn macs(&self) -> u64 {
        let sizes = [self.channels, self.taps, self.outputs, self.positions];
        sizes.iter().fold(self.groups, |product, &size| product.saturating_mul(size))
    }

    /// Output channels of all groups.
    pub(crate) fn all_outputs(&self) -> u64 {
        self.groups.saturating_mul(self.outputs)
    }
}

/// The work of `node`; `None` where a shape that it takes is not known.
pub(crate) fn work(node: &Node, shapes: &Shapes) -> Option<Work> {
    match &node.op {
        Op::Conv(conv) => conv::product(conv, node, shapes).map(Work::Product),
        Op::Gemm(gemm) => gemm::product(gemm, node, shapes).map(Work::Product),
        Op::MatMul => gemm::product_matmul(node, shapes).map(Work::Product),
        Op::Split(_) | Op::Slice | Op::Gather(_) => Some(Work::Window),
        Op::BatchNormalization(_)
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Variadic(_)
        | Op::Clip
        | Op::PRelu
        | Op::Where
        | Op::Cast(_)
        | Op::Identity
        | Op::Dropout
        | Op::Pool(_)
        | Op::GlobalPool(_)
        | Op::Reduce(_)
        | Op::Flatten(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Concat(_)
        | Op::Pad(_)
        | Op::Expand
        | Op::Shape(_)
        | Op::Size
        | Op::ConstantOfShape(_)
        | Op::Range
        | Op::QuantizeLinear(_)
        | Op::DequantizeLinear(_)
        | Op::Named(_) => Some(Work::Elementwise),
    }
}

/// The name under which chip files speak of the operator.
pub(crate) fn chip_name<'a>(node: &'a Node, work: &Work) -> &'a str {
    match work {
        Work::Product(product) if product.depthwise => "DepthwiseConv",
        Work::Product(_) | Work::Elementwise | Work::Window => node.op.name(),
    }
}
