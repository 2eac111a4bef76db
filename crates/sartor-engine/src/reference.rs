//! Plain, safe loops: the oracle that every fast kernel is tested against.
//!
//! The functions of the submodules are the mathematics; [`evaluate`] fits operators of a graph to them.

pub(crate) mod attention;
pub(crate) mod cast;
pub mod conv;
pub mod elementwise;
mod evaluate;
pub mod gemm;
pub(crate) mod integer;
pub(crate) mod layer_norm;
pub mod layout;
pub(crate) mod named;
pub mod norm;
pub mod pool;
pub mod quantize;
pub(crate) mod recurrent;
pub mod reduce;
pub(crate) mod standard;

use std::collections::BTreeMap;

use sartor_ir::{DType, Evaluate, Graph, Op, Tensor};

use crate::{Array, EngineError, array, error::node_name, support};

pub use evaluate::evaluate;
pub(crate) use evaluate::{
    MatMulBatches, integers, output_shape, pad_tables, quantize_granularity, slice_windows, windows,
};

/// Computes operators on constants with the reference kernels, for constant folding.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceEvaluator;

impl Evaluate for ReferenceEvaluator {
    fn evaluate(&self, op: &Op, inputs: &[Option<&Tensor>]) -> Option<Vec<Tensor>> {
        // Only types that survive the way through an `Array` as they are.
        let exact = |it: DType| array::storage(it) == Some(it);
        let constants: Vec<_> = inputs.iter().flatten().collect();
        if !constants.iter().all(|it| exact(it.dtype())) {
            return None;
        }
        let facts: Vec<_> = inputs.iter().map(|it| it.map(evaluate::constant_fact)).collect();
        let given: Vec<_> = facts.iter().map(Option::as_ref).collect();
        let made = op.infer(&given, op.arity().outputs.0.max(1)).ok()?;
        let dtypes: Vec<_> =
            made.iter().map(|it| it.as_ref().map(|it| it.ty.dtype)).collect::<Option<_>>()?;
        let known: Vec<_> = inputs.iter().map(|it| it.map(Tensor::dtype)).collect();
        if !dtypes.iter().all(|&it| exact(it))
            || support::unsupported(op, &known, &dtypes).is_some()
        {
            return None;
        }
        let arrays: Vec<_> = inputs.iter().map(|it| it.and_then(Array::from_tensor)).collect();
        let borrowed: Vec<_> = arrays.iter().map(Option::as_ref).collect();
        let outputs = evaluate(op, &borrowed, &dtypes).ok()?;
        Some(outputs.iter().map(Array::to_tensor).collect())
    }
}

/// Runs the whole graph through the reference kernels, node by node: the oracle.
///
/// # Errors
/// As [`crate::Program::prepare`] and [`crate::Program::run`].
pub fn run_reference(graph: &Graph, inputs: &[Array]) -> Result<Vec<Array>, EngineError> {
    run_reference_observed(graph, inputs, &mut |_, _| {})
}

/// As [`run_reference`], and shows every value as it is made.
///
/// # Errors
/// As [`run_reference`].
pub fn run_reference_observed(
    graph: &Graph,
    inputs: &[Array],
    observe: &mut dyn FnMut(sartor_ir::ValueId, &Array),
) -> Result<Vec<Array>, EngineError> {
    if let Some(first) = support::check_support(graph).into_iter().next() {
        return Err(EngineError::Unsupported(first));
    }
    if inputs.len() != graph.inputs().len() {
        return Err(EngineError::InputCount {
            expected: graph.inputs().len(),
            found: inputs.len(),
        });
    }
    let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
    let types = support::input_types(graph, &shapes)?;
    let facts = sartor_ir::infer_facts(graph, &types)?;
    let mut values: BTreeMap<_, _> =
        graph.inputs().iter().copied().zip(inputs.iter().cloned()).collect();
    for (id, value) in graph.values() {
        if let Some(tensor) = &value.constant
            && let Some(array) = Array::from_tensor(tensor)
        {
            values.insert(id, array);
        }
    }
    for (&id, array) in &values {
        observe(id, array);
    }
    for (_, node) in graph.nodes() {
        let captured = node.captures.iter().map(|it| values.get(it));
        let given: Vec<_> = node
            .inputs
            .iter()
            .map(|it| it.and_then(|it| values.get(&it)))
            .chain(captured)
            .collect();
        let dtype = |it: &Option<sartor_ir::ValueId>| {
            it.and_then(|it| facts[it.index()].as_ref()).map_or(DType::F32, |it| it.ty.dtype)
        };
        let dtypes: Vec<_> = node.outputs.iter().map(dtype).collect();
        let made = evaluate(&node.op, &given, &dtypes).map_err(|problem| EngineError::Kernel {
            node: node_name(graph, node),
            op: node.op.name().to_owned(),
            shapes: shapes_of(&given),
            problem,
        })?;
        for (output, array) in node.outputs.iter().zip(made) {
            if let Some(output) = output {
                observe(*output, &array);
                values.insert(*output, array);
            }
        }
    }
    let output = |it: &sartor_ir::ValueId| {
        values.get(it).cloned().ok_or_else(|| EngineError::Undefined(graph.value(*it).name.clone()))
    };
    graph.outputs().iter().map(output).collect()
}

/// `[1, 2], [3]`.
pub(crate) fn shapes_of(inputs: &[Option<&Array>]) -> String {
    let one =
        |it: Option<&Array>| it.map_or_else(|| "none".to_owned(), |it| format!("{:?}", it.shape));
    inputs.iter().copied().map(one).collect::<Vec<_>>().join(", ")
}
