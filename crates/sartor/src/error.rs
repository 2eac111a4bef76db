//! Every way in which a run can fail, and whose fault it is.

use std::{io, path::PathBuf};

use sartor_chip::ChipError;
use sartor_compress::CompressError;
use sartor_cost::CostError;
use sartor_data::DataError;
use sartor_engine::EngineError;
use sartor_onnx::{ExportError, ImportError};
use sartor_plan::PlanError;
use sartor_train::TrainError;
use thiserror::Error;

/// Whose fault an error is; the command line turns each into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense.
    Usage,
    /// A file cannot be read or is not valid.
    Input,
    /// Valid, but more than we can do.
    Unsupported,
    /// A file cannot be written.
    Output,
    /// The user stopped the run.
    Interrupted,
    /// A fault of ours.
    Bug,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A file that cannot be read.
    #[error("cannot read `{path}`: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that is not an ONNX network that we understand.
    #[error("`{path}`: {source}", path = path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ImportError>,
    },
    /// A chip that is not known, or a chip file with a fault.
    #[error(transparent)]
    Chip(#[from] ChipError),
    /// Data that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Anything else that was asked for and does not fit.
    #[error("{0}")]
    Invalid(String),
    /// A request that contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// A recipe with a fault.
    #[error("`{name}`: {message}")]
    Recipe {
        /// The file.
        name: String,
        /// Its text.
        text: String,
        /// What is wrong.
        message: String,
        /// Where.
        span: Option<std::ops::Range<usize>>,
    },
    /// A network that cannot be run, with each operator in the way.
    #[error("the network cannot be run: {}", list(.0))]
    Unsupported(Vec<String>),
    /// A network that failed while it ran.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A technique that could not be applied.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A network that cannot be priced.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// A plan that could not be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A training that cannot begin or go on.
    #[error("{0}")]
    Train(TrainError),
    /// A network that cannot be written as ONNX.
    #[error("`{path}`: {source}", path = path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        source: Box<ExportError>,
    },
    /// A file that is there already.
    #[error("`{path}` exists already; use --force to overwrite it", path = .0.display())]
    Exists(PathBuf),
    /// A file that cannot be written.
    #[error("cannot write `{path}`: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The user stopped the run.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The user stopped a training that keeps checkpoints.
    #[error("interrupted; `{path}` holds all that was done, go on with --resume", path = .0.display())]
    Paused(PathBuf),
    /// A fault of ours.
    #[error("{0}; this is a fault of Sartor, please report it")]
    Bug(String),
}

fn list(reasons: &[String]) -> String {
    let shown = reasons.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    if reasons.len() > 5 { format!("{shown}; and {} more", reasons.len() - 5) } else { shown }
}

impl Error {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Usage(_) => Kind::Usage,
            Error::Read { .. }
            | Error::Import { .. }
            | Error::Data(_)
            | Error::Invalid(_)
            | Error::Recipe { .. }
            | Error::Chip(_)
            | Error::Engine(
                EngineError::InputCount { .. }
                | EngineError::InputShape { .. }
                | EngineError::InputType { .. },
            ) => Kind::Input,
            Error::Compress(it) | Error::Plan(PlanError::Compress(it)) => compress_kind(it),
            Error::Unsupported(_)
            | Error::Engine(_)
            | Error::Cost(_)
            | Error::Plan(_)
            | Error::Export { .. } => Kind::Unsupported,
            Error::Exists(_) | Error::Write { .. } => Kind::Output,
            Error::Interrupted | Error::Paused(_) => Kind::Interrupted,
            Error::Train(it) => train_kind(it),
            Error::Bug(_) => Kind::Bug,
        }
    }
}

impl From<TrainError> for Error {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Data(it) => Error::Data(it),
            TrainError::Engine(it) => Error::Engine(it),
            TrainError::Host(it) => match it.downcast::<Error>() {
                Ok(it) => *it,
                Err(it) => Error::Bug(it.to_string()),
            },
            other => Error::Train(other),
        }
    }
}

fn train_kind(error: &TrainError) -> Kind {
    match error {
        TrainError::Config { .. } => Kind::Usage,
        TrainError::Network(_) => Kind::Unsupported,
        _ => Kind::Input,
    }
}

fn compress_kind(error: &CompressError) -> Kind {
    match error {
        CompressError::Graph(_)
        | CompressError::Pass(_)
        | CompressError::Infer(_)
        | CompressError::Verify(_) => Kind::Bug,
        CompressError::Run(_) => Kind::Unsupported,
        _ => Kind::Input,
    }
}
