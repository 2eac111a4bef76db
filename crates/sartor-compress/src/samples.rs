//! Where a technique's sample inputs come from.

use sartor_engine::Array;

use crate::CompressError;

/// A set of samples that is visited batch by batch, so that memory is bounded by the batch.
pub trait Samples {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether whoever waits for the result wants it no more; long work asks between its steps.
    fn interrupted(&self) -> bool {
        false
    }

    /// Shows `visit` all samples in a fixed order, `batch` at a time (the last batch may be smaller), as one
    /// array for each of the network's inputs, in the network's order, with the samples along axis 0.
    ///
    /// # Errors
    /// A sample that cannot be read, or the first error of `visit`.
    fn for_each(
        &self,
        batch: usize,
        visit: &mut dyn FnMut(&[Array]) -> Result<(), CompressError>,
    ) -> Result<(), CompressError>;
}

/// The first samples of a set.
pub(crate) struct First<'a> {
    set: &'a dyn Samples,
    count: usize,
}

impl<'a> First<'a> {
    /// The first `count` of `set`, or all if there are fewer.
    pub(crate) fn of(set: &'a dyn Samples, count: usize) -> Self {
        First { set, count: count.min(set.len()) }
    }
}

impl Samples for First<'_> {
    fn len(&self) -> usize {
        self.count
    }

    fn for_each(
        &self,
        batch: usize,
        visit: &mut dyn FnMut(&[Array]) -> Result<(), CompressError>,
    ) -> Result<(), CompressError> {
        let mut left = self.count;
        let mut outcome = Ok(());
        // A set can only be left early by an error.
        let ended = self.set.for_each(batch, &mut |arrays| {
            let rows = arrays.first().and_then(|it| it.shape.first().copied()).unwrap_or(0);
            let take = rows.min(left);
            if take == rows {
                outcome = visit(arrays);
            } else if take > 0 {
                let part: Option<Vec<Array>> = arrays.iter().map(|it| it.rows(0..take)).collect();
                outcome = part.map_or(Ok(()), |it| visit(&it));
            }
            left -= take;
            if left == 0 || outcome.is_err() { Err(CompressError::Enough) } else { Ok(()) }
        });
        match ended {
            Err(CompressError::Enough) | Ok(()) => outcome,
            Err(other) => Err(other),
        }
    }
}

/// Samples that lie in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct InMemory(Vec<Array>);

impl InMemory {
    /// One array for each of the network's inputs, each with the samples along axis 0.
    ///
    /// # Errors
    /// No array, an array without axis 0, or arrays of different numbers of samples.
    pub fn new(inputs: Vec<Array>) -> Result<Self, CompressError> {
        let counts: Option<Vec<usize>> =
            inputs.iter().map(|it| it.shape.first().copied()).collect();
        match counts {
            Some(counts) if !counts.is_empty() && counts.iter().all(|it| *it == counts[0]) => {
                Ok(InMemory(inputs))
            }
            Some(counts) => Err(CompressError::Samples(format!(
                "the inputs have {counts:?} samples along axis 0, expected the same number for each"
            ))),
            None => Err(CompressError::Samples(
                "an input is a scalar, expected samples along axis 0".to_owned(),
            )),
        }
    }
}

impl Samples for InMemory {
    fn len(&self) -> usize {
        self.0[0].shape[0]
    }

    fn for_each(
        &self,
        batch: usize,
        visit: &mut dyn FnMut(&[Array]) -> Result<(), CompressError>,
    ) -> Result<(), CompressError> {
        let batch = batch.max(1);
        for start in (0..self.len()).step_by(batch) {
            let end = (start + batch).min(self.len());
            let part: Vec<Array> = self.0.iter().map(|it| window(it, start, end)).collect();
            visit(&part)?;
        }
        Ok(())
    }
}

/// Entries `start..end` of axis 0.
fn window(array: &Array, start: usize, end: usize) -> Array {
    let row: usize = array.shape[1..].iter().product();
    let data = array.data.slice(start * row..end * row);
    let mut shape = array.shape.clone();
    shape[0] = end - start;
    Array { shape, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sartor_engine::Data;

    #[test]
    fn batches_cover_every_sample_once_and_in_order() {
        let samples = InMemory::new(vec![
            Array::f32(&[5, 2], (0..10u8).map(f32::from).collect()),
            Array { shape: vec![5], data: Data::I64(vec![0, 1, 2, 3, 4]) },
        ]);
        let samples = samples.unwrap();
        let (mut floats, mut sizes) = (Vec::new(), Vec::new());
        let seen = samples.for_each(2, &mut |arrays| {
            floats.extend_from_slice(arrays[0].as_f32().unwrap());
            sizes.push(arrays[1].shape[0]);
            Ok(())
        });
        assert_eq!(seen, Ok(()));
        assert_eq!(floats, (0..10u8).map(f32::from).collect::<Vec<_>>());
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[test]
    fn inputs_must_agree_on_the_number_of_samples() {
        for (shapes, fits) in
            [(vec![vec![2, 1], vec![2]], true), (vec![vec![2], vec![3]], false), (vec![], false)]
        {
            let arrays = shapes
                .iter()
                .map(|it: &Vec<usize>| Array::f32(it, vec![0.0; it.iter().product()]))
                .collect();
            assert_eq!(InMemory::new(arrays).is_ok(), fits, "{shapes:?}");
        }
        assert!(InMemory::new(vec![Array::f32(&[], vec![1.0])]).is_err());
    }
}
