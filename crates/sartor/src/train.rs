//! Training: samples bound, epochs run, checkpoints kept, the result verified.

use std::path::{Path, PathBuf};

use sartor_data::{DataSet, DataSpec};
use sartor_train::{Config, Epoch, Job, Loss, Step, TrainError, Trained, Watch, initialize, train};
use serde::Serialize;

use crate::{
    Error, Evaluation, Model, Predictions, Session, file, file::write_atomically,
    samples::BoundSamples,
};

/// What a training is asked for.
#[derive(Clone, Debug)]
pub struct TrainRequest<'a> {
    /// The options that the result follows from.
    pub config: Config,
    /// What it begins with.
    pub start: Start,
    /// The network that it learns from.
    pub teacher: Option<&'a Model>,
    /// The split to learn from.
    pub split: &'a str,
    /// Share of its samples to judge epochs on; without it the split `validation` of the spec, if there is one.
    pub validation: Option<f64>,
    /// Where and when checkpoints are kept.
    pub checkpoints: Option<Checkpoints>,
    /// Iterations after which their mean is told.
    pub window: u64,
}

/// What a training begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The numbers of the file.
    File,
    /// Random numbers; see [`sartor_train::initialize`].
    Random,
}

/// Checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoints {
    /// The folder; the file in it is [`Checkpoints::FILE`].
    pub folder: PathBuf,
    /// When one is written, beside the end and an interruption.
    pub every: Every,
    /// Whether to go on from the one that is there.
    pub resume: bool,
}

/// A distance between checkpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Every {
    /// In seconds.
    Seconds(f64),
    /// In epochs.
    Epochs(u32),
}

/// Who hears of a training, and knows what time it is.
pub trait Telling {
    /// Seconds since some moment. They decide when checkpoints are written, and nothing else.
    fn seconds(&mut self) -> f64;

    /// An iteration is done.
    ///
    /// # Errors
    /// What cannot be written; it ends the training.
    fn step(&mut self, step: &Step) -> Result<(), Error>;

    /// An epoch is done.
    ///
    /// # Errors
    /// As [`Telling::step`].
    fn epoch(&mut self, epoch: &Epoch) -> Result<(), Error>;
}

/// A trained network with what is worth knowing of it.
#[derive(Clone, Debug)]
pub struct Finetuned {
    /// The network, read back from the bytes that will be written.
    pub model: Model,
    /// Measures.
    pub metrics: Metrics,
}

/// What a training ended with.
#[derive(Clone, Debug, Serialize)]
pub struct Metrics {
    /// Epochs.
    pub epochs: u32,
    /// Steps of the optimizer.
    pub iterations: u64,
    /// Samples that it learnt from.
    pub samples: usize,
    /// The epoch whose numbers were taken; 0 is the network that it began with.
    pub kept: u32,
    /// Mean loss of the last epoch.
    pub loss: Option<f64>,
    /// Accuracy on the training samples in the last epoch, in percent.
    pub accuracy: Option<f64>,
    /// Mean loss on the validation samples at the epoch that was kept.
    pub validation_loss: Option<f64>,
    /// Accuracy there, in percent.
    pub validation_accuracy: Option<f64>,
    /// On the split `test`, with the numbers that it began with.
    pub before: Option<Evaluation>,
    /// On the split `test`, with the numbers that are written; agreement and pairs are with those before.
    pub after: Option<Evaluation>,
}

impl TrainRequest<'_> {
    /// The samples to learn from and those to judge on.
    fn splits(&self, spec: &DataSpec) -> Result<(DataSet, Option<DataSet>), Error> {
        let all = spec.open(self.split)?;
        if let Some(share) = self.validation {
            let (learn, judge) = all.hold_out(share, self.config.seed)?;
            return Ok((learn, Some(judge)));
        }
        let has = spec.splits().any(|it| it == "validation") && self.split != "validation";
        Ok((all, has.then(|| spec.open("validation")).transpose()?))
    }
}

