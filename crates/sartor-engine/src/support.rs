//! What the engine can run, said before any work is done.

use std::collections::BTreeMap;

use sartor_ir::{
    Binary, DType, Dim, Fact, Graph, Op, PoolKind, ReduceKind, TensorType, Unary, ValueId,
    Variadic, infer_facts,
};

use crate::{
    EngineError, Unsupported,
    array::storage,
    error::node_name,
    reference::{named, quantize},
};

/// The nodes that the engine cannot run, with reasons; element types that are not known yet are not judged.
pub fn check_support(graph: &Graph) -> Vec<Unsupported> {
    let facts =
        infer_facts(graph, &BTreeMap::new()).unwrap_or_else(|_| vec![None; graph.value_count()]);
    let dtype = |it: &Option<ValueId>| it.and_then(|it| declared(graph, &facts, it));
    let mut found = Vec::new();
    for (_, node) in graph.nodes() {
        let inputs: Vec<_> = node.inputs.iter().map(dtype).collect();
        let outputs: Vec<_> = node.outputs.iter().filter_map(dtype).collect();
        if let Some(reason) = unsupported(&node.op, &inputs, &outputs) {
            found.push(Unsupported {
                node: node_name(graph, node),
                op: node.op.name().to_owned(),
                reason,
            });
        }
    }
    found
}

fn declared(graph: &Graph, facts: &[Option<Fact>], id: ValueId) -> Option<DType> {
    let inferred = facts[id.index()].as_ref().map(|it| it.ty.dtype);
    inferred.or_else(|| graph.value(id).ty.as_ref().map(|it| it.dtype))
}

/// Why there is no kernel for `op` on these element types.
pub(crate) fn unsupported(op: &Op, inputs: &[Option<DType>], outputs: &[DType]) -> Option<String> {
    if let Op::Named(it) = op {
        if named::knows(it) {
            return None;
        }
        let domain = if it.domain.is_empty() { "ai.onnx" } else { &it.domain };
        return Some(format!(
            "the engine does not know the operator `{}` of domain `{domain}`",
            it.name
        ));
    }
    let types: Vec<DType> =
        inputs.iter().flatten().copied().chain(outputs.iter().copied()).collect();
    if let Some(bad) = types.iter().find(|it| storage(**it).is_none()) {
        return Some(format!("there is no kernel for elements of type {bad}"));
    }
    let given = |i: usize| inputs.get(i).copied().flatten().and_then(storage);
    let first = given(0);
    let same = |a: Option<DType>, b: Option<DType>| a.is_none() || b.is_none() || a == b;
    let joint = (1..inputs.len()).all(|i| same(first, given(i)));
    let float = first.is_none_or(DType::is_float);
    let bool = first == Some(DType::Bool);
    let fits = match op {
        Op::Conv(_) | Op::Gemm(_) | Op::MatMul | Op::PRelu => joint && !bool,
        Op::BatchNormalization(_) | Op::Softmax(_) | Op::LogSoftmax(_) | Op::GlobalPool(_) => float,
        Op::Pool(it) => float || it.kind == PoolKind::Max && !bool,
        Op::Unary(it) => match it {
            Unary::Not => float || bool,
            Unary::Abs | Unary::Neg | Unary::Sign | Unary::Relu => !bool,
            _ => float,
        },
        Op::Binary(it) => {
            let logical = matches!(it, Binary::And | Binary::Or | Binary::Xor);
            let typed = match first {
                Some(DType::Bool) => logical || *it == Binary::Equal,
                None => true,
                Some(_) => !logical,
            };
            typed && (*it == Binary::Pow || same(first, given(1)))
        }
        Op::Variadic(it) => joint && !bool && (*it != Variadic::Mean || float),
        Op::Clip => !bool && joint,
        Op::Where => same(first, Some(DType::Bool)) && same(given(1), given(2)),
        Op::Reduce(it) => match it.kind {
            ReduceKind::Max | ReduceKind::Min => true,
            _ => !bool,
        },
        Op::QuantizeLinear(_) => {
            outputs.first().is_none_or(|it| quantize::limits(*it).is_some() || it.is_narrow_float())
        }
        Op::DequantizeLinear(_) => given(1).is_none_or(DType::is_float),
        _ => true,
    };
    if fits {
        return None;
    }
    let names: Vec<_> = inputs.iter().flatten().map(ToString::to_string).collect();
    Some(format!("there is no kernel for inputs of types {}", names.join(", ")))
}

/// The declared types of the graph inputs with these shapes.
pub(crate) fn input_types(
    graph: &Graph,
    shapes: &[Vec<usize>],
) -> Result<BTreeMap<ValueId, TensorType>, EngineError> {
    if shapes.len() != graph.inputs().len() {
        return Err(EngineError::InputCount {
            expected: graph.inputs().len(),
            found: shapes.len(),
        });
    }
    let mut types = BTreeMap::new();
    for (&id, shape) in graph.inputs().iter().zip(shapes) {
        let value = graph.value(id);
        let Some(declared) = &value.ty else {
            return Err(EngineError::Undefined(value.name.clone()));
        };
        let given = TensorType::fixed(declared.dtype, shape);
        if !given.compatible(declared) {
            let expected = declared.to_string();
            return Err(EngineError::InputShape {
                name: value.name.clone(),
                expected,
                found: shape.clone(),
            });
        }
        types.insert(id, given);
    }
    Ok(types)
}

/// The declared shapes of the graph inputs with the leading extent, where it is open, set to `batch`.
///
/// # Errors
/// [`EngineError::OpenShape`] for an input whose rank or another extent is open.
pub fn batch_shapes(graph: &Graph, batch: usize) -> Result<Vec<Vec<usize>>, EngineError> {
    let one = |&id: &ValueId| {
        let value = graph.value(id);
        let declared =
            value.ty.as_ref().map_or_else(|| "without a type".to_owned(), ToString::to_string);
        let open =
            || EngineError::OpenShape { name: value.name.clone(), declared: declared.clone() };
        let shape = value.ty.as_ref().and_then(|it| it.shape.as_ref()).ok_or_else(open)?;
        let extent = |(axis, dim): (usize, &Dim)| match dim.known() {
            Some(n) => Ok(n),
            None if axis == 0 => Ok(batch),
            None => Err(open()),
        };
        shape.iter().enumerate().map(extent).collect()
    };
    graph.inputs().iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_by_name_and_type() {
        let rnn = sartor_ir::Named {
            domain: String::new(),
            name: "Magic".into(),
            version: 17,
            attributes: sartor_ir::Attrs::new(),
        };
        let mut graph = Graph::new("g");
        let x = graph
            .add_input("x", TensorType::new(DType::I64, vec![Dim::symbol("N"), Dim::Known(4)]))
            .unwrap();
        graph.add_node("rnn", Op::Named(rnn), &[x], &["y"]).unwrap();
        graph.add_node("", Op::Softmax(sartor_ir::Softmax { axis: -1 }), &[x], &["z"]).unwrap();
        let found: Vec<_> = check_support(&graph).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "node `rnn` (Magic): the engine does not know the operator `Magic` of domain `ai.onnx`",
                "node `z` (Softmax): there is no kernel for inputs of types i64",
            ]
        );
        assert_eq!(batch_shapes(&graph, 3).unwrap(), [[3, 4]]);
        assert!(
            input_types(&graph, &[vec![3, 5]])
                .unwrap_err()
                .to_string()
                .contains("input `x` has shape [3, 5]")
        );
    }
}
