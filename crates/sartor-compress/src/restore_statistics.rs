//! Statistics after a change of the network: what the layers put out is brought back to the mean and spread
//! that the network was trained for.
//!
//! A `BatchNormalization` gets the mean and variance of its input measured anew on calibration data, as
//! adaptive batch normalization does (Li et al. 2020, `EagleEye`, <https://arxiv.org/abs/2007.02491>; Sun et
//! al. 2019, <https://arxiv.org/abs/1809.08941>). Where it was folded away, its stored statistics are gone,
//! but the network that came in still shows them: each output channel `y` of a convolution becomes
//! `(y - mean) * sqrt(reference variance / variance) + reference mean`, written into weights and bias. That
//! is the same correction, and without the factor it is the empirical bias correction of Nagel et al. 2019,
//! section 4.2 (<https://arxiv.org/abs/1906.04721>). Dense layers get the mean alone.
//!
//! Layers are corrected in topological order, each on what the corrected layers before it put out.

mod frontier;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use sartor_engine::Array;
use sartor_ir::{Graph, NodeId, Op, Tensor, ValueId, infer, verify};
use serde::{Deserialize, Serialize};

pub(crate) use self::frontier::Frontier;
use crate::{
    CompressError, Samples,
    calibrate::observe,
    prune::{Kept, node_name},
    samples::First,
};

/// The step `restore-statistics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RestoreStatistics {
    /// Whether convolutions without normalization get their spread back too, and not only their mean.
    #[serde(default = "yes")]
    pub variance: bool,
    /// Measure on this many samples, the first ones. They run at once: memory holds what is alive of all of
    /// them between two layers.
    #[serde(default = "some")]
    pub samples: usize,
}

fn yes() -> bool {
    true
}

/// Thousands of positions of each channel, at a fraction of the time and memory that all samples would take.
fn some() -> usize {
    128
}

impl Default for RestoreStatistics {
    fn default() -> Self {
        RestoreStatistics { variance: yes(), samples: some() }
    }
}

/// A network with restored statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// The network.
    pub graph: Graph,
    /// Names of the nodes that were corrected, in topological order.
    pub corrected: Vec<String>,
    /// Nodes that were left alone, each with the reason.
    pub skipped: Vec<(String, &'static str)>,
}

/// A layer to correct, and where it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) node: NodeId,
    /// The input of a normalization, the output of a convolution or dense layer.
    pub(crate) measured: ValueId,
}

/// Restores the statistics of `graph`, which came from `reference` by taking out channels: values are found
/// by their names, and `kept` (of the reference's ids) tells which channels are left. `progress` gets the
/// layers done and their number.
///
/// # Errors
/// Samples that do not fit, or a network that cannot run.
pub fn restore_statistics(
    graph: &Graph,
    reference: &Graph,
    kept: &Kept,
    step: &RestoreStatistics,
    samples: &dyn Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Restored, CompressError> {
    let samples = &First::of(samples, step.samples);
    let mut restored =
        Restored { graph: graph.clone(), corrected: Vec::new(), skipped: Vec::new() };
    let levels = levels(graph);
    let wanted = reference_moments(graph, reference, kept, &levels, samples)?;
    let mut frontier = Frontier::new(graph, gathered(samples)?);
    let total = levels.iter().map(Vec::len).sum();
    progress(0, total);
    for level in &levels {
        let targets: Vec<ValueId> = level.iter().map(|it| it.measured).collect();
        frontier.advance(&restored.graph, &targets)?;
        for site in level {
            let name = node_name(graph, graph.node(site.node)).to_owned();
            match restore(&mut restored.graph, &mut frontier, *site, &wanted, step.variance) {
                Ok(()) => restored.corrected.push(name),
                Err(reason) => restored.skipped.push((name, reason)),
            }
        }
        progress(restored.corrected.len() + restored.skipped.len(), total);
    }
    restored.graph = restored.graph.compacted();
    infer(&mut restored.graph)?;
    verify(&restored.graph)?;
    Ok(restored)
}

/// Corrects one layer, and what it has put out.
fn restore(
    graph: &mut Graph,
    frontier: &mut Frontier,
    site: Site,
    wanted: &BTreeMap<ValueId, Moments>,
    variance: bool,
) -> Result<(), &'static str> {
    let mut found = Moments::default();
    found.add(frontier.get(site.measured).ok_or("it was not measured")?);
    if matches!(graph.node(site.node).op, Op::BatchNormalization(_)) {
        return normalize(graph, site.node, &found);
    }
    let wanted = wanted.get(&site.measured).ok_or("the reference network has no such value")?;
    let (scale, shift) = correct(graph, site.node, &found, wanted, variance)?;
    frontier.correct(site.measured, &scale, &shift);
    Ok(())
}

