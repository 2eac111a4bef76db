//! Small integer tensors with partly symbolic elements: how shapes are computed inside graphs.
//!
//! Exporters write `x.view(x.size(0), -1)` as a chain Shape → Gather → Unsqueeze → Concat → Reshape.
//! Following such chains with the batch as a name is what keeps it dynamic.

use std::sync::Arc;

use crate::{
    Binary, DType, Dim, Fact, Op, Tensor,
    op::{normalize_axis, slice_bounds},
};

/// An integer that may be known only by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A number.
    Known(i64),
    /// The extent of this name.
    Symbol(Arc<str>),
    /// Not known before the graph runs.
    Unknown,
}

impl Scalar {
    /// As an extent; a negative number is unknown.
    pub fn to_dim(&self) -> Dim {
        match self {
            Scalar::Known(n) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Known),
            Scalar::Symbol(name) => Dim::Symbol(name.clone()),
            Scalar::Unknown => Dim::Unknown,
        }
    }
}

impl From<&Dim> for Scalar {
    fn from(dim: &Dim) -> Self {
        match dim {
            Dim::Known(n) => i64::try_from(*n).map_or(Scalar::Unknown, Scalar::Known),
            Dim::Symbol(name) => Scalar::Symbol(name.clone()),
            Dim::Unknown => Scalar::Unknown,
        }
    }
}

/// A small integer tensor of known shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegerTensor {
    shape: Vec<usize>,
    elements: Vec<Scalar>,
}

/// Number of elements; what cannot be counted is too large in any case.
fn count_of(shape: &[usize]) -> usize {
    shape.iter().fold(1, |count, &extent| count.saturating_mul(extent))
}

/// Larger tensors are data, not shapes.
const LARGEST: usize = 1024;

impl IntegerTensor {
    /// A vector.
    pub fn vector(elements: Vec<Scalar>) -> Self {
        IntegerTensor { shape: vec![elements.len()], elements }
    }

    /// Reads a small integer or boolean constant; `None` for anything else.
    pub fn read(tensor: &Tensor) -> Option<Self> {
        if tensor.len() > LARGEST {
            return None;
        }
        let elements = tensor.to_i64().ok()?.into_iter().map(Scalar::Known).collect();
        Some(IntegerTensor { shape: tensor.shape().to_vec(), elements })
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements in row-major order.
    pub fn elements(&self) -> &[Scalar] {
        &self.elements
    }

    /// All elements as numbers, if all are known.
    pub fn known(&self) -> Option<Vec<i64>> {
        let one = |it: &Scalar| if let Scalar::Known(n) = it { Some(*n) } else { None };
        self.elements.iter().map(one).collect()
    }

    /// As a constant of an integer type, if all elements are known and fit.
    pub fn to_tensor(&self, dtype: DType) -> Option<Tensor> {
        let known = self.known()?;
        match dtype {
            DType::I64 => Some(Tensor::from_i64(&self.shape, &known)),
            DType::I32 => {
                let narrow: Result<Vec<i32>, _> =
                    known.iter().map(|&it| i32::try_from(it)).collect();
                Some(Tensor::from_i32(&self.shape, &narrow.ok()?))
            }
            _ => None,
        }
    }

    fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1usize; self.shape.len()];
        for i in (1..self.shape.len()).rev() {
            strides[i - 1] = strides[i].saturating_mul(self.shape[i]);
        }
        strides
    }

    /// The tensor whose element at `index` is this one's at `from(index)`.
    fn picked(
        &self,
        shape: Vec<usize>,
        from: impl Fn(&[usize]) -> Option<Vec<usize>>,
    ) -> Option<Self> {
        let strides = self.strides();
        let count = count_of(&shape);
        if count > LARGEST {
            return None;
        }
        let mut index = vec![0; shape.len()];
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            let at = from(&index)?;
            let flat: usize = at.iter().zip(&strides).map(|(i, s)| i * s).sum();
            elements.push(self.elements.get(flat)?.clone());
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Some(IntegerTensor { shape, elements })
    }
}

/// The contents of `op`'s only output, of the inferred type, where they follow from the inputs' contents.
pub(crate) fn evaluate(op: &Op, inputs: &[Option<&Fact>], output: &Fact) -> Option<IntegerTensor> {
    if output.ty.dtype.is_float() || output.ty.dtype == DType::Str {
        return None;
    }
    let value = |i: usize| inputs.get(i).copied().flatten()?.value.as_ref();
    match op {
        Op::Identity | Op::Dropout => value(0).cloned(),
        Op::Cast(cast) => {
            let exact =
                matches!(cast.to, DType::I32 | DType::I64) || cast.to == inputs[0]?.ty.dtype;
            if exact { value(0).cloned() } else { None }
        }
        Op::Reshape(_) | Op::Squeeze | Op::Unsqueeze | Op::Flatten(_) => {
            let shape = output.ty.dims()?;
            let elements = value(0)?.elements.clone();
            (count_of(&shape) == elements.len()).then_some(IntegerTensor { shape, elements })
        }
        Op::Transpose(it) => {
            let x = value(0)?;
            let perm = it.resolve(x.shape.len()).ok()?;
            let shape = perm.iter().map(|&axis| x.shape[axis]).collect();
            x.picked(shape, |at| {
                let mut from = vec![0; at.len()];
                perm.iter().zip(at).for_each(|(&axis, &i)| from[axis] = i);
                Some(from)
            })
        }
        Op::Concat(it) => {
            concat(it.axis, &(0..inputs.len()).map(value).collect::<Option<Vec<_>>>()?)
        }
        Op::Gather(it) => gather(value(0)?, value(1)?, it.axis, output.ty.dims()?),
        Op::Slice => slice(value(0)?, inputs, output.ty.dims()?),
        Op::ConstantOfShape(it) => {
            let shape = output.ty.dims()?;
            let count = count_of(&shape);
            let fill = Scalar::Known(*it.value.to_i64().ok()?.first()?);
            (count <= LARGEST).then(|| IntegerTensor { shape, elements: vec![fill; count] })
        }
        Op::Binary(it) => binary(*it, value(0)?, value(1)?),
        _ => None,
    }
}

