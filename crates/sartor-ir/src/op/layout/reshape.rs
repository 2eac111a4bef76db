//! Operators that change the shape and keep all elements.

use super::{normalize_axes, normalize_axis, unknown_shape};
use crate::{
    Attr, AttrError, Attrs, AxisLink, DType, Dim, Fact, IndexMap, IntegerTensor, Port, TensorType,
    integer::Scalar,
    op::{ints, required, shape_of, unless},
    shape::{broadcast, list},
};

/// Attributes of `Flatten`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flatten {
    /// Axes before this one become the rows.
    pub axis: i64,
}

impl Flatten {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Flatten { axis: attrs.int("axis", 1)? })
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "axis", self.axis, 1, Attr::Int);
        attrs
    }

    pub(in crate::op) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let (Some(x), Some(shape)) = (required(inputs, 0), shape_of(inputs, 0)) else {
            return Ok(None);
        };
        let rank = shape.len();
        let axis = if self.axis == rank as i64 { rank } else { normalize_axis(self.axis, rank)? };
        let product = |dims: &[Dim]| dims.iter().fold(Dim::Known(1), |a, b| a.times(b));
        let matrix = vec![product(&shape[..axis]), product(&shape[axis..])];
        Ok(Some(Fact::of(TensorType::new(x.ty.dtype, matrix))))
    }
}

/// Attributes of `Reshape`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Reshape {
    /// Whether a 0 means an extent of 0 rather than a copy of the input's.
    pub allow_zero: bool,
}

impl Reshape {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Reshape { allow_zero: attrs.flag("allowzero", false)? })
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "allowzero", self.allow_zero, false, |it| Attr::Int(i64::from(it)));
        attrs
    }

    pub(in crate::op) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let Some(x) = required(inputs, 0) else { return Ok(None) };
        let dtype = x.ty.dtype;
        let Some(wanted) = required(inputs, 1).and_then(|it| it.value.as_ref()) else {
            let rank = shape_of(inputs, 1).and_then(|it| it.first()?.known());
            return Ok(Some(Fact::of(TensorType { dtype, shape: rank.and_then(unknown_shape) })));
        };
        let shape = resolve_reshape(x.ty.shape.as_deref(), wanted.elements(), self.allow_zero)?;
        Ok(Some(Fact::of(TensorType::new(dtype, shape))))
    }
}

/// The shape that `Reshape` makes of `from` for the `wanted` extents (0 copies, -1 takes the rest).
pub(crate) fn resolve_reshape(
    from: Option<&[Dim]>,
    wanted: &[Scalar],
    allow_zero: bool,
) -> Result<Vec<Dim>, String> {
    let mut shape = Vec::with_capacity(wanted.len());
    let mut rest = None;
    for (i, scalar) in wanted.iter().enumerate() {
        shape.push(match scalar {
            Scalar::Known(-1) => {
                if rest.replace(i).is_some() {
                    return Err("the target shape has more than one -1".to_owned());
                }
                Dim::Unknown
            }
            Scalar::Known(0) if !allow_zero => match from {
                Some(from) => from
                    .get(i)
                    .cloned()
                    .ok_or("the target shape copies an axis that the input lacks")?,
                None => Dim::Unknown,
            },
            Scalar::Known(n) => {
                let n = usize::try_from(*n)
                    .map_err(|_| format!("the target shape has the extent {n}"))?;
                Dim::Known(n)
            }
            Scalar::Symbol(name) => Dim::Symbol(name.clone()),
            Scalar::Unknown => Dim::Unknown,
        });
    }
    let Some(from) = from else { return Ok(shape) };
    if let Some(at) = rest {
        shape[at] = remaining(from, &shape, at)?;
    } else if let (Some(a), Some(b)) = (product(from), product(&shape))
        && a != b
    {
        return Err(format!(
            "input {} has {a} elements, the target shape {} has {b}",
            list(from),
            list(&shape)
        ));
    }
    Ok(shape)
}

