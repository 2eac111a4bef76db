//! The numbers that training changes, and their gradients.

use std::collections::BTreeSet;

use half::{bf16, f16};
use sartor_ir::{DType, Graph, Node, Op, Tensor, ValueId};

use crate::{Array, EngineError};

/// The numbers that training changes: parameters, and the running statistics of `BatchNormalization`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    pub(super) ids: Vec<ValueId>,
    pub(super) values: Vec<Array>,
    pub(super) statistics: Vec<ValueId>,
    pub(super) moments: Vec<Array>,
}

impl Parameters {
    /// The constants `ids` of `graph`, and the running statistics of all its `BatchNormalization` nodes.
    ///
    /// # Errors
    /// [`EngineError::NotTrainable`] for an id that is no float constant, is given twice, or is a running
    /// statistic.
    pub fn from_graph(graph: &Graph, ids: &[ValueId]) -> Result<Self, EngineError> {
        let statistics = statistics(graph);
        let mut seen: BTreeSet<ValueId> = statistics.iter().copied().collect();
        let mut values = Vec::with_capacity(ids.len());
        for &id in ids {
            let refuse = |reason: &str| EngineError::NotTrainable {
                name: graph.value(id).name.clone(),
                reason: reason.to_owned(),
            };
            if !seen.insert(id) {
                return Err(refuse("is given twice or is a running statistic"));
            }
            values.push(floats(graph, id).ok_or_else(|| refuse("is no float constant"))?);
        }
        let moments = statistics.iter().filter_map(|&id| floats(graph, id)).collect();
        Ok(Parameters { ids: ids.to_vec(), values, statistics, moments })
    }

    /// The parameters, in the order in which they were asked for.
    pub fn ids(&self) -> &[ValueId] {
        &self.ids
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether nothing learns.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Shape of parameter `i`.
    pub fn shape(&self, i: usize) -> &[usize] {
        &self.values[i].shape
    }

    /// The numbers of parameter `i`, row-major.
    pub fn get(&self, i: usize) -> &[f32] {
        self.values[i].as_f32().unwrap_or_default()
    }

    /// As [`Parameters::get`], to change.
    pub fn get_mut(&mut self, i: usize) -> &mut [f32] {
        floats_mut(&mut self.values[i])
    }

    /// The running means and variances, in the order of the nodes.
    pub fn statistic_ids(&self) -> &[ValueId] {
        &self.statistics
    }

    /// The numbers of running statistic `i`, one for each channel.
    pub fn statistic(&self, i: usize) -> &[f32] {
        self.moments[i].as_f32().unwrap_or_default()
    }

    /// As [`Parameters::statistic`], to change.
    pub fn statistic_mut(&mut self, i: usize) -> &mut [f32] {
        floats_mut(&mut self.moments[i])
    }

    /// Writes parameters and running statistics into the constants of `graph` that they came from, in the
    /// element type that these have there.
    pub fn store(&self, graph: &mut Graph) {
        let both = self.ids.iter().zip(&self.values);
        for (&id, array) in both.chain(self.statistics.iter().zip(&self.moments)) {
            let dtype = graph.constant(id).map_or(DType::F32, Tensor::dtype);
            graph.set_constant(id, encoded(array, dtype));
        }
    }
}

/// The floats of an array that was made of floats.
pub(super) fn floats_mut(array: &mut Array) -> &mut [f32] {
    match &mut array.data {
        crate::Data::F32(values) => values,
        _ => &mut [],
    }
}

/// A float constant in 32 bits.
fn floats(graph: &Graph, id: ValueId) -> Option<Array> {
    let tensor = graph.constant(id)?;
    Some(Array::f32(tensor.shape(), tensor.to_f32().ok()?))
}

/// As a constant of a float type.
fn encoded(array: &Array, dtype: DType) -> Tensor {
    let values = array.as_f32().unwrap_or_default();
    let bytes: Vec<u8> = match dtype {
        DType::F64 => values.iter().flat_map(|&it| f64::from(it).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&it| f16::from_f32(it).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&it| bf16::from_f32(it).to_le_bytes()).collect(),
        _ => return Tensor::from_f32(&array.shape, values),
    };
    Tensor::new(dtype, array.shape.clone(), bytes).expect("one number an element")
}

/// The running means and variances of all `BatchNormalization` nodes, in node order, each once.
pub(super) fn statistics(graph: &Graph) -> Vec<ValueId> {
    let mut found = Vec::new();
    for (_, node) in graph.nodes().filter(|it| matches!(it.1.op, Op::BatchNormalization(_))) {
        for id in [node.input(3), node.input(4)].into_iter().flatten() {
            let float = graph.constant(id).is_some_and(|it| it.to_f32().is_ok());
            if float && !found.contains(&id) {
                found.push(id);
            }
        }
    }
    found
}

/// One buffer of floats for each parameter, in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    buffers: Vec<Vec<f32>>,
}

