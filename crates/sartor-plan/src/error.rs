//! Why no plan could be made.

use sartor_compress::CompressError;
use sartor_cost::CostError;
use thiserror::Error;

/// Why no plan could be made.
#[derive(Clone, Debug, Error)]
pub enum PlanError {
    /// A technique failed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The network cannot be priced.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// A measurement failed.
    #[error("a candidate could not be measured: {0}")]
    Judge(String),
    /// A share that no choice of widths reaches.
    #[error(
        "the smallest widths keep {reached:.1} % of the {unit}, asked were {asked} %; {frozen} groups may not \
         lose channels (`groups` lists them), a smaller --grain or a larger share is needed"
    )]
    Unreachable {
        /// What is counted.
        unit: &'static str,
        /// Percent at the smallest widths.
        reached: f64,
        /// Percent asked for.
        asked: f64,
        /// Groups that may not be pruned.
        frozen: usize,
    },
}
