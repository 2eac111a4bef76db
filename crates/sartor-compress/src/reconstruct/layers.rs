//! Quantized weights and biases of a graph, beside the float ones they stand for.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{DType, Graph, Node, NodeId, Op, Tensor, ValueId};

use super::rounding::{Grid, best_scales};
use crate::{CompressError, calibrate::run_error, quantize::label};

/// A constant weight behind `DequantizeLinear`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// The node that reads it first.
    pub(super) consumer: NodeId,
    /// The consumer's name.
    pub(super) name: String,
    /// The float form: output of `DequantizeLinear`.
    pub(super) value: ValueId,
    integers: ValueId,
    scale: ValueId,
    dtype: DType,
    pub(super) grid: Grid,
    pub(super) shape: Vec<usize>,
    /// Weights of the float network.
    pub(super) float: Vec<f32>,
    /// Integers as they are now.
    pub(super) rounded: Vec<f32>,
}

/// The bias of a layer.
#[derive(Clone, Debug)]
pub(super) struct Bias {
    /// The float form that the consumer reads.
    pub(super) value: ValueId,
    pub(super) consumer: NodeId,
    /// Where it stands as integers: integers, scale, and the scale of the consumer's input.
    stored: Option<(ValueId, ValueId, ValueId)>,
    shape: Vec<usize>,
    /// The numbers as they are now.
    pub(super) now: Vec<f32>,
    /// Those of the float network.
    pub(super) float: Vec<f32>,
}

/// What a graph quantizes, and its activation scales.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    pub(super) weights: Vec<Layer>,
    pub(super) biases: Vec<Bias>,
    /// Scales of activations that may learn, each with a node that quantizes by it.
    pub(super) scales: BTreeMap<ValueId, f32>,
    /// Nodes that dequantize constants: they are no part of any block.
    pub(super) constant_nodes: BTreeSet<NodeId>,
}

impl Layers {
    /// Pairs the weights of `quantized` with those of `float` by the names of the nodes that read them.
    pub(super) fn find(float: &Graph, quantized: &Graph) -> Result<Self, CompressError> {
        let mut it = Layers {
            weights: Vec::new(),
            biases: Vec::new(),
            scales: activation_scales(quantized),
            constant_nodes: BTreeSet::new(),
        };
        let names: BTreeMap<String, NodeId> =
            float.nodes().map(|(id, _)| (label(float, id), id)).collect();
        for (id, node) in quantized.nodes() {
            if matches!(node.op, Op::DequantizeLinear(_))
                && quantized.constant_input(node, 0).is_some()
            {
                it.constant_nodes.insert(id);
            }
        }
        for (id, node) in quantized.nodes() {
            let Some(weight) = node.input(1).and_then(|it| dequantized(quantized, it)) else {
                continue;
            };
            if !matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul) {
                continue;
            }
            if it.weights.iter().any(|it| Some(it.value) == node.input(1)) {
                continue;
            }
            let name = label(quantized, id);
            let original =
                names.get(&name).ok_or_else(|| CompressError::NoSuchNode(name.clone()))?;
            let original = float.node(*original);
            if let Some(layer) = layer(quantized, id, weight, (float, original))? {
                it.weights.push(layer);
                it.biases.extend(bias(quantized, id, (float, original)));
            }
        }
        Ok(it)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Whether every scale is a power of two.
    pub(super) fn are_powers_of_two(&self) -> bool {
        let weights = self.weights.iter().flat_map(|it| &it.grid.scales);
        weights
            .chain(self.scales.values())
            .all(|it| it.to_bits() & ((1 << (f32::MANTISSA_DIGITS - 1)) - 1) == 0)
    }

    /// Scales by the squared error of the weights, and weights rounded to nearest with them.
    pub(super) fn choose_scales(&mut self) {
        for layer in &mut self.weights {
            best_scales(&mut layer.grid, &layer.float);
            layer.rounded = layer.grid.nearest(&layer.float);
        }
    }

    /// The floats for which constants behind `DequantizeLinear` stand: those of the float network, or what the
    /// integers give.
    pub(super) fn constants(&self, float: bool) -> BTreeMap<ValueId, Tensor> {
        let weights = self.weights.iter().map(|it| {
            let tensor = if float {
                Tensor::from_f32(&it.shape, &it.float)
            } else {
                Tensor::from_f32(&it.shape, &it.grid.floats(&it.rounded))
            };
            (it.value, tensor)
        });
        let biases = self.biases.iter().map(|it| {
            (it.value, Tensor::from_f32(&it.shape, if float { &it.float } else { &it.now }))
        });
        let scales = self.scales.iter().map(|(&id, &it)| (id, Tensor::from_f32(&[], &[it])));
        weights.chain(biases).chain(scales).collect()
    }

