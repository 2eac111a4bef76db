//! Folding of what follows from constants alone.

use crate::{Evaluate, Fact, Fidelity, Graph, GraphError, NodeId, Op, Pass, Tensor, infer_facts};

/// Replaces nodes whose outputs follow from constants, or from static shapes, by constants. `evaluate` has
/// the kernels; without it only integer (shape) arithmetic is folded.
pub struct FoldConstants<'a> {
    /// The kernels.
    pub evaluate: Option<&'a dyn Evaluate>,
    /// Outputs of more elements than this stay computed: a folded `Expand` may be far larger than its graph.
    pub largest: usize,
}

impl Pass for FoldConstants<'_> {
    fn id(&self) -> &'static str {
        "fold-constants"
    }

    fn fidelity(&self) -> Fidelity {
        Fidelity::Exact
    }

    fn run(&self, graph: &mut Graph) -> Result<usize, GraphError> {
        let facts = infer_facts(graph, &std::collections::BTreeMap::new()).unwrap_or_default();
        let mut changes = 0;
        let ids: Vec<NodeId> = graph.nodes().map(|it| it.0).collect();
        for id in ids {
            if let Some(tensors) = self.fold(graph, id, &facts) {
                let node = graph.remove_node(id);
                for (output, tensor) in node.outputs.iter().zip(tensors) {
                    if let Some(output) = output {
                        graph.set_constant(*output, tensor);
                    }
                }
                changes += 1;
            }
        }
        Ok(changes)
    }
}

impl FoldConstants<'_> {
    fn fold(&self, graph: &Graph, id: NodeId, facts: &[Option<Fact>]) -> Option<Vec<Tensor>> {
        let node = graph.node(id);
        // A dequantized weight stays quantized in the file; a graph output keeps its maker.
        let keeps =
            matches!(node.op, Op::Named(_) | Op::DequantizeLinear(_) | Op::QuantizeLinear(_));
        if keeps || node.outputs.iter().flatten().any(|it| graph.outputs().contains(it)) {
            return None;
        }
        if let [Some(output)] = node.outputs.as_slice()
            && let Some(fact) = facts.get(output.index())?
            && let Some(tensor) = fact.value.as_ref().and_then(|it| it.to_tensor(fact.ty.dtype))
        {
            return Some(vec![tensor]);
        }
        node.inputs.iter().flatten().next()?;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            inputs.push(match input {
                None => None,
                Some(it) => Some(graph.constant(*it)?),
            });
        }
        let sizes =
            node.outputs.iter().flatten().map(|it| facts.get(it.index())?.as_ref()?.ty.dims());
        let total: usize =
            sizes.map(|it| it.map(|it| it.iter().product::<usize>())).sum::<Option<usize>>()?;
        if total > self.largest {
            return None;
        }
        self.evaluate?.evaluate(&node.op, &inputs)
    }
}
