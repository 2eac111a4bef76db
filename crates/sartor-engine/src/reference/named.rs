//! Values of the operators that travel by name: one file a family, each row under domain and name.

mod attention;
mod composed;
mod control;
mod integer;
mod norm;
mod recurrent;
mod transformer;

use sartor_ir::{DType, Named, catalog};

use crate::Array;

/// The outputs of an operator from its inputs, of the element types `dtypes` (as inference gives them;
/// their number says how many outputs are wanted). Captured values of subgraphs follow the inputs.
pub(crate) type Evaluate = fn(&Named, &[Option<&Array>], &[DType]) -> Result<Vec<Array>, String>;

/// One operator that the engine runs.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    /// Operator set domain; empty for ONNX's own.
    pub(crate) domain: &'static str,
    /// Name of the operator.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) evaluate: Evaluate,
}

/// The rows of all families.
const FAMILIES: &[&[Rule]] = &[
    attention::RULES,
    control::RULES,
    integer::RULES,
    norm::RULES,
    recurrent::RULES,
    transformer::RULES,
];

fn find(op: &Named) -> Option<&'static Rule> {
    let domain = if op.domain == "ai.onnx" { "" } else { op.domain.as_str() };
    let mut rows = FAMILIES.iter().copied().flatten();
    rows.find(|it| it.domain == domain && it.name == op.name)
}

/// Whether the engine runs `op`.
pub(crate) fn knows(op: &Named) -> bool {
    find(op).is_some() || catalog::is_composed(op)
}

pub(crate) fn evaluate(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    match find(op) {
        Some(rule) => (rule.evaluate)(op, inputs, dtypes),
        None => composed::evaluate(op, inputs, dtypes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_shapes_and_every_shape_a_rule() {
        let mut rules: Vec<_> =
            FAMILIES.iter().copied().flatten().map(|it| (it.domain, it.name)).collect();
        let mut shapes: Vec<_> = sartor_ir::catalog::names().collect();
        rules.sort_unstable();
        shapes.sort_unstable();
        assert_eq!(rules, shapes, "an operator by name needs a row in both tables, once");
        let mut all: Vec<_> = shapes.into_iter().chain(catalog::composed_names()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "an operator is made of others or has rules of its own");
    }
}
