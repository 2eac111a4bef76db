//! The answer.

use std::fmt;

use sartor_chip::{Bytes, Cycles, Joules, Macs, Seconds};
use sartor_ir::NodeId;
use serde::{Serialize, Serializer};

use crate::arena::Arena;

/// What may bind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// The array.
    Compute,
    /// The bandwidth of the memory of this name.
    Memory(String),
    /// What every operator costs beyond its work.
    Overhead,
    /// Transfers to the host and back.
    Fallback,
    /// What the host computes.
    Host,
}

impl Serialize for Resource {
    /// As it reads.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Compute => f.pad("compute"),
            Resource::Memory(name) => f.pad(&format!("{name} bandwidth")),
            Resource::Overhead => f.pad("operator overhead"),
            Resource::Fallback => f.pad("host transfers"),
            Resource::Host => f.pad("host compute"),
        }
    }
}

/// Where a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunsOn {
    /// On the chip.
    Chip,
    /// On the host, whose own time is part of the estimate where the chip describes it.
    Host,
    /// Nowhere: it is computed ahead or melts into a neighbour.
    Nowhere,
}

/// Energy as far as the chip's figures allow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Energy {
    /// Energy of all MACs and all bytes moved; `None` while `missing` names a figure.
    pub joules: Option<Joules>,
    /// Power limit × latency, if the chip states a limit.
    pub at_most: Option<Joules>,
    /// The figures that the chip does not state.
    pub missing: Vec<String>,
}

/// Whether something fits where it should lie.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placement {
    /// The memory.
    pub memory: String,
    /// What it holds. `None`: not known.
    pub capacity: Option<Bytes>,
    /// What is needed.
    pub needed: Bytes,
    /// Whether it fits (weights: all of them; those that do not stay near are read anew in each inference).
    pub fits: bool,
    /// What lies beyond the nearest memory for it: weights that are read anew in each inference, the most activations that live
    /// farther away at once.
    pub spilled: Bytes,
}

/// What one node costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeCost {
    /// The node; of one in the body of a control-flow operator, that operator.
    #[serde(skip)]
    pub node: NodeId,
    /// Its name, or that of its first output.
    pub name: String,
    /// Its operator, as in ONNX.
    pub op: String,
    /// Where it runs.
    pub runs_on: RunsOn,
    /// Multiply-accumulates.
    pub macs: Macs,
    /// Multiply-accumulates rounded up to the array; none on the host.
    pub mac_slots: Macs,
    /// Weights and biases, in elements.
    pub parameters: u64,
    /// Stored weights, biases and scales.
    pub weight_bytes: Bytes,
    /// Activations read and written.
    pub activation_bytes: Bytes,
    /// Bytes moved by memory, for each that is touched, near to far.
    pub moved: Vec<(String, Bytes)>,
    /// Time by resource, each as if it were alone.
    pub times: Vec<(Resource, Seconds)>,
    /// How often it runs in one inference: the trips of the loop around it.
    pub repeats: u64,
    /// How long it takes, all repeats.
    pub latency: Seconds,
    /// Its energy, if all figures are known.
    pub energy: Option<Joules>,
    /// The resource that takes longest; overhead if none takes any time.
    pub bound: Resource,
    /// How many times longer the binding resource takes than the next; `None` where no other takes any time.
    pub margin: Option<f64>,
    /// MACs over those that the array could do in the latency, 0 to 1.
    pub utilisation: f64,
    /// What else there is to say, or empty.
    pub note: String,
}

/// What a graph costs on a chip, for one run of a batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The chip's id.
    pub chip: String,
    /// The batch.
    pub batch: usize,
    /// Which arithmetic was assumed, and why.
    pub precision: String,
    /// Sum over the nodes, and what a run costs beside them.
    pub latency: Seconds,
    /// The latency in cycles of the array's clock.
    pub cycles: Cycles,
    /// Energy, as far as it is known.
    pub energy: Energy,
    /// Sum over the nodes.
    pub macs: Macs,
    /// Sum over the nodes.
    pub mac_slots: Macs,
    /// Weights and biases as deployed (batch normalization folded), in elements.
    pub parameters: u64,
    /// Sum over the nodes.
    pub weight_bytes: Bytes,
    /// The most activations that live at once, in the arithmetic assumed.
    pub peak_memory: Bytes,
    /// A plan of one block of memory for all activations; never smaller than `peak_memory`.
    pub arena: Arena,
    /// Where the weights lie.
    pub weights: Placement,
    /// Where the activations lie.
    pub activations: Placement,
    /// The latency by the resource that binds; sums to it.
    pub shares: Vec<(Resource, Seconds)>,
    /// The resource with the largest share.
    pub bound: Resource,
    /// All nodes in the order in which they run.
    pub nodes: Vec<NodeCost>,
    /// The chip's figures of low confidence on which this rests, with their origin.
    pub low_confidence: Vec<String>,
    /// What does not run on the chip itself, and what is left out for it.
    pub fallbacks: Vec<String>,
    /// What was assumed about the network: open extents, branches, trips of loops, sizes that are not known.
    pub assumptions: Vec<String>,
}
