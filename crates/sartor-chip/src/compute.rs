//! What a chip multiplies: its array, and one mode per pair of number types.

use serde::Serialize;

use crate::error::{ChipError, Fault};
use crate::figure::Figure;
use crate::number::NumberType;
use crate::reader::{Bound, Section};
use crate::units::{Cycles, Joules, Macs};
use crate::words::{Word, words};

/// The compute part of a chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compute {
    /// Which family of cost formulas describes the array.
    pub model: ComputeModel,
    /// Cores (CPU cores, streaming multiprocessors, NPU cores).
    pub cores: Figure<u64>,
    /// What is multiplied how fast, in the file's order; never empty.
    pub modes: Vec<Mode>,
    /// Rates of single operators that the array does not set.
    pub op_rates: Vec<OpRate>,
}

/// The family of formulas that tells how well work fills the array.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ComputeModel {
    /// Padding to the alignment and the roofline, nothing more.
    Roofline,
    /// Vector units that walk the reduction, as in CPUs.
    Simd,
    /// Cores that each compute one output tile at a time: `waves = ⌈tiles / cores⌉`.
    DotTile {
        /// The output tile of one core.
        tile: Figure<Tile>,
    },
    /// A weight-stationary systolic array.
    Systolic {
        /// The array.
        array: Figure<Systolic>,
    },
    /// An Arm Ethos-U55 array, which computes one output micro-block at a time.
    EthosU {
        /// The micro-block.
        block: Figure<EthosU>,
    },
}

/// An output tile with the depth of one step of its reduction, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tile {
    /// Rows: batch × spatial positions.
    pub m: u64,
    /// Columns: output channels.
    pub n: u64,
    /// Reduction elements of one step.
    pub k: u64,
}

/// Size of a systolic array: the reduction runs along the rows, the outputs along the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Systolic {
    /// Rows of the array.
    pub rows: u64,
    /// Columns of the array.
    pub columns: u64,
}

/// Micro-block of an Ethos-U55; `width × height × depth × dot_width` is its MACs a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EthosU {
    /// Output columns of a micro-block.
    pub width: u64,
    /// Output rows of a micro-block.
    pub height: u64,
    /// Output channels of a micro-block.
    pub depth: u64,
    /// Reduction elements that one output takes in a cycle.
    pub dot_width: u64,
}

/// One pair of number types that the chip multiplies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mode {
    /// Number type of the weights.
    pub weights: NumberType,
    /// Number type of the activations.
    pub activations: NumberType,
    /// MACs a cycle of the whole chip, dense.
    pub macs_per_cycle: Figure<f64>,
    /// The share of the peak that well-shaped work reaches (its own, else the chip's `peak_efficiency`).
    pub efficiency: Figure<f64>,
    /// Where products are summed.
    pub accumulator: Accumulator,
    /// How work is rounded up to the array.
    pub align: Figure<Align>,
    /// A second way to lay work on the array, if the toolchain takes the better of two.
    pub alternative: Option<Figure<Align>>,
    /// Depthwise convolution, where it fills the array differently. Absent: `align` with a reduction of one channel.
    pub depthwise: Option<Depthwise>,
    /// The multiple to which channels are worth pruning.
    pub grain: Figure<u64>,
    /// Energy of one MAC. Absent: unknown.
    pub energy_per_mac: Option<Figure<Joules>>,
}

/// The register in which products are summed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accumulator {
    /// Width in bits.
    pub bits: Figure<u64>,
    /// What happens beyond the width.
    pub overflow: Overflow,
}

words! {
    /// What an accumulator does beyond its width.
    Overflow {
        /// Two's complement wrap-around.
        Wrap = "wrap",
        /// It stays at the largest or smallest value.
        Saturate = "saturate",
        /// Floating point: it rounds, and overflows to infinity.
        Float = "float",
        /// Nobody states it: an overflow must not happen.
        Unknown = "unknown",
    }
}

words! {
    /// Over which elements the reduction is rounded up.
    Reduction {
        /// Input channels alone; the taps of the kernel are walked one by one.
        Channels = "channels",
        /// Input channels × taps together, as after im2col.
        Patch = "patch",
    }
}

