//! Tensors at run time.

use std::ops::Range;

use sartor_ir::{DType, Tensor, narrow};

/// The element type that holds values of `dtype` at run time; `None` for text.
///
/// Narrow floats are held as `f32`, rounded to their grid; integers of less than 8 bits as bytes.
pub(crate) fn storage(dtype: DType) -> Option<DType> {
    Some(match dtype {
        it if it.is_narrow_float() => DType::F32,
        DType::I4 | DType::I2 => DType::I8,
        DType::U4 | DType::U2 => DType::U8,
        DType::Str => return None,
        it => it,
    })
}

/// The same expression for every element type: `on_each!(&data, values => expression)`.
macro_rules! on_each {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($values) => $body,
            $crate::Data::F64($values) => $body,
            $crate::Data::I64($values) => $body,
            $crate::Data::I32($values) => $body,
            $crate::Data::I16($values) => $body,
            $crate::Data::I8($values) => $body,
            $crate::Data::U64($values) => $body,
            $crate::Data::U32($values) => $body,
            $crate::Data::U16($values) => $body,
            $crate::Data::U8($values) => $body,
            $crate::Data::Bool($values) => $body,
        }
    };
}
pub(crate) use on_each;

/// As [`on_each`], for an expression that gives a `Vec` of the same or another element type.
macro_rules! each {
    ($data:expr, $values:ident => $body:expr) => {
        $crate::array::on_each!($data, $values => $crate::array::Element::wrap($body))
    };
}
pub(crate) use each;

/// Elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floats; narrower floats are widened to this.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// Signed 32-bit integers.
    I32(Vec<i32>),
    /// Signed 16-bit integers.
    I16(Vec<i16>),
    /// Signed bytes; narrower signed integers are widened to this.
    I8(Vec<i8>),
    /// Unsigned 64-bit integers.
    U64(Vec<u64>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Unsigned 16-bit integers.
    U16(Vec<u16>),
    /// Unsigned bytes; narrower unsigned integers are widened to this.
    U8(Vec<u8>),
    /// Truth values.
    Bool(Vec<bool>),
}

/// A type that [`Data`] holds.
pub(crate) trait Element: Copy + PartialEq + Default + Send + Sync + 'static {
    /// Elements as data.
    fn wrap(values: Vec<Self>) -> Data;
    /// The elements of data that holds this type.
    fn of(data: &Data) -> Option<&[Self]>;
}

