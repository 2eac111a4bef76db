//! Tensors at run time.

use sartor_ir::{DType, Tensor};

/// Elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floats (narrower floats are widened to this, 64-bit ones narrowed).
    F32(Vec<f32>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Truth values.
    Bool(Vec<bool>),
}

/// A tensor at run time: shape (outermost first, empty for a scalar) and elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements; as many as the extents' product.
    pub data: Data,
}

impl Array {
    /// A float array. Panics if `values` does not fill `shape`.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "as many values as the shape has elements");
        Array { shape: shape.to_vec(), data: Data::F32(values) }
    }

    /// The floats, if they are floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(values) => Some(values),
            _ => None,
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::I64(_) => DType::I64,
            Data::I32(_) => DType::I32,
            Data::I8(_) => DType::I8,
            Data::U8(_) => DType::U8,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Reads a constant; `None` for a type that the engine does not run (text, 4-bit integers as yet).
    pub fn from_tensor(tensor: &Tensor) -> Option<Self> {
        let data = match tensor.dtype() {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Data::F32(tensor.to_f32().ok()?),
            DType::I64 | DType::U64 | DType::U32 => Data::I64(tensor.to_i64().ok()?),
            DType::I32 | DType::I16 | DType::U16 => {
                Data::I32(tensor.to_i64().ok()?.into_iter().map(|it| it as i32).collect())
            }
            DType::I8 => Data::I8(tensor.data().iter().map(|it| it.cast_signed()).collect()),
            DType::U8 => Data::U8(tensor.data().to_vec()),
            DType::Bool => Data::Bool(tensor.data().iter().map(|it| *it != 0).collect()),
            _ => return None,
        };
        Some(Array { shape: tensor.shape().to_vec(), data })
    }
}
