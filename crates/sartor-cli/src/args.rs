//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::number;

mod quantize;
mod training;

pub(crate) use quantize::{
    ActivationArg, Quantize, Ranges, Recover, ScaleArg, StorageArg, WeightArg,
};
pub(crate) use training::{
    BatchNormArg, Finetune, KeepArg, LastBatchArg, LossArg, OptimizerArg, ScheduleArg, Train,
    TrainArgs,
};

const AFTER: &str = "\
Environment:
  SARTOR_SIMD  the richest instructions that kernels use: avx512, avx2 or portable; the
               processor's best if not set
  NO_COLOR     if set, `--color auto` means never

Exit codes:
  0  done
  1  a limit could not be met (the best artefact and the reason are written), or outputs are
     not those of --expect
  2  wrong usage
  3  input cannot be read or is not valid
  4  not supported
  5  output cannot be written
  70 a fault of Sartor
  130 interrupted";

/// Cuts a trained neural network to fit a chip.
#[derive(Debug, Parser)]
#[command(name = "sartor", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// How results are printed on standard output
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Say nothing but results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Threads to use; all cores if not given
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,
    /// Seed of every random choice, kept in recipes and reports; only training and `--recover best` draw by chance yet
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(crate) seed: u64,
    /// Whether to colour the output; `auto` looks at the terminal and `NO_COLOR`
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Overwrite files that exist
    #[arg(long, global = true)]
    pub(crate) force: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people
    Text,
    /// One JSON value, SI units
    Json,
}

/// Whether to colour the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// If standard output is a terminal and `NO_COLOR` is not set
    Auto,
    /// Yes
    Always,
    /// No
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what is in a network file and what can be done with it
    Inspect(Inspect),
    /// Read a network and write it again, with the same function
    Convert(Convert),
    /// Run a network on arrays, and compare what comes out with what is expected
    Run(Run),
    /// Measure accuracy on a data split, with its 95 % interval
    Evaluate(Evaluate),
    /// Measure latency and throughput on this machine, by step
    ///
    /// Rates count the multiply-accumulates of an operator's definition. A kernel that gets by with fewer
    /// multiplications (Winograd's for 3 × 3 convolutions) may exceed the peak, which is that of a matrix product
    /// measured in the same run.
    Bench(Bench),
    /// Measure this machine and write a chip file with its figures
    ///
    /// Generated micro-networks are timed on Sartor's engine, or by a command on another runtime, and the chip's figures are
    /// solved for by non-negative least squares. One of five networks is only predicted; how far that is off is reported.
    Fit(Fit),
    /// List the chips, show one, or check a chip file
    Chips(Chips),
    /// Estimate what a network costs on a chip, and what binds it
    Analyze(Analyze),
    /// List the groups of channels that live and die together
    Groups(GroupsArgs),
    /// Quantize a trained network to few bits without training
    Quantize(Quantize),
    /// Remove whole channels down to a share of the cost
    Prune(Prune),
    /// Train a network further, on labels or on what a teacher says
    Finetune(Finetune),
    /// Train a network from random numbers
    Train(Train),
    /// Fit a network to a chip: choose, order, apply, verify, report
    Compress(Compress),
    /// Replay a recipe to the same bytes
    Apply(Apply),
    /// Go the whole way on embedded data: handwritten digits and a small network
    Demo(Demo),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// `inspect MODEL`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
}

/// `convert IN OUT`
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The network, an ONNX file
    pub(crate) input: PathBuf,
    /// Where to write it
    pub(crate) output: PathBuf,
}

