//! Techniques that make a trained network smaller, and the recipe steps that ask for them.
//!
//! Mechanism only: this crate applies what a step says and chooses nothing. It knows no chip and no
//! budget. A technique takes a graph and a configuration and gives back another graph, with a record of
//! what it did node by node and of what it left alone, and why.

mod calibrate;
mod equalize;
mod error;
pub mod prune;
mod quantize;
mod recipe;
mod reconstruct;
mod restore_statistics;
mod samples;
mod simplify;

pub use calibrate::{Averages, Histogram, Observer};
pub use equalize::{Equalize, equalize};
pub use error::CompressError;
pub use quantize::{
    ActivationFormat, ActivationType, QUANTIZABLE, QuantizeStatic, Quantized, QuantizedNode,
    RangeMethod, ScaleKind, Storage, WeightFormat, WeightType, measure_sqnr, quantize,
};
pub use recipe::{
    Outcome, RECIPE_VERSION, Recipe, RecipeError, Step, TECHNIQUES, Technique, Workpiece,
};
pub use reconstruct::{Granularity, Reconstruct, Reconstructed, ReconstructedBlock, reconstruct};
pub use restore_statistics::{RestoreStatistics, Restored, restore_statistics};
pub use samples::{InMemory, Samples};
pub use simplify::simplify;