macro_rules! elements {
    ($($t:ty => $variant:ident),*) => { $(
        impl Element for $t {
            fn wrap(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }

            fn of(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }

        impl From<Vec<$t>> for Data {
            fn from(values: Vec<$t>) -> Data {
                Data::$variant(values)
            }
        }
    )* };
}
elements!(
    f32 => F32, f64 => F64, i64 => I64, i32 => I32, i16 => I16, i8 => I8,
    u64 => U64, u32 => U32, u16 => U16, u8 => U8, bool => Bool
);

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        on_each!(self, values => values.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of a range. Panics if it reaches beyond them.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Data {
        each!(self, values => values[range].to_vec())
    }

    /// The elements of several ranges, one after another. Panics if one reaches beyond them.
    #[must_use]
    pub fn runs(&self, ranges: impl Iterator<Item = Range<usize>>) -> Data {
        each!(self, values => ranges.flat_map(|it| &values[it]).copied().collect())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::I64(_) => DType::I64,
            Data::I32(_) => DType::I32,
            Data::I16(_) => DType::I16,
            Data::I8(_) => DType::I8,
            Data::U64(_) => DType::U64,
            Data::U32(_) => DType::U32,
            Data::U16(_) => DType::U16,
            Data::U8(_) => DType::U8,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Integers as another integer type, wrapping; as floats, rounded; truth values are "not 0".
    pub(crate) fn from_integers(values: Vec<i64>, to: DType) -> Data {
        fn all<T: Element>(values: Vec<i64>, one: impl Fn(i64) -> T) -> Data {
            T::wrap(values.into_iter().map(one).collect())
        }
        match to {
            DType::I64 => Data::I64(values),
            DType::I32 => all(values, |it| it as i32),
            DType::I16 => all(values, |it| it as i16),
            DType::I8 => all(values, |it| it as i8),
            DType::U64 => all(values, |it| it as u64),
            DType::U32 => all(values, |it| it as u32),
            DType::U16 => all(values, |it| it as u16),
            DType::U8 => all(values, |it| it as u8),
            DType::Bool => all(values, |it| it != 0),
            DType::I4 => all(values, |it| ((it as i8) << 4) >> 4),
            DType::I2 => all(values, |it| ((it as i8) << 6) >> 6),
            DType::U4 => all(values, |it| it as u8 & 15),
            DType::U2 => all(values, |it| it as u8 & 3),
            DType::F64 => all(values, |it| it as f64),
            DType::F32 => all(values, |it| it as f32),
            _ => all(values, |it| narrow::round(to, it as f32, true)),
        }
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
        self.data.dtype()
    }

    /// The elements, if they are of type `T`.
    pub(crate) fn values<T: Element>(&self) -> Option<&[T]> {
        T::of(&self.data)
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
        Some(Array { shape, data: self.data.slice(range.start * row..range.end * row) })
    }

    /// All elements as `i64`; floats are truncated.
    pub fn to_i64(&self) -> Vec<i64> {
        match &self.data {
            Data::F32(values) => values.iter().map(|&it| it as i64).collect(),
            Data::F64(values) => values.iter().map(|&it| it as i64).collect(),
            Data::I64(values) => values.clone(),
            Data::I32(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::I16(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::I8(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::U64(values) => values.iter().map(|&it| it as i64).collect(),
            Data::U32(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::U16(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::U8(values) => values.iter().map(|&it| i64::from(it)).collect(),
            Data::Bool(values) => values.iter().map(|&it| i64::from(it)).collect(),
        }
    }

    /// All elements as `f32`, rounded to the nearest.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(values) => values.clone(),
            Data::F64(values) => values.iter().map(|&it| it as f32).collect(),
            Data::I64(values) => values.iter().map(|&it| it as f32).collect(),
            Data::I32(values) => values.iter().map(|&it| it as f32).collect(),
            Data::I16(values) => values.iter().map(|&it| f32::from(it)).collect(),
            Data::I8(values) => values.iter().map(|&it| f32::from(it)).collect(),
            Data::U64(values) => values.iter().map(|&it| it as f32).collect(),
            Data::U32(values) => values.iter().map(|&it| it as f32).collect(),
            Data::U16(values) => values.iter().map(|&it| f32::from(it)).collect(),
            Data::U8(values) => values.iter().map(|&it| f32::from(it)).collect(),
            Data::Bool(values) => values.iter().map(|&it| f32::from(u8::from(it))).collect(),
        }
    }

    /// All elements as `f64`, integers beyond 2^53 rounded to the nearest.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F64(values) => values.clone(),
            Data::F32(values) => values.iter().map(|&it| f64::from(it)).collect(),
            Data::I64(values) => values.iter().map(|&it| it as f64).collect(),
            Data::U64(values) => values.iter().map(|&it| it as f64).collect(),
            _ => self.to_i64().into_iter().map(|it| it as f64).collect(),
        }
    }

    /// The same numbers in the type that holds values of `dtype` at run time, rounded or wrapped to it as
    /// `Cast` does; `None` for text.
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Option<Array> {
        storage(dtype)?;
        Some(crate::reference::cast::cast(self, dtype, true))
    }

    /// As a constant of a graph, of the type that [`Array::dtype`] says.
    pub fn to_tensor(&self) -> Tensor {
        self.to_tensor_as(self.dtype()).expect("an array holds what its type says")
    }

    /// As a constant of type `dtype`, which the array holds at run time; `None` if it does not.
    pub fn to_tensor_as(&self, dtype: DType) -> Option<Tensor> {
        if storage(dtype) != Some(self.dtype()) {
            return None;
        }
        Some(match &self.data {
            Data::F32(values) => Tensor::from_floats(dtype, &self.shape, values).ok()?,
            Data::F64(values) => Tensor::from_f64(&self.shape, values),
            _ => Tensor::from_integers(dtype, &self.shape, &self.to_i64()).ok()?,
        })
    }

    /// Reads a constant; `None` for text, which the engine does not run.
    pub fn from_tensor(tensor: &Tensor) -> Option<Self> {
        let data = match storage(tensor.dtype())? {
            DType::F32 => Data::F32(tensor.to_f32().ok()?),
            DType::F64 => Data::F64(tensor.to_f64().ok()?),
            DType::U8 if tensor.dtype() == DType::U8 => Data::U8(tensor.data().to_vec()),
            held => Data::from_integers(tensor.to_i64().ok()?, held),
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
    fn constants_of_every_type_survive() {
        let numbers = Array { shape: vec![3], data: Data::I64(vec![1, 0, 1]) };
        for dtype in [
            DType::F32,
            DType::F64,
            DType::F16,
            DType::BF16,
            DType::F8E4M3FN,
            DType::F4E2M1,
            DType::I4,
            DType::U2,
            DType::I16,
            DType::U16,
            DType::U32,
            DType::U64,
            DType::Bool,
        ] {
            let array = numbers.cast(dtype).unwrap();
            let tensor = array.to_tensor_as(dtype).unwrap();
            assert_eq!(tensor.dtype(), dtype);
            assert_eq!(Array::from_tensor(&tensor), Some(array), "{dtype}");
        }
        assert!(numbers.to_tensor_as(DType::F32).is_none());
    }

    #[test]
    fn four_bit_constants_widen_to_bytes() {
        let four = Tensor::new(DType::I4, vec![3], vec![0x7f, 0x08]).unwrap();
        assert_eq!(Array::from_tensor(&four).unwrap().data, Data::I8(vec![-1, 7, -8]));
    }
}
