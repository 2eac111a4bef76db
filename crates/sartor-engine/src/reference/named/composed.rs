//! Operators that are made of others: the graph that each stands for, node by node.

use std::{borrow::Cow, collections::BTreeMap};

use sartor_ir::{DType, Graph, Named, TensorType, catalog, infer_facts};

use crate::{Array, reference};

pub(super) fn evaluate(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    let types: Vec<_> =
        inputs.iter().map(|it| it.map(|it| TensorType::fixed(it.dtype(), &it.shape))).collect();
    let borrowed: Vec<_> = types.iter().map(Option::as_ref).collect();
    let body = catalog::composed(op, &borrowed, dtypes.len())?
        .ok_or_else(|| format!("nobody here knows the operator `{}`", op.full_name()))?;
    let given: Vec<_> = body.inputs.iter().filter_map(|&i| inputs[i]).collect();
    run(&body.graph, &given, dtypes)
}

/// The outputs of `graph`, of the element types `dtypes`.
fn run(graph: &Graph, inputs: &[&Array], dtypes: &[DType]) -> Result<Vec<Array>, String> {
    let facts = infer_facts(graph, &BTreeMap::new()).map_err(|it| it.to_string())?;
    let mut values: BTreeMap<_, Cow<'_, Array>> =
        graph.inputs().iter().copied().zip(inputs.iter().map(|&it| Cow::Borrowed(it))).collect();
    for (id, value) in graph.values() {
        if let Some(array) = value.constant.as_ref().and_then(Array::from_tensor) {
            values.insert(id, Cow::Owned(array));
        }
    }
    let dtype = |id: sartor_ir::ValueId| {
        // Arrays hold narrow types widened: what the outputs are is known only from outside.
        let wanted = graph.outputs().iter().position(|&it| it == id).map(|i| dtypes[i]);
        let inferred = facts[id.index()].as_ref().map(|it| it.ty.dtype);
        wanted.or(inferred).unwrap_or(DType::F32)
    };
    for (_, node) in graph.nodes() {
        let given: Vec<_> = node
            .inputs
            .iter()
            .map(|it| it.and_then(|it| values.get(&it)).map(Cow::as_ref))
            .collect();
        let wanted: Vec<_> = node.outputs.iter().flatten().map(|&it| dtype(it)).collect();
        let made = reference::evaluate(&node.op, &given, &wanted)
            .map_err(|it| format!("its {}: {it}", node.op.name()))?;
        for (&output, array) in node.outputs.iter().flatten().zip(made) {
            values.insert(output, Cow::Owned(array));
        }
    }
    let output = |it| {
        let value: Option<&Cow<'_, Array>> = values.get(it);
        value.map(|it| it.as_ref().clone()).ok_or_else(|| "an output is not made".to_owned())
    };
    graph.outputs().iter().map(output).collect()
}
