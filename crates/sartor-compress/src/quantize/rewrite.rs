//! Writing the decisions into the graph as `QuantizeLinear` and `DequantizeLinear`.

use std::collections::BTreeMap;

use sartor_engine::reference::quantize::Granularity;
use sartor_ir::{
    Consumers, DType, Graph, GraphError, Node, NodeId, Op, QuantizeLinear, Tensor, ValueId, infer,
    verify,
};

use super::{
    ActivationType, QUANTIZABLE, QuantizeStatic, Quantized, QuantizedNode, WeightFormat,
    WeightType, format,
    place::{Plan, Role, activations, label},
    scale::Scale,
    weights::{FloatWeights, Weights, quantize_weights},
};
use crate::CompressError;

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
        let mut done = (0, None);
        if plan.role(id) == Role::Weighted {
            let input = if config.activations.dtype == ActivationType::Float32 {
                None
            } else {
                let scale = node.input(0).map(|it| plan.class(it)).and_then(|it| scales.get(&it));
                Some(scale.ok_or_else(|| unseen(float, node.output()))?.step)
            };
            done = quantize_node_weights(&mut graph, id, input, config)?;
        }
        nodes.extend(record(float, plan, id, config, done));
    }
    let needed = format::opset(config);
    let opset = graph.opsets.entry(String::new()).or_insert(needed);
    *opset = (*opset).max(needed);
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

/// Which weights share a scale, and how that is written: attributes of the node and shape of the scales.
struct Sharing {
    by: Granularity,
    op: QuantizeLinear,
    shape: Vec<usize>,
}

/// How the weights `shape` of `node` share scales: blocks along the reduction if it is long enough, or else channels.
fn sharing(op: &Op, shape: &[usize], format: &WeightFormat) -> Sharing {
    let inner = |axis: usize| shape[axis + 1..].iter().product();
    let reduction = match op {
        Op::Conv(_) => Some(1),
        Op::Gemm(gemm) => Some(usize::from(gemm.trans_b)),
        _ => shape.len().checked_sub(2),
    };
    let block = format.block;
    if let Some(axis) = reduction.filter(|&it| block > 0 && shape.get(it) >= Some(&block)) {
        let mut scales = shape.to_vec();
        scales[axis] = shape[axis].div_ceil(block);
        return Sharing {
            by: Granularity::Block { extent: shape[axis], inner: inner(axis), block },
            op: QuantizeLinear { block_size: block, ..QuantizeLinear::along(axis as i64) },
            shape: scales,
        };
    }
    let axis = channel_axis(op, shape.len()).filter(|it| format.per_channel && shape[*it] > 0);
    match axis {
        Some(axis) => Sharing {
            by: Granularity::Channel { extent: shape[axis], inner: inner(axis) },
            op: QuantizeLinear::along(axis as i64),
            shape: vec![shape[axis]],
        },
        None => {
            Sharing { by: Granularity::Tensor, op: QuantizeLinear::along(1), shape: Vec::new() }
        }
    }
}

/// The bias of a node as one number for each of its channels, and the shape in which it is stored. `Gemm` broadcasts a
/// single addend and takes a row; both become one number per channel.
fn channel_bias(
    graph: &Graph,
    id: NodeId,
    channels: usize,
) -> Result<Option<Floats>, CompressError> {
    Ok(match finite(graph, id, 2)? {
        Some((it, shape))
            if shape.iter().rev().skip(1).all(|d| *d == 1) && it.len() == channels =>
        {
            Some((it, shape))
        }
        Some((it, _)) if it.len() == 1 => Some((vec![it[0]; channels], vec![channels])),
        _ => None,
    })
}

/// Stores the weight and, where it fits, the bias of a node as integers; returns how many scales had to grow, and the
/// format in words. Without `input_scale`, and with scales that no bias can share, biases stay float.
fn quantize_node_weights(
    graph: &mut Graph,
    id: NodeId,
    input_scale: Option<f32>,
    config: &QuantizeStatic,
) -> Result<(usize, Option<String>), CompressError> {
    let node = graph.node(id).clone();
    let (Some(weight), Some((values, shape))) = (node.input(1), finite(graph, id, 1)?) else {
        return Ok((0, None));
    };
    let format = config.weights_of(&label(graph, id));
    let sharing = sharing(&node.op, &shape, format);
    let channels = channel_axis(&node.op, shape.len()).map_or(1, |it| shape[it]);
    let blocks = matches!(sharing.by, Granularity::Block { .. });
    let bias = match input_scale {
        Some(_) if !blocks && format.dtype != WeightType::Int16 => {
            channel_bias(graph, id, channels)?
        }
        _ => None,
    };
    let float = FloatWeights {
        values: &values,
        bias: bias.as_ref().map(|it| it.0.as_slice()),
        by: sharing.by,
        scales: sharing.shape.iter().product(),
    };
    let done = quantize_weights(&float, input_scale.unwrap_or(1.0), format, config.scales);
    let name = graph.value(weight).name.clone();
    let new = weight_pair(graph, &name, &shape, format.stored(), &sharing, &done)?;
    graph.set_input(id, 1, Some(new));
    if let (Some((integers, units)), Some(old), Some((_, shape))) = (done.bias, node.input(2), bias)
    {
        let name = graph.value(old).name.clone();
        let integers = graph
            .add_fresh_constant(&format!("{name}_quantized"), Tensor::from_i32(&shape, &integers));
        let axis = if sharing.shape.is_empty() { 1 } else { shape.len() as i64 - 1 };
        let units = Tensor::from_f32(&sharing.shape, &units);
        let units = graph.add_fresh_constant(&format!("{name}_scale"), units);
        let new = dequantized(graph, &name, QuantizeLinear::along(axis), &[integers, units])?;
        graph.set_input(id, 2, Some(new));
    }
    Ok((done.enlarged, Some(in_words(format, sharing.by))))
}

/// A weight format in a report.
fn in_words(format: &WeightFormat, by: Granularity) -> String {
    let spread = match by {
        Granularity::Tensor => "per tensor".to_owned(),
        Granularity::Channel { .. } => "per channel".to_owned(),
        Granularity::Block { block, .. } => format!("in blocks of {block}"),
    };
    format!("{} {spread}", format.dtype.name())
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

fn weight_pair(
    graph: &mut Graph,
    name: &str,
    shape: &[usize],
    dtype: DType,
    sharing: &Sharing,
    weights: &Weights,
) -> Result<ValueId, GraphError> {
    let integers = |shape: &[usize], values: &[i64]| {
        Tensor::from_integers(dtype, shape, values)
            .expect("the type is one of integers, and there is one number for each place")
    };
    let (values, zeros) =
        (integers(shape, &weights.values), integers(&sharing.shape, &weights.zeros));
    let values = graph.add_fresh_constant(&format!("{name}_quantized"), values);
    let scales = Tensor::from_f32(&sharing.shape, &weights.scales);
    let scales = graph.add_fresh_constant(&format!("{name}_scale"), scales);
    let zeros = graph.add_fresh_constant(&format!("{name}_zero_point"), zeros);
    dequantized(graph, name, sharing.op.clone(), &[values, scales, zeros])
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
    (enlarged, weights): (usize, Option<String>),
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
    let output =
        plan.ends.get(&id).copied().or_else(|| node.outputs.iter().flatten().next().copied());
    let quantized = reason.is_none()
        && config.activations.dtype != ActivationType::Float32
        && !activations(float, node, role).is_empty();
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
