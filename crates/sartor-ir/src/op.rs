//! The operators: a closed set with one door for the unknown.
//!
//! Names, attributes and semantics are those of ONNX's operator reference
//! (<https://onnx.ai/onnx/operators/>), each in its newest form up to opset 24. A file format that
//! holds an older form translates it; a form that cannot be translated travels as [`Op::Named`].

mod conv;
mod elementwise;
mod gemm;
mod layout;
mod named;
mod norm;

mod pool;
mod quantize;
mod reduce;

pub(crate) use conv::reach;
pub use conv::{AutoPad, Conv, Spatial};
pub use elementwise::{Binary, Cast, Unary, Variadic};
pub use gemm::Gemm;
pub(crate) use layout::normalize_axes;
pub use layout::{
    Concat, ConstantOfShape, Flatten, Gather, Pad, PadMode, Reshape, Shape, Split, Transpose,
    normalize_axis, slice_bounds,
};
pub use named::Named;
pub use norm::{BatchNormalization, Softmax};

pub use pool::{GlobalPool, Pool, PoolKind};
pub use quantize::QuantizeLinear;
pub use reduce::{Reduce, ReduceKind};

use crate::{Attr, AttrError, Attrs, AxisLink, Fact, Port, TensorType};

/// An operator with its attributes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Convolution of 1, 2 or 3 spatial axes: `X [n, c, …], W [o, c/group, …], B? [o]`.
    Conv(Conv),
    /// `alpha A B + beta C` of matrices.
    Gemm(Gemm),
    /// Matrix product with numpy's broadcasting of leading axes.
    MatMul,
    /// Normalization by stored statistics: `X, scale, B, mean, var` (inference form).
    BatchNormalization(BatchNormalization),
    /// Softmax along one axis.
    Softmax(Softmax),
    /// Logarithm of softmax along one axis.
    LogSoftmax(Softmax),
    /// One input, elementwise.
    Unary(Unary),
    /// Two inputs, elementwise with broadcasting.
    Binary(Binary),
    /// One or more inputs, elementwise with broadcasting.
    Variadic(Variadic),
    /// `X, min?, max?`: limits each element.
    Clip,
    /// `X, slope`: leaky rectifier with learnt slopes.
    PRelu,
    /// `condition, X, Y`: chooses by element.
    Where,
    /// Conversion of the element type.
    Cast(Cast),
    /// The input itself.
    Identity,
    /// The input itself (inference form of dropout).
    Dropout,
    /// Max or average pooling over windows.
    Pool(Pool),
    /// Pooling over all spatial positions.
    GlobalPool(GlobalPool),
    /// Reduction along axes: `X, axes?`.
    Reduce(Reduce),
    /// Merges axes into a matrix.
    Flatten(Flatten),
    /// `X, shape`: the same elements under another shape.
    Reshape(Reshape),
    /// Reorders axes.
    Transpose(Transpose),
    /// `X, axes?`: removes axes of extent 1.
    Squeeze,
    /// `X, axes`: inserts axes of extent 1.
    Unsqueeze,
    /// Joins along one axis.
    Concat(Concat),
    /// `X, sizes?`: cuts along one axis.
    Split(Split),
    /// `X, starts, ends, axes?, steps?`: strided windows.
    Slice,
    /// `X, pads, value?, axes?`: surrounds with a constant, the edge or a mirror image.
    Pad(Pad),
    /// `X, shape`: broadcasts to a shape.
    Expand,
    /// `X, indices`: picks along one axis.
    Gather(Gather),
    /// The shape of the input as integers.
    Shape(Shape),
    /// The number of elements of the input.
    Size,
    /// `shape`: a tensor full of one value.
    ConstantOfShape(ConstantOfShape),
    /// `start, limit, delta`: numbers in a row.
    Range,
    /// `x, scale, zero_point?`: to integers, by `saturate(round_half_even(x / scale) + zero_point)`.
    QuantizeLinear(QuantizeLinear),
    /// `x, scale, zero_point?`: to floats, by `(x - zero_point) * scale`.
    DequantizeLinear(QuantizeLinear),
    /// An operator outside this set, by name: it travels as its file has it. The [`crate::catalog`] may
    /// know its rules.
    Named(Named),
}

/// How many inputs and outputs an operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    /// Fewest and most inputs.
    pub inputs: (usize, usize),
    /// Fewest and most outputs.
    pub outputs: (usize, usize),
}

const ANY: usize = usize::MAX;

