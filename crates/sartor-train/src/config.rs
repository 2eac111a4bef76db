//! What a training is asked for.

use sartor_engine::train::BatchNormMode;
use sartor_ir::{Graph, ValueId};
use serde::{Deserialize, Serialize};

use crate::{Loss, Method, Objective, Schedule, Shape, TrainError, role::roles};

/// Everything that the numbers of a trained network follow from, beside the network and the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Times that all samples are seen.
    pub epochs: u32,
    /// Samples that run at once.
    pub batch: usize,
    /// Batches whose gradients are added up to one step of the optimizer.
    pub accumulate: usize,
    /// What becomes of samples that do not fill a batch.
    pub last_batch: LastBatch,
    /// How parameters move along their gradients.
    pub method: Method,
    /// How far.
    pub schedule: Schedule,
    /// How they shrink.
    pub decay: Decay,
    /// Patterns of the names of parameters that stay as they are.
    pub freeze: Vec<String>,
    /// How `BatchNormalization` behaves.
    pub batch_norm: BatchNorm,
    /// What is minimized.
    pub objective: Objective,
    /// Largest Euclidean norm of the gradient; `None` for any.
    pub clip: Option<f64>,
    /// Pixels of the random crop's border; 0 for none.
    pub crop: usize,
    /// Whether images are mirrored at random.
    pub flip: bool,
    /// Which epoch's numbers are taken in the end.
    pub keep: Keep,
    /// From which the order of the samples, their changes and dropout follow.
    pub seed: u64,
}

/// What becomes of samples that do not fill a batch at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastBatch {
    /// They make a smaller one; not in a network that is bound to a batch.
    Keep,
    /// They are left out; the next epoch leaves out others.
    Drop,
}

/// Weight decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Decay {
    /// The factor.
    pub weight: f32,
    /// Whether biases and the parameters of normalizations decay too.
    pub all: bool,
    /// Patterns of the names of parameters that do not.
    pub except: Vec<String>,
}

/// How `BatchNormalization` behaves while training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorm {
    /// Statistics of the batch; the running ones follow.
    Train,
    /// The statistics of the file.
    Frozen,
}

/// Which epoch's numbers are taken in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Those of the best epoch on the validation samples, the untrained network included.
    Best,
    /// Those of the last.
    Last,
}

impl From<BatchNorm> for BatchNormMode {
    fn from(it: BatchNorm) -> Self {
        match it {
            BatchNorm::Train => BatchNormMode::Train,
            BatchNorm::Frozen => BatchNormMode::Frozen,
        }
    }
}

impl Config {
    /// Whether every number is one that can be meant.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the first that cannot.
    pub fn check(&self) -> Result<(), TrainError> {
        let at_least_one = |key: &str, it: usize| {
            if it > 0 { Ok(()) } else { Err(TrainError::config(key, it, "at least 1")) }
        };
        let within = |key: &str, it: f64, range: std::ops::RangeInclusive<f64>, text: &str| {
            if range.contains(&it) { Ok(()) } else { Err(TrainError::config(key, it, text)) }
        };
        let positive =
            |key: &str, it: f64| within(key, it, f64::MIN_POSITIVE..=f64::MAX, "a number above 0");
        let share = |key: &str, it: f64| within(key, it, 0.0..=1.0, "a number from 0 to 1");
        let below_one = |key: &str, it: f32| {
            within(key, it.into(), 0.0..=0.999_999_9, "at least 0 and below 1")
        };
        at_least_one("epochs", self.epochs as usize)?;
        at_least_one("batch", self.batch)?;
        at_least_one("accumulate", self.accumulate)?;
        positive("rate", self.schedule.peak)?;
        within("final rate", self.schedule.last, 0.0..=self.schedule.peak, "0 to the rate")?;
        let all = f64::from(self.epochs);
        within("warm-up", self.schedule.warmup, 0.0..=all, "0 to the number of epochs")?;
        if let Shape::Step { milestones, factor } = &self.schedule.shape {
            positive("factor", *factor)?;
            milestones.iter().try_for_each(|&it| within("milestone", it, 0.0..=all, "an epoch"))?;
        }
        if self.schedule.shape == Shape::OneCycle && self.schedule.warmup > 0.0 {
            let expected = "0 with the schedule `one-cycle`, which has its own";
            return Err(TrainError::config("warm-up", self.schedule.warmup, expected));
        }
        match self.method {
            Method::Sgd { momentum, nesterov } => {
                below_one("momentum", momentum)?;
                if nesterov && momentum <= 0.0 {
                    return Err(TrainError::config(
                        "momentum",
                        momentum,
                        "above 0 with Nesterov's",
                    ));
                }
            }
            Method::AdamW { beta1, beta2, epsilon } => {
                below_one("beta1", beta1)?;
                below_one("beta2", beta2)?;
                positive("epsilon", epsilon.into())?;
            }
        }
        within("weight decay", self.decay.weight.into(), 0.0..=f64::MAX, "at least 0")?;
        self.clip.map_or(Ok(()), |it| positive("clip", it))?;
        share("label smoothing", self.objective.label_smoothing)?;
        if self.objective.loss == Loss::Mse && self.objective.label_smoothing > 0.0 {
            let found = self.objective.label_smoothing;
            return Err(TrainError::config("label smoothing", found, "0 with the loss `mse`"));
        }
        if let Some(it) = &self.objective.distillation {
            positive("temperature", it.temperature)?;
            share("mix", it.mix)?;
        }
        Ok(())
    }

