//! What is minimized: losses of one sample, with their gradients.

use serde::{Deserialize, Serialize};

/// What is minimized.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// How the network's answer is compared with the label or the teacher's answer.
    pub loss: Loss,
    /// Share of the label's probability that all classes divide among them (Szegedy et al. 2016, section 7).
    pub label_smoothing: f64,
    /// What a teacher teaches; `None` without teacher.
    pub distillation: Option<Distillation>,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Cross-entropy of the classes' probabilities.
    CrossEntropy,
    /// Mean squared error, against the teacher's outputs, the samples' targets, or 1 for the label and 0 for
    /// all other classes.
    Mse,
}

/// Learning from a teacher's probabilities (Hinton et al. 2015, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// By which scores are divided before the softmax.
    pub temperature: f64,
    /// Share of the teacher in the loss; the labels have the rest.
    pub mix: f64,
}

/// The loss of one sample in nats (or squared units), and its derivative by each score.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    pub(crate) loss: f64,
    pub(crate) gradient: Vec<f64>,
}

impl Scored {
    fn zero(len: usize) -> Self {
        Scored { loss: 0.0, gradient: vec![0.0; len] }
    }

    fn add(&mut self, share: f64, other: &Scored) {
        self.loss += share * other.loss;
        let both = self.gradient.iter_mut().zip(&other.gradient);
        both.for_each(|(sum, it)| *sum += share * it);
    }
}

impl Objective {
    /// Whether samples need labels.
    pub(crate) fn needs_labels(&self) -> bool {
        match (self.loss, &self.distillation) {
            (Loss::CrossEntropy, Some(it)) => it.mix < 1.0,
            (Loss::Mse, Some(_)) => false,
            (_, None) => true,
        }
    }

    /// The loss of a sample: `scores` by class, before any softmax, its label and the teacher's scores where
    /// they are needed.
    pub(crate) fn of(
        &self,
        scores: &[f32],
        label: Option<usize>,
        teacher: Option<&[f32]>,
    ) -> Scored {
        let mut total = Scored::zero(scores.len());
        match (self.loss, &self.distillation, teacher) {
            (Loss::Mse, _, Some(teacher)) => {
                return squared_error(scores, |i| f64::from(teacher[i]));
            }
            (Loss::Mse, ..) => {
                return squared_error(scores, |i| f64::from(u8::from(Some(i) == label)));
            }
            (Loss::CrossEntropy, Some(it), Some(teacher)) => {
                total.add(it.mix, &divergence(scores, teacher, it.temperature));
                if let Some(label) = label.filter(|_| it.mix < 1.0) {
                    total.add(1.0 - it.mix, &cross_entropy(scores, label, self.label_smoothing));
                }
            }
            (Loss::CrossEntropy, ..) => {
                if let Some(label) = label {
                    total.add(1.0, &cross_entropy(scores, label, self.label_smoothing));
                }
            }
        }
        total
    }
}

/// `- sum q ln softmax(z)` with `q = (1 - smoothing) [i = label] + smoothing / classes`; the derivative is
/// `softmax(z) - q`.
fn cross_entropy(z: &[f32], label: usize, smoothing: f64) -> Scored {
    let logs = log_softmax(z, 1.0);
    let rest = smoothing / z.len() as f64;
    let q = |i: usize| if i == label { 1.0 - smoothing + rest } else { rest };
    let mut it = Scored::zero(z.len());
    for (i, log) in logs.iter().enumerate() {
        if q(i) > 0.0 {
            it.loss -= q(i) * log;
        }
        it.gradient[i] = log.exp() - q(i);
    }
    it
}

/// `T² KL(softmax(t / T) ‖ softmax(z / T))`: the factor keeps its gradient as large as that of the labels at
/// any temperature; the derivative is `T (softmax(z / T) - softmax(t / T))`.
fn divergence(z: &[f32], t: &[f32], temperature: f64) -> Scored {
    let (own, other) = (log_softmax(z, temperature), log_softmax(t, temperature));
    let mut it = Scored::zero(z.len());
    for (i, (own, other)) in own.iter().zip(&other).enumerate() {
        let p = other.exp();
        if p > 0.0 {
            it.loss += temperature * temperature * p * (other - own);
        }
        it.gradient[i] = temperature * (own.exp() - p);
    }
    it
}

