//! Gradients of elementwise operators, by the derivatives of their definitions
//! (<https://onnx.ai/onnx/operators/>). At a kink the derivative is that from the side of the smaller
//! magnitude: that of `Relu` at 0 is 0.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use rayon::prelude::*;
use sartor_ir::{Binary, DType, Unary, Variadic};

use super::{
    Context, Made,
    broadcast::{reduced, spread, sum},
    floats,
};
use crate::{Array, reference::elementwise::erf};

/// d y / d x of a unary operator at `x`, where its value is `y`.
#[expect(clippy::too_many_lines, reason = "a line or a few for each operator")]
pub(crate) fn slope(op: Unary, x: f32, y: f32) -> f32 {
    let step = |inside: bool| f32::from(u8::from(inside));
    match op {
        Unary::Relu => step(x > 0.0),
        Unary::LeakyRelu { alpha } => {
            if x < 0.0 {
                alpha
            } else {
                1.0
            }
        }
        Unary::Elu { alpha } => {
            if x < 0.0 {
                alpha * x.exp()
            } else {
                1.0
            }
        }
        Unary::Selu { alpha, gamma } => gamma * if x < 0.0 { alpha * x.exp() } else { 1.0 },
        Unary::Celu { alpha } => {
            if x < 0.0 {
                (x / alpha).exp()
            } else {
                1.0
            }
        }
        Unary::ThresholdedRelu { alpha } => step(x > alpha),
        Unary::Shrink { lambd, .. } => step(x.abs() > lambd),
        Unary::Swish { alpha } => {
            let gate = sigmoid(alpha * x);
            gate * (1.0 + alpha * x * (1.0 - gate))
        }
        Unary::Gelu { tanh: false } => {
            let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
            0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * density
        }
        Unary::Gelu { tanh: true } => {
            let root = (2.0 / PI).sqrt();
            let t = (root * (x + 0.044_715 * x * x * x)).tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044_715 * x * x)
        }
        Unary::HardSigmoid { alpha, beta } => {
            let inner = alpha * x + beta;
            alpha * step(inner > 0.0 && inner < 1.0)
        }
        Unary::HardSwish => {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                x / 3.0 + 0.5
            }
        }
        Unary::Mish => {
            let t = (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }
        Unary::Sigmoid => y * (1.0 - y),
        Unary::Softplus => sigmoid(x),
        Unary::Softsign => (1.0 + x.abs()).powi(-2),
        Unary::Tanh => 1.0 - y * y,
        Unary::Abs => {
            if x == 0.0 {
                0.0
            } else {
                x.signum()
            }
        }
        Unary::Acos => -1.0 / (1.0 - x * x).sqrt(),
        Unary::Acosh => 1.0 / (x * x - 1.0).sqrt(),
        Unary::Asin => 1.0 / (1.0 - x * x).sqrt(),
        Unary::Asinh => 1.0 / (1.0 + x * x).sqrt(),
        Unary::Atan => 1.0 / (1.0 + x * x),
        Unary::Atanh => 1.0 / (1.0 - x * x),
        Unary::Cos => -x.sin(),
        Unary::Cosh => x.sinh(),
        Unary::Sinh => x.cosh(),
        Unary::Tan => 1.0 + y * y,
        Unary::Erf => std::f32::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
        Unary::Exp => y,
        Unary::Log => 1.0 / x,
        Unary::Neg => -1.0,
        Unary::Reciprocal => -y * y,
        Unary::Sin => x.cos(),
        Unary::Sqrt => 0.5 / y,
        Unary::Ceil | Unary::Floor | Unary::Not | Unary::Round | Unary::Sign => 0.0,
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Elements of one task.
const TASK: usize = 1 << 12;

pub(super) fn unary(op: Unary, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let (x, y, g) = (context.floats(0)?, floats(context.output(0)?), floats(g));
        let mut dx = vec![0.0; x.len()];
        let parts = dx.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
        parts.zip(y.par_chunks(TASK)).zip(g.par_chunks(TASK)).for_each(|(((dx, x), y), g)| {
            for (((dx, &x), &y), &g) in dx.iter_mut().zip(x).zip(y).zip(g) {
                *dx = g * slope(op, x, y);
            }
        });
        Ok(Array::f32(&context.input(0)?.shape, dx))
    })
}

/// d y / d a and d y / d b of an arithmetic operator; `None` for predicates.
fn slopes(op: Binary, a: f32, b: f32) -> Option<(f32, f32)> {
    Some(match op {
        Binary::Add => (1.0, 1.0),
        Binary::Sub => (1.0, -1.0),
        Binary::Mul => (b, a),
        Binary::Div => (1.0 / b, -a / (b * b)),
        Binary::Pow => {
            let by_base = if b == 0.0 { 0.0 } else { b * a.powf(b - 1.0) };
            (by_base, if a > 0.0 { a.powf(b) * a.ln() } else { 0.0 })
        }
        Binary::Mod => (1.0, -(a / b).trunc()),
        _ => return None,
    })
}

