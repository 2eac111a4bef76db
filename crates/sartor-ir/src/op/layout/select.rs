//! Operators that choose, join or surround elements.

use super::{normalize_axis, unknown_shape};
use crate::{
    Attr, AttrError, Attrs, AxisLink, DType, Dim, Fact, IndexMap, IntegerTensor, Port, Tensor,
    TensorType,
    integer::Scalar,
    op::{extent, rank_of, required, shape_of, unless},
    shape::list,
};

/// Attributes of `Concat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis, negative from the end.
    pub axis: i64,
}

impl Concat {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Concat { axis: attrs.required_int("axis")? })
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }

    pub(in crate::op) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let Some(first) = required(inputs, 0) else { return Ok(None) };
        let shapes: Option<Vec<_>> = (0..inputs.len()).map(|i| shape_of(inputs, i)).collect();
        let Some(shapes) = shapes else {
            return Ok(Some(Fact::of(TensorType { dtype: first.ty.dtype, shape: None })));
        };
        let mut joint = shapes[0].clone();
        let axis = normalize_axis(self.axis, joint.len())?;
        for shape in &shapes[1..] {
            let fits = shape.len() == joint.len()
                && (0..joint.len()).all(|i| i == axis || shape[i].compatible(&joint[i]));
            if !fits {
                return Err(format!(
                    "{} and {} do not join along axis {axis}",
                    list(&joint),
                    list(shape)
                ));
            }
            for (i, dim) in joint.iter_mut().enumerate() {
                *dim = match (i == axis, dim.known(), shape[i].known()) {
                    (true, Some(a), Some(b)) => a.checked_add(b).map_or(Dim::Unknown, Dim::Known),
                    (true, ..) => Dim::Unknown,
                    (false, ..) => dim.or(&shape[i]),
                };
            }
        }
        Ok(Some(Fact::of(TensorType::new(first.ty.dtype, joint))))
    }

    pub(in crate::op) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let rank = rank_of(inputs, 0).unwrap_or(0);
        let Ok(own) = normalize_axis(self.axis, rank) else { return Vec::new() };
        let mut links = Vec::new();
        let mut offset = Some(0);
        for i in 0..inputs.len() {
            for axis in 0..rank {
                let (a, b) = ((Port::Input(i), axis), (Port::Output(0), axis));
                match (axis == own, offset) {
                    (false, _) => links.push(AxisLink::same(a, b)),
                    (true, Some(at)) => {
                        links.push(AxisLink::Tied { a, b, map: IndexMap::Offset(at) });
                    }
                    (true, None) => {}
                }
            }
            offset = offset.zip(extent(inputs, i, own)).map(|(at, n)| at + n);
        }
        links
    }
}

/// Attributes of `Split`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The axis, negative from the end.
    pub axis: i64,
}

impl Split {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        attrs.take("num_outputs");
        Ok(Split { axis: attrs.int("axis", 0)? })
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "axis", self.axis, 0, Attr::Int);
        attrs
    }

    /// Extents of the outputs: as given, or equal parts of which the last may be smaller.
    fn parts(
        inputs: &[Option<&Fact>],
        axis: usize,
        n: usize,
    ) -> Result<Option<Vec<usize>>, String> {
        let total = extent(inputs, 0, axis);
        if inputs.get(1).copied().flatten().is_some() {
            let Some(sizes) = required(inputs, 1).and_then(Fact::integers) else { return Ok(None) };
            let sizes: Result<Vec<_>, _> = sizes.iter().map(|&it| usize::try_from(it)).collect();
            let sizes = sizes.map_err(|_| "a part has a negative extent".to_owned())?;
            let fits = sizes.len() == n
                && total.is_none_or(|it| {
                    sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) == Some(it)
                });
            return if fits {
                Ok(Some(sizes))
            } else {
                Err(format!("parts {sizes:?} do not make up the input"))
            };
        }
        let Some(total) = total else { return Ok(None) };
        let part = total.div_ceil(n.max(1));
        let last = total
            .checked_sub(part.saturating_mul(n.max(1) - 1))
            .ok_or("there are more outputs than elements")?;
        let mut sizes = vec![part; n];
        sizes.last_mut().ok_or("Split without outputs").map(|it| *it = last)?;
        Ok(Some(sizes))
    }

    pub(in crate::op) fn infer(
        &self,
        inputs: &[Option<&Fact>],
        n: usize,
    ) -> Result<Vec<Option<Fact>>, String> {
        let (Some(x), Some(shape)) = (required(inputs, 0), shape_of(inputs, 0)) else {
            return Ok(vec![None; n]);
        };
        let axis = normalize_axis(self.axis, shape.len())?;
        let parts = Self::parts(inputs, axis, n)?;
        let one = |i: usize| {
            let mut part = shape.clone();
            part[axis] = parts.as_ref().map_or(Dim::Unknown, |it| Dim::Known(it[i]));
            Some(Fact::of(TensorType::new(x.ty.dtype, part)))
        };
        Ok((0..n).map(one).collect())
    }

    pub(in crate::op) fn axes(
        &self,
        inputs: &[Option<&Fact>],
        outputs: &[Option<&TensorType>],
    ) -> Vec<AxisLink> {
        let rank = rank_of(inputs, 0).unwrap_or(0);
        let Ok(own) = normalize_axis(self.axis, rank) else { return Vec::new() };
        let mut links = Vec::new();
        let mut offset = Some(0);
        for (i, output) in outputs.iter().enumerate() {
            for axis in 0..rank {
                let (part, whole) = ((Port::Output(i), axis), (Port::Input(0), axis));
                match (axis == own, offset) {
                    (false, _) => links.push(AxisLink::same(whole, part)),
                    (true, Some(at)) => {
                        links.push(AxisLink::Tied { a: part, b: whole, map: IndexMap::Offset(at) });
                    }
                    (true, None) => {}
                }
            }
            let n = output.and_then(|it| it.shape.as_ref()?.get(own)?.known());
            offset = offset.zip(n).map(|(at, n)| at + n);
        }
        links
    }
}

