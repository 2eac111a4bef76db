//! What can go wrong at the door.

use sartor_ir::{GraphError, VerifyError};
use thiserror::Error;

/// Why a file could not be read.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The bytes are not protobuf, or not ONNX's messages.
    #[error(
        "the file is not an ONNX model, or it is damaged or cut short; fetch or export it again ({0})"
    )]
    Protobuf(#[from] prost::DecodeError),
    /// A part that every model has is missing.
    #[error("the file has no {0}: it is not a complete ONNX model")]
    Missing(&'static str),
    /// The format is older or newer than what is known.
    #[error("the file has ONNX IR version {0}, supported are 3 to 13")]
    IrVersion(i64),
    /// The operator set is older or newer than what is known.
    #[error(
        "the file uses opset {0} of ONNX's operators, supported are 7 to 24; convert the model with \
         ONNX's version converter or export it anew"
    )]
    Opset(i64),
    /// One domain, two versions.
    #[error("the file imports two versions of operator set `{domain}`: {first} and {second}")]
    OpsetTwice {
        /// The domain.
        domain: String,
        /// The version given first.
        first: i64,
        /// The other version.
        second: i64,
    },
    /// A node of a domain that the file does not import.
    #[error("node `{node}` ({op}) is of operator set `{domain}`, which the file does not import")]
    Domain {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The domain.
        domain: String,
    },
    /// A tensor that cannot be read.
    #[error("tensor `{tensor}`: {problem}")]
    Tensor {
        /// The tensor's name, or the node's and attribute's.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// An attribute that contradicts itself.
    #[error("node `{node}` ({op}), attribute `{attribute}`: {problem}")]
    Attribute {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The attribute.
        attribute: String,
        /// What is wrong.
        problem: String,
    },
    /// A subgraph reads what is not there.
    #[error("a subgraph of node `{node}` reads `{value}`, which is defined nowhere")]
    Capture {
        /// The node with the subgraph.
        node: String,
        /// The value.
        value: String,
    },
    /// Names or edges that make no graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An invariant of graphs is broken.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Why a graph could not be written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The graph imports no version of ONNX's operators.
    #[error("the graph names no opset of ONNX's operators: set `opsets[\"\"]` (7 to 24)")]
    NoOpset,
    /// A node that no supported opset can express.
    #[error("node `{node}` ({op}) cannot be written as ONNX: {problem}")]
    Node {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// What cannot be expressed.
        problem: String,
    },
    /// One node needs a newer opset, another is bound to the old one.
    #[error(
        "node `{raiser}` needs opset {to}, but node `{bound}` ({op}) is carried in its form of opset \
         {from}, which changed since: export the original model with opset {to} or newer"
    )]
    Bound {
        /// The node that needs the newer opset.
        raiser: String,
        /// The opset of the graph.
        from: i64,
        /// The opset that is needed.
        to: i64,
        /// The node that cannot be raised.
        bound: String,
        /// Its operator.
        op: String,
    },
    /// A constant of text that is not encoded as the graph prescribes.
    #[error("constant `{0}`: its text is not a sequence of lengths and bytes")]
    Text(String),
    /// Even without large tensors the file is above protobuf's limit.
    #[error("the model takes {0} bytes without external data, protobuf's limit is 2147483647")]
    TooLarge(usize),
}

/// Something that a person may want to know of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The node or value that it is about.
    pub subject: String,
    /// What was found and what was done.
    pub message: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}", self.subject, self.message)
    }
}
