//! Training: losses, optimizers, schedules, augmentation and checkpoints over the engine's tape.
//!
//! Invariant: it changes the numbers of a graph, never its structure: what comes out has the same nodes, names and shapes as
//! what came in. It knows no chip, touches no file and reads no clock: samples come in through [`Samples`]; progress,
//! checkpoints and the wish to stop go through [`Watch`].
//!
//! The same network, samples and [`Config`] give the same numbers, with one thread or many, and whether or not the training was
//! paused on the way: what is drawn by chance follows from the seed and from epoch, iteration and sample alone.
//!
//! ```
//! use sartor_data::{Augmentation, DataError};
//! use sartor_engine::Array;
//! use sartor_ir::{DType, Dim, Gemm, Graph, Op, Tensor, TensorType};
//! use sartor_train::*;
//!
//! struct Signs;
//!
//! impl Samples for Signs {
//!     fn len(&self) -> usize {
//!         64
//!     }
//!
//!     fn read(&self, indices: &[usize], _: Option<&Augmentation>) -> Result<Batch, DataError> {
//!         let values = indices.iter().map(|&it| it as f32 - 31.5).collect();
//!         let inputs = vec![Array::f32(&[indices.len(), 1], values)];
//!         let labels = Some(indices.iter().map(|&it| usize::from(it > 31)).collect());
//!         Ok(Batch { inputs, labels, targets: None })
//!     }
//! }
//!
//! struct Nobody;
//! impl Watch for Nobody {}
//!
//! let mut graph = Graph::new("line");
//! let x = graph.add_input("x", TensorType::new(DType::F32, vec![Dim::symbol("N"), Dim::Known(1)]))?;
//! let w = graph.add_constant("w", Tensor::from_f32(&[1, 2], &[0.0; 2]))?;
//! let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
//! let y = graph.add_node("dense", Op::Gemm(gemm), &[x, w], &["y"])?[0];
//! graph.set_outputs(vec![y]);
//! let config = Config {
//!     epochs: 2,
//!     batch: 16,
//!     accumulate: 1,
//!     last_batch: LastBatch::Keep,
//!     method: Method::Sgd { momentum: 0.9, nesterov: false },
//!     schedule: Schedule { peak: 0.1, shape: Shape::Cosine, warmup: 0.0, last: 0.0 },
//!     decay: Decay { weight: 0.0, all: false, except: Vec::new() },
//!     freeze: Vec::new(),
//!     batch_norm: BatchNorm::Train,
//!     objective: Objective { loss: Loss::CrossEntropy, label_smoothing: 0.0, distillation: None },
//!     clip: None,
//!     crop: 0,
//!     flip: false,
//!     keep: Keep::Last,
//!     seed: 0,
//! };
//! let job = Job {
//!     graph: &graph,
//!     teacher: None,
//!     train: &Signs,
//!     validation: None,
//!     config: &config,
//!     window: 0,
//!     resume: None,
//! };
//! let trained = train(&job, &mut Nobody)?;
//! let last = trained.history.last().and_then(|it| it.train).ok_or("two epochs were trained")?;
//! assert!(last.loss < 0.1 && last.accuracy == Some(100.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod config;
mod error;
#[cfg(test)]
mod fixture;
mod head;
mod init;
mod loss;
mod network;
mod optimizer;
mod role;
mod samples;
mod schedule;
#[cfg(test)]
mod tests;
mod trainer;
mod watch;

pub use config::{BatchNorm, Config, Decay, Keep, LastBatch};
pub use error::TrainError;
pub use init::initialize;
pub use loss::{Distillation, Loss, Objective};
pub use optimizer::Method;
pub use samples::{Batch, Samples};
pub use schedule::{Length, RISE, Schedule, Shape};
pub use trainer::{Job, Trained, train};
pub use watch::{Epoch, Mean, Step, Watch};
