//! Gradients of normalizations by statistics of the values themselves, in 64 bits.

use sartor_ir::{BatchNormalization, Named, catalog};

use super::{Context, Made, Rule, broadcast, floats, norm};
use crate::{
    Array,
    reference::{
        self,
        layer_norm::{Centre, layer_norm},
        layout::View,
        norm::{Lrn, MOMENT_EPSILON, lanes},
        standard::Standard,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "BatchNormalization", backward: batch_norm },
    Rule { domain: "", name: "GroupNormalization", backward: standard },
    Rule { domain: "", name: "Hardmax", backward: constant },
    Rule { domain: "", name: "InstanceNormalization", backward: standard },
    Rule { domain: "", name: "LRN", backward: lrn },
    Rule { domain: "", name: "LayerNormalization", backward: standard },
    Rule { domain: "", name: "LogSoftmax", backward: softmax },
    Rule { domain: "", name: "LpNormalization", backward: lp },
    Rule { domain: "", name: "MeanVarianceNormalization", backward: moments },
    Rule { domain: "", name: "RMSNormalization", backward: standard },
    Rule { domain: "", name: "Softmax", backward: softmax },
];

fn wide(array: &Array) -> Vec<f64> {
    array.to_f64()
}

fn narrow(shape: &[usize], values: &[f64]) -> Array {
    Array::f32(shape, values.iter().map(|&it| it as f32).collect())
}

/// A piecewise constant: nothing passes.
#[expect(clippy::unnecessary_wraps, reason = "all rules have one signature")]
fn constant(_: &Named, context: &Context<'_>) -> Made {
    Ok(context.zero())
}

/// With `n = (x - m) r` by run, `y = scale n + shift` and `g = scale dy`: `dx = r (g - mean of g - n mean of
/// (g n))`, where without centre the first mean is left out; the moments, if something reads them, have `d m /
/// d x = 1 / run` and `d r / d x = -r² n / run`.
fn standard(op: &Named, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let x = context.input(0)?;
    let it = Standard::of(op, &x.shape)?;
    let forward = layer_norm(&wide(x), it.run, it.centre, it.epsilon, None, None);
    let normal = &forward.values;
    let dy = context.gradient(0).map_or_else(|| vec![0.0; x.len()], wide);
    let mut g = dy.clone();
    if let Some(scale) = context.optional(1) {
        let shape = it.parameter(&scale.shape);
        let view = View::expand(&shape, &it.seen).ok_or("its scale does not broadcast")?;
        g.iter_mut().zip(view.read(&wide(scale))).for_each(|(g, scale)| *g *= scale);
        if context.wants(1) {
            let own: Vec<f32> = dy.iter().zip(normal).map(|(dy, n)| (dy * n) as f32).collect();
            let sums = broadcast::sum(&own, &it.seen, &shape)?;
            made[1] = Some(Array::f32(&scale.shape, sums));
        }
    }
    if let (Some(shift), true) = (context.optional(2), context.wants(2)) {
        let own: Vec<f32> = dy.iter().map(|&it| it as f32).collect();
        let sums = broadcast::sum(&own, &it.seen, &it.parameter(&shift.shape))?;
        made[2] = Some(Array::f32(&shift.shape, sums));
    }
    if context.wants(0) {
        let moments = [1, 2].map(|i| context.gradient(i).map(floats));
        let centred = it.centre == Centre::Mean;
        let runs = g.chunks_exact_mut(it.run.max(1)).zip(normal.chunks_exact(it.run.max(1)));
        for (i, (g, normal)) in runs.enumerate() {
            let r = forward.inverse_deviations[i];
            let [dm, dr] = [0, 1].map(|k| moments[k].as_ref().map_or(0.0, |it| f64::from(it[i])));
            back(g, normal, r, centred);
            let count = normal.len() as f64;
            g.iter_mut().zip(normal).for_each(|(g, n)| *g += (dm - dr * r * r * n) / count);
        }
        made[0] = Some(narrow(&x.shape, &g));
    }
    Ok(made)
}

/// `r (g - mean of g - n mean of (g n))`, in place.
fn back(g: &mut [f64], normal: &[f64], r: f64, centred: bool) {
    let count = g.len() as f64;
    let mean = if centred { g.iter().sum::<f64>() / count } else { 0.0 };
    let along = g.iter().zip(normal).map(|(g, n)| g * n).sum::<f64>() / count;
    g.iter_mut().zip(normal).for_each(|(g, n)| *g = r * (*g - mean - n * along));
}

