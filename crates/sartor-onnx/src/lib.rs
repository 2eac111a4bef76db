//! ONNX in, ONNX out.
//!
//! [`import`] reads a model of opset 7 to 24 into a [`sartor_ir::Graph`], translating older forms of the
//! known operators into the newest one; whatever cannot be translated exactly is carried through as
//! [`sartor_ir::Op::Named`] and named in a [`Diagnostic`]. [`export`] writes a graph back in the opset
//! that it came in, or the lowest newer one that can express it. `export(import(m))` computes what `m`
//! computes, and what stands around the graph (producer, metadata, notes on nodes
//! and values) travels in the [`Envelope`].
//!
//! This crate touches no file: [`ExternalData`] is asked for the files in which a model keeps its large
//! tensors, and an [`ExternalFile`] is handed back for the caller to write.
//!
//! ```
//! use sartor_ir::{DType, Graph, Op, TensorType, Unary};
//! use sartor_onnx::{Envelope, ExportOptions, NoExternalData, export, import};
//!
//! let mut graph = Graph::new("tiny");
//! let x = graph.add_input("x", TensorType::fixed(DType::F32, &[2]))?;
//! let y = graph.add_node("relu", Op::Unary(Unary::Relu), &[x], &["y"])?;
//! graph.set_outputs(y);
//! sartor_ir::infer(&mut graph)?;
//! let file = export(&graph, &Envelope::default(), &ExportOptions::default())?;
//! let again = import(file.model, &NoExternalData)?;
//! assert_eq!(again.graph, graph);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attribute;
mod envelope;
mod error;
mod export;
mod import;
mod op;
mod opset;
mod proto;
mod scope;
mod tensor;
mod types;

#[cfg(test)]
mod tests;

pub use envelope::Envelope;
pub use error::{Diagnostic, ExportError, ImportError};
pub use export::{ExportOptions, Exported, ExternalFile, export};
pub use import::{Imported, import};
pub use tensor::{ExternalData, NoExternalData, read_tensor};
