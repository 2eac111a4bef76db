//! Accuracy of a network on labelled samples.

use std::collections::BTreeMap;

use rayon::prelude::*;
use sartor_engine::{Array, Options, Program, batch_shapes, check_support};
use sartor_ir::Graph;
use serde::Serialize;

use crate::{Error, Progress, model::fixed_batch, samples::BoundSamples};

/// Samples that run at once: large enough to keep the cores busy, small enough for the caches.
const BATCH: usize = 32;

/// Accuracy with its uncertainty, in percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Samples whose best class is the label.
    pub top1: f64,
    /// Lower end of the 95 % interval of `top1`.
    pub top1_low: f64,
    /// Upper end of the 95 % interval of `top1`.
    pub top1_high: f64,
    /// Samples whose label is among the best five classes; `None` for five classes or fewer.
    pub top5: Option<f64>,
    /// Number of samples.
    pub samples: usize,
    /// Samples whose best class is that of the network compared with.
    pub agreement: Option<f64>,
    /// Samples right here and wrong in the network compared with, and the other way round.
    pub paired: Option<[usize; 2]>,
}

/// What a network says to every sample of a split: enough to compare two networks image by image.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Scores, `[samples, classes]` row by row.
    pub scores: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
    /// Labels, if the split has any.
    pub labels: Option<Vec<usize>>,
}

impl Predictions {
    /// Runs `graph` over `samples` and keeps its first output.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before anything runs; [`Error::Invalid`] where the first output is not a
    /// score by class; [`Error::Interrupted`].
    pub fn of(
        graph: &Graph,
        samples: &BoundSamples,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let mut runner = Runner::new(graph)?;
        let mut all = Predictions { scores: Vec::new(), classes: 0, labels: Some(Vec::new()) };
        for item in samples.batches(runner.batch) {
            let (inputs, labels) = item?;
            let count = inputs.first().and_then(|it| it.shape.first().copied()).unwrap_or(0);
            let outputs = runner.run(&inputs)?;
            let (scores, classes) = scores(outputs.into_iter().next(), count)?;
            all.scores.extend(scores);
            all.classes = classes;
            match (&mut all.labels, labels) {
                (Some(list), Some(labels)) => list.extend(labels),
                (slot, _) => *slot = None,
            }
            progress.advance(count as u64);
        }
        Ok(all)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.scores.len().checked_div(self.classes).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The best class of every sample; the first of equals, as numpy's `argmax`.
    pub fn best(&self) -> Vec<usize> {
        self.scores.par_chunks(self.classes.max(1)).map(argmax).collect()
    }

    /// Percentage of samples with the same best class.
    pub fn agreement(&self, other: &Predictions) -> f64 {
        let same = self.best().iter().zip(other.best()).filter(|(a, b)| **a == *b).count();
        100.0 * same as f64 / self.len().max(1) as f64
    }

    /// Mean Kullback-Leibler divergence, in nats, of the softmax of these scores from that of `reference`.
    pub fn divergence(&self, reference: &Predictions) -> f64 {
        let rows = reference
            .scores
            .chunks(self.classes.max(1))
            .zip(self.scores.chunks(self.classes.max(1)));
        let total: f64 = rows.map(|(p, q)| kl(&log_softmax(p), &log_softmax(q))).sum();
        total / self.len().max(1) as f64
    }

    /// Number of samples whose best class is the label; `None` without labels.
    pub fn correct(&self) -> Option<usize> {
        let labels = self.labels.as_ref()?;
        Some(self.best().iter().zip(labels).filter(|(a, b)| a == b).count())
    }

    /// Top-1, top-5 and agreement.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a split without labels, or with a label that is not a class.
    pub fn evaluate(&self, against: Option<&Predictions>) -> Result<Evaluation, Error> {
        let labels = self.labels.as_ref().ok_or_else(|| {
            Error::Invalid(
                "the data split has no labels, so there is no accuracy to measure; name them with `labels`"
                    .to_owned(),
            )
        })?;
        if let Some((at, label)) = labels.iter().enumerate().find(|it| *it.1 >= self.classes) {
            return Err(Error::Invalid(format!(
                "sample {at} is labelled {label}, the network has {} classes: the data are not what it was trained on",
                self.classes
            )));
        }
        let right = |it: &Predictions| -> Vec<bool> {
            it.best().iter().zip(labels).map(|(a, b)| a == b).collect()
        };
        let own = right(self);
        let correct = own.iter().filter(|it| **it).count();
        let (low, high) = wilson(correct, self.len());
        let paired = against.map(|it| {
            let other = right(it);
            let count = |mine: bool| {
                own.iter().zip(&other).filter(|(a, b)| **a == mine && **b != mine).count()
            };
            [count(true), count(false)]
        });
        Ok(Evaluation {
            top1: 100.0 * correct as f64 / self.len() as f64,
            top1_low: 100.0 * low,
            top1_high: 100.0 * high,
            top5: (self.classes > 5).then(|| self.top5(labels)),
            samples: self.len(),
            agreement: against.map(|it| self.agreement(it)),
            paired,
        })
    }

    fn top5(&self, labels: &[usize]) -> f64 {
        let rows = self.scores.chunks(self.classes).zip(labels);
        let hits = rows
            .filter(|(row, label)| row.iter().filter(|it| **it > row[**label]).count() < 5)
            .count();
        100.0 * hits as f64 / self.len() as f64
    }
}

/// Runs one graph at whatever batch sizes come.
pub(crate) struct Runner<'a> {
    graph: &'a Graph,
    /// Batch to feed it with.
    pub(crate) batch: usize,
    programs: BTreeMap<usize, Program>,
}

