//! `sartor finetune` and `sartor train`: numbers that learn.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use sartor::{
    BatchNorm, Checkpoints, Column, DataSpec, Decay, Distillation, Epoch, Error, Evaluation, Keep,
    LastBatch, Loss, Mean, Method, Metrics, Model, Objective, Progress, Schedule, Session, Shape,
    Start, Table, Telling, TrainConfig, TrainRequest, TrainStep, format,
};
use serde::Serialize;

use crate::{
    args::{
        BatchNormArg, Finetune, KeepArg, LastBatchArg, LossArg, OptimizerArg, ScheduleArg, Train,
        TrainArgs,
    },
    output::Output,
};

/// Samples that run at once where the network leaves it open.
const BATCH: usize = 128;

pub(super) fn finetune(
    args: &Finetune,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    run((&args.model, Start::File), &args.training, session, output, force)
}

pub(super) fn train(
    args: &Train,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    run((&args.arch, Start::Random), &args.training, session, output, force)
}

/// What a run prints.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    metrics: Metrics,
    bytes: u64,
    seconds: f64,
    /// Training samples a second, validation and evaluation included.
    samples_per_s: f64,
}

fn run(
    (path, start): (&Path, Start),
    args: &TrainArgs,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    check(args)?;
    sartor::check_output(&args.output, force)?;
    let model = Model::load(path)?;
    let teacher = args.loss.teacher.as_deref().map(Model::load).transpose()?;
    let spec = DataSpec::load(&args.data)?;
    let has_validation = args.validation.is_some() || spec.splits().any(|it| it == "validation");
    let request = TrainRequest {
        config: config(args, &model, start, session.seed, has_validation),
        start,
        teacher: teacher.as_ref(),
        split: &args.split,
        validation: args.validation,
        checkpoints: args.files.checkpoint.as_ref().map(|folder| Checkpoints {
            folder: folder.clone(),
            every: args.files.checkpoint_every,
            resume: args.files.resume,
        }),
        window: args.files.log.as_ref().map_or(0, |_| args.files.log_every.into()),
    };
    let log = args.files.log.as_deref().map(|it| Log::new(it, args.files.resume, force));
    let mut teller = Teller::new(session.progress, request.config.epochs, log.transpose()?);
    let result = session.finetune(&model, &spec, &request, force, &mut teller)?;
    let bytes = result.model.save(&args.output, force)?;
    let seconds = teller.seconds();
    let samples_per_s = teller.samples as f64 / seconds.max(1e-9);
    let outcome = Outcome { metrics: result.metrics, bytes, seconds, samples_per_s };
    output.say(&format!("wrote {} ({})", args.output.display(), format::bytes(bytes)));
    output.result(&outcome, || output.render(&table(&outcome)))
}

fn config(
    args: &TrainArgs,
    model: &Model,
    start: Start,
    seed: u64,
    has_validation: bool,
) -> TrainConfig {
    let keep = match args.length.keep {
        Some(KeepArg::Best) => Keep::Best,
        None if has_validation => Keep::Best,
        Some(KeepArg::Last) | None => Keep::Last,
    };
    TrainConfig {
        epochs: args.length.epochs,
        batch: args.length.batch.map_or(model.fixed_batch().unwrap_or(BATCH), |it| it as usize),
        accumulate: args.length.accumulate as usize,
        last_batch: match args.length.last_batch {
            LastBatchArg::Keep => LastBatch::Keep,
            LastBatchArg::Drop => LastBatch::Drop,
        },
        method: method(args),
        schedule: schedule(args, start),
        decay: Decay {
            weight: args.optimizer.weight_decay.unwrap_or(match args.optimizer.optimizer {
                OptimizerArg::Sgd => 1e-4,
                OptimizerArg::AdamW => 1e-2,
            }) as f32,
            all: args.optimizer.decay_all,
            except: args.optimizer.no_decay.clone(),
        },
        freeze: args.optimizer.freeze.clone(),
        batch_norm: match args.optimizer.batch_norm {
            BatchNormArg::Train => BatchNorm::Train,
            BatchNormArg::Frozen => BatchNorm::Frozen,
        },
        objective: objective(args),
        clip: args.optimizer.clip,
        crop: args.images.crop.into(),
        flip: args.images.flip,
        keep,
        seed,
    }
}

