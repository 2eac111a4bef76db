//! Names across nested graphs: what subgraphs read from outside, and walks over all their nodes.

use std::collections::BTreeSet;

use crate::{
    proto,
    tensor::{ExternalData, internalize},
};

/// The subgraphs in the attributes of a node.
pub(crate) fn subgraphs(node: &proto::Node) -> impl Iterator<Item = &proto::Graph> {
    node.attribute.iter().flat_map(|it| it.g.iter().chain(&it.graphs))
}

/// The names that the subgraphs of `node` read and do not define, in order of first use.
pub(crate) fn captures(node: &proto::Node) -> Vec<String> {
    let mut free = Vec::new();
    for graph in subgraphs(node) {
        free_names(graph, &mut free);
    }
    let mut seen = BTreeSet::new();
    free.retain(|it| seen.insert(it.clone()));
    free
}

/// Appends the free names of `graph`, nested graphs included. Nodes may stand in any order here: order
/// is not this crate's business within a carried subgraph.
fn free_names(graph: &proto::Graph, free: &mut Vec<String>) {
    let mut own: BTreeSet<&str> = graph.input.iter().map(|it| it.name.as_str()).collect();
    own.extend(graph.initializer.iter().map(|it| it.name.as_str()));
    own.extend(
        graph.sparse_initializer.iter().filter_map(|it| Some(it.values.as_ref()?.name.as_str())),
    );
    own.extend(graph.node.iter().flat_map(|it| it.output.iter().map(String::as_str)));
    let mut inner = Vec::new();
    for node in &graph.node {
        inner.extend(node.input.iter().filter(|it| !it.is_empty()).cloned());
        for nested in subgraphs(node) {
            free_names(nested, &mut inner);
        }
    }
    inner.extend(graph.output.iter().map(|it| it.name.clone()));
    free.extend(inner.into_iter().filter(|it| !own.contains(it.as_str())));
}

/// Every name that the subgraphs of `node` define or read: names that a new value must not take.
pub(crate) fn names(node: &proto::Node, taken: &mut BTreeSet<String>) {
    for graph in subgraphs(node) {
        taken.extend(graph.input.iter().chain(&graph.output).map(|it| it.name.clone()));
        taken.extend(graph.initializer.iter().map(|it| it.name.clone()));
        for inner in &graph.node {
            taken.extend(inner.input.iter().chain(&inner.output).cloned());
            names(inner, taken);
        }
    }
}

/// Visits every node of the subgraphs of `node`.
pub(crate) fn walk<'a>(node: &'a proto::Node, visit: &mut dyn FnMut(&'a proto::Node)) {
    for graph in subgraphs(node) {
        for inner in &graph.node {
            visit(inner);
            walk(inner, visit);
        }
    }
}

/// Puts the external tensors that lie inside carried attributes into the attributes themselves, so that
/// they travel on without the file.
pub(crate) fn internalize_attributes(
    node: &mut proto::Node,
    external: &dyn ExternalData,
) -> Result<(), String> {
    for attribute in &mut node.attribute {
        for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
            internalize(tensor, external)?;
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            for tensor in &mut graph.initializer {
                internalize(tensor, external)
                    .map_err(|it| format!("initializer `{}` of a subgraph: {it}", tensor.name))?;
            }
            for inner in &mut graph.node {
                internalize_attributes(inner, external)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(inputs: &[&str], outputs: &[&str], body: Option<proto::Graph>) -> proto::Node {
        let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let attribute = body.map(|it| proto::Attribute { g: Some(it), ..Default::default() });
        proto::Node {
            input: list(inputs),
            output: list(outputs),
            attribute: attribute.into_iter().collect(),
            ..Default::default()
        }
    }

    #[test]
    fn captures_respect_nested_scopes() {
        let named = |name: &str| proto::ValueInfo { name: name.into(), ..Default::default() };
        let inner = proto::Graph {
            input: vec![named("i")],
            node: vec![node(&["i", "outer", "local", ""], &["j"], None)],
            output: vec![named("j"), named("direct")],
            ..Default::default()
        };
        let body = proto::Graph {
            node: vec![node(&["a"], &["local"], None), node(&["a"], &["k"], Some(inner))],
            initializer: vec![proto::Tensor { name: "w".into(), ..Default::default() }],
            output: vec![named("k"), named("w")],
            ..Default::default()
        };
        assert_eq!(captures(&node(&["c"], &["y"], Some(body))), ["a", "outer", "direct"]);
    }
}
