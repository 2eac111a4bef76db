//! Techniques that make a trained network smaller, and the recipe steps that ask for them.
//!
//! Mechanism only: this crate applies what a step says and chooses nothing. It knows no chip and no
//! budget. A technique takes a graph and a configuration and gives back another graph, with a record of
//! what it did node by node and of what it left alone, and why.

mod error;
pub mod prune;
mod samples;

pub use error::CompressError;
pub use samples::{InMemory, Samples};