fn concat(axis: i64, parts: &[&IntegerTensor]) -> Option<IntegerTensor> {
    let first = parts.first()?;
    let axis = normalize_axis(axis, first.shape.len()).ok()?;
    let outer: usize = first.shape[..axis].iter().product();
    let mut elements = Vec::new();
    for row in 0..outer {
        for part in parts {
            let run: usize = part.shape[axis..].iter().product();
            elements.extend_from_slice(part.elements.get(row * run..(row + 1) * run)?);
        }
    }
    let mut shape = first.shape.clone();
    shape[axis] = parts.iter().map(|it| it.shape.get(axis).copied()).sum::<Option<usize>>()?;
    (elements.len() <= LARGEST).then_some(IntegerTensor { shape, elements })
}

fn gather(
    x: &IntegerTensor,
    indices: &IntegerTensor,
    axis: i64,
    shape: Vec<usize>,
) -> Option<IntegerTensor> {
    let axis = normalize_axis(axis, x.shape.len()).ok()?;
    let picks = indices.known()?;
    let strides = indices.strides();
    let rank = indices.shape.len();
    x.picked(shape, |at| {
        let flat: usize = at[axis..axis + rank].iter().zip(&strides).map(|(i, s)| i * s).sum();
        let mut from = at[..axis].to_vec();
        from.push(normalize_axis(*picks.get(flat)?, x.shape[axis]).ok()?);
        from.extend_from_slice(&at[axis + rank..]);
        Some(from)
    })
}

fn slice(x: &IntegerTensor, inputs: &[Option<&Fact>], shape: Vec<usize>) -> Option<IntegerTensor> {
    let list = |i: usize| inputs.get(i).copied().flatten().map(Fact::integers);
    let (starts, ends) = (list(1)??, list(2)??);
    let axes = list(3).unwrap_or_else(|| Some((0..starts.len() as i64).collect()))?;
    let steps = list(4).unwrap_or_else(|| Some(vec![1; starts.len()]))?;
    let mut windows: Vec<(usize, isize)> = vec![(0, 1); x.shape.len()];
    for (i, &axis) in axes.iter().enumerate() {
        let axis = normalize_axis(axis, x.shape.len()).ok()?;
        let (start, step, _) =
            slice_bounds(x.shape[axis], *starts.get(i)?, *ends.get(i)?, *steps.get(i)?);
        windows[axis] = (start, step);
    }
    x.picked(shape, |at| {
        let one = |(&i, &(start, step)): (&usize, &(usize, isize))| {
            start.checked_add_signed(step * i.cast_signed())
        };
        at.iter().zip(&windows).map(one).collect()
    })
}

/// Arithmetic on equal shapes, or with a scalar on one side.
fn binary(op: Binary, a: &IntegerTensor, b: &IntegerTensor) -> Option<IntegerTensor> {
    let shape = match (a.elements.len(), b.elements.len()) {
        _ if a.shape == b.shape => a.shape.clone(),
        (_, 1) if a.shape.len() >= b.shape.len() => a.shape.clone(),
        (1, _) if b.shape.len() >= a.shape.len() => b.shape.clone(),
        _ => return None,
    };
    let at = |it: &IntegerTensor, i: usize| {
        it.elements[if it.elements.len() == 1 { 0 } else { i }].clone()
    };
    let one = |i: usize| match (op, at(a, i), at(b, i)) {
        (Binary::Add, Scalar::Known(x), Scalar::Known(y)) => x.checked_add(y).map(Scalar::Known),
        (Binary::Sub, Scalar::Known(x), Scalar::Known(y)) => x.checked_sub(y).map(Scalar::Known),
        (Binary::Mul, Scalar::Known(x), Scalar::Known(y)) => x.checked_mul(y).map(Scalar::Known),
        (Binary::Div, Scalar::Known(x), Scalar::Known(y)) => x.checked_div(y).map(Scalar::Known),
        (Binary::Equal, Scalar::Known(x), Scalar::Known(y)) => {
            Some(Scalar::Known(i64::from(x == y)))
        }
        (Binary::Mul | Binary::Div, it, Scalar::Known(1))
        | (Binary::Mul, Scalar::Known(1), it)
        | (Binary::Add | Binary::Sub, it, Scalar::Known(0))
        | (Binary::Add, Scalar::Known(0), it) => Some(it),
        (Binary::Add | Binary::Sub | Binary::Mul | Binary::Div, ..) => Some(Scalar::Unknown),
        _ => None,
    };
    let elements = (0..shape.iter().product()).map(one).collect::<Option<Vec<_>>>()?;
    Some(IntegerTensor { shape, elements })
}