impl Checkpoints {
    /// The name of the file in the folder.
    pub const FILE: &str = "checkpoint.safetensors";

    fn path(&self) -> PathBuf {
        self.folder.join(Self::FILE)
    }

    /// The checkpoint to go on from; else checks that one can be written.
    fn begin(&self, force: bool) -> Result<Option<bytes::Bytes>, Error> {
        let path = self.path();
        if self.resume {
            return file::read(&path).map(Some);
        }
        if path.exists() && !force {
            return Err(Error::Usage(format!(
                "`{}` holds a checkpoint already; go on with --resume, or begin anew with --force",
                path.display()
            )));
        }
        file::check_folder(&self.folder).map(|()| None)
    }
}

impl Session<'_> {
    /// Trains a network, reads back what will be written, and measures it on the split `test` where there is
    /// one with labels. Names and structure stay; numbers change.
    ///
    /// # Errors
    /// Data, networks and options that cannot be worked with; [`Error::Paused`] where the user stopped a
    /// training that keeps checkpoints.
    pub fn finetune(
        &self,
        model: &Model,
        spec: &DataSpec,
        request: &TrainRequest<'_>,
        force: bool,
        telling: &mut dyn Telling,
    ) -> Result<Finetuned, Error> {
        let config = &request.config;
        config.check()?;
        let mut start = model.clone();
        if request.start == Start::Random {
            initialize(&mut start.graph, config.seed)?;
        }
        start.check_numbers()?;
        let (learn, judge) = request.splits(spec)?;
        let learn = BoundSamples::bind(&start.graph, &learn, &self.interrupt)?;
        let judge =
            judge.map(|it| BoundSamples::bind(&start.graph, &it, &self.interrupt)).transpose()?;
        let test = self.test_samples(&start, spec)?;
        let file = request.checkpoints.as_ref().map(|it| it.begin(force)).transpose()?.flatten();
        let before = self.measured(&start, test.as_ref(), config.objective.loss)?;
        let of_start = before.as_ref().map(|it| it.evaluate(before.as_ref())).transpose()?;
        let teacher = request.teacher.map(|it| it.check_numbers().and_then(|()| it.simplified()));
        let teacher = teacher.transpose()?;
        let job = Job {
            graph: &start.graph,
            teacher: teacher.as_ref(),
            train: &learn,
            validation: judge.as_ref().map(|it| it as _),
            config,
            window: request.window,
            resume: file.as_deref(),
        };
        let trained = self.train(&job, request, telling)?;
        let bytes = start.with_graph(trained.graph.clone()).encoded()?;
        let written = Model::from_bytes(&model.path, bytes, folder(&model.path))?;
        same_numbers(&trained, &written)?;
        let after = self.measured(&written, test.as_ref(), config.objective.loss)?;
        let of_end = after.as_ref().map(|it| it.evaluate(before.as_ref())).transpose()?;
        let metrics = metrics(&trained, &learn, [of_start, of_end]);
        Ok(Finetuned { model: written, metrics })
    }

    /// The split `test`, where there is one with labels.
    fn test_samples(&self, model: &Model, spec: &DataSpec) -> Result<Option<BoundSamples>, Error> {
        if !spec.splits().any(|it| it == "test") {
            return Ok(None);
        }
        let test = spec.open("test")?;
        if test.labels()?.is_none() {
            return Ok(None);
        }
        BoundSamples::bind(&model.graph, &test, &self.interrupt).map(Some)
    }

    /// What a network says to the test samples; `None` where it is none of classes.
    fn measured(
        &self,
        model: &Model,
        test: Option<&BoundSamples>,
        loss: Loss,
    ) -> Result<Option<Predictions>, Error> {
        let Some(test) = test else { return Ok(None) };
        match self.predictions("the network on the test split", &model.simplified()?, test) {
            // A network that learns to imitate another may answer anything.
            Err(Error::Invalid(_)) if loss == Loss::Mse => Ok(None),
            other => other.map(Some),
        }
    }

    fn train(
        &self,
        job: &Job<'_>,
        request: &TrainRequest<'_>,
        telling: &mut dyn Telling,
    ) -> Result<Trained, Error> {
        let total = u64::from(request.config.epochs) * job.train.len() as u64;
        self.progress.begin("training", Some(total));
        let checkpoints = request.checkpoints.as_ref();
        let written = telling.seconds();
        let mut host = Host { session: self, telling, checkpoints, written, first: true };
        let result = train(job, &mut host);
        self.progress.end();
        let trained = result.map_err(Error::from)?;
        match checkpoints {
            _ if trained.finished => Ok(trained),
            Some(it) => Err(Error::Paused(it.path())),
            None => Err(Error::Interrupted),
        }
    }
}

