//! The integer arithmetic that a chip and its runtime accept.

use serde::Serialize;

use crate::error::ChipError;
use crate::figure::Figure;
use crate::number::NumberType;
use crate::reader::Section;
use crate::words::words;

words! {
    /// What shares one scale.
    Granularity {
        /// The whole tensor.
        Tensor = "tensor",
        /// Each output channel.
        Channel = "channel",
        /// Each block of successive weights along the reduction; its length is one of the scheme's `blocks`.
        Block = "block",
    }
}

words! {
    /// How scales are applied.
    ScaleKind {
        /// Multiplication by a floating-point number.
        Float = "float",
        /// A 32-bit fixed-point multiplier and a shift.
        Fixed = "fixed",
        /// A shift: scales are powers of two.
        Pow2 = "pow2",
    }
}

words! {
    /// How results are rounded to integers.
    Rounding {
        /// To the nearest, ties to even.
        HalfEven = "half_even",
        /// To the nearest, ties away from zero.
        HalfAway = "half_away",
        /// To the nearest, ties upward.
        HalfUp = "half_up",
        /// Towards minus infinity, as a plain shift does.
        Floor = "floor",
        /// Nobody states it: results may differ by one step.
        Unknown = "unknown",
    }
}

words! {
    /// What stands beyond the border of a padded tensor.
    Padding {
        /// The zero point: a real zero.
        ZeroPoint = "zero_point",
        /// The integer 0, which is a real zero only in symmetric quantization.
        Zero = "zero",
    }
}

/// The integer arithmetic of a chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arithmetic {
    /// How scales are applied.
    pub scale: ScaleKind,
    /// How results are rounded.
    pub rounding: Rounding,
    /// Width of the bias.
    pub bias_bits: Figure<u64>,
    /// Width of the integer multiplier that stands for a scale. Absent: scales are floats or shifts, or nobody states it.
    pub multiplier_bits: Option<Figure<u64>>,
    /// What padding holds. Absent in the file: the zero point.
    pub padding: Padding,
    /// Operators whose inputs and output must have one scale, by their ONNX names. Absent in the file: none.
    pub shared_scales: Vec<String>,
    /// What may be quantized how, best first.
    pub schemes: Vec<Scheme>,
    /// Functions that are read from tables. Absent in the file: none.
    pub tables: Vec<LookupTable>,
}

/// A look-up table in which a chip keeps a function.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LookupTable {
    /// The operators computed so, by their ONNX names.
    pub ops: Vec<String>,
    /// Bits of the input that choose an entry, or segments between which the chip interpolates: `log2` of the entries.
    pub input_bits: Figure<u64>,
    /// Bits of an entry.
    pub output_bits: Figure<u64>,
}

/// One way to quantize some operators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scheme {
    /// Operators, by their ONNX names or `DepthwiseConv`.
    pub ops: Vec<String>,
    /// Number type of the weights.
    pub weights: NumberType,
    /// Number type of the activations.
    pub activations: NumberType,
    /// Whether the weights' zero point must be zero.
    pub weights_symmetric: bool,
    /// Whether the activations' zero point must be zero.
    pub activations_symmetric: bool,
    /// What may share one weight scale, best first. Activations have one scale a tensor.
    pub granularity: Vec<Granularity>,
    /// Whether weights leave out the most negative value (int8: −127 … 127).
    pub narrow_range: bool,
    /// Lengths of a block along the reduction, where `granularity` has `block`; the first is preferred.
    pub blocks: Vec<u64>,
}

impl Arithmetic {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "scale",
        "rounding",
        "bias_bits",
        "multiplier_bits",
        "padding",
        "shared_scales",
        "scheme",
        "table",
    ];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let schemes = section.sections("scheme", Scheme::KEYS)?;
        let tables = section.sections("table", &["ops", "input_bits", "output_bits"])?;
        let table = |it: &Section<'_>| {
            Ok(LookupTable {
                ops: it.texts("ops")?,
                input_bits: it.count("input_bits")?,
                output_bits: it.count("output_bits")?,
            })
        };
        Ok(Self {
            scale: section.word("scale")?,
            rounding: section.word("rounding")?,
            bias_bits: section.count("bias_bits")?,
            multiplier_bits: section.maybe_count("multiplier_bits")?,
            padding: section.maybe_word("padding")?.unwrap_or(Padding::ZeroPoint),
            shared_scales: section.texts("shared_scales")?,
            schemes: schemes.iter().map(Scheme::read).collect::<Result<_, _>>()?,
            tables: tables.iter().map(table).collect::<Result<_, _>>()?,
        })
    }
}

impl Scheme {
    const KEYS: &'static [&'static str] = &[
        "ops",
        "weights",
        "activations",
        "weights_symmetric",
        "activations_symmetric",
        "granularity",
        "narrow_range",
        "blocks",
    ];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        Ok(Self {
            ops: section.texts("ops")?,
            weights: section.word("weights")?,
            activations: section.word("activations")?,
            weights_symmetric: section.flag("weights_symmetric")?,
            activations_symmetric: section.flag("activations_symmetric")?,
            granularity: section.words("granularity")?,
            narrow_range: section.flag("narrow_range")?,
            blocks: section.counts("blocks")?,
        })
    }

    /// Whether the scheme covers the operator.
    pub fn covers(&self, op: &str) -> bool {
        self.ops.iter().any(|known| known == op)
    }
}
