//! One run: everything that a command shares.

use std::path::Path;

use sartor_chip::Chip;
use sartor_compress::{
    Equalize, Outcome, QuantizeStatic, Quantized, Recipe, Reconstruct, ReconstructedBlock,
    RestoreStatistics, Step, Workpiece, equalize, measure_sqnr,
    prune::{Criterion, Keep, PruneChannels, Removed, groups, importance},
    quantize, reconstruct,
};
use sartor_cost::{CostError, Options, Precision, estimate};
use sartor_data::DataSpec;
use sartor_engine::Array;
use sartor_ir::Graph;
use sartor_plan::widths_for_share;
use sartor_report::Analysis;

use crate::{
    Error, Evaluation, Interrupt, Model, Predictions, Progress, analysis::analysis,
    evaluate::Runner, file::read_text, samples::BoundSamples,
};

/// What the commands have in common.
pub struct Session<'a> {
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// How the user stops the run.
    pub interrupt: Interrupt,
    /// Seed of every random choice.
    pub seed: u64,
}

/// Samples on which the noise of each quantized node is measured: thousands of elements of each.
const SQNR_SAMPLES: usize = 8;

/// What pruning is asked for.
#[derive(Clone, Debug)]
pub struct PruneRequest {
    /// What the share is a share of.
    pub unit: Unit,
    /// Share of it that stays, above 0 and at most 1.
    pub share: f64,
    /// Channels go in multiples of this.
    pub grain: usize,
    /// The chip whose array counts the slots; a square array of the grain if there is none.
    pub chip: Option<Box<Chip>>,
    /// How channels are compared.
    pub criterion: Criterion,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Multiply-accumulates.
    Macs,
    /// Multiply-accumulates rounded up to the array.
    Slots,
}

/// A pruned network with what went.
#[derive(Clone, Debug)]
pub struct PruneResult {
    /// The network.
    pub model: Model,
    /// The steps that made it, to be replayed.
    pub recipe: Recipe,
    /// Channels that went, by group.
    pub removed: Removed,
    /// Multiply-accumulates before and after.
    pub macs: [u64; 2],
    /// MAC slots before and after.
    pub slots: [u64; 2],
}

/// Reads and checks a chip file, which may extend chips of the library by their ids and other files by a path ending in `.toml`,
/// relative to its own folder.
///
/// # Errors
/// [`Error::Read`] if it cannot be read, [`Error::Chip`] with the faulty line.
pub fn chip_file(file: &Path) -> Result<Chip, Error> {
    check_chip_file(file)
        .map_err(|faults| faults.into_iter().next().expect("a refused file has a fault"))
}

/// As [`chip_file`], with every contradiction instead of the first.
///
/// # Errors
/// As [`chip_file`]; never empty.
pub fn check_chip_file(file: &Path) -> Result<Chip, Vec<Error>> {
    let text = read_text(file).map_err(|it| vec![it])?;
    let bases = |from: &str, wanted: &str| {
        if Path::new(wanted).extension().is_some_and(|it| it == "toml") {
            let base = Path::new(from).parent()?.join(wanted);
            let text = read_text(&base).ok()?;
            return Some((base.to_string_lossy().into_owned(), text));
        }
        sartor_chip::library_bases(from, wanted)
    };
    Chip::all_faults(&file.to_string_lossy(), &text, &bases)
        .map_err(|faults| faults.into_iter().map(Error::from).collect())
}