/// First index, step and number of elements of a slice along an axis of `extent`, as numpy clamps them.
pub fn slice_bounds(extent: usize, start: i64, end: i64, step: i64) -> (usize, isize, usize) {
    let n = extent as i64;
    let wrap = |it: i64| if it < 0 { it.saturating_add(n) } else { it };
    if step > 0 {
        let (start, end) = (wrap(start).clamp(0, n), wrap(end).clamp(0, n));
        let count = (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
        (start as usize, step as isize, count as usize)
    } else {
        let (start, end) = (wrap(start).clamp(-1, n - 1), wrap(end).clamp(-1, n - 1));
        let count = (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs().max(1));
        (start.max(0) as usize, step as isize, count as usize)
    }
}

/// Start, end and step by axis, as far as the inputs are known; outer `None` if they are not.
type Windows = Option<Vec<Option<(i64, i64, i64)>>>;

fn windows(inputs: &[Option<&Fact>]) -> Result<Windows, String> {
    let Some(rank) = rank_of(inputs, 0) else { return Ok(None) };
    let list = |i: usize| required(inputs, i).and_then(Fact::integers);
    let given = |i: usize| inputs.get(i).copied().flatten().is_some();
    let (Some(starts), Some(ends)) = (list(1), list(2)) else { return Ok(None) };
    let axes = if given(3) { list(3) } else { Some((0..starts.len() as i64).collect()) };
    let steps = if given(4) { list(4) } else { Some(vec![1; starts.len()]) };
    let (Some(axes), Some(steps)) = (axes, steps) else { return Ok(None) };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps differ in length".to_owned());
    }
    let mut table = vec![None; rank];
    for i in 0..starts.len() {
        if steps[i] == 0 {
            return Err("a step is 0".to_owned());
        }
        table[normalize_axis(axes[i], rank)?] = Some((starts[i], ends[i], steps[i]));
    }
    Ok(Some(table))
}

pub(in crate::op) fn infer_slice(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let (Some(x), Some(shape)) = (required(inputs, 0), shape_of(inputs, 0)) else {
        return Ok(None);
    };
    let Some(table) = windows(inputs)? else {
        return Ok(Some(Fact::of(TensorType::new(x.ty.dtype, vec![Dim::Unknown; shape.len()]))));
    };
    let one = |(dim, window): (&Dim, &Option<(i64, i64, i64)>)| match (*window, dim.known()) {
        (None | Some((0, i64::MAX, 1)), _) => dim.clone(),
        (Some((start, end, step)), Some(n)) => Dim::Known(slice_bounds(n, start, end, step).2),
        (Some(_), None) => Dim::Unknown,
    };
    let cut = shape.iter().zip(&table).map(one).collect();
    Ok(Some(Fact::of(TensorType::new(x.ty.dtype, cut))))
}

