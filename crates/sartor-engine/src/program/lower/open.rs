//! Operators on quantized tensors (`QLinearConv` and its kin) between quantized values, opened into the dequantizations,
//! the operator and the quantization that they stand for, which integer kernels take as one.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{Binary, Fact, Graph, Named, Node, NodeId, Op, QuantizeLinear, ValueId, catalog};

/// Inputs that hold data, of the operators that are opened; all others are parameters.
fn data_inputs(op: &Named, count: usize) -> Vec<usize> {
    match op.name.as_str() {
        "QLinearConv" | "QLinearMatMul" => vec![0],
        _ if op.domain != "com.microsoft" => Vec::new(),
        "QLinearAdd" | "QLinearMul" => vec![0, 3],
        "QLinearConcat" => (2..count).step_by(3).collect(),
        "QLinearAveragePool"
        | "QLinearGlobalAveragePool"
        | "QLinearLeakyRelu"
        | "QLinearSigmoid" => {
            vec![0]
        }
        _ => Vec::new(),
    }
}

/// The graph with such operators opened; `None` if there are none. Their values keep their ids.
pub(super) fn opened(
    graph: &Graph,
    facts: &[Option<Fact>],
    wanted: &BTreeSet<ValueId>,
) -> Option<Graph> {
    let mut quantized = BTreeSet::new();
    let mut made: Option<Graph> = None;
    for (id, node) in graph.nodes() {
        if let Op::QuantizeLinear(_) = node.op {
            quantized.insert(node.output());
        }
        let Op::Named(op) = &node.op else { continue };
        let data = data_inputs(op, node.inputs.len());
        let fits = |(i, input): (usize, &Option<ValueId>)| match input {
            Some(it) if data.contains(&i) => quantized.contains(it),
            Some(it) => graph.constant(*it).is_some(),
            None => true,
        };
        if data.is_empty()
            || wanted.contains(&node.output())
            || !node.inputs.iter().enumerate().all(fits)
        {
            continue;
        }
        let target = made.get_or_insert_with(|| graph.clone());
        if open(target, facts, id, op).is_some() {
            quantized.insert(node.output());
        } else {
            // A node that was half opened is of no use: the others are left as they are too.
            return None;
        }
    }
    let mut made = made?;
    made.sort().ok()?;
    Some(made)
}

fn open(graph: &mut Graph, facts: &[Option<Fact>], id: NodeId, op: &Named) -> Option<()> {
    let node = graph.node(id).clone();
    match op.name.as_str() {
        "QLinearConv" | "QLinearMatMul" => product(graph, id, &node, op),
        _ => inline(graph, facts, id, &node, op),
    }
}

/// Appends a node that makes one new value.
fn apply(graph: &mut Graph, like: &Node, op: Op, inputs: Vec<Option<ValueId>>) -> Option<ValueId> {
    let made = graph.add_value(&graph.fresh_name(&like.name), None).ok()?;
    push(graph, like, op, inputs, made)?;
    Some(made)
}

/// Appends a node that makes an existing value.
fn push(
    graph: &mut Graph,
    like: &Node,
    op: Op,
    inputs: Vec<Option<ValueId>>,
    made: ValueId,
) -> Option<()> {
    let outputs = vec![Some(made)];
    let (name, doc) = (like.name.clone(), String::new());
    graph.push_node(Node { name, doc, op, inputs, outputs, captures: Vec::new() }).ok()?;
    Some(())
}

/// Products: `x, x scale, x zero, w, w scale, w zero, y scale, y zero, B?`; the bias has the scale of the product.
fn product(graph: &mut Graph, id: NodeId, node: &Node, op: &Named) -> Option<()> {
    let input = |i: usize| node.input(i);
    let conv = op.name == "QLinearConv";
    let core = if conv {
        let mut attrs = op.attributes.clone();
        if attrs.flag("channels_last", false).ok()? {
            return None;
        }
        Op::Conv(catalog::conv_of(&Named { attributes: attrs, ..op.clone() }).ok()?)
    } else {
        Op::MatMul
    };
    graph.remove_node(id);
    let back = |axis| Op::DequantizeLinear(QuantizeLinear::along(axis));
    let x = apply(graph, node, back(1), vec![input(0), input(1), input(2)])?;
    let axis = if conv { 0 } else { -1 };
    let w = apply(graph, node, back(axis), vec![input(3), input(4), input(5)])?;
    let mut inputs = vec![Some(x), Some(w)];
    if conv && input(8).is_some() {
        let step = apply(graph, node, Op::Binary(Binary::Mul), vec![input(1), input(4)])?;
        inputs.push(Some(apply(graph, node, back(0), vec![input(8), Some(step)])?));
    }
    let sum = apply(graph, node, core, inputs)?;
    let there = Op::QuantizeLinear(QuantizeLinear::along(1));
    push(graph, node, there, vec![Some(sum), input(6), input(7)], node.output())
}

/// The graph that the operator stands for, in its place.
fn inline(
    graph: &mut Graph,
    facts: &[Option<Fact>],
    id: NodeId,
    node: &Node,
    op: &Named,
) -> Option<()> {
    let ty = |it: &Option<ValueId>| facts[(*it)?.index()].as_ref().map(|it| it.ty.clone());
    let types: Vec<_> = node.inputs.iter().map(ty).collect();
    let given: Vec<_> = types.iter().map(Option::as_ref).collect();
    let body = catalog::through_floats(op, &given, 1).ok()??;
    graph.remove_node(id);
    let outside = body.inputs.iter().map(|&i| node.input(i));
    let mut known: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (&inner, outer) in body.graph.inputs().iter().zip(outside) {
        known.insert(inner, outer?);
    }
    for (inner, value) in body.graph.values() {
        if let Some(tensor) = &value.constant {
            known.insert(inner, graph.add_fresh_constant(&node.name, tensor.clone()));
        }
    }
    known.insert(*body.graph.outputs().first()?, node.output());
    for (_, it) in body.graph.nodes() {
        let inputs = it.inputs.iter().map(|it| it.and_then(|it| known.get(&it).copied())).collect();
        if let [Some(made)] = it.outputs[..] {
            let outer = match known.get(&made) {
                Some(&outer) => outer,
                None => graph.add_value(&graph.fresh_name(&node.name), None).ok()?,
            };
            known.insert(made, outer);
            push(graph, node, it.op.clone(), inputs, outer)?;
        } else {
            return None;
        }
    }
    Some(())
}