/// The extent that makes `shape` hold as many elements as `from`: equal names cancel.
fn remaining(from: &[Dim], shape: &[Dim], at: usize) -> Result<Dim, String> {
    let mut left: Vec<Dim> = from.to_vec();
    let mut others = 1usize;
    for (i, dim) in shape.iter().enumerate().filter(|(i, _)| *i != at) {
        match dim {
            Dim::Known(n) => match others.checked_mul(*n) {
                Some(product) => others = product,
                None => return Ok(Dim::Unknown),
            },
            Dim::Symbol(_) => match left.iter().position(|it| it == dim) {
                Some(same) => drop(left.remove(same)),
                None => return Ok(Dim::Unknown),
            },
            // The batch is often copied through a computed shape: trust it if the input has one unknown too.
            Dim::Unknown if from.get(i) == Some(&Dim::Unknown) => drop(left.remove(i)),
            Dim::Unknown => return Ok(Dim::Unknown),
        }
    }
    let known = left.iter().filter_map(Dim::known).try_fold(1usize, usize::checked_mul);
    let Some(numbers) = known else { return Ok(Dim::Unknown) };
    let names: Vec<_> = left.iter().filter(|it| it.known().is_none()).collect();
    if others == 0 || (names.is_empty() && !numbers.is_multiple_of(others)) {
        return Err(format!("input {} does not fill the target shape {}", list(from), list(shape)));
    }
    Ok(match names.as_slice() {
        [] => Dim::Known(numbers / others),
        [one] if numbers == others => (*one).clone(),
        _ => Dim::Unknown,
    })
}

fn product(shape: &[Dim]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, dim| product.checked_mul(dim.known()?))
}

/// Attributes of `Transpose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose {
    /// Output axis `i` is input axis `perm[i]`; empty reverses all axes.
    pub perm: Vec<usize>,
}

impl Transpose {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Transpose { perm: attrs.sizes("perm")?.unwrap_or_default() })
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "perm", &self.perm, &Vec::new(), |it| ints(it));
        attrs
    }

    /// The permutation for an input of `rank`.
    ///
    /// # Errors
    /// If it is none of `0..rank`.
    pub fn resolve(&self, rank: usize) -> Result<Vec<usize>, String> {
        if self.perm.is_empty() {
            return Ok((0..rank).rev().collect());
        }
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if sorted.iter().copied().eq(0..rank) {
            Ok(self.perm.clone())
        } else {
            Err(format!("`perm` {:?} does not permute the axes of rank {rank}", self.perm))
        }
    }

    pub(in crate::op) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let (Some(x), Some(shape)) = (required(inputs, 0), shape_of(inputs, 0)) else {
            return Ok(None);
        };
        let perm = self.resolve(shape.len())?;
        let moved = perm.iter().map(|&it| shape[it].clone()).collect();
        Ok(Some(Fact::of(TensorType::new(x.ty.dtype, moved))))
    }

    pub(in crate::op) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let rank = shape_of(inputs, 0).map_or(0, Vec::len);
        let perm = self.resolve(rank).unwrap_or_default();
        let link = |(to, &from): (usize, &usize)| {
            AxisLink::same((Port::Input(0), from), (Port::Output(0), to))
        };
        perm.iter().enumerate().map(link).collect()
    }
}

/// Attributes of `Shape`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// First axis, negative from the end.
    pub start: i64,
    /// One past the last axis; `None` to the end.
    pub end: Option<i64>,
}

impl Shape {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        let end = attrs.get("end").is_some().then(|| attrs.int("end", 0)).transpose()?;
        Ok(Shape { start: attrs.int("start", 0)?, end })
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "start", self.start, 0, Attr::Int);
        if let Some(end) = self.end {
            attrs.set("end", Attr::Int(end));
        }
        attrs
    }

    /// The range of axes for an input of `rank`, clamped as ONNX says.
    pub fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let signed = rank as i64;
        let clamp = |it: i64| {
            (if it < 0 { it.saturating_add(signed) } else { it }).clamp(0, signed) as usize
        };
        let (start, end) = (clamp(self.start), clamp(self.end.unwrap_or(signed)));
        start..end.max(start)
    }

    #[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
    pub(in crate::op) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let Some(shape) = shape_of(inputs, 0) else {
            return Ok(Some(Fact::of(TensorType::new(DType::I64, vec![Dim::Unknown]))));
        };
        let dims: Vec<_> = shape[self.range(shape.len())].iter().map(Scalar::from).collect();
        let value = IntegerTensor::vector(dims);
        let ty = TensorType::fixed(DType::I64, value.shape());
        Ok(Some(Fact { value: Some(value), ..Fact::of(ty) }))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
