//! Control flow, unrolled into the graph: the body of a branch or of one trip of a loop stands where the operator stood.

use std::{borrow::Cow, collections::BTreeMap};

use sartor_ir::{
    Attr, Binary, Graph, Named, Node, NodeId, Op, Subgraph, Tensor, TensorType, Unary, ValueId,
};

use crate::{CostError, op::work, shapes::Shapes};

/// A graph without control flow.
#[derive(Clone)]
pub(crate) struct Flat<'g> {
    pub(crate) graph: Cow<'g, Graph>,
    /// By node of a body: the operator of the original graph, and the trips of the loops around it.
    origins: BTreeMap<NodeId, (NodeId, u64)>,
}

impl Flat<'_> {
    /// The node of the original graph for which `node` stands.
    pub(crate) fn origin(&self, node: NodeId) -> NodeId {
        self.origins.get(&node).map_or(node, |it| it.0)
    }

    /// How often `node` runs in one inference.
    pub(crate) fn repeats(&self, node: NodeId) -> u64 {
        self.origins.get(&node).map_or(1, |it| it.1)
    }
}

/// No network nests deeper, and a loop here must end.
const MOST_BODIES: usize = 1000;

/// Replaces `If`, `Loop` and `Scan`: of branches the one whose condition is known, else the one that multiplies (or else computes)
/// more; of loops one trip, which counts as often as the trip count says, if it is known. Also says what was assumed.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn flatten(graph: &Graph, batch: usize) -> Result<(Flat<'_>, Vec<String>), CostError> {
    let mut flat = Flat { graph: Cow::Borrowed(graph), origins: BTreeMap::new() };
    let mut assumed = Vec::new();
    for _ in 0..MOST_BODIES {
        let control = flat.graph.nodes().find_map(|(id, node)| Some((id, control(node)?.clone())));
        let Some((id, op)) = control else { break };
        let (shapes, _) = Shapes::infer(&flat.graph, batch)?;
        let node = flat.graph.node(id).clone();
        let inlined = match op.name.as_str() {
            "If" => branch(&op, &flat.graph, &node, &shapes, &mut assumed),
            name => trip(&op, &node, &shapes, name == "Loop", &mut assumed),
        };
        let Some(inlined) = inlined else {
            assumed.push(format!(
                "the body of `{}` ({}) is not known and counts nothing",
                node.name, op.name
            ));
            flat.graph.to_mut().remove_node(id);
            declare(&mut flat, &node, &shapes);
            continue;
        };
        inlined.put(&mut flat, id, &node, &shapes);
    }
    Ok((flat, assumed))
}

fn control(node: &Node) -> Option<&Named> {
    match &node.op {
        Op::Named(it) if matches!(it.name.as_str(), "If" | "Loop" | "Scan") => Some(it),
        _ => None,
    }
}

fn body<'a>(op: &'a Named, name: &str) -> Option<&'a Subgraph> {
    match op.attributes.get(name) {
        Some(Attr::Graph(it)) => Some(it),
        _ => None,
    }
}

/// A body, and how its values go with those outside.
struct Inlined<'a> {
    body: &'a Graph,
    /// By input of the body: the value outside, or what stands for it.
    inputs: Vec<Input>,
    /// By output of the node: the output of the body that it is, if it is one.
    outputs: Vec<Option<usize>>,
    repeats: u64,
}

enum Input {
    Outer(ValueId),
    Constant(Tensor),
    /// A part of a value outside, of this type.
    Typed(Option<TensorType>),
}

/// What a condition says, if that is known ahead.
fn truth(graph: &Graph, shapes: &Shapes, value: ValueId) -> Option<bool> {
    if let Some(known) = shapes.integers(value) {
        return known.first().map(|it| *it != 0);
    }
    let node = graph.node(graph.producer(value)?);
    let input = || truth(graph, shapes, node.input(0)?);
    match &node.op {
        Op::Unary(Unary::Not) => input().map(|it| !it),
        Op::Cast(_) | Op::Identity | Op::Squeeze | Op::Reshape(_) => input(),
        Op::Binary(Binary::Equal) => {
            let side = |i: usize| number(graph, shapes, node.input(i)?);
            Some(side(0)? == side(1)?)
        }
        _ => None,
    }
}

