//! What a network costs on chips: plain data, in SI units, with the unit in the name of the key.

use serde::{Deserialize, Serialize};

use crate::record::Ceiling;

/// What one network costs on one chip, for one run of a batch. Everything is an estimate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The chip's id.
    pub chip: String,
    /// The chip's full name.
    pub chip_name: String,
    /// The file of the network, as the user named it.
    pub model: String,
    /// Samples in one run.
    pub batch: u64,
    /// Which arithmetic was assumed, and why.
    pub precision: String,
    /// Time of one run, in seconds.
    pub latency_s: f64,
    /// Whether the latency is only a lower bound: some operators run on a host whose own time is not known.
    #[serde(default)]
    pub latency_at_least: bool,
    /// The same in cycles of the chip's clock.
    pub cycles: f64,
    /// Energy of one run, in joules; `None` while a figure is missing.
    pub energy_j: Option<f64>,
    /// The most that it can be: power limit × latency, where the chip states a limit.
    pub energy_at_most_j: Option<f64>,
    /// The figures that the energy lacks.
    pub energy_missing: Vec<String>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Multiply-accumulates with every tile rounded up to the chip's array.
    pub mac_slots: u64,
    /// Share of the array's slots over the whole run that hold a multiply-accumulate, 0 to 1.
    pub utilisation: f64,
    /// Number of trained values.
    pub parameters: u64,
    /// Stored weights, biases and scales.
    pub weight_bytes: u64,
    /// The most activations that live at once.
    pub peak_memory_bytes: u64,
    /// Whether the weights fit where they lie.
    pub weights_fit: bool,
    /// Whether the activations fit where they lie.
    pub activations_fit: bool,
    /// Where weights and activations lie.
    pub placements: Vec<Placement>,
    /// The resource that most of the latency waits for.
    pub bound: String,
    /// The latency by the resource that it waits for, longest first.
    pub shares: Vec<Share>,
    /// The chip's roofs.
    pub ceilings: Vec<Ceiling>,
    /// The best changes, largest gain first.
    pub opportunities: Vec<Opportunity>,
    /// What a chip with one figure 10 % better would gain, largest gain first.
    pub sensitivity: Vec<Sensitivity>,
    /// Operators that do not run on the chip itself, and what is left out for it.
    pub fallbacks: Vec<String>,
    /// Figures of low confidence on which this rests, with their origin.
    pub low_confidence: Vec<String>,
    /// Every node, in graph order.
    pub nodes: Vec<AnalysisNode>,
}

/// Whether something fits where it lies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// What: `weights` or `activations`.
    pub what: String,
    /// The memory.
    pub memory: String,
    /// What is needed.
    pub needed_bytes: u64,
    /// What there is; `None` where the chip's file does not say.
    pub capacity_bytes: Option<u64>,
    /// Whether it fits.
    pub fits: bool,
}

/// The part of the latency that waits for one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The resource.
    pub resource: String,
    /// Its part, in seconds.
    pub latency_s: f64,
}

/// A change that would make the network faster on the chip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Opportunity {
    /// The node, or what else would change.
    #[serde(rename = "where")]
    pub where_: String,
    /// The change.
    pub what: String,
    /// Why it gains.
    pub why: String,
    /// By how much one run gets shorter, in seconds.
    pub gain_s: f64,
}

/// How the estimate follows one figure of the chip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The figure, by its key in the chip file.
    pub field: String,
    /// The change of the figure, in percent.
    pub change_percent: f64,
    /// The change of the latency that follows, in percent.
    pub latency_change_percent: f64,
    /// The change of the energy that follows, in percent; `None` where the energy is not known.
    pub energy_change_percent: Option<f64>,
}

/// What one node costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AnalysisNode {
    /// Its name in the graph.
    pub name: String,
    /// Its operator, as in ONNX.
    pub op: String,
    /// Where it runs: `chip`, `host` or `nowhere`.
    pub runs_on: String,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Multiply-accumulates with every tile rounded up to the chip's array.
    pub mac_slots: u64,
    /// Bytes moved in all memories.
    pub bytes: u64,
    /// Stored weights, biases and scales.
    pub weight_bytes: u64,
    /// Time, in seconds.
    pub latency_s: f64,
    /// Energy, in joules, where it is known.
    pub energy_j: Option<f64>,
    /// The resource that it waits for.
    pub bound: String,
    /// How many times longer that resource takes than the next.
    pub margin: Option<f64>,
    /// Multiply-accumulates over those that the array could do in the time, 0 to 1.
    pub utilisation: f64,
    /// What else there is to say.
    pub note: String,
}
