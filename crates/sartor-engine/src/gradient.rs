//! Gradients: for each float operator, d loss / d input from d loss / d output.
//!
//! These are the readable rules, on whole arrays; each stands under the name of its operator and is
//! tested against central differences. The training tape runs faster kernels where it has them, and
//! these elsewhere. Gradients are f32, also those of values that are held in another type (the integers
//! of a straight-through quantization).

mod attention;
pub(crate) mod broadcast;
mod conv;
mod einsum;
mod elementwise;
#[cfg(test)]
mod index_tests;
mod layout;
mod loss;
mod matmul;
pub(crate) mod norm;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resample;
mod scatter;
mod select;
mod standard;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use sartor_ir::{Named, Op};

use crate::{Array, Data};

pub(crate) use conv::{forward as conv_forward, transposed_forward as conv_transposed};

/// What a gradient rule sees of one node.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The node's inputs as forward saw them.
    pub inputs: &'a [Option<&'a Array>],
    /// The outputs that forward made.
    pub outputs: &'a [Option<&'a Array>],
    /// d loss / d output, of each output's shape; `None` stands for zero.
    pub gradients: &'a [Option<&'a Array>],
    /// Of which inputs the gradient is asked for.
    pub wanted: &'a [bool],
}

impl<'a> Context<'a> {
    /// Input `i`.
    pub(crate) fn input(&self, i: usize) -> Result<&'a Array, String> {
        self.optional(i).ok_or_else(|| format!("input {i} is missing"))
    }

    /// Input `i`, if given.
    pub(crate) fn optional(&self, i: usize) -> Option<&'a Array> {
        self.inputs.get(i).copied().flatten()
    }

    /// The numbers of input `i`.
    pub(crate) fn floats(&self, i: usize) -> Result<Cow<'a, [f32]>, String> {
        self.input(i).map(floats)
    }

    /// Output `i`.
    pub(crate) fn output(&self, i: usize) -> Result<&'a Array, String> {
        let output = self.outputs.get(i).copied().flatten();
        output.ok_or_else(|| format!("output {i} was not kept"))
    }

    /// d loss / d output `i`; `None` stands for zero.
    pub(crate) fn gradient(&self, i: usize) -> Option<&'a Array> {
        self.gradients.get(i).copied().flatten()
    }

    /// Whether the gradient of input `i` is asked for.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }

    /// No gradient for any input.
    pub(crate) fn zero(&self) -> Gradients {
        vec![None; self.inputs.len()]
    }

    /// A gradient for input 0 alone, if it is wanted.
    pub(crate) fn first(&self, make: impl FnOnce() -> Result<Array, String>) -> Made {
        let mut made = self.zero();
        if self.wants(0) {
            made[0] = Some(make()?);
        }
        Ok(made)
    }
}

/// The numbers of an array as floats, borrowed where they are.
pub(crate) fn floats(array: &Array) -> Cow<'_, [f32]> {
    match &array.data {
        Data::F32(values) => Cow::Borrowed(values),
        _ => Cow::Owned(array.to_f32()),
    }
}

/// The inputs with doubles as floats, for rules that compute in floats alone.
pub(crate) fn narrowed<'a>(inputs: &[Option<&'a Array>]) -> Vec<Option<Cow<'a, Array>>> {
    let one = |it: &'a Array| match it.data {
        Data::F64(_) => Cow::Owned(Array::f32(&it.shape, it.to_f32())),
        _ => Cow::Borrowed(it),
    };
    inputs.iter().map(|it| it.map(one)).collect()
}

/// d loss / d input for each input, of its shape; `None` where it is not wanted, or zero because the
/// output does not depend on the input.
pub type Gradients = Vec<Option<Array>>;

/// What a rule answers.
pub(crate) type Made = Result<Gradients, String>;

/// The gradient of an operator that travels by name.
pub(crate) type Backward = fn(&Named, &Context<'_>) -> Result<Gradients, String>;

/// One operator by name with a gradient.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    /// Operator set domain; empty for ONNX's own.
    pub(crate) domain: &'static str,
    /// Name of the operator.
    pub(crate) name: &'static str,
    /// Its gradient.
    pub(crate) backward: Backward,
}

/// The rows of all families of operators by name.
const FAMILIES: &[&[Rule]] = &[
    attention::RULES,
    conv::RULES,
    einsum::RULES,
    loss::RULES,
    recurrent::RULES,
    resample::RULES,
    scatter::RULES,
    select::RULES,
    standard::RULES,
];

/// d loss / d input of `op`. `BatchNormalization` is differentiated in its inference form and `Dropout` as
/// the identity: what they do while training is the tape's.
///
/// # Errors
/// A sentence about an operator that has no gradient, or operands that do not fit.
pub fn backward(op: &Op, context: &Context<'_>) -> Result<Gradients, String> {
    // Without a gradient at the outputs there is none at the inputs.
    if context.gradients.iter().all(Option::is_none) {
        return Ok(context.zero());
    }
    match op {
        Op::Conv(it) => conv::backward(it, context),
        Op::Gemm(it) => matmul::gemm(it, context),
        Op::MatMul => matmul::matmul(context),
        Op::BatchNormalization(it) => norm::batch_norm(it, context),
        Op::Softmax(it) => norm::softmax(it.axis, false, context),
        Op::LogSoftmax(it) => norm::softmax(it.axis, true, context),
        Op::Unary(it) => elementwise::unary(*it, context),
        Op::Binary(it) => elementwise::binary(*it, context),
        Op::Variadic(it) => elementwise::variadic(*it, context),
        Op::Clip => elementwise::clip(context),
        Op::PRelu => elementwise::prelu(context),
        Op::Where => elementwise::choose(context),
        Op::Cast(it) => elementwise::cast(it.to, context),
        Op::Pool(it) => pool::pool(it, context),
        Op::GlobalPool(it) => pool::global(*it, context),
        Op::Reduce(it) => reduce::reduce(it, context),
        Op::Identity
        | Op::Dropout
        | Op::Flatten(_)
        | Op::Reshape(_)
        | Op::Squeeze
        | Op::Unsqueeze => layout::reshape(context),
        Op::Transpose(it) => layout::transpose(it, context),
        Op::Concat(it) => layout::concat(it.axis, context),
        Op::Split(it) => layout::split(it.axis, context),
        Op::Slice => layout::slice(context),
        Op::Pad(it) => layout::pad(it, context),
        Op::Expand => layout::expand(context),
        Op::Gather(it) => layout::gather(it.axis, context),
        Op::QuantizeLinear(it) => quantize::quantize(it, context),
        Op::DequantizeLinear(it) => quantize::dequantize(it, context),
        // Their outputs depend on shapes or are indices.
        Op::Shape(_) | Op::Size | Op::ConstantOfShape(_) | Op::Range => Ok(context.zero()),
        Op::Named(it) => named(it, context),
    }
}

fn named(op: &Named, context: &Context<'_>) -> Result<Gradients, String> {
    let domain = if op.domain == "ai.onnx" { "" } else { op.domain.as_str() };
    let mut rows = FAMILIES.iter().copied().flatten();
    let row = rows.find(|it| it.domain == domain && it.name == op.name);
    let none = || format!("`{}` has no gradient", op.full_name());
    (row.ok_or_else(none)?.backward)(op, context)
}