impl Op {
    /// ONNX's name of the operator.
    pub fn name(&self) -> &str {
        match self {
            Op::Conv(_) => "Conv",
            Op::Gemm(_) => "Gemm",
            Op::MatMul => "MatMul",
            Op::BatchNormalization(_) => "BatchNormalization",
            Op::Softmax(_) => "Softmax",
            Op::LogSoftmax(_) => "LogSoftmax",
            Op::Unary(it) => it.name(),
            Op::Binary(it) => it.name(),
            Op::Variadic(it) => it.name(),
            Op::Clip => "Clip",
            Op::PRelu => "PRelu",
            Op::Where => "Where",
            Op::Cast(_) => "Cast",
            Op::Identity => "Identity",
            Op::Dropout => "Dropout",
            Op::Pool(it) => it.name(),
            Op::GlobalPool(it) => it.name(),
            Op::Reduce(it) => it.kind.name(),
            Op::Flatten(_) => "Flatten",
            Op::Reshape(_) => "Reshape",
            Op::Transpose(_) => "Transpose",
            Op::Squeeze => "Squeeze",
            Op::Unsqueeze => "Unsqueeze",
            Op::Concat(_) => "Concat",
            Op::Split(_) => "Split",
            Op::Slice => "Slice",
            Op::Pad(_) => "Pad",
            Op::Expand => "Expand",
            Op::Gather(_) => "Gather",
            Op::Shape(_) => "Shape",
            Op::Size => "Size",
            Op::ConstantOfShape(_) => "ConstantOfShape",
            Op::Range => "Range",
            Op::QuantizeLinear(_) => "QuantizeLinear",
            Op::DequantizeLinear(_) => "DequantizeLinear",
            Op::Named(it) => &it.name,
        }
    }

    /// The attributes that differ from ONNX's defaults; `Op::from_attributes` reads them back.
    pub fn attributes(&self) -> Attrs {
        match self {
            Op::Conv(it) => it.attributes(),
            Op::Gemm(it) => it.attributes(),
            Op::BatchNormalization(it) => it.attributes(),
            Op::Softmax(it) | Op::LogSoftmax(it) => it.attributes(),
            Op::Unary(it) => it.attributes(),
            Op::Cast(it) => it.attributes(),
            Op::Pool(it) => it.attributes(),
            Op::Reduce(it) => it.attributes(),
            Op::Flatten(it) => it.attributes(),
            Op::Reshape(it) => it.attributes(),
            Op::Transpose(it) => it.attributes(),
            Op::Concat(it) => it.attributes(),
            Op::Split(it) => it.attributes(),
            Op::Pad(it) => it.attributes(),
            Op::Gather(it) => it.attributes(),
            Op::Shape(it) => it.attributes(),
            Op::ConstantOfShape(it) => it.attributes(),
            Op::QuantizeLinear(it) | Op::DequantizeLinear(it) => it.attributes(),
            Op::Named(it) => it.attributes.clone(),
            Op::MatMul
            | Op::Binary(_)
            | Op::Variadic(_)
            | Op::Clip
            | Op::PRelu
            | Op::Where
            | Op::Identity
            | Op::Dropout
            | Op::GlobalPool(_)
            | Op::Squeeze
            | Op::Unsqueeze
            | Op::Slice
            | Op::Expand
            | Op::Size
            | Op::Range => Attrs::new(),
        }
    }

    /// The known operator of this ONNX name (newest form); `None` if nobody here knows the name.
    ///
    /// # Errors
    /// An attribute that is missing, of the wrong type, out of range or unknown.
    pub fn from_attributes(name: &str, mut attrs: Attrs) -> Option<Result<Op, AttrError>> {
        let op = Self::build(name, &mut attrs)?;
        Some(op.and_then(|op| attrs.finish().map(|()| op)))
    }