/// The host of a training: files, time and the user's wish to stop.
struct Host<'a> {
    session: &'a Session<'a>,
    telling: &'a mut dyn Telling,
    checkpoints: Option<&'a Checkpoints>,
    /// When the last checkpoint was written.
    written: f64,
    /// Whether no iteration has been done in this run.
    first: bool,
}

fn host(error: Error) -> TrainError {
    TrainError::Host(Box::new(error))
}

impl Watch for Host<'_> {
    fn stopped(&self) -> bool {
        self.session.interrupt.is_raised()
    }

    fn step(&mut self, step: &Step) -> Result<(), TrainError> {
        // What was done before a pause counts too.
        let before = if self.first { step.mean.samples * (step.iteration - 1) } else { 0 };
        self.first = false;
        self.session.progress.advance(before + step.mean.samples);
        self.telling.step(step).map_err(host)
    }

    fn epoch(&mut self, epoch: &Epoch) -> Result<(), TrainError> {
        self.telling.epoch(epoch).map_err(host)
    }

    fn wants_checkpoint(&mut self, epoch: Option<u32>) -> bool {
        match (self.checkpoints.map(|it| it.every), epoch) {
            (Some(Every::Seconds(distance)), None) => {
                self.telling.seconds() - self.written >= distance
            }
            (Some(Every::Epochs(distance)), Some(epoch)) => epoch.is_multiple_of(distance.max(1)),
            _ => false,
        }
    }

    fn keep(&mut self, checkpoint: &[u8]) -> Result<(), TrainError> {
        let Some(checkpoints) = self.checkpoints else { return Ok(()) };
        let error = |source| host(Error::Write { path: checkpoints.folder.clone(), source });
        std::fs::create_dir_all(&checkpoints.folder).map_err(error)?;
        write_atomically(&checkpoints.path(), true, |it| it.write_all(checkpoint)).map_err(host)?;
        self.written = self.telling.seconds();
        Ok(())
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Whether a file that was read back holds what was trained.
fn same_numbers(trained: &Trained, written: &Model) -> Result<(), Error> {
    let consumers = trained.graph.consumers();
    for (id, value) in trained.graph.values() {
        let used = trained.graph.is_used(id, &consumers);
        let Some(tensor) = value.constant.as_ref().filter(|_| used) else { continue };
        let found = written.graph.find_value(&value.name);
        if found.and_then(|it| written.graph.constant(it)) != Some(tensor) {
            let text = format!("tensor `{}` does not survive writing and reading", value.name);
            return Err(Error::Bug(text));
        }
    }
    Ok(())
}

fn metrics(trained: &Trained, learn: &BoundSamples, test: [Option<Evaluation>; 2]) -> Metrics {
    let last = trained.history.last().and_then(|it| it.train);
    let kept = trained.history.iter().find(|it| it.epoch == trained.kept);
    let validation = kept.and_then(|it| it.validation);
    let [before, after] = test;
    Metrics {
        epochs: trained.history.last().map_or(0, |it| it.epoch),
        iterations: trained.iterations,
        samples: learn.set().len(),
        kept: trained.kept,
        loss: last.map(|it| it.loss),
        accuracy: last.and_then(|it| it.accuracy),
        validation_loss: validation.map(|it| it.loss),
        validation_accuracy: validation.and_then(|it| it.accuracy),
        before,
        after,
    }
}