/// Refuses options that would change nothing.
fn check(args: &TrainArgs) -> Result<(), Error> {
    let (optimizer, schedule, loss) = (&args.optimizer, &args.schedule, &args.loss);
    let [sgd, adamw] = [OptimizerArg::Sgd, OptimizerArg::AdamW].map(|it| optimizer.optimizer == it);
    let step = schedule.schedule == ScheduleArg::Step;
    let cosine = schedule.schedule == ScheduleArg::Cosine;
    let entropy = loss.loss == LossArg::CrossEntropy;
    let options = [
        ("--momentum", optimizer.momentum.is_some(), sgd, "--optimizer sgd"),
        ("--nesterov", optimizer.nesterov, sgd, "--optimizer sgd"),
        ("--beta1", optimizer.beta1.is_some(), adamw, "--optimizer adamw"),
        ("--beta2", optimizer.beta2.is_some(), adamw, "--optimizer adamw"),
        ("--epsilon", optimizer.epsilon.is_some(), adamw, "--optimizer adamw"),
        ("--final-rate", schedule.final_rate.is_some(), cosine, "--schedule cosine"),
        ("--milestones", !schedule.milestones.is_empty(), step, "--schedule step"),
        ("--factor", schedule.factor.is_some(), step, "--schedule step"),
        ("--temperature", loss.temperature.is_some(), entropy, "--loss cross-entropy"),
        ("--mix", loss.mix.is_some(), entropy, "--loss cross-entropy"),
    ];
    match options.into_iter().find(|(_, given, applies, _)| *given && !applies) {
        Some((name, _, _, with)) => {
            Err(Error::Usage(format!("{name} has no meaning without {with}")))
        }
        None => Ok(()),
    }
}

fn method(args: &TrainArgs) -> Method {
    let it = &args.optimizer;
    match it.optimizer {
        OptimizerArg::Sgd => {
            Method::Sgd { momentum: it.momentum.unwrap_or(0.9) as f32, nesterov: it.nesterov }
        }
        OptimizerArg::AdamW => Method::AdamW {
            beta1: it.beta1.unwrap_or(0.9) as f32,
            beta2: it.beta2.unwrap_or(0.999) as f32,
            epsilon: it.epsilon.unwrap_or(1e-8) as f32,
        },
    }
}

fn schedule(args: &TrainArgs, start: Start) -> Schedule {
    let it = &args.schedule;
    let peak = match (args.optimizer.optimizer, start) {
        (OptimizerArg::Sgd, Start::File) => 1e-2,
        (OptimizerArg::Sgd, Start::Random) => 1e-1,
        (OptimizerArg::AdamW, Start::File) => 1e-4,
        (OptimizerArg::AdamW, Start::Random) => 1e-3,
    };
    let shape = match it.schedule {
        ScheduleArg::Constant => Shape::Constant,
        ScheduleArg::Step => {
            Shape::Step { milestones: it.milestones.clone(), factor: it.factor.unwrap_or(0.1) }
        }
        ScheduleArg::Cosine => Shape::Cosine,
        ScheduleArg::OneCycle => Shape::OneCycle,
    };
    Schedule {
        peak: it.rate.unwrap_or(peak),
        shape,
        warmup: it.warmup,
        last: it.final_rate.unwrap_or(0.0),
    }
}

fn objective(args: &TrainArgs) -> Objective {
    let it = &args.loss;
    let distillation =
        Distillation { temperature: it.temperature.unwrap_or(4.0), mix: it.mix.unwrap_or(0.9) };
    Objective {
        loss: match it.loss {
            LossArg::CrossEntropy => Loss::CrossEntropy,
            LossArg::Mse => Loss::Mse,
        },
        label_smoothing: it.label_smoothing,
        distillation: it.teacher.as_ref().map(|_| distillation),
    }
}

fn table(outcome: &Outcome) -> Table {
    let Outcome { metrics, seconds, samples_per_s, .. } = outcome;
    let mut table = Table::new([Column::text(""), Column::text("")]);
    let mut row = |name: &str, text: String| {
        table.row([name.to_owned(), text]);
    };
    let top1 = |it: &Evaluation| {
        let (low, high) = (format::percent(it.top1_low), format::percent(it.top1_high));
        format!("{} (95 % interval {low} to {high})", format::percent(it.top1))
    };
    if let (Some(before), Some(after)) = (&metrics.before, &metrics.after) {
        row("top-1 before", top1(before));
        row("top-1 after", top1(after));
        row("test samples", format::count(after.samples as u64));
        if let Some(it) = after.agreement {
            row("same class as before", format::percent(it));
        }
    }
    let measured = |loss: Option<f64>, accuracy: Option<f64>| {
        loss.map(|loss| match accuracy {
            Some(it) => format!("loss {loss:.4}, {}", format::percent(it)),
            None => format!("loss {loss:.4}"),
        })
    };
    if let Some(it) = measured(metrics.validation_loss, metrics.validation_accuracy) {
        row("validation", it);
    }
    if let Some(it) = measured(metrics.loss, metrics.accuracy) {
        row("last epoch of training", it);
    }
    row("epoch kept", format!("{} of {}", metrics.kept, metrics.epochs));
    row(
        "time",
        format!("{}, {samples_per_s:.0} training samples a second", format::seconds(*seconds)),
    );
    table
}

