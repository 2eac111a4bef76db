//! Why a graph could not be priced.

use sartor_chip::NumberType;
use sartor_ir::InferError;
use thiserror::Error;

/// Why a graph could not be priced.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CostError {
    /// Shapes do not fit at this batch.
    #[error("at batch {batch}: {error}")]
    Infer {
        /// The batch.
        batch: usize,
        /// What does not fit.
        error: InferError,
    },
    /// The shape of a value cannot be inferred.
    #[error("the shape of `{value}` is not known: {origin}")]
    UnknownShape {
        /// The value.
        value: String,
        /// Where the value comes from and what to do.
        origin: String,
    },
    /// The chip does not multiply the types that were asked for.
    #[error(
        "chip `{chip}` does not multiply {weights} weights with {activations} activations, it has {known}"
    )]
    NoMode {
        /// The chip.
        chip: String,
        /// Asked for.
        weights: NumberType,
        /// Asked for.
        activations: NumberType,
        /// Its modes.
        known: String,
    },
    /// The batch is zero or above what the chip takes.
    #[error("chip `{chip}` takes batches of 1 to {most}, found {found}")]
    Batch {
        /// The chip.
        chip: String,
        /// The largest batch.
        most: u64,
        /// Asked for.
        found: usize,
    },
    /// A change names an axis that the graph does not have.
    #[error("value {value} has no axis {axis} of known extent")]
    NoAxis {
        /// The value.
        value: String,
        /// The axis.
        axis: usize,
    },
    /// A change names a node that the graph does not have.
    #[error("the graph has no {node}")]
    NoNode {
        /// The node.
        node: String,
    },
    /// The chip refuses networks with this operator.
    #[error("chip `{chip}` refuses the network for node `{node}` ({op}): replace the operator")]
    Rejected {
        /// The chip.
        chip: String,
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
}
