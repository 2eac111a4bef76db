//! Rules of the operators that travel by name ([`Named`]): shape inference and axes.
//!
//! The closed set of [`crate::Op`] holds what the techniques reason about, each in its newest form. The
//! many operators that are only run (and exported as they came) have their rules here, one file a
//! family, each row under the operator's domain and name. A rule reads [`Named::version`] where the
//! meaning of a form depends on it.

mod attention;
mod bits;
mod blocks;
mod cast;
mod composed;
mod control;
mod conv_transpose;
mod einsum;
mod expand;
mod fused;
mod grid;
mod integer;
mod loss;
mod norm;
mod pool;
mod qlinear;
mod random;
mod recurrent;
mod region;
mod resize;
mod scatter;
mod select;
mod signal;
mod sort;
mod transformer;

use crate::{
    AxisLink, DType, Dim, Fact, Named, TensorType,
    op::{required, shape_of},
};

pub use attention::{Attention, Shown};
pub use composed::{Composed, composed, composed_names, is_composed, through_floats};
pub use conv_transpose::{ConvTranspose, TransposedAxis};
pub use einsum::{Einsum, Label};
pub use expand::expanded;
pub use integer::{MatMulNBits, conv_of};
pub use norm::{moment_axes, softmax_axes};
pub use pool::lp_windows;
pub use qlinear::qlinear_pool;
pub use recurrent::{Activation, Cell, Recurrent};
pub use resize::{Coordinates, Interpolation, NearestMode, Resize, ResizedAxis};

/// The domain of the operators of ONNX Runtime.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// Types of the outputs from those of the inputs, as [`crate::Op::infer`].
pub type Infer = fn(&Named, &[Option<&Fact>], usize) -> Result<Vec<Option<Fact>>, String>;

/// How axes hang together, as [`crate::Op::axes`].
pub type Axes = fn(&Named, &[Option<&Fact>], &[Option<&TensorType>]) -> Vec<AxisLink>;

/// What is known of one operator.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Operator set domain; empty for ONNX's own.
    pub domain: &'static str,
    /// Name of the operator.
    pub name: &'static str,
    /// Its shape rule.
    pub infer: Infer,
    /// Its axes; [`no_axes`] where no index may be lost.
    pub axes: Axes,
}

/// The rows of all families.
const FAMILIES: &[&[Entry]] = &[
    attention::ENTRIES,
    bits::ENTRIES,
    blocks::ENTRIES,
    cast::ENTRIES,
    control::ENTRIES,
    conv_transpose::ENTRIES,
    einsum::ENTRIES,
    grid::ENTRIES,
    integer::ENTRIES,
    loss::ENTRIES,
    norm::ENTRIES,
    pool::ENTRIES,
    random::ENTRIES,
    qlinear::ENTRIES,
    recurrent::ENTRIES,
    region::ENTRIES,
    resize::ENTRIES,
    scatter::ENTRIES,
    select::ENTRIES,
    signal::ENTRIES,
    sort::ENTRIES,
    transformer::ENTRIES,
];

/// What a shape rule answers.
type Made = Result<Vec<Option<Fact>>, String>;

/// A value of the element type of input `i`.
fn typed(inputs: &[Option<&Fact>], i: usize, shape: Vec<Dim>) -> Option<Fact> {
    required(inputs, i).map(|it| Fact::of(TensorType::new(it.ty.dtype, shape)))
}

/// A value of the element type of input `i` whose rank is not known.
fn shapeless(inputs: &[Option<&Fact>], i: usize) -> Option<Fact> {
    required(inputs, i).map(|it| Fact::of(TensorType { dtype: it.ty.dtype, shape: None }))
}

/// A value of a type and, if known, a shape.
#[expect(clippy::unnecessary_wraps, reason = "rules answer with what may not be known")]
fn value(dtype: DType, shape: Option<Vec<Dim>>) -> Option<Fact> {
    Some(Fact::of(TensorType { dtype, shape }))
}

/// The shape rule of an output like input 0.
#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn same(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    Ok(vec![required(inputs, 0).map(|it| Fact::of(it.ty.clone()))])
}

/// As [`same`], of truth values.
#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn same_truth(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    Ok(vec![required(inputs, 0).map(|it| it.with_dtype(DType::Bool))])
}

/// The axes of input 0 in `range` pass to the same axes of the output.
fn passing(inputs: &[Option<&Fact>], range: std::ops::Range<usize>) -> Vec<AxisLink> {
    use crate::Port;
    let rank = shape_of(inputs, 0).map_or(0, Vec::len);
    let pass = |axis| AxisLink::same((Port::Input(0), axis), (Port::Output(0), axis));
    range.take_while(|it| *it < rank).map(pass).collect()
}

/// Batch and channels pass.
fn passing_channels(
    _: &Named,
    inputs: &[Option<&Fact>],
    _: &[Option<&TensorType>],
) -> Vec<AxisLink> {
    passing(inputs, 0..2)
}

/// An extent from a number that is given.
fn extent_of(n: i64) -> Result<Dim, String> {
    usize::try_from(n).map(Dim::Known).map_err(|_| format!("an extent of {n} was asked for"))
}

fn find(op: &Named) -> Option<&'static Entry> {
    let mut rows = FAMILIES.iter().copied().flatten();
    rows.find(|it| (it.domain, it.name) == key(op))
}

/// Domain and name of `op` as the rows have them: ONNX's own domain has two spellings.
fn key(op: &Named) -> (&str, &str) {
    (if op.domain == "ai.onnx" { "" } else { &op.domain }, &op.name)
}

/// Whether the rules of `op` are known.
pub fn knows(op: &Named) -> bool {
    find(op).is_some() || is_composed(op)
}

/// The names of all operators with rules of their own, with their domains; [`composed_names`] has those
/// that are made of others.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    FAMILIES.iter().copied().flatten().map(|it| (it.domain, it.name))
}

/// The rule for axes of an operator that lets no index of any axis go.
pub fn no_axes(_: &Named, _: &[Option<&Fact>], _: &[Option<&TensorType>]) -> Vec<AxisLink> {
    Vec::new()
}

pub(crate) fn infer(
    op: &Named,
    inputs: &[Option<&Fact>],
    n_outputs: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let mut made = match find(op) {
        Some(entry) => (entry.infer)(op, inputs, n_outputs)?,
        None => composed::infer(op, inputs, n_outputs)?,
    };
    made.resize(n_outputs, None);
    Ok(made)
}

pub(crate) fn axes(
    op: &Named,
    inputs: &[Option<&Fact>],
    outputs: &[Option<&TensorType>],
) -> Vec<AxisLink> {
    find(op).map_or_else(Vec::new, |it| (it.axes)(op, inputs, outputs))
}
