//! What an engine multiplies: one mode per pair of number types, with its unrolling.

use serde::Serialize;

use crate::error::ChipError;
use crate::figure::Figure;
use crate::number::NumberType;
use crate::reader::{Bound, Section};
use crate::units::{Cycles, Macs};
use crate::words::words;

/// One pair of number types that the chip multiplies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mode {
    /// Number type of the weights.
    pub weights: NumberType,
    /// Number type of the activations.
    pub activations: NumberType,
    /// MACs a cycle of the whole chip, dense.
    pub macs_per_cycle: Figure<f64>,
    /// The share of the peak that well-shaped work reaches (its own, else the engine's `efficiency`).
    pub efficiency: Figure<f64>,
    /// Where products are summed.
    pub accumulator: Accumulator,
    /// How work is rounded up to the array.
    pub unroll: Figure<Unroll>,
    /// A second way to lay work on the array, if the toolchain takes the better of two.
    pub alternative: Option<Figure<Unroll>>,
    /// Cycles for each output element beside the multiplications: to scale, round and store it. Absent: none.
    pub cycles_per_output: Option<Figure<Cycles>>,
    /// Depthwise convolution, where it fills the array differently. Absent: `unroll` with a reduction of one channel.
    pub depthwise: Option<Depthwise>,
    /// Products that other kernels compute, at rates of their own; empty where all run at the mode's.
    pub kernels: Vec<Kernel>,
    /// The multiple to which channels are worth pruning.
    pub grain: Figure<u64>,
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
pub struct Unroll {
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

impl Unroll {
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
    pub unroll: Figure<Unroll>,
    /// Cycles for each output element beside the multiplications. Absent: the mode's.
    pub cycles_per_output: Option<Figure<Cycles>>,
}

words! {
    /// Kinds of products for which runtimes have kernels of their own; all others run at the mode's rate.
    ProductKind {
        /// Dense convolution of 3 × 3 taps and stride 1, where fewer multiplications than the definition's may do.
        Conv3x3 = "conv3x3",
        /// Dense convolution of one tap.
        Pointwise = "pointwise",
        /// Convolution in several groups of more than one channel.
        Grouped = "grouped",
        /// Product of matrices.
        Matrix = "matrix",
        /// The product of one step of a recurrent operator.
        Recurrent = "recurrent",
    }
}

/// The rate of one kind of products.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kernel {
    /// Which products.
    pub product: ProductKind,
    /// MACs a cycle that the whole chip reaches in it, counted as the definition has them; the mode's `efficiency` is not applied
    /// to it. Absent: the mode's.
    pub macs_per_cycle: Option<Figure<f64>>,
    /// Cycles for each output element beside the multiplications. Absent: the mode's.
    pub cycles_per_output: Option<Figure<Cycles>>,
}

impl Mode {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "weights",
        "activations",
        "macs_per_cycle",
        "efficiency",
        "accumulator_bits",
        "overflow",
        "unroll",
        "alternative",
        "cycles_per_output",
        "depthwise",
        "kernel",
        "grain",
    ];

    pub(crate) fn read(
        section: &Section<'_>,
        peak_efficiency: &Figure<f64>,
    ) -> Result<Self, ChipError> {
        let unroll =
            |key| section.maybe_section(key, Unroll::KEYS)?.as_ref().map(Unroll::read).transpose();
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
            unroll: Unroll::read(&section.section("unroll", Unroll::KEYS)?)?,
            alternative: unroll("alternative")?,
            cycles_per_output: per_output(section)?,
            depthwise: Depthwise::read(section)?,
            kernels: section
                .sections("kernel", Kernel::KEYS)?
                .iter()
                .map(Kernel::read)
                .collect::<Result<_, _>>()?,
            grain: section.count("grain")?,
        })
    }

    /// The kernel of one kind of products, if it has its own.
    pub fn kernel(&self, product: ProductKind) -> Option<&Kernel> {
        self.kernels.iter().find(|it| it.product == product)
    }
}

/// Cycles for each output element.
fn per_output(section: &Section<'_>) -> Result<Option<Figure<Cycles>>, ChipError> {
    let cycles = section.maybe_number("cycles_per_output", Bound::NotNegative)?;
    Ok(cycles.map(|it| it.map(Cycles)))
}

impl Kernel {
    const KEYS: &'static [&'static str] = &["product", "macs_per_cycle", "cycles_per_output"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        Ok(Self {
            product: section.word("product")?,
            macs_per_cycle: section.maybe_number("macs_per_cycle", Bound::Positive)?,
            cycles_per_output: per_output(section)?,
        })
    }
}

impl Depthwise {
    const KEYS: &'static [&'static str] = &["macs_per_cycle", "unroll", "cycles_per_output"];

    fn read(mode: &Section<'_>) -> Result<Option<Self>, ChipError> {
        let Some(section) = mode.maybe_section("depthwise", Self::KEYS)? else {
            return Ok(None);
        };
        let unroll = Unroll::read(&section.section("unroll", Unroll::KEYS)?)?;
        Ok(Some(Self {
            macs_per_cycle: section.number("macs_per_cycle", Bound::Positive)?,
            unroll,
            cycles_per_output: per_output(&section)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_slots_round_each_axis() {
        let channels = Unroll { k: 32, taps: 1, n: 8, m: 2, reduction: Reduction::Channels };
        let patch = Unroll { k: 4, taps: 1, n: 2, m: 1, reduction: Reduction::Patch };
        for (unroll, shape, slots) in [
            (channels, (3, 9, 32, 1024), 32 * 9 * 32 * 1024),
            (channels, (33, 1, 9, 1), 64 * 16 * 2),
            (patch, (3, 9, 5, 7), 28 * 6 * 7),
            (patch, (u64::MAX, 9, 5, 7), u64::MAX),
        ] {
            let (k, taps, n, m) = shape;
            assert_eq!(unroll.mac_slots(k, taps, n, m).0, slots, "{shape:?}");
        }
    }
}
