//! Writing the decisions into the graph as `QuantizeLinear` and `DequantizeLinear`.

use std::collections::BTreeMap;

use sartor_ir::{
    Consumers, Graph, GraphError, Node, NodeId, Op, QuantizeLinear, Tensor, ValueId, infer, verify,
};

use super::{
    QUANTIZABLE, QuantizeStatic, Quantized, QuantizedNode,
    place::{Plan, Role, activations, label},
    scale::{FloatWeights, Scale, Weights, quantize_weights},
};
use crate::CompressError;

/// Per-channel scales are known from this opset on.
const OPSET: i64 = 13;

/// The quantized graph and its record.
pub(super) fn rewrite(
    float: &Graph,
    plan: &Plan,
    scales: &BTreeMap<ValueId, Scale>,
    config: &QuantizeStatic,
) -> Result<Quantized, CompressError> {
    let mut graph = float.clone();
    let consumers = float.consumers();
    let mut shared: BTreeMap<ValueId, (ValueId, ValueId)> = BTreeMap::new();
    for &value in &plan.values {
        let class = plan.class(value);
        let scale = scales.get(&class).copied().ok_or_else(|| unseen(float, value))?;
        let parameters = *shared.entry(class).or_insert_with(|| {
            let name = float.value(class).name.clone();
            let factor = graph.add_fresh_constant(&format!("{name}_scale"), scale.scale_tensor());
            (
                factor,
                graph.add_fresh_constant(&format!("{name}_zero_point"), scale.zero_point_tensor()),
            )
        });
        quantize_value(&mut graph, plan, &consumers, value, parameters)?;
    }
    let mut nodes = Vec::new();
    for (id, node) in float.nodes() {
        let mut enlarged = 0;
        if plan.role(id) == Role::Weighted {
            let input = node.input(0).map(|it| plan.class(it)).and_then(|it| scales.get(&it));
            let input = input.ok_or_else(|| unseen(float, node.output()))?;
            enlarged = quantize_node_weights(&mut graph, id, input.step, config)?;
        }
        nodes.extend(record(float, plan, id, config, enlarged));
    }
    let opset = graph.opsets.entry(String::new()).or_insert(OPSET);
    *opset = (*opset).max(OPSET);
    graph.sort()?;
    infer(&mut graph)?;
    let graph = graph.compacted();
    verify(&graph)?;
    Ok(Quantized { graph, nodes })
}

fn unseen(graph: &Graph, value: ValueId) -> CompressError {
    CompressError::Run(format!("value `{}` was never seen as floats", graph.value(value).name))
}

/// Puts a pair behind `value` and lets its readers read the pair.
fn quantize_value(
    graph: &mut Graph,
    plan: &Plan,
    consumers: &Consumers,
    value: ValueId,
    (scale, zero_point): (ValueId, ValueId),
) -> Result<(), GraphError> {
    let name = graph.value(value).name.clone();
    let shows = plan.internal.contains(&value)
        && graph.outputs().contains(&value)
        && !graph.is_captured(value);
    if shows {
        let hidden = graph.fresh_name(&format!("{name}_float"));
        graph.rename_value(value, &hidden)?;
    }
    let integers = graph.fresh_name(&format!("{name}_quantized"));
    let back = if shows { name.clone() } else { graph.fresh_name(&format!("{name}_dequantized")) };
    let op = QuantizeLinear::along(1);
    let quantize = Op::QuantizeLinear(op.clone());
    let integers = graph.add_node(
        &format!("{name}_quantize"),
        quantize,
        &[value, scale, zero_point],
        &[&integers],
    )?[0];
    let dequantize = Op::DequantizeLinear(op);
    let back = graph.add_node(
        &format!("{name}_dequantize"),
        dequantize,
        &[integers, scale, zero_point],
        &[&back],
    )?[0];
    if shows {
        let outputs =
            graph.outputs().iter().map(|&it| if it == value { back } else { it }).collect();
        graph.set_type(back, graph.value(value).ty.clone());
        graph.set_outputs(outputs);
    }
    for &(id, i) in consumers.of(value) {
        let node = graph.node(id);
        if i >= node.inputs.len() {
            continue;
        }
        let role = plan.role(id);
        let on_integers =
            !matches!(role, Role::Float(_) | Role::Other | Role::Limit) && i < reads(node, role);
        if plan.internal.contains(&value) || on_integers {
            graph.set_input(id, i, Some(back));
        }
    }
    Ok(())
}

/// How many leading inputs of an operator on integers are activations.
fn reads(node: &Node, role: Role) -> usize {
    match role {
        Role::Weighted => 1,
        Role::Carrier if !matches!(node.op, Op::Concat(_)) => 1,
        _ => node.inputs.len(),
    }
}

/// The axis of the output channels in the weight of `node`.
fn channel_axis(op: &Op, rank: usize) -> Option<usize> {
    match op {
        Op::Conv(_) => Some(0),
        Op::Gemm(gemm) => Some(usize::from(!gemm.trans_b)),
        Op::MatMul if rank == 2 => Some(1),
        _ => None,
    }
}

