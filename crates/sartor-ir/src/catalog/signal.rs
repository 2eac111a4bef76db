//! Spectra (<https://onnx.ai/onnx/operators/onnx__DFT.html>, opsets 17 and 20,
//! <https://onnx.ai/onnx/operators/onnx__STFT.html>, <https://onnx.ai/onnx/operators/onnx__HannWindow.html>
//! and its kin, <https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html>).

use super::{Entry, Made, extent_of, no_axes, shapeless, typed, value};
use crate::{
    DType, Dim, Fact, Named, normalize_axis,
    op::{extent, required, shape_of},
    shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "DFT", infer: infer_dft, axes: no_axes },
    Entry { domain: "", name: "STFT", infer: infer_stft, axes: no_axes },
    Entry { domain: "", name: "HannWindow", infer: infer_window, axes: no_axes },
    Entry { domain: "", name: "HammingWindow", infer: infer_window, axes: no_axes },
    Entry { domain: "", name: "BlackmanWindow", infer: infer_window, axes: no_axes },
    Entry { domain: "", name: "MelWeightMatrix", infer: infer_mel, axes: no_axes },
];

/// The number that scalar input `i` holds, if known.
fn number(inputs: &[Option<&Fact>], i: usize) -> Option<i64> {
    required(inputs, i)?.integers()?.first().copied()
}

fn infer_dft(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let (inverse, one_sided) = (op.flag("inverse", false)?, op.flag("onesided", false)?);
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    if x.len() < 2 {
        return Err(format!("input {} lacks the axis of parts", list(x)));
    }
    let given = |i: usize| inputs.get(i).copied().flatten().is_some();
    let axis = match (op.version < 20, given(2)) {
        (true, _) => Some(op.int("axis", 1)?),
        (false, true) => number(inputs, 2),
        (false, false) => Some(-2),
    };
    let Some(axis) = axis else {
        return Ok(vec![typed(inputs, 0, vec![Dim::Unknown; x.len()])]);
    };
    let axis = normalize_axis(axis, x.len())?;
    if axis + 1 == x.len() {
        return Err("the axis of parts cannot be transformed".to_owned());
    }
    let length = match (given(1), number(inputs, 1)) {
        (true, Some(n)) => extent_of(n)?,
        (true, None) => Dim::Unknown,
        (false, _) if inverse && one_sided => match x[axis].known() {
            Some(n) => Dim::Known(n.saturating_sub(1) * 2),
            None => Dim::Unknown,
        },
        (false, _) => x[axis].clone(),
    };
    let mut shape = x.clone();
    shape[axis] = match (one_sided && !inverse, length.known()) {
        (true, Some(n)) => Dim::Known(n / 2 + 1),
        (true, None) => Dim::Unknown,
        (false, _) => length,
    };
    shape[x.len() - 1] = Dim::Known(if inverse && one_sided { 1 } else { 2 });
    Ok(vec![typed(inputs, 0, shape)])
}

fn infer_stft(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let one_sided = op.flag("onesided", true)?;
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    let given = |i: usize| inputs.get(i).copied().flatten().is_some();
    let signal = extent(inputs, 0, 1);
    let frame = match (given(3), given(2)) {
        (true, _) => number(inputs, 3).and_then(|it| usize::try_from(it).ok()),
        (false, true) => extent(inputs, 2, 0),
        (false, false) => signal,
    };
    let step = number(inputs, 1).and_then(|it| usize::try_from(it).ok());
    let frames = match (signal, frame, step) {
        (Some(n), Some(frame), Some(step)) if step > 0 && n >= frame => {
            Dim::Known((n - frame) / step + 1)
        }
        (Some(n), Some(frame), Some(step)) => {
            return Err(format!("frames of {frame} every {step} do not fit a signal of {n}"));
        }
        _ => Dim::Unknown,
    };
    let bins = frame.map_or(Dim::Unknown, |it| Dim::Known(if one_sided { it / 2 + 1 } else { it }));
    let batch = x.first().cloned().unwrap_or(Dim::Unknown);
    Ok(vec![typed(inputs, 0, vec![batch, frames, bins, Dim::Known(2)])])
}

fn infer_window(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let size = number(inputs, 0).map_or(Ok(Dim::Unknown), extent_of)?;
    Ok(vec![value(op.dtype("output_datatype")?.unwrap_or(DType::F32), Some(vec![size]))])
}

fn infer_mel(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let bins = number(inputs, 0).map_or(Ok(Dim::Unknown), extent_of)?;
    let rows = number(inputs, 1).map_or(Ok(Dim::Unknown), |it| extent_of(it / 2 + 1))?;
    Ok(vec![value(op.dtype("output_datatype")?.unwrap_or(DType::F32), Some(vec![rows, bins]))])
}
