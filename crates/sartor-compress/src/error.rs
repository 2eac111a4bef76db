//! What can go wrong while a technique is applied.

use sartor_ir::{GraphError, InferError, PassError, VerifyError};
use thiserror::Error;

/// Why a technique could not be applied.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CompressError {
    /// A configuration that cannot be meant.
    #[error("{key} is {found}, expected {expected}")]
    Config {
        /// The key of the step.
        key: String,
        /// What it says.
        found: String,
        /// What it may say.
        expected: String,
    },
    /// A step names a node that the graph does not have.
    #[error("the graph has no node named `{0}`; `inspect` lists the names")]
    NoSuchNode(String),
    /// A weight or an activation that is NaN or infinite.
    #[error(
        "node `{node}`: tensor `{tensor}` holds {found}, expected finite numbers; the network was damaged before \
         it came here, look at its training or export"
    )]
    NotFinite {
        /// The node that holds or makes the tensor.
        node: String,
        /// The tensor.
        tensor: String,
        /// `NaN` or an infinity.
        found: String,
    },
    /// No more samples are wanted; never leaves this crate.
    #[error("enough samples were seen")]
    Enough,
    /// The samples said that the user wants no more.
    #[error("the run was interrupted")]
    Interrupted,
    /// Samples that do not fit the network's inputs.
    #[error("samples do not fit the network: {0}")]
    Samples(String),
    /// The network could not be run on the samples.
    #[error("cannot run the network on the samples: {0}")]
    Run(String),
    /// A change that the graph refused: a fault of ours.
    #[error("a change of the graph was refused: {0}")]
    Graph(#[from] GraphError),
    /// A pass that broke the graph: a fault of ours.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Shapes that do not fit.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The result is not a graph: a fault of ours.
    #[error("the changed graph is not valid: {0}")]
    Verify(#[from] VerifyError),
}
