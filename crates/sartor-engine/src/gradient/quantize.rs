//! Gradients through linear quantization: the straight-through estimator (Bengio et al. 2013, section 4)
//! passes the gradient inside the range of the integers, and the learned step size of Esser et al. 2020 (LSQ,
//! equations 3 and 5) gives that of the scale; the factor by which LSQ scales it down is the trainer's. The two
//! operators share it so that together they are LSQ's: with `v = x / s`, `d y / d s` is `round(v) - v` where
//! `v` lies inside the range and the nearest limit outside. A limit itself counts as inside, so that the
//! largest weight of a range that was taken from the weights still learns.

use sartor_ir::{DType, QuantizeLinear, narrow};

use super::{Context, Made, floats};
use crate::{
    Array,
    reference::{integers, quantize::limits, quantize_granularity},
};

/// Smallest and largest number of a type to quantize to.
fn range(dtype: DType) -> Result<(f32, f32), String> {
    if dtype.is_narrow_float() {
        let largest = narrow::round(dtype, f32::MAX, true);
        return Ok((-largest, largest));
    }
    let (low, high) =
        limits(dtype).ok_or_else(|| format!("quantizing to {dtype} has no gradient"))?;
    Ok((low as f32, high as f32))
}

/// `q = clamp(round(x / s) + z)`: inside the range `d q / d x = 1 / s` and `d q / d s = -x / s^2`.
pub(super) fn quantize(it: &QuantizeLinear, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (x, scale) = (context.input(0)?, context.input(1)?);
    let (values, scales, dq) = (floats(x), floats(scale), floats(g));
    let by = quantize_granularity(it, &x.shape, &scale.shape)?;
    let stored = context.optional(2).map_or(DType::U8, Array::dtype);
    let (low, high) = range(it.output_dtype.unwrap_or(stored))?;
    let zeros = integers(context.inputs, 2).unwrap_or_else(|| vec![0; scales.len()]);
    let (mut dx, mut ds) = (vec![0.0; x.len()], vec![0.0f64; scales.len()]);
    for (i, (&x, &g)) in values.iter().zip(dq.iter()).enumerate() {
        let at = by.scale_of(i);
        let (s, zero) = (scales[at], zeros[at] as f32);
        // The quotient of a limit by its own scale may miss it by a rounding.
        let v = x / s * (1.0 - f32::EPSILON);
        if v >= low - zero && v <= high - zero {
            dx[i] = g / s;
            ds[at] -= f64::from(g) * f64::from(x) / (f64::from(s) * f64::from(s));
        }
    }
    if context.wants(0) {
        made[0] = Some(Array::f32(&x.shape, dx));
    }
    if context.wants(1) {
        made[1] = Some(Array::f32(&scale.shape, ds.iter().map(|&it| it as f32).collect()));
    }
    Ok(made)
}

/// `y = (q - z) s`: `d y / d q = s` and `d y / d s = q - z`.
pub(super) fn dequantize(it: &QuantizeLinear, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (q, scale) = (context.input(0)?, context.input(1)?);
    let (scales, dy) = (floats(scale), floats(g));
    let by = quantize_granularity(it, &q.shape, &scale.shape)?;
    if context.wants(0) {
        let own = |(i, g): (usize, &f32)| g * scales[by.scale_of(i)];
        made[0] = Some(Array::f32(&q.shape, dy.iter().enumerate().map(own).collect()));
    }
    if context.wants(1) {
        let zeros = integers(context.inputs, 2).unwrap_or_else(|| vec![0; scales.len()]);
        let mut ds = vec![0.0f64; scales.len()];
        for (i, (q, &g)) in q.to_f64().into_iter().zip(dy.iter()).enumerate() {
            let at = by.scale_of(i);
            ds[at] += (q - zeros[at] as f64) * f64::from(g);
        }
        made[1] = Some(Array::f32(&scale.shape, ds.iter().map(|&it| it as f32).collect()));
    }
    Ok(made)
}
