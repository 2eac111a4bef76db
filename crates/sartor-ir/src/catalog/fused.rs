//! ONNX Runtime's fused operators
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>): what its optimizer
//! writes for a product with an activation, a bias or a transposition.

use super::{
    MICROSOFT,
    composed::{Body, Composition, known},
};
use crate::{
    Attr, AttrError, Attrs, Binary, Named, Op, QuantizeLinear, Softmax, Split, Tensor, Unary,
    ValueId, normalize_axis,
};

pub(super) const COMPOSED: &[Composition] = &[
    Composition { domain: MICROSOFT, name: "BiasAdd", compose: bias_add },
    Composition { domain: MICROSOFT, name: "BiasGelu", compose: bias_gelu },
    Composition { domain: MICROSOFT, name: "BiasSoftmax", compose: bias_softmax },
    Composition { domain: MICROSOFT, name: "BiasSplitGelu", compose: bias_split_gelu },
    Composition { domain: MICROSOFT, name: "DequantizeLinear", compose: dequantize },
    Composition { domain: MICROSOFT, name: "FastGelu", compose: fast_gelu },
    Composition { domain: MICROSOFT, name: "FusedConv", compose: fused_conv },
    Composition { domain: MICROSOFT, name: "FusedGemm", compose: fused_gemm },
    Composition { domain: MICROSOFT, name: "FusedMatMul", compose: fused_matmul },
    Composition { domain: MICROSOFT, name: "Gelu", compose: gelu },
    Composition { domain: MICROSOFT, name: "NhwcFusedConv", compose: nhwc_fused_conv },
    Composition { domain: MICROSOFT, name: "NhwcMaxPool", compose: nhwc_max_pool },
    Composition { domain: MICROSOFT, name: "QuantizeLinear", compose: quantize },
    Composition { domain: MICROSOFT, name: "QuickGelu", compose: quick_gelu },
    Composition { domain: MICROSOFT, name: "TransposeMatMul", compose: fused_matmul },
];

type Made = Result<Vec<ValueId>, String>;

const GELU: Op = Op::Unary(Unary::Gelu { tanh: false });
const ADD: Op = Op::Binary(Binary::Add);

fn gelu(_: &Named, body: &mut Body<'_>) -> Made {
    let x = body.input(0)?;
    Ok(vec![body.apply(GELU, &[x])?])
}

fn quick_gelu(op: &Named, body: &mut Body<'_>) -> Made {
    let alpha = op.float("alpha", 1.702)?;
    let x = body.input(0)?;
    Ok(vec![body.apply(Op::Unary(Unary::Swish { alpha }), &[x])?])
}

/// `input 0 + input 1`, or input 0 alone.
fn with_bias(body: &mut Body<'_>) -> Result<ValueId, String> {
    let x = body.input(0)?;
    match body.optional(1) {
        Some(bias) => body.apply(ADD, &[x, bias]),
        None => Ok(x),
    }
}

fn bias_gelu(_: &Named, body: &mut Body<'_>) -> Made {
    let sum = with_bias(body)?;
    Ok(vec![body.apply(GELU, &[sum])?])
}

fn fast_gelu(_: &Named, body: &mut Body<'_>) -> Made {
    let sum = with_bias(body)?;
    Ok(vec![body.apply(Op::Unary(Unary::Gelu { tanh: true }), &[sum])?])
}

/// `X + bias + skip`.
fn bias_add(_: &Named, body: &mut Body<'_>) -> Made {
    let sum = with_bias(body)?;
    let skip = body.input(2)?;
    Ok(vec![body.apply(ADD, &[sum, skip])?])
}

/// The last axis of `X + bias` in two halves: the left times the Gelu of the right.
fn bias_split_gelu(_: &Named, body: &mut Body<'_>) -> Made {
    let sum = with_bias(body)?;
    let halves = body.outputs(Op::Split(Split { axis: -1 }), &[Some(sum)], 2)?;
    let gate = body.apply(GELU, &[halves[1]])?;
    Ok(vec![body.apply(Op::Binary(Binary::Mul), &[halves[0], gate])?])
}