impl Gradients {
    /// Zeros for each of `parameters`.
    pub fn new(parameters: &Parameters) -> Self {
        let zeros = |it: &Array| vec![0.0; it.len()];
        Gradients { buffers: parameters.values.iter().map(zeros).collect() }
    }

    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there is no buffer.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Sets all to zero.
    pub fn zero(&mut self) {
        self.buffers.iter_mut().for_each(|it| it.fill(0.0));
    }

    /// The gradient of parameter `i`.
    pub fn get(&self, i: usize) -> &[f32] {
        &self.buffers[i]
    }

    /// The gradient of parameter `i`, to be taken and put back.
    pub(super) fn buffer(&mut self, i: usize) -> &mut Vec<f32> {
        &mut self.buffers[i]
    }

    /// As [`Gradients::get`], to change.
    pub fn get_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.buffers[i]
    }
}

/// The constants through which a network learns, in the graph's order: weights, biases, scales and shifts
/// of normalizations, embeddings, slopes of `PRelu`. Not among them: running statistics, shapes and
/// indices, limits of `Clip`, scales of quantization, masks, and what is applied to a graph input
/// directly by arithmetic (the normalization of the images).
pub fn trainable(graph: &Graph) -> Vec<ValueId> {
    let excluded: BTreeSet<ValueId> = statistics(graph).into_iter().collect();
    let mut found = BTreeSet::new();
    for (_, node) in graph.nodes() {
        for i in learnt_inputs(graph, node) {
            let source = node.input(i).and_then(|id| origin(graph, id));
            found.extend(source.filter(|it| !excluded.contains(it)));
        }
    }
    found.into_iter().collect()
}

/// The inputs of a node that hold weights, if they are constants.
fn learnt_inputs(graph: &Graph, node: &Node) -> Vec<usize> {
    match &node.op {
        Op::Conv(_) | Op::BatchNormalization(_) => vec![1, 2],
        Op::Gemm(_) => vec![0, 1, 2],
        Op::MatMul => vec![0, 1],
        Op::PRelu => vec![1],
        Op::Gather(_) => vec![0],
        Op::Binary(_) | Op::Variadic(_) => operands(graph, node),
        Op::Named(it) => match it.name.as_str() {
            "ConvTranspose"
            | "LayerNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "FusedConv"
            | "FusedMatMul" => vec![1, 2],
            "RMSNormalization" | "SimplifiedLayerNormalization" | "BiasGelu" | "FastGelu" => {
                vec![1]
            }
            "LSTM" => vec![1, 2, 3, 7],
            "GRU" | "RNN" => vec![1, 2, 3],
            "SkipLayerNormalization" => vec![2, 3, 4],
            "Attention" if it.domain == "com.microsoft" => vec![1, 2],
            "Einsum" => (0..node.inputs.len()).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Operands of arithmetic that look learnt: more than one number, none of them huge (a mask), beside
/// something that is not itself a graph input.
fn operands(graph: &Graph, node: &Node) -> Vec<usize> {
    if matches!(node.op, Op::Binary(it) if it.is_predicate()) {
        return Vec::new();
    }
    if node.inputs.iter().flatten().any(|it| graph.inputs().contains(it)) {
        return Vec::new();
    }
    let learnt = |i: &usize| {
        let source = node.input(*i).and_then(|id| origin(graph, id));
        let values = source.and_then(|id| graph.constant(id)).and_then(|it| it.to_f32().ok());
        values.is_some_and(|it| it.len() > 1 && it.iter().all(|it| it.abs() < HUGE))
    };
    (0..node.inputs.len()).filter(learnt).collect()
}

/// Numbers of this magnitude mask, they do not weigh.
const HUGE: f32 = 1e4;

/// The float constant that `id` is, also behind operators that only move or round it.
fn origin(graph: &Graph, id: ValueId) -> Option<ValueId> {
    let mut id = id;
    loop {
        if let Some(tensor) = graph.constant(id) {
            return tensor.dtype().is_float().then_some(id).filter(|_| tensor.to_f32().is_ok());
        }
        let node = graph.node(graph.producer(id)?);
        let passes = matches!(
            node.op,
            Op::Identity
                | Op::Cast(_)
                | Op::Transpose(_)
                | Op::Reshape(_)
                | Op::Flatten(_)
                | Op::Squeeze
                | Op::Unsqueeze
                | Op::QuantizeLinear(_)
                | Op::DequantizeLinear(_)
        );
        id = passes.then(|| node.input(0)).flatten()?;
    }
}