pub(super) fn binary(op: Binary, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0).filter(|_| !op.is_predicate()) else { return Ok(made) };
    let shapes = [context.input(0)?, context.input(1)?].map(|it| it.shape.as_slice());
    if op == Binary::Add || op == Binary::Sub {
        for i in (0..2).filter(|&i| context.wants(i)) {
            let mut part = reduced(g, shapes[i])?;
            if op == Binary::Sub && i == 1 {
                negate(&mut part);
            }
            made[i] = Some(part);
        }
        return Ok(made);
    }
    let (a, b) = (spread(context.input(0)?, &g.shape)?, spread(context.input(1)?, &g.shape)?);
    let values = floats(g);
    for i in (0..2).filter(|&i| context.wants(i)) {
        let own = |((&g, &a), &b): ((&f32, &f32), &f32)| {
            let (by_a, by_b) = slopes(op, a, b).unwrap_or_default();
            g * if i == 0 { by_a } else { by_b }
        };
        let wide: Vec<f32> = values.iter().zip(&a).zip(&b).map(own).collect();
        made[i] = Some(Array::f32(shapes[i], sum(&wide, &g.shape, shapes[i])?));
    }
    Ok(made)
}

fn negate(array: &mut Array) {
    if let crate::Data::F32(values) = &mut array.data {
        for it in values {
            *it = -*it;
        }
    }
}

/// `Max` and `Min` pass the gradient to the first operand that has the value.
#[expect(clippy::float_cmp, reason = "the largest is one of the operands, to the bit")]
pub(super) fn variadic(op: Variadic, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (values, count) = (floats(g), context.inputs.len());
    let y = floats(context.output(0)?);
    let mut taken = vec![false; g.len()];
    for (i, to) in made.iter_mut().enumerate() {
        let x = context.input(i)?;
        let wide: Vec<f32> = match op {
            Variadic::Sum => values.to_vec(),
            Variadic::Mean => values.iter().map(|g| g / count as f32).collect(),
            Variadic::Max | Variadic::Min => {
                let x = spread(x, &g.shape)?;
                let own = |(((&g, &y), &x), taken): (((&f32, &f32), &f32), &mut bool)| {
                    let first = !*taken && (x == y || x.is_nan() && y.is_nan());
                    *taken |= first;
                    if first { g } else { 0.0 }
                };
                values.iter().zip(y.iter()).zip(&x).zip(&mut taken).map(own).collect()
            }
        };
        if context.wants(i) {
            *to = Some(Array::f32(&x.shape, sum(&wide, &g.shape, &x.shape)?));
        }
    }
    Ok(made)
}

/// Passes inside the limits; a limit that is asked for gets what is cut there.
pub(super) fn clip(context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let bound = |i: usize, open: f32| {
        context.optional(i).and_then(|it| floats(it).first().copied()).unwrap_or(open)
    };
    let (low, high) = (bound(1, f32::NEG_INFINITY), bound(2, f32::INFINITY));
    let (x, g) = (context.floats(0)?, floats(g));
    if context.wants(0) {
        let own = |(&x, &g): (&f32, &f32)| if x > low && x < high { g } else { 0.0 };
        let dx = x.iter().zip(g.iter()).map(own).collect();
        made[0] = Some(Array::f32(&context.input(0)?.shape, dx));
    }
    let beyond = |cut: &dyn Fn(f32) -> bool| {
        let own = x.iter().zip(g.iter()).filter(|it| cut(*it.0)).map(|it| f64::from(*it.1));
        own.sum::<f64>() as f32
    };
    // Where both limits cut, the upper one is applied last.
    let cuts: [&dyn Fn(f32) -> bool; 2] = [&|x| x < low && low <= high, &|x| x.max(low) > high];
    for i in (1..3).filter(|&i| context.wants(i)) {
        if let Some(limit) = context.optional(i) {
            made[i] = Some(Array::f32(&limit.shape, vec![beyond(cuts[i - 1])]));
        }
    }
    Ok(made)
}

pub(super) fn prelu(context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (x, slope) = (context.input(0)?, context.input(1)?);
    let (values, wide, g) = (floats(x), spread(slope, &x.shape)?, floats(g));
    if context.wants(0) {
        let own = |((&x, &s), &g): ((&f32, &f32), &f32)| if x < 0.0 { s * g } else { g };
        let dx = values.iter().zip(&wide).zip(g.iter()).map(own).collect();
        made[0] = Some(Array::f32(&x.shape, dx));
    }
    if context.wants(1) {
        let own = |(&x, &g): (&f32, &f32)| if x < 0.0 { x * g } else { 0.0 };
        let ds: Vec<f32> = values.iter().zip(g.iter()).map(own).collect();
        made[1] = Some(Array::f32(&slope.shape, sum(&ds, &x.shape, &slope.shape)?));
    }
    Ok(made)
}

/// `Where`: each choice gets the gradient where it was taken.
pub(super) fn choose(context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (first, values) = (spread(context.input(0)?, &g.shape)?, floats(g));
    for i in (1..3).filter(|&i| context.wants(i)) {
        let own = |(&g, &first): (&f32, &f32)| if (first != 0.0) == (i == 1) { g } else { 0.0 };
        let wide: Vec<f32> = values.iter().zip(&first).map(own).collect();
        let shape = &context.input(i)?.shape;
        made[i] = Some(Array::f32(shape, sum(&wide, &g.shape, shape)?));
    }
    Ok(made)
}

/// A conversion between float types passes the gradient on.
pub(super) fn cast(to: DType, context: &Context<'_>) -> Made {
    match context.gradient(0) {
        Some(g) if to.is_float() => context.first(|| Ok(g.clone())),
        _ => Ok(context.zero()),
    }
}
