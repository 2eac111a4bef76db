//! Linear quantization (<https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>, form of opset 23).

use super::{normalize_axis, rank_of, required, shape_of, unless};
use crate::{Attr, AttrError, Attrs, AxisLink, DType, Dim, Fact, Port, TensorType, shape::list};

/// Attributes of `QuantizeLinear` and `DequantizeLinear`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizeLinear {
    /// Axis of per-channel scales, negative from the end; of no effect where the scale is a scalar.
    pub axis: i64,
    /// Extent of a block along the axis; 0 for per-tensor and per-channel scales.
    pub block_size: usize,
    /// Type of the output where no zero point (or, to dequantize, no scale) gives it.
    pub output_dtype: Option<DType>,
    /// For 8-bit float outputs: whether to saturate.
    pub saturate: bool,
}

/// Whether a shape is that of one element: ONNX Runtime's quantizer writes such scales with an axis and
/// their zero points without.
fn single(shape: &[Dim]) -> bool {
    shape.iter().all(|it| it.known() == Some(1))
}

impl QuantizeLinear {
    /// Per-tensor scales, or per-channel ones along `axis`.
    pub fn along(axis: i64) -> Self {
        QuantizeLinear { axis, block_size: 0, output_dtype: None, saturate: true }
    }

    pub(super) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        let dtype = attrs.text("output_dtype", "")?;
        let block_size = usize::try_from(attrs.int("block_size", 0)?);
        Ok(QuantizeLinear {
            axis: attrs.int("axis", 1)?,
            block_size: block_size
                .map_err(|_| AttrError::new("block_size", "must not be negative"))?,
            output_dtype: match dtype.as_str() {
                "" => None,
                text => {
                    Some(text.parse().map_err(|it: String| AttrError::new("output_dtype", it))?)
                }
            },
            saturate: attrs.flag("saturate", true)?,
        })
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "axis", self.axis, 1, Attr::Int);
        unless(&mut attrs, "block_size", self.block_size, 0, |it| Attr::Int(it as i64));
        unless(&mut attrs, "saturate", self.saturate, true, |it| Attr::Int(i64::from(it)));
        if let Some(dtype) = self.output_dtype {
            attrs.set("output_dtype", Attr::Str(dtype.name().to_owned()));
        }
        attrs
    }

    fn check(&self, inputs: &[Option<&Fact>]) -> Result<(), String> {
        let (Some(x), Some(scale)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else {
            return Ok(());
        };
        if let Some(zero) = shape_of(inputs, 2)
            && (zero.len() != scale.len() || !zero.iter().zip(scale).all(|(a, b)| a.compatible(b)))
            && !(single(zero) && single(scale))
        {
            return Err(format!(
                "zero point {} and scale {} differ in shape",
                list(zero),
                list(scale)
            ));
        }
        if scale.is_empty() || self.block_size > 0 {
            return Ok(());
        }
        let axis = normalize_axis(self.axis, x.len())
            .or_else(|it| if single(scale) { Ok(0) } else { Err(it) })?;
        let fits =
            scale.len() == 1 && (scale[0].compatible(&x[axis]) || scale[0].known() == Some(1));
        if fits {
            Ok(())
        } else {
            Err(format!("scale {} does not fit axis {axis} of input {}", list(scale), list(x)))
        }
    }

    pub(super) fn infer_quantize(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        self.check(inputs)?;
        let dtype =
            required(inputs, 2).map(|it| it.ty.dtype).or(self.output_dtype).unwrap_or(DType::U8);
        Ok(required(inputs, 0).map(|it| Fact::of(TensorType { dtype, shape: it.ty.shape.clone() })))
    }

    pub(super) fn infer_dequantize(
        &self,
        inputs: &[Option<&Fact>],
    ) -> Result<Option<Fact>, String> {
        self.check(inputs)?;
        let scale = required(inputs, 1).map(|it| it.ty.dtype);
        let dtype = self.output_dtype.or(scale).unwrap_or(DType::F32);
        Ok(required(inputs, 0).map(|it| Fact::of(TensorType { dtype, shape: it.ty.shape.clone() })))
    }

    pub(super) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let rank = rank_of(inputs, 0).unwrap_or(0);
        if self.block_size > 0 {
            return Vec::new();
        }
        let pass =
            (0..rank).map(|axis| AxisLink::same((Port::Input(0), axis), (Port::Output(0), axis)));
        let mut links: Vec<_> = pass.collect();
        let many = super::extent(inputs, 1, 0).is_some_and(|it| it > 1);
        if let (true, Ok(axis)) = (many, normalize_axis(self.axis, rank)) {
            let parameters = (1..inputs.len()).filter(|&i| inputs[i].is_some());
            links.extend(
                parameters.map(|i| AxisLink::same((Port::Input(0), axis), (Port::Input(i), 0))),
            );
        }
        links
    }
}
