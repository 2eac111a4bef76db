//! Operator attributes by name: the bridge that the text form and the file formats share.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use crate::{Graph, Tensor};

/// One attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// Text.
    Str(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Texts.
    Strs(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
    /// A subgraph that can be run.
    Graph(Subgraph),
    /// Anything else (a sparse tensor, a subgraph that nobody here runs), in the encoding of the format
    /// that it came from.
    Foreign(Bytes),
}

/// The body of a control-flow operator: a graph whose inputs are the formal ones, then the values that
/// its node captures, in the order of [`crate::Node::captures`].
#[derive(Clone, Debug)]
pub struct Subgraph {
    /// The body.
    pub graph: Arc<Graph>,
    /// How many of its inputs, the last ones, are captured.
    pub captures: usize,
    /// The attribute in the encoding that it came from, as which it is written: no pass changes a body.
    pub source: Bytes,
}

impl PartialEq for Subgraph {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// A missing, unknown or ill-typed attribute.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("attribute `{name}`: {problem}")]
pub struct AttrError {
    /// The attribute.
    pub name: String,
    /// What is wrong.
    pub problem: String,
}

impl From<AttrError> for String {
    fn from(error: AttrError) -> String {
        error.to_string()
    }
}

impl AttrError {
    /// An error about attribute `name`.
    pub fn new(name: &str, problem: impl Into<String>) -> Self {
        AttrError { name: name.to_owned(), problem: problem.into() }
    }
}

/// The attributes of one operator, taken out one by one so that [`Attrs::finish`] can name a stray one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs(BTreeMap<String, Attr>);

impl Attrs {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one; chains.
    #[must_use]
    pub fn with(mut self, name: &str, value: Attr) -> Self {
        self.set(name, value);
        self
    }

    /// Adds or replaces one.
    pub fn set(&mut self, name: &str, value: Attr) {
        self.0.insert(name.to_owned(), value);
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Option<Attr> {
        self.0.remove(name)
    }

    /// Looks at one.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes an integer, or `default` where absent.
    pub fn int(&mut self, name: &str, default: i64) -> Result<i64, AttrError> {
        match self.take(name) {
            None => Ok(default),
            Some(Attr::Int(it)) => Ok(it),
            Some(_) => Err(AttrError::new(name, "expected an integer")),
        }
    }

    /// Takes an integer that must be there.
    pub fn required_int(&mut self, name: &str) -> Result<i64, AttrError> {
        match self.take(name) {
            Some(Attr::Int(it)) => Ok(it),
            Some(_) => Err(AttrError::new(name, "expected an integer")),
            None => Err(AttrError::new(name, "is required")),
        }
    }

    /// Takes a flag (integer, zero or not), or `default`.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, AttrError> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// Takes a float, or `default`.
    pub fn float(&mut self, name: &str, default: f32) -> Result<f32, AttrError> {
        match self.take(name) {
            None => Ok(default),
            Some(Attr::Float(it)) => Ok(it),
            Some(_) => Err(AttrError::new(name, "expected a float")),
        }
    }

    /// Takes text, or `default`.
    pub fn text(&mut self, name: &str, default: &str) -> Result<String, AttrError> {
        match self.take(name) {
            None => Ok(default.to_owned()),
            Some(Attr::Str(it)) => Ok(it),
            Some(_) => Err(AttrError::new(name, "expected text")),
        }
    }

    /// Takes integers if there.
    pub fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, AttrError> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Ints(it)) => Ok(Some(it)),
            Some(_) => Err(AttrError::new(name, "expected a list of integers")),
        }
    }

    /// Takes non-negative integers if there.
    pub fn sizes(&mut self, name: &str) -> Result<Option<Vec<usize>>, AttrError> {
        let Some(list) = self.ints(name)? else { return Ok(None) };
        let sizes: Result<_, _> = list.iter().map(|&it| usize::try_from(it)).collect();
        sizes.map(Some).map_err(|_| AttrError::new(name, format!("{list:?} has a negative entry")))
    }

    /// Takes a tensor if there.
    pub fn tensor(&mut self, name: &str) -> Result<Option<Tensor>, AttrError> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Tensor(it)) => Ok(Some(it)),
            Some(_) => Err(AttrError::new(name, "expected a tensor")),
        }
    }

    /// Ends the reading: whatever is left was not asked for.
    ///
    /// # Errors
    /// Names the first stray attribute.
    pub fn finish(self) -> Result<(), AttrError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(AttrError::new(&name, "is not an attribute of this operator")),
        }
    }
}

impl FromIterator<(String, Attr)> for Attrs {
    fn from_iter<T: IntoIterator<Item = (String, Attr)>>(iter: T) -> Self {
        Attrs(iter.into_iter().collect())
    }
}