impl Session<'_> {
    /// A chip from the library by id, or from a file if `id` ends in `.toml`.
    ///
    /// # Errors
    /// [`Error::Chip`] with the nearest ids, or with the faulty line of the file.
    pub fn chip(&self, id: &str) -> Result<Chip, Error> {
        if Path::new(id).extension().is_some_and(|it| it == "toml") {
            return chip_file(Path::new(id));
        }
        Ok(sartor_chip::find(id)?)
    }

    /// A split of a data spec, bound to the inputs of `graph`.
    ///
    /// # Errors
    /// As [`BoundSamples::bind`], and a split that is not there.
    pub fn samples(
        &self,
        graph: &Graph,
        spec: &DataSpec,
        split: &str,
    ) -> Result<BoundSamples, Error> {
        BoundSamples::bind(graph, &spec.open(split)?, &self.interrupt)
    }

    /// What the network says to every sample.
    ///
    /// # Errors
    /// As [`Predictions::of`].
    pub fn predictions(
        &self,
        name: &str,
        graph: &Graph,
        samples: &BoundSamples,
    ) -> Result<Predictions, Error> {
        self.progress.begin(&format!("running {name}"), Some(samples.set().len() as u64));
        let result = Predictions::of(graph, samples, self.progress);
        self.progress.end();
        result
    }

    /// Accuracy of a network on a split, compared image by image with `against` if given.
    ///
    /// # Errors
    /// As [`Predictions::of`] and [`Predictions::evaluate`].
    pub fn evaluate(
        &self,
        model: &Model,
        against: Option<&Model>,
        spec: &DataSpec,
        split: &str,
    ) -> Result<Evaluation, Error> {
        let run = |model: &Model| -> Result<Predictions, Error> {
            model.check_numbers()?;
            let graph = model.simplified()?;
            let samples = self.samples(&graph, spec, split)?;
            self.predictions(&model.path.display().to_string(), &graph, &samples)
        };
        let other = against.map(run).transpose()?;
        let own = run(model)?;
        if let Some(other) = &other
            && other.classes != own.classes
        {
            return Err(Error::Invalid(format!(
                "the networks have {} and {} classes: they do not do the same",
                own.classes, other.classes
            )));
        }
        own.evaluate(other.as_ref())
    }

    /// Runs a network on given arrays, in the order of its inputs.
    ///
    /// # Errors
    /// An unsupported operator or arrays that do not fit.
    pub fn run(&self, graph: &Graph, inputs: &[Array]) -> Result<Vec<Array>, Error> {
        Runner::new(graph)?.run_exactly(inputs)
    }

    /// What a network costs on a chip, what binds, and what could be done about it.
    ///
    /// # Errors
    /// A shape that is not known, types that the chip does not multiply, an operator for which it refuses the network.
    pub fn analyze(
        &self,
        model: &Model,
        chip: &Chip,
        batch: usize,
        precision: Precision,
    ) -> Result<Analysis, Error> {
        let graph = model.simplified()?;
        let network = sartor_cost::Model::new(&graph, chip, &Options { batch, precision })?;
        Ok(analysis(model, chip, &network)?)
    }

    /// Simplifies a network and equalizes the ranges of channels between its layers.
    ///
    /// # Errors
    /// As [`sartor_compress::equalize`].
    pub fn equalize(
        &self,
        model: &Model,
        config: &Equalize,
        spec: &DataSpec,
    ) -> Result<Model, Error> {
        model.check_numbers()?;
        let clean = model.simplified()?;
        let samples = self.samples(&clean, spec, "calibration")?;
        let equal = equalize(&clean, config, &samples);
        Ok(model.with_graph(self.or_interrupted(equal)?))
    }

    /// Simplifies and quantizes a network with ranges found on `samples`.
    ///
    /// # Errors
    /// As [`sartor_compress::quantize`].
    pub fn quantize(
        &self,
        model: &Model,
        config: &QuantizeStatic,
        spec: &DataSpec,
    ) -> Result<(Model, Quantized), Error> {
        model.check_numbers()?;
        let clean = model.simplified()?;
        let samples = self.samples(&clean, spec, "calibration")?;
        let mut quantized =
            self.watched("calibrating", |progress| quantize(&clean, config, &samples, progress))?;
        let measured = measure_sqnr(&clean, &mut quantized, &samples.first(SQNR_SAMPLES));
        self.or_interrupted(measured)?;
        Ok((model.with_graph(quantized.graph.clone()), quantized))
    }

    /// Rounds the weights of a quantized network anew, block by block, so that it comes close to `model`, from which
    /// [`Session::quantize`] made it; the noise of its nodes is measured again.
    ///
    /// # Errors
    /// As [`sartor_compress::reconstruct`].
    pub fn reconstruct(
        &self,
        model: &Model,
        quantized: &mut Quantized,
        config: &Reconstruct,
        spec: &DataSpec,
    ) -> Result<(Model, Vec<ReconstructedBlock>), Error> {
        let clean = model.simplified()?;
        let samples = self.samples(&clean, spec, "calibration")?;
        let done = self.watched("reconstructing", |progress| {
            reconstruct(&clean, &quantized.graph, config, &samples, progress)
        })?;
        quantized.graph = done.graph;
        let measured = measure_sqnr(&clean, quantized, &samples.first(SQNR_SAMPLES));
        self.or_interrupted(measured)?;
        Ok((model.with_graph(quantized.graph.clone()), done.blocks))
    }

    /// Simplifies a network and prunes it to a share of its cost, restoring statistics if there are samples.
    ///
    /// # Errors
    /// A share that cannot be reached; as [`sartor_compress::prune::prune`].
    pub fn prune(
        &self,
        model: &Model,
        request: &PruneRequest,
        spec: Option<&DataSpec>,
    ) -> Result<PruneResult, Error> {
        if !(request.share > 0.0 && request.share <= 1.0) {
            return Err(Error::Usage(format!(
                "the share to keep is {}, expected above 0 and at most 1",
                request.share
            )));
        }
        model.check_numbers()?;
        let clean = model.simplified()?;
        let count = |graph: &Graph| {
            Ok(match request.unit {
                Unit::Macs => macs(graph)?,
                Unit::Slots => request.slots(graph)?,
            })
        };
        let all = groups(&clean)?;
        let importance = importance(&clean, &all, request.criterion);
        let name = if request.unit == Unit::Macs { "MACs" } else { "MAC slots" };
        let widths = widths_for_share(
            &clean,
            &all,
            &importance,
            request.grain,
            request.share,
            name,
            &count,
        )?;
        let keep = Keep::Widths(widths);
        let config = PruneChannels { criterion: request.criterion, grain: request.grain, keep };
        let mut steps = vec![Step::Simplify, Step::PruneChannels(config)];
        let samples = spec.map(|it| self.samples(&clean, it, "calibration")).transpose()?;
        if samples.is_some() {
            steps.push(Step::RestoreStatistics(RestoreStatistics::default()));
        }
        let recipe = Recipe::new(None, self.seed, steps);
        let (graph, outcomes) = self.replay(&model.graph, &recipe, samples.as_ref())?;
        let mut removed = Removed::new();
        for outcome in outcomes {
            if let Outcome::Pruned(it) = outcome {
                removed = it;
            }
        }
        let slots = [request.slots(&clean)?, request.slots(&graph)?];
        let macs = [macs(&clean)?, macs(&graph)?];
        Ok(PruneResult { model: model.with_graph(graph), recipe, removed, macs, slots })
    }

    /// Replays a recipe.
    ///
    /// # Errors
    /// A step that cannot be applied.
    pub fn apply(
        &self,
        model: &Model,
        recipe: &Recipe,
        spec: Option<&DataSpec>,
    ) -> Result<Model, Error> {
        model.check_numbers()?;
        let needs = recipe.steps.iter().any(|it| it.technique().needs_samples);
        let samples = match spec {
            Some(spec) if needs => Some(self.samples(&model.graph, spec, "calibration")?),
            _ => None,
        };
        Ok(model.with_graph(self.replay(&model.graph, recipe, samples.as_ref())?.0))
    }

    fn replay(
        &self,
        graph: &Graph,
        recipe: &Recipe,
        samples: Option<&BoundSamples>,
    ) -> Result<(Graph, Vec<Outcome>), Error> {
        let mut piece = Workpiece::new(graph.clone());
        let mut outcomes = Vec::new();
        for step in &recipe.steps {
            let samples = samples.map(|it| it as _);
            let (next, outcome) =
                self.watched(step.technique().id, |progress| piece.apply(step, samples, progress))?;
            piece = next;
            outcomes.push(outcome);
        }
        Ok((piece.graph, outcomes))
    }

    /// Runs `work` as a phase; it reports what is done of how much, in units of its own.
    fn watched<T, E: Into<Error>>(
        &self,
        phase: &str,
        work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<T, E>,
    ) -> Result<T, Error> {
        let mut reported = None;
        let result = work(&mut |done, total| {
            if reported.is_none() {
                self.progress.begin(phase, Some(total as u64));
            }
            self.progress.advance(done.saturating_sub(reported.unwrap_or(0)) as u64);
            reported = Some(done);
        });
        self.progress.end();
        self.or_interrupted(result)
    }

    /// An error that was caused by the user's wish to stop is that.
    pub(crate) fn or_interrupted<T, E: Into<Error>>(
        &self,
        result: Result<T, E>,
    ) -> Result<T, Error> {
        match result {
            Err(_) if self.interrupt.is_raised() => Err(Error::Interrupted),
            other => other.map_err(Into::into),
        }
    }
}

fn macs(graph: &Graph) -> Result<u64, CostError> {
    sartor_cost::macs(graph, 1).map(|it| it.0)
}

impl PruneRequest {
    fn slots(&self, graph: &Graph) -> Result<u64, CostError> {
        match &self.chip {
            None => sartor_cost::square_slots(graph, 1, self.grain as u64).map(|it| it.0),
            Some(chip) => {
                let options = Options { batch: 1, precision: Precision::AsIs };
                estimate(graph, chip, &options).map(|it| it.mac_slots.0)
            }
        }
    }
}
