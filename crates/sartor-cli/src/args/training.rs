//! What `finetune` and `train` take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sartor::Every;

use crate::number;

/// `finetune MODEL --data SPEC -o FILE`
#[derive(Debug, Args)]
pub(crate) struct Finetune {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) training: TrainArgs,
}

/// `train ARCH --data SPEC -o FILE`
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// The architecture, an ONNX file; its numbers are not looked at
    pub(crate) arch: PathBuf,
    #[command(flatten)]
    pub(crate) training: TrainArgs,
}

/// Options of both.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The data spec; its split `test`, if it has labels, is measured before and after
    #[arg(long, value_name = "SPEC")]
    pub(crate) data: PathBuf,
    /// The split to learn from
    #[arg(long, value_name = "NAME", default_value = "train")]
    pub(crate) split: String,
    /// Hold out this share of it to judge epochs on, of each class as much as of the whole; if not given,
    /// the split `validation` is used where there is one
    #[arg(long, value_name = "SHARE", value_parser = number::inner_share, allow_negative_numbers = true)]
    pub(crate) validation: Option<f64>,
    /// Where to write the network
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) length: LengthArgs,
    #[command(flatten)]
    pub(crate) optimizer: OptimizerArgs,
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    #[command(flatten)]
    pub(crate) loss: LossArgs,
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// How long, and in what pieces.
#[derive(Debug, Args)]
#[command(next_help_heading = "Length")]
pub(crate) struct LengthArgs {
    /// Times that all samples are seen
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) epochs: u32,
    /// Samples that run at once; the network's own number where it is bound to one, else 128
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576), allow_negative_numbers = true)]
    pub(crate) batch: Option<u32>,
    /// Batches that make one step of the optimizer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_048_576), allow_negative_numbers = true)]
    pub(crate) accumulate: u32,
    /// What becomes of samples that do not fill a batch
    #[arg(long, value_enum, default_value_t = LastBatchArg::Keep)]
    pub(crate) last_batch: LastBatchArg,
    /// Which epoch's numbers are written; `best` on the validation samples if there are any, else `last`
    #[arg(long, value_enum)]
    pub(crate) keep: Option<KeepArg>,
}

/// How numbers move.
#[derive(Debug, Args)]
#[command(next_help_heading = "Optimizer")]
pub(crate) struct OptimizerArgs {
    /// How numbers move along their gradients
    #[arg(long, value_enum, default_value_t = OptimizerArg::Sgd)]
    pub(crate) optimizer: OptimizerArg,
    /// Momentum of `sgd`; 0.9 if not given
    #[arg(long, value_name = "M", value_parser = number::below_one, allow_negative_numbers = true)]
    pub(crate) momentum: Option<f64>,
    /// Nesterov's momentum, for `sgd` only
    #[arg(long)]
    pub(crate) nesterov: bool,
    /// Decay of the gradient's mean, for `adamw`; 0.9 if not given
    #[arg(long, value_name = "B", value_parser = number::below_one, allow_negative_numbers = true)]
    pub(crate) beta1: Option<f64>,
    /// Decay of the mean of its square, for `adamw`; 0.999 if not given
    #[arg(long, value_name = "B", value_parser = number::below_one, allow_negative_numbers = true)]
    pub(crate) beta2: Option<f64>,
    /// What keeps the denominator above zero, for `adamw`; 1e-8 if not given
    #[arg(long, value_name = "E", value_parser = number::positive, allow_negative_numbers = true)]
    pub(crate) epsilon: Option<f64>,
    /// Weight decay; if not given, 0.0001 for `sgd` and 0.01 for `adamw`
    #[arg(long, value_name = "W", value_parser = number::not_negative, allow_negative_numbers = true)]
    pub(crate) weight_decay: Option<f64>,
    /// Let biases and the parameters of normalizations decay too
    #[arg(long)]
    pub(crate) decay_all: bool,
    /// Parameters that do not decay, by name, `*` for any part of it
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) no_decay: Vec<String>,
    /// Parameters that stay as they are, by name, `*` for any part of it
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) freeze: Vec<String>,
    /// Scale gradients down to this Euclidean norm
    #[arg(long, value_name = "NORM", value_parser = number::positive, allow_negative_numbers = true)]
    pub(crate) clip: Option<f64>,
    /// Whether batch normalization takes the statistics of the batch or those of the file
    #[arg(long, value_enum, default_value_t = BatchNormArg::Train)]
    pub(crate) batch_norm: BatchNormArg,
}

