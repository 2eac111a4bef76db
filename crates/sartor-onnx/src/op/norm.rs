//! `BatchNormalization`, `Dropout` and `Softmax` (<https://onnx.ai/onnx/operators/onnx__Softmax.html>).

use sartor_ir::{Attr, Tensor};

use super::{Context, Draft, Form, Need, Source};

/// Opset 7 could normalize every position apart (`spatial`).
pub(super) fn newest_batch_norm(draft: &mut Draft, opset: i64) -> Result<(), String> {
    if opset < 9 && draft.attrs.int("spatial", 1).map_err(|it| it.to_string())? == 0 {
        return Err("its form with `spatial` = 0 is not known".to_owned());
    }
    if draft.n_outputs > 1 {
        return Err("its training form is not known".to_owned());
    }
    Ok(())
}

/// Before opset 12 the ratio is an attribute, and the mask of opset 7 is not boolean.
pub(super) fn newest_dropout(draft: &mut Draft, source: &Source) -> Result<(), String> {
    if source.opset < 12 {
        if source.opset < 10 && draft.n_outputs > 1 {
            return Err("its form with a mask that is not boolean is not known".to_owned());
        }
        if draft.attrs.get("ratio").is_some() {
            let ratio = draft.attrs.float("ratio", 0.5).map_err(|it| it.to_string())?;
            draft.constants.insert(1, ("ratio", Tensor::from_f32(&[], &[ratio])));
        }
        return Ok(());
    }
    let training = draft.inputs.get(2).copied().flatten().is_some();
    let off = source.constant(draft, 2).is_some_and(|it| it.data().iter().all(|&byte| byte == 0));
    if training && !off {
        return Err("its training form is not known".to_owned());
    }
    // Where nothing is drawn, the seed says nothing.
    draft.attrs.take("seed");
    Ok(())
}

pub(super) fn older_dropout(ctx: &Context, form: &mut Form) -> Result<(), Need> {
    if ctx.opset >= 12 {
        return Ok(());
    }
    if ctx.opset < 10 && ctx.node.outputs.len() > 1 {
        return Err(Need::Opset(10));
    }
    if ctx.node.input(1).is_some() {
        form.attrs.set("ratio", Attr::Float(ctx.exact_float(1).ok_or(Need::Opset(12))?));
    }
    form.inputs.truncate(1);
    Ok(())
}

/// Before opset 13 all axes from `axis` on are normalized together: the same thing for the last axis.
pub(super) fn newest_softmax(draft: &mut Draft, source: &Source) -> Result<(), String> {
    let axis = draft.attrs.int("axis", 1).map_err(|it| it.to_string())?;
    let rank = source.fact(draft, 0).and_then(|it| it.ty.shape.as_ref()).map(Vec::len);
    let last = rank.and_then(|it| i64::try_from(it).ok()).is_some_and(|it| it == axis + 1);
    if !last && axis != -1 {
        return Err(format!(
            "before opset 13 it normalizes all axes from {axis} on together, not only the last"
        ));
    }
    draft.attrs.set("axis", Attr::Int(axis));
    Ok(())
}

pub(super) fn older_softmax(ctx: &Context, axis: i64, form: &mut Form) -> Result<(), Need> {
    let last = ctx.rank(0).and_then(|it| i64::try_from(it).ok()).map(|it| it - 1);
    let axis = match (axis, last) {
        (-1, Some(last)) if ctx.opset < 11 => last,
        (-1, _) if ctx.opset >= 11 => -1,
        (axis, Some(last)) if axis == last => axis,
        _ => return Err(Need::Opset(13)),
    };
    form.attrs.set("axis", Attr::Int(axis));
    Ok(())
}
