//! Reconstruction after quantization: the weights of a quantized network are rounded anew, block by block, so that
//! each block's output comes close to that of the float network. No labels, and no training of the network as a whole.
//!
//! What is minimized for a block is `Σ w (y - ŷ)²` between its float output `y` and its quantized output `ŷ`
//! (Li et al. 2021, `BRECQ`, equation 10), over
//!
//! - which neighbour each weight is rounded to: `q = clamp(⌊W / s⌋ + h(V))` with the rectified sigmoid
//!   `h(V) = clamp(1.2 σ(V) - 0.1, 0, 1)`, pushed to 0 or 1 by `λ Σ (1 - |2 h - 1|^β)` whose `β` falls (Nagel et al. 2020,
//!   `AdaRound`, equations 21 to 25),
//! - the scales of activations, by the gradient of the learned step size (Esser et al. 2020, `LSQ`, equation 3),
//! - the biases.
//!
//! A share of the activations, chosen anew in each step, stays unrounded meanwhile (Wei et al. 2022, `QDrop`,
//! equation 8). The scales of the weights are chosen before, by the mean squared error of the weights (Nagel et al. 2021,
//! section 3.1), and fitted afterwards to the outputs by least squares. Deviations from the papers: the error is divided
//! by that of rounding to nearest, so that the strength of the push means the same for every block; scales move by
//! their logarithm, so that one rate suits all; biases learn too; the weights `w` are means over the samples, so that
//! their memory does not grow with the set.

mod cache;
mod fisher;
mod fit;
mod layers;
mod optimize;
mod piece;
mod rounding;
mod segments;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{Graph, infer, verify};
use serde::{Deserialize, Serialize};

use crate::{CompressError, Samples, quantize::lower};
use cache::Cache;
use layers::Layers;
use optimize::Reconstruction;

/// A recipe step: round the weights of a quantized network anew, block by block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Reconstruct {
    /// How much is reconstructed at once.
    pub granularity: Granularity,
    /// Steps of the optimizer for each unit.
    pub iterations: usize,
    /// Samples of a step.
    pub batch: usize,
    /// The first so many samples are learnt from.
    pub samples: usize,
    /// Bytes, in MiB, that the stored activations may take; where they would take more, fewer samples are used.
    pub memory_mib: usize,
    /// Rate of the rounding variables `V`.
    pub rate: f32,
    /// Rate of the logarithms of activation scales; 0 keeps the scales.
    pub scale_rate: f32,
    /// Rate of the biases, in units of the root mean square of a layer's biases; 0 keeps them.
    pub bias_rate: f32,
    /// Share of the activations that stay unrounded in a step.
    pub unrounded: f32,
    /// Strength of the push to 0 or 1, in units of the error of rounding to nearest.
    pub push: f32,
    /// Share of the steps before the push begins.
    pub warmup: f32,
    /// Whether elements of an output count by how much the network's outputs depend on them.
    pub fisher: bool,
    /// Whether weight scales are chosen anew by their squared error before, and fitted to the outputs afterwards.
    pub fit_scales: bool,
    /// Of every random choice.
    pub seed: u64,
}

/// How much is reconstructed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// A block: what lies between two values through which everything flows. A residual block is one.
    #[default]
    Block,
    /// A layer, as in `AdaRound`.
    Layer,
}

impl Default for Reconstruct {
    fn default() -> Self {
        Reconstruct {
            granularity: Granularity::Block,
            iterations: 600,
            batch: 32,
            samples: 512,
            memory_mib: 1024,
            rate: 0.01,
            scale_rate: 0.001,
            bias_rate: 0.001,
            unrounded: 0.5,
            push: 10.0,
            warmup: 0.2,
            fisher: true,
            fit_scales: true,
            seed: 0,
        }
    }
}

/// A reconstructed graph and what was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstructed {
    /// The graph: integers, scales and biases are new, the structure is that of the quantized one.
    pub graph: Graph,
    /// The blocks, in order.
    pub blocks: Vec<ReconstructedBlock>,
    /// Samples that were learnt from.
    pub samples: usize,
}