/// How the learning rate goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Schedule")]
pub(crate) struct ScheduleArgs {
    /// Highest learning rate; if not given, `finetune` takes 0.01 and `train` 0.1, with `adamw` 0.0001 and
    /// 0.001
    #[arg(long, value_name = "R", value_parser = number::positive, allow_negative_numbers = true)]
    pub(crate) rate: Option<f64>,
    /// How it falls
    #[arg(long, value_enum, default_value_t = ScheduleArg::Cosine)]
    pub(crate) schedule: ScheduleArg,
    /// Epochs over which it rises first
    #[arg(long, value_name = "EPOCHS", default_value_t = 0.0, value_parser = number::not_negative, allow_negative_numbers = true)]
    pub(crate) warmup: f64,
    /// Where `cosine` ends; 0 if not given
    #[arg(long, value_name = "R", value_parser = number::not_negative, allow_negative_numbers = true)]
    pub(crate) final_rate: Option<f64>,
    /// Epochs after which `step` multiplies by --factor
    #[arg(long, value_name = "EPOCH", value_delimiter = ',', value_parser = number::not_negative, required_if_eq("schedule", "step"), allow_negative_numbers = true)]
    pub(crate) milestones: Vec<f64>,
    /// By what `step` multiplies; 0.1 if not given
    #[arg(long, value_name = "F", value_parser = number::positive, allow_negative_numbers = true)]
    pub(crate) factor: Option<f64>,
}

/// What is minimized.
#[derive(Debug, Args)]
#[command(next_help_heading = "Loss")]
pub(crate) struct LossArgs {
    /// How an answer is compared with the label, or with the teacher's answer
    #[arg(long, value_enum, default_value_t = LossArg::CrossEntropy)]
    pub(crate) loss: LossArg,
    /// Share of the label's probability that all classes divide among them
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = number::from_0_to_1, allow_negative_numbers = true)]
    pub(crate) label_smoothing: f64,
    /// A network to learn from, an ONNX file
    #[arg(long, value_name = "MODEL")]
    pub(crate) teacher: Option<PathBuf>,
    /// By what scores are divided before teacher and student are compared; 4 if not given
    #[arg(long, value_name = "T", value_parser = number::positive, requires = "teacher", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Share of the teacher in the loss, 0.9 if not given; 1 needs no labels
    #[arg(long, value_name = "SHARE", value_parser = number::from_0_to_1, requires = "teacher", allow_negative_numbers = true)]
    pub(crate) mix: Option<f64>,
}

/// What is done to images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images")]
pub(crate) struct ImageArgs {
    /// Pad images with so many black pixels and cut their size out at random
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4096), allow_negative_numbers = true)]
    pub(crate) crop: u16,
    /// Mirror images left to right at random
    #[arg(long)]
    pub(crate) flip: bool,
}

/// What is kept on the way.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files on the way")]
pub(crate) struct FileArgs {
    /// Keep a checkpoint in this folder, also when the run is interrupted
    #[arg(long, value_name = "DIR")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// How often, in minutes or epochs, as `10m` or `1e`
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = number::every, requires = "checkpoint")]
    pub(crate) checkpoint_every: Every,
    /// Go on from the checkpoint, with the same options; the result has the same bytes as without a pause
    #[arg(long, requires = "checkpoint")]
    pub(crate) resume: bool,
    /// Write one JSON object a line, every --log-every iterations and every epoch; `--resume` adds to it
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Iterations between two lines
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), requires = "log", allow_negative_numbers = true)]
    pub(crate) log_every: u32,
}

/// Optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OptimizerArg {
    /// Stochastic gradient descent with momentum
    Sgd,
    /// Adam with decoupled weight decay
    #[value(name = "adamw")]
    AdamW,
}

/// Schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleArg {
    /// Not at all
    Constant,
    /// By --factor at each of --milestones
    Step,
    /// Along half a period of the cosine, to --final-rate
    Cosine,
    /// Up over the first 30 % of the iterations, then down to almost nothing
    OneCycle,
}

/// Losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossArg {
    /// For one row of class scores for each sample; a softmax at the end is looked through
    CrossEntropy,
    /// Mean squared error: of any output against the teacher's, of classes against 1 for the label and 0
    Mse,
}

/// Batch normalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BatchNormArg {
    /// Statistics of the batch; the running ones follow
    Train,
    /// The statistics of the file
    Frozen,
}

/// The last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LastBatchArg {
    /// They make a smaller one; a network that is bound to a batch drops them
    Keep,
    /// They are left out; the next epoch leaves out others
    Drop,
}

/// Which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepArg {
    /// The best on the validation samples, the network as it was included
    Best,
    /// The last
    Last,
}
