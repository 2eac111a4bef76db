//! The whole way: plan, apply, verify what was written, report.

use std::path::Path;

use bytes::Bytes;
use sartor_chip::Chip;
use sartor_data::DataSpec;
use sartor_ir::Graph;
use sartor_plan::{Candidate, Event, Judge, Plan, PlanError, Request, Score, plan};
use sartor_report::{Record, format};

use crate::{
    Error, Evaluation, Model, Predictions, Session, Silent,
    file::{OutputFolder, write_atomically},
    record::{Findings, record},
    samples::BoundSamples,
};

/// What the owner allows; `None` where nothing was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Points of accuracy that may go; [`DEFAULT_DROP`] if not given.
    pub max_drop: Option<f64>,
    /// Least top-1 accuracy in percent.
    pub min_accuracy: Option<f64>,
    /// Largest estimated latency in seconds.
    pub max_latency: Option<f64>,
    /// Largest file in bytes.
    pub max_size: Option<u64>,
    /// Largest estimated working memory in bytes.
    pub max_ram: Option<u64>,
}

/// Points of accuracy that may go where the owner says nothing.
pub const DEFAULT_DROP: f64 = 1.0;

/// Samples that candidates are compared on, and those that many are ranked on.
const VALIDATION: usize = 1024;
const RANKING: usize = 128;

/// Share of the allowed loss that a search on training images may use up: a network is surer of what it was
/// trained on, so that the loss on new images is larger.
const TRAINING_RESERVE: f64 = 0.5;

/// A finished run.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The network as it is written.
    pub model: Model,
    /// The same as bytes of a file.
    pub bytes: Bytes,
    /// Everything that is worth knowing.
    pub record: Record,
}

impl Session<'_> {
    /// Fits a network to a chip under limits. The result holds them, or `record.verdict` says which one stood
    /// in the way; then the best that was found is returned.
    ///
    /// # Errors
    /// Data, networks and chips that cannot be worked with.
    pub fn compress(
        &self,
        model: &Model,
        chip: &Chip,
        spec: &DataSpec,
        limits: &Limits,
    ) -> Result<Compressed, Error> {
        model.check_numbers()?;
        let clean = model.simplified()?;
        let calibration = self.samples(&clean, spec, "calibration")?;
        let test = self.samples(&clean, spec, "test")?;
        let (validation, reserve) = self.validation(&clean, spec)?;
        let mut judge = Validation::new(self, &clean, validation)?;
        let allowed = limits.max_drop.unwrap_or(DEFAULT_DROP);
        let request = Request {
            graph: &model.graph,
            chip,
            limits: sartor_plan::Limits { max_drop: allowed, reserve },
            seed: self.seed,
            calibration: &calibration,
        };
        self.progress.begin("searching", None);
        let result =
            plan(&request, &mut judge, &mut |Event::Trying(what)| self.progress.begin(what, None));
        self.progress.end();
        let plan = self.or_interrupted(result)?;
        let float = self.predictions("the original on the test split", &clean, &test)?;
        let chosen = self.verify(model, &plan, &float, &test, limits)?;
        let findings = Findings {
            session: self,
            model,
            clean: &clean,
            chip,
            spec,
            limits,
            plan: &plan,
            chosen: &chosen,
        };
        let record = record(&findings)?;
        Ok(Compressed { model: chosen.model, bytes: chosen.bytes, record })
    }

    /// Writes `model.onnx`, `recipe.toml`, `report.json` and `report.html`, all or none.
    ///
    /// # Errors
    /// [`Error::Exists`] and [`Error::Write`].
    pub fn write(&self, result: &Compressed, folder: &Path, force: bool) -> Result<(), Error> {
        let output = OutputFolder::begin(folder, force)?;
        let bug = |it: sartor_report::ReportError| Error::Bug(it.to_string());
        let json = sartor_report::to_json(&result.record).map_err(bug)?;
        let html = sartor_report::to_html(&result.record);
        let files = [
            ("model.onnx", result.bytes.as_ref()),
            ("recipe.toml", result.record.recipe.as_bytes()),
            ("report.json", json.as_bytes()),
            ("report.html", html.as_bytes()),
        ];
        output.fill(|folder| {
            let mut files = files.iter();
            files.try_for_each(|(name, text)| {
                write_atomically(&folder.join(name), true, |it| it.write_all(text))
            })
        })?;
        output.finish()
    }

    /// Samples to choose on: the split `validation` if there is one, else some of the second half of `train`
    /// (the first may hold the calibration samples), else those of `calibration`.
    fn validation(&self, graph: &Graph, spec: &DataSpec) -> Result<(BoundSamples, f64), Error> {
        let has = |name: &str| spec.splits().any(|it| it == name);
        if has("validation") {
            return Ok((self.samples(graph, spec, "validation")?, 1.0));
        }
        let name = if has("train") { "train" } else { "calibration" };
        let set = spec.open(name)?;
        let start = if has("train") { set.len() / 2 } else { 0 };
        let room = set.len() - start;
        let count = room.min(VALIDATION);
        let picks: Vec<usize> = (0..count).map(|i| start + i * room / count.max(1)).collect();
        Ok((BoundSamples::bind(graph, &set.subset(&picks), &self.interrupt)?, TRAINING_RESERVE))
    }

    /// Writes and reads back one candidate after another, fastest first, and takes the first that holds every
    /// limit on the test split.
    fn verify(
        &self,
        model: &Model,
        plan: &Plan,
        float: &Predictions,
        test: &BoundSamples,
        limits: &Limits,
    ) -> Result<Chosen, Error> {
        let mut refused = Vec::new();
        let mut best: Option<Chosen> = None;
        let tried = plan.candidates.iter().chain(&plan.nearest);
        for (looks, candidate) in tried.enumerate() {
            let name = format!("candidate {} on the test split", looks + 1);
            let bytes = model.with_graph(candidate.graph.clone()).encoded()?;
            let read_back = Model::from_bytes(&model.path, bytes.clone(), Path::new("."))?;
            let predictions = self.predictions(&name, &read_back.simplified()?, test)?;
            let misses = misses(candidate, &predictions, float, bytes.len() as u64, limits);
            let mut chosen = Chosen {
                candidate: candidate.clone(),
                model: read_back,
                bytes,
                after: evaluation(&predictions, float)?,
                before: evaluation(float, float)?,
                misses,
                looks: looks + 1,
                refused: Vec::new(),
            };
            if chosen.misses.is_empty() {
                chosen.refused = refused;
                return Ok(chosen);
            }
            refused.push((candidate.clone(), chosen.misses.clone()));
            if best.as_ref().is_none_or(|it| chosen.misses.len() < it.misses.len()) {
                best = Some(chosen);
            }
        }
        best.ok_or_else(|| Error::Bug("a search ended without any candidate".to_owned()))
    }
}