/// `mean (z - target)²` over the elements of a sample.
fn squared_error(z: &[f32], target: impl Fn(usize) -> f64) -> Scored {
    let n = z.len().max(1) as f64;
    let mut it = Scored::zero(z.len());
    for (i, &z) in z.iter().enumerate() {
        let difference = f64::from(z) - target(i);
        it.loss += difference * difference / n;
        it.gradient[i] = 2.0 * difference / n;
    }
    it
}

fn log_softmax(z: &[f32], temperature: f64) -> Vec<f64> {
    let scaled = |it: &f32| f64::from(*it) / temperature;
    let top = z.iter().map(scaled).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|it| (scaled(it) - top).exp()).sum();
    z.iter().map(|it| scaled(it) - top - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const Z: [f32; 4] = [0.5, -1.25, 2.0, 0.125];
    const T: [f32; 4] = [1.5, 0.25, -0.5, 3.0];

    fn objectives() -> Vec<Objective> {
        let plain =
            Objective { loss: Loss::CrossEntropy, label_smoothing: 0.0, distillation: None };
        let taught = Some(Distillation { temperature: 4.0, mix: 0.7 });
        vec![
            plain,
            Objective { label_smoothing: 0.1, ..plain },
            Objective { distillation: taught, ..plain },
            Objective { loss: Loss::Mse, ..plain },
            Objective { loss: Loss::Mse, distillation: taught, ..plain },
        ]
    }

    fn of(it: &Objective, z: &[f32]) -> Scored {
        it.of(z, Some(1), it.distillation.map(|_| T.as_slice()))
    }

    /// `PyTorch` 2.15 in float64: `cross_entropy(z, 1)`, the same with `label_smoothing=0.1`,
    /// `0.7 * 16 * kl_div(log_softmax(z / 4), softmax(t / 4), "batchmean") + 0.3 * cross_entropy`,
    /// `mse_loss` with the one-hot label and with the teacher.
    #[test]
    fn as_pytorch_computes() {
        for (it, expected) in objectives().iter().zip(EXPECTED) {
            let found = of(it, &Z).loss;
            assert!((found - expected).abs() < 1e-9, "{it:?}: {found} instead of {expected}");
        }
    }

    const EXPECTED: [f64; 5] = [
        3.597_312_789_797_06,
        3.437_937_789_797_06,
        2.421_912_073_337_99,
        2.332_031_25,
        4.441_406_25,
    ];

    #[test]
    fn gradients_are_central_differences() {
        for it in objectives() {
            let found = of(&it, &Z).gradient;
            for i in 0..Z.len() {
                let at = |step: f32| {
                    let mut z = Z;
                    z[i] += step;
                    of(&it, &z).loss
                };
                // The steps are powers of two, so that they are exact.
                let h = 1.0 / 1024.0;
                let expected = (at(h) - at(-h)) / (2.0 * f64::from(h));
                assert!((found[i] - expected).abs() < 1e-6, "{it:?}: {} {expected}", found[i]);
            }
        }
    }

    #[test]
    fn scores_of_any_size_stay_finite() {
        let it = cross_entropy(&[1e30, -1e30, 0.0], 1, 0.1);
        assert!(it.loss.is_finite() && it.gradient.iter().all(|it| it.is_finite()), "{it:?}");
        assert!(divergence(&[3e38, -3e38], &[-3e38, 3e38], 1.0).loss.is_finite());
    }

    #[test]
    fn only_the_teacher_is_asked_where_the_labels_have_no_share() {
        let alone = Objective {
            distillation: Some(Distillation { temperature: 2.0, mix: 1.0 }),
            ..objectives()[0]
        };
        assert!(!alone.needs_labels() && objectives()[0].needs_labels());
        assert!(alone.of(&T, None, Some(&T)).loss.abs() < 1e-12);
    }
}
