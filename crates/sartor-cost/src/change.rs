//! Changes of a network as data.

use sartor_chip::NumberType;
use sartor_ir::{NodeId, ValueId};

/// One change that keeps the structure of the network: what pruning and quantization do to its price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// A value has another extent along an axis: channels that were removed. Each value that loses channels is named, weights and
    /// activations alike.
    Extent {
        /// The value.
        value: ValueId,
        /// Its axis.
        axis: usize,
        /// What is left there.
        extent: usize,
    },
    /// The products of a node run in these types, and its activations are as wide. Nodes that convert at the edge of other types
    /// are not counted.
    Types {
        /// The node.
        node: NodeId,
        /// Number type of the weights.
        weights: NumberType,
        /// Number type of the activations.
        activations: NumberType,
    },
    /// The zeros among a node's weights form a pattern: of each `m` at most `n` are not zero. `None`: they form none.
    Pattern {
        /// The node.
        node: NodeId,
        /// `n` and `m`.
        pattern: Option<(u64, u64)>,
    },
    /// This fraction of a node's weights is zero (matters where the chip compresses weights).
    Zeros {
        /// The node.
        node: NodeId,
        /// 0 to 1.
        fraction: f64,
    },
}