/// All samples as one batch.
pub(crate) fn gathered(samples: &dyn Samples) -> Result<Vec<Array>, CompressError> {
    let mut all = Vec::new();
    samples.for_each(samples.len(), &mut |arrays| {
        all = arrays.to_vec();
        Ok(())
    })?;
    Ok(all)
}

/// The layers to correct, those that no uncorrected one precedes first.
pub(crate) fn levels(graph: &Graph) -> Vec<Vec<Site>> {
    let consumers = graph.consumers();
    let mut depths: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut levels: Vec<Vec<Site>> = Vec::new();
    for (id, node) in graph.nodes() {
        let depth = node.reads().filter_map(|it| depths.get(&it).copied()).max().unwrap_or(0);
        let output = node.outputs.first().copied().flatten();
        let normalized = |value: ValueId| {
            let readers = consumers.of(value);
            !readers.is_empty()
                && readers.iter().all(|&(it, at)| {
                    at == 0 && matches!(graph.node(it).op, Op::BatchNormalization(_))
                })
        };
        let measured = match (&node.op, output) {
            (Op::BatchNormalization(_), Some(_)) => node.input(0),
            (Op::Conv(_) | Op::Gemm(_), Some(output)) if !normalized(output) => Some(output),
            _ => None,
        };
        if let Some(measured) = measured {
            levels.resize(levels.len().max(depth + 1), Vec::new());
            levels[depth].push(Site { node: id, measured });
        }
        let after = depth + usize::from(measured.is_some());
        depths.extend(node.outputs.iter().flatten().map(|&it| (it, after)));
    }
    levels
}

/// Mean and variance of each channel (axis 1).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    count: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    pub(crate) fn add(&mut self, array: &Array) {
        let (Some(values), [_, channels, ..]) = (array.as_f32(), array.shape.as_slice()) else {
            return;
        };
        let inner: usize = array.shape[2..].iter().product();
        self.sums.resize(*channels, 0.0);
        self.squares.resize(*channels, 0.0);
        // A channel is summed image by image in order, whatever the number of threads.
        let of = |channel: usize| {
            let runs = values.chunks_exact(inner.max(1)).skip(channel).step_by(*channels);
            runs.map(sums).fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d))
        };
        let found: Vec<(f64, f64)> = (0..*channels).into_par_iter().map(of).collect();
        for (channel, (sum, square)) in found.into_iter().enumerate() {
            self.sums[channel] += sum;
            self.squares[channel] += square;
        }
        self.count += (array.shape[0] * inner) as f64;
    }

    pub(crate) fn mean(&self, channel: usize) -> f64 {
        self.sums[channel] / self.count
    }

    pub(crate) fn variance(&self, channel: usize) -> f64 {
        (self.squares[channel] / self.count - self.mean(channel).powi(2)).max(0.0)
    }

    pub(crate) fn channels(&self) -> usize {
        self.sums.len()
    }

    fn picked(&self, kept: Option<&[usize]>) -> Self {
        let Some(kept) = kept else { return self.clone() };
        let pick = |list: &[f64]| kept.iter().filter_map(|&i| list.get(i).copied()).collect();
        Moments { count: self.count, sums: pick(&self.sums), squares: pick(&self.squares) }
    }
}

