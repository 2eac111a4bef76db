//! Folding of batch normalization into the convolution or matrix product before it.

use crate::{BatchNormalization, Fidelity, Graph, GraphError, NodeId, Op, Pass, Tensor, ValueId};

/// `BN(W x + b) = (g W) x + g (b - mean) + B` with `g = scale / sqrt(var + epsilon)` by output channel
/// (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
/// Integer-Arithmetic-Only Inference", section 3.2). Folds where the convolution or `Gemm` feeds nothing
/// else and all parameters are constants.
pub struct FoldBatchNorm;

impl Pass for FoldBatchNorm {
    fn id(&self) -> &'static str {
        "fold-batch-norm"
    }

    fn fidelity(&self) -> Fidelity {
        Fidelity::Rounding
    }

    fn run(&self, graph: &mut Graph) -> Result<usize, GraphError> {
        let norms: Vec<_> =
            graph.nodes().filter(|(_, it)| matches!(it.op, Op::BatchNormalization(_))).collect();
        let norms: Vec<NodeId> = norms.into_iter().map(|it| it.0).collect();
        let mut changes = 0;
        for norm in norms {
            changes += usize::from(fold(graph, norm)?);
        }
        Ok(changes)
    }
}

/// Factor and offset by channel: `BN(x) = factor x + offset`.
fn affine(
    graph: &Graph,
    norm: NodeId,
    attributes: &BatchNormalization,
) -> Option<(Vec<f32>, Vec<f32>)> {
    let node = graph.node(norm);
    let list = |i| graph.constant_input(node, i)?.to_f32().ok();
    let (scale, bias, mean, var) = (list(1)?, list(2)?, list(3)?, list(4)?);
    let factor: Vec<f32> = scale
        .iter()
        .zip(&var)
        .map(|(&s, &v)| {
            (f64::from(s) / (f64::from(v) + f64::from(attributes.epsilon)).sqrt()) as f32
        })
        .collect();
    let offset = bias.iter().zip(&mean).zip(&factor);
    let offset =
        offset.map(|((&b, &m), &f)| (f64::from(b) - f64::from(m) * f64::from(f)) as f32).collect();
    Some((factor, offset))
}

fn fold(graph: &mut Graph, norm: NodeId) -> Result<bool, GraphError> {
    let node = graph.node(norm);
    let Op::BatchNormalization(attributes) = node.op.clone() else { return Ok(false) };
    let (Some(input), output) = (node.input(0), node.output()) else { return Ok(false) };
    let Some(maker) = graph.producer(input) else { return Ok(false) };
    let shared = graph.consumers().of(input).len() > 1 || graph.outputs().contains(&input);
    let Some(channel_axis) = filter_axis(graph, maker) else { return Ok(false) };
    if shared {
        return Ok(false);
    }
    let Some((factor, offset)) = affine(graph, norm, &attributes) else { return Ok(false) };
    let Some((weight, bias)) = scaled(graph, maker, channel_axis, &factor, &offset) else {
        return Ok(false);
    };
    let (stem, bias_stem) = names(graph, maker);
    let weight = graph.add_fresh_constant(&stem, weight);
    let bias = graph.add_fresh_constant(&bias_stem, bias);
    graph.remove_node(norm);
    let mut node = graph.remove_node(maker);
    node.inputs.resize(3, None);
    (node.inputs[1], node.inputs[2]) = (Some(weight), Some(bias));
    node.outputs[0] = Some(output);
    graph.push_node(node)?;
    graph.sort()?;
    Ok(true)
}

/// The axis of output channels in the weight of a node that a batch normalization can be folded into.
fn filter_axis(graph: &Graph, maker: NodeId) -> Option<usize> {
    match &graph.node(maker).op {
        Op::Conv(_) => Some(0),
        Op::Gemm(it)
            if it.alpha.to_bits() == 1f32.to_bits() && it.beta.to_bits() == 1f32.to_bits() =>
        {
            Some(usize::from(!it.trans_b))
        }
        _ => None,
    }
}

fn scaled(
    graph: &Graph,
    maker: NodeId,
    axis: usize,
    factor: &[f32],
    offset: &[f32],
) -> Option<(Tensor, Tensor)> {
    let node = graph.node(maker);
    let weight = graph.constant_input(node, 1)?;
    let shape = weight.shape();
    if shape.get(axis) != Some(&factor.len()) {
        return None;
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let mut values = weight.to_f32().ok()?;
    for (i, value) in values.iter_mut().enumerate() {
        *value *= factor[i / inner % factor.len()];
    }
    let bias = match node.input(2) {
        Some(it) => graph.constant(it)?.to_f32().ok()?,
        None => vec![0.0; factor.len()],
    };
    if bias.len() != factor.len() {
        return None;
    }
    let bias: Vec<f32> =
        bias.iter().zip(factor).zip(offset).map(|((b, f), o)| b.mul_add(*f, *o)).collect();
    Some((Tensor::from_f32(shape, &values), Tensor::from_f32(&[factor.len()], &bias)))
}

fn names(graph: &Graph, maker: NodeId) -> (String, String) {
    let name = |it: Option<ValueId>| it.map(|it| graph.value(it).name.clone());
    let node = graph.node(maker);
    let weight = name(node.input(1)).unwrap_or_else(|| "weight".to_owned());
    let bias = name(node.input(2)).unwrap_or_else(|| format!("{weight}_bias"));
    (format!("{weight}_folded"), format!("{bias}_folded"))
}
