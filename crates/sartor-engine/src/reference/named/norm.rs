//! Normalizations by statistics of the values themselves
//! (<https://onnx.ai/onnx/operators/onnx__LayerNormalization.html> and others), computed in 64 bits.

use sartor_ir::{DType, Named, catalog};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        evaluate::{array, optional},
        layer_norm::layer_norm,
        layout::View,
        norm,
        standard::Standard,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "BatchNormalization", evaluate: batch_norm },
    Rule { domain: "", name: "GroupNormalization", evaluate: standard },
    Rule { domain: "", name: "Hardmax", evaluate: hardmax },
    Rule { domain: "", name: "InstanceNormalization", evaluate: standard },
    Rule { domain: "", name: "LRN", evaluate: lrn },
    Rule { domain: "", name: "LayerNormalization", evaluate: standard },
    Rule { domain: "", name: "LogSoftmax", evaluate: softmax },
    Rule { domain: "", name: "LpNormalization", evaluate: lp },
    Rule { domain: "", name: "MeanVarianceNormalization", evaluate: moments },
    Rule { domain: "", name: "RMSNormalization", evaluate: standard },
    Rule { domain: "", name: "Softmax", evaluate: softmax },
];

type Made = Result<Vec<Array>, String>;

/// Numbers as an array of the float type that holds `dtype`.
fn narrowed(shape: &[usize], values: Vec<f64>, dtype: DType) -> Array {
    let data = match dtype {
        DType::F64 => Data::F64(values),
        _ => Data::F32(values.into_iter().map(|it| it as f32).collect()),
    };
    Array { shape: shape.to_vec(), data }
}

/// The numbers of float input 0.
fn floats<'a>(inputs: &[Option<&'a Array>]) -> Result<(&'a Array, Vec<f64>), String> {
    let x = array(inputs, 0)?;
    if !x.dtype().is_float() {
        return Err(format!("elements of type {} are not floats", x.dtype()));
    }
    Ok((x, x.to_f64()))
}

/// Layer, group, instance and root mean square normalization.
fn standard(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let (x, values) = floats(inputs)?;
    let it = Standard::of(op, &x.shape)?;
    let made = layer_norm(&values, it.run, it.centre, it.epsilon, None, None);
    let mut y = made.values;
    let wide = |i: usize| -> Result<Option<Vec<f64>>, String> {
        let Some(parameter) = optional(inputs, i) else { return Ok(None) };
        let view = View::expand(&it.parameter(&parameter.shape), &it.seen);
        let view = view.ok_or_else(|| {
            format!("input {i} {:?} does not broadcast to {:?}", parameter.shape, x.shape)
        })?;
        Ok(Some(view.read(&parameter.to_f64())))
    };
    if let Some(scale) = wide(1)? {
        y.iter_mut().zip(scale).for_each(|(y, scale)| *y *= scale);
    }
    if let Some(shift) = wide(2)? {
        y.iter_mut().zip(shift).for_each(|(y, shift)| *y += shift);
    }
    let mut outputs = vec![narrowed(&x.shape, y, x.dtype())];
    if dtypes.len() > 1 {
        let axis = sartor_ir::normalize_axis(op.int("axis", -1)?, x.shape.len())?;
        let mut shape = x.shape.clone();
        shape[axis..].fill(1);
        // Runs without an element have no moments.
        let count = shape.iter().product();
        let mut lists = [made.means, made.inverse_deviations];
        for it in &mut lists {
            it.resize(count, f64::NAN);
        }
        let moments = lists.into_iter().zip(&dtypes[1..]);
        outputs.extend(moments.map(|(values, dtype)| narrowed(&shape, values, *dtype)));
    }
    Ok(outputs)
}

/// `(x - mean) / (standard deviation + 1e-9)` over some axes.
fn moments(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (x, values) = floats(inputs)?;
    let axes = catalog::moment_axes(op, x.shape.len())?;
    let there = norm::last_axes(&x.shape, &axes);
    let run: usize = axes.iter().map(|&it| x.shape[it]).product();
    let mut moved = there.read(&values);
    for run in moved.chunks_exact_mut(run.max(1)) {
        let n = run.len() as f64;
        let mean = run.iter().sum::<f64>() / n;
        let variance = run.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / n;
        let factor = 1.0 / (variance.sqrt() + norm::MOMENT_EPSILON);
        for it in run {
            *it = (*it - mean) * factor;
        }
    }
    Ok(vec![narrowed(&x.shape, norm::first_axes(&x.shape, &axes).read(&moved), x.dtype())])
}

/// Softmax of opset 12 and before: all axes from one on are one.
fn softmax(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (x, values) = floats(inputs)?;
    let axes = catalog::softmax_axes(op, x.shape.len())?;
    let n = x.shape[axes.clone()].iter().product();
    let inner = x.shape[axes.end..].iter().product();
    let mut y = vec![0.0; values.len()];
    norm::softmax(&values, n, inner, op.name == "LogSoftmax", &mut y);
    Ok(vec![narrowed(&x.shape, y, x.dtype())])
}

