//! Where the samples of a training come from.

use sartor_data::{Augmentation, DataError};
use sartor_engine::Array;

/// Some samples, ready for the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// One array for each input of the network, in its order, the samples along axis 0.
    pub inputs: Vec<Array>,
    /// The class of each sample, where there are labels.
    pub labels: Option<Vec<usize>>,
    /// What the first output shall be, for [`crate::Loss::Mse`]: of its shape, where there is something else than labels.
    pub targets: Option<Array>,
}

/// Samples by number. They are read while the network runs, from another thread.
pub trait Samples: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the samples with these numbers, changed at random if that is asked for.
    ///
    /// # Errors
    /// Samples that cannot be read, or that cannot be changed because they are no images.
    fn read(&self, indices: &[usize], augment: Option<&Augmentation>) -> Result<Batch, DataError>;
}
