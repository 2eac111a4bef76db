//! Operators that travel as their file has them, by name.

use crate::Attrs;

/// An operator outside the closed set, with its attributes as the file had them. The [`crate::catalog`]
/// may know its rules, and the engine its values; of others nobody here knows anything, and they are
/// carried through untouched.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Operator set domain; empty for ONNX's own.
    pub domain: String,
    /// Name of the operator.
    pub name: String,
    /// Version of the domain's operator set that gives name and attributes their meaning.
    pub version: i64,
    /// Attributes, subgraphs in the file's own encoding.
    pub attributes: Attrs,
}

impl Named {
    /// The operator as messages call it: its name, with the domain where it is not ONNX's own.
    pub fn full_name(&self) -> String {
        if self.domain.is_empty() {
            self.name.clone()
        } else {
            format!("{}.{}", self.domain, self.name)
        }
    }
}
