//! Gradients: for each float operator, d loss / d input from d loss / d output.
//!
//! These are the readable rules, on whole arrays; each stands under the name of its operator and is
//! tested against central differences. The training tape runs faster kernels where it has them, and
//! these elsewhere.

use sartor_ir::{Named, Op};

use crate::Array;

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

/// d loss / d input for each input, of its shape; `None` where it is not wanted, or zero because the
/// output does not depend on the input.
pub type Gradients = Vec<Option<Array>>;

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
const FAMILIES: &[&[Rule]] = &[];

/// d loss / d input of `op`.
///
/// # Errors
/// A sentence about an operator that has no gradient, or operands that do not fit.
pub fn backward(op: &Op, context: &Context<'_>) -> Result<Gradients, String> {
    match op {
        Op::Named(it) => named(it, context),
        _ => Err(format!("`{}` has no gradient", op.name())),
    }
}

fn named(op: &Named, context: &Context<'_>) -> Result<Gradients, String> {
    let domain = if op.domain == "ai.onnx" { "" } else { op.domain.as_str() };
    let mut rows = FAMILIES.iter().copied().flatten();
    let row = rows.find(|it| it.domain == domain && it.name == op.name);
    let none = || format!("`{}` has no gradient", op.full_name());
    (row.ok_or_else(none)?.backward)(op, context)
}
