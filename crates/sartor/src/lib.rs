//! The face of Sartor: read a network, look at it, fit it to a chip, verify and write the result.
//!
//! This is the only crate with a stability promise. Everything happens in a [`Session`]; files come and go
//! through [`Model`].
//!
//! ```no_run
//! use std::path::Path;
//! use sartor::{DataSpec, Interrupt, Limits, Model, Session, Silent};
//!
//! let session = Session { progress: &Silent, interrupt: Interrupt::default(), seed: 0 };
//! let model = Model::load(Path::new("network.onnx"))?;
//! let chip = session.chip("arm-ethos-u55-128")?;
//! let data = DataSpec::load(Path::new("data.toml"))?;
//! let result = session.compress(&model, &chip, &data, &Limits::default())?;
//! session.write(&result, Path::new("out"), false)?;
//! # Ok::<(), sartor::Error>(())
//! ```

mod analysis;
mod arrays;
mod bench;
mod compress;
mod error;
mod evaluate;
mod file;
mod fit;
mod inspect;
mod model;
mod progress;
mod record;
mod samples;
mod session;
mod train;

pub use arrays::{Difference, Side, Tolerance, read_arrays};
pub use bench::{Bench, BenchInputs, BenchNode, BenchRequest, Clock, Peak};
pub use compress::{Compressed, DEFAULT_DROP, Limits};
pub use error::{Error, Kind};
pub use evaluate::{Evaluation, Predictions, wilson};
pub use file::{OutputFolder, check_output, read, read_text, write_atomically};
pub use fit::{Bed, Cache, Family, Fit, FitRequest, Machine, Outside, Point};
pub use inspect::{Inspection, Port, inspect};
pub use model::Model;
pub use progress::{Interrupt, Progress, Silent};
pub use samples::{BoundSamples, fitted, from_array, to_array};
pub use session::{PruneRequest, PruneResult, Session, Unit, check_chip_file, chip_file};
pub use train::{Checkpoints, Every, Finetuned, Metrics, Start, Telling, TrainRequest};

// The vocabulary of the crates below, as far as it is part of this face.
pub use sartor_chip::{
    Chip, ChipError, Confidence, Entry, LibraryEntry, NumberType, Place, Provenance, library,
};
pub use sartor_compress::{
    ActivationFormat, ActivationType, CompressError, Equalize, QuantizeStatic, QuantizedNode,
    RangeMethod, Recipe, RecipeError, Reconstruct, ReconstructedBlock, ScaleKind, Step, Storage,
    TECHNIQUES, WeightFormat, WeightType,
    prune::{Criterion, Group, Groups, groups},
};
pub use sartor_cost::{Estimate, NodeCost, Precision};
pub use sartor_data::{DataError, DataSet, DataSpec, InputSpec, NamedArray, read_npz, write_npz};
pub use sartor_engine::{Array, Level, force, level};
pub use sartor_ir::{Graph, NodeId};
pub use sartor_plan::{WantedScheme, quantization_scheme, wanted_scheme};
pub use sartor_report::{
    Analysis, Cell, Column, Record, Table, Terminal, Tone, analysis_to_html, analysis_to_terminal,
    format, to_html, to_json, to_terminal,
};
pub use sartor_train::{
    BatchNorm, Config as TrainConfig, Decay, Distillation, Epoch, Keep, LastBatch, Loss, Mean,
    Method, Objective, Schedule, Shape, Step as TrainStep, TrainError,
};
