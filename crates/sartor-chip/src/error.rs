//! What can be wrong with a chip file, and where.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text that was read: a chip file.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name in messages: an id of the library, or a path.
    pub name: String,
    /// All of it.
    pub text: String,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

/// A piece of a chip file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub document: Arc<Document>,
    /// The bytes to underline.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column of its first byte, from 1.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = self.document.text.get(..self.span.start).unwrap_or(&self.document.text);
        let line = before.matches('\n').count() + 1;
        (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
    }
}

/// A chip that cannot be had: an unknown id, or a file with a fault.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("chip `{chip}`: {}{fault}", .key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default())]
pub struct ChipError {
    /// The id that was asked for, or the name of the faulty file.
    pub chip: String,
    /// The path of the faulty key, such as `core.engine[0].mode[0].macs_per_cycle`.
    pub key: Option<String>,
    /// The faulty line; of a file that the one asked for extends, where the fault lies there.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
    /// What is wrong.
    pub fault: Box<Fault>,
}

impl ChipError {
    /// A fault at a place of a file.
    pub(crate) fn at(place: Place, key: String, fault: Fault, help: Option<String>) -> Self {
        Self {
            chip: place.document.name.clone(),
            key: Some(key).filter(|key| !key.is_empty()),
            place: Some(place),
            help,
            fault: Box::new(fault),
        }
    }
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
    /// A file extends another in which the same source key means something else.
    #[error("this key cites another document in `{0}`")]
    SourceClash(String),
    /// A file extends one that cannot be had.
    #[error("no chip `{0}` to extend")]
    UnknownBase(String),
    /// A file extends itself, over others or not.
    #[error("the file extends itself: {0}")]
    Circle(String),
    /// Well-formed statements that cannot all be true; see [`lint`](crate::lint).
    #[error("{0}")]
    Contradiction(String),
    /// The library holds no chip with this id.
    #[error("not in the library")]
    UnknownChip,
}
