//! What zeros buy: patterns that the array skips, and codecs that store fewer bytes.

use serde::Serialize;

use crate::error::{ChipError, Fault};
use crate::figure::Figure;
use crate::number::NumberType;
use crate::reader::{Bound, Section};
use crate::units::Bytes;
use crate::words::words;

words! {
    /// The axis of the weights along which a pattern lies.
    Axis {
        /// The reduction.
        K = "k",
        /// The output channels.
        N = "n",
    }
}

/// At most `n` non-zero weights in each `m` successive ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SparsityPattern {
    /// Kept weights of each group.
    pub n: u64,
    /// Weights of a group.
    pub m: u64,
    /// Along which axis groups lie.
    pub axis: Axis,
    /// The weight types it works with.
    pub weights: Vec<NumberType>,
    /// How many times faster the array runs.
    pub speedup: Figure<f64>,
    /// The shortest reduction for which the chip uses it.
    pub min_k: Figure<u64>,
}

impl SparsityPattern {
    pub(crate) const KEYS: &'static [&'static str] =
        &["n", "m", "axis", "weights", "speedup", "min_k"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        Ok(Self {
            n: section.plain_count("n", None)?,
            m: section.plain_count("m", None)?,
            axis: section.word("axis")?,
            weights: section.words("weights")?,
            speedup: section.number("speedup", Bound::Positive)?,
            min_k: section.count("min_k")?,
        })
    }

    /// Stored bytes over dense bytes: the kept values and `⌈log₂ m⌉` bits of position for each.
    pub fn storage_ratio(&self, weights: NumberType) -> f64 {
        let index_bits = self.m.next_power_of_two().trailing_zeros();
        let (bits, kept) = (f64::from(weights.bits()), self.n as f64 / self.m as f64);
        kept * (bits + f64::from(index_bits)) / bits
    }
}

words! {
    /// A lossless code in which weights are stored.
    Codec {
        /// Arm's `mlw` code of the Ethos-U family.
        EthosMlw = "ethos_mlw",
        /// A code of the toolchain whose figures nobody publishes.
        Vendor = "vendor",
    }
}

/// How weights are stored for the chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightStore {
    /// The code.
    pub codec: Codec,
    /// Stored bytes of one 8-bit weight by the fraction of zeros: (fraction, bytes), fractions ascending.
    pub bytes_per_weight: Figure<Vec<(f64, f64)>>,
    /// Bytes of bias and scale for each output channel.
    pub bytes_per_channel: Figure<u64>,
}

impl WeightStore {
    pub(crate) const KEYS: &'static [&'static str] =
        &["codec", "bytes_per_weight", "bytes_per_channel"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let Some(bytes_per_weight) = section.maybe_pairs("bytes_per_weight")? else {
            let missing = Fault::MissingKey("pairs [zero fraction, bytes]");
            return Err(section.fault("bytes_per_weight", missing, None));
        };
        let table = &bytes_per_weight.value;
        if table.is_empty() || !table.is_sorted_by(|(lhs, _), (rhs, _)| lhs < rhs) {
            let fault = Fault::OutOfRange {
                expected: "pairs [zero fraction, bytes] with ascending fractions",
                found: format!("{table:?}"),
            };
            return Err(section.fault("bytes_per_weight", fault, None));
        }
        Ok(Self {
            codec: section.word("codec")?,
            bytes_per_weight,
            bytes_per_channel: section.count("bytes_per_channel")?,
        })
    }

    /// Stored bytes of `weights` bytes of 8-bit weights of which `zero_fraction` are zero: linear between the table's points,
    /// constant beyond its ends, rounded up.
    pub fn encoded(&self, weights: Bytes, zero_fraction: f64) -> Bytes {
        let table = &self.bytes_per_weight.value;
        let above = table.iter().position(|&(fraction, _)| zero_fraction <= fraction);
        let ratio = match above {
            Some(0) => table[0].1,
            Some(i) => {
                let ((x0, y0), (x1, y1)) = (table[i - 1], table[i]);
                y0 + (y1 - y0) * (zero_fraction - x0) / (x1 - x0)
            }
            None => table.last().map_or(1.0, |&(_, ratio)| ratio),
        };
        Bytes((weights.0 as f64 * ratio).ceil() as u64)
    }
}
