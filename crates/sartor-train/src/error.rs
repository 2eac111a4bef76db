//! What can go wrong while a network is trained.

use sartor_data::DataError;
use sartor_engine::EngineError;
use thiserror::Error;

/// Why a training cannot begin or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// An option that cannot be meant.
    #[error("{key} is {found}, expected {expected}")]
    Config {
        /// The option.
        key: String,
        /// What it says.
        found: String,
        /// What it may say.
        expected: String,
    },
    /// A network that cannot be trained in this way.
    #[error("{0}")]
    Network(String),
    /// Samples that do not fit what is asked for.
    #[error("{0}")]
    Samples(String),
    /// Samples that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A network that failed while it ran.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A loss that is no longer a number.
    #[error(
        "the loss is {loss} at iteration {iteration}: the training diverges; lower the rate (now {rate:.2e}), \
         warm up, or clip the gradients"
    )]
    Diverged {
        /// The optimizer's steps so far.
        iteration: u64,
        /// The learning rate.
        rate: f64,
        /// NaN or infinity.
        loss: f64,
    },
    /// A checkpoint that is damaged or of another training.
    #[error("the checkpoint {0}")]
    Checkpoint(String),
    /// What the host of the training could not do.
    #[error("{0}")]
    Host(Box<dyn std::error::Error + Send + Sync>),
}

impl TrainError {
    pub(crate) fn config(key: &str, found: impl std::fmt::Display, expected: &str) -> Self {
        TrainError::Config {
            key: key.to_owned(),
            found: format!("{found}"),
            expected: expected.to_owned(),
        }
    }
}
