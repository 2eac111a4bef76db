//! Post-training quantization to integers with ranges fixed ahead, written as
//! `QuantizeLinear`/`DequantizeLinear` pairs around the operators that runtimes and chips then fuse.
//!
//! The scheme is that of Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference": `x = scale (q - zero_point)`, symmetric weights with a scale per
//! output channel, activations per tensor, biases as 32-bit integers with the scale
//! `input scale × weight scale`. Ranges follow Nagel et al. 2021, "A White Paper on Neural Network
//! Quantization", section 3.1.

mod analytic;
mod bias;
mod choose;
mod entropy;
mod format;
mod lower;
mod place;
mod range;
mod rewrite;
mod scale;
mod sqnr;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::BTreeMap;

use sartor_ir::{Graph, infer};
use serde::{Deserialize, Serialize};

pub use format::{ActivationFormat, ActivationType, ScaleKind, Storage, WeightFormat, WeightType};
pub(crate) use lower::lower;
pub(crate) use place::label;
pub use sqnr::measure_sqnr;

use crate::{
    CompressError, Samples,
    calibrate::{Observer, calibrate},
};

/// A recipe step: quantize weights and activations to few bits with ranges found on samples.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct QuantizeStatic {
    /// How weights are stored.
    pub weights: WeightFormat,
    /// Formats of the weights of single nodes, by name as in `skip`, that differ from `weights`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights_by_node: BTreeMap<String, WeightFormat>,
    /// How activations are stored.
    pub activations: ActivationFormat,
    /// Which numbers scales may be.
    pub scales: ScaleKind,
    /// How the range of an activation is found.
    pub ranges: RangeMethod,
    /// Whether biases are shifted so that the mean of each channel of each layer with weights is that of the float
    /// network on the samples (Nagel et al. 2019, section 4.2), if the outputs come closer by that.
    pub correct_bias: bool,
    /// Nodes that stay float, by name (or, where a node has none, by the name of its first output).
    pub skip: Vec<String>,
    /// Operators to quantize, by ONNX's names; empty for all that can be ([`QUANTIZABLE`]).
    pub ops: Vec<String>,
}

/// The operators that [`quantize`] gives an integer form, by ONNX's names. Operators that only move elements
/// pass the integers of their input on and need no mention.
pub const QUANTIZABLE: &[&str] =
    &["Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "ReduceMean"];

/// How the range of an activation is found from what the samples made of it.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeMethod {
    /// From the smallest to the largest element seen: nothing is clipped.
    #[default]
    MinMax,
    /// What holds this many percent of the elements, as in NVIDIA's `TensorRT`: of the magnitudes for a
    /// symmetric format, with equal shares cut off both ends for an asymmetric one.
    Percentile(f64),
    /// The range with the least mean squared error between elements and their quantized form, by grid search.
    Mse,
    /// From the mean of the smallest to the mean of the largest elements of single samples (as the averages of Jacob et
    /// al. 2018, section 3.1, but all samples count alike).
    MovingAverage,
    /// The range after which the distribution of the elements has the least relative entropy (Migacz 2017).
    Entropy,
    /// The range that is best for a Laplace or Gauss distribution of the measured spread (Banner et al. 2019, ACIQ).
    Analytic,
    /// For each activation the one of these methods (percentile 99.99) after which the layers that read it err least, on a
    /// few samples.
    Auto,
}

/// A quantized graph and what was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The graph.
    pub graph: Graph,
    /// Every node that computes on floats, in the order of the given graph.
    pub nodes: Vec<QuantizedNode>,
}

/// What became of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuantizedNode {
    /// Name, or the name of its first output.
    pub name: String,
    /// ONNX's name of its operator.
    pub op: String,
    /// The value with its result in the given graph, after a rectifier that it absorbs.
    pub output: String,
    /// Format of its weights, if they are quantized.
    pub weights: Option<String>,
    /// Format of its activations, if they are quantized.
    pub activations: Option<String>,
    /// Channels whose weight scale had to grow so that the bias fits 32 bits.
    pub enlarged_channels: usize,
    /// Signal to quantization noise of the result in dB, if it was measured ([`measure_sqnr`]).
    pub sqnr_db: Option<f64>,
    /// Why the node stays float, if it does.
    pub left_float_because: Option<String>,
}

/// Quantizes `graph` as `config` says. All samples are run once; `progress` gets the samples done and
/// their number. Batch normalization should be folded before (`sartor_ir::passes::FoldBatchNorm`): what is
/// left of it stays float.
///
/// The outputs of the network stay float. The opset is raised to 13, where per-channel scales begin, or to 21 for
/// integers of 4 and 16 bits and for blocks.
///
/// # Errors
/// A configuration that cannot be meant, samples that do not fit, a network that does not run, and weights
/// or activations that are not finite.
pub fn quantize(
    graph: &Graph,
    config: &QuantizeStatic,
    samples: &dyn Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized, CompressError> {
    check(graph, config)?;
    let mut graph = graph.clone();
    infer(&mut graph)?;
    let graph = lower(&graph)?;
    let plan = place::place(&graph, config);
    let observers = if plan.watch.is_empty() {
        BTreeMap::new()
    } else {
        calibrate(&graph, &plan.watch, &observer(config.ranges), samples, progress)?
    };
    let classes = scale::by_class(&plan, &observers);
    let scales = if config.ranges == RangeMethod::Auto {
        choose::choose(&graph, &plan, &classes, config, samples)?
    } else {
        scale::activation_scales(&classes, config)
    };
    let mut quantized = rewrite::rewrite(&graph, &plan, &scales, config)?;
    if config.correct_bias {
        quantized.graph = bias::corrected(&graph, &quantized.graph, samples)?;
    }
    Ok(quantized)
}

/// What a method has to see of a value.
fn observer(ranges: RangeMethod) -> Observer {
    match ranges {
        RangeMethod::MinMax => Observer::new(false),
        RangeMethod::MovingAverage => Observer::new(false).with_averages(),
        RangeMethod::Auto => Observer::new(true).with_averages(),
        _ => Observer::new(true),
    }
}

impl QuantizeStatic {
    /// How the weights of the node with this name are stored.
    pub fn weights_of(&self, node: &str) -> &WeightFormat {
        self.weights_by_node.get(node).unwrap_or(&self.weights)
    }
}

/// Refuses a configuration that cannot be meant.
fn check(graph: &Graph, config: &QuantizeStatic) -> Result<(), CompressError> {
    let refuse = |key: &str, found: String, expected: String| {
        Err(CompressError::Config { key: key.to_owned(), found, expected })
    };
    config.weights_by_node.values().chain([&config.weights]).try_for_each(WeightFormat::check)?;
    if let RangeMethod::Percentile(share) = config.ranges
        && !(share > 50.0 && share <= 100.0)
    {
        return refuse(
            "ranges.percentile",
            share.to_string(),
            "above 50 and at most 100".to_owned(),
        );
    }
    if let Some(op) = config.ops.iter().find(|it| !QUANTIZABLE.contains(&it.as_str())) {
        return refuse("ops", format!("`{op}`"), format!("some of {}", QUANTIZABLE.join(", ")));
    }
    match config
        .skip
        .iter()
        .chain(config.weights_by_node.keys())
        .find(|it| !graph.nodes().any(|(id, _)| place::label(graph, id) == **it))
    {
        Some(name) => Err(CompressError::NoSuchNode(name.clone())),
        None => Ok(()),
    }
}
