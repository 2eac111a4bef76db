//! Cross-layer equalization (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
//! sections 4.1 and 4.1.3): channels between two layers are scaled so that the weights on both sides have the same range, and
//! biases that only lift a channel move into the next layer.
//!
//! Deviations from the paper: mean and spread of a channel are measured, not taken from batch normalization, which is
//! folded by then; biases move only into layers that pad nothing, since zeros beyond the border would lack them; `Relu6` is
//! not replaced by `Relu`, so that pairs around it are left alone.

use std::collections::BTreeMap;

use sartor_ir::{
    AutoPad, Consumers, Conv, Gemm, GlobalPool, Graph, NodeId, Op, Pool, PoolKind, Tensor, Unary,
    ValueId, infer, verify,
};
use serde::{Deserialize, Serialize};

use crate::{
    CompressError, Samples,
    restore_statistics::{Moments, moments, put},
    samples::First,
};

/// Rounds over all pairs at most: a pair's ranges change with those of its neighbours.
const ROUNDS: usize = 40;

/// Equal enough: no factor of a round is further from 1.
const CLOSE: f32 = 1e-3;

/// Spreads below the mean that a channel keeps above zero (the paper's 3).
const SPREADS: f64 = 3.0;

/// Samples on which channels are measured.
const SAMPLES: usize = 128;

/// A recipe step: equalize the ranges of the channels between layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Equalize {
    /// Whether high biases move into the next layer.
    pub absorb: bool,
}

impl Default for Equalize {
    fn default() -> Self {
        Equalize { absorb: true }
    }
}

/// Two layers with nothing between them but what is linear for positive factors, channel by channel.
#[derive(Clone, Copy, Debug)]
struct Pair {
    first: NodeId,
    second: NodeId,
    /// The output of the first layer.
    between: ValueId,
    channels: usize,
    /// Whether a rectifier lies between.
    rectified: bool,
}

/// The weight of a layer and where channels lie in it: element `i` belongs to channel `of(i)`.
struct Weight {
    values: Vec<f32>,
    shape: Vec<usize>,
    side: Side,
}

/// How the index of an element gives the channel.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// Position along one axis.
    Axis { extent: usize, inner: usize },
    /// Inputs of a convolution in groups: `[outputs, inputs of a group, taps]`.
    Groups { outputs: usize, inputs: usize, taps: usize },
}

impl Side {
    fn of(self, i: usize) -> usize {
        match self {
            Side::Axis { extent, inner } => i / inner % extent,
            Side::Groups { outputs, inputs, taps } => {
                let (output, input) = (i / (inputs * taps), i / taps % inputs);
                output / outputs * inputs + input
            }
        }
    }
}

/// Equalizes `graph`, in which batch normalization should be folded. The function stays the same up to rounding, but for
/// `absorb`, which errs where a channel falls below what it was measured at.
///
/// # Errors
/// Samples that do not fit, or a network that cannot run; samples are looked at only with `absorb`.
pub fn equalize(
    graph: &Graph,
    config: &Equalize,
    samples: &dyn Samples,
) -> Result<Graph, CompressError> {
    let mut graph = graph.clone();
    infer(&mut graph)?;
    let pairs = pairs(&graph);
    for _ in 0..ROUNDS {
        let mut far = 0.0f32;
        for pair in &pairs {
            far = far.max(balance(&mut graph, pair).unwrap_or(0.0));
        }
        if far <= CLOSE {
            break;
        }
    }
    if config.absorb {
        absorb(&mut graph, &pairs, samples)?;
    }
    let mut graph = graph.compacted();
    infer(&mut graph)?;
    verify(&graph)?;
    Ok(graph)
}

/// All pairs, in topological order of their first layers.
fn pairs(graph: &Graph) -> Vec<Pair> {
    let consumers = graph.consumers();
    graph.nodes().filter_map(|(id, _)| pair(graph, &consumers, id)).collect()
}

fn pair(graph: &Graph, consumers: &Consumers, first: NodeId) -> Option<Pair> {
    let between = graph.node(first).output();
    let outputs = weight(graph, first, false)?;
    let Side::Axis { extent: channels, .. } = outputs.side else { return None };
    biases(graph, first, channels)?;
    let (mut at, mut rectified) = (between, false);
    loop {
        let ([(next, input)], false, false) =
            (consumers.of(at), graph.outputs().contains(&at), graph.is_captured(at))
        else {
            return None;
        };
        let node = graph.node(*next);
        let homogeneous = match node.op {
            Op::Unary(Unary::Relu) => {
                rectified = true;
                true
            }
            Op::GlobalPool(GlobalPool::Average | GlobalPool::Max) => true,
            Op::Pool(Pool { kind: PoolKind::Average | PoolKind::Max, .. }) => {
                node.outputs.iter().flatten().count() == 1
            }
            _ => false,
        };
        if homogeneous {
            at = node.output();
            continue;
        }
        let inputs = (*input == 0).then(|| weight(graph, *next, true)).flatten()?;
        let found = inputs.values.len().checked_sub(1).map(|last| inputs.side.of(last) + 1)?;
        let pair = Pair { first, second: *next, between, channels, rectified };
        return (found == channels).then_some(pair);
    }
}