/// `run MODEL --inputs IN [-o OUT.npz] [--expect EXPECTED]`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// Arrays named as the network's inputs (.npz), or a folder with `input_0.pb` and so on, in their order
    #[arg(long, value_name = "IN")]
    pub(crate) inputs: PathBuf,
    /// Where to write arrays named as the network's outputs
    #[arg(long, short, value_name = "OUT.npz", required_unless_present = "expect")]
    pub(crate) output: Option<PathBuf>,
    /// Compare the outputs with these (.npz, or a folder with `output_0.pb` and so on), and exit with 1 if they differ
    #[arg(long, value_name = "EXPECTED")]
    pub(crate) expect: Option<PathBuf>,
    /// Tolerated difference as a share of the expected number
    #[arg(long, value_name = "SHARE", requires = "expect", default_value_t = sartor::Tolerance::default().relative, value_parser = number::not_negative, allow_negative_numbers = true)]
    pub(crate) rtol: f64,
    /// Tolerated difference on top of --rtol
    #[arg(long, value_name = "DIFFERENCE", requires = "expect", default_value_t = sartor::Tolerance::default().absolute, value_parser = number::not_negative, allow_negative_numbers = true)]
    pub(crate) atol: f64,
}

/// `evaluate MODEL --data SPEC`
#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// The data spec, a TOML file
    #[arg(long, value_name = "SPEC")]
    pub(crate) data: PathBuf,
    /// A network to compare with, sample by sample
    #[arg(long, value_name = "FLOAT")]
    pub(crate) against: Option<PathBuf>,
    /// The split to measure on
    #[arg(long, default_value = "test")]
    pub(crate) split: String,
}

/// `bench MODEL`
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// Samples that run at once
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "inputs", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) batch: u32,
    /// Arrays to run on, as for `run`; needed where more than the batch is open
    #[arg(long, value_name = "IN")]
    pub(crate) inputs: Option<PathBuf>,
    /// Runs to measure
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) rounds: u32,
}

/// `fit [--runtime-cmd CMD] -o CHIP.toml`
#[derive(Debug, Args)]
pub(crate) struct Fit {
    /// A command that times networks on another runtime
    ///
    /// `{model}` in it stands for the path of one network: the command is called for each and prints the milliseconds of
    /// one run. `{list}` stands for the path of a text file that names one network a line: the command is called for many
    /// at once and prints one line for each, in their order. `nan` is said of a network that the runtime does not run.
    #[arg(long, value_name = "CMD")]
    pub(crate) runtime_cmd: Option<String>,
    /// What the chip file calls the runtime; the command's program if not given
    #[arg(long, value_name = "NAME", requires = "runtime_cmd")]
    pub(crate) runtime_name: Option<String>,
    /// Where to write the chip file; its name is the chip's id
    #[arg(long, short, value_name = "CHIP.toml")]
    pub(crate) output: PathBuf,
}

/// `chips [ID]`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Chips {
    /// Show this chip, a library id or a chip file ending in .toml, with all its figures and their sources
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) filter: ChipFilter,
    #[command(subcommand)]
    pub(crate) command: Option<ChipsCommand>,
}

/// Which chips of the library are listed.
#[derive(Debug, Args)]
pub(crate) struct ChipFilter {
    /// List only chips of this class
    #[arg(long, value_parser = ["gpu", "cpu", "npu", "mcu", "cim"], conflicts_with = "id")]
    pub(crate) class: Option<String>,
    /// List only chips of makers whose names hold this
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    pub(crate) vendor: Option<String>,
    /// List only chips that multiply this type, as `int8` or `f16`
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "id")]
    pub(crate) number: Option<sartor::NumberType>,
    /// List only chips that n:m sparsity makes faster
    #[arg(long, conflicts_with = "id")]
    pub(crate) sparsity: bool,
    /// List only chips of which names, notes, toolchain or quirks hold all these words
    #[arg(long, value_name = "WORDS", conflicts_with = "id")]
    pub(crate) search: Option<String>,
}

