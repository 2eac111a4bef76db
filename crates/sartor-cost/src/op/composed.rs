//! Operators that are defined by others: fused ones, and those on quantized operands.

use std::collections::BTreeMap;

use sartor_ir::{Graph, Named, Node, Op, ValueId, catalog, infer_facts};

use super::{Product, Work, work as work_of};
use crate::shapes::Shapes;

/// The work of the operators that `op` stands for; `None` if a shape is not known. What stays inside is neither read nor written.
pub(super) fn work(op: &Named, node: &Node, shapes: &Shapes) -> Option<Work> {
    let types: Vec<_> = node.inputs.iter().map(|it| it.and_then(|it| shapes.ty(it))).collect();
    let given: Vec<_> = types.iter().map(Option::as_ref).collect();
    let body = catalog::composed(op, &given, node.outputs.len()).ok()??;
    let facts = infer_facts(&body.graph, &BTreeMap::new()).ok()?;
    let inside = Shapes::of(facts);
    let mut all =
        Work { products: Vec::new(), per_element: 0.0, inner: Vec::new(), partial: false };
    for (_, part) in body.graph.nodes() {
        let Some(one) = work_of(part, &inside) else { continue };
        let outer = |i: usize| outer_input(&body, part.input(i)).unwrap_or(usize::MAX);
        all.products.extend(one.products.iter().map(|it| Product {
            weights: outer(it.weights),
            moving: outer(it.moving),
            bias_input: outer(it.bias_input),
            ..*it
        }));
        all.inner.extend(one.inner);
        if let (true, Some(name)) = (one.products.is_empty(), static_name(&part.op)) {
            let elements = inside.elements(part.output()).unwrap_or(0);
            all.inner.push((name, (elements as f64 * one.per_element) as u64));
        }
    }
    Some(all)
}

/// The input of the outer node from which `value` comes, through operators that only change its form.
fn outer_input(body: &catalog::Composed, value: Option<ValueId>) -> Option<usize> {
    let graph: &Graph = &body.graph;
    let mut at = value?;
    while let Some(maker) = graph.producer(at) {
        at = graph.node(maker).input(0)?;
    }
    let given = graph.inputs().iter().position(|&it| it == at)?;
    body.inputs.get(given).copied()
}

/// The name of an operator whose steps a chip may price.
fn static_name(op: &Op) -> Option<&'static str> {
    const NAMES: [&str; 16] = [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Relu",
        "LeakyRelu",
        "Sigmoid",
        "Tanh",
        "Softmax",
        "Gelu",
        "Swish",
        "Clip",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "LayerNormalization",
    ];
    NAMES.into_iter().find(|it| *it == op.name())
}
