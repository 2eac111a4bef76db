//! Removal of nodes whose outputs nobody reads.

use crate::{Fidelity, Graph, GraphError, Pass};

/// Removes nodes that no graph output depends on.
pub struct DeadCode;

impl Pass for DeadCode {
    fn id(&self) -> &'static str {
        "dead-code"
    }

    fn fidelity(&self) -> Fidelity {
        Fidelity::Exact
    }

    fn run(&self, graph: &mut Graph) -> Result<usize, GraphError> {
        let mut live = vec![false; graph.value_count()];
        for &output in graph.outputs() {
            live[output.index()] = true;
        }
        let mut dead = Vec::new();
        for (id, node) in graph.nodes().rev() {
            if node.outputs.iter().flatten().any(|it| live[it.index()]) {
                node.reads().for_each(|it| live[it.index()] = true);
            } else {
                dead.push(id);
            }
        }
        for &id in &dead {
            graph.remove_node(id);
        }
        Ok(dead.len())
    }
}
