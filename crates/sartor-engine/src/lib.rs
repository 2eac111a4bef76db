//! Kernels and execution: runs graphs and never changes one.
//!
//! A graph is prepared once for concrete input shapes ([`Program::prepare`]): shapes, folded constants,
//! fused elementwise tails, packed weights and a memory plan. Then batches run, on as many threads as
//! `rayon` has, with the same bits for any number of them. Observers may watch any value.
//!
//! ```
//! use sartor_engine::{Array, Options, Program};
//! use sartor_ir::{DType, Graph, Op, TensorType, Unary};
//!
//! let mut graph = Graph::new("tiny");
//! let x = graph.add_input("x", TensorType::fixed(DType::F32, &[2]))?;
//! let y = graph.add_node("relu", Op::Unary(Unary::Relu), &[x], &["y"])?[0];
//! graph.set_outputs(vec![y]);
//! let program = Program::prepare(&graph, &[vec![2]], &Options::default())?;
//! let outputs = program.run(&[Array::f32(&[2], vec![-1.0, 3.0])])?;
//! assert_eq!(outputs[0].as_f32(), Some([0.0, 3.0].as_slice()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod array;
mod error;
pub mod gradient;
mod kernel;
mod map;
mod probe;
mod program;
pub mod reference;
mod simd;
mod stage;
mod support;
pub mod train;

pub use array::{Array, Data};
pub use error::{EngineError, Unsupported};
pub use map::map_file;
pub use probe::Probe;
pub use program::{Arithmetic, Options, Program, StepSummary};
pub use reference::{ReferenceEvaluator, run_reference};
pub use simd::{
    AdamW, Grid, Level, Sgd, abs_max, adamw_step, fake_quantize, force, level, min_max,
    quantize_i8, quantize_u8, sgd_step,
};
pub use support::{batch_shapes, check_support};
