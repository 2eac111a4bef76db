//! Constant tensors: inert bytes with a type and a shape.

use bytes::Bytes;
use half::{bf16, f16};
use thiserror::Error;

use crate::{DType, TensorType};

/// Why bytes are not a tensor, or a tensor not what was asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TensorError {
    /// The byte length does not fit type and shape.
    #[error("{dtype} tensor of shape {shape:?} needs {expected} bytes, found {found}")]
    Length {
        /// Element type.
        dtype: DType,
        /// Shape, outermost first.
        shape: Vec<usize>,
        /// Bytes that type and shape ask for.
        expected: String,
        /// Bytes there are.
        found: usize,
    },
    /// The element type cannot be read as asked.
    #[error("cannot read a {found} tensor as {wanted}")]
    Type {
        /// What it holds.
        found: DType,
        /// What was asked for.
        wanted: &'static str,
    },
}

/// A constant: element type, shape and little-endian bytes, which clones share.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({}{:?})", self.dtype, self.shape)
    }
}

/// Decodes `$data` as little-endian `$t`s and maps each through `$f`.
macro_rules! decode {
    ($data:expr, $t:ty, $f:expr) => {
        $data
            .chunks_exact(size_of::<$t>())
            .map(|it| {
                $f(<$t>::from_le_bytes(
                    it.try_into().expect("chunks_exact gives chunks of this size"),
                ))
            })
            .collect()
    };
}

impl Tensor {
    /// A tensor of `data`, which must be as long as type and shape ask for (text: any length).
    ///
    /// # Errors
    /// [`TensorError::Length`].
    pub fn new(
        dtype: DType,
        shape: Vec<usize>,
        data: impl Into<Bytes>,
    ) -> Result<Self, TensorError> {
        let data = data.into();
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let expected = count.and_then(|n| dtype.bytes_for(n));
        if expected != Some(data.len()) && dtype != DType::Str {
            let expected = expected
                .map_or_else(|| "more than can be addressed".to_owned(), |it| it.to_string());
            return Err(TensorError::Length { dtype, shape, expected, found: data.len() });
        }
        Ok(Tensor { dtype, shape, data })
    }

    fn from_values(dtype: DType, shape: &[usize], data: Vec<u8>) -> Self {
        Self::new(dtype, shape.to_vec(), data)
            .expect("the caller passes as many values as the shape has elements")
    }

    /// A float32 tensor; panics if `values` does not fill `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        Self::from_values(
            DType::F32,
            shape,
            values.iter().flat_map(|it| it.to_le_bytes()).collect(),
        )
    }

    /// An int64 tensor; panics if `values` does not fill `shape`.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        Self::from_values(
            DType::I64,
            shape,
            values.iter().flat_map(|it| it.to_le_bytes()).collect(),
        )
    }

    /// An int32 tensor; panics if `values` does not fill `shape`.
    pub fn from_i32(shape: &[usize], values: &[i32]) -> Self {
        Self::from_values(
            DType::I32,
            shape,
            values.iter().flat_map(|it| it.to_le_bytes()).collect(),
        )
    }

    /// An int8 tensor; panics if `values` does not fill `shape`.
    pub fn from_i8(shape: &[usize], values: &[i8]) -> Self {
        Self::from_values(DType::I8, shape, values.iter().flat_map(|it| it.to_le_bytes()).collect())
    }

    /// A uint8 tensor; panics if `values` does not fill `shape`.
    pub fn from_u8(shape: &[usize], values: &[u8]) -> Self {
        Self::from_values(DType::U8, shape, values.to_vec())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type with all extents known.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype, &self.shape)
    }

    /// The little-endian bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements under another shape of as many elements.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the counts differ.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, TensorError> {
        Self::new(self.dtype, shape, self.data.clone())
    }

    /// All elements as `f32`; float types only, wider ones are rounded.
    ///
    /// # Errors
    /// [`TensorError::Type`] for integers, 8-bit floats, booleans and text.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        let data = &self.data;
        Ok(match self.dtype {
            DType::F32 => decode!(data, f32, |it| it),
            DType::F64 => decode!(data, f64, |it| it as f32),
            DType::F16 => decode!(data, u16, |it| f16::from_bits(it).to_f32()),
            DType::BF16 => decode!(data, u16, |it| bf16::from_bits(it).to_f32()),
            _ => return Err(TensorError::Type { found: self.dtype, wanted: "floating point" }),
        })
    }

    /// All elements as `i64`; integer and boolean types only.
    ///
    /// # Errors
    /// [`TensorError::Type`] for floats and text.
    pub fn to_i64(&self) -> Result<Vec<i64>, TensorError> {
        let data = &self.data;
        let nibbles = |sign: bool| {
            let each = |i: usize| {
                let nibble = i64::from(data[i / 2] >> (4 * (i % 2)) & 15);
                if sign && nibble > 7 { nibble - 16 } else { nibble }
            };
            (0..self.len()).map(each).collect()
        };
        Ok(match self.dtype {
            DType::I4 => nibbles(true),
            DType::U4 => nibbles(false),
            DType::I8 => decode!(data, i8, i64::from),
            DType::U8 | DType::Bool => decode!(data, u8, i64::from),
            DType::I16 => decode!(data, i16, i64::from),
            DType::U16 => decode!(data, u16, i64::from),
            DType::I32 => decode!(data, i32, i64::from),
            DType::U32 => decode!(data, u32, i64::from),
            DType::I64 => decode!(data, i64, |it| it),
            DType::U64 => decode!(data, u64, |it| it as i64),
            _ => return Err(TensorError::Type { found: self.dtype, wanted: "integers" }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_checked() {
        let error = Tensor::new(DType::F32, vec![2, 3], vec![0u8; 20]).unwrap_err();
        assert_eq!(error.to_string(), "f32 tensor of shape [2, 3] needs 24 bytes, found 20");
        assert!(Tensor::new(DType::I64, vec![usize::MAX, 2], vec![]).is_err());
    }

    #[test]
    fn integers_of_every_width() {
        let four = Tensor::new(DType::I4, vec![3], vec![0x7f, 0x08]).unwrap();
        assert_eq!(four.to_i64().unwrap(), [-1, 7, -8]);
        assert_eq!(Tensor::from_i8(&[2], &[-128, 127]).to_i64().unwrap(), [-128, 127]);
        assert!(Tensor::from_i64(&[1], &[3]).to_f32().is_err());
    }

    #[test]
    fn half_precision_reads_as_f32() {
        let bits = f16::from_f32(1.5).to_bits().to_le_bytes();
        let half = Tensor::new(DType::F16, vec![1], bits.to_vec()).unwrap();
        assert_eq!(half.to_f32().unwrap(), [1.5]);
    }
}
