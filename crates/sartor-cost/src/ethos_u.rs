//! Arm Ethos-U: what its compiler's own estimate of an operator is made of.
//!
//! The array makes blocks of the output; how large they are, how weights are stored and whether they are copied ahead decides what
//! an operator takes. The rules are those of Arm's compiler Vela 5.2.0 (`ethos-u-vela`), read in its source and checked against
//! its results; `docs/cost-model.md` tells them and how near they come.

mod block;
mod block85;
mod coding;
mod cycles;
mod lower;
mod machine;
mod memo;
mod order;
mod plan;
mod product;
mod schedule;
mod softmax;
mod store;
mod task;
#[cfg(test)]
mod tests;
mod traffic;

pub(crate) use plan::{Changed, Schedule, Timing, stored_ratio};
