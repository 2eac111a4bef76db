//! The loop: batches, steps, epochs, checkpoints.

use std::collections::BTreeMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use sartor_data::{Augmentation, DataError};
use sartor_engine::{
    Array, batch_shapes,
    train::{Gradients, Parameters, Tape, TapeOptions, trainable},
};
use sartor_ir::Graph;

use crate::{
    Batch, Config, Epoch, Keep, LastBatch, Loss, Samples, Step, TrainError, Watch,
    checkpoint::{Numbers, State},
    head::{Head, Targets, score},
    network::Network,
    optimizer::{Optimizer, clip},
    schedule::Length,
    watch::Sums,
};

/// What is trained, on what.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The network; its first output is what the loss looks at.
    pub graph: &'a Graph,
    /// The network that it learns from, where the objective says how.
    pub teacher: Option<&'a Graph>,
    /// Samples to learn from.
    pub train: &'a dyn Samples,
    /// Samples to judge epochs on.
    pub validation: Option<&'a dyn Samples>,
    /// How.
    pub config: &'a Config,
    /// Iterations after which [`Step::window`] tells their mean.
    pub window: u64,
    /// A checkpoint to go on from.
    pub resume: Option<&'a [u8]>,
}

/// What a training ended with.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network with other numbers; structure and names are those of the one that came in.
    pub graph: Graph,
    /// Whether it went to its end; else the last checkpoint has all of it.
    pub finished: bool,
    /// Iterations done.
    pub iterations: u64,
    /// Every epoch.
    pub history: Vec<Epoch>,
    /// The epoch whose numbers were taken.
    pub kept: u32,
}

/// Trains a network.
///
/// # Errors
/// Options that cannot be meant, samples or networks that do not fit, a training that diverges, and what
/// the host could not do.
pub fn train(job: &Job<'_>, watch: &mut dyn Watch) -> Result<Trained, TrainError> {
    let mut trainer = Trainer::new(job)?;
    if let Some(file) = job.resume {
        let samples = trainer.samples();
        trainer.state = trainer.numbers().restore(file, job.config, samples)?;
    }
    let finished = trainer.run(watch)?;
    Ok(trainer.trained(finished))
}

/// Apart from the seeds of the samples' changes, which are drawn from the same.
const ORDER: u64 = 0x6f72_6465_7273;

/// Samples with what is done to them.
#[derive(Clone, Copy)]
struct Source<'a> {
    samples: &'a dyn Samples,
    augment: Option<Augmentation>,
}

impl Source<'_> {
    fn read(&self, indices: &[usize]) -> Result<Batch, DataError> {
        self.samples.read(indices, self.augment.as_ref())
    }
}

/// Where the loss looks, and the teacher.
fn heads(job: &Job<'_>) -> Result<(Head, Option<Network>), TrainError> {
    let Some(teacher) = job.teacher else {
        if job.config.objective.distillation.is_some() {
            return Err(TrainError::config("teacher", "missing", "a network to learn from"));
        }
        let head = match job.config.objective.loss {
            Loss::CrossEntropy => Head::classes(job.graph)?,
            Loss::Mse => Head::output(job.graph)?,
        };
        return Ok((head, None));
    };
    if job.config.objective.distillation.is_none() {
        return Err(TrainError::config("teacher", "given", "no teacher without distillation"));
    }
    let both = [job.graph, teacher];
    let [head, other] = match job.config.objective.loss {
        Loss::CrossEntropy => [Head::classes(job.graph)?, Head::classes(teacher)?],
        // Scores are compared before the softmax (Ba and Caruana 2014, section 2.3) where both have one.
        Loss::Mse => match both.map(Head::before_softmax) {
            [Some(head), Some(other)] => [head, other],
            _ => [Head::output(job.graph)?, Head::output(teacher)?],
        },
    };
    Ok((head, Some(Network::new(teacher, other, job.graph)?)))
}

