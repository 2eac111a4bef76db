//! The graph: what a network *is*, apart from how it is stored, run or priced.
//!
//! A [`Graph`] is a value. It knows no file format, no kernel and no chip. Operators are a closed
//! enum, [`Op`], named and defined as in ONNX (the newest form of each operator, opset 24; a door
//! such as `sartor-onnx` translates older forms), and [`Op::Named`] carries the rest by name; the
//! [`catalog`] knows the rules of many of those.
//! Every graph that leaves a function of this crate satisfies [`verify`].
//!
//! ```
//! use sartor_ir::{DType, Dim, Graph, Op, TensorType, Unary};
//!
//! let mut graph = Graph::new("tiny");
//! let x = graph.add_input("x", TensorType::new(DType::F32, vec![Dim::symbol("N"), Dim::Known(4)]))?;
//! let y = graph.add_node("relu", Op::Unary(Unary::Relu), &[x], &["y"])?[0];
//! graph.set_outputs(vec![y]);
//! sartor_ir::infer(&mut graph)?;
//! assert_eq!(graph.value(y).ty.as_ref().unwrap().to_string(), "f32[N,4]");
//! assert!(sartor_ir::verify(&graph).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attr;
mod axes;
pub mod catalog;
mod dtype;
mod graph;
mod id;
mod infer;
mod integer;
pub mod narrow;
mod op;
mod pass;
pub mod passes;
mod shape;
mod tensor;
mod text;
mod verify;

pub use attr::{Attr, AttrError, Attrs, Subgraph};
pub use axes::{AxisLink, IndexMap, Port};
pub use catalog::{
    ConvTranspose, Coordinates, Einsum, Interpolation, Label, NearestMode, Resize, ResizedAxis,
    TransposedAxis, lp_windows,
};
pub use dtype::DType;
pub use graph::{Consumers, Graph, GraphError, Node, Value};
pub use id::{NodeId, ValueId};
pub use infer::{Fact, InferError, infer, infer_facts};
pub use integer::{IntegerTensor, Scalar};
pub use op::{
    Arity, AutoPad, BatchNormalization, Binary, Cast, Concat, ConstantOfShape, Conv, Flatten,
    Gather, Gemm, GlobalPool, Named, Op, Pad, PadMode, Pool, PoolKind, QuantizeLinear, Reduce,
    ReduceKind, Reshape, Shape, Softmax, Spatial, Split, Transpose, Unary, Variadic,
    normalize_axis, slice_bounds,
};
pub use pass::{Evaluate, Fidelity, Pass, PassError, PassRun, run_passes};
pub use shape::{Dim, TensorType, broadcast};
pub use tensor::{Tensor, TensorError};
pub use text::{ParseError, parse, print};
pub use verify::{VerifyError, verify};
