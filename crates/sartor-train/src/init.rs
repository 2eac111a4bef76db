//! Random initial parameters.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sartor_engine::train::{Parameters, trainable};
use sartor_ir::Graph;

use crate::{
    TrainError,
    role::{Role, roles},
};

/// Spread of embeddings and tables of positions (Devlin et al. 2019, as published code has it).
const EMBEDDING: f32 = 0.02;

/// The slope of `PRelu` (He et al. 2015, section 2.1).
const SLOPE: f32 = 0.25;

/// Gives every parameter of `graph` a new value. Convolutions: normal, variance 2 / fan-out (He et al. 2015,
/// equation 14); matrices: uniform, variance 2 / fan-in before a rectifier (equation 10) and 1 / fan-in
/// elsewhere; recurrent layers: uniform within 1 / sqrt(hidden); embeddings: normal; biases 0, factors 1,
/// running means 0 and variances 1. A tensor's numbers follow from the seed and its place among the
/// parameters alone.
///
/// # Errors
/// [`TrainError::Network`] where nothing learns.
pub fn initialize(graph: &mut Graph, seed: u64) -> Result<(), TrainError> {
    let ids = trainable(graph);
    if ids.is_empty() {
        return Err(TrainError::Network(
            "nothing in the network learns: it holds no weights".to_owned(),
        ));
    }
    let roles = roles(graph, &ids);
    let mut parameters = Parameters::from_graph(graph, &ids)?;
    for (i, role) in roles.into_iter().enumerate() {
        let mut numbers = Numbers::new(seed, i as u64);
        let next: &mut dyn FnMut() -> f32 = match role {
            Role::Filter { fan_out } => {
                let spread = (2.0 / fan_out.max(1) as f32).sqrt();
                &mut move || spread * numbers.normal()
            }
            Role::Matrix { fan_in, rectified } => {
                let variance = if rectified { 2.0 } else { 1.0 } / fan_in.max(1) as f32;
                &mut move || (3.0 * variance).sqrt() * numbers.uniform()
            }
            Role::Recurrent { hidden } => {
                let bound = 1.0 / (hidden.max(1) as f32).sqrt();
                &mut move || bound * numbers.uniform()
            }
            Role::Embedding | Role::Offset => &mut move || EMBEDDING * numbers.normal(),
            Role::Bias => &mut || 0.0,
            Role::Scale => &mut || 1.0,
            Role::Slope => &mut || SLOPE,
        };
        parameters.get_mut(i).fill_with(next);
    }
    let normal = normal_statistics(graph, &parameters);
    for (i, value) in normal.into_iter().enumerate() {
        parameters.statistic_mut(i).fill(value);
    }
    parameters.store(graph);
    Ok(())
}

/// 0 for each running mean and 1 for each running variance.
fn normal_statistics(graph: &Graph, parameters: &Parameters) -> Vec<f32> {
    let is_variance = |id| graph.nodes().any(|(_, node)| node.input(4) == Some(id));
    let of = |&id| if is_variance(id) { 1.0 } else { 0.0 };
    parameters.statistic_ids().iter().map(of).collect()
}

/// Random numbers of one tensor.
struct Numbers(ChaCha8Rng);

impl Numbers {
    fn new(seed: u64, stream: u64) -> Self {
        let mut numbers = ChaCha8Rng::seed_from_u64(seed);
        numbers.set_stream(stream);
        Numbers(numbers)
    }

    /// Above 0 and below 1, in steps of 2⁻³².
    fn open(&mut self) -> f64 {
        (f64::from(self.0.next_u32()) + 0.5) / 2f64.powi(32)
    }

    /// Between -1 and 1.
    fn uniform(&mut self) -> f32 {
        (2.0 * self.open() - 1.0) as f32
    }

    /// Mean 0, variance 1 (Box and Muller 1958, of whose two numbers one is used).
    fn normal(&mut self) -> f32 {
        let (radius, angle) =
            ((-2.0 * self.open().ln()).sqrt(), std::f64::consts::TAU * self.open());
        (radius * angle.cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn floats(graph: &Graph, name: &str) -> Vec<f32> {
        graph.constant(graph.find_value(name).unwrap()).unwrap().to_f32().unwrap()
    }

    #[test]
    fn spreads_follow_the_fans() {
        let drawn = |seed| {
            let mut graph = fixture::network();
            initialize(&mut graph, seed).unwrap();
            graph
        };
        let many: Vec<Graph> = (0..30).map(drawn).collect();
        // 8 outputs and 9 taps; a rectifier after 8 inputs; none after 64.
        for (name, variance) in [("w", 2.0 / 72.0), ("v", 2.0 / 8.0), ("u", 1.0 / 64.0)] {
            let values: Vec<f32> = many.iter().flat_map(|it| floats(it, name)).collect();
            let n = values.len() as f32;
            let mean = values.iter().sum::<f32>() / n;
            let found = values.iter().map(|it| it * it).sum::<f32>() / n - mean * mean;
            assert!((found / variance - 1.0).abs() < 0.1, "{name}: {found} instead of {variance}");
            assert!(mean.abs() < 0.1 * variance.sqrt(), "{name}: mean {mean}");
        }
        let graph = &many[0];
        let fixed = [("scale", 1.0), ("shift", 0.0), ("mean", 0.0), ("variance", 1.0), ("c", 0.0)];
        for (name, value) in fixed {
            assert!(
                floats(graph, name).iter().all(|it| it.to_bits() == f32::to_bits(value)),
                "{name}"
            );
        }
        assert_eq!(floats(&drawn(0), "w"), floats(graph, "w"));
        assert_ne!(floats(&drawn(1), "w"), floats(graph, "w"));
    }
}
