//! What is stored of the weights, and which patterns their zeros form.

use sartor_chip::{Axis, Bytes, Chip, SparsityPattern};
use sartor_ir::{DType, Graph, Node, Tensor, ValueId};

use crate::{arithmetic::Arithmetic, fold::Folding, op::Product, shapes::Shapes};

/// The constants of one product as the chip stores them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stored<'c> {
    /// Bytes on the chip, bias and scales included.
    pub(crate) bytes: Bytes,
    /// Elements of weights and biases.
    pub(crate) parameters: u64,
    /// The pattern of zeros that the array skips.
    pub(crate) pattern: Option<&'c SparsityPattern>,
}

/// What the elements of some weights say, read once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contents {
    /// The fraction of zeros; 0 where no codec asks for it.
    pub(crate) zeros: f64,
    /// By pattern of the chip: whether the zeros form it.
    pub(crate) patterns: Vec<bool>,
    /// Whether there is a bias beside the weights.
    pub(crate) biased: bool,
}

impl Contents {
    /// Reads the weights of `product`; `None` where they are not constant.
    pub(crate) fn read(
        chip: &Chip,
        graph: &Graph,
        folding: &Folding,
        shapes: &Shapes,
        node: &Node,
        product: &Product,
    ) -> Option<Self> {
        let value = node.input(product.weights).filter(|&it| folding.is_fixed(it))?;
        let found = Zeros::find(graph, folding, value, shapes);
        let zeros = if chip.core.weight_store.is_some() {
            found.as_ref().map_or(0.0, Zeros::fraction)
        } else {
            0.0
        };
        let holds = |pattern: &SparsityPattern| {
            let axis = match pattern.axis {
                Axis::K => product.reduction_axis,
                Axis::N => product.output_axis,
            };
            found.as_ref().is_some_and(|it| it.holds(pattern, axis))
        };
        Some(Contents {
            zeros,
            patterns: chip.core.sparsity.iter().map(holds).collect(),
            biased: product.bias > 0
                && (node.input(product.bias_input).is_some()
                    || folding.takes_bias(graph, node.output())),
        })
    }

    /// What the chip stores of weights with these contents.
    pub(crate) fn stored<'c>(
        &self,
        chip: &'c Chip,
        product: &Product,
        arithmetic: &Arithmetic<'_>,
    ) -> Stored<'c> {
        let count = product.weight_elements();
        let pattern = chip.core.sparsity.iter().zip(&self.patterns).find(|(pattern, holds)| {
            **holds
                && pattern.weights.contains(&arithmetic.mode.weights)
                && product.channels >= pattern.min_k.value
        });
        let pattern = pattern.map(|it| it.0);
        let bits = u64::from(arithmetic.weights.bits());
        let dense = Bytes(count.saturating_mul(bits).div_ceil(8));
        let outputs = product.bias;
        let bias_bits =
            if arithmetic.is_integer() { chip.core.arithmetic.bias_bits.value } else { 32 };
        let bias = if self.biased { Bytes((outputs * bias_bits).div_ceil(8)) } else { Bytes(0) };
        let bytes = match (&chip.core.weight_store, pattern) {
            (Some(store), _) => {
                store.encoded(dense, self.zeros) + Bytes(outputs * store.bytes_per_channel.value)
            }
            (None, Some(pattern)) => {
                let ratio = pattern.storage_ratio(arithmetic.weights);
                Bytes((dense.0 as f64 * ratio).ceil() as u64) + bias
            }
            (None, None) => dense + bias,
        };
        let parameters = count.saturating_add(if self.biased { outputs } else { 0 });
        Stored { bytes, parameters, pattern }
    }
}

/// A constant and the bytes of its zero.
struct Zeros<'g> {
    tensor: &'g Tensor,
    zero: i64,
}

impl<'g> Zeros<'g> {
    /// The constant behind `value`, if it lies there in the same shape and has one zero point.
    fn find(graph: &'g Graph, folding: &Folding, value: ValueId, shapes: &Shapes) -> Option<Self> {
        let points = folding.dequantizer(graph, value).and_then(|it| graph.constant_input(it, 2));
        let points = points.and_then(|it| it.to_i64().ok()).unwrap_or_default();
        let zero = points.first().copied().unwrap_or(0);
        let mut at = value;
        while graph.constant(at).is_none() {
            at = graph.node(graph.producer(at)?).input(0)?;
        }
        let tensor = graph.constant(at)?;
        let uniform = points.iter().all(|&it| it == zero);
        (uniform && shapes.dims(value)? == tensor.shape()).then_some(Zeros { tensor, zero })
    }

    /// The fraction of zero elements; 0 where the type cannot be read.
    fn fraction(&self) -> f64 {
        let data = self.tensor.data();
        let count = match self.tensor.dtype() {
            DType::F32 => {
                let (words, _) = data.as_chunks::<4>();
                words.iter().filter(|it| u32::from_le_bytes(**it) << 1 == 0).count()
            }
            DType::F16 | DType::BF16 => {
                let (words, _) = data.as_chunks::<2>();
                words.iter().filter(|it| u16::from_le_bytes(**it) << 1 == 0).count()
            }
            DType::I8 | DType::U8 => {
                data.iter().map(|&it| usize::from(it == self.zero as u8)).sum()
            }
            _ => match self.tensor.to_i64() {
                Ok(values) => values.iter().filter(|&&it| it == self.zero).count(),
                Err(_) => 0,
            },
        };
        if self.tensor.is_empty() { 0.0 } else { count as f64 / self.tensor.len() as f64 }
    }

    fn is_zero(&self, i: usize) -> bool {
        let data = self.tensor.data();
        match self.tensor.dtype() {
            DType::F32 => float_is_zero(&data[4 * i..4 * i + 4]),
            DType::F16 | DType::BF16 => float_is_zero(&data[2 * i..2 * i + 2]),
            DType::I8 | DType::U8 => data[i] == self.zero as u8,
            _ => false,
        }
    }

    /// Whether every group of `m` successive elements along `axis` has at most `n` non-zeros.
    fn holds(&self, pattern: &SparsityPattern, axis: usize) -> bool {
        let shape = self.tensor.shape();
        let (Some(&extent), Ok(m)) = (shape.get(axis), usize::try_from(pattern.m)) else {
            return false;
        };
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let group = |start: usize, first: usize| {
            let members = first..(first + m).min(extent);
            members.filter(|&i| !self.is_zero(start + i * inner)).count() as u64 <= pattern.n
        };
        (0..outer).all(|o| {
            (0..inner).all(|i| {
                (0..extent).step_by(m.max(1)).all(|first| group(o * extent * inner + i, first))
            })
        })
    }
}

/// Whether little-endian bytes are a floating-point zero of either sign.
fn float_is_zero(bytes: &[u8]) -> bool {
    bytes.split_last().is_some_and(|(sign, rest)| sign << 1 == 0 && rest.iter().all(|&it| it == 0))
}
