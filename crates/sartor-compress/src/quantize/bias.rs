//! Biases after quantization: what rounding did to the mean of each channel is taken back (Nagel et al. 2019,
//! "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2 and appendix D, the empirical
//! form).

use sartor_engine::{Array, EngineError, Options, Program};
use sartor_ir::{Graph, NodeId, Op, QuantizeLinear, Tensor, ValueId, infer, verify};

use crate::{
    CompressError, Samples,
    calibrate::fixed_batch,
    restore_statistics::{Frontier, Moments, gathered, levels, moments, put},
    samples::First,
};

/// Samples of which the means are taken: thousands of positions of each channel.
const SAMPLES: usize = 128;

/// `quantized` with corrected biases where that brings the outputs on the samples closer to those of `float`, or else as it
/// is: in deep networks of few bits, channels with the right means may still fit together worse.
pub(super) fn corrected(
    float: &Graph,
    quantized: &Graph,
    samples: &dyn Samples,
) -> Result<Graph, CompressError> {
    let samples = &First::of(samples, fixed_batch(float).unwrap_or(SAMPLES));
    let inputs = gathered(samples)?;
    let mut changed = quantized.clone();
    correct(float, &mut changed, samples)?;
    let changed = changed.compacted();
    verify(&changed)?;
    let exact = outputs(float, &inputs)?;
    let error = |graph: &Graph| {
        let found = outputs(graph, &inputs)?;
        let squares = exact.iter().zip(&found).map(|(a, b)| f64::from(a - b).powi(2));
        Ok::<f64, CompressError>(squares.sum())
    };
    Ok(if error(&changed)? < error(quantized)? { changed } else { quantized.clone() })
}

/// All float outputs in a row.
fn outputs(graph: &Graph, inputs: &[Array]) -> Result<Vec<f32>, CompressError> {
    let error = |it: EngineError| CompressError::Run(it.to_string());
    let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
    let program = Program::prepare(graph, &shapes, &Options::default()).map_err(error)?;
    let made = program.run(inputs).map_err(error)?;
    Ok(made.iter().filter_map(Array::as_f32).flatten().copied().collect())
}

/// Shifts the biases of the layers of `quantized` so that each channel has the mean that it has in `float`, on what the
/// corrected layers before it put out. Layers are found by the names of their outputs.
fn correct(
    float: &Graph,
    quantized: &mut Graph,
    samples: &dyn Samples,
) -> Result<(), CompressError> {
    let levels: Vec<Vec<(NodeId, ValueId, ValueId)>> = levels(quantized)
        .into_iter()
        .map(|level| {
            let pairs = level.into_iter().filter_map(|site| {
                let integers = has_integers(quantized, site.node);
                let exact = integers.then(|| partner(float, quantized, site.measured)).flatten()?;
                Some((site.node, site.measured, exact))
            });
            pairs.collect()
        })
        .collect();
    let wanted = moments(float, levels.iter().flatten().map(|it| it.2), samples)?;
    let mut frontier = Frontier::new(quantized, gathered(samples)?);
    for level in levels {
        let targets: Vec<ValueId> = level.iter().map(|it| it.1).collect();
        frontier.advance(quantized, &targets)?;
        for (node, measured, exact) in level {
            let mut found = Moments::default();
            let Some(array) = frontier.get(measured) else { continue };
            found.add(array);
            shift(quantized, &mut frontier, (node, measured), &found, &wanted[&exact]);
        }
    }
    infer(quantized)?;
    Ok(())
}

/// Whether the weight of a node is the dequantization of a constant.
fn has_integers(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let back = node.input(1).and_then(|it| graph.producer(it)).map(|it| graph.node(it));
    matches!(node.op, Op::Conv(_) | Op::Gemm(_))
        && back.is_some_and(|it| {
            matches!(it.op, Op::DequantizeLinear(_)) && graph.constant_input(it, 0).is_some()
        })
}

/// The value of `float` that `measured` stands for; one that the network shows was renamed.
fn partner(float: &Graph, quantized: &Graph, measured: ValueId) -> Option<ValueId> {
    let name = &quantized.value(measured).name;
    float.find_value(name).or_else(|| float.find_value(name.strip_suffix("_float")?))
}

/// Adds the difference of the means to a bias, as far as its integers can.
fn shift(
    graph: &mut Graph,
    frontier: &mut Frontier,
    (id, measured): (NodeId, ValueId),
    found: &Moments,
    wanted: &Moments,
) {
    let channels = found.channels();
    if channels == 0 || wanted.channels() != channels {
        return;
    }
    let shifts: Vec<f64> = (0..channels).map(|it| wanted.mean(it) - found.mean(it)).collect();
    if let Some(made) = add(graph, id, &shifts) {
        frontier.correct(measured, &vec![1.0; channels], &made);
    }
}