/// Hard rounding of work to an array; each absent key is 1 (no rounding), an absent `reduction` is `channels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Align {
    /// Multiple of the reduction (of channels, or of channels × taps: see `reduction`).
    pub k: u64,
    /// Multiple of the kernel's taps.
    pub taps: u64,
    /// Multiple of the output channels.
    pub n: u64,
    /// Multiple of the output positions (batch × height × width).
    pub m: u64,
    /// What `k` rounds.
    pub reduction: Reduction,
}

impl Align {
    /// MACs rounded up to the array, of a convolution or matrix product with `channels` inputs to each output (the channels of
    /// one group), `taps` kernel elements, `outputs` output channels and `positions` output positions:
    /// `⌈channels⌉ₖ · ⌈taps⌉ · ⌈outputs⌉ₙ · ⌈positions⌉ₘ`, saturating.
    pub fn mac_slots(&self, channels: u64, taps: u64, outputs: u64, positions: u64) -> Macs {
        let up = |count: u64, multiple: u64| {
            count.div_ceil(multiple.max(1)).saturating_mul(multiple.max(1))
        };
        let reduction = match self.reduction {
            Reduction::Channels => up(channels, self.k).saturating_mul(up(taps, self.taps)),
            Reduction::Patch => up(channels.saturating_mul(up(taps, self.taps)), self.k),
        };
        Macs(reduction.saturating_mul(up(outputs, self.n)).saturating_mul(up(positions, self.m)))
    }

    const KEYS: &'static [&'static str] = &["k", "taps", "n", "m", "reduction"];

    fn read(section: &Section<'_>) -> Result<Figure<Self>, ChipError> {
        section.figure(Self {
            k: section.plain_count("k", Some(1))?,
            taps: section.plain_count("taps", Some(1))?,
            n: section.plain_count("n", Some(1))?,
            m: section.plain_count("m", Some(1))?,
            reduction: section.maybe_word("reduction")?.unwrap_or(Reduction::Channels),
        })
    }
}

/// How depthwise convolution runs: a reduction of one channel, over the kernel's taps only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Depthwise {
    /// MACs a cycle of the whole chip in depthwise work.
    pub macs_per_cycle: Figure<f64>,
    /// How depthwise work is rounded up; `n` rounds the channels.
    pub align: Figure<Align>,
}

/// The rate at which some operators produce output elements.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpRate {
    /// Operators, by their ONNX names or `DepthwiseConv`.
    pub ops: Vec<String>,
    /// Cycles for each output element; for operators that multiply too, a lower bound beside the array's time.
    pub cycles_per_element: Figure<Cycles>,
}

/// The words of `compute.model`; what belongs to each is read from a table beside it.
#[derive(Clone, Copy)]
enum ModelWord {
    Roofline,
    Simd,
    DotTile,
    Systolic,
    EthosU,
}

impl Word for ModelWord {
    const ALL: &'static [(&'static str, Self)] = &[
        ("roofline", Self::Roofline),
        ("simd", Self::Simd),
        ("dot_tile", Self::DotTile),
        ("systolic", Self::Systolic),
        ("ethos_u", Self::EthosU),
    ];
}

impl Compute {
    pub(crate) const KEYS: &'static [&'static str] =
        &["model", "cores", "peak_efficiency", "tile", "array", "block", "mode", "op"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let model = ComputeModel::read(section)?;
        let cores = section.count("cores")?;
        let efficiency = section.number("peak_efficiency", Bound::Positive)?;
        let modes = section.sections("mode", Mode::KEYS)?;
        let modes = modes
            .iter()
            .map(|mode| Mode::read(mode, &efficiency))
            .collect::<Result<Vec<_>, _>>()?;
        if modes.is_empty() {
            let missing = Fault::MissingKey("at least one [[compute.mode]]");
            return Err(section.fault("mode", missing, None));
        }
        let op_rates = section.sections("op", &["ops", "cycles_per_element"])?;
        let op_rates = op_rates.iter().map(OpRate::read).collect::<Result<_, _>>()?;
        Ok(Self { model, cores, modes, op_rates })
    }
}

