//! Training: the forward pass that keeps what the backward pass needs, and the backward pass.
//!
//! A [`Tape`] is a graph prepared for training at given input shapes. The numbers that training changes
//! are [`Parameters`]: weights, and the running statistics of `BatchNormalization`. Losses, optimizers and
//! schedules stand above this crate: [`Tape::forward`] gives the network's outputs,
//! [`Tape::backward`] takes d loss / d output and adds d loss / d parameter to [`Gradients`].
//!
//! ```
//! use sartor_engine::{Array, train::{Gradients, Parameters, Tape, TapeOptions, trainable}};
//! use sartor_ir::{Binary, DType, Graph, Op, Tensor, TensorType};
//!
//! let mut graph = Graph::new("line");
//! let x = graph.add_input("x", TensorType::fixed(DType::F32, &[2]))?;
//! let w = graph.add_constant("w", Tensor::from_f32(&[2], &[3.0, -1.0]))?;
//! let y = graph.add_node("scale", Op::Binary(Binary::Mul), &[x, w], &["y"])?[0];
//! graph.set_outputs(vec![y]);
//! let options = TapeOptions { parameters: vec![w], ..TapeOptions::default() };
//! let mut tape = Tape::prepare(&graph, &[vec![2]], &options)?;
//! let mut parameters = Parameters::from_graph(&graph, &options.parameters)?;
//! let mut gradients = Gradients::new(&parameters);
//! let outputs = tape.forward(&mut parameters, &[Array::f32(&[2], vec![2.0, 5.0])])?;
//! assert_eq!(outputs[0].as_f32(), Some([6.0, -5.0].as_slice()));
//! // The loss is the sum of the outputs.
//! tape.backward(&parameters, &[Some(Array::f32(&[2], vec![1.0; 2]))], &mut gradients)?;
//! assert_eq!(gradients.get(0), [2.0, 5.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
pub(crate) mod dropout;
mod fast;
mod forward;
mod fuse;
mod kernels;
mod parameters;
mod pool;
mod prepare;
mod retention;
mod rules;
mod tape;
#[cfg(test)]
mod tests;

use sartor_ir::ValueId;

pub use parameters::{Gradients, Parameters, trainable};
pub use tape::{StepInfo, Tape};

/// How `BatchNormalization` behaves while training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNormMode {
    /// Statistics of the batch; the running ones are updated.
    #[default]
    Train,
    /// Stored statistics; scale and shift still learn.
    Frozen,
}

/// What a tape is prepared for, beside the shapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TapeOptions {
    /// Constants that learn; see [`trainable`].
    pub parameters: Vec<ValueId>,
    /// How `BatchNormalization` behaves.
    pub batch_norm: BatchNormMode,
    /// Values that [`Tape::value`] and [`Tape::value_gradient`] can show after a step.
    pub watch: Vec<ValueId>,
    /// From which the masks of `Dropout` and of `unrounded` are drawn.
    pub seed: u64,
    /// Share of the elements, each chosen by chance, that a `QuantizeLinear` and the `DequantizeLinear` behind it let
    /// pass unrounded (`QDrop`: Wei et al. 2022, equation 8); 0 to round all, at most 1. Every pair must have one scale.
    pub unrounded: f32,
}
