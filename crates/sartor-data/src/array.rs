//! Arrays as they leave this crate: a name, a shape and a flat vector in row-major order.

/// The element types that arrays are read and written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// True or false, a byte each.
    Bool,
}

impl Dtype {
    /// Bytes an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The name that numpy and the data spec use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U64 => "uint64",
            Self::U32 => "uint32",
            Self::U16 => "uint16",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }
}

/// Elements of one type, flat, the last axis fastest.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// `float32`.
    F32(Vec<f32>),
    /// `float64`.
    F64(Vec<f64>),
    /// `int64`.
    I64(Vec<i64>),
    /// `int32`.
    I32(Vec<i32>),
    /// `int16`.
    I16(Vec<i16>),
    /// `int8`.
    I8(Vec<i8>),
    /// `uint64`.
    U64(Vec<u64>),
    /// `uint32`.
    U32(Vec<u32>),
    /// `uint16`.
    U16(Vec<u16>),
    /// `uint8`.
    U8(Vec<u8>),
    /// `bool`.
    Bool(Vec<bool>),
}

/// Evaluates `$body` with `$v` bound to the vector, whatever its type.
macro_rules! each {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            Values::F32($v) => $body,
            Values::F64($v) => $body,
            Values::I64($v) => $body,
            Values::I32($v) => $body,
            Values::I16($v) => $body,
            Values::I8($v) => $body,
            Values::U64($v) => $body,
            Values::U32($v) => $body,
            Values::U16($v) => $body,
            Values::U8($v) => $body,
            Values::Bool($v) => $body,
        }
    };
}

impl Values {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F64(_) => Dtype::F64,
            Self::I64(_) => Dtype::I64,
            Self::I32(_) => Dtype::I32,
            Self::I16(_) => Dtype::I16,
            Self::I8(_) => Dtype::I8,
            Self::U64(_) => Dtype::U64,
            Self::U32(_) => Dtype::U32,
            Self::U16(_) => Dtype::U16,
            Self::U8(_) => Dtype::U8,
            Self::Bool(_) => Dtype::Bool,
        }
    }

    /// The elements, where they are `float32`.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let Self::F32(v) = self { Some(v) } else { None }
    }

    /// The elements as `float32`, rounded to nearest; true is 1.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(v) => v.clone(),
            Self::F64(v) => v.iter().map(|&x| x as f32).collect(),
            Self::I64(v) => v.iter().map(|&x| x as f32).collect(),
            Self::I32(v) => v.iter().map(|&x| x as f32).collect(),
            Self::I16(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::I8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::U64(v) => v.iter().map(|&x| x as f32).collect(),
            Self::U32(v) => v.iter().map(|&x| x as f32).collect(),
            Self::U16(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::Bool(v) => v.iter().map(|&x| f32::from(u8::from(x))).collect(),
        }
    }

    /// The elements as `float64`; true is 1, and integers beyond 2^53 are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Self::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Self::F64(v) => v.clone(),
            Self::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Self::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Self::I16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Self::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Self::U64(v) => v.iter().map(|&x| x as f64).collect(),
            Self::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Self::U16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Self::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Self::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// The elements as integers; `None` where one is a fraction, not finite, or too large to be exact.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        // Up to 2^53 every integer is a double of its own.
        let exact =
            |x: f64| (x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0).then_some(x as i64);
        match self {
            Self::F32(v) => v.iter().map(|&x| exact(f64::from(x))).collect(),
            Self::F64(v) => v.iter().map(|&x| exact(x)).collect(),
            Self::I64(v) => Some(v.clone()),
            Self::I32(v) => Some(v.iter().map(|&x| i64::from(x)).collect()),
            Self::I16(v) => Some(v.iter().map(|&x| i64::from(x)).collect()),
            Self::I8(v) => Some(v.iter().map(|&x| i64::from(x)).collect()),
            Self::U64(v) => v.iter().map(|&x| i64::try_from(x).ok()).collect(),
            Self::U32(v) => Some(v.iter().map(|&x| i64::from(x)).collect()),
            Self::U16(v) => Some(v.iter().map(|&x| i64::from(x)).collect()),
            Self::U8(v) => Some(v.iter().map(|&x| i64::from(x)).collect()),
            Self::Bool(v) => Some(v.iter().map(|&x| i64::from(x)).collect()),
        }
    }

    /// The elements in another type; `None` where an integer type cannot hold one of them exactly. To `float32` and
    /// `float64` they are rounded.
    pub fn cast(self, dtype: Dtype) -> Option<Self> {
        if self.dtype() == dtype {
            return Some(self);
        }
        Some(match dtype {
            Dtype::F32 => Self::F32(self.to_f32()),
            Dtype::F64 => Self::F64(self.to_f64()),
            Dtype::I64 => Self::I64(self.to_i64()?),
            Dtype::I32 => Self::I32(narrow(&self.to_i64()?)?),
            Dtype::I16 => Self::I16(narrow(&self.to_i64()?)?),
            Dtype::I8 => Self::I8(narrow(&self.to_i64()?)?),
            Dtype::U64 => Self::U64(narrow(&self.to_i64()?)?),
            Dtype::U32 => Self::U32(narrow(&self.to_i64()?)?),
            Dtype::U16 => Self::U16(narrow(&self.to_i64()?)?),
            Dtype::U8 => Self::U8(narrow(&self.to_i64()?)?),
            Dtype::Bool => {
                Self::Bool(narrow::<u8>(&self.to_i64()?)?.into_iter().map(|x| x != 0).collect())
            }
        })
    }

    /// Decodes little-endian elements; a rest shorter than an element is dropped.
    pub(crate) fn from_le_bytes(dtype: Dtype, bytes: &[u8]) -> Self {
        macro_rules! decode {
            ($type:ty) => {
                bytes.as_chunks().0.iter().map(|&it| <$type>::from_le_bytes(it)).collect()
            };
        }
        match dtype {
            Dtype::F32 => Self::F32(decode!(f32)),
            Dtype::F64 => Self::F64(decode!(f64)),
            Dtype::I64 => Self::I64(decode!(i64)),
            Dtype::I32 => Self::I32(decode!(i32)),
            Dtype::I16 => Self::I16(decode!(i16)),
            Dtype::I8 => Self::I8(decode!(i8)),
            Dtype::U64 => Self::U64(decode!(u64)),
            Dtype::U32 => Self::U32(decode!(u32)),
            Dtype::U16 => Self::U16(decode!(u16)),
            Dtype::U8 => Self::U8(bytes.to_vec()),
            Dtype::Bool => Self::Bool(bytes.iter().map(|&b| b != 0).collect()),
        }
    }

    /// Encodes the elements as little-endian bytes.
    pub(crate) fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I8(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U8(v) => v.clone(),
            Self::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        }
    }
}

