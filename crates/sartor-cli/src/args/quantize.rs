//! What `quantize` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::number;

/// `quantize MODEL --data SPEC -o FILE`
#[derive(Debug, Args)]
pub(crate) struct Quantize {
    /// The network, an ONNX file
    pub(crate) model: PathBuf,
    /// The data spec; its split `calibration` is used
    #[arg(long, value_name = "SPEC")]
    pub(crate) data: PathBuf,
    /// Take the chip's scheme: a library id or a chip file ending in .toml
    #[arg(long, value_name = "ID")]
    pub(crate) chip: Option<String>,
    /// Type of the weights; the chip's, or else int8
    #[arg(long, value_enum)]
    pub(crate) weights: Option<WeightArg>,
    /// Type of the activations; the chip's, or else uint8
    #[arg(long, value_enum)]
    pub(crate) activations: Option<ActivationArg>,
    /// How 4-bit weights are stored; packed if not given
    #[arg(long, value_enum)]
    pub(crate) storage: Option<StorageArg>,
    /// One scale for every N weights in a row along the reduction, 16 to 256
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(16..=256), allow_negative_numbers = true)]
    pub(crate) block: Option<u16>,
    /// One scale for each weight tensor instead of one for each output channel
    #[arg(long, conflicts_with = "block")]
    pub(crate) per_tensor: bool,
    /// Activations with zero in the middle of their range
    #[arg(long)]
    pub(crate) symmetric: bool,
    /// Which numbers scales may be; what the chip applies, or else float
    #[arg(long, value_enum)]
    pub(crate) scales: Option<ScaleArg>,
    /// How ranges of activations are found
    #[arg(long, value_enum, default_value_t = Ranges::MinMax)]
    pub(crate) ranges: Ranges,
    /// Share of the elements inside the range, in percent, for `--ranges percentile`
    #[arg(long, value_name = "PERCENT", default_value_t = 99.99, value_parser = number::percentile, allow_negative_numbers = true)]
    pub(crate) percentile: f64,
    /// Leave these nodes float
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub(crate) skip: Vec<String>,
    /// What is done to win accuracy back
    #[arg(long, value_enum, default_value_t = Recover::None)]
    pub(crate) recover: Recover,
    /// Steps of the optimizer for each block, for `--recover best`
    #[arg(long, value_name = "N", default_value_t = sartor::Reconstruct::default().iterations)]
    pub(crate) recover_steps: usize,
    /// Where to write the network
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// What wins accuracy back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Recover {
    /// Nothing: weights are rounded to nearest
    None,
    /// Ranges of channels are equalized before, and biases corrected afterwards; takes seconds
    Fast,
    /// Weights are rounded anew, block by block, with scales and biases fitted; takes minutes
    Best,
}

/// Weight types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightArg {
    /// 16 bits, symmetric; opset 21
    Int16,
    /// 8 bits, symmetric
    Int8,
    /// -63 to 63 in bytes: safe on x86 processors without VNNI
    Int7,
    /// 8 bits around 128, or with a zero point if per tensor
    Uint8,
    /// 4 bits, symmetric; opset 21 unless in bytes
    Int4,
    /// 4 bits with a zero point; opset 21
    Uint4,
    /// -2 to 1, in bytes
    Int2,
    /// -1, 0 and 1, in bytes
    Ternary,
    /// -1 and 1, in bytes
    Binary,
}

/// Activation types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActivationArg {
    /// 0 to 255 with a zero point: what ONNX Runtime runs fast
    Uint8,
    /// -128 to 127 with a zero point
    Int8,
    /// 16 bits with a zero point; opset 21
    Uint16,
    /// 16 bits with a zero point; opset 21
    Int16,
    /// 4 bits with a zero point; opset 21
    Uint4,
    /// 4 bits with a zero point; opset 21
    Int4,
    /// As they are: only weights are quantized
    Float32,
}

/// How 4-bit weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageArg {
    /// Two to a byte, as ONNX's own types
    Packed,
    /// One to a byte, as int8 that uses 4 bits: for integer kernels of 8 bits
    Bytes,
}

/// Which numbers scales may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScaleArg {
    /// Any float
    Float,
    /// Powers of two: fixed-point numbers, rescaled by shifts
    Pow2,
}

/// Range methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ranges {
    /// Smallest to largest
    MinMax,
    /// What holds --percentile of the elements
    Percentile,
    /// Least squared error
    Mse,
    /// Means of the smallest and largest elements of single samples
    MovingAverage,
    /// Least relative entropy
    Entropy,
    /// The formula for a Laplace or Gauss distribution
    Analytic,
    /// By trial, for each activation the method after which the layers that read it err least
    Auto,
}