/// The first element of `value`, if it is known ahead.
fn number(graph: &Graph, shapes: &Shapes, value: ValueId) -> Option<i64> {
    if let Some(known) = shapes.integers(value) {
        return known.first().copied();
    }
    let node = graph.node(graph.producer(value)?);
    match &node.op {
        Op::Size => i64::try_from(shapes.elements(node.input(0)?)?).ok(),
        Op::Cast(_) | Op::Identity => number(graph, shapes, node.input(0)?),
        _ => None,
    }
}

fn branch<'a>(
    op: &'a Named,
    graph: &Graph,
    node: &Node,
    shapes: &Shapes,
    assumed: &mut Vec<String>,
) -> Option<Inlined<'a>> {
    let (then, other) = (body(op, "then_branch")?, body(op, "else_branch")?);
    let known = node.input(0).and_then(|it| truth(graph, shapes, it));
    let dearer = || weight(then, node, shapes) >= weight(other, node, shapes);
    let chosen = known.unwrap_or_else(dearer);
    if known.is_none() {
        assumed.push(format!(
            "`{}` (If) takes its {} branch, the dearer one: its condition is not known ahead",
            node.name,
            if chosen { "then" } else { "else" }
        ));
    }
    let body = &if chosen { then } else { other }.graph;
    Some(Inlined {
        body,
        inputs: node.captures.iter().map(|&it| Input::Outer(it)).collect(),
        outputs: (0..node.outputs.len()).map(Some).collect(),
        repeats: 1,
    })
}

/// How dear a body is: its products, then its elements.
fn weight(body: &Subgraph, node: &Node, shapes: &Shapes) -> (u64, u64) {
    let mut graph = (*body.graph).clone();
    for (&inner, &outer) in body.graph.inputs().iter().zip(&node.captures) {
        graph.set_type(inner, shapes.ty(outer));
    }
    let Ok(facts) = sartor_ir::infer_facts(&graph, &BTreeMap::new()) else { return (0, 0) };
    let inside = Shapes::of(facts);
    let mut sum = (0u64, 0u64);
    for (_, part) in graph.nodes() {
        if let Some(nested) = control(part) {
            for name in ["then_branch", "else_branch", "body"] {
                let Some(it) = self::body(nested, name) else { continue };
                let more = weight(it, part, &inside);
                sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
            }
            continue;
        }
        sum.0 = sum.0.saturating_add(work(part, &inside).map_or(0, |it| it.macs()));
        sum.1 = sum.1.saturating_add(inside.elements(part.output()).unwrap_or(0));
    }
    sum
}

fn trip<'a>(
    op: &'a Named,
    node: &Node,
    shapes: &Shapes,
    is_loop: bool,
    assumed: &mut Vec<String>,
) -> Option<Inlined<'a>> {
    let body = body(op, "body")?;
    let formal = body.graph.inputs().len().checked_sub(body.captures)?;
    let mut inputs = Vec::with_capacity(formal + node.captures.len());
    let trips;
    if is_loop {
        trips = node.input(0).and_then(|it| shapes.integers(it)?.first().copied());
        inputs.push(Input::Constant(Tensor::from_i64(&[], &[0])));
        inputs.push(Input::Typed(Some(TensorType::fixed(sartor_ir::DType::Bool, &[]))));
        for i in 2..formal {
            inputs.push(node.input(i).map_or(Input::Typed(None), Input::Outer));
        }
    } else {
        let scanned = usize::try_from(op.int("num_scan_inputs", 0).ok()?).ok()?;
        let states = formal.checked_sub(scanned)?;
        let mut length = None;
        for i in 0..formal {
            let outer = node.input(i)?;
            if i < states {
                inputs.push(Input::Outer(outer));
                continue;
            }
            let axes = op.ints("scan_input_axes").ok()?.unwrap_or_default();
            let axis = axes.get(i - states).copied().unwrap_or(0);
            let slice = shapes.ty(outer).and_then(|it| {
                let mut dims = it.dims()?;
                let axis = sartor_ir::normalize_axis(axis, dims.len()).ok()?;
                length = Some(dims.remove(axis) as i64);
                Some(TensorType::fixed(it.dtype, &dims))
            });
            inputs.push(Input::Typed(slice));
        }
        trips = length;
    }
    inputs.extend(node.captures.iter().map(|&it| Input::Outer(it)));
    let repeats = trips.and_then(|it| u64::try_from(it).ok());
    if repeats.is_none() {
        let (name, kind) = (&node.name, &op.name);
        assumed.push(format!(
            "`{name}` ({kind}) counts as one trip: its trip count is not known ahead"
        ));
    }
    let carried = if is_loop {
        formal.checked_sub(2)?
    } else {
        formal - op.int("num_scan_inputs", 0).ok()? as usize
    };
    let outputs = (0..node.outputs.len())
        .map(|i| (i < carried).then_some(if is_loop { i + 1 } else { i }))
        .collect();
    Some(Inlined { body: &body.graph, inputs, outputs, repeats: repeats.unwrap_or(1).max(1) })
}