    /// Those of `all` that learn.
    ///
    /// # Errors
    /// A pattern that fits none of them; nothing that is left.
    pub(crate) fn learning(
        &self,
        graph: &Graph,
        all: Vec<ValueId>,
    ) -> Result<Vec<ValueId>, TrainError> {
        let frozen = matching(graph, &all, "freeze", &self.freeze)?;
        let rest: Vec<_> = all.into_iter().filter(|it| !frozen.contains(it)).collect();
        if rest.is_empty() {
            let text = "nothing in the network learns: it holds no weights, or all are frozen";
            return Err(TrainError::Network(text.to_owned()));
        }
        Ok(rest)
    }

    /// The weight decay of each of `ids`.
    ///
    /// # Errors
    /// A pattern that fits none of them.
    pub(crate) fn decays(&self, graph: &Graph, ids: &[ValueId]) -> Result<Vec<f32>, TrainError> {
        let except = matching(graph, ids, "no-decay", &self.decay.except)?;
        let both = ids.iter().zip(roles(graph, ids));
        let of = |(id, role): (&ValueId, crate::role::Role)| {
            let decays = (self.decay.all || role.decays()) && !except.contains(id);
            if decays { self.decay.weight } else { 0.0 }
        };
        Ok(both.map(of).collect())
    }
}

/// The values whose names fit one of the patterns, each of which must fit one.
fn matching(
    graph: &Graph,
    ids: &[ValueId],
    key: &str,
    patterns: &[String],
) -> Result<Vec<ValueId>, TrainError> {
    let mut found = Vec::new();
    for pattern in patterns {
        let before = found.len();
        found.extend(ids.iter().filter(|it| fits(pattern, &graph.value(**it).name)));
        if found.len() == before {
            let names: Vec<_> =
                ids.iter().take(3).map(|it| format!("`{}`", graph.value(*it).name)).collect();
            let expected = format!(
                "the name of a parameter, with `*` for any part of it, as {}",
                names.join(", ")
            );
            return Err(TrainError::config(key, format!("`{pattern}`"), &expected));
        }
    }
    Ok(found)
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(head) else { return false };
    let starts = name.char_indices().map(|it| it.0).chain([name.len()]);
    starts.into_iter().any(|at| fits(rest, &name[at..]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fixture;

    /// A short training of [`fixture::network`].
    pub(crate) fn config() -> Config {
        let objective =
            Objective { loss: Loss::CrossEntropy, label_smoothing: 0.0, distillation: None };
        Config {
            epochs: 3,
            batch: 8,
            accumulate: 1,
            last_batch: LastBatch::Keep,
            method: Method::Sgd { momentum: 0.9, nesterov: false },
            schedule: Schedule { peak: 0.05, shape: Shape::Cosine, warmup: 0.0, last: 0.0 },
            decay: Decay { weight: 1e-4, all: false, except: Vec::new() },
            freeze: Vec::new(),
            batch_norm: BatchNorm::Train,
            objective,
            clip: None,
            crop: 0,
            flip: false,
            keep: Keep::Last,
            seed: 1,
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*.bias", "fc.bias", true),
            ("*.bias", "fc.bias.x", false),
            ("layer1.*.w*", "layer1.0.conv.weight", true),
            ("*", "", true),
            ("ä*", "äöü", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_learns_and_what_decays() {
        let graph = fixture::network();
        let id = |it: &str| graph.find_value(it).unwrap();
        let ids = ["w", "b", "scale", "u"].map(id).to_vec();
        let mut it = config();
        assert_eq!(it.decays(&graph, &ids).unwrap(), [1e-4, 0.0, 0.0, 1e-4]);
        it.decay.except = vec!["u*".to_owned()];
        it.decay.all = true;
        assert_eq!(it.decays(&graph, &ids).unwrap(), [1e-4, 1e-4, 1e-4, 0.0]);
        it.freeze = vec!["s*".to_owned(), "b".to_owned()];
        assert_eq!(it.learning(&graph, ids.clone()).unwrap(), [id("w"), id("u")]);
        it.freeze = vec!["conv*".to_owned()];
        let error = it.learning(&graph, ids.clone()).unwrap_err().to_string();
        assert!(
            error.contains("freeze is `conv*`, expected") && error.contains("`scale`"),
            "{error}"
        );
        it.freeze = vec!["*".to_owned()];
        assert!(
            it.learning(&graph, ids).unwrap_err().to_string().contains("nothing in the network")
        );
    }

    #[test]
    fn numbers_that_cannot_be_meant() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 9] = [
            (|it| it.epochs = 0, "epochs is 0"),
            (|it| it.accumulate = 0, "accumulate is 0"),
            (|it| it.schedule.peak = f64::NAN, "rate is NaN"),
            (|it| it.schedule.warmup = 4.0, "warm-up is 4"),
            (|it| it.method = Method::Sgd { momentum: 1.0, nesterov: false }, "momentum is 1"),
            (|it| it.method = Method::Sgd { momentum: 0.0, nesterov: true }, "momentum is 0"),
            (|it| it.clip = Some(0.0), "clip is 0"),
            (|it| it.objective.label_smoothing = 1.5, "label smoothing is 1.5"),
            (|it| it.decay.weight = -1.0, "weight decay is -1"),
        ];
        assert!(config().check().is_ok());
        for (change, expected) in cases {
            let mut it = config();
            change(&mut it);
            let error = it.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