/// Whether the engine runs every node.
///
/// # Errors
/// [`Error::Unsupported`] with each that it does not run.
pub(crate) fn check_runs(graph: &Graph) -> Result<(), Error> {
    let reasons: Vec<_> = check_support(graph).iter().map(ToString::to_string).collect();
    if reasons.is_empty() { Ok(()) } else { Err(Error::Unsupported(reasons)) }
}

impl<'a> Runner<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Result<Self, Error> {
        check_runs(graph)?;
        let batch = fixed_batch(graph).unwrap_or(BATCH);
        Ok(Runner { graph, batch, programs: BTreeMap::new() })
    }

    /// Runs arrays of exactly the shapes that the network declares.
    pub(crate) fn run_exactly(&mut self, inputs: &[Array]) -> Result<Vec<Array>, Error> {
        let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
        Ok(Program::prepare(self.graph, &shapes, &Options::default())?.run(inputs)?)
    }

    /// Runs one batch; a network bound to a batch gets the last one filled up with copies of the first row.
    pub(crate) fn run(&mut self, inputs: &[Array]) -> Result<Vec<Array>, Error> {
        let count = inputs.first().and_then(|it| it.shape.first().copied()).unwrap_or(1);
        let bound = fixed_batch(self.graph);
        if let Some(batch) = bound
            && count < batch
        {
            let padded: Vec<Array> = inputs.iter().map(|it| resized(it, batch)).collect();
            return Ok(self.run(&padded)?.iter().map(|it| resized(it, count)).collect());
        }
        let program = match self.programs.entry(count) {
            std::collections::btree_map::Entry::Occupied(it) => it.into_mut(),
            std::collections::btree_map::Entry::Vacant(it) => {
                let shapes = batch_shapes(self.graph, count)?;
                it.insert(Program::prepare(self.graph, &shapes, &Options::default())?)
            }
        };
        Ok(program.run(inputs)?)
    }
}

/// The first `rows` of an array, or the array with its first row repeated at the end.
fn resized(array: &Array, rows: usize) -> Array {
    let have = array.shape.first().copied().unwrap_or(0);
    let row: usize = array.shape.iter().skip(1).product();
    let from = (0..rows).map(|i| if i < have { i } else { 0 });
    let data = array.data.runs(from.map(|i| i * row..(i + 1) * row));
    let shape = std::iter::once(rows).chain(array.shape.iter().skip(1).copied()).collect();
    Array { shape, data }
}

/// The first output as rows of scores.
fn scores(output: Option<Array>, count: usize) -> Result<(Vec<f32>, usize), Error> {
    let wrong = |what: String| {
        Error::Invalid(format!(
            "the first output is {what}, expected one row of class scores for each sample"
        ))
    };
    let Some(output) = output else { return Err(wrong("missing".to_owned())) };
    let shape = output.shape.clone();
    let classes: usize = shape.iter().skip(1).product();
    let rows =
        shape.first() == Some(&count) && shape.iter().skip(1).filter(|it| **it != 1).count() <= 1;
    match output.as_f32() {
        Some(values) if rows && classes > 1 => Ok((values.to_vec(), classes)),
        _ => Err(wrong(format!("{} {shape:?}", output.dtype()))),
    }
}

fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (i, it)| if *it > row[best] { i } else { best })
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|it| f64::from(it - top).exp()).sum();
    row.iter().map(|it| f64::from(it - top) - sum.ln()).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// The 95 % score interval of a proportion (Wilson 1927, "Probable Inference, the Law of Succession, and
/// Statistical Inference", equation for the two roots; z = 1.96).
pub fn wilson(hits: usize, count: usize) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    let (n, p, z) = (count as f64, hits as f64 / count as f64, 1.959_964);
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(rows: &[[f32; 3]], labels: &[usize]) -> Predictions {
        Predictions { scores: rows.concat(), classes: 3, labels: Some(labels.to_vec()) }
    }

    #[test]
    fn wilson_interval_as_published() {
        // Newcombe 1998, table I, method 3: 81 of 263 and 0 of 20.
        for (hits, count, low, high) in [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611)] {
            let interval = wilson(hits, count);
            assert!(
                (interval.0 - low).abs() < 5e-5 && (interval.1 - high).abs() < 5e-5,
                "{interval:?}"
            );
        }
    }

    #[test]
    fn accuracy_agreement_and_pairs() {
        let a = predictions(&[[3.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 1.0, 5.0]], &[0, 1, 1]);
        let b = predictions(&[[0.0, 1.0, 0.0], [0.0, 3.0, 2.0], [0.0, 7.0, 5.0]], &[0, 1, 1]);
        let found = a.evaluate(Some(&b)).unwrap();
        assert!((found.top1 - 200.0 / 3.0).abs() < 1e-9);
        assert!((found.agreement.unwrap() - 100.0 / 3.0).abs() < 1e-9);
        assert_eq!((found.paired, found.top5), (Some([1, 1]), None));
        assert!(a.divergence(&a).abs() < 1e-12 && a.divergence(&b) > 0.0);
    }

    #[test]
    fn labels_must_be_classes() {
        let error = predictions(&[[0.0, 1.0, 0.0]], &[7]).evaluate(None).unwrap_err();
        assert!(error.to_string().contains("labelled 7"), "{error}");
    }
}
