//! ONNX Runtime's operators on quantized tensors that round in an order of its own
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>).

use sartor_ir::{Binary, DType, Named, Op, catalog::qlinear_pool};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        conv::tap_table,
        evaluate::{array, optional},
        layout::View,
        output_shape,
        pool::average_counts,
        quantize::limits,
        windows,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "com.microsoft", name: "QLinearAdd", evaluate: add },
    Rule { domain: "com.microsoft", name: "QLinearAveragePool", evaluate: average_pool },
];

type Made = Result<Vec<Array>, String>;

/// The scale at `at` and the zero point behind it.
fn parameters(inputs: &[Option<&Array>], at: usize) -> Result<(f32, f32), String> {
    let one = |i: usize| match array(inputs, i)?.to_f32()[..] {
        [it] => Ok(it),
        ref other => Err(format!("input {i} has {} elements, expected 1", other.len())),
    };
    let zero = if optional(inputs, at + 1).is_some() { one(at + 1)? } else { 0.0 };
    Ok((one(at)?, zero))
}

/// The integers nearest to `values`, ties to even, limited to the type.
fn rounded(values: impl Iterator<Item = f32>, dtype: DType) -> Result<Data, String> {
    let (low, high) = limits(dtype).ok_or_else(|| format!("{dtype} is no quantized type"))?;
    let one = |it: f32| it.max(low as f32).min(high as f32).round_ties_even() as i64;
    Ok(Data::from_integers(values.map(one).collect(), dtype))
}

/// `saturate(round_half_even(a m + (b n + c)))` with `m` and `n` the operands' scales over that of the
/// result, `c = zero - (m zero + n zero)`, and each product with its sum rounded once to `f32`.
fn add(_: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (a, b) = (array(inputs, 0)?, array(inputs, 3)?);
    let ((a_scale, a_zero), (b_scale, b_zero)) = (parameters(inputs, 1)?, parameters(inputs, 4)?);
    let (scale, zero) = parameters(inputs, 6)?;
    let (m, n) = (a_scale / scale, b_scale / scale);
    let c = zero - (m * a_zero + n * b_zero);
    let shape = output_shape(&Op::Binary(Binary::Add), &[Some(a), Some(b)])?;
    let wide = |it: &Array| {
        let view = View::expand(&it.shape, &shape);
        view.map(|view| view.read(&it.to_f32()))
            .ok_or_else(|| format!("{:?} does not broadcast to {shape:?}", it.shape))
    };
    let (x, y) = (wide(a)?, wide(b)?);
    let sums = x.iter().zip(&y).map(|(&a, &b)| a.mul_add(m, b.mul_add(n, c)));
    let data = rounded(sums, a.dtype())?;
    Ok(vec![Array { shape, data }])
}

/// `mean / scale + zero point` of the mean of dequantized elements, summed in `f32` one after another.
fn mean(x: impl Iterator<Item = f32>, count: usize, [from, to]: [(f32, f32); 2]) -> f32 {
    let sum = x.fold(0.0, |sum, it| sum + (it - from.1) * from.0);
    sum / count as f32 / to.0 + to.1
}

/// `round_half_even(sum m) + zero point` of the exact sum of centred elements, with `m = scale / (scale n)`.
fn exact_mean(x: impl Iterator<Item = f32>, count: usize, [from, to]: [(f32, f32); 2]) -> f32 {
    let sum: f64 = x.map(|it| f64::from(it - from.1)).sum();
    (sum as f32 * (from.0 / (to.0 * count as f32))).round_ties_even() + to.1
}

/// Means of windows, rounded and limited. A window that is the whole image is computed as
/// `QLinearGlobalAveragePool` computes it.
fn average_pool(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (pool, last) = qlinear_pool(op)?;
    let x = array(inputs, 0)?;
    let rank = x.shape.len();
    let shape = output_shape(&Op::Named(op.clone()), inputs)?;
    let turned = |shape: &[usize]| -> Vec<usize> {
        let mut shape = shape.to_vec();
        if last {
            shape[1..].rotate_right(1);
        }
        shape
    };
    let (from, to) = (turned(&x.shape), turned(&shape));
    let to_first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let to_last: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    let mut numbers = x.to_f32();
    if last {
        numbers = View::transpose(&x.shape, &to_first).read(&numbers);
    }
    let axes = windows(&pool.spatial, &[], &from[2..], &to[2..])?;
    let rows = pool.spatial.geometry(&[], &from[2..])?;
    let padded: Vec<_> = rows.iter().zip(&from[2..]).map(|(row, &n)| row[3] + n + row[4]).collect();
    let counts = average_counts(&axes, pool.count_include_pad.then_some(padded.as_slice()));
    let table = tap_table(&axes);
    let taps = table.len().checked_div(counts.len()).unwrap_or(0);
    let plane: usize = from[2..].iter().product();
    let scales = [parameters(inputs, 1)?, parameters(inputs, 3)?];
    let whole =
        axes.iter().all(|it| it.kernel == it.input && it.output == 1) && padded == from[2..];
    let mut means = Vec::with_capacity(to.iter().product());
    for x in numbers.chunks_exact(plane.max(1)) {
        for (at, &count) in counts.iter().enumerate() {
            let under = table[at * taps..][..taps].iter().filter_map(|&it| x.get(it)).copied();
            means.push(if whole {
                exact_mean(under, count, scales)
            } else {
                mean(under, count, scales)
            });
        }
    }
    if last {
        means = View::transpose(&to, &to_last).read(&means);
    }
    let data = rounded(means.into_iter(), x.dtype())?;
    Ok(vec![Array { shape, data }])
}
