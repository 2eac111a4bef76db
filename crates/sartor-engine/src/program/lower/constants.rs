//! What is computed once, when the graph is prepared.

use std::sync::Arc;

use sartor_ir::{Node, NodeId, Op, ValueId};

use super::Lowering;
use crate::{
    Array, EngineError, Unsupported, array::storage, error::node_name, reference, support,
};

impl Lowering<'_> {
    /// Computes all constants that are needed; returns the nodes that are left to run, in order.
    pub(super) fn fold_constants(&mut self) -> Result<Vec<NodeId>, EngineError> {
        let fixed = self.fixed_values();
        let (nodes, needed) = self.needed(&fixed);
        for (id, value) in self.graph.values().filter(|(id, _)| needed[id.index()]) {
            let array = match &value.constant {
                Some(_) if self.constants[id.index()].is_some() => continue,
                Some(tensor) => {
                    let refuse = || EngineError::ConstantType {
                        name: value.name.clone(),
                        dtype: tensor.dtype(),
                    };
                    Some(Array::from_tensor(tensor).ok_or_else(refuse)?)
                }
                None => self.follows_from_shapes(id),
            };
            let made = array.is_some()
                || self.graph.producer(id).is_some()
                || self.graph.inputs().contains(&id);
            if !made {
                return Err(EngineError::Undefined(value.name.clone()));
            }
            self.constants[id.index()] = array.map(Arc::new);
        }
        let mut live = Vec::new();
        for id in nodes {
            let node = self.graph.node(id);
            self.check(node)?;
            if node.outputs.iter().flatten().all(|it| fixed[it.index()]) {
                self.evaluate(node)?;
            } else {
                live.push(id);
            }
        }
        Ok(live)
    }

    /// Contents that follow from shapes alone.
    fn follows_from_shapes(&self, id: ValueId) -> Option<Array> {
        self.graph.producer(id)?;
        let fact = self.facts[id.index()].as_ref()?;
        Array::from_tensor(&fact.value.as_ref()?.to_tensor(fact.ty.dtype)?)
    }

    /// Which values do not depend on the inputs' contents.
    fn fixed_values(&self) -> Vec<bool> {
        let values = self.graph.values();
        let mut fixed: Vec<bool> = values
            .map(|(id, it)| it.constant.is_some() || self.follows_from_shapes(id).is_some())
            .collect();
        for (_, node) in self.graph.nodes() {
            let follows = !node.inputs.is_empty() && node.reads().all(|it| fixed[it.index()]);
            let known = match &node.op {
                Op::Named(it) => reference::named::knows(it),
                _ => true,
            };
            if follows && known {
                node.outputs.iter().flatten().for_each(|it| fixed[it.index()] = true);
            }
        }
        fixed
    }

    /// The nodes that must be computed, in order, and the values that are read.
    fn needed(&self, fixed: &[bool]) -> (Vec<NodeId>, Vec<bool>) {
        let mut needed = vec![false; fixed.len()];
        self.wanted.iter().for_each(|it| needed[it.index()] = true);
        let mut nodes = Vec::new();
        for (id, node) in self.graph.nodes().rev() {
            let asked =
                |it: &&ValueId| needed[it.index()] && self.follows_from_shapes(**it).is_none();
            if node.outputs.iter().flatten().any(|it| asked(&it)) {
                node.reads().for_each(|it| needed[it.index()] = true);
                nodes.push(id);
            }
        }
        nodes.reverse();
        (nodes, needed)
    }

    fn check(&self, node: &Node) -> Result<(), EngineError> {
        let dtype = |it: &Option<ValueId>| {
            it.and_then(|it| self.facts[it.index()].as_ref()).map(|it| it.ty.dtype)
        };
        let inputs: Vec<_> = node.inputs.iter().map(dtype).collect();
        let outputs: Vec<_> = node.outputs.iter().filter_map(dtype).collect();
        let refuse = |reason| {
            let (name, op) = (node_name(self.graph, node), node.op.name().to_owned());
            Err(EngineError::Unsupported(Unsupported { node: name, op, reason }))
        };
        support::unsupported(&node.op, &inputs, &outputs).map_or(Ok(()), refuse)
    }

    fn evaluate(&mut self, node: &Node) -> Result<(), EngineError> {
        let mut inputs: Vec<_> =
            (0..node.inputs.len()).map(|i| self.constant(node, i).cloned()).collect();
        inputs.extend(node.captures.iter().map(|it| self.constants[it.index()].clone()));
        let borrowed: Vec<_> = inputs.iter().map(Option::as_deref).collect();
        let dtype = |it: &Option<ValueId>| {
            it.and_then(|it| self.facts[it.index()].as_ref()).map(|it| it.ty.dtype)
        };
        let dtypes: Vec<_> =
            node.outputs.iter().map(|it| dtype(it).unwrap_or(sartor_ir::DType::F32)).collect();
        let made = reference::evaluate(&node.op, &borrowed, &dtypes).map_err(|problem| {
            EngineError::Kernel {
                node: node_name(self.graph, node),
                op: node.op.name().to_owned(),
                shapes: reference::shapes_of(&borrowed),
                problem,
            }
        })?;
        for (output, array) in node.outputs.iter().zip(made) {
            if let Some(output) = output {
                debug_assert!(storage(array.dtype()).is_some(), "arrays hold run-time types");
                self.constants[output.index()] = Some(Arc::new(array));
            }
        }
        Ok(())
    }
}
