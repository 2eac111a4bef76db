//! Values of the operators that travel by name: one file a family, each row under domain and name.

mod attention;
mod bits;
pub(crate) mod blocks;
mod cast;
mod composed;
pub(crate) mod control;
pub(crate) mod conv_transpose;
pub(crate) mod einsum;
pub(crate) mod grid;
mod integer;
pub(crate) mod loss;
mod norm;
pub(crate) mod pool;
mod qlinear;
pub(crate) mod random;
mod recurrent;
pub(crate) mod region;
pub(crate) mod resize;
pub(crate) mod scatter;
pub(crate) mod select;
mod signal;
mod sort;
mod transformer;

use sartor_ir::{DType, Named, Op, catalog};

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
    bits::RULES,
    blocks::RULES,
    cast::RULES,
    control::RULES,
    conv_transpose::RULES,
    einsum::RULES,
    grid::RULES,
    integer::RULES,
    loss::RULES,
    norm::RULES,
    pool::RULES,
    random::RULES,
    qlinear::RULES,
    recurrent::RULES,
    region::RULES,
    resize::RULES,
    scatter::RULES,
    select::RULES,
    signal::RULES,
    sort::RULES,
    transformer::RULES,
];

/// The extents of the first output by the operator's own shape rule.
fn output_shape(op: &Named, inputs: &[Option<&Array>]) -> Result<Vec<usize>, String> {
    super::output_shape(&Op::Named(op.clone()), inputs)
}

/// The one element of input `i`, as an integer.
fn scalar(inputs: &[Option<&Array>], i: usize) -> Result<i64, String> {
    match super::integers(inputs, i).as_deref() {
        Some([it]) => Ok(*it),
        Some(other) => Err(format!("input {i} has {} elements, expected 1", other.len())),
        None => Err(format!("input {i} is missing")),
    }
}

/// A tensor as rows along one axis: how many before it, its extent, how many elements behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes {
    pub(crate) outer: usize,
    pub(crate) extent: usize,
    pub(crate) inner: usize,
}

impl Lanes {
    pub(crate) fn new(shape: &[usize], axis: usize) -> Self {
        Lanes {
            outer: shape[..axis].iter().product(),
            extent: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        }
    }

    /// Where each lane begins; its elements lie `inner` apart.
    pub(crate) fn starts(self) -> impl Iterator<Item = usize> {
        let row = self.extent * self.inner;
        (0..self.outer).flat_map(move |o| (0..self.inner).map(move |i| o * row + i))
    }
}

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
pub(crate) mod tests {
    use sartor_ir::Attrs;

    use super::*;

    /// Numbers from a linear congruential generator.
    pub(crate) struct Numbers(u64);

    impl Numbers {
        pub(crate) fn new(seed: u64) -> Self {
            Numbers(seed)
        }

        /// A number in -1..1.
        pub(crate) fn next(&mut self) -> f32 {
            let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = next.wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        }

        pub(crate) fn below(&mut self, n: usize) -> usize {
            ((self.next() * 0.5 + 0.5) * n as f32) as usize % n
        }

        pub(crate) fn array(&mut self, shape: &[usize]) -> Array {
            Array::f32(shape, (0..shape.iter().product()).map(|_| self.next()).collect())
        }
    }

    /// An operator of opset 20.
    pub(crate) fn named(name: &str, attributes: Attrs) -> Named {
        Named { domain: String::new(), name: name.into(), version: 20, attributes }
    }

    /// The outputs of `op`, as many as its shape rule gives.
    pub(crate) fn run(op: &Named, inputs: &[&Array]) -> Vec<Array> {
        let given: Vec<_> = inputs.iter().copied().map(Some).collect();
        evaluate(op, &given, &[DType::F32]).unwrap()
    }

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