/// An untouched axis passes through; a cut one is a strided view of the input's.
pub(in crate::op) fn axes_slice(
    inputs: &[Option<&Fact>],
    outputs: &[Option<&TensorType>],
) -> Vec<AxisLink> {
    let Ok(Some(table)) = windows(inputs) else { return Vec::new() };
    let out = outputs.first().copied().flatten().and_then(|it| it.shape.as_ref());
    let Some(out) = out else { return Vec::new() };
    let mut links = Vec::new();
    for (axis, window) in table.iter().enumerate() {
        let (whole, cut) = ((Port::Input(0), axis), (Port::Output(0), axis));
        match (window, extent(inputs, 0, axis), out[axis].known()) {
            (None, ..) => links.push(AxisLink::same(whole, cut)),
            (Some((0, _, 1)), Some(n), Some(m)) if n == m => links.push(AxisLink::same(whole, cut)),
            (&Some((start, end, step)), Some(n), _) => {
                let (start, step, _) = slice_bounds(n, start, end, step);
                links.push(AxisLink::Tied {
                    a: cut,
                    b: whole,
                    map: IndexMap::Strided { start, step },
                });
            }
            _ => {}
        }
    }
    links
}

/// What surrounds the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PadMode {
    /// One value.
    #[default]
    Constant,
    /// The nearest element.
    Edge,
    /// The mirror image without the edge.
    Reflect,
    /// The other end.
    Wrap,
}

const PAD_MODES: &[(PadMode, &str)] = &[
    (PadMode::Constant, "constant"),
    (PadMode::Edge, "edge"),
    (PadMode::Reflect, "reflect"),
    (PadMode::Wrap, "wrap"),
];

/// Attributes of `Pad`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pad {
    /// What surrounds the input.
    pub mode: PadMode,
}

impl Pad {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        let mode = attrs.text("mode", "constant")?;
        let row = PAD_MODES.iter().find(|row| row.1 == mode);
        row.map(|row| Pad { mode: row.0 })
            .ok_or_else(|| AttrError::new("mode", format!("`{mode}` is not known")))
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        let word = PAD_MODES.iter().find(|row| row.0 == self.mode).map_or("constant", |row| row.1);
        unless(&mut attrs, "mode", word, "constant", |it| Attr::Str(it.to_owned()));
        attrs
    }

    /// Padded channels stand between those of the input, which pass on with an offset; a padding that is
    /// not a constant copies channels and so ties nothing.
    pub(in crate::op) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let Ok(Some(pads)) = pad_amounts(inputs) else { return Vec::new() };
        let mut links = Vec::new();
        for (axis, &amounts) in pads.iter().enumerate() {
            let (a, b) = ((Port::Input(0), axis), (Port::Output(0), axis));
            match (amounts, usize::try_from(amounts.0)) {
                ((0, 0), _) => links.push(AxisLink::same(a, b)),
                ((_, after), Ok(offset)) if after >= 0 && self.mode == PadMode::Constant => {
                    links.push(AxisLink::Tied { a, b, map: IndexMap::Offset(offset) });
                }
                _ => links.push(AxisLink::Fixed {
                    at: a,
                    reason: "this padding copies or cuts the axis",
                }),
            }
        }
        links
    }
}

/// Pads before and after every axis, if known.
fn pad_amounts(inputs: &[Option<&Fact>]) -> Result<Option<Vec<(i64, i64)>>, String> {
    let Some(rank) = rank_of(inputs, 0) else { return Ok(None) };
    let Some(pads) = required(inputs, 1).and_then(Fact::integers) else { return Ok(None) };
    let axes = match inputs.get(3).copied().flatten() {
        None => (0..rank).collect(),
        Some(fact) => match fact.integers() {
            Some(axes) => {
                axes.iter().map(|&it| normalize_axis(it, rank)).collect::<Result<Vec<_>, _>>()?
            }
            None => return Ok(None),
        },
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let mut table = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        table[axis] = (pads[i], pads[axes.len() + i]);
    }
    Ok(Some(table))
}

pub(in crate::op) fn infer_pad(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let (Some(x), Some(shape)) = (required(inputs, 0), shape_of(inputs, 0)) else {
        return Ok(None);
    };
    let pads = pad_amounts(inputs)?;
    let mut padded = Vec::with_capacity(shape.len());
    for (axis, dim) in shape.iter().enumerate() {
        padded.push(match (pads.as_ref().map(|it| it[axis]), dim.known()) {
            (Some((0, 0)), _) => dim.clone(),
            (Some((before, after)), Some(n)) => {
                let total = (n as i64).saturating_add(before).saturating_add(after);
                Dim::Known(
                    usize::try_from(total)
                        .map_err(|_| format!("axis {axis} would have {total} elements"))?,
                )
            }
            _ => Dim::Unknown,
        });
    }
    Ok(Some(Fact::of(TensorType::new(x.ty.dtype, padded))))
}

