//! Recipes: what was done to a network, as a file that a person can read, edit and replay.

use std::ops::Range;

use sartor_ir::{Fidelity, Graph};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    CompressError, Equalize, QuantizeStatic, QuantizedNode, RestoreStatistics, Samples,
    equalize::equalize,
    prune::{PruneChannels, Pruned, Removed, prune},
    quantize::quantize,
    reconstruct::{Reconstruct, ReconstructedBlock, reconstruct},
    restore_statistics::restore_statistics,
    simplify::simplify,
};

/// The layout of recipes that this version reads and writes.
pub const RECIPE_VERSION: u32 = 1;

/// Steps in order, for one network. The same recipe, network, data and seed give the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// [`RECIPE_VERSION`].
    pub version: u32,
    /// The chip that it was made for, for the reader; `apply` needs no chip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chip: Option<String>,
    /// Seed of every random choice.
    #[serde(default)]
    pub seed: u64,
    /// What to do, in order.
    #[serde(rename = "step", default)]
    pub steps: Vec<Step>,
}

/// One line of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "technique", rename_all = "kebab-case")]
pub enum Step {
    /// Fold what need not be computed.
    Simplify,
    /// Remove channels.
    PruneChannels(PruneChannels),
    /// Give pruned layers the mean and spread of the original ones.
    RestoreStatistics(RestoreStatistics),
    /// Equalize the ranges of channels between layers.
    Equalize(Equalize),
    /// Quantize weights and activations to few bits.
    QuantizeStatic(QuantizeStatic),
    /// Round the weights of a quantized network anew, block by block.
    Reconstruct(Reconstruct),
}

/// What a technique is, for `--help`, reports and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Technique {
    /// The word in a recipe.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Where it is published.
    pub reference: &'static str,
    /// What it may do to the outputs.
    pub fidelity: Fidelity,
    /// Whether it runs the network on samples.
    pub needs_samples: bool,
}

/// Every technique, in the order in which a recipe usually has them.
pub const TECHNIQUES: &[Technique] = &[
    Technique {
        id: "simplify",
        summary: "folds batch normalization and constants, removes no-ops and dead nodes",
        reference: "Jacob et al. 2018, section 3.2",
        fidelity: Fidelity::Rounding,
        needs_samples: false,
    },
    Technique {
        id: "prune-channels",
        summary: "removes whole channels, group by group, on the chip's grain",
        reference: "Li et al. 2017; Fang et al. 2023 (DepGraph)",
        fidelity: Fidelity::Lossy,
        needs_samples: false,
    },
    Technique {
        id: "restore-statistics",
        summary: "gives pruned layers the means and spreads of the original ones, measured on samples",
        reference: "Li et al. 2020 (EagleEye); Nagel et al. 2019, section 4.2",
        fidelity: Fidelity::Lossy,
        needs_samples: true,
    },
    Technique {
        id: "equalize",
        summary: "gives the channels between two layers equal ranges in both, and moves high biases on",
        reference: "Nagel et al. 2019, sections 4.1 and 4.1.3",
        fidelity: Fidelity::Lossy,
        needs_samples: true,
    },
    Technique {
        id: "quantize-static",
        summary: "stores weights and activations in few bits, with ranges found on samples",
        reference: "Jacob et al. 2018; Nagel et al. 2021",
        fidelity: Fidelity::Lossy,
        needs_samples: true,
    },
    Technique {
        id: "reconstruct",
        summary: "rounds quantized weights anew and fits scales, block by block, to the float network's activations",
        reference: "Nagel et al. 2020 (AdaRound); Li et al. 2021 (BRECQ); Wei et al. 2022 (QDrop)",
        fidelity: Fidelity::Lossy,
        needs_samples: true,
    },
];

/// A recipe file with a fault.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("{message}")]
pub struct RecipeError {
    /// What is wrong and what is expected.
    pub message: String,
    /// Where in the text.
    pub span: Option<Range<usize>>,
}

impl Recipe {
    /// A recipe of these steps.
    pub fn new(chip: Option<String>, seed: u64, steps: Vec<Step>) -> Self {
        Recipe { version: RECIPE_VERSION, chip, seed, steps }
    }

    /// Reads a recipe file.
    ///
    /// # Errors
    /// Text that is no TOML, an unknown technique or key, another version.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let recipe: Recipe = toml::from_str(text).map_err(|it| RecipeError {
            message: it.message().to_owned(),
            span: key_of(text, it.message()).or_else(|| it.span()),
        })?;
        if recipe.version != RECIPE_VERSION {
            let message = format!(
                "recipe version {} is not known, expected {RECIPE_VERSION}",
                recipe.version
            );
            let span = text.find("version").map(|at| at..at + "version".len());
            return Err(RecipeError { message, span });
        }
        Ok(recipe)
    }

    /// The file that [`Recipe::parse`] reads back.
    ///
    /// # Errors
    /// A recipe that TOML cannot hold: a fault of ours.
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        toml::to_string_pretty(self)
            .map_err(|it| RecipeError { message: it.to_string(), span: None })
    }
}

/// Where the unknown key stands that a message names: a step is read twice, and the second reading has lost
/// its places.
fn key_of(text: &str, message: &str) -> Option<Range<usize>> {
    let key = message.strip_prefix("unknown field `")?.split('`').next()?;
    let stands = |it: &str| {
        it.trim_start().strip_prefix(key).is_some_and(|it| it.trim_start().starts_with('='))
    };
    let line = text.lines().find(|it| stands(it))?;
    let start = line.as_ptr() as usize - text.as_ptr() as usize + line.find(key)?;
    Some(start..start + key.len())
}

