//! Passes and the one driver that runs them.

use thiserror::Error;

use crate::{Graph, GraphError, InferError, Op, Tensor, VerifyError, infer, verify};

/// What a change may do to the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fidelity {
    /// The same bits.
    Exact,
    /// The same up to the rounding of reordered arithmetic.
    Rounding,
    /// Another function.
    Lossy,
}

/// A change of the graph that asks for nothing but the graph.
pub trait Pass {
    /// Name in reports and errors.
    fn id(&self) -> &'static str;

    /// What the pass may do to the outputs.
    fn fidelity(&self) -> Fidelity;

    /// Changes what it can in one walk and returns how many changes it made.
    ///
    /// # Errors
    /// A refused mutation: a fault of the pass.
    fn run(&self, graph: &mut Graph) -> Result<usize, GraphError>;
}

/// Computes operators on constants; the engine has the kernels, this crate has none.
pub trait Evaluate {
    /// The outputs of `op`; `None` if it cannot be computed.
    fn evaluate(&self, op: &Op, inputs: &[Option<&Tensor>]) -> Option<Vec<Tensor>>;
}

/// How often a pass changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassRun {
    /// The pass.
    pub id: &'static str,
    /// Changes over all rounds.
    pub changes: usize,
}

/// A pass that broke the graph: a fault of ours.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PassError {
    /// A mutation was refused.
    #[error("pass `{0}` made a change that the graph refused: {1}")]
    Graph(&'static str, #[source] GraphError),
    /// The result has shapes that do not fit.
    #[error("pass `{0}` broke the shapes: {1}")]
    Infer(&'static str, #[source] InferError),
    /// The result is not a graph.
    #[error("pass `{0}` broke the graph: {1}")]
    Verify(&'static str, #[source] VerifyError),
}

/// More rounds mean two passes that undo each other.
const MOST_ROUNDS: usize = 16;

/// Runs `passes` in order, again and again until none changes anything, inferring types and verifying
/// after each; returns the compacted graph and what each pass did.
///
/// # Errors
/// A pass that broke the graph, with its name.
pub fn run_passes(graph: &Graph, passes: &[&dyn Pass]) -> Result<(Graph, Vec<PassRun>), PassError> {
    let mut graph = graph.clone();
    let mut runs: Vec<_> = passes.iter().map(|it| PassRun { id: it.id(), changes: 0 }).collect();
    infer(&mut graph).map_err(|it| PassError::Infer("before all", it))?;
    for _ in 0..MOST_ROUNDS {
        let mut changed = false;
        for (pass, run) in passes.iter().zip(&mut runs) {
            let changes = pass.run(&mut graph).map_err(|it| PassError::Graph(run.id, it))?;
            if changes > 0 {
                graph.sort().map_err(|it| PassError::Graph(run.id, it))?;
                infer(&mut graph).map_err(|it| PassError::Infer(run.id, it))?;
                verify(&graph).map_err(|it| PassError::Verify(run.id, it))?;
                run.changes += changes;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    Ok((graph.compacted(), runs))
}
