//! The number formats of weights and activations.

use sartor_ir::DType;
use serde::{Deserialize, Serialize};

use super::QuantizeStatic;
use crate::CompressError;

/// Blocks of weights that share a scale have so many elements, least and most.
const BLOCKS: std::ops::RangeInclusive<usize> = 16..=256;

/// How weights are stored. Signed types have their zero in the middle; unsigned ones have a zero point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct WeightFormat {
    /// The integers that are used.
    pub dtype: WeightType,
    /// A scale for each output channel, or one for the whole tensor.
    pub per_channel: bool,
    /// A scale for each block of so many weights in a row along the reduction, 16 to 256; 0 for none. Weights with a
    /// shorter reduction are quantized without blocks.
    pub block: usize,
    /// How 4-bit integers are stored.
    pub storage: Storage,
}

impl Default for WeightFormat {
    fn default() -> Self {
        WeightFormat {
            dtype: WeightType::Int8,
            per_channel: true,
            block: 0,
            storage: Storage::Packed,
        }
    }
}

impl WeightFormat {
    /// The element type in the graph.
    pub fn stored(&self) -> DType {
        match (self.dtype, self.storage) {
            (WeightType::Int16, _) => DType::I16,
            (WeightType::Uint8, _) => DType::U8,
            (WeightType::Int4, Storage::Packed) => DType::I4,
            (WeightType::Uint4, _) => DType::U4,
            _ => DType::I8,
        }
    }

    /// Whether zero points may lie anywhere. Zero points that differ between channels of bytes are what no integer
    /// convolution of ONNX Runtime takes (`QLinearConv`), so that these are all 128.
    pub(super) fn is_affine(&self, blocks: bool) -> bool {
        match self.dtype {
            WeightType::Uint8 => blocks || !self.per_channel,
            it => it == WeightType::Uint4,
        }
    }

    pub(super) fn check(&self) -> Result<(), CompressError> {
        let refuse = |key: &str, found: String, expected: &str| {
            let (key, expected) = (format!("weights.{key}"), expected.to_owned());
            Err(CompressError::Config { key, found, expected })
        };
        if self.block != 0 && !BLOCKS.contains(&self.block) {
            return refuse("block", self.block.to_string(), "16 to 256, or 0 for no blocks");
        }
        if (self.dtype, self.storage) == (WeightType::Uint4, Storage::Bytes) {
            let expected = "\"packed\" with uint4; in bytes, int4 has as many numbers";
            return refuse("storage", "\"bytes\"".to_owned(), expected);
        }
        Ok(())
    }
}

/// How 4-bit integers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// Two to a byte, as ONNX's own 4-bit types of opset 21.
    #[default]
    Packed,
    /// One to a byte, as int8 on a narrower grid: what integer kernels for 8 bits take.
    Bytes,
}

/// The integers of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightType {
    /// -32767 to 32767.
    Int16,
    /// -127 to 127.
    #[default]
    Int8,
    /// -63 to 63 in bytes: cannot saturate the 16-bit sums of x86 processors without VNNI.
    Int7,
    /// 0 to 255, around 128 if channels have scales of their own.
    Uint8,
    /// -7 to 7.
    Int4,
    /// 0 to 15 with a zero point.
    Uint4,
    /// -2 to 1, in bytes.
    Int2,
    /// -1, 0 and 1, in bytes.
    Ternary,
    /// -1 and 1, in bytes.
    Binary,
}

impl WeightType {
    /// Least and largest integer.
    pub(super) fn limits(self) -> (i32, i32) {
        match self {
            WeightType::Int16 => (-32767, 32767),
            WeightType::Int8 => (-127, 127),
            WeightType::Int7 => (-63, 63),
            WeightType::Uint8 => (0, 255),
            WeightType::Int4 => (-7, 7),
            WeightType::Uint4 => (0, 15),
            WeightType::Int2 => (-2, 1),
            WeightType::Ternary | WeightType::Binary => (-1, 1),
        }
    }

    /// Whether the grid is so coarse that clipping the largest weights pays: of at most 4 bits.
    pub(super) fn is_coarse(self) -> bool {
        let (least, most) = self.limits();
        most - least <= 15
    }

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::Int16 => "int16",
            WeightType::Int8 => "int8",
            WeightType::Int7 => "int7",
            WeightType::Uint8 => "uint8",
            WeightType::Int4 => "int4",
            WeightType::Uint4 => "uint4",
            WeightType::Int2 => "int2",
            WeightType::Ternary => "ternary",
            WeightType::Binary => "binary",
        }
    }
}

/// How activations are stored, with one scale per tensor.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ActivationFormat {
    /// The integer type.
    pub dtype: ActivationType,
    /// Whether zero lies in the middle of the range (zero point 0, or 128 for unsigned bytes).
    pub symmetric: bool,
}

/// The type of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationType {
    /// 0 to 255.
    #[default]
    Uint8,
    /// -128 to 127.
    Int8,
    /// 0 to 65535; opset 21.
    Uint16,
    /// -32768 to 32767; opset 21.
    Int16,
    /// 0 to 15; opset 21.
    Uint4,
    /// -8 to 7; opset 21.
    Int4,
    /// Activations stay as they are, and biases with them: only weights are quantized.
    Float32,
}

impl ActivationType {
    /// The element type in the graph.
    pub fn dtype(self) -> DType {
        match self {
            ActivationType::Uint8 => DType::U8,
            ActivationType::Int8 => DType::I8,
            ActivationType::Uint16 => DType::U16,
            ActivationType::Int16 => DType::I16,
            ActivationType::Uint4 => DType::U4,
            ActivationType::Int4 => DType::I4,
            ActivationType::Float32 => DType::F32,
        }
    }

    /// Least and largest integer; `None` for floats.
    pub(super) fn limits(self) -> Option<(i32, i32)> {
        sartor_engine::reference::quantize::limits(self.dtype())
    }

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            ActivationType::Uint8 => "uint8",
            ActivationType::Int8 => "int8",
            ActivationType::Uint16 => "uint16",
            ActivationType::Int16 => "int16",
            ActivationType::Uint4 => "uint4",
            ActivationType::Int4 => "int4",
            ActivationType::Float32 => "float32",
        }
    }
}

/// Which numbers scales may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleKind {
    /// Any float.
    #[default]
    Float,
    /// Powers of two: integers are then fixed-point numbers (`Qm.n`), and rescaling is a shift.
    PowerOfTwo,
}

impl ScaleKind {
    /// The least allowed scale that is not below `step`, a normal number.
    pub(super) fn above(self, step: f32) -> f32 {
        match self {
            ScaleKind::Float => step,
            ScaleKind::PowerOfTwo => {
                let floor = f32::from_bits(step.to_bits() & 0xff80_0000);
                if floor < step { 2.0 * floor } else { floor }
            }
        }
    }
}

/// The opset that the step's types need: 13 for scales by channel, 21 for other integers than bytes and for blocks.
pub(super) fn opset(config: &QuantizeStatic) -> i64 {
    let eight = |it: DType| matches!(it, DType::U8 | DType::I8);
    let activations = config.activations.dtype.dtype();
    let formats = config.weights_by_node.values().chain([&config.weights]);
    let new = (activations != DType::F32 && !eight(activations))
        || formats.into_iter().any(|it| !eight(it.stored()) || it.block > 0);
    if new { 21 } else { 13 }
}
