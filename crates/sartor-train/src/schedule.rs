//! How the learning rate goes over a training.

use serde::{Deserialize, Serialize};

/// A learning rate that changes from iteration to iteration; an iteration is one step of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// How it falls.
    pub shape: Shape,
    /// Epochs over which it rises first, in equal steps (Goyal et al. 2017, section 2.2).
    pub warmup: f64,
    /// Where [`Shape::Cosine`] ends.
    pub last: f64,
}

/// How a rate falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Not at all.
    Constant,
    /// By `factor` at each of the milestones, in epochs from the beginning.
    Step {
        /// When, in epochs.
        milestones: Vec<f64>,
        /// By how much.
        factor: f64,
    },
    /// Along half a period of the cosine (Loshchilov and Hutter 2017, equation 5, without restarts).
    Cosine,
    /// Up to the peak over the first [`RISE`] of the training and down to almost nothing (Smith and Topin
    /// 2018), both along the cosine; momentum stays as it is.
    OneCycle,
}

/// Share of the iterations over which [`Shape::OneCycle`] rises.
pub const RISE: f64 = 0.3;

/// What [`Shape::OneCycle`] begins with: the peak divided by this; and what that is divided by to the end.
const BEGIN: f64 = 25.0;
const END: f64 = 1e4;

/// How long a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Iterations in all.
    pub iterations: u64,
    /// Iterations of one epoch.
    pub per_epoch: u64,
}

impl Schedule {
    /// The rate of an iteration, counted from 0.
    pub fn rate(&self, iteration: u64, length: Length) -> f64 {
        let epochs = |it: f64| (it * length.per_epoch as f64).round();
        let (at, warmup) = (iteration as f64, epochs(self.warmup));
        if at < warmup {
            return self.peak * (at + 1.0) / warmup;
        }
        let total = length.iterations as f64;
        match &self.shape {
            Shape::Constant => self.peak,
            Shape::Step { milestones, factor } => {
                let passed = milestones.iter().filter(|it| at >= epochs(**it)).count();
                self.peak * factor.powi(passed as i32)
            }
            Shape::Cosine => {
                along_cosine(self.peak, self.last, (at - warmup) / (total - warmup).max(1.0))
            }
            Shape::OneCycle => self.one_cycle(at, total),
        }
    }

    fn one_cycle(&self, at: f64, total: f64) -> f64 {
        let begin = self.peak / BEGIN;
        let (top, end) = ((RISE * total - 1.0).max(0.0), total - 1.0);
        if at <= top && top > 0.0 {
            return along_cosine(begin, self.peak, at / top);
        }
        along_cosine(self.peak, begin / END, (at - top) / (end - top).max(1.0))
    }
}

/// From `from` to `to` along half a period of the cosine; `share` is how far.
fn along_cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Length = Length { iterations: 20, per_epoch: 5 };

    fn rates(shape: Shape, warmup: f64, at: &[u64]) -> Vec<f64> {
        let schedule = Schedule { peak: 0.1, shape, warmup, last: 0.0 };
        at.iter().map(|&it| schedule.rate(it, LENGTH)).collect()
    }

    fn check(found: &[f64], expected: &[f64]) {
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs()));
        assert!(found.len() == expected.len() && close, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn constant_and_warm_up() {
        check(&rates(Shape::Constant, 0.0, &[0, 19]), &[0.1, 0.1]);
        check(&rates(Shape::Constant, 1.0, &[0, 1, 4, 5]), &[0.02, 0.04, 0.1, 0.1]);
    }

    #[test]
    fn steps_at_milestones() {
        let shape = Shape::Step { milestones: vec![1.0, 2.4], factor: 0.1 };
        check(&rates(shape, 0.0, &[4, 5, 11, 12, 19]), &[0.1, 0.01, 0.01, 0.001, 0.001]);
    }

    /// `PyTorch` 2.15: `CosineAnnealingLR(SGD(lr=0.1), T_max=20)`, `OneCycleLR(max_lr=0.1, total_steps=20)`.
    #[test]
    fn as_pytorch_anneals() {
        check(
            &rates(Shape::Cosine, 0.0, &[0, 1, 7, 10, 19]),
            &[0.1, 0.099_384_417_029_757, 0.072_699_524_986_977, 0.05, 0.000_615_582_970_243],
        );
        check(&rates(Shape::OneCycle, 0.0, &[0, 1, 4, 5, 6, 12, 19]), &ONE_CYCLE);
    }

    const ONE_CYCLE: [f64; 7] = [
        0.004,
        0.013_167_184_270_002_5,
        0.090_832_815_729_997_5,
        0.1,
        0.098_746_400_623_508_7,
        0.050_000_2,
        4e-7,
    ];

    #[test]
    fn the_cosine_follows_the_warm_up_and_ends_where_it_shall() {
        let schedule = Schedule { peak: 1.0, shape: Shape::Cosine, warmup: 1.0, last: 0.2 };
        let found: Vec<_> = [4, 5, 20].iter().map(|&it| schedule.rate(it, LENGTH)).collect();
        check(&found, &[1.0, 1.0, 0.2]);
    }
}