    fn build(name: &str, attrs: &mut Attrs) -> Option<Result<Op, AttrError>> {
        if let Some(it) = Unary::build(name, attrs) {
            return Some(it.map(Op::Unary));
        }
        if let Some(it) = Binary::named(name) {
            return Some(Ok(Op::Binary(it)));
        }
        if let Some(it) = Variadic::named(name) {
            return Some(Ok(Op::Variadic(it)));
        }
        if let Some(kind) = ReduceKind::named(name) {
            return Some(Reduce::build(kind, attrs).map(Op::Reduce));
        }
        Some(match name {
            "Conv" => Conv::build(attrs).map(Op::Conv),
            "Gemm" => Gemm::build(attrs).map(Op::Gemm),
            "MatMul" => Ok(Op::MatMul),
            "BatchNormalization" => BatchNormalization::build(attrs).map(Op::BatchNormalization),
            "Softmax" => Softmax::build(attrs).map(Op::Softmax),
            "LogSoftmax" => Softmax::build(attrs).map(Op::LogSoftmax),
            "Clip" => Ok(Op::Clip),
            "PRelu" => Ok(Op::PRelu),
            "Where" => Ok(Op::Where),
            "Cast" => Cast::build(attrs).map(Op::Cast),
            "Identity" => Ok(Op::Identity),
            "Dropout" => {
                attrs.take("seed");
                Ok(Op::Dropout)
            }
            "MaxPool" => Pool::build(PoolKind::Max, attrs).map(Op::Pool),
            "AveragePool" => Pool::build(PoolKind::Average, attrs).map(Op::Pool),
            "GlobalAveragePool" => Ok(Op::GlobalPool(GlobalPool::Average)),
            "GlobalMaxPool" => Ok(Op::GlobalPool(GlobalPool::Max)),
            "Flatten" => Flatten::build(attrs).map(Op::Flatten),
            "Reshape" => Reshape::build(attrs).map(Op::Reshape),
            "Transpose" => Transpose::build(attrs).map(Op::Transpose),
            "Squeeze" => Ok(Op::Squeeze),
            "Unsqueeze" => Ok(Op::Unsqueeze),
            "Concat" => Concat::build(attrs).map(Op::Concat),
            "Split" => Split::build(attrs).map(Op::Split),
            "Slice" => Ok(Op::Slice),
            "Pad" => Pad::build(attrs).map(Op::Pad),
            "Expand" => Ok(Op::Expand),
            "Gather" => Gather::build(attrs).map(Op::Gather),
            "Shape" => Shape::build(attrs).map(Op::Shape),
            "Size" => Ok(Op::Size),
            "ConstantOfShape" => ConstantOfShape::build(attrs).map(Op::ConstantOfShape),
            "Range" => Ok(Op::Range),
            "QuantizeLinear" => QuantizeLinear::build(attrs).map(Op::QuantizeLinear),
            "DequantizeLinear" => QuantizeLinear::build(attrs).map(Op::DequantizeLinear),
            _ => return None,
        })
    }

    /// How many inputs and outputs the operator takes.
    pub fn arity(&self) -> Arity {
        let inputs = match self {
            Op::Conv(_) | Op::Gemm(_) | Op::QuantizeLinear(_) | Op::DequantizeLinear(_) => (2, 3),
            Op::BatchNormalization(_) => (5, 5),
            Op::MatMul
            | Op::Binary(_)
            | Op::PRelu
            | Op::Reshape(_)
            | Op::Unsqueeze
            | Op::Expand
            | Op::Gather(_) => (2, 2),
            Op::Where | Op::Range => (3, 3),
            Op::Clip | Op::Dropout => (1, 3),
            Op::Reduce(_) | Op::Squeeze | Op::Split(_) => (1, 2),
            Op::Concat(_) | Op::Variadic(_) => (1, ANY),
            Op::Slice => (3, 5),
            Op::Pad(_) => (2, 4),
            Op::Named(_) => (0, ANY),
            Op::Softmax(_)
            | Op::LogSoftmax(_)
            | Op::Unary(_)
            | Op::Cast(_)
            | Op::Identity
            | Op::Pool(_)
            | Op::GlobalPool(_)
            | Op::Flatten(_)
            | Op::Transpose(_)
            | Op::Shape(_)
            | Op::Size
            | Op::ConstantOfShape(_) => (1, 1),
        };
        let outputs = match self {
            Op::Named(_) => (0, ANY),
            Op::Split(_) => (1, ANY),
            Op::Dropout | Op::Pool(Pool { kind: PoolKind::Max, .. }) => (1, 2),
            _ => (1, 1),
        };
        Arity { inputs, outputs }
    }

    /// Types (and, of small integer tensors, contents) of the outputs from those of the inputs.
    /// [`Op::Named`] answers by the [`crate::catalog`], or with nothing known.
    ///
    /// # Errors
    /// A sentence that shows the shapes that do not fit.
    pub fn infer(
        &self,
        inputs: &[Option<&Fact>],
        n_outputs: usize,
    ) -> Result<Vec<Option<Fact>>, String> {
        let one = match self {
            Op::Conv(it) => it.infer(inputs),
            Op::Gemm(it) => it.infer(inputs),
            Op::MatMul => gemm::infer_matmul(inputs),
            Op::BatchNormalization(_) => norm::infer_batch_norm(inputs),
            Op::Softmax(it) | Op::LogSoftmax(it) => it.infer(inputs),
            Op::Unary(_) | Op::Identity | Op::Clip => elementwise::infer_same(inputs),
            Op::Dropout => {
                let same = elementwise::infer_same(inputs)?;
                let mask = same.as_ref().map(|it| it.with_dtype(crate::DType::Bool));
                return Ok([same, mask].into_iter().take(n_outputs).collect());
            }
            Op::Binary(it) => it.infer(inputs),
            Op::Variadic(_) => elementwise::infer_broadcast(inputs),
            Op::PRelu => elementwise::infer_prelu(inputs),
            Op::Where => elementwise::infer_where(inputs),
            Op::Cast(it) => it.infer(inputs),
            Op::Pool(it) => return it.infer(inputs, n_outputs),
            Op::GlobalPool(_) => pool::infer_global(inputs),
            Op::Reduce(it) => it.infer(inputs),
            Op::Flatten(it) => it.infer(inputs),
            Op::Reshape(it) => it.infer(inputs),
            Op::Transpose(it) => it.infer(inputs),
            Op::Squeeze => layout::infer_squeeze(inputs),
            Op::Unsqueeze => layout::infer_unsqueeze(inputs),
            Op::Concat(it) => it.infer(inputs),
            Op::Split(it) => return it.infer(inputs, n_outputs),
            Op::Slice => layout::infer_slice(inputs),
            Op::Pad(_) => layout::infer_pad(inputs),
            Op::Expand => layout::infer_expand(inputs),
            Op::Gather(it) => it.infer(inputs),
            Op::Shape(it) => it.infer(inputs),
            Op::Size => layout::infer_size(inputs),
            Op::ConstantOfShape(it) => it.infer(inputs),
            Op::Range => layout::infer_range(inputs),
            Op::QuantizeLinear(it) => it.infer_quantize(inputs),
            Op::DequantizeLinear(it) => it.infer_dequantize(inputs),
            Op::Named(it) => return crate::catalog::infer(it, inputs, n_outputs),
        };
        one.map(|it| vec![it])
    }

