//! ONNX Runtime's operators on quantized tensors
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>).
//!
//! Most are defined through floats: each operand is dequantized, the operator of the name without `QLinear`
//! computes, and the result is quantized. Where ONNX Runtime rounds in another order, so that numbers
//! halfway between two integers go another way, its order is the definition here: networks that it wrote
//! then give its very integers.

use super::{
    Entry, MICROSOFT,
    composed::{Body, Composition, known},
    no_axes,
};
use crate::{
    Attr, Attrs, Binary, Concat, DType, Dim, Fact, GlobalPool, Named, Op, Pool, QuantizeLinear,
    Reduce, ReduceKind, TensorType, Unary, ValueId, normalize_axis,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: MICROSOFT, name: "QLinearAdd", infer: infer_add, axes: no_axes },
    Entry { domain: MICROSOFT, name: "QLinearAveragePool", infer: infer_pool, axes: no_axes },
];

pub(super) const COMPOSED: &[Composition] = &[
    Composition { domain: MICROSOFT, name: "QLinearConcat", compose: concat },
    Composition { domain: MICROSOFT, name: "QLinearGlobalAveragePool", compose: global_pool },
    Composition { domain: MICROSOFT, name: "QLinearLeakyRelu", compose: leaky_relu },
    Composition { domain: MICROSOFT, name: "QLinearMul", compose: mul },
    Composition { domain: MICROSOFT, name: "QLinearReduceMean", compose: reduce_mean },
    Composition { domain: MICROSOFT, name: "QLinearSigmoid", compose: sigmoid },
    Composition { domain: MICROSOFT, name: "QLinearSoftmax", compose: softmax },
    Composition { domain: MICROSOFT, name: "QLinearWhere", compose: choose },
];

/// The operators that have an order of rounding of their own, through floats as the others are.
pub(super) const THROUGH_FLOATS: &[Composition] = &[
    Composition { domain: MICROSOFT, name: "QLinearAdd", compose: float_add },
    Composition { domain: MICROSOFT, name: "QLinearAveragePool", compose: float_average_pool },
    Composition { domain: MICROSOFT, name: "QLinearGlobalAveragePool", compose: float_global_pool },
    Composition { domain: MICROSOFT, name: "QLinearMul", compose: float_mul },
];

type Made = Result<Vec<ValueId>, String>;
type Facts = Result<Vec<Option<Fact>>, String>;

