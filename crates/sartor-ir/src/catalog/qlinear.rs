//! ONNX Runtime's operators on quantized tensors that are defined through floats
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>): each operand is
//! dequantized, the operator of the name without `QLinear` computes, and the result is quantized.

use super::{
    MICROSOFT,
    composed::{Body, Composition, known},
};
use crate::{
    Attr, AttrError, Attrs, Binary, Concat, GlobalPool, Named, Op, QuantizeLinear, Reduce,
    ReduceKind, Unary, ValueId, normalize_axis,
};

pub(super) const COMPOSED: &[Composition] = &[
    Composition { domain: MICROSOFT, name: "QLinearAdd", compose: add },
    Composition { domain: MICROSOFT, name: "QLinearAveragePool", compose: average_pool },
    Composition { domain: MICROSOFT, name: "QLinearConcat", compose: concat },
    Composition { domain: MICROSOFT, name: "QLinearGlobalAveragePool", compose: global_pool },
    Composition { domain: MICROSOFT, name: "QLinearLeakyRelu", compose: leaky_relu },
    Composition { domain: MICROSOFT, name: "QLinearMul", compose: mul },
    Composition { domain: MICROSOFT, name: "QLinearReduceMean", compose: reduce_mean },
    Composition { domain: MICROSOFT, name: "QLinearSigmoid", compose: sigmoid },
    Composition { domain: MICROSOFT, name: "QLinearSoftmax", compose: softmax },
    Composition { domain: MICROSOFT, name: "QLinearWhere", compose: choose },
];

type Made = Result<Vec<ValueId>, String>;

/// The operand at `at`, its scale and its zero point behind it, as floats.
fn dequantized(body: &mut Body<'_>, at: usize) -> Result<ValueId, String> {
    let zero = body.optional(at + 2).is_some().then(|| body.scalar(at + 2)).transpose()?;
    let inputs = [Some(body.input(at)?), Some(body.scalar(at + 1)?), zero];
    body.apply_some(Op::DequantizeLinear(QuantizeLinear::along(1)), &inputs)
}

/// `value` by the scale at `at` and the zero point behind it, in the type of the operand at `like` if there
/// is no zero point.
fn quantized(body: &mut Body<'_>, value: ValueId, at: usize, like: usize) -> Made {
    let zero = body.optional(at + 1).is_some().then(|| body.scalar(at + 1)).transpose()?;
    let inputs = [Some(value), Some(body.scalar(at)?), zero];
    let how = QuantizeLinear { output_dtype: body.dtype(like), ..QuantizeLinear::along(1) };
    Ok(vec![body.apply_some(Op::QuantizeLinear(how), &inputs)?])
}

/// An operator with one operand at 0 and the result's parameters at 3.
fn unary(body: &mut Body<'_>, op: Op) -> Made {
    let x = dequantized(body, 0)?;
    let y = body.apply(op, &[x])?;
    quantized(body, y, 3, 0)
}

/// An operator with operands at 0 and 3 and the result's parameters at 6.
fn binary(body: &mut Body<'_>, op: Binary) -> Made {
    let (a, b) = (dequantized(body, 0)?, dequantized(body, 3)?);
    let y = body.apply(Op::Binary(op), &[a, b])?;
    quantized(body, y, 6, 0)
}

fn add(_: &Named, body: &mut Body<'_>) -> Made {
    binary(body, Binary::Add)
}

fn mul(_: &Named, body: &mut Body<'_>) -> Made {
    binary(body, Binary::Mul)
}

fn sigmoid(_: &Named, body: &mut Body<'_>) -> Made {
    unary(body, Op::Unary(Unary::Sigmoid))
}

fn leaky_relu(op: &Named, body: &mut Body<'_>) -> Made {
    let alpha = op.attributes.clone().float("alpha", 0.01)?;
    unary(body, Op::Unary(Unary::LeakyRelu { alpha }))
}

/// Before opset 13 the softmax runs over all axes from `axis` on.
fn softmax(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let joint = attrs.int("opset", 13)? < 13;
    let axis = attrs.int("axis", if joint { 1 } else { -1 })?;
    let rank = body.rank(0)?;
    let own = normalize_axis(axis, rank)?;
    let plain = || known("Softmax", Attrs::new().with("axis", Attr::Int(axis)));
    if !joint || own + 1 == rank {
        return unary(body, plain()?);
    }
    let x = dequantized(body, 0)?;
    let flat = known("Flatten", Attrs::new().with("axis", Attr::Int(axis)))?;
    let matrix = body.apply(flat, &[x])?;
    let made = body.apply(known("Softmax", Attrs::new())?, &[matrix])?;
    let shape = body.apply(known("Shape", Attrs::new())?, &[x])?;
    let y = body.apply(known("Reshape", Attrs::new())?, &[made, shape])?;
    quantized(body, y, 3, 0)
}

/// The result's parameters come first, then each operand with its own.
fn concat(op: &Named, body: &mut Body<'_>) -> Made {
    let axis = op.attributes.clone().required_int("axis")?;
    let mut parts = Vec::new();
    for at in (2..body.n_inputs()).step_by(3) {
        parts.push(dequantized(body, at)?);
    }
    let y = body.apply(Op::Concat(Concat { axis }), &parts)?;
    quantized(body, y, 0, 2)
}

fn choose(_: &Named, body: &mut Body<'_>) -> Made {
    let (a, b) = (dequantized(body, 1)?, dequantized(body, 4)?);
    let condition = body.input(0)?;
    let y = body.apply(Op::Where, &[condition, a, b])?;
    quantized(body, y, 7, 1)
}

fn reduce_mean(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let keepdims = attrs.flag("keepdims", true)?;
    let mut inputs = vec![dequantized(body, 0)?];
    if let Some(axes) = attrs.ints("axes")? {
        inputs.push(body.integers(&axes));
    }
    let how = Reduce { kind: ReduceKind::Mean, keepdims, noop_with_empty_axes: false };
    let y = body.apply(Op::Reduce(how), &inputs)?;
    quantized(body, y, 3, 0)
}

fn average_pool(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let last = attrs.flag("channels_last", false)?;
    pooled(body, known("AveragePool", attrs)?, last)
}

fn global_pool(op: &Named, body: &mut Body<'_>) -> Made {
    let last = op.attributes.clone().flag("channels_last", false)?;
    pooled(body, Op::GlobalPool(GlobalPool::Average), last)
}

/// A pooling whose channels may be last.
fn pooled(body: &mut Body<'_>, op: Op, channels_last: bool) -> Made {
    if !channels_last {
        return unary(body, op);
    }
    let rank = body.rank(0)?;
    if rank < 3 {
        return Err(AttrError::new("channels_last", "needs a batch, space and channels").into());
    }
    let x = dequantized(body, 0)?;
    let x = body.channels_first(x, rank)?;
    let y = body.apply(op, &[x])?;
    let y = body.channels_last(y, rank)?;
    quantized(body, y, 3, 0)
}
