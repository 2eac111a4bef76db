//! What a graph costs on a chip: latency, energy and memory, in total and by node.
//!
//! The crate is pure: it never runs a graph and never reads a clock. Everything it says follows from shapes, constants and the
//! figures of the chip file; `docs/cost-model.md` lists every term with its formula. An answer is an [`Estimate`], never a
//! measurement, and names the figures of low confidence on which it rests.
//!
//! ```
//! use sartor_chip::find;
//! use sartor_cost::{Options, Precision, estimate};
//! use sartor_ir::{Conv, DType, Dim, Graph, Op, Spatial, Tensor, TensorType};
//!
//! let mut graph = Graph::new("one convolution");
//! let shape = vec![Dim::symbol("N"), 33.into(), 16.into(), 16.into()];
//! let x = graph.add_input("x", TensorType::new(DType::F32, shape))?;
//! let w = graph.add_constant("w", Tensor::from_f32(&[32, 33, 1, 1], &[0.5; 32 * 33]))?;
//! let y = graph.add_node("conv", Op::Conv(Conv { spatial: Spatial::default(), group: 1 }), &[x, w], &["y"])?[0];
//! graph.set_outputs(vec![y]);
//!
//! let options = Options { batch: 1, precision: Precision::AsIs };
//! let estimate = estimate(&graph, &find("arm-ethos-u55-128")?, &options)?;
//! assert_eq!(estimate.macs.0, 33 * 32 * 256);
//! assert_eq!(estimate.mac_slots.0, 64 * 32 * 256, "33 channels occupy the array as 64");
//! assert!(estimate.precision.contains("no f32 arithmetic"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod analysis;
mod arithmetic;
mod array;
mod confidence;
mod count;
mod energy;
mod error;
mod estimate;
mod fold;
mod memory;
mod op;
mod shapes;
mod weights;

pub use analysis::{Options, estimate};
pub use arithmetic::Precision;
pub use count::{macs, square_slots};
pub use error::CostError;
pub use estimate::{Energy, Estimate, NodeCost, Placement, Resource, RunsOn};
