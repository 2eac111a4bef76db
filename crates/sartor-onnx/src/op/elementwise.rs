//! `Clip` (<https://onnx.ai/onnx/operators/onnx__Clip.html>), `Cast`, `Gelu`.

use sartor_ir::{Attr, DType, Tensor};

use super::{Context, Draft, Form, Need, Source};

/// Opset 6: the limits are float attributes.
pub(super) fn newest_clip(draft: &mut Draft, source: &Source) -> Result<(), String> {
    for (at, name) in [(1, "min"), (2, "max")] {
        let Some(limit) = draft.attrs.take(name) else { continue };
        let Attr::Float(limit) = limit else {
            return Err(format!("attribute `{name}`: expected a float"));
        };
        draft.constants.insert(at, (name, scalar(draft, source, limit)?));
    }
    Ok(())
}

/// `value` as a scalar of the element type of the first input.
pub(super) fn scalar(draft: &Draft, source: &Source, value: f32) -> Result<Tensor, String> {
    let fact = source.fact(draft, 0).ok_or("the element type of its input is not known")?;
    let dtype = fact.ty.dtype;
    let data = match dtype {
        DType::F32 => value.to_le_bytes().to_vec(),
        DType::F64 => f64::from(value).to_le_bytes().to_vec(),
        DType::F16 => half_bits(value).to_le_bytes().to_vec(),
        _ => return Err(format!("its form for {dtype} is not known")),
    };
    Tensor::new(dtype, Vec::new(), data).map_err(|it| it.to_string())
}

/// The nearest binary16, limits saturated as ONNX's default limits of single precision are.
fn half_bits(value: f32) -> u16 {
    let half = half::f16::from_f32(value);
    if half.is_infinite() && value.is_finite() {
        return half::f16::MAX.to_bits() | (half.to_bits() & 0x8000);
    }
    half.to_bits()
}

pub(super) fn older_clip(ctx: &Context, form: &mut Form) -> Result<(), Need> {
    if ctx.opset >= 11 {
        return Ok(());
    }
    for (at, name) in [(1, "min"), (2, "max")] {
        if ctx.node.input(at).is_some() {
            let limit = ctx.exact_float(at).ok_or(Need::Opset(11))?;
            form.attrs.set(name, Attr::Float(limit));
        }
    }
    form.inputs.truncate(1);
    Ok(())
}

/// ONNX numbers the element types, the graph names them. Powers of two are rounded up, the default of `round_mode`.
pub(super) fn newest_cast(draft: &mut Draft) -> Result<(), String> {
    match draft.attrs.take("round_mode") {
        None => {}
        Some(Attr::Str(it)) if it == "up" => {}
        Some(other) => return Err(format!("its form with `round_mode` {other:?} is not known")),
    }
    dtype_by_name(draft, "to")
}

/// Turns the number of an element type in attribute `name` into its name.
pub(super) fn dtype_by_name(draft: &mut Draft, name: &str) -> Result<(), String> {
    let code = draft.attrs.int(name, 0).map_err(|it| it.to_string())?;
    if code != 0 {
        let dtype =
            DType::from_code(code).ok_or_else(|| format!("element type {code} is not known"))?;
        draft.attrs.set(name, Attr::Str(dtype.name().to_owned()));
    }
    Ok(())
}

pub(super) fn newest_gelu(draft: &Draft) -> Result<(), String> {
    match draft.attrs.get("approximate") {
        Some(Attr::Str(it)) if it != "none" && it != "tanh" => {
            Err(format!("approximation `{it}` is not known"))
        }
        _ => Ok(()),
    }
}
