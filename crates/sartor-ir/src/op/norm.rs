//! Normalizations (<https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__Softmax.html>).

use super::{normalize_axis, rank_of, required, shape_of, unless};
use crate::{Attr, AttrError, Attrs, AxisLink, Fact, Port, shape::list};

/// Attributes of `BatchNormalization` in its inference form:
/// `y = scale (x - mean) / sqrt(var + epsilon) + B` along axis 1.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
    /// Weight of the old running statistics in training.
    pub momentum: f32,
}

impl BatchNormalization {
    pub(super) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        if attrs.flag("training_mode", false)? {
            return Err(AttrError::new("training_mode", "only the inference form is known"));
        }
        Ok(BatchNormalization {
            epsilon: attrs.float("epsilon", 1e-5)?,
            momentum: attrs.float("momentum", 0.9)?,
        })
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "epsilon", self.epsilon, 1e-5, Attr::Float);
        unless(&mut attrs, "momentum", self.momentum, 0.9, Attr::Float);
        attrs
    }
}

pub(super) fn infer_batch_norm(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let Some(x) = shape_of(inputs, 0) else { return Ok(None) };
    if x.len() < 2 {
        return Err(format!("input {} has no channels", list(x)));
    }
    for (i, name) in ["scale", "B", "mean", "var"].iter().enumerate() {
        if let Some(it) = shape_of(inputs, i + 1)
            && (it.len() != 1 || !it[0].compatible(&x[1]))
        {
            return Err(format!(
                "`{name}` {} does not fit the {} channels of {}",
                list(it),
                x[1],
                list(x)
            ));
        }
    }
    Ok(required(inputs, 0).map(|it| Fact::of(it.ty.clone())))
}

pub(super) fn axes_batch_norm(inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
    let rank = rank_of(inputs, 0).unwrap_or(0);
    let pass =
        (0..rank).map(|axis| AxisLink::same((Port::Input(0), axis), (Port::Output(0), axis)));
    let parameters = (1..5).map(|i| AxisLink::same((Port::Input(0), 1), (Port::Input(i), 0)));
    pass.chain(parameters).collect()
}

/// Attributes of `Softmax` and `LogSoftmax` (opset 13 meaning: one axis).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// The axis, negative from the end.
    pub axis: i64,
}

impl Softmax {
    pub(super) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Softmax { axis: attrs.int("axis", -1)? })
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "axis", self.axis, -1, Attr::Int);
        attrs
    }

    pub(super) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let Some(x) = required(inputs, 0) else { return Ok(None) };
        if let Some(shape) = &x.ty.shape {
            normalize_axis(self.axis, shape.len())?;
        }
        Ok(Some(Fact::of(x.ty.clone())))
    }

    pub(super) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let rank = rank_of(inputs, 0).unwrap_or(0);
        let Ok(own) = normalize_axis(self.axis, rank) else { return Vec::new() };
        let link = |axis| {
            let at = (Port::Input(0), axis);
            if axis == own {
                AxisLink::Fixed { at, reason: "Softmax normalizes along this axis" }
            } else {
                AxisLink::same(at, (Port::Output(0), axis))
            }
        };
        (0..rank).map(link).collect()
    }
}
