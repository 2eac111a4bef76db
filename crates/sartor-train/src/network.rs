//! Networks that only answer: the teacher, and the student when it is validated.

use std::collections::BTreeMap;

use sartor_engine::{Array, EngineError, Options, Program, batch_shapes};
use sartor_ir::Graph;

use crate::{TrainError, head::Head};

/// A network prepared for every batch size that comes.
pub(crate) struct Network {
    graph: Graph,
    pub(crate) head: Head,
    /// For each of its inputs, the position among those of the student.
    order: Vec<usize>,
    programs: BTreeMap<usize, Program>,
}

impl Network {
    /// `graph`, answering at `head`, and fed as `student` is.
    ///
    /// # Errors
    /// An input that the student does not have.
    pub(crate) fn new(graph: &Graph, head: Head, student: &Graph) -> Result<Self, TrainError> {
        let names: Vec<&str> =
            student.inputs().iter().map(|it| student.value(*it).name.as_str()).collect();
        let only = names.len() == 1 && graph.inputs().len() == 1;
        let mut order = Vec::new();
        for &id in graph.inputs() {
            let name = graph.value(id).name.as_str();
            let at = names.iter().position(|it| *it == name).or(only.then_some(0));
            order.push(at.ok_or_else(|| {
                TrainError::Network(format!(
                    "the teacher's input `{name}` is none of the network's: {}",
                    names.join(", ")
                ))
            })?);
        }
        Ok(Network { graph: head.graph(graph), head, order, programs: BTreeMap::new() })
    }

    /// The numbers at the head for one batch.
    pub(crate) fn answer(&mut self, inputs: &[Array]) -> Result<Array, TrainError> {
        let count = inputs.first().and_then(|it| it.shape.first().copied()).unwrap_or(0);
        let inputs: Vec<Array> = self.order.iter().map(|&at| inputs[at].clone()).collect();
        let program = match self.programs.entry(count) {
            std::collections::btree_map::Entry::Occupied(it) => it.into_mut(),
            std::collections::btree_map::Entry::Vacant(it) => {
                let shapes = batch_shapes(&self.graph, count)?;
                it.insert(Program::prepare(&self.graph, &shapes, &Options::default())?)
            }
        };
        let answered = program.run(&inputs)?.into_iter().next();
        let missing = || EngineError::Training("a network did not answer".to_owned());
        Ok(answered.ok_or_else(missing)?)
    }
}
