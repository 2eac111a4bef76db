//! The number types in which chips store and multiply.

use std::str::FromStr;

use crate::words::{Word, words};

words! {
    /// A number type of weights or activations.
    NumberType {
        /// IEEE 754 binary32.
        F32 = "f32",
        /// IEEE 754 binary16.
        F16 = "f16",
        /// TensorFloat-32: binary32 in memory, ten bits of mantissa when multiplied.
        Tf32 = "tf32",
        /// bfloat16: the upper half of binary32.
        Bf16 = "bf16",
        /// 8-bit float with four exponent bits (OCP OFP8).
        F8E4M3 = "f8e4m3",
        /// 8-bit float with five exponent bits (OCP OFP8).
        F8E5M2 = "f8e5m2",
        /// Signed 16-bit integer.
        I16 = "i16",
        /// Signed 8-bit integer.
        I8 = "i8",
        /// Unsigned 8-bit integer.
        U8 = "u8",
        /// Signed 4-bit integer, two to a byte.
        I4 = "i4",
        /// Unsigned 4-bit integer, two to a byte.
        U4 = "u4",
        /// Signed 2-bit integer, four to a byte.
        I2 = "i2",
    }
}

impl NumberType {
    /// Width in bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::F32 | Self::Tf32 => 32,
            Self::F16 | Self::Bf16 | Self::I16 => 16,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 => 8,
            Self::I4 | Self::U4 => 4,
            Self::I2 => 2,
        }
    }

    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F32 | Self::Tf32 | Self::F16 | Self::Bf16 | Self::F8E4M3 | Self::F8E5M2
        )
    }

    /// Whether this is an integer type that holds negative numbers.
    pub fn is_signed_integer(self) -> bool {
        matches!(self, Self::I16 | Self::I8 | Self::I4 | Self::I2)
    }

    /// Bits of the largest magnitude of an integer type (7 for `i8` in narrow range, 8 for `u8`).
    pub(crate) fn magnitude_bits(self) -> u32 {
        self.bits() - u32::from(self.is_signed_integer())
    }
}

impl FromStr for NumberType {
    type Err = String;

    /// Reads `f32`, `i8` …, and ONNX's spelling (`float32`, `int8`, `uint8` …).
    fn from_str(text: &str) -> Result<Self, String> {
        let short = match text.trim() {
            "float" | "float32" => "f32",
            "float16" => "f16",
            "bfloat16" => "bf16",
            "int16" => "i16",
            "int8" => "i8",
            "uint8" => "u8",
            "int4" => "i4",
            "uint4" => "u4",
            "int2" => "i2",
            "float8e4m3fn" => "f8e4m3",
            "float8e5m2" => "f8e5m2",
            other => other,
        };
        Self::ALL.iter().find(|(word, _)| *word == short).map(|&(_, number)| number).ok_or_else(
            || {
                let known: Vec<&str> = Self::ALL.iter().map(|&(word, _)| word).collect();
                format!("number type `{text}` is unknown, expected one of {}", known.join(", "))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_display_agree() {
        for &(word, number) in NumberType::ALL {
            assert_eq!(word.parse(), Ok(number));
            assert_eq!(number.to_string(), word);
        }
        assert_eq!("int8".parse(), Ok(NumberType::I8));
        assert!("int7".parse::<NumberType>().unwrap_err().contains("f32"));
        assert_eq!(NumberType::I8.magnitude_bits(), 7);
        assert_eq!(NumberType::U8.magnitude_bits(), 8);
    }
}