/// Softmax over all axes from `axis` on of `data + bias`. The bias lacks axes: those before `axis` from
/// some axis on, which then have an extent of 1 in it, or the first ones.
fn bias_softmax(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let axis = normalize_axis(attrs.int("axis", 1)?, body.rank(0)?)?;
    let sum = with_bias(body)?;
    if axis + 1 == body.rank(0)? {
        return Ok(vec![body.apply(Op::Softmax(Softmax { axis: -1 }), &[sum])?]);
    }
    let tail = body.shape(0).unwrap_or_default()[axis..].iter().map(crate::Dim::known);
    let tail: Option<Vec<usize>> = tail.collect();
    let tail = tail.ok_or("the extents that its softmax runs over are not known")?;
    let extent = |it: usize| i64::try_from(it).map_err(|_| "an extent is too large".to_owned());
    let mut shape = vec![0; axis];
    let joined = [shape.clone(), vec![extent(tail.iter().product())?]].concat();
    for it in tail {
        shape.push(extent(it)?);
    }
    let (joined, apart) = (body.integers(&joined), body.integers(&shape));
    let reshape = || known("Reshape", Attrs::new());
    let wide = body.apply(reshape()?, &[sum, joined])?;
    let made = body.apply(Op::Softmax(Softmax { axis: -1 }), &[wide])?;
    Ok(vec![body.apply(reshape()?, &[made, apart])?])
}

fn granularity(op: &Named) -> Result<QuantizeLinear, String> {
    Ok(QuantizeLinear::along(op.int("axis", 1)?))
}

fn quantize(op: &Named, body: &mut Body<'_>) -> Made {
    let inputs = [Some(body.input(0)?), Some(body.input(1)?), body.optional(2)];
    Ok(vec![body.apply_some(Op::QuantizeLinear(granularity(op)?), &inputs)?])
}

fn dequantize(op: &Named, body: &mut Body<'_>) -> Made {
    let inputs = [Some(body.input(0)?), Some(body.input(1)?), body.optional(2)];
    Ok(vec![body.apply_some(Op::DequantizeLinear(granularity(op)?), &inputs)?])
}

/// `value` after the activation of this name; `parameters` fill its attributes in the order of `NAMES`.
fn activated(
    body: &mut Body<'_>,
    value: ValueId,
    activation: &str,
    parameters: &[f32],
) -> Result<ValueId, String> {
    const NAMES: &[(&str, &[&str])] =
        &[("LeakyRelu", &["alpha"]), ("Elu", &["alpha"]), ("HardSigmoid", &["alpha", "beta"])];
    if activation.is_empty() {
        return Ok(value);
    }
    if activation == "Clip" {
        let mut inputs = vec![value];
        for &it in parameters {
            inputs.push(body.float(it));
        }
        return body.apply(Op::Clip, &inputs);
    }
    let names = NAMES.iter().find(|row| row.0 == activation).map_or(&[] as &[&str], |row| row.1);
    let mut attrs = Attrs::new();
    for (name, &it) in names.iter().zip(parameters) {
        attrs.set(name, Attr::Float(it));
    }
    match known(activation, attrs)? {
        Op::Unary(it) => body.apply(Op::Unary(it), &[value]),
        _ => Err(format!("its activation `{activation}` is not an activation")),
    }
}

/// The activation of a fused convolution with its parameters.
fn activation_of(attrs: &mut Attrs) -> Result<(String, Vec<f32>), AttrError> {
    let name = attrs.text("activation", "")?;
    match attrs.take("activation_params") {
        None => Ok((name, Vec::new())),
        Some(Attr::Floats(it)) => Ok((name, it)),
        Some(_) => Err(AttrError::new("activation_params", "expected a list of floats")),
    }
}

/// `activation(X * W + B + Z)`.
fn fused_conv(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let (activation, parameters) = activation_of(&mut attrs)?;
    let inputs = [Some(body.input(0)?), Some(body.input(1)?), body.optional(2)];
    let mut y = body.apply_some(known("Conv", attrs)?, &inputs)?;
    if let Some(z) = body.optional(3) {
        y = body.apply(ADD, &[y, z])?;
    }
    Ok(vec![activated(body, y, &activation, &parameters)?])
}