/// Whether the network or its teacher takes one batch only, which then must be the one asked for.
fn is_bound(job: &Job<'_>) -> Result<bool, TrainError> {
    let first = |graph: &Graph, batch: usize| -> Result<Option<usize>, TrainError> {
        Ok(batch_shapes(graph, batch)?.first().and_then(|it| it.first().copied()))
    };
    let mut bound = false;
    for (name, graph) in [("network", Some(job.graph)), ("teacher", job.teacher)] {
        let Some(graph) = graph else { continue };
        let (one, two) = (first(graph, 1)?, first(graph, 2)?);
        if one != two {
            continue;
        }
        bound = true;
        if one.is_some_and(|it| it != job.config.batch) {
            let only = one.unwrap_or(1);
            let expected = format!(
                "{only}: the {name} is bound to this batch; --accumulate makes larger steps of several"
            );
            return Err(TrainError::config("batch", job.config.batch, &expected));
        }
    }
    Ok(bound)
}

fn length(job: &Job<'_>, drops: bool) -> Result<Length, TrainError> {
    let (samples, batch) = (job.train.len(), job.config.batch);
    let batches = if drops { samples / batch } else { samples.div_ceil(batch) };
    if batches == 0 {
        return Err(TrainError::Samples(format!(
            "there are {samples} samples to learn from, fewer than a batch of {batch}"
        )));
    }
    let per_epoch = batches.div_ceil(job.config.accumulate) as u64;
    Ok(Length { iterations: per_epoch * u64::from(job.config.epochs), per_epoch })
}

struct Trainer<'a> {
    job: &'a Job<'a>,
    config: &'a Config,
    length: Length,
    head: Head,
    /// The network with the head as its only output.
    graph: Graph,
    teacher: Option<Network>,
    parameters: Parameters,
    gradients: Gradients,
    optimizer: Optimizer,
    tapes: BTreeMap<usize, Tape>,
    /// Whether samples that do not fill a batch are left out.
    drops: bool,
    /// Whether the network or its teacher takes no other batch.
    bound: bool,
    best: Option<Parameters>,
    state: State,
}

impl<'a> Trainer<'a> {
    fn new(job: &'a Job<'a>) -> Result<Self, TrainError> {
        let config = job.config;
        config.check()?;
        if config.keep == Keep::Best && job.validation.is_none() {
            let expected = "`last` where there are no validation samples to choose on";
            return Err(TrainError::config("keep", "best", expected));
        }
        let (head, teacher) = heads(job)?;
        let ids = config.learning(job.graph, trainable(job.graph))?;
        let parameters = Parameters::from_graph(job.graph, &ids)?;
        let optimizer = Optimizer::new(config.method, config.decays(job.graph, &ids)?, &parameters);
        let bound = is_bound(job)?;
        let drops = bound || config.last_batch == LastBatch::Drop;
        Ok(Trainer {
            length: length(job, drops)?,
            drops,
            bound,
            head,
            graph: head.graph(job.graph),
            teacher,
            gradients: Gradients::new(&parameters),
            parameters,
            optimizer,
            tapes: BTreeMap::new(),
            best: None,
            state: State::default(),
            job,
            config,
        })
    }