/// The candidate that is written, with what was measured on its file.
pub(crate) struct Chosen {
    pub(crate) candidate: Candidate,
    pub(crate) model: Model,
    pub(crate) bytes: Bytes,
    pub(crate) after: Option<Evaluation>,
    pub(crate) before: Option<Evaluation>,
    /// Limits that do not hold.
    pub(crate) misses: Vec<String>,
    /// How many candidates were measured on the test split.
    pub(crate) looks: usize,
    /// Faster candidates that did not hold there.
    pub(crate) refused: Vec<(Candidate, Vec<String>)>,
}

fn evaluation(own: &Predictions, float: &Predictions) -> Result<Option<Evaluation>, Error> {
    own.labels.is_some().then(|| own.evaluate(Some(float))).transpose()
}

/// The limits that a written candidate breaks.
fn misses(
    candidate: &Candidate,
    own: &Predictions,
    float: &Predictions,
    bytes: u64,
    limits: &Limits,
) -> Vec<String> {
    let percent =
        |it: &Predictions| it.correct().map(|hits| 100.0 * hits as f64 / it.len().max(1) as f64);
    let mut misses = Vec::new();
    let allowed = limits.max_drop.unwrap_or(DEFAULT_DROP);
    let drop = match (percent(float), percent(own)) {
        (Some(before), Some(after)) => before - after,
        _ => 100.0 - own.agreement(float),
    };
    // Accuracies are ratios of counts: the comparison must not fail by a rounding of the last bit.
    if drop > allowed + 1e-9 {
        misses
            .push(format!("it loses {drop:.2} points on the test split, {allowed:.2} are allowed"));
    }
    if let (Some(least), Some(after)) = (limits.min_accuracy, percent(own))
        && after < least
    {
        misses.push(format!("its accuracy is {after:.2} %, at least {least:.2} % is asked"));
    }
    let latency = candidate.estimate.latency;
    if let Some(most) = limits.max_latency
        && latency.0 > most
    {
        misses.push(format!(
            "its estimated latency is {latency}, at most {} is allowed; it is bound by {}",
            format::seconds(most),
            candidate.estimate.bound
        ));
    }
    if let Some(most) = limits.max_size
        && bytes > most
    {
        let (bytes, most) = (format::bytes(bytes), format::bytes(most));
        misses.push(format!("its file has {bytes}, at most {most} are allowed"));
    }
    let memory = candidate.estimate.peak_memory.0;
    if let Some(most) = limits.max_ram
        && memory > most
    {
        let (memory, most) = (format::bytes(memory), format::bytes(most));
        misses.push(format!("its activations need {memory}, at most {most} are allowed"));
    }
    misses
}

/// Scores candidates on the validation samples.
struct Validation<'a> {
    session: &'a Session<'a>,
    all: BoundSamples,
    few: BoundSamples,
    reference: [Predictions; 2],
}

impl<'a> Validation<'a> {
    fn new(session: &'a Session<'a>, graph: &Graph, all: BoundSamples) -> Result<Self, Error> {
        let count = all.set().len();
        let picked: Vec<usize> =
            (0..count.min(RANKING)).map(|i| i * count / count.min(RANKING)).collect();
        let few = BoundSamples::bind(graph, &all.set().subset(&picked), &session.interrupt)?;
        let reference =
            [Predictions::of(graph, &all, &Silent)?, Predictions::of(graph, &few, &Silent)?];
        Ok(Validation { session, all, few, reference })
    }

    fn judged(&self, result: Result<Predictions, Error>) -> Result<Predictions, PlanError> {
        self.session.or_interrupted(result).map_err(|it| PlanError::Judge(it.to_string()))
    }
}

impl Judge for Validation<'_> {
    fn score(&mut self, graph: &Graph) -> Result<Score, PlanError> {
        let own = self.judged(Predictions::of(graph, &self.all, &Silent))?;
        let reference = &self.reference[0];
        Ok(Score {
            top1: own.correct().map(|it| 100.0 * it as f64 / own.len().max(1) as f64),
            agreement: own.agreement(reference),
            divergence: own.divergence(reference),
            samples: own.len(),
        })
    }

    fn divergence(&mut self, graph: &Graph) -> Result<f64, PlanError> {
        let own = self.judged(Predictions::of(graph, &self.few, &Silent))?;
        Ok(own.divergence(&self.reference[1]))
    }
}