/// As [`fused_conv`], with the channels of `X`, `Z` and the result last.
fn nhwc_fused_conv(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let (activation, parameters) = activation_of(&mut attrs)?;
    let (x, rank) = (body.input(0)?, windowed_rank(body)?);
    let x = body.channels_first(x, rank)?;
    let inputs = [Some(x), Some(body.input(1)?), body.optional(2)];
    let y = body.apply_some(known("Conv", attrs)?, &inputs)?;
    let mut y = body.channels_last(y, rank)?;
    if let Some(z) = body.optional(3) {
        y = body.apply(ADD, &[y, z])?;
    }
    Ok(vec![activated(body, y, &activation, &parameters)?])
}

fn nhwc_max_pool(op: &Named, body: &mut Body<'_>) -> Made {
    let (x, rank) = (body.input(0)?, windowed_rank(body)?);
    let x = body.channels_first(x, rank)?;
    let y = body.apply(known("MaxPool", op.attributes.clone())?, &[x])?;
    Ok(vec![body.channels_last(y, rank)?])
}

/// The rank of input 0, which has a batch, channels and space.
fn windowed_rank(body: &Body<'_>) -> Result<usize, String> {
    match body.rank(0)? {
        rank if rank >= 3 => Ok(rank),
        rank => Err(format!("its input has rank {rank}, expected a batch, space and channels")),
    }
}

/// `activation(alpha A' B' + beta C)`.
fn fused_gemm(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let activation = attrs.text("activation", "")?;
    // The parameters have attributes of their own; `alpha` and `beta` are those of the product.
    let mut parameters = Vec::new();
    for name in ["activation_alpha", "activation_beta", "activation_gamma"] {
        match attrs.take(name) {
            Some(Attr::Float(it)) => parameters.push(it),
            Some(_) => return Err(AttrError::new(name, "expected a float").into()),
            None => {}
        }
    }
    let inputs = [Some(body.input(0)?), Some(body.input(1)?), body.optional(2)];
    let y = body.apply_some(known("Gemm", attrs)?, &inputs)?;
    Ok(vec![activated(body, y, &activation, &parameters)?])
}

/// `alpha A' B'` with numpy's broadcasting of leading axes, after transposing each operand as asked.
fn fused_matmul(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let alpha = attrs.float("alpha", 1.0)?;
    let a = (attrs.flag("transBatchA", false)?, attrs.flag("transA", false)?);
    let b = (attrs.flag("transBatchB", false)?, attrs.flag("transB", false)?);
    let a = operand(body, 0, a)?;
    let b = operand(body, 1, b)?;
    let mut y = body.apply(Op::MatMul, &[a, b])?;
    if alpha.to_bits() != 1f32.to_bits() {
        let factor = body.constant(Tensor::from_f32(&[], &[alpha]));
        let factor = match body.dtype(0) {
            Some(dtype) if dtype != crate::DType::F32 => body.cast(factor, dtype)?,
            _ => factor,
        };
        y = body.apply(Op::Binary(Binary::Mul), &[y, factor])?;
    }
    Ok(vec![y])
}

/// Operand `i`, `[…, rows, columns]`: the first axis is moved behind the other leading ones in place of the
/// rows, which become the last leading axis, if `batch`; rows and columns are exchanged if `matrix`.
fn operand(
    body: &mut Body<'_>,
    i: usize,
    (batch, matrix): (bool, bool),
) -> Result<ValueId, String> {
    let x = body.input(i)?;
    if !batch && !matrix {
        return Ok(x);
    }
    let rank = body.rank(i)?;
    if rank < 2 {
        return Ok(x);
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    if batch {
        perm[..rank - 1].rotate_left(1);
    }
    if matrix {
        perm.swap(rank - 2, rank - 1);
    }
    body.transpose(x, &perm)
}