/// 1 at the first largest element, 0 elsewhere.
fn hardmax(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (x, values) = floats(inputs)?;
    let axes = catalog::softmax_axes(op, x.shape.len())?;
    let inner = x.shape[axes.end..].iter().product();
    let mut y = vec![0.0; values.len()];
    for lane in norm::lanes(values.len(), x.shape[axes].iter().product(), inner) {
        let first = lane.clone().reduce(|a, b| if values[b] > values[a] { b } else { a });
        if let Some(at) = first {
            y[at] = 1.0;
        }
    }
    Ok(vec![narrowed(&x.shape, y, x.dtype())])
}

/// `x / ‖x‖ₚ` along an axis; zeros where the norm is 0.
fn lp(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (x, mut values) = floats(inputs)?;
    let axes = catalog::softmax_axes(op, x.shape.len())?;
    let inner = x.shape[axes.end..].iter().product();
    for lane in norm::lanes(values.len(), x.shape[axes].iter().product(), inner) {
        let length = norm::length(op.int("p", 2)?, lane.clone().map(|at| values[at]))?;
        lane.for_each(|at| values[at] = if length == 0.0 { 0.0 } else { values[at] / length });
    }
    Ok(vec![narrowed(&x.shape, values, x.dtype())])
}

/// Local response normalization (Krizhevsky et al. 2012, section 3.3).
fn lrn(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (x, values) = floats(inputs)?;
    let it = norm::Lrn::of(op, &x.shape)?;
    let bases = it.bases(&values);
    let y = values.iter().zip(bases).map(|(x, base)| x * base.powf(-it.beta)).collect();
    Ok(vec![narrowed(&x.shape, y, x.dtype())])
}

/// `BatchNormalization` as it trains, or with parameters by position (`spatial = 0` of opset 7).
///
/// Outputs are `Y, running mean, running variance`, before opset 14 also the batch's own.
fn batch_norm(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let (x, values) = floats(inputs)?;
    let (mean, count) = (array(inputs, 3)?, array(inputs, 1)?.len());
    let own = |i: usize| -> Result<Vec<f64>, String> {
        let list = array(inputs, i)?.to_f64();
        if list.len() == count {
            Ok(list)
        } else {
            Err(format!("input {i} has {}, expected {count}", list.len()))
        }
    };
    let (scale, shift, old_mean, old_var) = (own(1)?, own(2)?, own(3)?, own(4)?);
    let batch = x.shape.first().copied().unwrap_or(0);
    let inner = values.len().checked_div(batch * count).unwrap_or(0);
    if batch * count * inner != values.len() {
        return Err(format!("{count} parameters do not fit input {:?}", x.shape));
    }
    let channel = |at: usize| at / inner.max(1) % count.max(1);
    let training =
        if op.version < 14 { dtypes.len() > 1 } else { op.flag("training_mode", false)? };
    let (new_mean, new_var) = if training {
        norm::batch_moments(&values, count, channel)
    } else {
        (old_mean.clone(), old_var.clone())
    };
    let epsilon = f64::from(op.float("epsilon", 1e-5)?);
    let one = |(at, x): (usize, &f64)| {
        let c = channel(at);
        scale[c] * (x - new_mean[c]) / (new_var[c] + epsilon).sqrt() + shift[c]
    };
    let y = values.iter().enumerate().map(one).collect();
    let momentum = f64::from(op.float("momentum", 0.9)?);
    let mixed = |old: &[f64], new: &[f64]| -> Vec<f64> {
        old.iter().zip(new).map(|(old, new)| momentum * old + (1.0 - momentum) * new).collect()
    };
    let running = [mixed(&old_mean, &new_mean), mixed(&old_var, &new_var)];
    let lists = running.into_iter().chain([new_mean, new_var]).zip(dtypes.iter().skip(1));
    let lists = lists.map(|(list, dtype)| narrowed(&mean.shape, list, *dtype));
    Ok(std::iter::once(narrowed(&x.shape, y, x.dtype())).chain(lists).collect())
}

#[cfg(test)]
mod tests {
    use sartor_ir::{Attr, Attrs};

    use super::*;

    /// The outputs of an operator of ONNX's own.
    fn run(
        name: &str,
        version: i64,
        attributes: Attrs,
        inputs: &[Array],
        n: usize,
    ) -> Vec<Vec<f32>> {
        let op = Named { domain: String::new(), name: name.to_owned(), version, attributes };
        let given: Vec<_> = inputs.iter().map(Some).collect();
        let rule = RULES.iter().find(|it| it.name == name).unwrap();
        let made = (rule.evaluate)(&op, &given, &vec![DType::F32; n]).unwrap();
        made.iter().map(Array::to_f32).collect()
    }

    fn int(name: &str, value: i64) -> Attrs {
        Attrs::new().with(name, Attr::Int(value))
    }

    fn array(shape: &[usize], values: &[f32]) -> Array {
        Array::f32(shape, values.to_vec())
    }

