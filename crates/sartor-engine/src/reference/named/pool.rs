//! Pooling by norms, and its reversal (<https://onnx.ai/onnx/operators/onnx__LpPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__GlobalLpPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__MaxUnpool.html>).

use sartor_ir::{DType, Named, lp_windows};

use super::{Rule, output_shape};
use crate::{
    Array, Data,
    array::{Element, each},
    reference::{
        conv::{Window, tap_table},
        evaluate::{array, optional, windows},
        layout::strides,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "LpPool", evaluate: lp_pool },
    Rule { domain: "", name: "GlobalLpPool", evaluate: lp_pool },
    Rule { domain: "", name: "MaxUnpool", evaluate: unpool },
];

type Made = Result<Vec<Array>, String>;

/// The windows of a pooling, of one position for `GlobalLpPool`, and its exponent.
pub(crate) fn lp(op: &Named, x: &Array, outputs: &[usize]) -> Result<(Vec<Window>, f64), String> {
    let p = op.int("p", 2)?;
    if p < 1 {
        return Err(format!("attribute `p`: there is no norm of order {p}"));
    }
    let global =
        |&n: &usize| Window { input: n, output: 1, kernel: n, stride: 1, dilation: 1, pad: 0 };
    let axes = match op.name.as_str() {
        "GlobalLpPool" => x.shape[2..].iter().map(global).collect(),
        _ => windows(&lp_windows(op)?.spatial, &[], &x.shape[2..], outputs)?,
    };
    Ok((axes, p as f64))
}

/// `(sum of |x|^p)^(1/p)` under each window.
fn lp_pool(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let x = array(inputs, 0)?;
    let (axes, p) = lp(op, x, &shape[2..])?;
    let product = |of: fn(&Window) -> usize| axes.iter().map(of).product::<usize>();
    let (plane, taps) = (product(|it| it.input), product(|it| it.kernel));
    let (table, values) = (tap_table(&axes), x.to_f64());
    let mut y = Vec::with_capacity(shape.iter().product());
    for x in values.chunks_exact(plane.max(1)) {
        for under in table.chunks_exact(taps.max(1)) {
            let under = under.iter().filter_map(|&it| x.get(it));
            y.push(under.map(|it| it.abs().powf(p)).sum::<f64>().powf(1.0 / p));
        }
    }
    let made = Array { shape, data: Data::F64(y) }.cast(x.dtype());
    Ok(vec![made.ok_or("text has no norm")?])
}

/// The extents of an unpooled tensor, and where in it each element comes to lie; `None` where a smaller
/// output than the natural one has no such place. Indices count in the natural output, which lies at the
/// beginning of a larger one that was asked for.
///
/// # Errors
/// Indices that do not fit.
pub(crate) fn unpooled_places(
    op: &Named,
    inputs: &[Option<&Array>],
) -> Result<(Vec<usize>, Vec<Option<usize>>), String> {
    let (x, indices) = (array(inputs, 0)?, array(inputs, 1)?);
    if x.shape != indices.shape {
        return Err(format!("indices {:?} do not fit input {:?}", indices.shape, x.shape));
    }
    let natural = output_shape(op, &inputs[..2])?;
    let shape = match optional(inputs, 2) {
        Some(_) => output_shape(op, inputs)?,
        None => natural.clone(),
    };
    if shape.len() != natural.len() {
        return Err(format!("output shape {shape:?} does not fit input {:?}", x.shape));
    }
    let (from, to) = (strides(&natural), strides(&shape));
    let count: usize = natural.iter().product();
    let place = |index: i64| {
        let at = usize::try_from(index).ok().filter(|it| *it < count);
        let at = at.ok_or_else(|| format!("index {index} is out of range for {natural:?}"))?;
        let own = |axis: usize| at / from[axis] % natural[axis];
        let inside = (0..shape.len()).all(|axis| own(axis) < shape[axis]);
        let sum = || (0..shape.len()).map(|axis| own(axis) * to[axis]).sum::<usize>();
        Ok(inside.then(sum))
    };
    let places = indices.to_i64().into_iter().map(place).collect::<Result<_, String>>()?;
    Ok((shape, places))
}

fn unpool(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn placed<T: Element>(x: &[T], places: &[Option<usize>], count: usize) -> Vec<T> {
        let mut y = vec![T::default(); count];
        for (&value, place) in x.iter().zip(places) {
            if let Some(at) = place {
                y[*at] = value;
            }
        }
        y
    }
    let (shape, places) = unpooled_places(op, inputs)?;
    let count = shape.iter().product();
    let data = each!(&array(inputs, 0)?.data, values => placed(values, &places, count));
    Ok(vec![Array { shape, data }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn norms_and_unpooling() {
        let x = Array::f32(&[1, 1, 4], vec![3.0, -4.0, 1.0, 0.0]);
        let window = Attrs::new()
            .with("kernel_shape", Attr::Ints(vec![2]))
            .with("strides", Attr::Ints(vec![2]));
        let y = run(&named("LpPool", window.clone()), &[&x]);
        assert_eq!(y[0], Array::f32(&[1, 1, 2], vec![5.0, 1.0]));
        let y = run(&named("GlobalLpPool", Attrs::new().with("p", Attr::Int(1))), &[&x]);
        assert_eq!(y[0], Array::f32(&[1, 1, 1], vec![8.0]));
        let y = Array::f32(&[1, 1, 2], vec![7.0, 9.0]);
        let at = Array { shape: vec![1, 1, 2], data: Data::I64(vec![1, 2]) };
        let back = run(&named("MaxUnpool", window), &[&y, &at]);
        assert_eq!(back[0], Array::f32(&[1, 1, 4], vec![0.0, 7.0, 9.0, 0.0]));
    }
}
