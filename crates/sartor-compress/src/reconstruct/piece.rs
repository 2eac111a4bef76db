//! A segment as a graph of its own.

use std::collections::BTreeMap;

use sartor_engine::{Array, Options, Program};
use sartor_ir::{Graph, Node, Op, Tensor, TensorType, ValueId};

use super::segments::Segment;
use crate::{CompressError, calibrate::run_error};

/// A segment as a graph, and where its values are in it.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) graph: Graph,
    /// From values of the whole graph.
    pub(super) ids: BTreeMap<ValueId, ValueId>,
    pub(super) shapes: Vec<Vec<usize>>,
}

impl Piece {
    /// Copies a segment of `whole`. `constants` stand in for values of these ids, made or not; without `rounding`,
    /// quantizers are passed over. `given` are arrays of the inputs' types and shapes.
    pub(super) fn extract(
        whole: &Graph,
        segment: &Segment,
        constants: &BTreeMap<ValueId, Tensor>,
        rounding: bool,
        given: &[Array],
    ) -> Result<Self, CompressError> {
        let mut graph = Graph::new("piece");
        graph.opsets.clone_from(&whole.opsets);
        let mut ids = BTreeMap::new();
        for (&id, array) in segment.inputs.iter().zip(given) {
            let ty = TensorType::fixed(array.dtype(), &array.shape);
            ids.insert(id, graph.add_input(&whole.value(id).name, ty)?);
        }
        let mut it =
            Piece { graph, ids, shapes: given.iter().map(|it| it.shape.clone()).collect() };
        for &id in &segment.nodes {
            let node = whole.node(id);
            let passes =
                !rounding && matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_));
            if let (true, Some(input)) = (passes, node.input(0)) {
                let input = it.value(whole, input, constants)?;
                it.ids.insert(node.output(), input);
            } else {
                it.copy(whole, node, constants)?;
            }
        }
        let outputs = segment.outputs.iter().map(|id| it.ids[id]).collect();
        it.graph.set_outputs(outputs);
        Ok(it)
    }

    fn copy(
        &mut self,
        whole: &Graph,
        node: &Node,
        constants: &BTreeMap<ValueId, Tensor>,
    ) -> Result<(), CompressError> {
        let mut mapped = |id: ValueId| self.value(whole, id, constants);
        let one = |it: &Option<ValueId>| it.map(&mut mapped).transpose();
        let inputs = node.inputs.iter().map(one).collect::<Result<_, _>>()?;
        let captures = node.captures.iter().map(|&it| mapped(it)).collect::<Result<_, _>>()?;
        let mut outputs = Vec::new();
        for output in &node.outputs {
            let Some(id) = output else {
                outputs.push(None);
                continue;
            };
            let value = self.graph.add_value(&whole.value(*id).name, None)?;
            self.ids.insert(*id, value);
            outputs.push(Some(value));
        }
        self.graph.push_node(Node { inputs, outputs, captures, ..node.clone() })?;
        Ok(())
    }

    /// The value of `id`, added as a constant if it is one.
    fn value(
        &mut self,
        whole: &Graph,
        id: ValueId,
        constants: &BTreeMap<ValueId, Tensor>,
    ) -> Result<ValueId, CompressError> {
        if let Some(&known) = self.ids.get(&id) {
            return Ok(known);
        }
        let name = &whole.value(id).name;
        let tensor = constants.get(&id).cloned().or_else(|| constant(whole, id));
        let tensor = tensor
            .ok_or_else(|| CompressError::Run(format!("`{name}` is not there where it is read")))?;
        let new = self.graph.add_constant(name, tensor)?;
        self.ids.insert(id, new);
        Ok(new)
    }

    /// Prepares the piece to be run; `watch` are values of the whole graph.
    pub(super) fn program(&self, watch: &[ValueId]) -> Result<Program, CompressError> {
        let watch = watch.iter().filter_map(|it| self.ids.get(it).copied()).collect();
        let options = Options { watch, float_simulation: true };
        Program::prepare(&self.graph, &self.shapes, &options).map_err(run_error)
    }
}

/// A constant, or what dequantizing one makes.
fn constant(graph: &Graph, id: ValueId) -> Option<Tensor> {
    if let Some(tensor) = graph.constant(id) {
        return Some(tensor.clone());
    }
    let node = graph.node(graph.producer(id)?);
    let mut inputs = Vec::new();
    for i in 0..node.inputs.len() {
        inputs.push(Array::from_tensor(graph.constant_input(node, i)?)?);
    }
    let inputs: Vec<Option<&Array>> = inputs.iter().map(Some).collect();
    let made =
        sartor_engine::reference::evaluate(&node.op, &inputs, &[sartor_ir::DType::F32]).ok()?;
    Some(made.first()?.to_tensor())
}
