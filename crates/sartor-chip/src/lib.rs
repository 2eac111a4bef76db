//! Chips as data: what a chip computes, how fast, in which arithmetic, and who says so.
//!
//! A chip is a TOML file. Every number in it is a [`Figure`]: a value with a unit, a [`Provenance`] and a [`Confidence`];
//! a file with an unsourced number is refused. Errors carry the byte span of the faulty text, so that a face can underline it.
//! The crate never names a graph: it answers questions about arithmetic, memories and operators by name.
//!
//! ```
//! use sartor_chip::{NumberType, find, library};
//!
//! let chip = find("arm-ethos-u55-128")?;
//! assert!(chip.float_mode().is_none(), "this chip has no float arithmetic");
//! let mode = chip.mode(NumberType::I8, NumberType::I8).expect("it multiplies int8");
//! // A 1×1 convolution from 33 to 32 channels occupies the array as if it read 64 channels.
//! assert_eq!(mode.align.value.mac_slots(33, 1, 32, 256).0, 64 * 32 * 256);
//! println!("{}: {} peak, {}", chip.name, chip.peak(mode), mode.macs_per_cycle.provenance);
//! assert_eq!(library().len(), 6);
//! # Ok::<(), sartor_chip::ChipError>(())
//! ```
//!
//! The schema is described key by key in `docs/adding-a-chip.md`.

mod chip;
mod compute;
mod deploy;
mod error;
mod figure;
mod library;
mod lint;
mod memory;
mod number;
mod quantization;
mod questions;
mod reader;
mod sparsity;
mod suggest;
mod units;
mod words;

pub use chip::{Chip, Class, Overhead, Power, SCHEMA};
pub use compute::{
    Accumulator, Align, Compute, ComputeModel, Depthwise, EthosU, Mode, OpRate, Overflow,
    Reduction, Systolic, Tile,
};
pub use deploy::{Artefact, Deploy, Fallback, Operators, Quirk};
pub use error::{ChipError, Fault};
pub use figure::{Confidence, Figure, Provenance};
pub use library::{LibraryEntry, find, library};
pub use lint::{Finding, lint};
pub use memory::{Content, Memory};
pub use number::NumberType;
pub use quantization::{Granularity, Quantization, Rounding, ScaleKind, Scheme};
pub use sparsity::{Axis, Codec, SparsityPattern, WeightStore};
pub use units::{
    Bytes, BytesPerSecond, Cycles, Hertz, Joules, Macs, MacsPerSecond, Seconds, Watts,
};
