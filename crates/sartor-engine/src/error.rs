//! What can go wrong.

use std::fmt;

use sartor_ir::{DType, Graph, InferError, Node};
use thiserror::Error;

/// A node that the engine cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The node's name, or that of its first output where it has none.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node `{}` ({}): {}", self.node, self.op, self.reason)
    }
}

/// Why a graph cannot be prepared or run.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum EngineError {
    /// An operator, or an element type at an operator, without a kernel.
    #[error("{0}")]
    Unsupported(Unsupported),
    /// Another number of inputs than the graph has.
    #[error("the graph has {expected} inputs, found {found}")]
    InputCount {
        /// How many the graph has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// An input of the wrong shape.
    #[error("input `{name}` has shape {found:?}, expected {expected}")]
    InputShape {
        /// The input.
        name: String,
        /// What the program was prepared for, or the graph declares.
        expected: String,
        /// What was given.
        found: Vec<usize>,
    },
    /// An input of the wrong element type.
    #[error("input `{name}` holds {found}, expected {expected}")]
    InputType {
        /// The input.
        name: String,
        /// What the graph declares.
        expected: DType,
        /// What was given.
        found: DType,
    },
    /// An input whose declared shape does not say enough.
    #[error(
        "input `{name}` is declared {declared}: only the first extent may be open, give its shape"
    )]
    OpenShape {
        /// The input.
        name: String,
        /// Its declared type.
        declared: String,
    },
    /// A constant of a type that the engine does not hold.
    #[error("constant `{name}` is {dtype}, which the engine does not run")]
    ConstantType {
        /// The constant.
        name: String,
        /// Its type.
        dtype: DType,
    },
    /// A value that nothing makes: the graph was not verified.
    #[error("value `{0}` is made by no node and is neither an input nor a constant")]
    Undefined(String),
    /// A value that cannot learn.
    #[error("`{name}` cannot be trained: it {reason}")]
    NotTrainable {
        /// The value.
        name: String,
        /// Why.
        reason: String,
    },
    /// Steps of training in the wrong order, or with numbers of another network.
    #[error("{0}")]
    Training(String),
    /// Shapes that do not fit each other.
    #[error(transparent)]
    Shapes(#[from] InferError),
    /// A kernel that refused its operands.
    #[error("node `{node}` ({op}) with inputs of shapes {shapes}: {problem}")]
    Kernel {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// Shapes of its inputs.
        shapes: String,
        /// What does not fit.
        problem: String,
    },
}

/// The name by which errors call a node.
pub(crate) fn node_name(graph: &Graph, node: &Node) -> String {
    if !node.name.is_empty() {
        return node.name.clone();
    }
    node.outputs
        .iter()
        .flatten()
        .next()
        .map_or_else(String::new, |&it| graph.value(it).name.clone())
}
