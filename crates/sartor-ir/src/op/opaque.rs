//! Operators that nobody here knows.

use crate::Attrs;

/// An operator carried through untouched, with the attributes as the file had them. The version of its
/// meaning is the graph's opset of its domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque {
    /// Operator set domain; empty for ONNX's own.
    pub domain: String,
    /// Name of the operator.
    pub name: String,
    /// Attributes, subgraphs in the file's own encoding.
    pub attributes: Attrs,
}