/// `y = (x - m) / (s + epsilon)`: as [`back`], with `r = 1 / (s + epsilon)` and the last mean over `s / (s +
/// epsilon)`.
fn moments(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let axes = catalog::moment_axes(op, x.shape.len())?;
        let there = reference::norm::last_axes(&x.shape, &axes);
        let run = axes.iter().map(|&it| x.shape[it]).product::<usize>().max(1);
        let (values, mut g) = (there.read(&wide(x)), there.read(&wide(g)));
        let made = layer_norm(&values, run, Centre::Mean, 0.0, None, None);
        for (i, g) in g.chunks_exact_mut(run).enumerate() {
            let deviation = 1.0 / made.inverse_deviations[i];
            let r = 1.0 / (deviation + MOMENT_EPSILON);
            if deviation > 0.0 {
                back(g, &made.values[i * run..][..run], r, true);
            } else {
                let mean = g.iter().sum::<f64>() / run as f64;
                for g in g {
                    *g = r * (*g - mean);
                }
            }
        }
        Ok(narrow(&x.shape, &reference::norm::first_axes(&x.shape, &axes).read(&g)))
    })
}

/// `dx = (dy - s sum of (dy y)) / ‖x‖` with `s = y` for the Euclidean norm and the sign of `x` for the sum of
/// magnitudes.
fn lp(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let axes = catalog::softmax_axes(op, x.shape.len())?;
        let inner = x.shape[axes.end..].iter().product();
        let (values, g, p) = (wide(x), wide(g), op.int("p", 2)?);
        let mut dx = vec![0.0; values.len()];
        for lane in lanes(values.len(), x.shape[axes].iter().product(), inner) {
            let length = reference::norm::length(p, lane.clone().map(|at| values[at]))?;
            if length == 0.0 {
                continue;
            }
            let along: f64 = lane.clone().map(|at| g[at] * values[at]).sum::<f64>() / length;
            for at in lane {
                let x = values[at];
                let side = match p {
                    1 if x == 0.0 => 0.0,
                    1 => x.signum(),
                    _ => x / length,
                };
                dx[at] = (g[at] - side * along) / length;
            }
        }
        Ok(narrow(&x.shape, &dx))
    })
}

/// With bases `b`: `dx = dy b^-beta - 2 factor beta x sum of (dy x b^(-beta-1))` over the elements whose
/// neighbour `x` is.
fn lrn(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let it = Lrn::of(op, &x.shape)?;
        let (values, g) = (wide(x), wide(g));
        let bases = it.bases(&values);
        let one = |at: usize| g[at] * values[at] * bases[at].powf(-it.beta - 1.0);
        let terms: Vec<f64> = (0..values.len()).map(one).collect();
        let sums = it.summed_back(&terms);
        let one = |at: usize| {
            let own = g[at] * bases[at].powf(-it.beta);
            own - 2.0 * it.factor * it.beta * values[at] * sums[at]
        };
        Ok(narrow(&x.shape, &(0..values.len()).map(one).collect::<Vec<f64>>()))
    })
}

/// Softmax of opset 12 and before.
fn softmax(op: &Named, context: &Context<'_>) -> Made {
    let shape = &context.input(0)?.shape;
    let axes = catalog::softmax_axes(op, shape.len())?;
    let sizes = (shape[axes.clone()].iter().product(), shape[axes.end..].iter().product());
    norm::softmax_along(sizes, op.name == "LogSoftmax", context)
}

/// The training form: by the batch's own statistics. Running statistics pass nothing.
fn batch_norm(op: &Named, context: &Context<'_>) -> Made {
    let training = op.flag("training_mode", op.version < 14)?;
    let positions = op.version < 9 && !op.flag("spatial", true)?;
    if !training || positions {
        return Err("this form of `BatchNormalization` has no gradient".to_owned());
    }
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let it = BatchNormalization { epsilon: op.float("epsilon", 1e-5)?, momentum: 0.9 };
    let (x, scale, shift) = (context.input(0)?, context.floats(1)?, context.floats(2)?);
    let (_, statistics) = norm::batch_norm_train(&it, x, &scale, &shift);
    let parts = norm::batch_norm_train_backward(x, &scale, &statistics, g);
    for (i, part) in parts.into_iter().enumerate().filter(|it| context.wants(it.0)) {
        made[i] = Some(part);
    }
    Ok(made)
}
