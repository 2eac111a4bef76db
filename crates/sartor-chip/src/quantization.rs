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
        /// Nobody states it: results may differ by one step.
        Unknown = "unknown",
    }
}

/// The integer arithmetic of a chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantization {
    /// How scales are applied.
    pub scale: ScaleKind,
    /// How results are rounded.
    pub rounding: Rounding,
    /// Width of the bias.
    pub bias_bits: Figure<u64>,
    /// What may be quantized how, best first.
    pub schemes: Vec<Scheme>,
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
}

impl Quantization {
    pub(crate) const KEYS: &'static [&'static str] = &["scale", "rounding", "bias_bits", "scheme"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let schemes = section.sections("scheme", Scheme::KEYS)?;
        Ok(Self {
            scale: section.word("scale")?,
            rounding: section.word("rounding")?,
            bias_bits: section.count("bias_bits")?,
            schemes: schemes.iter().map(Scheme::read).collect::<Result<_, _>>()?,
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
        })
    }

    /// Whether the scheme covers the operator.
    pub fn covers(&self, op: &str) -> bool {
        self.ops.iter().any(|known| known == op)
    }
}
