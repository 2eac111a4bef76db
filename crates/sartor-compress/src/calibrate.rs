//! Calibration: running a network over samples and watching values in passing.
//!
//! Techniques say which values they observe; one run over the samples serves all. What is kept of a
//! value is bounded whatever the number of samples, and does not depend on how they are cut into
//! batches.

mod histogram;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use sartor_engine::{Array, Options, Program};
use sartor_ir::{Dim, Graph, TensorType, ValueId};

pub use histogram::Histogram;

use crate::{CompressError, Samples};

/// Samples that run at once where the network leaves the batch open.
const BATCH: usize = 64;

/// Elements that one task looks at: fits the first-level cache beside a histogram.
const CHUNK: usize = 1 << 15;

/// Runs `graph` over all `samples` and shows `visit` each watched value of each batch. `progress` gets the
/// samples done and their number. Graph inputs may be watched too.
///
/// # Errors
/// Samples that do not fit the inputs, a network that cannot run, or the first error of `visit`.
pub(crate) fn observe(
    graph: &Graph,
    watch: &BTreeSet<ValueId>,
    samples: &dyn Samples,
    progress: &mut dyn FnMut(usize, usize),
    visit: &mut dyn FnMut(ValueId, &Array) -> Result<(), CompressError>,
) -> Result<(), CompressError> {
    let (total, batch) = (samples.len(), batch_of(graph, samples.len())?);
    let inner: Vec<ValueId> =
        watch.iter().copied().filter(|it| graph.producer(*it).is_some()).collect();
    let mut prepared: Option<(Vec<Vec<usize>>, Program)> = None;
    let mut done = 0;
    progress(0, total);
    samples.for_each(batch, &mut |inputs| {
        check_types(graph, inputs)?;
        let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
        if prepared.as_ref().is_none_or(|it| it.0 != shapes) {
            let options = Options { watch: inner.clone(), ..Options::default() };
            let program = Program::prepare(graph, &shapes, &options).map_err(run_error)?;
            prepared = Some((shapes, program));
        }
        let (_, program) = prepared.as_ref().expect("prepared above");
        for (&id, array) in graph.inputs().iter().zip(inputs).filter(|it| watch.contains(it.0)) {
            visit(id, array)?;
        }
        let mut outcome = Ok(());
        let seen = program.run_observed(inputs, &mut |id, array| {
            if outcome.is_ok() {
                outcome = visit(id, array);
            }
        });
        outcome?;
        seen.map_err(run_error)?;
        done += inputs.first().and_then(|it| it.shape.first()).copied().unwrap_or(0);
        progress(done, total);
        Ok(())
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err asks for")]
pub(crate) fn run_error(error: impl ToString) -> CompressError {
    CompressError::Run(error.to_string())
}

/// The batch that the inputs' types fix.
pub(crate) fn fixed_batch(graph: &Graph) -> Option<usize> {
    let first =
        |id: &ValueId| graph.value(*id).ty.as_ref()?.shape.as_ref()?.first().and_then(Dim::known);
    graph.inputs().iter().find_map(first)
}

/// The batch that the inputs' types fix, or [`BATCH`].
fn batch_of(graph: &Graph, count: usize) -> Result<usize, CompressError> {
    if count == 0 {
        return Err(CompressError::Samples(
            "there is no sample, at least one is needed".to_owned(),
        ));
    }
    match fixed_batch(graph) {
        Some(fixed) if fixed == 0 || !count.is_multiple_of(fixed) => Err(CompressError::Samples(
            format!("the network takes batches of {fixed}, found {count} samples: give a multiple"),
        )),
        Some(fixed) => Ok(fixed),
        None => Ok(BATCH),
    }
}

/// Checks one batch against the declared inputs.
fn check_types(graph: &Graph, inputs: &[Array]) -> Result<(), CompressError> {
    if inputs.len() != graph.inputs().len() {
        let (found, expected) = (inputs.len(), graph.inputs().len());
        return Err(CompressError::Samples(format!(
            "found {found} arrays, the network has {expected} inputs"
        )));
    }
    for (&id, array) in graph.inputs().iter().zip(inputs) {
        let (found, value) = (TensorType::fixed(array.dtype(), &array.shape), graph.value(id));
        if let Some(declared) = value.ty.as_ref().filter(|it| !it.compatible(&found)) {
            return Err(CompressError::Samples(format!(
                "input `{}` is {declared}, found {found}",
                value.name
            )));
        }
    }
    Ok(())
}

/// What is kept of a value: its exact extremes and, if asked for, a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Observer {
    /// Smallest element seen; infinite before the first.
    pub low: f32,
    /// Largest element seen; negative infinite before the first.
    pub high: f32,
    /// How often elements of each size were seen.
    pub histogram: Option<Histogram>,
    /// The extremes of the samples, one by one.
    pub averages: Option<Averages>,
}

/// Sums of the extremes of single samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    /// Samples that were seen.
    pub samples: u64,
    /// Sum of their smallest elements.
    pub low: f64,
    /// Sum of their largest elements.
    pub high: f64,
}

impl Averages {
    /// Means of the smallest and of the largest element; `None` before the first sample.
    pub fn means(&self) -> Option<(f64, f64)> {
        let count = self.samples as f64;
        (self.samples > 0).then(|| (self.low / count, self.high / count))
    }

    /// The wider of both on each side, over as many samples.
    fn merged(&self, other: &Averages) -> Averages {
        match (self.means(), other.means()) {
            (Some(a), Some(b)) => {
                let samples = self.samples.max(other.samples);
                let count = samples as f64;
                Averages { samples, low: a.0.min(b.0) * count, high: a.1.max(b.1) * count }
            }
            (Some(_), None) => *self,
            (None, _) => *other,
        }
    }
}

impl Observer {
    /// One that has seen nothing.
    pub fn new(histogram: bool) -> Self {
        let histogram = histogram.then(Histogram::default);
        Observer { low: f32::INFINITY, high: f32::NEG_INFINITY, histogram, averages: None }
    }

    /// The same, which also keeps the means of the extremes of the samples that [`Observer::see_batch`] shows.
    #[must_use]
    pub fn with_averages(self) -> Self {
        Observer { averages: Some(Averages::default()), ..self }
    }

    /// Takes in the elements of so many samples, one after the other.
    ///
    /// # Errors
    /// As [`Observer::see`].
    pub fn see_batch(&mut self, values: &[f32], samples: usize) -> Result<(), &'static str> {
        self.see(values)?;
        let extent = values.len().checked_div(samples).unwrap_or(0);
        if let (Some(averages), true) = (&mut self.averages, extent > 0) {
            let found: Vec<_> = values.par_chunks(extent).map(extremes).collect();
            for (low, high, _) in found {
                averages.samples += 1;
                averages.low += f64::from(low);
                averages.high += f64::from(high);
            }
        }
        Ok(())
    }

    /// Takes in some elements.
    ///
    /// # Errors
    /// What was found instead of finite numbers.
    pub fn see(&mut self, values: &[f32]) -> Result<(), &'static str> {
        if values.is_empty() {
            return Ok(());
        }
        let parts = values.par_chunks(CHUNK).map(extremes);
        let (low, high, nan) = parts.reduce(
            || (f32::INFINITY, f32::NEG_INFINITY, false),
            |a, b| (a.0.min(b.0), a.1.max(b.1), a.2 || b.2),
        );
        if nan {
            return Err("NaN");
        }
        if low == f32::NEG_INFINITY || high == f32::INFINITY {
            return Err("an infinity");
        }
        self.low = self.low.min(low);
        self.high = self.high.max(high);
        if let Some(histogram) = &mut self.histogram {
            histogram.reserve(low.abs().max(high.abs()));
            let exponent = histogram.exponent();
            let parts = values.par_chunks(CHUNK).map(|it| Histogram::of(it, exponent));
            if let Some(part) = parts.reduce_with(|a, b| a.merged(&b)) {
                *histogram = histogram.merged(&part);
            }
        }
        Ok(())
    }

    /// Both together, as if one had seen all elements.
    #[must_use]
    pub fn merged(&self, other: &Observer) -> Observer {
        let histogram =
            self.histogram.as_ref().zip(other.histogram.as_ref()).map(|(a, b)| a.merged(b));
        let averages = self.averages.zip(other.averages).map(|(a, b)| a.merged(&b));
        let (low, high) = (self.low.min(other.low), self.high.max(other.high));
        Observer { low, high, histogram, averages }
    }
}