    /// How the axes of inputs and outputs hang together, for known ranks and extents (see [`AxisLink`]).
    /// An axis without a link may lose no index by this operator.
    pub fn axes(&self, inputs: &[Option<&Fact>], outputs: &[Option<&TensorType>]) -> Vec<AxisLink> {
        match self {
            Op::Conv(it) => it.axes(inputs),
            Op::Gemm(it) => it.axes(inputs),
            Op::MatMul => gemm::axes_matmul(inputs),
            Op::BatchNormalization(_) => norm::axes_batch_norm(inputs),
            Op::Softmax(it) | Op::LogSoftmax(it) => it.axes(inputs),
            Op::Unary(_) | Op::Identity | Op::Clip | Op::Dropout | Op::Cast(_) => {
                elementwise::axes_same(inputs, &[Port::Output(0)])
            }
            Op::Binary(_) | Op::Variadic(_) | Op::PRelu | Op::Where => {
                elementwise::axes_broadcast(inputs, outputs)
            }
            Op::Pool(_) | Op::GlobalPool(_) => pool::axes(outputs),
            Op::Reduce(it) => it.axes(inputs),
            Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze | Op::Unsqueeze => {
                layout::axes_reshape(inputs, outputs)
            }
            Op::Transpose(it) => it.axes(inputs),
            Op::Concat(it) => it.axes(inputs),
            Op::Split(it) => it.axes(inputs, outputs),
            Op::Slice => layout::axes_slice(inputs, outputs),
            Op::Pad(it) => it.axes(inputs),
            Op::Gather(it) => it.axes(inputs),
            Op::Shape(_) | Op::Size => layout::axes_shape(inputs),
            Op::QuantizeLinear(it) | Op::DequantizeLinear(it) => it.axes(inputs),
            Op::Named(it) => crate::catalog::axes(it, inputs, outputs),
            Op::Expand | Op::ConstantOfShape(_) | Op::Range => Vec::new(),
        }
    }
}

/// Sets an attribute unless it has ONNX's default.
fn unless<T: PartialEq + Copy>(
    attrs: &mut Attrs,
    name: &str,
    value: T,
    default: T,
    wrap: impl Fn(T) -> Attr,
) {
    if value != default {
        attrs.set(name, wrap(value));
    }
}

/// The fact of required input `i`; `Ok(None)` when nothing is known of it.
pub(crate) fn required<'a>(inputs: &[Option<&'a Fact>], i: usize) -> Option<&'a Fact> {
    inputs.get(i).copied().flatten()
}

/// The known shape of input `i`.
pub(crate) fn shape_of<'a>(inputs: &[Option<&'a Fact>], i: usize) -> Option<&'a Vec<crate::Dim>> {
    required(inputs, i)?.ty.shape.as_ref()
}

/// The known rank of input `i`.
pub(crate) fn rank_of(inputs: &[Option<&Fact>], i: usize) -> Option<usize> {
    shape_of(inputs, i).map(Vec::len)
}

/// The known extent of one axis of input `i`.
pub(crate) fn extent(inputs: &[Option<&Fact>], i: usize, axis: usize) -> Option<usize> {
    shape_of(inputs, i)?.get(axis)?.known()
}

/// Integers as an attribute.
pub(crate) fn ints<T: Copy + TryInto<i64>>(list: &[T]) -> Attr {
    Attr::Ints(list.iter().map(|&it| it.try_into().unwrap_or(i64::MAX)).collect())
}
