//! Kernels and execution: runs graphs and never changes one.

mod array;
pub mod reference;
mod simd;

pub use array::{Array, Data};
