//! Dimensions, which may be known, named or unknown, and tensor types.

use std::{fmt, sync::Arc};

use crate::DType;

/// One extent of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// A name whose number is the same wherever the name stands in one graph, such as the batch `N`.
    Symbol(Arc<str>),
    /// Not known before the graph runs.
    Unknown,
}

impl Dim {
    /// A named dimension.
    pub fn symbol(name: &str) -> Self {
        Dim::Symbol(Arc::from(name))
    }

    /// The number, if there is one.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(*n),
            Dim::Symbol(_) | Dim::Unknown => None,
        }
    }

    /// Whether the two may stand for the same number.
    pub fn compatible(&self, other: &Dim) -> bool {
        match (self, other) {
            (Dim::Known(a), Dim::Known(b)) => a == b,
            _ => true,
        }
    }

    /// The more precise of two descriptions of one extent: number, then name, then nothing.
    #[must_use]
    pub fn or(&self, other: &Dim) -> Dim {
        match (self, other) {
            (Dim::Known(_), _)
            | (Dim::Symbol(_), Dim::Unknown | Dim::Symbol(_))
            | (Dim::Unknown, Dim::Unknown) => self.clone(),
            (Dim::Symbol(_), Dim::Known(_)) | (Dim::Unknown, _) => other.clone(),
        }
    }

    /// `self × other`, exact for numbers and for a factor of one.
    #[must_use]
    pub fn times(&self, other: &Dim) -> Dim {
        match (self, other) {
            (Dim::Known(a), Dim::Known(b)) => a.checked_mul(*b).map_or(Dim::Unknown, Dim::Known),
            (Dim::Known(1), it) | (it, Dim::Known(1)) => it.clone(),
            (Dim::Known(0), _) | (_, Dim::Known(0)) => Dim::Known(0),
            _ => Dim::Unknown,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Known(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// Element type and, where the rank is known, shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; `None` when not even the rank is known.
    pub shape: Option<Vec<Dim>>,
}

impl TensorType {
    /// A type of known rank.
    pub fn new(dtype: DType, shape: Vec<Dim>) -> Self {
        TensorType { dtype, shape: Some(shape) }
    }

    /// A type whose extents are all numbers.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Self {
        Self::new(dtype, shape.iter().map(|&n| Dim::Known(n)).collect())
    }

    /// All extents as numbers, if all are known.
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }

    /// Whether some tensor could have both types.
    pub fn compatible(&self, other: &TensorType) -> bool {
        let shapes = match (&self.shape, &other.shape) {
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.compatible(b))
            }
            _ => true,
        };
        self.dtype == other.dtype && shapes
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            None => write!(f, "{}[*]", self.dtype),
            Some(shape) => {
                let dims: Vec<_> = shape.iter().map(ToString::to_string).collect();
                write!(f, "{}[{}]", self.dtype, dims.join(","))
            }
        }
    }
}

/// Numpy's multidirectional broadcasting, as ONNX defines it
/// (<https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md>).
///
/// # Errors
/// A sentence with both shapes when two extents differ and neither is 1.
pub fn broadcast(lhs: &[Dim], rhs: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = lhs.len().max(rhs.len());
    let at = |shape: &[Dim], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(i) => shape[i].clone(),
        None => Dim::Known(1),
    };
    let one = |axis| match (at(lhs, axis), at(rhs, axis)) {
        (Dim::Known(1), it) | (it, Dim::Known(1)) => Ok(it),
        (Dim::Known(a), Dim::Known(b)) if a != b => {
            Err(format!("shapes {} and {} do not broadcast", list(lhs), list(rhs)))
        }
        (it @ Dim::Known(_), _) | (_, it @ Dim::Known(_)) => Ok(it),
        (Dim::Symbol(a), Dim::Symbol(b)) if a == b => Ok(Dim::Symbol(a)),
        _ => Ok(Dim::Unknown),
    };
    (0..rank).map(one).collect()
}

/// `[N,3,32,32]`.
pub(crate) fn list(shape: &[Dim]) -> String {
    let dims: Vec<_> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(text: &str) -> Vec<Dim> {
        let one = |it: &str| match it.parse() {
            Ok(n) => Dim::Known(n),
            Err(_) if it == "?" => Dim::Unknown,
            Err(_) => Dim::symbol(it),
        };
        text.split(',').filter(|it| !it.is_empty()).map(one).collect()
    }

    #[test]
    fn broadcasting() {
        for (a, b, expected) in [
            ("N,3,1,1", "3,8,8", "[N,3,8,8]"),
            ("", "2,3", "[2,3]"),
            ("N,1", "N,5", "[N,5]"),
            ("N", "M", "[?]"),
            ("?,4", "7,1", "[7,4]"),
        ] {
            assert_eq!(list(&broadcast(&dims(a), &dims(b)).unwrap()), expected, "{a} with {b}");
        }
        assert!(broadcast(&dims("2,3"), &dims("2,4")).is_err());
    }
}