/// Stores the weight and, where it fits, the bias of a node as integers; returns how many scales had to grow.
fn quantize_node_weights(
    graph: &mut Graph,
    id: NodeId,
    input_scale: f32,
    config: &QuantizeStatic,
) -> Result<usize, CompressError> {
    let node = graph.node(id).clone();
    let (Some(weight), Some((values, shape))) = (node.input(1), finite(graph, id, 1)?) else {
        return Ok(0);
    };
    let axis = channel_axis(&node.op, shape.len()).filter(|it| *it < shape.len());
    let (channels, inner) =
        axis.map_or((1, values.len()), |it| (shape[it], shape[it + 1..].iter().product()));
    let bias = finite(graph, id, 2)?;
    let (bias, bias_shape) = match bias {
        // `Gemm` broadcasts a single addend and takes a row; both become one number per channel.
        Some((it, shape))
            if shape.iter().rev().skip(1).all(|d| *d == 1) && it.len() == channels =>
        {
            (Some(it), shape)
        }
        Some((it, _)) if it.len() == 1 => (Some(vec![it[0]; channels]), vec![channels]),
        _ => (None, Vec::new()),
    };
    let float = FloatWeights { values: &values, bias: bias.as_deref(), channels, inner };
    let done = quantize_weights(&float, input_scale, &config.weights);
    let along = (config.weights.per_channel && channels > 0).then_some(axis).flatten();
    let name = graph.value(weight).name.clone();
    let new = weight_pair(graph, &name, &shape, along, &done)?;
    graph.set_input(id, 1, Some(new));
    if let (Some((integers, units)), Some(old)) = (done.bias, node.input(2)) {
        let name = graph.value(old).name.clone();
        let integers = graph.add_fresh_constant(
            &format!("{name}_quantized"),
            Tensor::from_i32(&bias_shape, &integers),
        );
        let (op, units) = parameters(&units, along.map(|_| bias_shape.len() - 1));
        let units = graph.add_fresh_constant(&format!("{name}_scale"), units);
        let new = dequantized(graph, &name, op, &[integers, units])?;
        graph.set_input(id, 2, Some(new));
    }
    Ok(done.enlarged)
}

/// Elements and shape.
type Floats = (Vec<f32>, Vec<usize>);

/// A constant operand of floats, checked.
fn finite(graph: &Graph, id: NodeId, i: usize) -> Result<Option<Floats>, CompressError> {
    let Some(value) = graph.node(id).input(i) else { return Ok(None) };
    let Some(tensor) = graph.constant(value) else { return Ok(None) };
    let Ok(values) = tensor.to_f32() else { return Ok(None) };
    match values.iter().find(|it| !it.is_finite()) {
        Some(bad) => Err(CompressError::NotFinite {
            node: label(graph, id),
            tensor: graph.value(value).name.clone(),
            found: if bad.is_nan() { "NaN" } else { "an infinity" }.to_owned(),
        }),
        None => Ok(Some((values, tensor.shape().to_vec()))),
    }
}

/// Scales as a vector along `axis`, or as the one scalar that all are.
fn parameters(scales: &[f32], axis: Option<usize>) -> (QuantizeLinear, Tensor) {
    match axis {
        Some(axis) => {
            (QuantizeLinear::along(axis as i64), Tensor::from_f32(&[scales.len()], scales))
        }
        None => (QuantizeLinear::along(1), Tensor::from_f32(&[], &scales[..1])),
    }
}

fn weight_pair(
    graph: &mut Graph,
    name: &str,
    shape: &[usize],
    axis: Option<usize>,
    weights: &Weights,
) -> Result<ValueId, GraphError> {
    let integers = graph
        .add_fresh_constant(&format!("{name}_quantized"), Tensor::from_i8(shape, &weights.values));
    let (op, scale) = parameters(&weights.scales, axis);
    let zeros = Tensor::from_i8(scale.shape(), &vec![0; scale.len()]);
    let scale = graph.add_fresh_constant(&format!("{name}_scale"), scale);
    let zeros = graph.add_fresh_constant(&format!("{name}_zero_point"), zeros);
    dequantized(graph, name, op, &[integers, scale, zeros])
}

fn dequantized(
    graph: &mut Graph,
    name: &str,
    op: QuantizeLinear,
    inputs: &[ValueId],
) -> Result<ValueId, GraphError> {
    let output = graph.fresh_name(&format!("{name}_dequantized"));
    Ok(graph.add_node(
        &format!("{name}_dequantize"),
        Op::DequantizeLinear(op),
        inputs,
        &[&output],
    )?[0])
}

/// The line of the record for one node, if it computes on floats or did.
fn record(
    float: &Graph,
    plan: &Plan,
    id: NodeId,
    config: &QuantizeStatic,
    enlarged: usize,
) -> Option<QuantizedNode> {
    let node = float.node(id);
    let role = plan.role(id);
    let reason = match role {
        Role::Weighted | Role::Product | Role::Light => None,
        Role::Float(reason) => Some(reason.to_owned()),
        Role::Carrier | Role::Limit | Role::Other => return None,
    };
    debug_assert!(
        reason.is_some() || QUANTIZABLE.contains(&node.op.name()),
        "QUANTIZABLE lists every such operator"
    );
    let weights = (role == Role::Weighted).then(|| {
        let spread = if config.weights.per_channel { "per channel" } else { "per tensor" };
        format!("int{} {spread}", config.weights.bits)
    });
    let output =
        plan.ends.get(&id).copied().or_else(|| node.outputs.iter().flatten().next().copied());
    let quantized = reason.is_none() && !activations(float, node, role).is_empty();
    Some(QuantizedNode {
        name: label(float, id),
        op: node.op.name().to_owned(),
        output: output.map(|it| float.value(it).name.clone()).unwrap_or_default(),
        weights,
        activations: quantized.then(|| config.activations.dtype.name().to_owned()),
        enlarged_channels: enlarged,
        sqnr_db: None,
        left_float_because: reason,
    })
}