/// What became of one block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReconstructedBlock {
    /// Nodes whose weights were rounded anew.
    pub layers: Vec<String>,
    /// `Σ (y - ŷ)² / Σ y²` of the block's outputs, given what the blocks before make of the samples, with weights
    /// rounded to nearest.
    pub error_before: f64,
    /// The same after reconstruction.
    pub error_after: f64,
}

/// Reconstructs `quantized`, which [`crate::quantize()`] made of `float`, on `samples`. `progress` gets the optimizer's
/// steps done and their number.
///
/// # Errors
/// A configuration that cannot be meant; networks that do not belong together; samples that do not fit; as for running
/// and training the network; [`CompressError::Interrupted`] where [`Samples::interrupted`] says so.
pub fn reconstruct(
    float: &Graph,
    quantized: &Graph,
    config: &Reconstruct,
    samples: &dyn Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Reconstructed, CompressError> {
    check(config)?;
    let mut float = float.clone();
    infer(&mut float)?;
    let float = lower(&float)?;
    let mut graph = quantized.clone();
    infer(&mut graph)?;
    let mut layers = Layers::find(&float, &graph)?;
    if layers.is_empty() {
        return Err(CompressError::Config {
            key: "technique".to_owned(),
            found: "`reconstruct` of a network without quantized weights".to_owned(),
            expected: "`quantize-static` before it".to_owned(),
        });
    }
    // Whoever applies scales by shifts wants them to stay powers of two.
    let config = &if layers.are_powers_of_two() {
        Reconstruct { fit_scales: false, scale_rate: 0.0, ..config.clone() }
    } else {
        config.clone()
    };
    if config.fit_scales {
        layers.choose_scales();
    }
    let segments = segments::cut(&graph, &layers, config.granularity);
    let (mut cache, batch) = Cache::new(&graph, &segments, samples, config)?;
    let weights = if config.fisher {
        fisher::weights(&graph, &layers, &segments, &cache, (config, batch))?
    } else {
        BTreeMap::new()
    };
    let total = segments.len() * config.iterations;
    let mut frozen = BTreeSet::new();
    let mut blocks = Vec::new();
    progress(0, total);
    for (at, segment) in segments.iter().enumerate() {
        let mut advance = |done: usize| {
            progress(at * config.iterations + done, total);
            if samples.interrupted() { Err(CompressError::Interrupted) } else { Ok(()) }
        };
        let it = Reconstruction {
            graph: &graph,
            segment,
            config,
            batch,
            weights: &weights,
            stream: at as u64,
        };
        blocks.push(it.run(&mut layers, &mut cache, &mut frozen, &mut advance)?);
    }
    layers.store(&mut graph)?;
    verify(&graph)?;
    Ok(Reconstructed { graph, blocks, samples: cache.len() })
}

/// Refuses a configuration that cannot be meant.
fn check(config: &Reconstruct) -> Result<(), CompressError> {
    let whole = [
        ("iterations", config.iterations),
        ("batch", config.batch),
        ("samples", config.samples),
        ("memory-mib", config.memory_mib),
    ];
    for (key, found) in whole {
        if found == 0 {
            return Err(refusal(key, "0", "1 or more"));
        }
    }
    let rates = [
        ("rate", config.rate),
        ("scale-rate", config.scale_rate),
        ("bias-rate", config.bias_rate),
        ("push", config.push),
    ];
    for (key, found) in rates {
        if !(found >= 0.0 && found.is_finite()) {
            return Err(refusal(key, &found.to_string(), "0 or more"));
        }
    }
    for (key, found) in [("unrounded", config.unrounded), ("warmup", config.warmup)] {
        if !(0.0..=1.0).contains(&found) {
            return Err(refusal(key, &found.to_string(), "0 to 1"));
        }
    }
    Ok(())
}

fn refusal(key: &str, found: &str, expected: &str) -> CompressError {
    CompressError::Config {
        key: key.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}
