//! Products of integers (<https://onnx.ai/onnx/operators/onnx__QLinearConv.html> and its kin) and of floats
//! with integers (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>).
//!
//! `QLinearConv`, `QLinearMatMul` and `QGemm` are an exact product, of which each sum `s` becomes
//! `saturate(round_half_even(s m) + zero point)` with the `f32` factor `m = (scale scale) / scale`.

use super::{
    Entry, MICROSOFT,
    composed::{Body, Composition, known, microsoft, named},
    no_axes,
};
use crate::{
    AttrError, Attrs, Binary, Conv, DType, Dim, Fact, Named, Op, QuantizeLinear, TensorType,
    ValueId, shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "ConvInteger", infer: infer_conv_integer, axes: no_axes },
    Entry { domain: "", name: "DynamicQuantizeLinear", infer: infer_dynamic, axes: no_axes },
    Entry { domain: "", name: "MatMulInteger", infer: infer_matmul_integer, axes: no_axes },
    Entry { domain: MICROSOFT, name: "MatMulNBits", infer: infer_matmul_n_bits, axes: no_axes },
];

pub(super) const COMPOSED: &[Composition] = &[
    Composition { domain: "", name: "QLinearConv", compose: qlinear_conv },
    Composition { domain: "", name: "QLinearMatMul", compose: qlinear_matmul },
    Composition { domain: MICROSOFT, name: "DynamicQuantizeMatMul", compose: dynamic_matmul },
    Composition { domain: MICROSOFT, name: "MatMulIntegerToFloat", compose: matmul_to_float },
    Composition { domain: MICROSOFT, name: "QGemm", compose: qgemm },
    Composition { domain: MICROSOFT, name: "QLinearConv", compose: qlinear_conv },
];

type Facts = Result<Vec<Option<Fact>>, String>;
type Made = Result<Vec<ValueId>, String>;

/// The convolution of floats that has the attributes of `op`.
///
/// # Errors
/// A sentence about the attribute that does not fit.
pub fn conv_of(op: &Named) -> Result<Conv, String> {
    match known("Conv", op.attributes.clone())? {
        Op::Conv(it) => Ok(it),
        _ => Err("its attributes are not those of a convolution".to_owned()),
    }
}

fn infer_conv_integer(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Facts {
    let operands = &inputs[..inputs.len().min(2)];
    let made = Op::Conv(conv_of(op)?).infer(operands, n_outputs)?;
    Ok(made.into_iter().map(|it| it.map(|it| it.with_dtype(DType::I32))).collect())
}

fn infer_matmul_integer(_: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Facts {
    let operands = &inputs[..inputs.len().min(2)];
    let made = Op::MatMul.infer(operands, n_outputs)?;
    Ok(made.into_iter().map(|it| it.map(|it| it.with_dtype(DType::I32))).collect())
}

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_dynamic(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    let y = inputs.first().copied().flatten().map(|it| it.with_dtype(DType::U8));
    let scalar = |dtype| Some(Fact::of(TensorType::fixed(dtype, &[])));
    Ok(vec![y, scalar(DType::F32), scalar(DType::U8)])
}

/// Sizes of a product with weights of a few bits each, `[n, k]`, in blocks along `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMulNBits {
    /// Bits of a weight: 2, 4 or 8.
    pub bits: usize,
    /// Weights that share a scale.
    pub block: usize,
    /// Columns of the result.
    pub n: usize,
    /// Extent of the sum.
    pub k: usize,
}

impl MatMulNBits {
    /// The sizes as the attributes give them. The accuracy level, which permits a less exact
    /// computation, is not read.
    ///
    /// # Errors
    /// An attribute that is missing or out of range.
    pub fn of(op: &Named) -> Result<Self, AttrError> {
        let mut attrs = op.attributes.clone();
        let mut size = |name: &str, default: Option<i64>| {
            let value = match default {
                Some(it) => attrs.int(name, it)?,
                None => attrs.required_int(name)?,
            };
            // A file may claim any size: no tensor is larger than this.
            let fits = usize::try_from(value).ok().filter(|it| (1..=1 << 31).contains(it));
            fits.ok_or_else(|| AttrError::new(name, format!("{value} is out of range")))
        };
        let bits = size("bits", Some(4))?;
        let (block, n, k) = (size("block_size", None)?, size("N", None)?, size("K", None)?);
        if !matches!(bits, 2 | 4 | 8) {
            return Err(AttrError::new("bits", format!("is {bits}, expected 2, 4 or 8")));
        }
        if (block * bits) % 8 != 0 {
            return Err(AttrError::new("block_size", "a block does not fill whole bytes"));
        }
        Ok(MatMulNBits { bits, block, n, k })
    }

    /// Number of blocks of one column.
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }
}