/// The weight of a layer by its inputs or outputs, if it has one.
fn weight(graph: &Graph, id: NodeId, by_inputs: bool) -> Option<Weight> {
    let node = graph.node(id);
    let tensor = graph.constant_input(node, 1)?;
    let (values, shape) = (tensor.to_f32().ok()?, tensor.shape().to_vec());
    let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let side = match &node.op {
        Op::Conv(Conv { group, .. }) if by_inputs => {
            let outputs = shape.first()?.checked_div(*group).filter(|it| *it > 0)?;
            Side::Groups { outputs, inputs: *shape.get(1)?, taps: inner(1) }
        }
        Op::Conv(_) => Side::Axis { extent: *shape.first()?, inner: inner(0) },
        Op::Gemm(Gemm { trans_a: false, trans_b, alpha, beta })
            if shape.len() == 2 && alpha.to_bits() == ONE && beta.to_bits() == ONE =>
        {
            let axis = usize::from(*trans_b == by_inputs);
            Side::Axis { extent: shape[axis], inner: inner(axis) }
        }
        _ => return None,
    };
    (!values.is_empty()).then_some(Weight { values, shape, side })
}

const ONE: u32 = 1f32.to_bits();

/// The bias of a layer as one number a channel, zeros where it has none; `None` if it cannot be read so.
fn biases(graph: &Graph, id: NodeId, channels: usize) -> Option<Vec<f32>> {
    let node = graph.node(id);
    let Some(bias) = node.input(2) else { return Some(vec![0.0; channels]) };
    let values = graph.constant(bias)?.to_f32().ok()?;
    match values.as_slice() {
        [one] => Some(vec![*one; channels]),
        _ => (values.len() == channels).then_some(values),
    }
}

fn largest(weight: &Weight, channels: usize) -> Vec<f32> {
    let mut largest = vec![0.0f32; channels];
    for (i, w) in weight.values.iter().enumerate() {
        let it = &mut largest[weight.side.of(i)];
        *it = it.max(w.abs());
    }
    largest
}

/// Scales the channels of a pair by `s = √(r₁ / r₂)`, `W₁ / s`, `b₁ / s`, `W₂ s` (equation 11); returns how far the largest
/// factor is from 1.
fn balance(graph: &mut Graph, pair: &Pair) -> Option<f32> {
    let channels = pair.channels;
    let (mut first, mut second) =
        (weight(graph, pair.first, false)?, weight(graph, pair.second, true)?);
    let mut bias = biases(graph, pair.first, channels)?;
    let ranges = (largest(&first, channels), largest(&second, channels));
    let factor = |c: usize| {
        let it = (ranges.0[c] / ranges.1[c]).sqrt();
        if it.is_normal() { it } else { 1.0 }
    };
    let factors: Vec<f32> = (0..channels).map(factor).collect();
    for (i, w) in first.values.iter_mut().enumerate() {
        *w /= factors[first.side.of(i)];
    }
    for (i, w) in second.values.iter_mut().enumerate() {
        *w *= factors[second.side.of(i)];
    }
    bias.iter_mut().zip(&factors).for_each(|(b, s)| *b /= s);
    set(graph, pair.first, 1, &first.shape, &first.values);
    set(graph, pair.second, 1, &second.shape, &second.values);
    if graph.node(pair.first).input(2).is_some() {
        set(graph, pair.first, 2, &[channels], &bias);
    }
    Some(factors.iter().map(|it| (it - 1.0).abs()).fold(0.0, f32::max))
}

fn set(graph: &mut Graph, id: NodeId, i: usize, shape: &[usize], values: &[f32]) {
    let name = format!("{}_{}", graph.node(id).name, if i == 1 { "weight" } else { "bias" });
    put(graph, id, i, &name, Tensor::from_f32(shape, values));
}

/// Moves `c = max(0, mean - 3 · deviation)` of each rectified channel into the next layer: `b₁ - c` and `b₂ + W₂ c`
/// (equation 15, section 4.1.3).
fn absorb(graph: &mut Graph, pairs: &[Pair], samples: &dyn Samples) -> Result<(), CompressError> {
    let pairs: Vec<&Pair> =
        pairs.iter().filter(|it| it.rectified && pads_nothing(graph, it)).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let samples = First::of(samples, SAMPLES.min(samples.len()));
    let found = moments(graph, pairs.iter().map(|it| it.between), &samples)?;
    for pair in pairs {
        // A channel measured before the one in front of it lost its lift has lost nothing by that: the next layer's bias
        // made up for it.
        shift(graph, pair, &found);
    }
    Ok(())
}

/// Whether every position that the second layer reads holds the channel itself: neither it nor a pool between pads.
fn pads_nothing(graph: &Graph, pair: &Pair) -> bool {
    let second = graph.node(pair.second);
    let direct = second
        .input(0)
        .and_then(|it| graph.producer(it))
        .is_some_and(|it| matches!(graph.node(it).op, Op::Unary(Unary::Relu)));
    let padded = match &second.op {
        Op::Conv(Conv { spatial, .. }) => match spatial.auto_pad {
            AutoPad::NotSet => spatial.pads.iter().any(|it| *it > 0),
            AutoPad::Valid => false,
            AutoPad::SameUpper | AutoPad::SameLower => true,
        },
        _ => false,
    };
    direct && !padded
}

