//! Passes over graphs.

mod dead_code;
mod fold_batch_norm;
mod fold_constants;
mod remove_identity;

pub use dead_code::DeadCode;
pub use fold_batch_norm::FoldBatchNorm;
pub use fold_constants::FoldConstants;
pub use remove_identity::RemoveIdentity;
