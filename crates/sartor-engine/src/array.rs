//! Tensors at run time.

use std::ops::Range;

use sartor_ir::{DType, Tensor};

/// The element type that holds values of `dtype` at run time; `None` for text and 8-bit floats.
pub(crate) fn storage(dtype: DType) -> Option<DType> {
    Some(match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => DType::F32,
        DType::I64 | DType::U64 | DType::U32 => DType::I64,
        DType::I32 | DType::I16 | DType::U16 => DType::I32,
        DType::I8 | DType::I4 => DType::I8,
        DType::U8 | DType::U4 => DType::U8,
        DType::Bool => DType::Bool,
        _ => return None,
    })
}

/// The same expression for every element type: `each!(&data, values => expression giving a Vec)`.
macro_rules! each {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($values) => $crate::Data::F32($body),
            $crate::Data::I64($values) => $crate::Data::I64($body),
            $crate::Data::I32($values) => $crate::Data::I32($body),
            $crate::Data::I8($values) => $crate::Data::I8($body),
            $crate::Data::U8($values) => $crate::Data::U8($body),
            $crate::Data::Bool($values) => $crate::Data::Bool($body),
        }
    };
}
pub(crate) use each;

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

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::I64(values) => values.len(),
            Data::I32(values) => values.len(),
            Data::I8(values) => values.len(),
            Data::U8(values) => values.len(),
            Data::Bool(values) => values.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
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
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "as many values as the shape has elements"
        );
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

    /// An array of one element.
    pub fn scalar(data: Data) -> Self {
        assert_eq!(data.len(), 1, "a scalar has one element");
        Array { shape: Vec::new(), data }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements under another shape; `None` if the counts differ.
    #[must_use]
    pub fn reshaped(self, shape: Vec<usize>) -> Option<Self> {
        (shape.iter().product::<usize>() == self.len()).then_some(Array { shape, data: self.data })
    }

    /// Rows `range` along axis 0; `None` for a scalar or a range beyond the extent.
    pub fn rows(&self, range: Range<usize>) -> Option<Self> {
        let extent = *self.shape.first()?;
        if range.start > range.end || range.end > extent {
            return None;
        }
        let row: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let data = each!(&self.data, values => values[range.start * row..range.end * row].to_vec());
        Some(Array { shape, data })
    }

    /// All elements as `i64`; floats are truncated.
    pub fn to_i64(&self) -> Vec<i64> {
        match &self.data {
            Data::F32(values) => values.iter().map(|&it| it as i64).collect(),
            Data::I64(values) => values.clone(),
            Data::I32(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::I8(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::U8(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::Bool(values) => values.iter().map(|&it| i64::from(it)).collect(),
        }
    }

    /// All elements as `f32`, integers rounded to the nearest float.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(values) => values.clone(),
            Data::I64(values) => values.iter().map(|&it| it as f32).collect(),
            Data::I32(values) => values.iter().map(|&it| it as f32).collect(),
            Data::I8(values) => values.iter().map(|&it| f32::from(it)).collect(),
            Data::U8(values) => values.iter().map(|&it| f32::from(it)).collect(),
            Data::Bool(values) => values.iter().map(|&it| f32::from(u8::from(it))).collect(),
        }
    }

    /// As a constant of a graph, of the type that [`Array::dtype`] says.
    pub fn to_tensor(&self) -> Tensor {
        match &self.data {
            Data::F32(values) => Tensor::from_f32(&self.shape, values),
            Data::I64(values) => Tensor::from_i64(&self.shape, values),
            Data::I32(values) => Tensor::from_i32(&self.shape, values),
            Data::I8(values) => Tensor::from_i8(&self.shape, values),
            Data::U8(values) => Tensor::from_u8(&self.shape, values),
            Data::Bool(values) => {
                let bytes: Vec<u8> = values.iter().map(|&it| u8::from(it)).collect();
                Tensor::new(DType::Bool, self.shape.clone(), bytes).expect("one byte an element")
            }
        }
    }

    /// Reads a constant, 4-bit integers as bytes; `None` for a type that the engine does not run (text,
    /// 8-bit floats).
    pub fn from_tensor(tensor: &Tensor) -> Option<Self> {
        let data = match tensor.dtype() {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Data::F32(tensor.to_f32().ok()?),
            DType::I64 | DType::U64 | DType::U32 => Data::I64(tensor.to_i64().ok()?),
            DType::I32 | DType::I16 | DType::U16 => {
                Data::I32(tensor.to_i64().ok()?.into_iter().map(|it| it as i32).collect())
            }
            DType::I8 => Data::I8(tensor.data().iter().map(|it| it.cast_signed()).collect()),
            DType::I4 => Data::I8(tensor.to_i64().ok()?.into_iter().map(|it| it as i8).collect()),
            DType::U8 => Data::U8(tensor.data().to_vec()),
            DType::U4 => Data::U8(tensor.to_i64().ok()?.into_iter().map(|it| it as u8).collect()),
            DType::Bool => Data::Bool(tensor.data().iter().map(|it| *it != 0).collect()),
            _ => return None,
        };
        Some(Array { shape: tensor.shape().to_vec(), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_constants() {
        let array = Array { shape: vec![3, 2], data: Data::I8(vec![1, 2, 3, 4, -5, 6]) };
        let tail = array.rows(1..3).unwrap();
        assert_eq!(tail, Array { shape: vec![2, 2], data: Data::I8(vec![3, 4, -5, 6]) });
        assert!(array.rows(2..4).is_none());
        assert_eq!(Array::from_tensor(&array.to_tensor()), Some(array));
    }

    #[test]
    fn four_bit_constants_widen_to_bytes() {
        let four = Tensor::new(DType::I4, vec![3], vec![0x7f, 0x08]).unwrap();
        assert_eq!(Array::from_tensor(&four).unwrap().data, Data::I8(vec![-1, 7, -8]));
    }
}