/// Tells a person, and the log, how a training goes.
struct Teller<'a> {
    progress: &'a dyn Progress,
    epochs: u32,
    log: Option<Log>,
    began: Instant,
    /// Samples seen.
    samples: u64,
    /// Samples and seconds when the last line was logged.
    logged: (u64, f64),
}

/// A line of the log.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line {
    /// Means over the iterations since the line before.
    Iteration {
        epoch: u32,
        iteration: u64,
        rate: f64,
        gradient_norm: f64,
        loss: f64,
        accuracy: Option<f64>,
        samples_per_s: f64,
        seconds: f64,
    },
    /// Means over an epoch.
    Epoch {
        epoch: u32,
        iteration: u64,
        loss: Option<f64>,
        accuracy: Option<f64>,
        validation_loss: Option<f64>,
        validation_accuracy: Option<f64>,
        best: bool,
        seconds: f64,
    },
}

impl<'a> Teller<'a> {
    #[expect(clippy::disallowed_methods, reason = "the command line is where clocks are read")]
    fn new(progress: &'a dyn Progress, epochs: u32, log: Option<Log>) -> Self {
        Teller { progress, epochs, log, began: Instant::now(), samples: 0, logged: (0, 0.0) }
    }

    fn log(&mut self, line: &Line) -> Result<(), Error> {
        self.log.as_mut().map_or(Ok(()), |it| it.write(line))
    }
}

fn words(mean: &Mean) -> String {
    match mean.accuracy {
        Some(it) => format!("loss {:.4}, {it:.2} %", mean.loss),
        None => format!("loss {:.4}", mean.loss),
    }
}

impl Telling for Teller<'_> {
    fn seconds(&mut self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn step(&mut self, step: &TrainStep) -> Result<(), Error> {
        self.samples += step.mean.samples;
        self.progress.note(&format!(
            "epoch {}/{}: {}",
            step.epoch,
            self.epochs,
            words(&step.epoch_mean)
        ));
        let Some(mean) = step.window else { return Ok(()) };
        let seconds = self.seconds();
        let since = (self.samples - self.logged.0) as f64 / (seconds - self.logged.1).max(1e-9);
        self.logged = (self.samples, seconds);
        self.log(&Line::Iteration {
            epoch: step.epoch,
            iteration: step.iteration,
            rate: step.rate,
            gradient_norm: step.norm,
            loss: mean.loss,
            accuracy: mean.accuracy,
            samples_per_s: since,
            seconds,
        })
    }

    fn epoch(&mut self, epoch: &Epoch) -> Result<(), Error> {
        let seconds = self.seconds();
        let validation =
            epoch.validation.map(|it| format!("validation {}", words(&it))).unwrap_or_default();
        let parts = [epoch.train.as_ref().map(words).unwrap_or_default(), validation];
        let parts: Vec<_> = parts.into_iter().filter(|it| !it.is_empty()).collect();
        if !parts.is_empty() {
            let best = if epoch.best { ", the best so far" } else { "" };
            self.progress.line(&format!(
                "epoch {}/{}: {}{best} ({})",
                epoch.epoch,
                self.epochs,
                parts.join("; "),
                format::seconds(seconds)
            ));
        }
        self.log(&Line::Epoch {
            epoch: epoch.epoch,
            iteration: epoch.iteration,
            loss: epoch.train.map(|it| it.loss),
            accuracy: epoch.train.and_then(|it| it.accuracy),
            validation_loss: epoch.validation.map(|it| it.loss),
            validation_accuracy: epoch.validation.and_then(|it| it.accuracy),
            best: epoch.best,
            seconds,
        })
    }
}

/// A file of one JSON object a line; it is there from the first line on.
struct Log {
    path: PathBuf,
    resume: bool,
    file: Option<File>,
}

impl Log {
    /// A log to be, or (with `resume`) one to go on with.
    fn new(path: &Path, resume: bool, force: bool) -> Result<Self, Error> {
        sartor::check_output(path, force || resume)?;
        Ok(Log { path: path.to_owned(), resume, file: None })
    }

    fn write(&mut self, line: &Line) -> Result<(), Error> {
        let text = serde_json::to_string(line).map_err(|it| Error::Bug(it.to_string()))?;
        let result = self.open().and_then(|mut it| writeln!(it, "{text}"));
        result.map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    fn open(&mut self) -> std::io::Result<&File> {
        let file = match self.file.take() {
            Some(it) => it,
            None if self.resume => File::options().create(true).append(true).open(&self.path)?,
            None => File::create(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}
