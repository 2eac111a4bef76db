//! Folding of everything that a network does not have to compute when it runs.

use sartor_engine::ReferenceEvaluator;
use sartor_ir::{
    Graph, PassError,
    passes::{DeadCode, FoldBatchNorm, FoldConstants, RemoveIdentity},
    run_passes,
};

/// Larger constants are not made: a folded broadcast may be far larger than its graph.
const LARGEST_CONSTANT: usize = 1 << 20;

/// The step `simplify`: batch normalization folded into convolutions, constants folded, no-ops and dead
/// nodes removed, until nothing changes.
///
/// # Errors
/// A pass that broke the graph: a fault of ours, or shapes that do not fit from the start.
pub fn simplify(graph: &Graph) -> Result<Graph, PassError> {
    let constants =
        FoldConstants { evaluate: Some(&ReferenceEvaluator), largest: LARGEST_CONSTANT };
    let (graph, _) = run_passes(graph, &[&constants, &RemoveIdentity, &FoldBatchNorm, &DeadCode])?;
    Ok(graph)
}