impl Step {
    /// What the step's technique is.
    pub fn technique(&self) -> &'static Technique {
        let id = match self {
            Step::Simplify => "simplify",
            Step::PruneChannels(_) => "prune-channels",
            Step::RestoreStatistics(_) => "restore-statistics",
            Step::Equalize(_) => "equalize",
            Step::QuantizeStatic(_) => "quantize-static",
            Step::Reconstruct(_) => "reconstruct",
        };
        TECHNIQUES.iter().find(|it| it.id == id).expect("every step has a row in TECHNIQUES")
    }
}

/// What a step left behind.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// Channels that went, by group.
    Pruned(Removed),
    /// What became of each node.
    Quantized(Vec<QuantizedNode>),
    /// What became of each block.
    Reconstructed(Vec<ReconstructedBlock>),
}

/// A network on its way through a recipe. Corrections compare with the network before it was pruned or
/// quantized, so that is kept along the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Workpiece {
    /// The network as it is now.
    pub graph: Graph,
    /// The network before the last pruning, and the pruning.
    before_pruning: Option<Box<(Graph, Pruned)>>,
    /// The network before it was quantized.
    before_quantization: Option<Box<Graph>>,
}

impl Workpiece {
    /// A network before the first step.
    pub fn new(graph: Graph) -> Self {
        Workpiece { graph, before_pruning: None, before_quantization: None }
    }

    /// Applies one step. Samples are only asked for by techniques that need them.
    ///
    /// # Errors
    /// The technique's own; a step that needs samples without them; a correction before any pruning.
    pub fn apply(
        &self,
        step: &Step,
        samples: Option<&dyn Samples>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(Self, Outcome), CompressError> {
        let samples = || {
            let id = step.technique().id;
            samples.ok_or_else(|| {
                CompressError::Samples(format!("the step `{id}` needs samples: give --data"))
            })
        };
        Ok(match step {
            Step::Simplify => (Workpiece::new(simplify(&self.graph)?), Outcome::Done),
            Step::PruneChannels(config) => {
                let pruned = prune(&self.graph, config)?;
                let (graph, removed) = (pruned.graph.clone(), pruned.removed.clone());
                let before_pruning = Some(Box::new((self.graph.clone(), pruned)));
                (
                    Workpiece { graph, before_pruning, before_quantization: None },
                    Outcome::Pruned(removed),
                )
            }
            Step::RestoreStatistics(config) => {
                let Some(before) = &self.before_pruning else {
                    return Err(CompressError::Config {
                        key: "technique".to_owned(),
                        found: "`restore-statistics` without a pruning before it".to_owned(),
                        expected: "`prune-channels` before it".to_owned(),
                    });
                };
                let (reference, pruned) = before.as_ref();
                let kept = &pruned.kept;
                let restored =
                    restore_statistics(&self.graph, reference, kept, config, samples()?, progress)?;
                (
                    Workpiece {
                        graph: restored.graph,
                        before_pruning: self.before_pruning.clone(),
                        before_quantization: None,
                    },
                    Outcome::Done,
                )
            }
            Step::Equalize(config) => {
                let graph = equalize(&self.graph, config, samples()?)?;
                (Workpiece::new(graph), Outcome::Done)
            }
            Step::QuantizeStatic(config) => {
                let quantized = quantize(&self.graph, config, samples()?, progress)?;
                (
                    Workpiece {
                        graph: quantized.graph,
                        before_pruning: None,
                        before_quantization: Some(Box::new(self.graph.clone())),
                    },
                    Outcome::Quantized(quantized.nodes),
                )
            }
            Step::Reconstruct(config) => self.reconstructed(config, samples()?, progress)?,
        })
    }

    fn reconstructed(
        &self,
        config: &Reconstruct,
        samples: &dyn Samples,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(Self, Outcome), CompressError> {
        let Some(float) = &self.before_quantization else {
            return Err(CompressError::Config {
                key: "technique".to_owned(),
                found: "`reconstruct` without a quantization before it".to_owned(),
                expected: "`quantize-static` before it".to_owned(),
            });
        };
        let done = reconstruct(float, &self.graph, config, samples, progress)?;
        Ok((Workpiece { graph: done.graph, ..self.clone() }, Outcome::Reconstructed(done.blocks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"version = 1
chip = "arm-ethos-u55-128"
seed = 7

[[step]]
technique = "simplify"

[[step]]
technique = "prune-channels"
criterion = "l2"
grain = 8

[step.keep.widths]
conv1 = 8

[[step]]
technique = "quantize-static"
ranges = "mse"
"#;

    #[test]
    fn a_recipe_reads_back() {
        let recipe = Recipe::parse(TEXT).unwrap();
        assert_eq!(recipe.steps.len(), 3);
        assert_eq!(Recipe::parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
    }

    #[test]
    fn faults_are_named() {
        for (from, to, expected) in [
            ("simplify", "simplyfy", "unknown variant `simplyfy`"),
            ("grain", "grian", "unknown field `grian`"),
            ("version = 1", "version = 9", "recipe version 9 is not known"),
            ("seed = 7", "seed = -1", "invalid value"),
        ] {
            let error = Recipe::parse(&TEXT.replace(from, to)).unwrap_err();
            assert!(error.message.contains(expected), "{to}: {error}");
            let span = error.span.expect("every fault has a place");
            let shown = &TEXT.replace(from, to)[span];
            assert!(to.contains(shown.trim_matches('"')), "{to}: `{shown}`");
        }
    }

    #[test]
    fn steps_need_what_they_need() {
        let graph = Graph::new("g");
        let quantize = Step::QuantizeStatic(QuantizeStatic::default());
        let error = Workpiece::new(graph).apply(&quantize, None, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("give --data"), "{error}");
    }
}
