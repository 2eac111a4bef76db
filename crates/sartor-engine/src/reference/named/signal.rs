//! Spectra (<https://onnx.ai/onnx/operators/onnx__DFT.html>, <https://onnx.ai/onnx/operators/onnx__STFT.html>,
//! <https://onnx.ai/onnx/operators/onnx__HannWindow.html> and its kin,
//! <https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html>).

use std::f64::consts::{PI, TAU};

use sartor_ir::{DType, Named, normalize_axis};

use super::{Lanes, Rule, output_shape, scalar};
use crate::{
    Array, Data,
    reference::evaluate::{array, optional},
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "DFT", evaluate: dft },
    Rule { domain: "", name: "STFT", evaluate: stft },
    Rule { domain: "", name: "HannWindow", evaluate: window },
    Rule { domain: "", name: "HammingWindow", evaluate: window },
    Rule { domain: "", name: "BlackmanWindow", evaluate: window },
    Rule { domain: "", name: "MelWeightMatrix", evaluate: mel },
];

type Made = Result<Vec<Array>, String>;

/// Real and imaginary part.
type Complex = (f64, f64);

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// `y[k] = sum over n of exp(sign 2 pi i k n / N) x[n]`, split at the smallest prime factors of N (Cooley and
/// Tukey 1965, "An algorithm for the machine calculation of complex Fourier series"). `turns` holds the
/// powers of the root of the whole length, `step` apart.
fn transform(x: &[Complex], turns: &[Complex], step: usize) -> Vec<Complex> {
    let n = x.len();
    let factor = (2..n).take_while(|it| it * it <= n).find(|it| n.is_multiple_of(*it)).unwrap_or(n);
    if factor == n || n < 2 {
        let sum = |k: usize| {
            let term = |(i, &x): (usize, &Complex)| times(x, turns[k * i % n.max(1) * step]);
            x.iter().enumerate().map(term).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
        };
        return (0..n).map(sum).collect();
    }
    let part = |r: usize| {
        let own: Vec<Complex> = x.iter().skip(r).step_by(factor).copied().collect();
        transform(&own, turns, step * factor)
    };
    let parts: Vec<_> = (0..factor).map(part).collect();
    let short = n / factor;
    let sum = |k: usize| {
        let term = |r: usize| times(parts[r][k % short], turns[k * r % n * step]);
        (0..factor).map(term).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    (0..n).map(sum).collect()
}

/// The powers of the root of unity of a length, its conjugate for the forward transform.
fn roots(n: usize, inverse: bool) -> Vec<Complex> {
    let sign = if inverse { 1.0 } else { -1.0 };
    let root = |k: usize| {
        let angle = sign * TAU * k as f64 / n as f64;
        (angle.cos(), angle.sin())
    };
    (0..n).map(root).collect()
}

/// Length of the transform, by default that of the axis.
fn length(op: &Named, inputs: &[Option<&Array>], extent: usize) -> Result<usize, String> {
    if optional(inputs, 1).is_some() {
        return usize::try_from(scalar(inputs, 1)?)
            .map_err(|_| "the length is negative".to_owned());
    }
    let halved = op.flag("inverse", false)? && op.flag("onesided", false)?;
    Ok(if halved { extent.saturating_sub(1) * 2 } else { extent })
}

fn dft(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    let rank = x.shape.len();
    let axis = match (op.version < 20, optional(inputs, 2).is_some()) {
        (true, _) => op.int("axis", 1)?,
        (false, true) => scalar(inputs, 2)?,
        (false, false) => -2,
    };
    let axis = normalize_axis(axis, rank)?;
    let parts = x.shape.last().copied().unwrap_or(0);
    if axis + 1 == rank || !(1..=2).contains(&parts) {
        return Err(format!("axis {axis} of input {:?} cannot be transformed", x.shape));
    }
    let (inverse, one_sided) = (op.flag("inverse", false)?, op.flag("onesided", false)?);
    let n = length(op, inputs, x.shape[axis])?;
    let kept = if one_sided && !inverse { n / 2 + 1 } else { n };
    let wide = if one_sided && inverse { 1 } else { 2 };
    let lanes = Lanes::new(&x.shape[..rank - 1], axis);
    let (values, turns) = (x.to_f64(), roots(n, inverse));
    let mut shape = x.shape.clone();
    (shape[axis], shape[rank - 1]) = (kept, wide);
    let mut y = vec![0.0; shape.iter().product()];
    for (lane, first) in lanes.starts().enumerate() {
        let at = |i: usize| {
            let at = (first + i * lanes.inner) * parts;
            (values[at], if parts == 2 { values[at + 1] } else { 0.0 })
        };
        let mut line: Vec<Complex> = (0..n.min(lanes.extent)).map(at).collect();
        line.resize(n, (0.0, 0.0));
        if inverse && one_sided {
            mirror(&mut line, lanes.extent);
        }
        let line = transform(&line, &turns, 1);
        let start = lane / lanes.inner * kept * lanes.inner + lane % lanes.inner;
        for (k, it) in line.into_iter().take(kept).enumerate() {
            let scale = if inverse { 1.0 / n as f64 } else { 1.0 };
            let to = (start + k * lanes.inner) * wide;
            y[to] = it.0 * scale;
            if wide == 2 {
                y[to + 1] = it.1 * scale;
            }
        }
    }
    as_type(shape, y, dtypes.first().copied().unwrap_or(DType::F32))
}

/// The upper half of the spectrum of a real signal, from the lower one, of which `given` are there.
fn mirror(line: &mut [Complex], given: usize) {
    let n = line.len();
    for k in n / 2 + 1..n {
        let low = line.get(n - k).copied().filter(|_| n - k < given).unwrap_or((0.0, 0.0));
        line[k] = (low.0, -low.1);
    }
}

fn as_type(shape: Vec<usize>, values: Vec<f64>, dtype: DType) -> Made {
    let made = Array { shape, data: Data::F64(values) }.cast(dtype);
    Ok(vec![made.ok_or("text has no spectrum")?])
}

/// `signal [n, length, 1 or 2], step, window?, frame length?`.
fn stft(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    let (batch, samples, parts) = match *x.shape.as_slice() {
        [batch, samples] => (batch, samples, 1),
        [batch, samples, parts] => (batch, samples, parts),
        _ => return Err(format!("signal {:?} is not of rank 3", x.shape)),
    };
    let weights = optional(inputs, 2).map(Array::to_f64);
    let frame = match (optional(inputs, 3), &weights) {
        (Some(_), _) => usize::try_from(scalar(inputs, 3)?).unwrap_or(0),
        (None, Some(weights)) => weights.len(),
        (None, None) => samples,
    };
    let step = usize::try_from(scalar(inputs, 1)?).unwrap_or(0);
    if step == 0 || frame == 0 || frame > samples || !(1..=2).contains(&parts) {
        return Err(format!("frames of {frame} every {step} do not fit signal {:?}", x.shape));
    }
    let weights = weights.unwrap_or_else(|| vec![1.0; frame]);
    if weights.len() != frame {
        return Err(format!("a window of {} for frames of {frame}", weights.len()));
    }
    let frames = (samples - frame) / step + 1;
    let kept = if op.flag("onesided", true)? { frame / 2 + 1 } else { frame };
    let (values, turns) = (x.to_f64(), roots(frame, false));
    let mut y = Vec::with_capacity(batch * frames * kept * 2);
    for n in 0..batch {
        for start in (0..frames).map(|it| it * step) {
            let at = |(i, &w): (usize, &f64)| {
                let at = (n * samples + start + i) * parts;
                (values[at] * w, if parts == 2 { values[at + 1] * w } else { 0.0 })
            };
            let line: Vec<Complex> = weights.iter().enumerate().map(at).collect();
            y.extend(
                transform(&line, &turns, 1).into_iter().take(kept).flat_map(|it| [it.0, it.1]),
            );
        }
    }
    as_type(vec![batch, frames, kept, 2], y, x.dtype())
}

/// Harris 1978, "On the use of windows for harmonic analysis with the discrete Fourier transform".
fn window(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let size = usize::try_from(scalar(inputs, 0)?).map_err(|_| "the size is negative")?;
    let span = if op.flag("periodic", true)? { size } else { size.saturating_sub(1) };
    let one = |i: usize| {
        let turn = |k: f64| (k * PI * i as f64 / span.max(1) as f64).cos();
        match op.name.as_str() {
            "HannWindow" => 0.5 - 0.5 * turn(2.0),
            "HammingWindow" => 25.0 / 46.0 - 21.0 / 46.0 * turn(2.0),
            _ => 0.42 - 0.5 * turn(2.0) + 0.08 * turn(4.0),
        }
    };
    let values = (0..size).map(one).collect();
    as_type(vec![size], values, dtypes.first().copied().unwrap_or(DType::F32))
}

/// Triangles on the mel scale, `mel(f) = 2595 log10(1 + f / 700)`; bins are whole.
fn mel(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let number = |i: usize| {
        let it = array(inputs, i)?.to_f64();
        it.first().copied().ok_or_else(|| format!("input {i} is empty"))
    };
    let (bands, length, rate) = (shape[1], number(1)?, number(2)?);
    let to_mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (to_mel(number(3)?), to_mel(number(4)?));
    let step = (high - low) / (bands + 2) as f64;
    let bin = |i: usize| {
        let hertz = 700.0 * (10f64.powf((low + i as f64 * step) / 2595.0) - 1.0);
        ((length + 1.0) * hertz / rate).floor().max(0.0) as usize
    };
    let mut y = vec![0.0; shape[0] * bands];
    for band in 0..bands {
        let (left, centre, right) = (bin(band), bin(band + 1), bin(band + 2));
        let mut set = |row: usize, value: f64| {
            if row < shape[0] {
                y[row * bands + band] = value;
            }
        };
        if left == centre {
            set(centre, 1.0);
        }
        for row in left..=centre.min(shape[0]) {
            if centre > left {
                set(row, (row - left) as f64 / (centre - left) as f64);
            }
        }
        for row in centre..right.min(shape[0]) {
            set(row, (right - row) as f64 / (right - centre) as f64);
        }
    }
    as_type(shape, y, dtypes.first().copied().unwrap_or(DType::F32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{Numbers, named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn fast_and_plain_transforms_agree_and_turn_back() {
        let mut numbers = Numbers::new(1);
        for n in [1, 2, 3, 6, 7, 12, 16, 35, 64] {
            let x = numbers.array(&[1, n, 2]);
            let values: Vec<Complex> =
                x.to_f64().chunks_exact(2).map(|it| (it[0], it[1])).collect();
            let y = run(&named("DFT", Attrs::new()), &[&x]).remove(0);
            for (k, found) in y.to_f64().chunks_exact(2).enumerate() {
                let turns = roots(n, false);
                let sum = values.iter().enumerate().fold((0.0, 0.0), |sum, (i, &it)| {
                    let term = times(it, turns[k * i % n]);
                    (sum.0 + term.0, sum.1 + term.1)
                });
                assert!((found[0] - sum.0).abs() + (found[1] - sum.1).abs() < 1e-4, "{n} {k}");
            }
            let back = run(&named("DFT", Attrs::new().with("inverse", Attr::Int(1))), &[&y]);
            let close = |(a, b): (f32, f32)| (a - b).abs() < 1e-5;
            assert!(back[0].to_f32().into_iter().zip(x.to_f32()).all(close), "{n}");
        }
    }

    #[test]
    fn half_a_spectrum_is_enough_for_a_real_signal() {
        let mut numbers = Numbers::new(2);
        let x = numbers.array(&[2, 10, 1]);
        let one = Attrs::new().with("onesided", Attr::Int(1));
        let half = run(&named("DFT", one.clone()), &[&x]).remove(0);
        assert_eq!(half.shape, [2, 6, 2]);
        let back = run(&named("DFT", one.with("inverse", Attr::Int(1))), &[&half]);
        assert_eq!(back[0].shape, x.shape);
        let close = |(a, b): (f32, f32)| (a - b).abs() < 1e-5;
        assert!(back[0].to_f32().into_iter().zip(x.to_f32()).all(close));
    }

    #[test]
    fn windows_and_frames() {
        let size = Array::scalar(Data::I64(vec![4]));
        let hann = run(&named("HannWindow", Attrs::new()), &[&size]).remove(0);
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(&hann.to_f32(), &[0.0, 0.5, 1.0, 0.5]), "{hann:?}");
        let signal = Array::f32(&[1, 8, 1], vec![1.0; 8]);
        let step = Array::scalar(Data::I64(vec![2]));
        let y = run(&named("STFT", Attrs::new()), &[&signal, &step, &hann]).remove(0);
        assert_eq!(y.shape, [1, 3, 3, 2]);
        assert!(close(&y.to_f32()[..4], &[2.0, 0.0, -1.0, 0.0]), "{y:?}");
    }
}
