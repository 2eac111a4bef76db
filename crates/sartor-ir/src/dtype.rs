//! Element types.

use std::{fmt, str::FromStr};

/// The element type of a tensor, as ONNX's `TensorProto.DataType` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    BF16,
    /// 8-bit float, 4 exponent bits, finite with NaN.
    F8E4M3FN,
    /// As [`DType::F8E4M3FN`] without negative zero.
    F8E4M3FNUZ,
    /// 8-bit float, 5 exponent bits.
    F8E5M2,
    /// As [`DType::F8E5M2`] without negative zero and infinities.
    F8E5M2FNUZ,
    /// Powers of two: 8 exponent bits, no sign, with NaN; the scales of OCP's microscaling formats.
    F8E8M0,
    /// 4-bit float, 2 exponent bits, one of mantissa; two to a byte, low nibble first.
    F4E2M1,
    /// Signed 2-bit integer, four to a byte, low bits first.
    I2,
    /// Unsigned 2-bit integer, four to a byte, low bits first.
    U2,
    /// Signed 4-bit integer, two to a byte, low nibble first.
    I4,
    /// Unsigned 4-bit integer, two to a byte, low nibble first.
    U4,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// One byte, 0 or 1.
    Bool,
    /// UTF-8 text; stored as a little-endian `u32` length and the bytes, one element after another.
    Str,
}

/// Every type with its short name, its width in bits (text has no fixed one) and ONNX's number of it
/// (`TensorProto.DataType`).
const TABLE: &[(DType, &str, usize, i32)] = &[
    (DType::F32, "f32", 32, 1),
    (DType::F64, "f64", 64, 11),
    (DType::F16, "f16", 16, 10),
    (DType::BF16, "bf16", 16, 16),
    (DType::F8E4M3FN, "f8e4m3fn", 8, 17),
    (DType::F8E4M3FNUZ, "f8e4m3fnuz", 8, 18),
    (DType::F8E5M2, "f8e5m2", 8, 19),
    (DType::F8E5M2FNUZ, "f8e5m2fnuz", 8, 20),
    (DType::F8E8M0, "f8e8m0", 8, 24),
    (DType::F4E2M1, "f4e2m1", 4, 23),
    (DType::I2, "i2", 2, 26),
    (DType::U2, "u2", 2, 25),
    (DType::I4, "i4", 4, 22),
    (DType::U4, "u4", 4, 21),
    (DType::I8, "i8", 8, 3),
    (DType::U8, "u8", 8, 2),
    (DType::I16, "i16", 16, 5),
    (DType::U16, "u16", 16, 4),
    (DType::I32, "i32", 32, 6),
    (DType::U32, "u32", 32, 12),
    (DType::I64, "i64", 64, 7),
    (DType::U64, "u64", 64, 13),
    (DType::Bool, "bool", 8, 9),
    (DType::Str, "str", 0, 8),
];

impl DType {
    fn row(self) -> &'static (DType, &'static str, usize, i32) {
        TABLE.iter().find(|row| row.0 == self).expect("every type has a row in TABLE")
    }

    /// The short name, as in the text form.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Width of one element in bits; 0 for text.
    pub fn bits(self) -> usize {
        self.row().2
    }

    /// ONNX's number of the type.
    pub fn code(self) -> i32 {
        self.row().3
    }

    /// The type of this ONNX number; `None` for complex numbers and unknown ones.
    pub fn from_code(code: i64) -> Option<Self> {
        TABLE.iter().find(|row| i64::from(row.3) == code).map(|row| row.0)
    }

    /// Bytes that `count` packed elements take; `None` for text or when the product overflows.
    pub fn bytes_for(self, count: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            bits => count.checked_mul(bits).map(|it| it.div_ceil(8)),
        }
    }

    /// Whether the type is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64) || self.is_narrow_float()
    }

    /// Whether the type is a floating-point type of 16 bits or less: all its values are values of
    /// [`DType::F32`].
    pub fn is_narrow_float(self) -> bool {
        use DType::{BF16, F4E2M1, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F16};
        matches!(self, F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let row = TABLE.iter().find(|row| row.1 == text);
        row.map(|row| row.0).ok_or_else(|| format!("unknown element type `{text}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_bijections() {
        for &(dtype, name, _, code) in TABLE {
            assert_eq!(DType::from_code(i64::from(code)), Some(dtype));
            assert_eq!(name.parse(), Ok(dtype));
        }
        assert_eq!(DType::from_code(14), None);
    }
}