    fn close(found: &[f32], expected: &[f32]) {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(found.len() == expected.len() && near, "{found:?}, not {expected:?}");
    }

    #[test]
    fn groups_are_scaled_as_their_opset_says() {
        // Two groups of two channels of one element, which normalize to -1 and 1.
        let x = array(&[1, 4, 1], &[1.0, 3.0, 10.0, 14.0]);
        let attributes = || int("num_groups", 2).with("epsilon", Attr::Float(0.0));
        let run = |version, parameters: &[f32]| {
            let list = array(&[parameters.len()], parameters);
            run("GroupNormalization", version, attributes(), &[x.clone(), list.clone(), list], 1)
        };
        close(&run(18, &[2.0, 3.0])[0], &[0.0, 4.0, 0.0, 6.0]);
        close(&run(21, &[1.0, 2.0, 3.0, 4.0])[0], &[0.0, 4.0, 0.0, 8.0]);
    }

    #[test]
    fn layers_show_their_moments() {
        let x = array(&[2, 2], &[1.0, 3.0, 4.0, 4.0]);
        let inputs = [x, array(&[2], &[1.0, 2.0])];
        let attributes = Attrs::new().with("epsilon", Attr::Float(0.25));
        let made = run("LayerNormalization", 17, attributes, &inputs, 3);
        let root = 1.0 / 1.25f32.sqrt();
        close(&made[0], &[-root, 2.0 * root, 0.0, 0.0]);
        close(&made[1], &[2.0, 4.0]);
        close(&made[2], &[root, 2.0]);
        let root = run(
            "RMSNormalization",
            23,
            Attrs::new(),
            &[array(&[2], &[3.0, -3.0]), array(&[2], &[1.0, 2.0])],
            1,
        );
        close(&root[0], &[1.0, -2.0]);
    }

    #[test]
    fn neighbours_lengths_and_maxima() {
        let x = array(&[1, 3, 1], &[1.0, 2.0, 3.0]);
        let attributes = int("size", 2)
            .with("alpha", Attr::Float(2.0))
            .with("beta", Attr::Float(1.0))
            .with("bias", Attr::Float(0.0));
        // An even size reaches one channel further behind than before.
        let made = run("LRN", 13, attributes, std::slice::from_ref(&x), 1);
        close(&made[0], &[1.0 / 5.0, 2.0 / 13.0, 3.0 / 9.0]);
        let x = array(&[2, 2], &[3.0, -4.0, 0.0, 0.0]);
        close(
            &run("LpNormalization", 22, int("p", 1), std::slice::from_ref(&x), 1)[0],
            &[3.0 / 7.0, -4.0 / 7.0, 0.0, 0.0],
        );
        close(
            &run("LpNormalization", 22, Attrs::new(), std::slice::from_ref(&x), 1)[0],
            &[0.6, -0.8, 0.0, 0.0],
        );
        close(
            &run("Hardmax", 13, Attrs::new(), std::slice::from_ref(&x), 1)[0],
            &[1.0, 0.0, 1.0, 0.0],
        );
        close(
            &run("Hardmax", 11, int("axis", 0), std::slice::from_ref(&x), 1)[0],
            &[1.0, 0.0, 0.0, 0.0],
        );
        let made = run(
            "MeanVarianceNormalization",
            13,
            Attrs::new().with("axes", Attr::Ints(vec![1])),
            &[x],
            1,
        );
        close(&made[0], &[1.0, -1.0, 0.0, 0.0]);
        let made = run("Softmax", 11, int("axis", 0), &[array(&[2, 2], &[0.0; 4])], 1);
        close(&made[0], &[0.25; 4]);
    }

    #[test]
    fn batches_move_running_statistics() {
        let list = |value: f32| array(&[1], &[value]);
        let inputs = [array(&[2, 1, 1], &[1.0, 5.0]), list(3.0), list(1.0), list(0.0), list(1.0)];
        let attributes =
            || Attrs::new().with("epsilon", Attr::Float(0.0)).with("momentum", Attr::Float(0.75));
        let made = run(
            "BatchNormalization",
            14,
            attributes().with("training_mode", Attr::Int(1)),
            &inputs,
            3,
        );
        close(&made[0], &[-2.0, 4.0]);
        close(&[made[1][0], made[2][0]], &[0.75, 1.75]);
        let older = run("BatchNormalization", 9, attributes(), &inputs, 5);
        close(&[older[3][0], older[4][0]], &[3.0, 4.0]);
        // Parameters by position, with stored statistics.
        let own = |values: &[f32]| array(&[1, 2], values);
        let inputs = [
            array(&[1, 1, 2], &[4.0, 6.0]),
            own(&[1.0, 2.0]),
            own(&[0.0, 1.0]),
            own(&[2.0, 2.0]),
            own(&[1.0, 4.0]),
        ];
        let made =
            run("BatchNormalization", 7, attributes().with("spatial", Attr::Int(0)), &inputs, 1);
        close(&made[0], &[2.0, 5.0]);
    }
}
