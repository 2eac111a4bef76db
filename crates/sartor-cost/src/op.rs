//! What each operator computes: one answer for every operator, one file for every family that multiplies.

mod attention;
mod composed;
mod conv;
mod einsum;
mod elementwise;
mod gemm;
mod integer;
mod recurrent;

use sartor_chip::ProductKind;
use sartor_ir::{Node, Op, catalog};

use crate::shapes::Shapes;

/// The work of one operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Work {
    /// What is multiplied and summed, one after the other.
    pub(crate) products: Vec<Product>,
    /// Elementary steps for each output element besides: passes over the data, elements of a window.
    pub(crate) per_element: f64,
    /// Steps of operators inside of this one: their names and how many elements they make, passes counted.
    pub(crate) inner: Vec<(&'static str, u64)>,
    /// Whether no more is read than is written.
    pub(crate) partial: bool,
}

impl Work {
    /// Products alone.
    pub(crate) fn products(products: Vec<Product>) -> Self {
        Work { products, per_element: 1.0, inner: Vec::new(), partial: false }
    }

    /// No products; `per_element` steps for each output element.
    pub(crate) fn elementwise(per_element: f64) -> Self {
        Work { products: Vec::new(), per_element, inner: Vec::new(), partial: false }
    }

    /// Multiply-accumulates.
    pub(crate) fn macs(&self) -> u64 {
        self.products.iter().fold(0, |sum, it| sum.saturating_add(it.macs()))
    }
}

/// A convolution or matrix product: `groups` times, `outputs` sums over `channels · taps` at `positions`; all that `steps` times, one
/// after the other.
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
    /// How often the product runs, each time after the last has ended.
    pub(crate) steps: u64,
    /// Whether every channel has filters of its own.
    pub(crate) depthwise: bool,
    /// The kind by which runtimes choose a kernel; `None`: dense convolution, and whatever is like it.
    pub(crate) kind: Option<ProductKind>,
    /// The axis of the weights along which `channels` lie.
    pub(crate) reduction_axis: usize,
    /// The axis of the weights along which `outputs` lie.
    pub(crate) output_axis: usize,
    /// The input of the node that holds the weights.
    pub(crate) weights: usize,
    /// The input of the node that holds the activations.
    pub(crate) moving: usize,
    /// Bits of a weight where they are packed in another element type.
    pub(crate) packed: Option<u8>,
    /// Output channels that may have a bias; the input that holds it, if the operator has one.
    pub(crate) bias: u64,
    /// The input of the node that holds the bias.
    pub(crate) bias_input: usize,
}

impl Product {
    /// A product of matrices whose weights are input 1, with channels on axis 0 and outputs on axis 1.
    pub(crate) fn matrix(groups: u64, positions: u64, channels: u64, outputs: u64) -> Self {
        Product {
            groups,
            channels,
            taps: 1,
            outputs,
            positions,
            steps: 1,
            depthwise: false,
            kind: Some(ProductKind::Matrix),
            reduction_axis: 0,
            output_axis: 1,
            weights: 1,
            moving: 0,
            packed: None,
            bias: groups.saturating_mul(outputs),
            bias_input: 2,
        }
    }

    /// Multiply-accumulates.
    pub(crate) fn macs(&self) -> u64 {
        let sizes = [self.channels, self.taps, self.outputs, self.positions, self.steps];
        sizes.iter().fold(self.groups, |product, &size| product.saturating_mul(size))
    }

    /// Weights of all groups.
    pub(crate) fn weight_elements(&self) -> u64 {
        let sizes = [self.channels, self.taps, self.outputs];
        sizes.iter().fold(self.groups, |product, &size| product.saturating_mul(size))
    }

    /// Elements of the output that one step makes.
    pub(crate) fn made(&self) -> u64 {
        self.all_outputs().saturating_mul(self.positions)
    }

    /// Output channels of all groups.
    pub(crate) fn all_outputs(&self) -> u64 {
        self.groups.saturating_mul(self.outputs)
    }
}

/// The work of `node`; `None` where a shape that it takes is not known.
pub(crate) fn work(node: &Node, shapes: &Shapes) -> Option<Work> {
    let one = |it: Product| Work::products(vec![it]);
    match &node.op {
        Op::Conv(it) => conv::product(it.group, node, shapes, [0, 1]).map(one),
        Op::Gemm(it) => gemm::product(it, node, shapes).map(one),
        Op::MatMul => gemm::product_matmul(node, shapes, [0, 1]).map(one),
        Op::Split(_) | Op::Slice | Op::Gather(_) => {
            Some(Work { partial: true, ..Work::elementwise(1.0) })
        }
        Op::Named(it) => match it.name.as_str() {
            "ConvTranspose" => conv::transposed(it, node, shapes).map(one),
            "DeformConv" | "ConvInteger" => {
                let group = it.int("group", 1).ok().and_then(|it| usize::try_from(it).ok())?;
                conv::product(group, node, shapes, [0, 1]).map(one)
            }
            "MatMulInteger" => gemm::product_matmul(node, shapes, [0, 1]).map(one),
            "MatMulNBits" => integer::packed(it, node, shapes).map(one),
            "LSTM" | "GRU" | "RNN" => recurrent::work(it, node, shapes),
            "Einsum" => einsum::work(it, node, shapes),
            "Attention" if it.domain.is_empty() || it.domain == "ai.onnx" => {
                attention::work(it, node, shapes)
            }
            "MultiHeadAttention" => attention::multi_head(it, node, shapes),
            _ if catalog::is_composed(it) => composed::work(it, node, shapes),
            _ => elementwise::work(node, shapes),
        },
        _ => elementwise::work(node, shapes),
    }
}

/// The name under which chip files speak of the operator.
pub(crate) fn chip_name<'a>(node: &'a Node, work: &Work) -> &'a str {
    match work.products.as_slice() {
        [product] if product.depthwise => "DepthwiseConv",
        _ => node.op.name(),
    }
}