/// Sum and sum of squares, in eight interleaved parts so that the additions do not wait for each other.
fn sums(run: &[f32]) -> (f64, f64) {
    let (mut sum, mut square) = ([0.0; 8], [0.0; 8]);
    for eight in run.chunks(8) {
        for (i, &it) in eight.iter().enumerate() {
            sum[i] += f64::from(it);
            square[i] += f64::from(it) * f64::from(it);
        }
    }
    (sum.iter().sum(), square.iter().sum())
}

/// The moments of some values of `graph` over all samples.
pub(crate) fn moments(
    graph: &Graph,
    values: impl Iterator<Item = ValueId>,
    samples: &dyn Samples,
) -> Result<BTreeMap<ValueId, Moments>, CompressError> {
    let mut moments: BTreeMap<ValueId, Moments> =
        values.map(|it| (it, Moments::default())).collect();
    let watch: BTreeSet<ValueId> = moments.keys().copied().collect();
    observe(&upstream(graph, &watch), &watch, samples, &mut |_, _| {}, &mut |id, array| {
        moments.entry(id).or_default().add(array);
        Ok(())
    })?;
    Ok(moments)
}

/// The part of `graph` that makes `values`, under the same ids.
fn upstream(graph: &Graph, values: &BTreeSet<ValueId>) -> Graph {
    let mut part = graph.clone();
    part.set_outputs(values.iter().copied().filter(|it| graph.producer(*it).is_some()).collect());
    let mut needed = values.clone();
    let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    for &id in nodes.iter().rev() {
        if graph.node(id).outputs.iter().flatten().any(|it| needed.contains(it)) {
            needed.extend(graph.node(id).reads());
        } else {
            part.remove_node(id);
        }
    }
    part
}

/// What the reference network shows at the convolutions and dense layers, of the channels that are left, by
/// the ids of `graph`.
fn reference_moments(
    graph: &Graph,
    reference: &Graph,
    kept: &Kept,
    levels: &[Vec<Site>],
    samples: &dyn Samples,
) -> Result<BTreeMap<ValueId, Moments>, CompressError> {
    let products = levels
        .iter()
        .flatten()
        .filter(|it| !matches!(graph.node(it.node).op, Op::BatchNormalization(_)));
    let pairs: Vec<(ValueId, ValueId)> = products
        .filter_map(|site| {
            Some((site.measured, reference.find_value(&graph.value(site.measured).name)?))
        })
        .collect();
    if pairs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = moments(reference, pairs.iter().map(|it| it.1), samples)?;
    Ok(pairs.into_iter().map(|(id, old)| (id, found[&old].picked(kept.get(old, 1)))).collect())
}

/// Gives a normalization the statistics of its input.
fn normalize(graph: &mut Graph, id: NodeId, found: &Moments) -> Result<(), &'static str> {
    let node = graph.node(id).clone();
    let statistics =
        [(3, "mean", Moments::mean as fn(&Moments, usize) -> f64), (4, "var", Moments::variance)];
    for (i, _, _) in statistics {
        let old = graph.constant_input(&node, i).ok_or("its statistics are not constants")?;
        if old.len() != found.channels() {
            return Err("its input was not measured");
        }
    }
    for (i, what, of) in statistics {
        let values: Vec<f32> =
            (0..found.channels()).map(|channel| of(found, channel) as f32).collect();
        let name = format!("{}_{what}", node.name);
        put(graph, id, i, &name, Tensor::from_f32(&[values.len()], &values));
    }
    Ok(())
}