    fn numbers(&mut self) -> Numbers<'_> {
        Numbers {
            graph: &self.graph,
            parameters: &mut self.parameters,
            optimizer: &mut self.optimizer,
            best: &mut self.best,
        }
    }

    fn samples(&self) -> [usize; 2] {
        [self.job.train.len(), self.job.validation.map_or(0, Samples::len)]
    }

    /// Whether the training went to its end.
    fn run(&mut self, watch: &mut dyn Watch) -> Result<bool, TrainError> {
        if self.state.history.is_empty() && !self.end_epoch(None, watch)? {
            return Ok(false);
        }
        while self.state.epoch < self.config.epochs {
            let batches = self.batches();
            let mut ahead = None;
            while self.state.step < self.length.per_epoch {
                if watch.stopped() {
                    self.save(watch)?;
                    return Ok(false);
                }
                self.iterate(&batches, &mut ahead, watch)?;
                if watch.wants_checkpoint(None) {
                    self.save(watch)?;
                }
            }
            if !self.end_epoch(Some(self.state.sums), watch)? {
                self.save(watch)?;
                return Ok(false);
            }
            if watch.wants_checkpoint(Some(self.state.epoch)) {
                self.save(watch)?;
            }
        }
        self.save(watch)?;
        Ok(true)
    }

    /// The samples of this epoch in its order, cut into batches.
    fn batches(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.job.train.len()).collect();
        let mut numbers = ChaCha8Rng::seed_from_u64(self.config.seed ^ ORDER);
        numbers.set_stream(u64::from(self.state.epoch));
        order.shuffle(&mut numbers);
        let chunks = order.chunks(self.config.batch);
        let whole = |it: &&[usize]| !self.drops || it.len() == self.config.batch;
        chunks.filter(whole).map(<[usize]>::to_vec).collect()
    }

    /// The samples of this epoch, as they are changed in it.
    fn source(&self) -> Source<'a> {
        let Config { crop, flip, seed, .. } = *self.config;
        let augment = Augmentation { pad: crop, flip, seed, epoch: self.state.epoch };
        let augment = (crop > 0 || flip).then_some(augment);
        Source { samples: self.job.train, augment }
    }

    /// One step of the optimizer. `ahead` is the batch that was read while the one before was at work.
    fn iterate(
        &mut self,
        batches: &[Vec<usize>],
        ahead: &mut Option<Result<Batch, DataError>>,
        watch: &mut dyn Watch,
    ) -> Result<(), TrainError> {
        let source = self.source();
        let first = self.state.step as usize * self.config.accumulate;
        let last = batches.len().min(first + self.config.accumulate);
        let total: usize = batches[first..last].iter().map(Vec::len).sum();
        let rate = self.config.schedule.rate(self.state.iteration, self.length);
        let mut sums = Sums::default();
        self.gradients.zero();
        for at in first..last {
            let batch = match ahead.take() {
                Some(it) => it?,
                None => source.read(&batches[at])?,
            };
            let next = batches.get(at + 1);
            let (done, read) = rayon::join(
                || self.pass(&batch, 1.0 / total as f64),
                || next.map(|it| source.read(it)),
            );
            *ahead = read;
            let found = done?;
            if !found.loss.is_finite() {
                let loss = found.loss / found.samples.max(1) as f64;
                return Err(TrainError::Diverged { iteration: self.state.iteration, rate, loss });
            }
            sums.add(&found);
        }
        let norm = clip(&mut self.gradients, self.config.clip);
        self.state.iteration += 1;
        self.state.step += 1;
        self.optimizer.step(self.state.iteration, rate, &mut self.parameters, &self.gradients);
        self.state.sums.add(&sums);
        self.state.window.add(&sums);
        let tells = self.job.window > 0 && self.state.iteration.is_multiple_of(self.job.window);
        watch.step(&Step {
            epoch: self.state.epoch + 1,
            iteration: self.state.iteration,
            iterations: self.length.iterations,
            rate,
            norm,
            mean: sums.mean(),
            epoch_mean: self.state.sums.mean(),
            window: tells.then(|| std::mem::take(&mut self.state.window).mean()),
        })
    }

    /// Forward and backward of one batch; `factor` is the weight of a sample in the loss.
    fn pass(&mut self, batch: &Batch, factor: f64) -> Result<Sums, TrainError> {
        let count = batch.inputs.first().and_then(|it| it.shape.first().copied()).unwrap_or(0);
        let teacher = self.teacher.as_mut().map(|it| it.answer(&batch.inputs)).transpose()?;
        let targets = self.targets(batch, teacher.as_ref());
        let tape = match self.tapes.entry(count) {
            std::collections::btree_map::Entry::Occupied(it) => it.into_mut(),
            std::collections::btree_map::Entry::Vacant(it) => {
                let options = TapeOptions {
                    parameters: self.parameters.ids().to_vec(),
                    batch_norm: self.config.batch_norm.into(),
                    seed: self.config.seed,
                    ..TapeOptions::default()
                };
                let shapes = batch_shapes(&self.graph, count)?;
                it.insert(Tape::prepare(&self.graph, &shapes, &options)?)
            }
        };
        tape.seek(self.state.passes);
        self.state.passes += 1;
        let outputs = tape.forward(&mut self.parameters, &batch.inputs)?;
        let objective = &self.config.objective;
        let (sums, gradient) = score(objective, self.head, &outputs[0], &targets, factor)?;
        tape.backward(&self.parameters, &[Some(gradient)], &mut self.gradients)?;
        Ok(sums)
    }

    /// What the answers to a batch are compared with.
    fn targets<'b>(&self, batch: &'b Batch, teacher: Option<&'b Array>) -> Targets<'b> {
        let asked = batch.targets.as_ref().filter(|_| self.config.objective.loss == Loss::Mse);
        let taught = teacher.zip(self.teacher.as_ref().map(|it| it.head));
        let example = taught.or(asked.map(|it| (it, self.head)));
        Targets { labels: batch.labels.as_deref(), example }
    }

    /// Validates, remembers the epoch and tells it; `false` where the host stopped it before.
    fn end_epoch(&mut self, sums: Option<Sums>, watch: &mut dyn Watch) -> Result<bool, TrainError> {
        let validation = self.validate(watch)?;
        if watch.stopped() {
            return Ok(false);
        }
        if sums.is_some() {
            self.state.epoch += 1;
            self.state.step = 0;
            self.state.sums = Sums::default();
        }
        let mut epoch = Epoch {
            epoch: self.state.epoch,
            iteration: self.state.iteration,
            train: sums.map(|it| it.mean()),
            validation: validation.map(|it| it.mean()),
            best: false,
        };
        let best = self.state.history.iter().rfind(|it| it.best);
        epoch.best = best.map_or(validation.is_some(), |it| epoch.beats(it));
        if epoch.best && self.config.keep == Keep::Best {
            self.best = Some(self.parameters.clone());
        }
        self.state.history.push(epoch);
        watch.epoch(&epoch)?;
        Ok(true)
    }

    /// The objective on the validation samples, as the network is at inference.
    fn validate(&mut self, watch: &dyn Watch) -> Result<Option<Sums>, TrainError> {
        let Some(samples) = self.job.validation else { return Ok(None) };
        let mut graph = self.job.graph.clone();
        self.parameters.store(&mut graph);
        let mut student = Network::new(&graph, self.head, &graph)?;
        let all: Vec<usize> = (0..samples.len()).collect();
        let mut sums = Sums::default();
        for indices in all.chunks(self.config.batch) {
            if watch.stopped() {
                return Ok(None);
            }
            sums.add(&self.validate_batch(samples, indices, &mut student)?);
        }
        Ok(Some(sums))
    }

    fn validate_batch(
        &mut self,
        samples: &dyn Samples,
        indices: &[usize],
        student: &mut Network,
    ) -> Result<Sums, TrainError> {
        let count = indices.len();
        // A network that is bound to a batch gets copies of the first sample, whose answers are left out.
        let missing = if self.bound { self.config.batch - count } else { 0 };
        let filled = [indices, &vec![indices[0]; missing]].concat();
        let mut batch = samples.read(&filled, None)?;
        let rows = |it: Array| it.rows(0..count).unwrap_or(it);
        let answer = rows(student.answer(&batch.inputs)?);
        let teacher =
            self.teacher.as_mut().map(|it| it.answer(&batch.inputs)).transpose()?.map(rows);
        if let Some(labels) = &mut batch.labels {
            labels.truncate(count);
        }
        batch.targets = batch.targets.map(rows);
        let targets = self.targets(&batch, teacher.as_ref());
        Ok(score(&self.config.objective, self.head, &answer, &targets, 1.0)?.0)
    }

    fn save(&mut self, watch: &mut dyn Watch) -> Result<(), TrainError> {
        let (samples, state, config) = (self.samples(), self.state.clone(), self.config);
        let file = self.numbers().encode(config, samples, &state)?;
        watch.keep(&file)
    }

    fn trained(self, finished: bool) -> Trained {
        let kept = match self.config.keep {
            Keep::Best => self.state.history.iter().rfind(|it| it.best).map(|it| it.epoch),
            Keep::Last => None,
        };
        let mut graph = self.job.graph.clone();
        self.best.as_ref().unwrap_or(&self.parameters).store(&mut graph);
        Trained {
            graph,
            finished,
            iterations: self.state.iteration,
            kept: kept.unwrap_or(self.state.epoch),
            history: self.state.history,
        }
    }
}
