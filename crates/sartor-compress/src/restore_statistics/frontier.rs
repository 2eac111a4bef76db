//! One forward run in pieces: what later layers need is kept, so that no layer runs twice.

use std::collections::{BTreeMap, BTreeSet};

use sartor_engine::{Array, Options, Program};
use sartor_ir::{Graph, NodeId, TensorType, ValueId};

use crate::CompressError;

/// The values between what has run and what has not. Memory is bounded by the samples in `inputs` times what
/// is alive at once.
pub(crate) struct Frontier {
    known: BTreeMap<ValueId, Array>,
    done: BTreeSet<NodeId>,
}

impl Frontier {
    /// A run that begins with one array for each input of `graph`.
    pub(crate) fn new(graph: &Graph, inputs: Vec<Array>) -> Self {
        Frontier {
            known: graph.inputs().iter().copied().zip(inputs).collect(),
            done: BTreeSet::new(),
        }
    }

    /// Runs what `targets` need and has not run yet.
    pub(crate) fn advance(
        &mut self,
        graph: &Graph,
        targets: &[ValueId],
    ) -> Result<(), CompressError> {
        let open = self.open_nodes(graph, targets);
        if open.is_empty() {
            return Ok(());
        }
        let error = |it: sartor_engine::EngineError| CompressError::Run(it.to_string());
        let part = self.part(graph, &open);
        let inputs: Vec<Array> = part.inputs().iter().map(|it| self.known[it].clone()).collect();
        let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
        let program = Program::prepare(&part, &shapes, &Options::default()).map_err(error)?;
        let outputs = program.run(&inputs).map_err(error)?;
        self.known.extend(part.outputs().iter().copied().zip(outputs));
        self.done.extend(open);
        let consumers = graph.consumers();
        let (done, wanted) = (&self.done, targets);
        self.known.retain(|&id, _| {
            wanted.contains(&id) || consumers.of(id).iter().any(|it| !done.contains(&it.0))
        });
        Ok(())
    }

    /// A value that is known.
    pub(crate) fn get(&self, id: ValueId) -> Option<&Array> {
        self.known.get(&id)
    }

    /// Replaces `y` by `y * scale + shift`, channel by channel along axis 1: what a corrected layer puts out.
    pub(crate) fn correct(&mut self, id: ValueId, scale: &[f64], shift: &[f64]) {
        let Some(array) = self.known.get_mut(&id) else { return };
        let inner: usize = array.shape.iter().skip(2).product();
        let sartor_engine::Data::F32(values) = &mut array.data else { return };
        for (i, run) in values.chunks_exact_mut(inner.max(1)).enumerate() {
            let channel = i % scale.len().max(1);
            for it in run {
                *it = (f64::from(*it) * scale[channel] + shift[channel]) as f32;
            }
        }
    }

    fn open_nodes(&self, graph: &Graph, targets: &[ValueId]) -> BTreeSet<NodeId> {
        let mut open = BTreeSet::new();
        let mut stack = targets.to_vec();
        while let Some(id) = stack.pop() {
            let Some(maker) = graph.producer(id).filter(|_| !self.known.contains_key(&id)) else {
                continue;
            };
            if open.insert(maker) {
                stack.extend(graph.node(maker).reads());
            }
        }
        open
    }

    /// The nodes of `open` as a graph of their own, from the known values to all that is read elsewhere.
    fn part(&self, graph: &Graph, open: &BTreeSet<NodeId>) -> Graph {
        let mut part = graph.clone();
        let consumers = graph.consumers();
        let (mut reads, mut makes) = (BTreeSet::new(), Vec::new());
        for (id, node) in graph.nodes() {
            if !open.contains(&id) {
                part.remove_node(id);
                continue;
            }
            reads.extend(node.reads().filter(|it| self.known.contains_key(it)));
            for &output in node.outputs.iter().flatten() {
                let readers = consumers.of(output);
                if readers.is_empty() || readers.iter().any(|it| !open.contains(&it.0)) {
                    makes.push(output);
                }
            }
        }
        for &id in &reads {
            let array = &self.known[&id];
            part.set_type(id, Some(TensorType::fixed(array.dtype(), &array.shape)));
        }
        part.forget_types();
        part.set_inputs(reads.into_iter().collect());
        part.set_outputs(makes);
        part
    }
}
