//! Conversion between element types (<https://onnx.ai/onnx/operators/onnx__Cast.html>).

use sartor_ir::{DType, narrow};

use crate::{Array, Data, array::storage};

/// Floats are rounded to narrower floats and truncated to integers, integers wrap, truth values are
/// "not 0". `saturate` says what becomes of numbers beyond the range of an 8-bit float.
pub(crate) fn cast(x: &Array, to: DType, saturate: bool) -> Array {
    let data = match (&x.data, storage(to).unwrap_or(to)) {
        (Data::F32(_) | Data::F64(_), DType::Bool) => {
            Data::Bool(x.to_f64().into_iter().map(|it| it != 0.0).collect())
        }
        (_, DType::F64) => Data::F64(x.to_f64()),
        (_, DType::F32) => Data::F32(rounded(x.to_f32(), to, saturate)),
        (Data::F32(_) | Data::F64(_), DType::U64) => {
            Data::U64(x.to_f64().into_iter().map(truncated).collect())
        }
        _ => Data::from_integers(x.to_i64(), to),
    };
    Array { shape: x.shape.clone(), data }
}

/// Truncated; a negative number wraps, as it does for the narrower types.
fn truncated(x: f64) -> u64 {
    if x < 0.0 { (x as i64).cast_unsigned() } else { x as u64 }
}

/// The nearest values of a narrow float type; other types are left as they are.
pub(crate) fn rounded(mut values: Vec<f32>, to: DType, saturate: bool) -> Vec<f32> {
    if to.is_narrow_float() {
        for it in &mut values {
            *it = narrow::round(to, *it, saturate);
        }
    }
    values
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn floats_to_every_kind_of_type() {
        let x = Array::f32(&[4], vec![-1.7, 0.3, 300.0, 1.0 / 3.0]);
        assert_eq!(cast(&x, DType::I64, true).data, Data::I64(vec![-1, 0, 300, 0]));
        assert_eq!(cast(&x, DType::U8, true).data, Data::U8(vec![255, 0, 44, 0]));
        assert_eq!(cast(&x, DType::Bool, true).data, Data::Bool(vec![true; 4]));
        assert_eq!(cast(&x, DType::F16, true).as_f32().unwrap()[3], 0.333_251_95);
        assert_eq!(
            cast(&x, DType::F8E4M3FN, true).as_f32().unwrap(),
            [-1.75, 0.3125, 288.0, 0.34375]
        );
        let large = Array::f32(&[2], vec![1e5, -1e5]);
        assert_eq!(cast(&large, DType::F8E5M2, true).as_f32().unwrap(), [57344.0, -57344.0]);
        assert!(cast(&large, DType::F8E5M2, false).as_f32().unwrap()[0].is_infinite());
    }

    #[test]
    fn integers_wrap_and_large_ones_stay() {
        let x = Array { shape: vec![2], data: Data::U64(vec![u64::MAX, 1 << 63]) };
        assert_eq!(cast(&x, DType::F64, true).data, Data::F64(vec![2f64.powi(64), 2f64.powi(63)]));
        assert_eq!(cast(&x, DType::I64, true).data, Data::I64(vec![-1, i64::MIN]));
        let y = cast(&x, DType::F32, true);
        assert_eq!(cast(&y, DType::U64, true).data, Data::U64(vec![u64::MAX, 1 << 63]));
        let four = cast(&Array { shape: vec![2], data: Data::I32(vec![9, -9]) }, DType::I4, true);
        assert_eq!(four.data, Data::I8(vec![-7, 7]));
    }
}
