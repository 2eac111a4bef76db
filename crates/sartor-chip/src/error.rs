//! What can be wrong with a chip file, and where.

use std::ops::Range;

/// A chip that cannot be had: an unknown id, or a file with a fault.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("chip `{chip}`: {}{fault}", .key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default())]
pub struct ChipError {
    /// The id that was asked for, or the name of the file as given to [`Chip::parse`](crate::Chip::parse).
    pub chip: String,
    /// The path of the faulty key, such as `compute.mode[0].macs_per_cycle`.
    pub key: Option<String>,
    /// The bytes of the text to underline.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
    /// What is wrong.
    pub fault: Box<Fault>,
}

/// What is wrong with a chip file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The text is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key that the schema does not have.
    #[error("unknown key")]
    UnknownKey,
    /// A key that the schema demands is absent.
    #[error("missing key, expected {0}")]
    MissingKey(&'static str),
    /// A value of the wrong TOML type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What the schema demands.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A number outside its range.
    #[error("expected {expected}, found {found}")]
    OutOfRange {
        /// The range.
        expected: &'static str,
        /// The number as written.
        found: String,
    },
    /// A word that is not of its vocabulary.
    #[error("unknown word `{found}`, expected one of {expected}")]
    UnknownWord {
        /// The word as written.
        found: String,
        /// The vocabulary.
        expected: String,
    },
    /// A number whose origin nobody states.
    #[error("no source for this figure")]
    NoSource,
    /// A figure that states more than one origin.
    #[error("two origins for one figure: `{0}` and `{1}`")]
    TwoOrigins(&'static str, &'static str),
    /// A source key that `[sources]` does not have.
    #[error("unknown source `{0}`")]
    UnknownSource(String),
    /// Well-formed statements that cannot all be true; see [`lint`](crate::lint).
    #[error("{0}")]
    Contradiction(String),
    /// The library holds no chip with this id.
    #[error("not in the library")]
    UnknownChip,
}