fn narrow<T: TryFrom<i64>>(values: &[i64]) -> Option<Vec<T>> {
    values.iter().map(|&x| T::try_from(x).ok()).collect()
}

/// One array with the name of the input or output that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// The name; `None` for the only input of a network, which a data spec need not name.
    pub name: Option<String>,
    /// The length of each axis, the batch first; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many elements as the product of the shape.
    pub values: Values,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_keep_every_value_or_refuse() {
        let cases = [
            (Values::F32(vec![0.0, 255.0]), Dtype::U8, Some(Values::U8(vec![0, 255]))),
            (Values::F32(vec![0.5]), Dtype::U8, None),
            (Values::F32(vec![f32::NAN]), Dtype::I64, None),
            (Values::F64(vec![1e300]), Dtype::I64, None),
            (Values::I64(vec![300]), Dtype::U8, None),
            (Values::I64(vec![-1]), Dtype::I32, Some(Values::I32(vec![-1]))),
            (Values::F64(vec![0.1]), Dtype::F32, Some(Values::F32(vec![0.1]))),
            (Values::U8(vec![7]), Dtype::F32, Some(Values::F32(vec![7.0]))),
            (Values::Bool(vec![true]), Dtype::I64, Some(Values::I64(vec![1]))),
        ];
        for (values, dtype, expected) in cases {
            assert_eq!(values.clone().cast(dtype), expected, "{values:?} as {}", dtype.name());
        }
    }

    #[test]
    fn bytes_round_trip() {
        let all = [
            Values::F32(vec![1.5, -0.0]),
            Values::F64(vec![1e300]),
            Values::I64(vec![i64::MIN, 3]),
            Values::I32(vec![-7]),
            Values::I16(vec![-300]),
            Values::I8(vec![-7]),
            Values::U64(vec![u64::MAX]),
            Values::U32(vec![u32::MAX]),
            Values::U16(vec![60000]),
            Values::U8(vec![200]),
            Values::Bool(vec![true, false]),
        ];
        for values in all {
            let bytes = values.to_le_bytes();
            assert_eq!(bytes.len(), values.len() * values.dtype().bytes());
            assert_eq!(Values::from_le_bytes(values.dtype(), &bytes), values);
        }
    }
}