fn shift(graph: &mut Graph, pair: &Pair, found: &BTreeMap<ValueId, Moments>) -> Option<()> {
    let measured = found.get(&pair.between).filter(|it| it.channels() == pair.channels)?;
    let lift: Vec<f32> = (0..pair.channels)
        .map(|c| (measured.mean(c) - SPREADS * measured.variance(c).sqrt()).max(0.0) as f32)
        .collect();
    if lift.iter().all(|it| *it <= 0.0) {
        return None;
    }
    let mut first = biases(graph, pair.first, pair.channels)?;
    let (into, outputs) = (weight(graph, pair.second, true)?, weight(graph, pair.second, false)?);
    let Side::Axis { extent, .. } = outputs.side else { return None };
    let mut second = biases(graph, pair.second, extent)?;
    first.iter_mut().zip(&lift).for_each(|(b, c)| *b -= c);
    for (i, w) in into.values.iter().enumerate() {
        second[outputs.side.of(i)] += w * lift[into.side.of(i)];
    }
    set(graph, pair.first, 2, &[pair.channels], &first);
    set(graph, pair.second, 2, &[extent], &second);
    Some(())
}

#[cfg(test)]
mod tests {
    use sartor_engine::{Array, run_reference};
    use sartor_ir::parse;

    use super::*;
    use crate::InMemory;

    /// A convolution, a depthwise one and a dense layer behind a pool, with channels of very different ranges.
    const CHAIN: &str = r#"graph "g" {
        input %x: f32[N,2,3,3]
        const %w: f32[2,2,1,1] = [100, 50, 0.01, -0.02]
        const %b: f32[2] = [300, 0.03]
        const %d: f32[2,1,1,1] = [0.5, 40]
        const %v: f32[3,2,1,1] = [1, 2, -1, 0.5, 0.1, 3]
        const %c: f32[1] = [0.25]
        node "a" %a = Conv(%x, %w, %b)
        node "ra" %ra = Relu(%a)
        node "d" %e = Conv(%ra, %d) {group=2}
        node "rd" %rd = Relu(%e)
        node "v" %y = Conv(%rd, %v)
        output %y
    }"#;

    fn run(graph: &Graph, x: &Array) -> Vec<f64> {
        run_reference(graph, std::slice::from_ref(x)).unwrap()[0].to_f64()
    }

    fn input() -> Array {
        Array::f32(&[4, 2, 3, 3], (0..72u16).map(|i| (f32::from(i) * 0.9).sin()).collect())
    }

    fn samples() -> InMemory {
        InMemory::new(vec![input()]).unwrap()
    }

    #[test]
    fn ranges_become_equal_and_the_function_stays() {
        let float = parse(CHAIN).unwrap();
        let equal = equalize(&float, &Equalize { absorb: false }, &samples()).unwrap();
        let (x, own) = (input(), pairs(&equal));
        assert_eq!(own.len(), 2);
        for pair in own {
            let first = largest(&weight(&equal, pair.first, false).unwrap(), pair.channels);
            let second = largest(&weight(&equal, pair.second, true).unwrap(), pair.channels);
            for (a, b) in first.iter().zip(second) {
                assert!((a / b - 1.0).abs() < 0.01, "{a} {b}");
            }
        }
        for (a, b) in run(&float, &x).iter().zip(run(&equal, &x)) {
            assert!((a - b).abs() <= 1e-4 * (1.0 + a.abs()), "{b} for {a}");
        }
    }

    #[test]
    fn high_biases_move_into_the_next_layer() {
        let float = parse(CHAIN).unwrap();
        let x = input();
        let moved = equalize(&float, &Equalize::default(), &samples()).unwrap();
        let plain = equalize(&float, &Equalize { absorb: false }, &samples()).unwrap();
        let bias = |graph: &Graph| biases(graph, graph.find_node("a").unwrap(), 2).unwrap();
        assert!(bias(&moved)[0] < 0.9 * bias(&plain)[0], "{:?} {:?}", bias(&moved), bias(&plain));
        for (a, b) in run(&float, &x).iter().zip(run(&moved, &x)) {
            assert!((a - b).abs() <= 1e-3 * (1.0 + a.abs()), "{b} for {a}");
        }
    }

    #[test]
    fn a_value_that_others_read_stays() {
        let text = CHAIN.replace("output %y", "output %y\n output %ra");
        let float = parse(&text).unwrap();
        let equal = equalize(&float, &Equalize { absorb: false }, &samples()).unwrap();
        assert_eq!(pairs(&float).len(), 1);
        for (a, b) in run(&float, &input()).iter().zip(run(&equal, &input())) {
            assert!((a - b).abs() <= 1e-4 * (1.0 + a.abs()), "{b} for {a}");
        }
    }
}
