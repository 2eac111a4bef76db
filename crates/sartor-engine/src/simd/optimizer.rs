//! Steps of the optimizers, over slices.
#![expect(
    unsafe_code,
    reason = "calls loops that were compiled for instruction sets found at run time"
)]

use rayon::prelude::*;

use super::elementwise::leveled;
use super::{Level, level};

/// Elements of one task.
const TASK: usize = 1 << 14;

/// Stochastic gradient descent with momentum (Sutskever et al. 2013), in the form that deep learning libraries use:
/// g ← g + decay · w, m ← momentum · m + g, w ← w − rate · m, or − rate · (g + momentum · m) if Nesterov's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub rate: f32,
    /// Share of the step before that is kept.
    pub momentum: f32,
    /// Whether the gradient is looked at one step ahead (Nesterov).
    pub nesterov: bool,
    /// Factor of the weights that is added to their gradient.
    pub weight_decay: f32,
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the mean of the gradient.
    pub beta1: f32,
    /// Decay of the mean of its square.
    pub beta2: f32,
    /// What keeps the denominator above zero.
    pub epsilon: f32,
    /// Share of the weights, times the rate, that each step takes away.
    pub weight_decay: f32,
}

leveled! {
    fn sgd_slice(it: Sgd, w: &mut [f32], g: &[f32], m: &mut [f32]) {
        // With Nesterov's momentum the step is g + momentum · m, else m.
        let (of_g, of_m) = if it.nesterov { (1.0, it.momentum) } else { (0.0, 1.0) };
        for ((w, &g), m) in w.iter_mut().zip(g).zip(m) {
            let g = g + it.weight_decay * *w;
            *m = it.momentum * *m + g;
            *w -= it.rate * (of_g * g + of_m * *m);
        }
    }
}

leveled! {
    fn adamw_slice(it: AdamW, scale: (f32, f32), w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            *m = it.beta1 * *m + (1.0 - it.beta1) * g;
            *v = it.beta2 * *v + (1.0 - it.beta2) * g * g;
            let kept = *w - it.rate * it.weight_decay * *w;
            *w = kept - it.rate * (*m * scale.0) / ((*v * scale.1).sqrt() + it.epsilon);
        }
    }
}

/// One step of gradient descent on `w`, given its gradient; `m` is the momentum, zeros at first.
///
/// # Panics
/// If the slices differ in length.
pub fn sgd_step(it: Sgd, w: &mut [f32], g: &[f32], m: &mut [f32]) {
    assert!(g.len() == w.len() && m.len() == w.len(), "weights, gradient and momentum differ");
    w.par_chunks_mut(TASK)
        .zip(g.par_chunks(TASK).zip(m.par_chunks_mut(TASK)))
        .for_each(|(w, (g, m))| sgd_slice(it, w, g, m));
}

/// Step `step` (from 1 on) of `AdamW` on `w`, given its gradient; `m` and `v` are the moments, zeros at first.
///
/// # Panics
/// If the slices differ in length.
pub fn adamw_step(it: AdamW, step: u32, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let same = g.len() == w.len() && m.len() == w.len() && v.len() == w.len();
    assert!(same, "weights, gradient and moments differ");
    let unbiased = |beta: f32| 1.0 / (1.0 - f64::from(beta).powf(f64::from(step.max(1))));
    let scale = (unbiased(it.beta1) as f32, unbiased(it.beta2) as f32);
    w.par_chunks_mut(TASK)
        .zip(g.par_chunks(TASK))
        .zip(m.par_chunks_mut(TASK).zip(v.par_chunks_mut(TASK)))
        .for_each(|((w, g), (m, v))| adamw_slice(it, scale, w, g, m, v));
}
