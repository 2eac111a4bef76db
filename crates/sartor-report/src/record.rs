//! What is written about a run: plain data, in SI units, with the unit in the name of the key.
//!
//! Keys are only ever added within a schema, and an added key has a default, so that an old
//! `report.json` can be rendered again.

use serde::{Deserialize, Serialize};

/// The number of the layout that this version reads and writes.
pub const SCHEMA: u64 = 1;

/// Everything that is worth knowing about one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Layout of the record: [`SCHEMA`].
    pub schema: u64,
    /// Version of Sartor that made the run.
    pub version: String,
    /// Seed of every random choice of the run.
    pub seed: u64,
    /// The network that came in.
    pub model: ModelInfo,
    /// The chip that it was fitted to.
    pub chip: ChipInfo,
    /// The data that accuracy was measured on, in words; `None` where none was given.
    pub data: Option<String>,
    /// Whether the limits were met.
    pub verdict: Verdict,
    /// What the owner asked for.
    pub limits: Limits,
    /// The network that came in, in figures.
    pub before: Figures,
    /// The network that goes out, in figures.
    pub after: Figures,
    /// What was done, in order.
    pub steps: Vec<StepRecord>,
    /// What was considered and not done.
    pub refused: Vec<Refused>,
    /// What the reader should know before trusting the result.
    pub warnings: Vec<String>,
    /// The recipe that gives the same bytes again, as TOML text.
    pub recipe: String,
    /// Commands that bring the result onto the chip.
    pub deploy: Vec<String>,
    /// Estimate for each node of the network that came in, in graph order.
    pub nodes_before: Vec<NodeEstimate>,
    /// Estimate for each node of the network that goes out, in graph order.
    pub nodes_after: Vec<NodeEstimate>,
}

/// The network that came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The file that it was read from, as it was named by the user.
    pub file: String,
    /// The name that the network has inside the file.
    pub name: String,
    /// Number of trained values.
    pub parameters: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// The operator set of the standard domain.
    pub opset: u64,
    /// What the network takes.
    pub inputs: Vec<TensorInfo>,
    /// What the network gives.
    pub outputs: Vec<TensorInfo>,
}

/// An input or an output of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name in the graph.
    pub name: String,
    /// Its element type, as `float32`.
    pub dtype: String,
    /// Its dimensions: a number, or the name of a symbolic one.
    pub shape: Vec<String>,
}

/// The chip that a network was fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChipInfo {
    /// Its name in the library.
    pub id: String,
    /// Its name in the shop.
    pub name: String,
    /// The figures that rest on an assumption, each in words; estimates inherit the doubt.
    pub low_confidence: Vec<String>,
    /// What the chip can do at best; the roofs of the roofline. May be empty.
    #[serde(default)]
    pub ceilings: Vec<Ceiling>,
}

/// An upper bound of what a chip can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ceiling {
    /// Arithmetic.
    Compute {
        /// What computes, as `int8 array`.
        name: String,
        /// Multiply-accumulates per second.
        macs_per_s: f64,
    },
    /// Traffic.
    Memory {
        /// What is read and written, as `DRAM`.
        name: String,
        /// Bytes per second.
        bytes_per_s: f64,
    },
}

/// Whether the limits were met, and by how much or why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// All limits hold for the network that goes out.
    pub met: bool,
    /// One sentence: the margin, or the limit that stood in the way.
    pub reason: String,
}

/// What the owner asked for; `None` where nothing was asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest fall of top-1 accuracy, in percentage points.
    pub max_drop_points: Option<f64>,
    /// Least top-1 accuracy, in percent.
    pub min_accuracy_percent: Option<f64>,
    /// Largest estimated latency, in seconds.
    pub max_latency_s: Option<f64>,
    /// Largest estimated energy of one inference, in joules.
    pub max_energy_j: Option<f64>,
    /// Largest size of the written model.
    pub max_size_bytes: Option<u64>,
    /// Largest working memory.
    pub max_ram_bytes: Option<u64>,
    /// Largest constant memory.
    pub max_flash_bytes: Option<u64>,
    /// How long the run was allowed to take, in seconds.
    pub time_s: Option<f64>,
}

/// One network in figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Measured: samples whose best class is the right one, in percent.
    pub top1: Option<f64>,
    /// Lower end of the 95 % interval of `top1`, in percent.
    pub top1_low: Option<f64>,
    /// Upper end of the 95 % interval of `top1`, in percent.
    pub top1_high: Option<f64>,
    /// Measured: samples whose right class is among the best five, in percent.
    pub top5: Option<f64>,
    /// On how many samples accuracy was measured.
    pub samples: Option<u64>,
    /// Measured: samples on which the best class is that of the original network, in percent.
    pub agreement: Option<f64>,
    /// Estimated: time of one inference on the chip, in seconds.
    pub latency_s: f64,
    /// Estimated: energy of one inference on the chip, in joules.
    pub energy_j: Option<f64>,
    /// Counted: size of the model as it is written.
    pub bytes: u64,
    /// Counted: multiply-accumulates of one inference.
    pub macs: u64,
    /// Counted: multiply-accumulates with every tile rounded up to the chip's array.
    pub mac_slots: u64,
    /// Counted: number of trained values.
    pub parameters: u64,
    /// Estimated: largest working memory at any moment.
    pub peak_memory_bytes: u64,
    /// Estimated: the resource that most of the latency waits for.
    pub bound: String,
}

/// What a step may do to the outputs of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// The same bits.
    Exact,
    /// The same function up to the rounding of floating point.
    Rounding,
    /// Another function, near the first.
    Lossy,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// What, as `prune channels`.
    pub what: String,
    /// Where: the names of nodes, or a summary of them.
    #[serde(rename = "where")]
    pub where_: String,
    /// Why: the resource that it relieves and what spoke for it.
    pub why: String,
    /// What the step may do to the outputs.
    pub fidelity: Fidelity,
    /// Estimated latency before the step over that after it; above 1 is faster.
    pub predicted_gain: Option<f64>,
    /// Measured change of top-1 accuracy by the step, in percentage points; a loss is negative.
    pub measured_points: Option<f64>,
}

/// Something that was considered and not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// What.
    pub what: String,
    /// Where: the names of nodes, or a summary of them.
    #[serde(rename = "where")]
    pub where_: String,
    /// Why not.
    pub why: String,
}

/// What one node costs on the chip, by the model of the chip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeEstimate {
    /// Its name in the graph.
    pub name: String,
    /// Its operator, as in ONNX.
    pub op: String,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Multiply-accumulates with every tile rounded up to the chip's array.
    pub mac_slots: u64,
    /// Bytes read and written at the memory that counts for the roofline.
    pub bytes: u64,
    /// Time on the chip, in seconds.
    pub latency_s: f64,
    /// The resource that it waits for.
    pub bound: String,
    /// Format of its weights, as `int8`; `None` where it has none.
    pub weights: Option<String>,
    /// Format of its activations, as `uint8`.
    pub activations: Option<String>,
    /// What was done to it, in a few words; `None` where nothing was.
    pub what_was_done: Option<String>,
}