/// Shifts, and if `variance` scales, the output channels of a convolution or dense layer; returns factor and
/// addend of each.
fn correct(
    graph: &mut Graph,
    id: NodeId,
    found: &Moments,
    wanted: &Moments,
    variance: bool,
) -> Result<(Vec<f64>, Vec<f64>), &'static str> {
    let node = graph.node(id).clone();
    let channels = found.channels();
    if channels == 0 || wanted.channels() != channels {
        return Err("the reference network has other channels there");
    }
    let weight = graph.constant_input(&node, 1).ok_or("its weight is not a constant")?;
    let mut weights = weight.to_f32().map_err(|_| "its weight is not of a float type")?;
    let shape = weight.shape().to_vec();
    let bias = match (node.input(2), graph.constant_input(&node, 2)) {
        (None, _) => vec![0.0; channels],
        (Some(_), Some(bias)) => bias.to_f32().map_err(|_| "its bias is not of a float type")?,
        (Some(_), None) => return Err("its bias is not a constant"),
    };
    let scaled_bias = matches!(&node.op, Op::Gemm(it) if (it.beta - 1.0).abs() > 0.0);
    if bias.len() != channels || scaled_bias {
        return Err("its bias is not one number for each channel");
    }
    let rescale = variance && matches!(node.op, Op::Conv(_));
    let scale = |channel: usize| {
        let ratio = (wanted.variance(channel) / found.variance(channel)).sqrt();
        if rescale && ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
    };
    let scales: Vec<f64> = (0..channels).map(scale).collect();
    let shifted = |channel: usize| {
        let centred = f64::from(bias[channel]) - found.mean(channel);
        (centred * scales[channel] + wanted.mean(channel)) as f32
    };
    let bias: Vec<f32> = (0..channels).map(shifted).collect();
    if rescale {
        for (filter, scale) in
            weights.chunks_exact_mut(shape[1..].iter().product::<usize>().max(1)).zip(&scales)
        {
            for it in filter {
                *it = (f64::from(*it) * scale) as f32;
            }
        }
        put(graph, id, 1, &format!("{}_weight", node.name), Tensor::from_f32(&shape, &weights));
    }
    put(graph, id, 2, &format!("{}_bias", node.name), Tensor::from_f32(&[channels], &bias));
    let addends = (0..channels).map(|it| wanted.mean(it) - found.mean(it) * scales[it]).collect();
    Ok((scales, addends))
}

