//! What can go wrong between a data spec and a batch.

use std::{fmt::Display, io, ops::Range, path::Path};

/// The result of everything here that reads.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// Why samples could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The data spec itself is at fault.
    #[error(transparent)]
    Spec(#[from] Box<SpecError>),
    /// A file cannot be opened or read to its end.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file can be read, but not understood.
    #[error("{place}: {message}")]
    Invalid {
        /// The file, and the record or array in it.
        place: String,
        /// What was expected, what was found and what to do.
        message: String,
    },
    /// Arrays cannot be written.
    #[error("cannot write the arrays: {0}")]
    Write(#[source] io::Error),
}

impl DataError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.display().to_string(), source }
    }

    pub(crate) fn invalid(place: impl Display, message: impl Into<String>) -> Self {
        Self::Invalid { place: place.to_string(), message: message.into() }
    }
}

/// A fault in a data spec, with the place in its text where one line is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}: {message}")]
pub struct SpecError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The bytes of `source_text` to underline.
    pub span: Option<Range<usize>>,
    /// The name under which the spec was read.
    pub source_name: String,
    /// The whole spec.
    pub source_text: String,
}
