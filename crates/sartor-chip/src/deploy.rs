//! What runs on the chip and how it gets there.

use serde::Serialize;

use crate::error::ChipError;
use crate::figure::Figure;
use crate::number::NumberType;
use crate::reader::{Bound, Section};
use crate::words::words;

words! {
    /// What happens to an operator that the chip does not run.
    Fallback {
        /// It runs on the host CPU, with a transfer to and fro.
        CpuPerOp = "cpu_per_op",
        /// It and everything after it run on the host CPU.
        CpuSuffix = "cpu_suffix",
        /// The runtime runs it by other means of the same chip.
        Split = "split",
        /// The network is refused.
        Reject = "reject",
    }
}

/// Which operators the chip runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operators {
    /// What happens to the others.
    pub fallback: Fallback,
    /// The operators that run, by their ONNX names. Absent: all.
    pub allow: Option<Vec<String>>,
    /// The largest batch. Absent: any.
    pub batch_max: Option<Figure<u64>>,
}

impl Operators {
    pub(crate) const KEYS: &'static [&'static str] = &["fallback", "allow", "batch_max"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let allow = if section.has("allow") { Some(section.texts("allow")?) } else { None };
        Ok(Self {
            fallback: section.word("fallback")?,
            allow,
            batch_max: section.maybe_count("batch_max")?,
        })
    }
}

words! {
    /// A file format that a toolchain accepts.
    Artefact {
        /// ONNX in floating point.
        Onnx = "onnx",
        /// ONNX with `QuantizeLinear` and `DequantizeLinear`.
        OnnxQdq = "onnx-qdq",
        /// TensorFlow Lite, all in integers.
        TfliteInt8 = "tflite-int8",
    }
}

/// How a network gets onto the chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deploy {
    /// The runtime or toolchain.
    pub runtime: String,
    /// The formats it accepts, best first.
    pub accepts: Vec<Artefact>,
    /// The command, with `{model}` for the file.
    pub command: String,
    /// The lowest ONNX opset that carries what is needed.
    pub opset_min: Option<Figure<u64>>,
    /// What users of this runtime should know.
    pub quirks: Vec<Quirk>,
}

/// A peculiarity of a runtime.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quirk {
    /// Its name.
    pub id: String,
    /// What happens and what to do.
    pub text: String,
    /// The weight type that it concerns. Absent: any.
    pub weights: Option<NumberType>,
    /// The activation type that it concerns. Absent: any.
    pub activations: Option<NumberType>,
    /// Speed relative to floating point on this chip (below 1: slower).
    pub speed_over_float: Option<Figure<f64>>,
}

impl Deploy {
    pub(crate) const KEYS: &'static [&'static str] =
        &["runtime", "accepts", "command", "opset_min", "quirk"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let quirks = section.sections("quirk", Quirk::KEYS)?;
        Ok(Self {
            runtime: section.text("runtime")?,
            accepts: section.words("accepts")?,
            command: section.text("command")?,
            opset_min: section.maybe_count("opset_min")?,
            quirks: quirks.iter().map(Quirk::read).collect::<Result<_, _>>()?,
        })
    }

    /// The command for the file `model`.
    pub fn command_for(&self, model: &str) -> String {
        self.command.replace("{model}", model)
    }
}

impl Quirk {
    const KEYS: &'static [&'static str] =
        &["id", "text", "weights", "activations", "speed_over_float"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        Ok(Self {
            id: section.text("id")?,
            text: section.text("text")?,
            weights: section.maybe_word("weights")?,
            activations: section.maybe_word("activations")?,
            speed_over_float: section.maybe_number("speed_over_float", Bound::Positive)?,
        })
    }
}