    /// Writes integers, scales and biases into the graph.
    pub(super) fn store(&self, graph: &mut Graph) -> Result<(), CompressError> {
        for (&id, &scale) in &self.scales {
            let shape = graph.constant(id).map_or(Vec::new(), |it| it.shape().to_vec());
            graph.set_constant(id, Tensor::from_f32(&shape, &[scale]));
        }
        for it in &self.weights {
            let integers: Vec<i64> = it.rounded.iter().map(|&it| it as i64).collect();
            let tensor = Tensor::from_integers(it.dtype, &it.shape, &integers);
            graph.set_constant(it.integers, tensor.map_err(run_error)?);
            let shape = graph.constant(it.scale).map_or(Vec::new(), |it| it.shape().to_vec());
            graph.set_constant(it.scale, Tensor::from_f32(&shape, &it.grid.scales));
        }
        for it in &self.biases {
            let Some((integers, units, input)) = it.stored else {
                graph.set_constant(it.value, Tensor::from_f32(&it.shape, &it.now));
                continue;
            };
            let (Some(layer), Some(input)) =
                (self.weights.iter().find(|l| l.consumer == it.consumer), self.scale(graph, input))
            else {
                continue;
            };
            let scales: Vec<f32> = layer.grid.scales.iter().map(|it| it * input).collect();
            let round = |(i, b): (usize, &f32)| {
                let unit = f64::from(scales[i.min(scales.len() - 1)]);
                (f64::from(*b) / unit)
                    .round_ties_even()
                    .clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32
            };
            let values: Vec<i32> = it.now.iter().enumerate().map(round).collect();
            graph.set_constant(integers, Tensor::from_i32(&it.shape, &values));
            let shape = graph.constant(units).map_or(Vec::new(), |it| it.shape().to_vec());
            graph.set_constant(units, Tensor::from_f32(&shape, &scales));
        }
        Ok(())
    }

    fn scale(&self, graph: &Graph, id: ValueId) -> Option<f32> {
        let stored = || graph.constant(id)?.to_f32().ok()?.first().copied();
        self.scales.get(&id).copied().or_else(stored)
    }
}

/// The node that dequantizes a constant to `value`.
fn dequantized(graph: &Graph, value: ValueId) -> Option<&Node> {
    let node = graph.node(graph.producer(value)?);
    let constant =
        graph.constant_input(node, 0).is_some() && graph.constant_input(node, 1).is_some();
    (constant && matches!(node.op, Op::DequantizeLinear(_))).then_some(node)
}

/// Scalar scales by which a `QuantizeLinear` and the `DequantizeLinear` behind it both round.
fn activation_scales(graph: &Graph) -> BTreeMap<ValueId, f32> {
    let consumers = graph.consumers();
    let mut found = BTreeMap::new();
    for (_, node) in graph.nodes().filter(|it| matches!(it.1.op, Op::QuantizeLinear(_))) {
        let Some(id) = node.input(1) else { continue };
        let scale = graph.constant(id).and_then(|it| it.to_f32().ok()).filter(|it| it.len() == 1);
        let paired = consumers.of(node.output()).iter().all(|(reader, _)| {
            let reader = graph.node(*reader);
            matches!(reader.op, Op::DequantizeLinear(_)) && reader.input(1) == Some(id)
        });
        if let (Some(scale), true) = (scale, paired) {
            found.insert(id, scale[0]);
        }
    }
    found
}

fn layer(
    graph: &Graph,
    consumer: NodeId,
    node: &Node,
    (float, original): (&Graph, &Node),
) -> Result<Option<Layer>, CompressError> {
    let (Op::DequantizeLinear(op), Some(integers), Some(scale)) =
        (&node.op, node.input(0), node.input(1))
    else {
        return Ok(None);
    };
    let (Some(tensor), Some(scales)) = (graph.constant(integers), graph.constant(scale)) else {
        return Ok(None);
    };
    let (Ok(rounded), Ok(steps)) = (tensor.to_i64(), scales.to_f32()) else { return Ok(None) };
    let zeros = match graph.constant_input(node, 2).map(Tensor::to_i64) {
        Some(Ok(zeros)) => zeros,
        _ => vec![0; steps.len()],
    };
    let name = label(graph, consumer);
    let same = |it: &&Tensor| it.shape() == tensor.shape();
    let values = float.constant_input(original, 1).filter(same).and_then(|it| it.to_f32().ok());
    let Some(values) = values else {
        return Err(CompressError::Samples(format!(
            "node `{name}` has quantized weights {:?}, and no float weights of that shape in the network before: give \
             the network of which the quantized one was made",
            tensor.shape()
        )));
    };
    let Some(grid) = Grid::of(op, tensor.shape(), scales.shape(), (steps, &zeros), &rounded) else {
        return Ok(None);
    };
    Ok(Some(Layer {
        consumer,
        name,
        value: node.output(),
        integers,
        scale,
        dtype: tensor.dtype(),
        grid,
        shape: tensor.shape().to_vec(),
        float: values,
        rounded: rounded.iter().map(|&it| it as f32).collect(),
    }))
}

/// The bias that `consumer` adds: int32 behind `DequantizeLinear`, or floats.
fn bias(graph: &Graph, consumer: NodeId, (float, original): (&Graph, &Node)) -> Option<Bias> {
    let value = graph.node(consumer).input(2)?;
    let original = float.constant_input(original, 2)?.to_f32().ok()?;
    if let Some(tensor) = graph.constant(value) {
        let now = tensor.to_f32().ok()?;
        let float = if original.len() == now.len() { original } else { now.clone() };
        return Some(Bias {
            value,
            consumer,
            stored: None,
            shape: tensor.shape().to_vec(),
            now,
            float,
        });
    }
    let node = dequantized(graph, value)?;
    let (integers, scale) = (node.input(0)?, node.input(1)?);
    let shape = graph.constant(integers)?.shape().to_vec();
    let count: usize = shape.iter().product();
    let float = match original.len() {
        1 => vec![original[0]; count],
        n if n == count => original,
        _ => return None,
    };
    let source = graph.node(graph.producer(graph.node(consumer).input(0)?)?);
    let input = source.input(1).filter(|_| matches!(source.op, Op::DequantizeLinear(_)))?;
    Some(Bias {
        value,
        consumer,
        stored: Some((integers, scale, input)),
        shape,
        now: float.clone(),
        float,
    })
}