/// Gives input `i` of a node a constant of its own, under the old name where nobody else reads it.
pub(crate) fn put(graph: &mut Graph, id: NodeId, i: usize, name: &str, tensor: Tensor) {
    let readers = graph.consumers();
    let own = graph
        .node(id)
        .input(i)
        .filter(|it| readers.of(*it).len() == 1 && !graph.outputs().contains(it));
    if let Some(own) = own {
        graph.set_constant(own, tensor);
    } else {
        let fresh = graph.add_fresh_constant(name, tensor);
        graph.set_input(id, i, Some(fresh));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        InMemory,
        prune::{Criterion, Keep, PruneChannels, prune},
    };

    fn noise(seed: usize) -> f32 {
        let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed >> 40) as f32 / (1 << 23) as f32) - 1.0
    }

    /// The graph of `body`, inputs whose names begin with `p` turned into parameters.
    fn graph(body: &str) -> Graph {
        let mut graph =
            sartor_ir::parse(&format!("graph \"g\" {{\n opset \"\" 17\n{body}\n}}")).unwrap();
        let ids = graph.inputs().to_vec();
        let (parameters, inputs): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|&id| graph.value(id).name.starts_with('p'));
        for (seed, id) in parameters.into_iter().enumerate() {
            let shape = graph.value(id).ty.as_ref().unwrap().dims().unwrap();
            let values: Vec<f32> =
                (0..shape.iter().product()).map(|i| noise(seed * 7919 + i) + 0.3).collect();
            graph.set_constant(id, Tensor::from_f32(&shape, &values));
        }
        graph.set_inputs(inputs);
        infer(&mut graph).unwrap();
        graph
    }

    fn samples() -> InMemory {
        InMemory::new(vec![Array::f32(&[70, 3, 4, 4], (0..70 * 48).map(noise).collect())]).unwrap()
    }

    fn pruned(graph: &Graph) -> crate::prune::Pruned {
        prune(graph, &PruneChannels { criterion: Criterion::L1, grain: 2, keep: Keep::Share(0.5) })
            .unwrap()
    }

    fn restore(pruned: &crate::prune::Pruned, reference: &Graph, variance: bool) -> Restored {
        let step = RestoreStatistics { variance, samples: 70 };
        restore_statistics(
            &pruned.graph,
            reference,
            &pruned.kept,
            &step,
            &samples(),
            &mut |_, _| {},
        )
        .unwrap()
    }

    fn found(graph: &Graph, name: &str) -> Moments {
        let id = graph.find_value(name).unwrap();
        moments(graph, std::iter::once(id), &samples()).unwrap().remove(&id).unwrap()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-4 * (1.0 + b.abs())
    }

    #[test]
    fn folded_networks_show_the_moments_of_the_reference() {
        let chain = graph(
            "input %x: f32[N,3,4,4]\n input %p1: f32[8,3,3,3]\n input %p2: f32[8]\n input %p3: f32[6,8,1,1]
             input %p4: f32[4,6]\n input %p5: f32[4]
             node \"a\" %a = Conv(%x, %p1, %p2)\n node \"r\" %r = Relu(%a)
             node \"b\" %b = Conv(%r, %p3)\n node \"g\" %g = GlobalAveragePool(%b)\n node \"f\" %f = Flatten(%g)
             node \"y\" %y = Gemm(%f, %p4, %p5) {transB=1}\n output %y",
        );
        let small = pruned(&chain);
        for variance in [true, false] {
            let restored = restore(&small, &chain, variance);
            assert_eq!(restored.corrected, ["a", "b", "y"]);
            for name in ["b", "y"] {
                let kept = small.kept.get(chain.find_value(name).unwrap(), 1);
                let (wanted, now) =
                    (found(&chain, name).picked(kept), found(&restored.graph, name));
                for channel in 0..wanted.channels() {
                    assert!(close(now.mean(channel), wanted.mean(channel)), "{name} {channel}");
                    let same = close(now.variance(channel), wanted.variance(channel));
                    assert_eq!(same, variance && name == "b", "{name} {channel}");
                }
            }
        }
    }

    #[test]
    fn normalizations_measure_their_inputs() {
        let normal = graph(
            "input %x: f32[N,3,4,4]\n input %p1: f32[8,3,3,3]\n input %p2: f32[6,8,1,1]
             const %s: f32[8] = [1, 1, 1, 1, 1, 1, 1, 1]\n const %z: f32[8] = [0, 0, 0, 0, 0, 0, 0, 0]
             const %s2: f32[6] = [2, 2, 2, 2, 2, 2]\n const %z2: f32[6] = [1, 1, 1, 1, 1, 1]
             input %p3: f32[4,6,1,1]
             node \"a\" %a = Conv(%x, %p1)\n node \"na\" %n = BatchNormalization(%a, %s, %z, %z, %s)
             node \"r\" %r = Relu(%n)\n node \"b\" %b = Conv(%r, %p2)
             node \"nb\" %m = BatchNormalization(%b, %s2, %z2, %z2, %s2)
             node \"y\" %y = Conv(%m, %p3)\n output %y",
        );
        let restored = restore(&pruned(&normal), &normal, true);
        assert_eq!(restored.corrected, ["na", "nb", "y"]);
        for (name, mean, variance) in [("n", 0.0, 1.0), ("m", 1.0, 4.0)] {
            let now = found(&restored.graph, name);
            for channel in 0..now.channels() {
                assert!((now.mean(channel) - mean).abs() < 1e-3, "{name}: {}", now.mean(channel));
                assert!(
                    (now.variance(channel) - variance).abs() < 1e-2,
                    "{name}: {}",
                    now.variance(channel)
                );
            }
        }
    }
}