fn infer_matmul_n_bits(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    let sizes = MatMulNBits::of(op)?;
    let Some(Fact { ty: TensorType { dtype, shape: Some(a) }, .. }) =
        inputs.first().copied().flatten()
    else {
        return Ok(vec![None]);
    };
    let mut shape = a.clone();
    match shape.last_mut() {
        Some(last) if last.compatible(&Dim::Known(sizes.k)) => *last = Dim::Known(sizes.n),
        _ => return Err(format!("operand {} does not end with an extent of {}", list(a), sizes.k)),
    }
    Ok(vec![Some(Fact::of(TensorType::new(*dtype, shape)))])
}

/// `(scale a · scale b) / scale y` in the order in which ONNX's page has it.
fn factor(body: &mut Body<'_>, a: ValueId, b: ValueId, y: Option<ValueId>) -> Made {
    let both = body.apply(Op::Binary(Binary::Mul), &[a, b])?;
    Ok(vec![match y {
        Some(y) => body.apply(Op::Binary(Binary::Div), &[both, y])?,
        None => both,
    }])
}

/// `sums`, as floats, times `factor`.
fn scaled(body: &mut Body<'_>, sums: ValueId, factor: ValueId) -> Result<ValueId, String> {
    let floats = body.cast(sums, DType::F32)?;
    body.apply(Op::Binary(Binary::Mul), &[floats, factor])
}

/// `saturate(round_half_even(value) + zero point)` with the zero point at `zero`.
fn rounded(body: &mut Body<'_>, value: ValueId, zero: usize) -> Made {
    let (one, zero) = (body.float(1.0), body.scalar(zero)?);
    let how = QuantizeLinear::along(1);
    Ok(vec![body.apply(Op::QuantizeLinear(how), &[value, one, zero])?])
}

/// `x, x scale, x zero, w, w scale, w zero, y scale, y zero, B?`: the bias has the scale of the product.
fn qlinear_conv(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let channels_last = attrs.flag("channels_last", false)?;
    let rank = body.rank(0)?;
    if rank < 3 {
        return Err(format!("its input has rank {rank}, expected a batch, channels and space"));
    }
    let mut x = body.input(0)?;
    if channels_last {
        x = body.channels_first(x, rank)?;
    }
    let zeros = [Some(body.scalar(2)?), body.optional(5)];
    let inputs = [[Some(x), Some(body.input(3)?)], zeros].concat();
    let mut sums = body.apply_some(named("ConvInteger", 10, attrs), &inputs)?;
    if let Some(bias) = body.optional(8) {
        let bias = body.widened(bias, 1, rank - 2)?;
        sums = body.apply(Op::Binary(Binary::Add), &[sums, bias])?;
    }
    let (a, mut w, y) = (body.scalar(1)?, body.input(4)?, body.scalar(6)?);
    if body.rank(4)? == 1 {
        w = body.widened(w, 1, rank - 2)?;
    }
    let factor = factor(body, a, w, Some(y))?[0];
    let mut made = scaled(body, sums, factor)?;
    if channels_last {
        made = body.channels_last(made, rank)?;
    }
    rounded(body, made, 7)
}

/// Input `i`, one number for each row of the left operand, as a column.
fn per_row(body: &mut Body<'_>, i: usize) -> Result<ValueId, String> {
    let value = body.input(i)?;
    let list = body.shape(i).is_some_and(|it| it.len() == 1 && it[0] != Dim::Known(1));
    if list { body.widened(value, 1, 1) } else { Ok(value) }
}

