//! The layer *runtime*: the toolchain that puts a network onto the chip, and what it costs.

use serde::Serialize;

use crate::chip::version;
use crate::engine::microseconds;
use crate::error::ChipError;
use crate::figure::Figure;
use crate::number::NumberType;
use crate::reader::{Bound, Section};
use crate::units::Seconds;
use crate::words::words;

words! {
    /// A file format that a toolchain accepts.
    Artefact {
        /// ONNX in floating point.
        Onnx = "onnx",
        /// ONNX with `QuantizeLinear` and `DequantizeLinear`.
        OnnxQdq = "onnx-qdq",
        /// TensorFlow Lite, all in integers.
        TfliteInt8 = "tflite-int8",
        /// TensorFlow Lite in floating point.
        Tflite = "tflite",
        /// `OpenVINO`'s intermediate representation.
        OpenvinoIr = "openvino-ir",
        /// `StableHLO`, as XLA reads it.
        StableHlo = "stablehlo",
        /// A Core ML model package.
        Mlpackage = "mlpackage",
        /// Weights and layers of a research framework in Python.
        Pytorch = "pytorch",
    }
}

/// How a network gets onto the chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Runtime {
    /// The runtime or toolchain, with the versions that it stands for.
    pub toolchain: String,
    /// The formats it accepts, best first.
    pub accepts: Vec<Artefact>,
    /// What it writes. Absent: it runs what it accepts.
    pub emits: Option<String>,
    /// The command, with `{model}` for the file.
    pub command: String,
    /// The lowest ONNX opset that carries what is needed.
    pub opset_min: Option<Figure<u64>>,
    /// The highest ONNX opset that it reads.
    pub opset_max: Option<Figure<u64>>,
    /// Time to start one operator. Absent: unknown, counted as none.
    pub launch: Option<Figure<Seconds>>,
    /// Time that one run costs beside its operators. Absent: unknown, counted as none.
    pub invoke: Option<Figure<Seconds>>,
    /// Operators that it does not take although the core runs them. Absent: none.
    pub deny: Vec<String>,
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

impl Runtime {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "version",
        "toolchain",
        "accepts",
        "emits",
        "command",
        "opset_min",
        "opset_max",
        "launch_us",
        "invoke_us",
        "deny",
        "quirk",
    ];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        version(section, "version", Some(1))?;
        let quirks = section.sections("quirk", Quirk::KEYS)?;
        Ok(Self {
            toolchain: section.text("toolchain")?,
            accepts: section.words("accepts")?,
            emits: section.maybe_text("emits")?,
            command: section.text("command")?,
            opset_min: section.maybe_count("opset_min")?,
            opset_max: section.maybe_count("opset_max")?,
            launch: microseconds(section, "launch_us")?,
            invoke: microseconds(section, "invoke_us")?,
            deny: section.texts("deny")?,
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
