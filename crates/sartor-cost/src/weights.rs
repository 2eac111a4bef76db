//! What is stored of the weights, and which patterns their zeros form.

use sartor_chip::{Axis, Bytes, Chip, NumberType, SparsityPattern};
use sartor_ir::{DType, Graph, Node, Tensor, ValueId};

use crate::{arithmetic::Arithmetic, fold::Folding, op::Product, shapes::Shapes};

/// The constants of one node as the chip stores them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored<'c> {
    /// Bytes on the chip, bias and scales included.
    pub(crate) bytes: Bytes,
    /// Elements of weights and biases.
    pub(crate) parameters: u64,
    /// The pattern of zeros that the array skips.
    pub(crate) pattern: Option<&'c SparsityPattern>,
}

/// The stored constants of a product; nothing where the weights are not constant.
pub(crate) fn stored<'c>(
    chip: &'c Chip,
    graph: &Graph,
    folding: &Folding<'_>,
    shapes: &Shapes,
    node: &Node,
    product: &Product,
    arithmetic: &Arithmetic<'_>,
) -> Stored<'c> {
    let Some(value) = node.input(1).filter(|&it| folding.is_fixed(it)) else {
        return Stored::default();
    };
    let count = shapes.elements(value).unwrap_or(0);
    let zeros = Zeros::find(graph, folding, value, shapes);
    let pattern = zeros.as_ref().and_then(|it| it.pattern(chip, arithmetic.mode.weights, product));
    let dense = Bytes((count * u64::from(arithmetic.weights.bits())).div_ceil(8));
    let biased = node.input(2).is_some() || folding.takes_batch_norm(node.output());
    let outputs = product.all_outputs();
    let bias_bits = if arithmetic.is_integer() { chip.core.arithmetic.bias_bits.value } else { 32 };
    let bias = if biased { Bytes((outputs * bias_bits).div_ceil(8)) } else { Bytes(0) };
    let bytes = match (&chip.core.weight_store, pattern) {
        (Some(store), _) => {
            let fraction = zeros.as_ref().map_or(0.0, Zeros::fraction);
            store.encoded(dense, fraction) + Bytes(outputs * store.bytes_per_channel.value)
        }
        (None, Some(pattern)) => {
            Bytes((dense.0 as f64 * pattern.storage_ratio(arithmetic.weights)).ceil() as u64) + bias
        }
        (None, None) => dense + bias,
    };
    Stored { bytes, parameters: count + if biased { outputs } else { 0 }, pattern }
}

/// A constant and the bytes of its zero.
struct Zeros<'g> {
    tensor: &'g Tensor,
    zero: i64,
}

impl<'g> Zeros<'g> {
    /// The constant behind `value`, if it lies there in the same shape and has one zero point.
    fn find(
        graph: &'g Graph,
        folding: &Folding<'_>,
        value: ValueId,
        shapes: &Shapes,
    ) -> Option<Self> {
        let points = folding.dequantizer(value).and_then(|it| graph.constant_input(it, 2));
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
            DType::F32 => data.chunks_exact(4).filter(|it| float_is_zero(it)).count(),
            DType::F16 | DType::BF16 => data.chunks_exact(2).filter(|it| float_is_zero(it)).count(),
            DType::I8 | DType::U8 => (0..data.len()).filter(|&i| self.is_zero(i)).count(),
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

    /// The first pattern of the chip that the array uses for these weights.
    fn pattern<'c>(
        &self,
        chip: &'c Chip,
        weights: NumberType,
        product: &Product,
    ) -> Option<&'c SparsityPattern> {
        chip.core.sparsity.iter().find(|pattern| {
            let axis = match pattern.axis {
                Axis::K => product.reduction_axis,
                Axis::N => product.output_axis,
            };
            pattern.weights.contains(&weights)
                && product.channels >= pattern.min_k.value
                && self.holds(pattern, axis)
        })
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
