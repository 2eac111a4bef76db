//! Removal of nodes that compute nothing.

use crate::{Fidelity, Graph, GraphError, NodeId, Op, Pass, ValueId};

/// Removes `Identity`, inference `Dropout` (whose mask nobody reads), `Cast` to the same type, and
/// `Reshape`, `Transpose` or `Expand` that change nothing. A node between a graph input (or constant) and a
/// graph output stays, because the output's name must be made by something; so does one whose output a
/// subgraph reads by name.
pub struct RemoveIdentity;

impl Pass for RemoveIdentity {
    fn id(&self) -> &'static str {
        "remove-identity"
    }

    fn fidelity(&self) -> Fidelity {
        Fidelity::Exact
    }

    fn run(&self, graph: &mut Graph) -> Result<usize, GraphError> {
        let candidates: Vec<NodeId> =
            graph.nodes().filter(|(id, _)| is_identity(graph, *id)).map(|it| it.0).collect();
        let mut changes = 0;
        for id in candidates {
            let node = graph.node(id);
            let (Some(input), output) = (node.input(0), node.output()) else { continue };
            if graph.is_captured(output) {
                continue;
            }
            if graph.outputs().contains(&output) {
                changes += usize::from(hand_over_name(graph, id, input, output)?);
            } else {
                graph.replace_uses(output, input, false);
                graph.remove_node(id);
                changes += 1;
            }
        }
        Ok(changes)
    }
}

/// Lets the maker of `input` make the graph output itself, if nothing else shows or captures `input`.
fn hand_over_name(
    graph: &mut Graph,
    id: NodeId,
    input: ValueId,
    output: ValueId,
) -> Result<bool, GraphError> {
    let Some(maker) = graph.producer(input) else { return Ok(false) };
    if graph.outputs().contains(&input) || graph.is_captured(input) {
        return Ok(false);
    }
    graph.remove_node(id);
    let mut node = graph.remove_node(maker);
    for it in node.outputs.iter_mut().filter(|it| **it == Some(input)) {
        *it = Some(output);
    }
    graph.push_node(node)?;
    graph.replace_uses(input, output, false);
    graph.sort()?;
    Ok(true)
}

fn is_identity(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let ty = |it: Option<ValueId>| it.and_then(|it| graph.value(it).ty.as_ref());
    let (from, to) = (ty(node.input(0)), ty(node.outputs[0]));
    match &node.op {
        Op::Identity => true,
        Op::Dropout => {
            let mask = node.outputs.get(1).copied().flatten();
            let training = graph
                .constant_input(node, 2)
                .is_some_and(|it| it.to_i64().is_ok_and(|it| it == [1]));
            let dynamic = node.input(2).is_some() && graph.constant_input(node, 2).is_none();
            !training && !dynamic && mask.is_none_or(|it| !graph.is_used(it, &graph.consumers()))
        }
        Op::Cast(_) | Op::Expand | Op::Reshape(_) => {
            let exact = from.zip(to).is_some_and(|(from, to)| from == to && to.shape.is_some());
            let unknown = to
                .and_then(|it| it.shape.as_ref())
                .is_none_or(|it| it.contains(&crate::Dim::Unknown));
            let elementwise = matches!(node.op, Op::Cast(_));
            exact && (elementwise || !unknown)
        }
        Op::Transpose(it) => it.perm.iter().copied().eq(0..it.perm.len()) && !it.perm.is_empty(),
        _ => false,
    }
}