pub(in crate::op) fn infer_size(_: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    Ok(Some(Fact::of(TensorType::fixed(DType::I64, &[]))))
}

pub(in crate::op) fn infer_squeeze(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let (Some(x), Some(shape)) = (required(inputs, 0), shape_of(inputs, 0)) else {
        return Ok(None);
    };
    let given = inputs.get(1).copied().flatten();
    let axes = match given {
        None => (0..shape.len()).filter(|&i| shape[i] == Dim::Known(1)).collect(),
        Some(fact) => match fact.integers() {
            Some(axes) => normalize_axes(&axes, shape.len())?,
            None => return Ok(Some(Fact::of(TensorType { dtype: x.ty.dtype, shape: None }))),
        },
    };
    if let Some(&axis) = axes.iter().find(|&&it| shape[it].known().is_some_and(|n| n != 1)) {
        return Err(format!("axis {axis} of input {} is not 1", list(shape)));
    }
    let kept =
        shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, dim)| dim.clone());
    Ok(Some(Fact::of(TensorType::new(x.ty.dtype, kept.collect()))))
}

pub(in crate::op) fn infer_unsqueeze(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let (Some(x), Some(shape)) = (required(inputs, 0), shape_of(inputs, 0)) else {
        return Ok(None);
    };
    let Some(axes) = required(inputs, 1).and_then(Fact::integers) else { return Ok(None) };
    let rank = shape.len() + axes.len();
    let axes = normalize_axes(&axes, rank)?;
    let mut dims = shape.iter();
    let one = |i| {
        if axes.contains(&i) { Dim::Known(1) } else { dims.next().cloned().unwrap_or(Dim::Unknown) }
    };
    Ok(Some(Fact::of(TensorType::new(x.ty.dtype, (0..rank).map(one).collect()))))
}

pub(in crate::op) fn infer_expand(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let Some(x) = required(inputs, 0) else { return Ok(None) };
    let target = required(inputs, 1).and_then(|it| it.value.as_ref());
    let shape = match (&x.ty.shape, target) {
        (Some(shape), Some(target)) => {
            let dims: Vec<_> = target.elements().iter().map(Scalar::to_dim).collect();
            Some(broadcast(shape, &dims)?)
        }
        _ => None,
    };
    Ok(Some(Fact::of(TensorType { dtype: x.ty.dtype, shape })))
}

/// Reading a shape ties nothing: whoever uses it has links of its own.
pub(in crate::op) fn axes_shape(inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
    let rank = shape_of(inputs, 0).map_or(0, Vec::len);
    (0..rank).map(|axis| AxisLink::Free { at: (Port::Input(0), axis) }).collect()
}

/// Matches runs of axes with equal products between two shapes. A run of one axis on both sides passes
/// through; where one axis meets several, the outermost of the several carries it in blocks. Unknown and
/// named extents match only themselves.
pub(in crate::op) fn axes_reshape(
    inputs: &[Option<&Fact>],
    outputs: &[Option<&TensorType>],
) -> Vec<AxisLink> {
    let out = outputs.first().copied().flatten().and_then(|it| it.shape.as_ref());
    let (Some(from), Some(to)) = (shape_of(inputs, 0), out) else { return Vec::new() };
    let (mut i, mut j) = (0, 0);
    let mut links = Vec::new();
    while i < from.len() && j < to.len() {
        let (start_i, start_j) = (i, j);
        let (mut a, mut b) = (from[i].clone(), to[j].clone());
        (i, j) = (i + 1, j + 1);
        while a != b {
            match (a.known(), b.known()) {
                (Some(x), Some(y)) if x < y && i < from.len() => {
                    a = a.times(&from[i]);
                    i += 1;
                }
                (Some(x), Some(y)) if x > y && j < to.len() => {
                    b = b.times(&to[j]);
                    j += 1;
                }
                // The unknown batch of both sides: alone on each, it is the same batch.
                (None, None) if start_i == 0 && start_j == 0 => break,
                _ => return links,
            }
        }
        links.extend(run_link(&from[start_i..i], start_i, &to[start_j..j], start_j));
    }
    links
}

