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

mod arena;
mod arithmetic;
mod array;
mod buffers;
mod change;
mod confidence;
mod count;
pub mod crossbar;
mod energy;
mod error;
mod estimate;
mod ethos_u;
mod fold;
mod inline;
mod layout;
mod link;
mod memory;
mod model;
mod op;
mod opportunity;
mod sensitivity;
mod shapes;
mod weights;

use sartor_chip::Chip;
use sartor_ir::Graph;

pub use arena::{ALIGNMENT, Arena};
pub use arithmetic::Precision;
pub use change::Change;
pub use count::{macs, square_slots};
pub use error::CostError;
pub use estimate::{Energy, Estimate, NodeCost, Placement, Resource, RunsOn};
pub use link::ChannelGroup;
pub use model::{Model, Price};
pub use opportunity::{Kind, Opportunity};
pub use sensitivity::Sensitivity;

/// What to assume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Samples in one run.
    pub batch: usize,
    /// The number types.
    pub precision: Precision,
}

/// What `graph` costs on `chip`. To price many variants of a graph, prepare a [`Model`] once.
///
/// The graph's inputs get the batch wherever their first extent, or its name, stands. Formulas: `docs/cost-model.md`.
///
/// # Errors
/// As [`Model::new`].
pub fn estimate(graph: &Graph, chip: &Chip, options: &Options) -> Result<Estimate, CostError> {
    Ok(Model::new(graph, chip, options)?.estimate())
}
