//! Pooling (<https://onnx.ai/onnx/operators/onnx__MaxPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>, and their global forms).

use super::{Spatial, required, shape_of, unless};
use crate::{Attr, AttrError, Attrs, AxisLink, DType, Dim, Fact, Port, TensorType, shape::list};

/// What a window is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Its largest element.
    Max,
    /// Its mean.
    Average,
}

/// Attributes of `MaxPool` and `AveragePool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Max or average.
    pub kind: PoolKind,
    /// The window.
    pub spatial: Spatial,
    /// Whether a last, partial window counts.
    pub ceil_mode: bool,
    /// Average only: whether pads count as zeros in the mean.
    pub count_include_pad: bool,
    /// Max only: whether indices (second output) count in column order.
    pub column_major: bool,
}

impl Pool {
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "MaxPool",
            PoolKind::Average => "AveragePool",
        }
    }

    pub(super) fn build(kind: PoolKind, attrs: &mut Attrs) -> Result<Self, AttrError> {
        let max = kind == PoolKind::Max;
        let pool = Pool {
            kind,
            spatial: Spatial::build(attrs)?,
            ceil_mode: attrs.flag("ceil_mode", false)?,
            count_include_pad: !max && attrs.flag("count_include_pad", false)?,
            column_major: max && attrs.flag("storage_order", false)?,
        };
        if pool.spatial.kernel.is_empty() {
            return Err(AttrError::new("kernel_shape", "is required"));
        }
        Ok(pool)
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        self.spatial.write(&mut attrs);
        for (name, flag) in [
            ("ceil_mode", self.ceil_mode),
            ("count_include_pad", self.count_include_pad),
            ("storage_order", self.column_major),
        ] {
            unless(&mut attrs, name, flag, false, |it| Attr::Int(i64::from(it)));
        }
        attrs
    }

    pub(super) fn infer(
        &self,
        inputs: &[Option<&Fact>],
        n_outputs: usize,
    ) -> Result<Vec<Option<Fact>>, String> {
        let Some(x) = shape_of(inputs, 0) else { return Ok(vec![None; n_outputs]) };
        if x.len() != self.spatial.kernel.len() + 2 {
            return Err(format!(
                "input {} does not fit a window of {:?}",
                list(x),
                self.spatial.kernel
            ));
        }
        let mut shape = x[..2].to_vec();
        for (axis, extent) in self.spatial.resolve(&[], &x[2..])?.iter().zip(&x[2..]) {
            shape.push(
                axis.as_ref().map_or(Ok(Dim::Unknown), |it| it.output(extent, self.ceil_mode))?,
            );
        }
        let dtype = inputs[0].expect("shape_of found it").ty.dtype;
        let types = [TensorType::new(dtype, shape.clone()), TensorType::new(DType::I64, shape)];
        Ok(types.into_iter().map(|it| Some(Fact::of(it))).take(n_outputs).collect())
    }
}

/// What all spatial positions are reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobalPool {
    /// The largest element.
    Max,
    /// The mean.
    Average,
}

impl GlobalPool {
    pub(super) fn name(self) -> &'static str {
        match self {
            GlobalPool::Max => "GlobalMaxPool",
            GlobalPool::Average => "GlobalAveragePool",
        }
    }
}

pub(super) fn infer_global(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let Some(x) = required(inputs, 0) else { return Ok(None) };
    let Some(shape) = &x.ty.shape else { return Ok(None) };
    if shape.len() < 2 {
        return Err(format!("input {} has no channels", list(shape)));
    }
    let mut pooled = shape[..2].to_vec();
    pooled.resize(shape.len(), Dim::Known(1));
    Ok(Some(Fact::of(TensorType::new(x.ty.dtype, pooled))))
}

/// Batch and channels pass; space is mixed.
pub(super) fn axes(outputs: &[Option<&TensorType>]) -> Vec<AxisLink> {
    let pass = |axis| {
        (0..outputs.len())
            .map(move |i| AxisLink::same((Port::Input(0), axis), (Port::Output(i), axis)))
    };
    pass(0).chain(pass(1)).collect()
}