/// Attributes of `Gather`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// The axis, negative from the end.
    pub axis: i64,
}

impl Gather {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Gather { axis: attrs.int("axis", 0)? })
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "axis", self.axis, 0, Attr::Int);
        attrs
    }

    pub(in crate::op) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let (Some(x), Some(shape), Some(indices)) =
            (required(inputs, 0), shape_of(inputs, 0), shape_of(inputs, 1))
        else {
            return Ok(None);
        };
        let axis = normalize_axis(self.axis, shape.len())?;
        let picked = [&shape[..axis], indices, &shape[axis + 1..]].concat();
        Ok(Some(Fact::of(TensorType::new(x.ty.dtype, picked))))
    }

    pub(in crate::op) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let (Some(rank), Some(picks)) = (rank_of(inputs, 0), rank_of(inputs, 1)) else {
            return Vec::new();
        };
        let Ok(own) = normalize_axis(self.axis, rank) else { return Vec::new() };
        let pass = |axis: usize| {
            let to = if axis < own { axis } else { axis + picks - 1 };
            AxisLink::same((Port::Input(0), axis), (Port::Output(0), to))
        };
        let mut links: Vec<_> = (0..rank).filter(|&it| it != own).map(pass).collect();
        links.extend(
            (0..picks)
                .map(|axis| AxisLink::same((Port::Input(1), axis), (Port::Output(0), own + axis))),
        );
        links
    }
}

/// Attributes of `ConstantOfShape`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantOfShape {
    /// The one element.
    pub value: Tensor,
}

impl ConstantOfShape {
    pub(in crate::op) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        let value = attrs.tensor("value")?.unwrap_or_else(|| Tensor::from_f32(&[1], &[0.0]));
        if value.len() == 1 {
            Ok(Self { value })
        } else {
            Err(AttrError::new("value", "must have one element"))
        }
    }

    pub(in crate::op) fn attributes(&self) -> Attrs {
        Attrs::new().with("value", Attr::Tensor(self.value.clone()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
    pub(in crate::op) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let wanted = required(inputs, 0).and_then(|it| it.value.as_ref());
        let rank = extent(inputs, 0, 0);
        let shape = match wanted {
            Some(wanted) => Some(wanted.elements().iter().map(Scalar::to_dim).collect()),
            None => rank.and_then(unknown_shape),
        };
        Ok(Some(Fact::of(TensorType { dtype: self.value.dtype(), shape })))
    }
}

/// Known numbers give the extent, and a short row its contents.
pub(in crate::op) fn infer_range(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let dtype = required(inputs, 0).map_or(DType::I64, |it| it.ty.dtype);
    let number = |i: usize| required(inputs, i)?.integers()?.first().copied();
    let (Some(start), Some(limit), Some(step)) = (number(0), number(1), number(2)) else {
        return Ok(Some(Fact::of(TensorType::new(dtype, vec![Dim::Unknown]))));
    };
    if step == 0 {
        return Err("the step is 0".to_owned());
    }
    let (from, to) = (i128::from(start), i128::from(limit));
    let span = if step > 0 { to - from } else { from - to };
    let count = (span.max(0).unsigned_abs()).div_ceil(step.unsigned_abs().into());
    let Ok(count) = usize::try_from(count) else {
        return Err(format!("a row of {count} numbers is too long"));
    };
    let value = (count <= MOST_NUMBERS).then(|| {
        let one = |i: usize| Scalar::Known(start.wrapping_add(step.wrapping_mul(i as i64)));
        IntegerTensor::vector((0..count).map(one).collect())
    });
    Ok(Some(Fact { value, ..Fact::of(TensorType::fixed(dtype, &[count])) }))
}

/// Longer rows of numbers are data, not shapes.
const MOST_NUMBERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_numpy() {
        for (n, start, end, step, expected) in [
            (10, 0, i64::MAX, 1, (0, 1, 10)),
            (10, -3, i64::MAX, 1, (7, 1, 3)),
            (10, 0, 10, 2, (0, 2, 5)),
            (10, 1, 10, 3, (1, 3, 3)),
            (10, -1, i64::MIN, -1, (9, -1, 10)),
            (10, 8, 2, -2, (8, -2, 3)),
            (4, 9, 12, 1, (4, 1, 0)),
        ] {
            assert_eq!(
                slice_bounds(n, start, end, step),
                expected,
                "[{start}:{end}:{step}] of {n}"
            );
        }
    }
}