/// Adds to the bias of a node, which it may not have yet; returns what was added, or `None` if that cannot be done.
fn add(graph: &mut Graph, id: NodeId, shifts: &[f64]) -> Option<Vec<f64>> {
    let node = graph.node(id).clone();
    let name = format!("{}_bias", graph.value(node.output()).name);
    let Some(bias) = node.input(2) else {
        let Some(units) = units(graph, id, shifts.len()) else {
            let values: Vec<f32> = shifts.iter().map(|it| *it as f32).collect();
            put(graph, id, 2, &name, Tensor::from_f32(&[values.len()], &values));
            return Some(values.into_iter().map(f64::from).collect());
        };
        let (integers, made) = rounded(&vec![0; shifts.len()], &units, shifts);
        let integers = Tensor::from_i32(&[integers.len()], &integers);
        let integers = graph.add_fresh_constant(&format!("{name}_quantized"), integers);
        let units = Tensor::from_f32(&[units.len()], &units);
        let units = graph.add_fresh_constant(&format!("{name}_scale"), units);
        let output = graph.fresh_name(&format!("{name}_dequantized"));
        let op = Op::DequantizeLinear(QuantizeLinear::along(0));
        let back =
            graph.add_node(&format!("{name}_dequantize"), op, &[integers, units], &[&output]);
        graph.set_input(id, 2, Some(*back.ok()?.first()?));
        graph.sort().ok()?;
        return Some(made);
    };
    if let Some(tensor) = graph.constant(bias) {
        let (old, shape) = (tensor.to_f32().ok()?, tensor.shape().to_vec());
        let add = |(b, s): (&f32, &f64)| (f64::from(*b) + s) as f32;
        let new: Vec<f32> = old.iter().zip(shifts).map(add).collect();
        if old.len() != shifts.len() {
            return None;
        }
        put(graph, id, 2, &name, Tensor::from_f32(&shape, &new));
        return Some(shifts.to_vec());
    }
    let maker = graph.producer(bias)?;
    let back = graph.node(maker);
    let (integers, units) = (graph.constant_input(back, 0)?, graph.constant_input(back, 1)?);
    let (old, shape) = (integers.to_i64().ok()?, integers.shape().to_vec());
    let units = units.to_f32().ok()?;
    if !matches!(back.op, Op::DequantizeLinear(_)) || old.len() != shifts.len() || units.is_empty()
    {
        return None;
    }
    let (new, made) = rounded(&old, &units, shifts);
    put(graph, maker, 0, &format!("{name}_quantized"), Tensor::from_i32(&shape, &new));
    Some(made)
}

/// `input scale × weight scale` of a node whose activation and weights have scales by tensor or by channel.
fn units(graph: &Graph, id: NodeId, channels: usize) -> Option<Vec<f32>> {
    let scales = |i: usize| -> Option<Vec<f32>> {
        let back = graph.node(graph.producer(graph.node(id).input(i)?)?);
        let Op::DequantizeLinear(op) = &back.op else { return None };
        let scales = graph.constant_input(back, 1)?.to_f32().ok()?;
        (op.block_size == 0).then_some(scales)
    };
    let (input, weights) = (scales(0)?, scales(1)?);
    let fits = input.len() == 1 && (weights.len() == channels || weights.len() == 1);
    fits.then(|| (0..channels).map(|c| input[0] * weights[c % weights.len()]).collect())
}

/// Integers nearest to the shifted bias, and by how much each moved.
fn rounded(old: &[i64], units: &[f32], shifts: &[f64]) -> (Vec<i32>, Vec<f64>) {
    let one = |(c, (old, shift)): (usize, (&i64, &f64))| {
        let unit = f64::from(units[c % units.len()]);
        let new = (*old as f64 + shift / unit).round_ties_even();
        let new = new.clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32;
        (new, (f64::from(new) - *old as f64) * unit)
    };
    old.iter().zip(shifts).enumerate().map(one).unzip()
}

#[cfg(test)]
mod tests {
    use sartor_ir::parse;

    use super::super::{QuantizeStatic, quantize};
    use super::*;
    use crate::InMemory;
    use sartor_engine::run_reference;

    #[test]
    fn means_come_back() {
        for bias in ["", ", %b"] {
            let text = format!(
                r#"graph "g" {{
                input %x: f32[N,4,1,1]
                const %w: f32[2,4,1,1] = [0.9, 0.35, 0.2, 0.71, -0.31, 0.8, 0.44, 0.15]
                const %b: f32[2] = [0.5, -0.25]
                const %v: f32[1,2,1,1] = [0.6, -0.9]
                node "a" %a = Conv(%x, %w{bias})
                node "r" %r = Relu(%a)
                node "c" %y = Conv(%r, %v)
                output %y
            }}"#
            );
            let float = parse(&text).unwrap();
            let x: Vec<f32> = (0..256u16).map(|i| (f32::from(i) * 0.7).sin() + 1.0).collect();
            let x = Array::f32(&[64, 4, 1, 1], x);
            let samples = InMemory::new(vec![x.clone()]).unwrap();
            let mean = |graph: &Graph| {
                let y = run_reference(graph, std::slice::from_ref(&x)).unwrap()[0].to_f64();
                y.iter().sum::<f64>() / y.len() as f64
            };
            let of = |correct_bias: bool| {
                let text =
                    format!("weights = {{ dtype = 'ternary' }}\ncorrect-bias = {correct_bias}");
                let config: QuantizeStatic = toml::from_str(&text).unwrap();
                let result = quantize(&float, &config, &samples, &mut |_, _| {}).unwrap();
                (mean(&result.graph) - mean(&float)).abs()
            };
            let (before, after) = (of(false), of(true));
            assert!(after < 0.05 && after < before / 3.0, "{bias}: {after}, before {before}");
        }
    }
}