impl Inlined<'_> {
    /// Puts the body in place of the node `id`.
    fn put(self, flat: &mut Flat<'_>, id: NodeId, node: &Node, shapes: &Shapes) {
        let (origin, around) = (flat.origin(id), flat.repeats(id));
        let graph = flat.graph.to_mut();
        graph.remove_node(id);
        let mut inside: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        for (&inner, input) in self.body.inputs().iter().zip(self.inputs) {
            let outer = match input {
                Input::Outer(it) => it,
                Input::Constant(it) => graph.add_fresh_constant("trip", it),
                Input::Typed(ty) => {
                    fresh(graph, "slice", ty.or_else(|| self.body.value(inner).ty.clone()))
                }
            };
            inside.insert(inner, outer);
        }
        for (inner, value) in self.body.values() {
            inside.entry(inner).or_insert_with(|| match &value.constant {
                Some(tensor) => graph.add_fresh_constant(&value.name, tensor.clone()),
                None => fresh(graph, &value.name, None),
            });
        }
        for (_, part) in self.body.nodes() {
            let map = |it: &Option<ValueId>| it.map(|it| inside[&it]);
            let copy = Node {
                name: format!("{}/{}", node.name, part.name),
                doc: String::new(),
                op: part.op.clone(),
                inputs: part.inputs.iter().map(map).collect(),
                outputs: part.outputs.iter().map(map).collect(),
                captures: part.captures.iter().map(|it| inside[it]).collect(),
            };
            if let Ok(made) = graph.push_node(copy) {
                flat.origins.insert(made, (origin, around.saturating_mul(self.repeats)));
            }
        }
        for (output, made) in node.outputs.iter().zip(&self.outputs) {
            let Some(output) = output else { continue };
            if let Some(inner) = made.and_then(|it| self.body.outputs().get(it)) {
                redirect(graph, *output, inside[inner]);
            } else {
                let ty = shapes.ty(*output);
                graph.set_type(*output, ty);
            }
        }
        // The bodies of a verified graph have no cycles.
        let _ = graph.sort();
    }
}

/// Lets all readers of `from`, bodies included, read `to`.
fn redirect(graph: &mut Graph, from: ValueId, to: ValueId) {
    graph.replace_uses(from, to, true);
    let capturing: Vec<NodeId> =
        graph.nodes().filter(|it| it.1.captures.contains(&from)).map(|it| it.0).collect();
    for id in capturing {
        graph.node_mut(id).captures.iter_mut().filter(|it| **it == from).for_each(|it| *it = to);
    }
}

/// Outputs of an operator that was taken out keep the types that are known.
fn declare(flat: &mut Flat<'_>, node: &Node, shapes: &Shapes) {
    for &output in node.outputs.iter().flatten() {
        let ty = shapes.ty(output);
        flat.graph.to_mut().set_type(output, ty);
    }
}

fn fresh(graph: &mut Graph, stem: &str, ty: Option<TensorType>) -> ValueId {
    let name = graph.fresh_name(stem);
    graph.add_value(&name, ty).expect("a fresh name is free")
}