/// `a, a scale, a zero, b, b scale, b zero, y scale, y zero`.
fn qlinear_matmul(_: &Named, body: &mut Body<'_>) -> Made {
    let inputs = [body.input(0)?, body.input(3)?, body.input(2)?, body.input(5)?];
    let sums = body.apply(named("MatMulInteger", 10, Attrs::new()), &inputs)?;
    let (a, b, y) = (per_row(body, 1)?, body.input(4)?, body.scalar(6)?);
    let factor = factor(body, a, b, Some(y))?[0];
    let made = scaled(body, sums, factor)?;
    rounded(body, made, 7)
}

/// `A, a scale, a zero, B, b scale, b zero, C?, y scale?, y zero?`: floats if there is no scale of the
/// result.
fn qgemm(op: &Named, body: &mut Body<'_>) -> Made {
    let mut attrs = op.attributes.clone();
    let alpha = attrs.float("alpha", 1.0)?;
    let mut operand = |body: &mut Body<'_>, i: usize, name: &str| {
        let value = body.input(i)?;
        if attrs.flag(name, false)? { body.transpose(value, &[1, 0]) } else { Ok(value) }
    };
    let a = operand(body, 0, "transA")?;
    let b = operand(body, 3, "transB")?;
    let inputs = [Some(a), Some(b), body.optional(2), body.optional(5)];
    let mut sums = body.apply_some(named("MatMulInteger", 10, Attrs::new()), &inputs)?;
    if let Some(c) = body.optional(6) {
        sums = body.apply(Op::Binary(Binary::Add), &[sums, c])?;
    }
    let (mut a, b, alpha) = (body.scalar(1)?, body.input(4)?, body.float(alpha));
    a = body.apply(Op::Binary(Binary::Mul), &[alpha, a])?;
    let y = body.optional(7).is_some().then(|| body.scalar(7)).transpose()?;
    let factor = factor(body, a, b, y)?[0];
    let made = scaled(body, sums, factor)?;
    if y.is_none() {
        return Ok(vec![made]);
    }
    rounded(body, made, 8)
}

/// `A, B, a scale, b scale, a zero?, b zero?, bias?`.
fn matmul_to_float(_: &Named, body: &mut Body<'_>) -> Made {
    let inputs = [Some(body.input(0)?), Some(body.input(1)?), body.optional(4), body.optional(5)];
    let sums = body.apply_some(named("MatMulInteger", 10, Attrs::new()), &inputs)?;
    let (a, b) = (per_row(body, 2)?, body.input(3)?);
    let factor = factor(body, a, b, None)?[0];
    let made = match body.dtype(2) {
        Some(dtype) if dtype != DType::F32 => {
            let wide = body.cast(factor, DType::F32)?;
            let made = scaled(body, sums, wide)?;
            body.cast(made, dtype)?
        }
        _ => scaled(body, sums, factor)?,
    };
    match body.optional(6) {
        Some(bias) => Ok(vec![body.apply(Op::Binary(Binary::Add), &[made, bias])?]),
        None => Ok(vec![made]),
    }
}

/// `A, B, b scale, b zero?, bias?`: `A` is quantized by its own range.
fn dynamic_matmul(_: &Named, body: &mut Body<'_>) -> Made {
    let a = Some(body.input(0)?);
    let made = body.outputs(named("DynamicQuantizeLinear", 11, Attrs::new()), &[a], 3)?;
    let [q, scale, zero] = made[..] else { return Err("nothing was quantized".to_owned()) };
    let (b, b_scale) = (body.input(1)?, body.input(2)?);
    let inputs = [
        Some(q),
        Some(b),
        Some(scale),
        Some(b_scale),
        Some(zero),
        body.optional(3),
        body.optional(4),
    ];
    Ok(vec![body.apply_some(microsoft("MatMulIntegerToFloat", Attrs::new()), &inputs)?])
}