fn infer_add(_: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Facts {
    let operand = |i: usize| inputs.get(i).copied().flatten();
    Op::Binary(Binary::Add).infer(&[operand(0), operand(3)], n_outputs)
}

/// The window of a `QLinearAveragePool`, and whether its channels are last.
///
/// # Errors
/// A sentence about the attribute that does not fit.
pub fn qlinear_pool(op: &Named) -> Result<(Pool, bool), String> {
    let mut attrs = op.attributes.clone();
    let last = attrs.flag("channels_last", false)?;
    match known("AveragePool", attrs)? {
        Op::Pool(it) => Ok((it, last)),
        _ => Err("its attributes are not those of a pooling".to_owned()),
    }
}

fn infer_pool(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    let (pool, last) = qlinear_pool(op)?;
    let Some(x) = inputs.first().copied().flatten() else { return Ok(vec![None]) };
    let turned = |fact: &Fact, turn: fn(&mut [Dim])| {
        let mut shape = fact.ty.shape.clone();
        if let Some(behind) = shape.as_mut().and_then(|it| it.get_mut(1..)).filter(|_| last) {
            turn(behind);
        }
        Fact::of(TensorType { dtype: fact.ty.dtype, shape })
    };
    let first = turned(x, |it| it.rotate_right(1.min(it.len())));
    let made = Op::Pool(pool).infer(&[Some(&first)], 1)?;
    let back = |it: &Fact| turned(it, |it| it.rotate_left(1.min(it.len())));
    Ok(made.iter().map(|it| it.as_ref().map(back)).collect())
}

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

/// The operand at `at` less its zero point, as integers.
fn centred(body: &mut Body<'_>, at: usize) -> Result<ValueId, String> {
    let x = body.input(at)?;
    let x = body.cast(x, DType::I32)?;
    if body.optional(at + 2).is_none() {
        return Ok(x);
    }
    let zero = body.scalar(at + 2)?;
    let zero = body.cast(zero, DType::I32)?;
    body.apply(Op::Binary(Binary::Sub), &[x, zero])
}

/// `saturate(round_half_even(product m + zero point))` with the exact product of the centred operands and
/// `m = (scale scale) / scale`: the zero point is added before rounding.
fn mul(_: &Named, body: &mut Body<'_>) -> Made {
    let times = Op::Binary(Binary::Mul);
    let (a, b) = (centred(body, 0)?, centred(body, 3)?);
    let product = body.apply(times.clone(), &[a, b])?;
    let product = body.cast(product, DType::F32)?;
    let (a, b, y) = (body.scalar(1)?, body.scalar(4)?, body.scalar(6)?);
    let both = body.apply(times.clone(), &[a, b])?;
    let factor = body.apply(Op::Binary(Binary::Div), &[both, y])?;
    let mut value = body.apply(times, &[product, factor])?;
    if body.optional(7).is_some() {
        let zero = body.scalar(7)?;
        let zero = body.cast(zero, DType::F32)?;
        value = body.apply(Op::Binary(Binary::Add), &[value, zero])?;
    }
    let one = body.float(1.0);
    let how = QuantizeLinear { output_dtype: body.dtype(0), ..QuantizeLinear::along(1) };
    Ok(vec![body.apply(Op::QuantizeLinear(how), &[value, one])?])
}

fn sigmoid(_: &Named, body: &mut Body<'_>) -> Made {
    unary(body, Op::Unary(Unary::Sigmoid))
}

fn leaky_relu(op: &Named, body: &mut Body<'_>) -> Made {
    let alpha = op.float("alpha", 0.01)?;
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

/// `saturate(round_half_even(sum m) + zero point)` with the exact sum of the centred elements of a channel
/// and `m = scale / (scale n)` for `n` of them.
fn global_pool(op: &Named, body: &mut Body<'_>) -> Made {
    let last = op.flag("channels_last", false)?;
    let rank = body.rank(0)?;
    if rank < 3 {
        return Err(format!("its input has rank {rank}, expected a batch, channels and space"));
    }
    let first = if last { 1 } else { 2 };
    let axes: Vec<i64> = (first..first + rank as i64 - 2).collect();
    let x = body.input(0)?;
    let space = Attrs::new()
        .with("start", Attr::Int(axes[0]))
        .with("end", Attr::Int(axes[0] + axes.len() as i64));
    let count = body.apply(known("Shape", space)?, &[x])?;
    let count =
        body.apply(known("ReduceProd", Attrs::new().with("keepdims", Attr::Int(0)))?, &[count])?;
    let count = body.cast(count, DType::F32)?;
    let (x, axes) = (centred(body, 0)?, body.integers(&axes));
    let sums = body.apply(known("ReduceSum", Attrs::new())?, &[x, axes])?;
    let sums = body.cast(sums, DType::F32)?;
    let (a, y) = (body.scalar(1)?, body.scalar(3)?);
    let times = Op::Binary(Binary::Mul);
    let below = body.apply(times.clone(), &[y, count])?;
    let factor = body.apply(Op::Binary(Binary::Div), &[a, below])?;
    let value = body.apply(times, &[sums, factor])?;
    let zero = body.optional(4).is_some().then(|| body.scalar(4)).transpose()?;
    let one = body.float(1.0);
    let how = QuantizeLinear { output_dtype: body.dtype(0), ..QuantizeLinear::along(1) };
    Ok(vec![body.apply_some(Op::QuantizeLinear(how), &[Some(value), Some(one), zero])?])
}

/// An operator with operands at 0 and 3 and the result's parameters at 6.
fn binary(body: &mut Body<'_>, op: Binary) -> Made {
    let (a, b) = (dequantized(body, 0)?, dequantized(body, 3)?);
    let y = body.apply(Op::Binary(op), &[a, b])?;
    quantized(body, y, 6, 0)
}

fn float_add(_: &Named, body: &mut Body<'_>) -> Made {
    binary(body, Binary::Add)
}

fn float_mul(_: &Named, body: &mut Body<'_>) -> Made {
    binary(body, Binary::Mul)
}

fn float_average_pool(op: &Named, body: &mut Body<'_>) -> Made {
    let (pool, last) = qlinear_pool(op)?;
    pooled(body, Op::Pool(pool), last)
}

fn float_global_pool(op: &Named, body: &mut Body<'_>) -> Made {
    pooled(body, Op::GlobalPool(GlobalPool::Average), op.flag("channels_last", false)?)
}

/// A pooling whose channels may be last.
fn pooled(body: &mut Body<'_>, op: Op, channels_last: bool) -> Made {
    if !channels_last {
        return unary(body, op);
    }
    let rank = body.rank(0)?;
    if rank < 3 {
        return Err(format!("its input has rank {rank}, expected a batch, space and channels"));
    }
    let x = dequantized(body, 0)?;
    let x = body.channels_first(x, rank)?;
    let y = body.apply(op, &[x])?;
    let y = body.channels_last(y, rank)?;
    quantized(body, y, 3, 0)
}