/// `chips check FILE…`, `chips diff A B`
#[derive(Debug, Subcommand)]
pub(crate) enum ChipsCommand {
    /// Check chip files for faults and contradictions
    Check {
        /// The chip files, TOML
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show the figures in which two chips differ
    Diff {
        /// A chip: a library id or a chip file ending in .toml
        #[arg(value_name = "A")]
        first: String,
        /// The chip that it is compared with
        #[arg(value_name = "B")]
        second: String,
    },
}

/// `analyze MODEL --chip ID[,ID…]`
#[derive(Debug, Args)]
pub(crate) struct Analyze {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// Chips by id, or chip files ending in .toml
    #[arg(long, value_name = "ID", required = true, value_delimiter = ',')]
    pub(crate) chip: Vec<String>,
    /// Samples that run at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) batch: u32,
    /// Assume these types instead of the file's, as `int8` or `float16`
    #[arg(long = "as", value_name = "TYPE")]
    pub(crate) assume: Option<String>,
    /// Also write one self-contained HTML page with the roofline of every chip
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// `groups MODEL`
#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
}

/// `prune MODEL (--macs SHARE | --slots SHARE) -o FILE`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("goal").required(true).args(["macs", "slots"]))]
#[command(group = clap::ArgGroup::new("array").required(true).args(["chip", "grain"]))]
pub(crate) struct Prune {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// Share of the multiply-accumulates to keep
    #[arg(long, value_name = "SHARE", value_parser = number::share, allow_negative_numbers = true)]
    pub(crate) macs: Option<f64>,
    /// Share of the MAC slots (MACs rounded up to the array) to keep
    #[arg(long, value_name = "SHARE", value_parser = number::share, allow_negative_numbers = true)]
    pub(crate) slots: Option<f64>,
    /// Take grain and array of this chip: a library id or a chip file ending in .toml
    #[arg(long, value_name = "ID")]
    pub(crate) chip: Option<String>,
    /// Remove channels in multiples of N; slots are those of an N×N array
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    pub(crate) grain: Option<u32>,
    /// Restore means and spreads of the layers on the split `calibration` of this data spec
    #[arg(long, value_name = "SPEC")]
    pub(crate) data: Option<PathBuf>,
    /// How channels are compared
    #[arg(long, value_enum, default_value_t = CriterionArg::L2)]
    pub(crate) criterion: CriterionArg,
    /// Where to write the network
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Importance criteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CriterionArg {
    /// Sum of magnitudes
    L1,
    /// Euclidean norm
    L2,
}

/// `compress MODEL --chip ID --data SPEC -o DIR`
#[derive(Debug, Args)]
pub(crate) struct Compress {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// The chip: a library id or a chip file ending in .toml
    #[arg(long, value_name = "ID")]
    pub(crate) chip: String,
    /// The data spec with the splits `calibration` and `test`; candidates are compared on `validation` or,
    /// without it, on part of `train`
    #[arg(long, value_name = "SPEC")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// The folder to write: model.onnx, recipe.toml, report.json, report.html
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

/// Limits of `compress`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitArgs {
    /// Points of top-1 accuracy that may be lost
    #[arg(long, value_name = "PTS", default_value_t = sartor::DEFAULT_DROP, value_parser = number::percent, allow_negative_numbers = true)]
    pub(crate) max_drop: f64,
    /// Least top-1 accuracy, in percent
    #[arg(long, value_name = "PERCENT", value_parser = number::percent, allow_negative_numbers = true)]
    pub(crate) min_accuracy: Option<f64>,
    /// Largest estimated latency, in milliseconds
    #[arg(long, value_name = "MS", value_parser = number::positive, allow_negative_numbers = true)]
    pub(crate) max_latency: Option<f64>,
    /// Largest file, in bytes
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(crate) max_size: Option<u64>,
    /// Largest estimated working memory of the activations, in bytes
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(crate) max_ram: Option<u64>,
}

/// `apply MODEL RECIPE -o DIR`
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// The recipe, a TOML file
    pub(crate) recipe: PathBuf,
    /// The data spec, for steps that run the network on samples
    #[arg(long, value_name = "SPEC")]
    pub(crate) data: Option<PathBuf>,
    /// The folder to write: model.onnx, recipe.toml
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

/// `demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The chip to fit to: a library id or a chip file ending in .toml
    #[arg(long, value_name = "ID", default_value = "arm-ethos-u55-128")]
    pub(crate) chip: String,
    /// Write the artefacts to this folder
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// `completions SHELL`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