/// Smallest, largest, and whether there is a NaN. Lanes let the compiler use vector instructions.
fn extremes(values: &[f32]) -> (f32, f32, bool) {
    const LANES: usize = 16;
    let (mut low, mut high, mut nan) =
        ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0u32; LANES]);
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane];
            low[lane] = if x < low[lane] { x } else { low[lane] };
            high[lane] = if x > high[lane] { x } else { high[lane] };
            nan[lane] |= u32::from(x.is_nan());
        }
    }
    let low = low.into_iter().chain(rest.iter().copied()).fold(f32::INFINITY, f32::min);
    let high = high.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max);
    (low, high, nan.iter().any(|it| *it > 0) || rest.iter().any(|it| it.is_nan()))
}

/// Observes all of `watch` in one run, each value with a copy of `observer`, which has seen nothing; every value that
/// held floats has an entry.
///
/// # Errors
/// As [`observe`], and an activation that is not finite, by the node that makes it.
pub(crate) fn calibrate(
    graph: &Graph,
    watch: &BTreeSet<ValueId>,
    observer: &Observer,
    samples: &dyn Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<ValueId, Observer>, CompressError> {
    let mut observers: BTreeMap<ValueId, Observer> = BTreeMap::new();
    observe(graph, watch, samples, progress, &mut |id, array| {
        let Some(values) = array.as_f32() else { return Ok(()) };
        let observer = observers.entry(id).or_insert_with(|| observer.clone());
        let rows = array.shape.first().copied().unwrap_or(1);
        observer.see_batch(values, rows).map_err(|found| {
            let maker = graph.producer(id).map(|it| graph.node(it).name.clone());
            let tensor = graph.value(id).name.clone();
            CompressError::NotFinite {
                node: maker.unwrap_or_else(|| tensor.clone()),
                tensor,
                found: found.to_owned(),
            }
        })
    })?;
    Ok(observers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn extremes_are_exact_and_independent_of_the_split(
            values in prop::collection::vec(-1e6f32..1e6, 1..200), cut in 0usize..200,
        ) {
            let cut = cut.min(values.len());
            let (mut whole, mut split) = (Observer::new(true), Observer::new(true));
            whole.see(&values).unwrap();
            split.see(&values[..cut]).unwrap();
            split.see(&values[cut..]).unwrap();
            prop_assert!(whole == split);
            prop_assert_eq!(whole.low.to_bits(), values.iter().copied().fold(f32::INFINITY, f32::min).to_bits());
            prop_assert_eq!(whole.high.to_bits(), values.iter().copied().fold(f32::NEG_INFINITY, f32::max).to_bits());
        }
    }

    #[test]
    fn averages_are_those_of_samples_however_they_are_cut() {
        let values = [1.0, -3.0, 2.0, 5.0, 0.0, 0.5];
        let (mut whole, mut split) =
            (Observer::new(false).with_averages(), Observer::new(false).with_averages());
        whole.see_batch(&values, 3).unwrap();
        split.see_batch(&values[..2], 1).unwrap();
        split.see_batch(&values[2..], 2).unwrap();
        assert_eq!(whole, split);
        assert_eq!(whole.averages.unwrap().means(), Some((-1.0 / 3.0, 6.5 / 3.0)));
        let other =
            Observer { averages: Some(Averages { samples: 3, low: -9.0, high: 0.0 }), ..split };
        let means = whole.merged(&other).averages.unwrap().means().unwrap();
        assert!((means.0 + 3.0).abs() < 1e-12 && (means.1 - 6.5 / 3.0).abs() < 1e-12, "{means:?}");
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for (bad, name) in
            [(f32::NAN, "NaN"), (f32::INFINITY, "an infinity"), (f32::NEG_INFINITY, "an infinity")]
        {
            for at in [0, 17, 39] {
                let mut values = vec![1.0; 40];
                values[at] = bad;
                assert_eq!(Observer::new(false).see(&values), Err(name), "{bad} at {at}");
            }
        }
        assert_eq!(Observer::new(true).see(&[]), Ok(()));
    }
}
