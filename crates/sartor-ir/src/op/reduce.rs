//! Reductions (<https://onnx.ai/onnx/operators/onnx__ReduceMean.html> and its kin; axes as an input,
//! the form of opset 18).

use super::{normalize_axes, rank_of, required, unless};
use crate::{Attr, AttrError, Attrs, AxisLink, Dim, Fact, Port, TensorType};

/// What the elements along the axes are reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceKind {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Their product.
    Prod,
    /// The sum of their magnitudes.
    L1,
    /// The root of the sum of their squares.
    L2,
    /// The sum of their squares.
    SumSquare,
    /// The logarithm of their sum.
    LogSum,
    /// The logarithm of the sum of their exponentials.
    LogSumExp,
}

const NAMES: &[(ReduceKind, &str)] = &[
    (ReduceKind::Mean, "ReduceMean"),
    (ReduceKind::Sum, "ReduceSum"),
    (ReduceKind::Max, "ReduceMax"),
    (ReduceKind::Min, "ReduceMin"),
    (ReduceKind::Prod, "ReduceProd"),
    (ReduceKind::L1, "ReduceL1"),
    (ReduceKind::L2, "ReduceL2"),
    (ReduceKind::SumSquare, "ReduceSumSquare"),
    (ReduceKind::LogSum, "ReduceLogSum"),
    (ReduceKind::LogSumExp, "ReduceLogSumExp"),
];

impl ReduceKind {
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|row| row.0 == self).expect("every kind has a row in NAMES").1
    }
}

/// A reduction: `X, axes?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// What to.
    pub kind: ReduceKind,
    /// Whether reduced axes stay with extent 1.
    pub keepdims: bool,
    /// Whether no axes mean none (rather than all).
    pub noop_with_empty_axes: bool,
}

impl Reduce {
    pub(super) fn build(kind: ReduceKind, attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Reduce {
            kind,
            keepdims: attrs.flag("keepdims", true)?,
            noop_with_empty_axes: attrs.flag("noop_with_empty_axes", false)?,
        })
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "keepdims", self.keepdims, true, |it| Attr::Int(i64::from(it)));
        unless(&mut attrs, "noop_with_empty_axes", self.noop_with_empty_axes, false, |it| {
            Attr::Int(i64::from(it))
        });
        attrs
    }

    /// The reduced axes of an input of `rank`; `None` while the axes input is not known.
    ///
    /// # Errors
    /// An axis out of range.
    pub fn resolve(&self, axes: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, String> {
        match axes {
            Some(axes) if !axes.is_empty() => normalize_axes(axes, rank),
            _ if self.noop_with_empty_axes => Ok(Vec::new()),
            _ => Ok((0..rank).collect()),
        }
    }

    fn known_axes(&self, inputs: &[Option<&Fact>]) -> Result<Option<Vec<usize>>, String> {
        let Some(rank) = rank_of(inputs, 0) else { return Ok(None) };
        if inputs.get(1).copied().flatten().is_none() {
            return self.resolve(None, rank).map(Some);
        }
        match required(inputs, 1).and_then(Fact::integers) {
            Some(axes) => self.resolve(Some(&axes), rank).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let Some(x) = required(inputs, 0) else { return Ok(None) };
        let Some(axes) = self.known_axes(inputs)? else {
            return Ok(Some(Fact::of(TensorType { dtype: x.ty.dtype, shape: None })));
        };
        let shape = x.ty.shape.iter().flatten().enumerate();
        let kept = shape.filter_map(|(i, dim)| match (axes.contains(&i), self.keepdims) {
            (false, _) => Some(dim.clone()),
            (true, true) => Some(Dim::Known(1)),
            (true, false) => None,
        });
        Ok(Some(Fact::of(TensorType::new(x.ty.dtype, kept.collect()))))
    }

    pub(super) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let (Some(rank), Ok(Some(axes))) = (rank_of(inputs, 0), self.known_axes(inputs)) else {
            return Vec::new();
        };
        let mut out = 0;
        let mut links = Vec::new();
        for axis in 0..rank {
            if axes.contains(&axis) {
                let reason = "a reduction runs along this axis";
                links.push(AxisLink::Fixed { at: (Port::Input(0), axis), reason });
                out += usize::from(self.keepdims);
            } else {
                links.push(AxisLink::same((Port::Input(0), axis), (Port::Output(0), out)));
                out += 1;
            }
        }
        links
    }
}
