//! What a training tells its host, and what the host decides.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The host of a training. It alone knows files, clocks and the user's wish to stop.
pub trait Watch {
    /// Whether the training shall stop after this iteration; it writes a checkpoint first.
    fn stopped(&self) -> bool {
        false
    }

    /// An iteration is done.
    ///
    /// # Errors
    /// What the host could not do; it ends the training.
    fn step(&mut self, _step: &Step) -> Result<(), TrainError> {
        Ok(())
    }

    /// An epoch is done and validated. Epoch 0 is the network before any training.
    ///
    /// # Errors
    /// As [`Watch::step`].
    fn epoch(&mut self, _epoch: &Epoch) -> Result<(), TrainError> {
        Ok(())
    }

    /// Whether a checkpoint is wanted now. `epoch` is the number of an epoch that has just ended.
    fn wants_checkpoint(&mut self, _epoch: Option<u32>) -> bool {
        false
    }

    /// Keeps a checkpoint.
    ///
    /// # Errors
    /// As [`Watch::step`].
    fn keep(&mut self, _checkpoint: &[u8]) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Sums over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) loss: f64,
    pub(crate) samples: u64,
    /// Samples whose best class is the label, and samples with labels.
    pub(crate) correct: u64,
    pub(crate) labelled: u64,
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Sums) {
        self.loss += other.loss;
        self.samples += other.samples;
        self.correct += other.correct;
        self.labelled += other.labelled;
    }

    pub(crate) fn mean(&self) -> Mean {
        let accuracy = 100.0 * self.correct as f64 / self.labelled.max(1) as f64;
        Mean {
            loss: self.loss / self.samples.max(1) as f64,
            accuracy: (self.labelled > 0).then_some(accuracy),
            samples: self.samples,
        }
    }
}

/// Means over samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The loss.
    pub loss: f64,
    /// Percentage of samples whose best class is the label; `None` without labels or classes.
    pub accuracy: Option<f64>,
    /// How many samples.
    pub samples: u64,
}

/// One iteration: one step of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Iterations done, this one included.
    pub iteration: u64,
    /// Iterations in all.
    pub iterations: u64,
    /// Its learning rate.
    pub rate: f64,
    /// Euclidean norm of the gradient, before it was clipped.
    pub norm: f64,
    /// Over the samples of this iteration.
    pub mean: Mean,
    /// Over the epoch so far.
    pub epoch_mean: Mean,
    /// Over the last [`crate::Job::window`] iterations, where that many have passed again.
    pub window: Option<Mean>,
}

/// One epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, from 1; 0 is before the training.
    pub epoch: u32,
    /// Iterations done.
    pub iteration: u64,
    /// Over the training samples, while the network changed; `None` for epoch 0.
    pub train: Option<Mean>,
    /// Over the validation samples, as the network is at inference; `None` without.
    pub validation: Option<Mean>,
    /// Whether no epoch before was better on the validation samples.
    pub best: bool,
}

impl Epoch {
    /// Whether this epoch is better on the validation samples: in accuracy, and among equals in loss.
    pub(crate) fn beats(&self, other: &Epoch) -> bool {
        let (Some(own), Some(other)) = (&self.validation, &other.validation) else {
            return self.validation.is_some();
        };
        let order = own.accuracy.partial_cmp(&other.accuracy);
        match order {
            Some(std::cmp::Ordering::Greater) => true,
            Some(std::cmp::Ordering::Less) => false,
            _ => own.loss < other.loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_compared_by_accuracy_then_loss() {
        let of = |accuracy, loss| {
            let mean = Mean { loss, accuracy, samples: 10 };
            Epoch { epoch: 1, iteration: 1, train: None, validation: Some(mean), best: false }
        };
        assert!(of(Some(51.0), 2.0).beats(&of(Some(50.0), 1.0)));
        assert!(!of(Some(50.0), 1.0).beats(&of(Some(50.0), 1.0)));
        assert!(of(Some(50.0), 0.9).beats(&of(Some(50.0), 1.0)));
        assert!(of(None, 0.9).beats(&of(None, 1.0)) && !of(None, 1.1).beats(&of(None, 1.0)));
    }
}
