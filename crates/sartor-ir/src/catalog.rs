//! Rules of the operators that travel by name ([`Named`]): shape inference and axes.
//!
//! The closed set of [`crate::Op`] holds what the techniques reason about, each in its newest form. The
//! many operators that are only run (and exported as they came) have their rules here, one file a
//! family, each row under the operator's domain and name. A rule reads [`Named::version`] where the
//! meaning of a form depends on it.

mod attention;
mod composed;
mod control;
mod fused;
mod integer;
mod norm;
mod qlinear;
mod recurrent;
mod transformer;

pub use attention::{Attention, Shown};
pub use composed::{Composed, composed, composed_names, is_composed};
pub use integer::{MatMulNBits, conv_of};
pub use norm::{moment_axes, softmax_axes};
pub use recurrent::{Activation, Cell, Recurrent};

use crate::{AxisLink, Fact, Named, TensorType};

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
    control::ENTRIES,
    integer::ENTRIES,
    norm::ENTRIES,
    recurrent::ENTRIES,
    transformer::ENTRIES,
];

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
