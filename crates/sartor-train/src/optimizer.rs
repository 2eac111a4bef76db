//! The optimizers: their state, and one step of all parameters.

use sartor_engine::{
    AdamW, Sgd, adamw_step, sgd_step,
    train::{Gradients, Parameters},
};
use serde::{Deserialize, Serialize};

/// An optimizer with its constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Stochastic gradient descent with momentum (Sutskever et al. 2013, in the form of [`Sgd`]).
    Sgd {
        /// Share of the step before that is kept.
        momentum: f32,
        /// Whether the gradient is looked at one step ahead.
        nesterov: bool,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the mean of the gradient.
        beta1: f32,
        /// Decay of the mean of its square.
        beta2: f32,
        /// What keeps the denominator above zero.
        epsilon: f32,
    },
}

/// Moments of every parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Optimizer {
    method: Method,
    /// Weight decay of each parameter.
    decay: Vec<f32>,
    /// Momentum, or the mean of the gradient.
    pub(crate) first: Vec<Vec<f32>>,
    /// The mean of its square; empty for methods without.
    pub(crate) second: Vec<Vec<f32>>,
}

impl Optimizer {
    /// At rest; `decay` has one factor for each parameter.
    pub(crate) fn new(method: Method, decay: Vec<f32>, parameters: &Parameters) -> Self {
        let zeros = || (0..parameters.len()).map(|i| vec![0.0; parameters.get(i).len()]).collect();
        let second = match method {
            Method::Sgd { .. } => Vec::new(),
            Method::AdamW { .. } => zeros(),
        };
        Optimizer { method, decay, first: zeros(), second }
    }

    /// Step `step`, counted from 1.
    pub(crate) fn step(
        &mut self,
        step: u64,
        rate: f64,
        parameters: &mut Parameters,
        gradients: &Gradients,
    ) {
        let rate = rate as f32;
        for (i, first) in self.first.iter_mut().enumerate() {
            let (weights, gradient) = (parameters.get_mut(i), gradients.get(i));
            let weight_decay = self.decay[i];
            match self.method {
                Method::Sgd { momentum, nesterov } => {
                    let it = Sgd { rate, momentum, nesterov, weight_decay };
                    sgd_step(it, weights, gradient, first);
                }
                Method::AdamW { beta1, beta2, epsilon } => {
                    let it = AdamW { rate, beta1, beta2, epsilon, weight_decay };
                    let step = u32::try_from(step).unwrap_or(u32::MAX);
                    adamw_step(it, step, weights, gradient, first, &mut self.second[i]);
                }
            }
        }
    }
}

/// The Euclidean norm of all gradients together; above `limit` they are scaled down to it (Pascanu et al.
/// 2013, algorithm 1).
pub(crate) fn clip(gradients: &mut Gradients, limit: Option<f64>) -> f64 {
    let square = |it: &f32| f64::from(*it) * f64::from(*it);
    let sum = |i: usize| gradients.get(i).iter().map(square).sum::<f64>();
    let norm = (0..gradients.len()).map(sum).sum::<f64>().sqrt();
    if let Some(limit) = limit
        && norm > limit
    {
        let factor = (limit / norm) as f32;
        for i in 0..gradients.len() {
            gradients.get_mut(i).iter_mut().for_each(|it| *it *= factor);
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use sartor_ir::{Graph, Tensor};

    use super::*;

    /// Four steps from `[1, -2, 0.5]` with the gradients `[k / 2, k - 2, w₂ / 4]` of step `k`.
    fn walk(method: Method) -> Vec<f32> {
        let mut graph = Graph::new("w");
        let w = graph.add_constant("w", Tensor::from_f32(&[3], &[1.0, -2.0, 0.5])).unwrap();
        let mut parameters = Parameters::from_graph(&graph, &[w]).unwrap();
        let mut gradients = Gradients::new(&parameters);
        let mut optimizer = Optimizer::new(method, vec![0.01], &parameters);
        for step in 1..=4 {
            let k = step as f32;
            let g = [0.5 * k, k - 2.0, 0.25 * parameters.get(0)[2]];
            gradients.get_mut(0).copy_from_slice(&g);
            optimizer.step(step, 0.1, &mut parameters, &gradients);
        }
        parameters.get(0).to_vec()
    }

    /// `PyTorch` 2.15: `SGD` and `AdamW` with `lr=0.1`, `weight_decay=0.01`.
    #[test]
    fn as_pytorch_steps() {
        let sgd = |nesterov| Method::Sgd { momentum: 0.9, nesterov };
        let adam = Method::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };
        let cases: [(Method, [f32; 3]); 3] = [
            (sgd(false), [0.063_996_01, -2.028_832, 0.386_978_9]),
            (sgd(true), [-0.344_675, -2.218_947_6, 0.353_411_76]),
            (adam, [0.608_972_1, -1.885_195_3, 0.111_174_05]),
        ];
        for (method, expected) in cases {
            let found = walk(method);
            let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 2e-6);
            assert!(close, "{method:?}: {found:?} instead of {expected:?}");
        }
    }

    #[test]
    fn the_norm_is_limited_over_all_parameters() {
        let mut graph = Graph::new("w");
        let one = Tensor::from_f32(&[1], &[0.0]);
        let ids = ["a", "b"].map(|it| graph.add_constant(it, one.clone()).unwrap());
        let parameters = Parameters::from_graph(&graph, &ids).unwrap();
        let mut gradients = Gradients::new(&parameters);
        for (limit, expected) in
            [(None, [3.0, -4.0]), (Some(6.0), [3.0, -4.0]), (Some(2.5), [1.5, -2.0])]
        {
            gradients.get_mut(0)[0] = 3.0;
            gradients.get_mut(1)[0] = -4.0;
            assert!((clip(&mut gradients, limit) - 5.0).abs() < 1e-12);
            let found = [gradients.get(0)[0], gradients.get(1)[0]];
            assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits));
        }
    }
}