/// The link between a run of axes of the input and one of the output with the same product.
fn run_link(from: &[Dim], at: usize, to: &[Dim], out: usize) -> Option<AxisLink> {
    let inner = |dims: &[Dim]| product(&dims[1..]);
    // Extents of 1 carry no index: the first other axis of a run stands for it.
    let skip = |dims: &[Dim]| dims.iter().position(|it| *it != Dim::Known(1)).unwrap_or(0);
    let (skip_in, skip_out) = (skip(from), skip(to));
    let (from, to) = (&from[skip_in..], &to[skip_out..]);
    let (a, b) = ((Port::Input(0), at + skip_in), (Port::Output(0), out + skip_out));
    let (block_in, block_out) = (inner(from)?, inner(to)?);
    if from[0] == to[0] && block_in == block_out {
        Some(AxisLink::same(a, b))
    } else if to.len() == 1 || block_out == 1 {
        Some(AxisLink::Tied { a, b, map: IndexMap::Block(block_in) })
    } else if from.len() == 1 || block_in == 1 {
        Some(AxisLink::Tied { a: b, b: a, map: IndexMap::Block(block_out) })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(from: &[usize], to: &[usize]) -> Vec<AxisLink> {
        let fact = Fact::of(TensorType::fixed(DType::F32, from));
        axes_reshape(&[Some(&fact)], &[Some(&TensorType::fixed(DType::F32, to))])
    }

    #[test]
    fn reshape_links() {
        let a = |axis| (Port::Input(0), axis);
        let b = |axis| (Port::Output(0), axis);
        for (from, to, expected) in [
            (
                vec![2, 64, 1, 1],
                vec![2, 64],
                vec![AxisLink::same(a(0), b(0)), AxisLink::same(a(1), b(1))],
            ),
            (
                vec![2, 8, 4, 4],
                vec![2, 128],
                vec![
                    AxisLink::same(a(0), b(0)),
                    AxisLink::Tied { a: a(1), b: b(1), map: IndexMap::Block(16) },
                ],
            ),
            (
                vec![2, 12, 5],
                vec![2, 3, 4, 5],
                vec![
                    AxisLink::same(a(0), b(0)),
                    AxisLink::Tied { a: b(1), b: a(1), map: IndexMap::Block(4) },
                    AxisLink::same(a(2), b(3)),
                ],
            ),
            (vec![6, 4], vec![4, 6], vec![]),
        ] {
            assert_eq!(links(&from, &to), expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn reshape_targets() {
        let named = |text: &str| {
            text.split(',')
                .map(|it| it.parse().map_or_else(|_| Dim::symbol(it), Dim::Known))
                .collect::<Vec<_>>()
        };
        let known = |list: &[i64]| list.iter().map(|&it| Scalar::Known(it)).collect::<Vec<_>>();
        for (from, wanted, expected) in [
            ("N,64,1,1", vec![0, -1], "[N,64]"),
            ("N,3,4", vec![-1, 12], "[N,12]"),
            ("2,3,4", vec![4, -1], "[4,6]"),
        ] {
            let shape = resolve_reshape(Some(&named(from)), &known(&wanted), false).unwrap();
            assert_eq!(list(&shape), expected, "{from} to {wanted:?}");
        }
        assert!(resolve_reshape(Some(&named("2,3")), &known(&[4, -1]), false).is_err());
        assert!(resolve_reshape(Some(&named("2,3")), &known(&[7]), false).is_err());
    }
}
