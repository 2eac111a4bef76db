//! Graphs without operators that are made of others.

use std::collections::BTreeMap;

use super::composed::{Composed, composed};
use crate::{Fact, Graph, InferError, Node, NodeId, Op, TensorType, ValueId, infer_facts};

/// A composition may be made of compositions, which are expanded in turn; more rounds mean that one is made
/// of itself.
const MOST_ROUNDS: usize = 8;

/// `graph` with the nodes that operators stand for in place of those operators; `None` if there are none.
/// Every value keeps its id. `types` replaces declared types of graph inputs, as in [`infer_facts`].
///
/// Narrow floats stay as they are: a fused operator rounds its result to them once, its parts each theirs.
/// So does an operator whose parts depend on what is not known.
///
/// # Errors
/// As [`infer_facts`].
pub fn expanded(
    graph: &Graph,
    types: &BTreeMap<ValueId, TensorType>,
) -> Result<Option<Graph>, InferError> {
    let mut made: Option<Graph> = None;
    for _ in 0..MOST_ROUNDS {
        let current = made.as_ref().unwrap_or(graph);
        let any = current
            .nodes()
            .any(|(_, it)| matches!(&it.op, Op::Named(op) if super::is_composed(op)));
        if !any {
            break;
        }
        let facts = infer_facts(current, types)?;
        let bodies: Vec<_> =
            current.nodes().filter_map(|(id, node)| Some((id, body_of(node, &facts)?))).collect();
        if bodies.is_empty() {
            break;
        }
        let mut next = current.clone();
        for (id, body) in bodies {
            inline(&mut next, id, &body);
        }
        // What was a graph without cycles is one still.
        if next.sort().is_err() {
            break;
        }
        made = Some(next);
    }
    Ok(made)
}

/// The graph that the operator of `node` stands for, if it is to be expanded.
fn body_of(node: &Node, facts: &[Option<Fact>]) -> Option<Composed> {
    let Op::Named(op) = &node.op else { return None };
    let mut types = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        let Some(input) = input else {
            types.push(None);
            continue;
        };
        let ty = &facts[input.index()].as_ref()?.ty;
        if ty.dtype.is_narrow_float() {
            return None;
        }
        types.push(Some(ty));
    }
    composed(op, &types, node.outputs.len()).ok().flatten()
}

/// Puts the nodes of `body` in place of node `id`.
fn inline(graph: &mut Graph, id: NodeId, body: &Composed) {
    let node = graph.remove_node(id);
    let mut here: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (&inner, &at) in body.graph.inputs().iter().zip(&body.inputs) {
        if let Some(outer) = node.inputs[at] {
            here.insert(inner, outer);
        }
    }
    for (&inner, &outer) in body.graph.outputs().iter().zip(&node.outputs) {
        if let Some(outer) = outer {
            here.insert(inner, outer);
        }
    }
    let stem = node.outputs.iter().flatten().next().map(|&it| graph.value(it).name.clone());
    let stem = stem.unwrap_or_default();
    for (inner, value) in body.graph.values() {
        if here.contains_key(&inner) {
            continue;
        }
        let outer = if let Some(tensor) = &value.constant {
            graph.add_fresh_constant(&stem, tensor.clone())
        } else {
            let name = graph.fresh_name(&stem);
            graph.add_value(&name, None).expect("the name is fresh")
        };
        here.insert(inner, outer);
    }
    let mapped = |list: &[Option<ValueId>]| list.iter().map(|it| it.map(|it| here[&it])).collect();
    for (_, part) in body.graph.nodes() {
        let part = Node {
            name: node.name.clone(),
            inputs: mapped(&part.inputs),
            outputs: mapped(&part.outputs),
            ..part.clone()
        };
        graph.push_node(part).expect("a value that nobody made yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attr, Attrs, DType, Named, Tensor};

    #[test]
    fn a_fused_convolution_comes_apart_and_keeps_its_values() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::fixed(DType::F32, &[1, 2, 4, 4])).unwrap();
        let w = graph.add_constant("w", Tensor::from_f32(&[3, 2, 1, 1], &[1.0; 6])).unwrap();
        let attributes = Attrs::new()
            .with("activation", Attr::Str("Clip".into()))
            .with("activation_params", Attr::Floats(vec![0.0, 6.0]));
        let op = Named {
            domain: "com.microsoft".into(),
            name: "FusedConv".into(),
            version: 1,
            attributes,
        };
        let y = graph.add_node("fused", Op::Named(op), &[x, w], &["y"]).unwrap()[0];
        graph.set_outputs(vec![y]);
        let made = expanded(&graph, &BTreeMap::new()).unwrap().unwrap();
        let names: Vec<_> = made.nodes().map(|(_, it)| it.op.name()).collect();
        assert_eq!(names, ["Conv", "Clip"]);
        assert_eq!(made.outputs(), [y]);
        assert!(crate::verify(&made).is_ok());
        let facts = infer_facts(&made, &BTreeMap::new()).unwrap();
        assert_eq!(facts[y.index()].as_ref().unwrap().ty.to_string(), "f32[1,3,4,4]");
        assert!(expanded(&made, &BTreeMap::new()).unwrap().is_none());
    }
}
