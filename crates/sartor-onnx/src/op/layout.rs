//! `Slice` (<https://onnx.ai/onnx/operators/onnx__Slice.html>), `Pad`, `Split` and negative axes.

use sartor_ir::{Attr, PadMode};

use super::{Context, Draft, Form, Need, Source, at_least, elementwise::scalar};

/// Opset 1: starts, ends and axes are attributes.
pub(super) fn newest_slice(draft: &mut Draft) -> Result<(), String> {
    for (at, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
        draft.ints_to_input(name, at)?;
    }
    Ok(())
}

pub(super) fn older_slice(ctx: &Context, form: &mut Form) -> Result<(), Need> {
    if ctx.opset >= 10 {
        return Ok(());
    }
    if ctx.node.input(4).is_some()
        && ctx.integers(4).is_none_or(|it| it.iter().any(|&step| step != 1))
    {
        return Err(Need::Opset(10));
    }
    for (at, name) in [(3, "axes"), (2, "ends"), (1, "starts")] {
        ctx.ints_to_attribute(form, at, name, 10)?;
    }
    Ok(())
}

/// Opset 2: pads and value are attributes.
pub(super) fn newest_pad(draft: &mut Draft, source: &Source) -> Result<(), String> {
    draft.ints_to_input("pads", 1)?;
    if draft.attrs.get("value").is_some() {
        let value = draft.attrs.float("value", 0.0).map_err(|it| it.to_string())?;
        draft.constants.insert(2, ("value", scalar(draft, source, value)?));
    }
    Ok(())
}

pub(super) fn older_pad(ctx: &Context, mode: PadMode, form: &mut Form) -> Result<(), Need> {
    if mode == PadMode::Wrap {
        at_least(ctx.opset, 19)?;
    }
    if ctx.node.input(3).is_some() {
        at_least(ctx.opset, 18)?;
    }
    if ctx.opset >= 11 {
        return Ok(());
    }
    if ctx.node.input(2).is_some() {
        form.attrs.set("value", Attr::Float(ctx.exact_float(2).ok_or(Need::Opset(11))?));
    }
    ctx.ints_to_attribute(form, 1, "pads", 11)
}

/// Opset 2: sizes are an attribute; opset 18: the number of outputs is one.
pub(super) fn newest_split(draft: &mut Draft, opset: i64) -> Result<(), String> {
    if opset < 13 {
        draft.ints_to_input("split", 1)?;
    }
    match draft.attrs.take("num_outputs") {
        Some(Attr::Int(n)) if usize::try_from(n) != Ok(draft.n_outputs) => {
            Err(format!("`num_outputs` is {n}, but it has {} outputs", draft.n_outputs))
        }
        _ => Ok(()),
    }
}

pub(super) fn older_split(ctx: &Context, form: &mut Form) -> Result<(), Need> {
    let n = ctx.node.outputs.len();
    if ctx.node.input(1).is_some() {
        return if ctx.opset < 13 { ctx.ints_to_attribute(form, 1, "split", 13) } else { Ok(()) };
    }
    if ctx.opset >= 18 {
        let n = i64::try_from(n).map_err(|_| Need::Never(format!("it has {n} outputs")))?;
        form.attrs.set("num_outputs", Attr::Int(n));
        return Ok(());
    }
    count_axis_from_front(ctx, form);
    // Before opset 18 parts without given sizes are equal.
    let sizes = ctx.node.outputs.iter().map(|it| {
        let shape = ctx.graph.value((*it)?).ty.as_ref()?.shape.as_ref()?;
        let Some(Attr::Int(axis)) = form.attrs.get("axis") else { return shape.first()?.known() };
        shape.get(usize::try_from(*axis).ok()?)?.known()
    });
    let sizes: Vec<usize> = sizes.flatten().collect();
    if sizes.windows(2).any(|it| it[0] != it[1]) { Err(Need::Opset(18)) } else { Ok(()) }
}

/// Before opset 11 axes are counted from the front; without a known rank the axis stays as it is.
pub(super) fn count_axis_from_front(ctx: &Context, form: &mut Form) {
    let Some(&Attr::Int(axis)) = form.attrs.get("axis") else { return };
    let rank = ctx.rank(0).and_then(|it| i64::try_from(it).ok());
    if let (..0, Some(rank)) = (axis, rank) {
        form.attrs.set("axis", Attr::Int(axis + rank));
    }
}
