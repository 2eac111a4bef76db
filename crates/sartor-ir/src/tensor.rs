//! Constant tensors: inert bytes with a type and a shape.

use bytes::Bytes;
use half::{bf16, f16};
use thiserror::Error;

use crate::{DType, TensorType, narrow};

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

    /// A float64 tensor; panics if `values` does not fill `shape`.
    pub fn from_f64(shape: &[usize], values: &[f64]) -> Self {
        Self::from_values(
            DType::F64,
            shape,
            values.iter().flat_map(|it| it.to_le_bytes()).collect(),
        )
    }

    /// A tensor of a float type of at most 32 bits, values rounded to it; panics if `values` does not fill
    /// `shape`.
    ///
    /// # Errors
    /// [`TensorError::Type`] for other types.
    pub fn from_floats(dtype: DType, shape: &[usize], values: &[f32]) -> Result<Self, TensorError> {
        let data = match dtype {
            DType::F32 => return Ok(Self::from_f32(shape, values)),
            DType::F16 => {
                values.iter().flat_map(|&it| f16::from_f32(it).to_bits().to_le_bytes()).collect()
            }
            DType::BF16 => {
                values.iter().flat_map(|&it| bf16::from_f32(it).to_bits().to_le_bytes()).collect()
            }
            _ if dtype.is_narrow_float() => {
                let codes: Vec<u8> = values.iter().map(|&it| narrow::encode(dtype, it)).collect();
                packed(&codes, dtype.bits())
            }
            _ => return Err(TensorError::Type { found: dtype, wanted: "a float type" }),
        };
        Ok(Self::from_values(dtype, shape, data))
    }

    /// A tensor of an integer type or of truth values, values wrapped to it; panics if `values` does not
    /// fill `shape`.
    ///
    /// # Errors
    /// [`TensorError::Type`] for other types.
    pub fn from_integers(
        dtype: DType,
        shape: &[usize],
        values: &[i64],
    ) -> Result<Self, TensorError> {
        if dtype.is_float() || dtype == DType::Str {
            return Err(TensorError::Type { found: dtype, wanted: "an integer type" });
        }
        let data = match dtype {
            DType::Bool => values.iter().map(|&it| u8::from(it != 0)).collect(),
            _ if dtype.bits() < 8 => {
                let codes: Vec<u8> = values.iter().map(|&it| it as u8).collect();
                packed(&codes, dtype.bits())
            }
            _ => {
                let width = dtype.bits() / 8;
                values.iter().flat_map(|it| it.to_le_bytes().into_iter().take(width)).collect()
            }
        };
        Ok(Self::from_values(dtype, shape, data))
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
    /// [`TensorError::Type`] for integers, booleans and text.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        let data = &self.data;
        Ok(match self.dtype {
            DType::F32 => decode!(data, f32, |it| it),
            DType::F64 => decode!(data, f64, |it| it as f32),
            DType::F16 => decode!(data, u16, |it| f16::from_bits(it).to_f32()),
            DType::BF16 => decode!(data, u16, |it| bf16::from_bits(it).to_f32()),
            DType::F4E2M1 => {
                self.codes().into_iter().map(|it| narrow::decode(self.dtype, it)).collect()
            }
            it if it.is_narrow_float() => {
                data.iter().map(|&code| narrow::decode(it, code)).collect()
            }
            _ => return Err(TensorError::Type { found: self.dtype, wanted: "floating point" }),
        })
    }

    /// All elements as `f64`; float types only.
    ///
    /// # Errors
    /// As [`Tensor::to_f32`].
    pub fn to_f64(&self) -> Result<Vec<f64>, TensorError> {
        match self.dtype {
            DType::F64 => Ok(decode!(self.data, f64, |it| it)),
            _ => Ok(self.to_f32()?.into_iter().map(f64::from).collect()),
        }
    }

    /// The codes of elements of less than 8 bits, unpacked.
    fn codes(&self) -> Vec<u8> {
        let bits = self.dtype.bits();
        let (each, mask) = (8 / bits, (1u8 << bits) - 1);
        (0..self.len()).map(|i| self.data[i / each] >> (bits * (i % each)) & mask).collect()
    }

    /// All elements as `i64`; integer and boolean types only.
    ///
    /// # Errors
    /// [`TensorError::Type`] for floats and text.
    pub fn to_i64(&self) -> Result<Vec<i64>, TensorError> {
        let data = &self.data;
        let signed = |half: i64| {
            let wrap =
                move |it: u8| i64::from(it) - if i64::from(it) < half { 0 } else { 2 * half };
            self.codes().into_iter().map(wrap).collect()
        };
        Ok(match self.dtype {
            DType::I4 => signed(8),
            DType::I2 => signed(2),
            DType::U4 | DType::U2 => self.codes().into_iter().map(i64::from).collect(),
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

/// Codes of less than 8 bits in bytes, the first in the low bits.
fn packed(codes: &[u8], bits: usize) -> Vec<u8> {
    if bits >= 8 {
        return codes.to_vec();
    }
    let mask = (1u8 << bits) - 1;
    let byte = |chunk: &[u8]| {
        chunk.iter().enumerate().fold(0, |byte, (i, code)| byte | (code & mask) << (bits * i))
    };
    codes.chunks(8 / bits).map(byte).collect()
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
        let made = |dtype, values: &[i64]| {
            let tensor = Tensor::from_integers(dtype, &[values.len()], values).unwrap();
            tensor.to_i64().unwrap()
        };
        assert_eq!(made(DType::I4, &[-1, 7, -8]), [-1, 7, -8]);
        assert_eq!(made(DType::I2, &[-2, -1, 0, 1, 1]), [-2, -1, 0, 1, 1]);
        assert_eq!(made(DType::U2, &[0, 1, 2, 3, 4]), [0, 1, 2, 3, 0]);
        assert_eq!(made(DType::U16, &[65535, -1]), [65535, 65535]);
        assert_eq!(made(DType::Bool, &[5, 0]), [1, 0]);
        assert_eq!(Tensor::from_i8(&[2], &[-128, 127]).to_i64().unwrap(), [-128, 127]);
        assert!(Tensor::from_i64(&[1], &[3]).to_f32().is_err());
    }

    #[test]
    fn half_precision_reads_as_f32() {
        let bits = f16::from_f32(1.5).to_bits().to_le_bytes();
        let half = Tensor::new(DType::F16, vec![1], bits.to_vec()).unwrap();
        assert_eq!(half.to_f32().unwrap(), [1.5]);
        for dtype in [DType::F16, DType::BF16, DType::F8E5M2, DType::F4E2M1] {
            let made = Tensor::from_floats(dtype, &[3], &[1.5, -0.5, 4.0]).unwrap();
            assert_eq!(made.to_f32().unwrap(), [1.5, -0.5, 4.0], "{dtype}");
        }
    }
}