impl ComputeModel {
    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        Ok(match section.word("model")? {
            ModelWord::Roofline => Self::Roofline,
            ModelWord::Simd => Self::Simd,
            ModelWord::DotTile => {
                let tile = section.section("tile", &["m", "n", "k"])?;
                let [m, n, k] = counts(&tile, ["m", "n", "k"])?;
                Self::DotTile { tile: tile.figure(Tile { m, n, k })? }
            }
            ModelWord::Systolic => {
                let array = section.section("array", &["rows", "columns"])?;
                let [rows, columns] = counts(&array, ["rows", "columns"])?;
                Self::Systolic { array: array.figure(Systolic { rows, columns })? }
            }
            ModelWord::EthosU => {
                let keys = ["width", "height", "depth", "dot_width"];
                let block = section.section("block", &keys)?;
                let [width, height, depth, dot_width] = counts(&block, keys)?;
                Self::EthosU { block: block.figure(EthosU { width, height, depth, dot_width })? }
            }
        })
    }
}

fn counts<const N: usize>(section: &Section<'_>, keys: [&str; N]) -> Result<[u64; N], ChipError> {
    let mut counts = [0; N];
    for (count, key) in counts.iter_mut().zip(keys) {
        *count = section.plain_count(key, None)?;
    }
    Ok(counts)
}

impl Mode {
    const KEYS: &'static [&'static str] = &[
        "weights",
        "activations",
        "macs_per_cycle",
        "efficiency",
        "accumulator_bits",
        "overflow",
        "align",
        "alternative",
        "depthwise",
        "grain",
        "energy_pj_per_mac",
    ];

    fn read(section: &Section<'_>, peak_efficiency: &Figure<f64>) -> Result<Self, ChipError> {
        let align =
            |key| section.maybe_section(key, Align::KEYS)?.as_ref().map(Align::read).transpose();
        Ok(Self {
            weights: section.word("weights")?,
            activations: section.word("activations")?,
            macs_per_cycle: section.number("macs_per_cycle", Bound::Positive)?,
            efficiency: section
                .maybe_number("efficiency", Bound::Positive)?
                .unwrap_or_else(|| peak_efficiency.clone()),
            accumulator: Accumulator {
                bits: section.count("accumulator_bits")?,
                overflow: section.word("overflow")?,
            },
            align: Align::read(&section.section("align", Align::KEYS)?)?,
            alternative: align("alternative")?,
            depthwise: Depthwise::read(section)?,
            grain: section.count("grain")?,
            energy_per_mac: picojoules(section, "energy_pj_per_mac")?,
        })
    }
}

impl Depthwise {
    fn read(mode: &Section<'_>) -> Result<Option<Self>, ChipError> {
        let Some(section) = mode.maybe_section("depthwise", &["macs_per_cycle", "align"])? else {
            return Ok(None);
        };
        let align = Align::read(&section.section("align", Align::KEYS)?)?;
        Ok(Some(Self { macs_per_cycle: section.number("macs_per_cycle", Bound::Positive)?, align }))
    }
}

impl OpRate {
    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let cycles_per_element = section.number("cycles_per_element", Bound::Positive)?.map(Cycles);
        Ok(Self { ops: section.texts("ops")?, cycles_per_element })
    }
}

/// An energy written in picojoules.
pub(crate) fn picojoules(
    section: &Section<'_>,
    key: &str,
) -> Result<Option<Figure<Joules>>, ChipError> {
    let figure = section.maybe_number(key, Bound::NotNegative)?;
    Ok(figure.map(|figure| figure.map(|picojoules| Joules(picojoules * 1e-12))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_slots_round_each_axis() {
        let channels = Align { k: 32, taps: 1, n: 8, m: 2, reduction: Reduction::Channels };
        let patch = Align { k: 4, taps: 1, n: 2, m: 1, reduction: Reduction::Patch };
        for (align, shape, slots) in [
            (channels, (3, 9, 32, 1024), 32 * 9 * 32 * 1024),
            (channels, (33, 1, 9, 1), 64 * 16 * 2),
            (patch, (3, 9, 5, 7), 28 * 6 * 7),
            (patch, (u64::MAX, 9, 5, 7), u64::MAX),
        ] {
            let (k, taps, n, m) = shape;
            assert_eq!(align.mac_slots(k, taps, n, m).0, slots, "{shape:?}");
        }
    }
}
