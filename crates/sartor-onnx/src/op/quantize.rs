//! `QuantizeLinear` and `DequantizeLinear` (<https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>).

use sartor_ir::{Attr, DType, Op, QuantizeLinear, TensorType};

use super::{Context, Draft, Form, Need, at_least, elementwise::dtype_by_name};

pub(super) fn newest(draft: &mut Draft) -> Result<(), String> {
    dtype_by_name(draft, "output_dtype")
}

/// Opset 10 has one scale; 13 one for each index of an axis; 19 8-bit floats and scales of half precision;
/// 21 blocks, other integers and `output_dtype`; 23 the latter for `DequantizeLinear` too.
pub(super) fn older(ctx: &Context, op: &QuantizeLinear, form: &mut Form) -> Result<(), Need> {
    let scale = ctx.node.input(1).and_then(|it| ctx.graph.value(it).ty.as_ref());
    let single =
        scale.and_then(TensorType::dims).is_none_or(|it| it.iter().product::<usize>() == 1);
    if !single {
        at_least(ctx.opset, 13)?;
    }
    if ctx.opset < 13 {
        form.attrs.take("axis");
    }
    if scale.is_some_and(|it| !matches!(it.dtype, DType::F32 | DType::I32)) || !op.saturate {
        at_least(ctx.opset, 19)?;
    }
    if op.block_size > 0 {
        at_least(ctx.opset, 21)?;
    }
    if let Some(dtype) = op.output_dtype {
        let since = if let Op::DequantizeLinear(_) = ctx.node.op { 23 } else { 21 };
        at_least(ctx.opset, since)?;
        form.attrs.set("output_dtype", Attr::Int(dtype.code().into()));
    }
    let integers = if let Op::DequantizeLinear(_) = ctx.node.op { 0 } else { 2 };
    let stored = ctx.node.input(integers).and_then(|it| ctx.graph.value(it).ty.as_ref());
    match stored.map(|it| it.dtype) {
        None | Some(DType::I8 | DType::U8 | DType::I32) => Ok(()),
        Some(DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ) => {
            at_least(ctx.opset, 19)
        }
        Some(_) => at_least(ctx.opset, 21),
    }
}
