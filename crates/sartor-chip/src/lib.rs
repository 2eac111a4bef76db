//! Chips as data: what a chip computes, how fast, in which arithmetic, and who says so.
//!
//! A chip is a TOML file. Every number in it is a [`Figure`]: a value with a unit, a [`Provenance`] and a [`Confidence`];
//! a file with an unsourced number is refused. Errors carry the byte span of the faulty text, so that a face can underline it.
//! A file may extend another, whole or layer by layer (*core*, *system*, *runtime*, *energy*), so that a new board is a few lines.
//! The crate never names a graph: it answers questions about arithmetic, memories and operators by name.
//!
//! ```
//! use sartor_chip::{NumberType, find, library};
//!
//! let chip = find("arm-ethos-u55-128")?;
//! assert!(chip.float_mode().is_none(), "this chip has no float arithmetic");
//! let mode = chip.mode(NumberType::I8, NumberType::I8).expect("it multiplies int8");
//! // A 1×1 convolution from 33 to 32 channels occupies the array as if it read 64 channels.
//! assert_eq!(mode.unroll.value.mac_slots(33, 1, 32, 256).0, 64 * 32 * 256);
//! println!("{}: {} peak, {}", chip.name, chip.peak(mode), mode.macs_per_cycle.provenance);
//! assert!(library().iter().any(|entry| entry.id == chip.id));
//! # Ok::<(), sartor_chip::ChipError>(())
//! ```
//!
//! The schema is described key by key in `docs/adding-a-chip.md`.

mod absent;
mod arithmetic;
mod chip;
mod core_layer;
mod crossbar;
mod energy;
mod engine;
mod entry;
mod error;
mod ethos_u;
mod figure;
mod library;
mod lint;
mod memory;
mod mode;
mod number;
mod operators;
mod questions;
mod reader;
mod resolve;
mod runtime;
mod sparsity;
mod suggest;
mod system;
mod tree;
mod units;
mod words;

pub use arithmetic::{Arithmetic, Granularity, LookupTable, Padding, Rounding, ScaleKind, Scheme};
pub use chip::{Chip, Class, SCHEMA};
pub use core_layer::Core;
pub use crossbar::{Cell, Crossbar, DriftLaw, Flicker, Noise, Relaxed, Sign};
pub use energy::{CrossbarEnergy, Energy, EnergyTable, MacEnergy, MemoryEnergy};
pub use engine::{Engine, EngineModel, OpRate, Systolic, Tile};
pub use entry::Entry;
pub use error::{ChipError, Document, Fault, Place};
pub use ethos_u::{EthosBuffers, EthosU, Granules, MicroBlock};
pub use figure::{Confidence, Figure, Provenance};
pub use library::{LibraryEntry, find, library, library_bases};
pub use lint::{Finding, lint};
pub use memory::{Content, Memory};
pub use mode::{Accumulator, Depthwise, Kernel, Mode, Overflow, ProductKind, Reduction, Unroll};
pub use number::NumberType;
pub use operators::{Fallback, Limit, OpFacts, Operators};
pub use resolve::Bases;
pub use runtime::{Artefact, Quirk, Runtime};
pub use sparsity::{Axis, Codec, SparsityPattern, WeightStore};
pub use system::System;
pub use units::{
    Bytes, BytesPerSecond, Cycles, Hertz, Joules, Macs, MacsPerSecond, Seconds, Watts,
};
