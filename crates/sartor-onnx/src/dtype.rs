//! ONNX's numbers of element types (`TensorProto.DataType`).

use sartor_ir::DType;

const TABLE: &[(i32, DType)] = &[
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (8, DType::Str),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (16, DType::BF16),
    (17, DType::F8E4M3FN),
    (18, DType::F8E4M3FNUZ),
    (19, DType::F8E5M2),
    (20, DType::F8E5M2FNUZ),
    (21, DType::U4),
    (22, DType::I4),
    (23, DType::F4E2M1),
    (24, DType::F8E8M0),
    (25, DType::U2),
    (26, DType::I2),
];

/// The element type of this number; `None` for complex numbers and unknown ones.
pub(crate) fn from_code(code: i64) -> Option<DType> {
    TABLE.iter().find(|row| i64::from(row.0) == code).map(|row| row.1)
}

/// The number of an element type.
pub(crate) fn code(dtype: DType) -> i32 {
    TABLE.iter().find(|row| row.1 == dtype).map_or(0, |row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_bijection() {
        for &(number, dtype) in TABLE {
            assert_eq!(from_code(i64::from(number)), Some(dtype));
            assert_eq!(code(dtype), number);
        }
        assert_eq!(from_code(14), None);
    }
}
