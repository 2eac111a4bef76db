//! Arm's Ethos-U: the tables by which its compiler estimates.

use serde::Serialize;

use crate::error::{ChipError, Fault};
use crate::figure::Figure;
use crate::reader::{Bound, Section};

/// An Ethos-U, as the tables of Arm's compiler Vela describe it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EthosU {
    /// Input channels that one multiplier takes at a time.
    pub dot_width: Figure<u64>,
    /// Weight decoders of the U85; absent: one for each core.
    pub decoders: Option<Figure<u64>>,
    /// The parts of the output that may be made in one step; the U55 and U65 have one.
    pub micro_blocks: Vec<MicroBlock>,
    /// The memory inside the array.
    pub buffers: EthosBuffers,
    /// Cycles for each output element by what makes it. U55 and U65, eight: 32-bit unary, 32-bit binary, product to 32 bits, product
    /// or 40-bit sums, simple sum, sum, maximum, other. U85, six: to 8, 16, 32, 48 bits, 32 bits inside a chain, 32-bit binary.
    pub output_cycles: Figure<Vec<f64>>,
    /// Cycles for each activated element. U55 and U65, three: table, limits, none. U85, two: in order, rows and columns exchanged.
    pub activation_cycles: Figure<Vec<f64>>,
}

/// A part of the output that the array makes in one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MicroBlock {
    /// Height, width and depth.
    pub size: Figure<[u64; 3]>,
    /// U85: units of the input buffer (height, width, bricks of 128 bits) for input blocks of at most one brick, two bricks and
    /// more. Empty on the U55 and U65.
    pub input_units: Vec<[u64; 3]>,
}

/// The memory inside the array.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EthosBuffers {
    /// U55 and U65: banks of 1 KiB for everything.
    Shared {
        /// How many.
        banks: Figure<u64>,
        /// Banks that each kind of content takes at a time.
        granules: Granules,
    },
    /// U85: a memory for each.
    Apart {
        /// Bytes for inputs, accumulators, chained values and outputs.
        bytes: Figure<[u64; 4]>,
        /// 16-byte reads in flight: copies, streamed operands, weights, weights of the fast decoder, inputs, scales.
        outstanding: Figure<[u64; 6]>,
    },
}

/// Banks that each kind of content takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Granules {
    /// Inputs of 8 bits.
    pub input_8: u64,
    /// Inputs of 16 bits.
    pub input_16: u64,
    /// Operands of 8 bits of elementwise operators.
    pub elementwise_8: u64,
    /// Operands of 16 bits of elementwise operators.
    pub elementwise_16: u64,
    /// Inputs of 32 bits.
    pub input_32: u64,
    /// Sums of 32 bits.
    pub accumulators_32: u64,
    /// Sums of 40 bits.
    pub accumulators_40: u64,
}

impl EthosU {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "dot_width",
        "decoders",
        "micro_block",
        "shared_buffer",
        "buffers",
        "output_cycles",
        "activation_cycles",
    ];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let blocks = section.sections("micro_block", &["size", "input_units"])?;
        if blocks.is_empty() {
            let missing = Fault::MissingKey("at least one [[core.engine.ethos_u.micro_block]]");
            return Err(section.fault("micro_block", missing, None));
        }
        let rates = |key| {
            let rates = section.maybe_numbers(key, Bound::NotNegative)?;
            rates.ok_or_else(|| section.fault(key, Fault::MissingKey("a list of numbers"), None))
        };
        Ok(Self {
            dot_width: section.count("dot_width")?,
            decoders: section.maybe_count("decoders")?,
            micro_blocks: blocks.iter().map(MicroBlock::read).collect::<Result<_, _>>()?,
            buffers: EthosBuffers::read(section)?,
            output_cycles: rates("output_cycles")?,
            activation_cycles: rates("activation_cycles")?,
        })
    }

    /// Multiply-accumulates of one core in a cycle.
    pub fn macs(&self) -> u64 {
        let size = self.micro_blocks.first().map_or([0; 3], |it| it.size.value);
        size.into_iter().fold(self.dot_width.value, u64::saturating_mul)
    }
}

/// So many counts in a list.
fn several<const N: usize>(section: &Section<'_>, key: &str) -> Result<[u64; N], ChipError> {
    let list = section.counts(key)?;
    list.try_into().map_err(|list: Vec<u64>| {
        let found = format!("{} numbers", list.len());
        let expected = match N {
            3 => "3 whole numbers",
            4 => "4 whole numbers",
            _ => "6 whole numbers",
        };
        section.fault(key, Fault::OutOfRange { expected, found }, None)
    })
}

impl MicroBlock {
    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let flat = section.counts("input_units")?;
        let units: Vec<[u64; 3]> = flat.chunks_exact(3).map(|it| [it[0], it[1], it[2]]).collect();
        if ![0, 9].contains(&flat.len()) {
            let found = format!("{} numbers", flat.len());
            let expected = "height, width and bricks of three units: 9 numbers, or none";
            return Err(section.fault("input_units", Fault::OutOfRange { expected, found }, None));
        }
        Ok(Self { size: section.figure(several(section, "size")?)?, input_units: units })
    }
}

impl EthosBuffers {
    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let keys = [
            "banks",
            "input_8",
            "input_16",
            "elementwise_8",
            "elementwise_16",
            "input_32",
            "accumulators_32",
            "accumulators_40",
        ];
        if let Some(shared) = section.maybe_section("shared_buffer", &keys)? {
            let granule = |key| shared.plain_count(key, None);
            let granules = Granules {
                input_8: granule("input_8")?,
                input_16: granule("input_16")?,
                elementwise_8: granule("elementwise_8")?,
                elementwise_16: granule("elementwise_16")?,
                input_32: granule("input_32")?,
                accumulators_32: granule("accumulators_32")?,
                accumulators_40: granule("accumulators_40")?,
            };
            return Ok(Self::Shared { banks: shared.count("banks")?, granules });
        }
        let keys = ["bytes", "outstanding_reads"];
        let Some(apart) = section.maybe_section("buffers", &keys)? else {
            let missing = Fault::MissingKey("`shared_buffer` (U55, U65) or `buffers` (U85)");
            return Err(section.fault("buffers", missing, None));
        };
        Ok(Self::Apart {
            bytes: apart.figure(several(&apart, "bytes")?)?,
            outstanding: apart.figure(several(&apart, "outstanding_reads")?)?,
        })
    }
}
