//! The measuring side of a search.

use sartor_ir::Graph;

use crate::PlanError;

/// What a candidate reached on the judge's samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Samples whose best class is the label, in percent; `None` without labels.
    pub top1: Option<f64>,
    /// Samples whose best class is the original network's, in percent.
    pub agreement: f64,
    /// Mean divergence of the output distribution from the original network's, in nats.
    pub divergence: f64,
    /// Number of samples.
    pub samples: usize,
}

impl Score {
    /// Points lost against `reference`: of top-1 accuracy or, without labels, of agreement.
    pub fn drop_from(&self, reference: &Score) -> f64 {
        match (reference.top1, self.top1) {
            (Some(before), Some(after)) => before - after,
            _ => reference.agreement - self.agreement,
        }
    }
}

/// Runs candidates on samples that the final figure is not taken from.
pub trait Judge {
    /// The score of a candidate on all samples.
    ///
    /// # Errors
    /// [`PlanError::Judge`].
    fn score(&mut self, graph: &Graph) -> Result<Score, PlanError>;

    /// The divergence of a candidate on a few samples: enough to rank many.
    ///
    /// # Errors
    /// [`PlanError::Judge`].
    fn divergence(&mut self, graph: &Graph) -> Result<f64, PlanError>;
}
