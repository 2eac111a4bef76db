//! Operators that move elements, for arrays of every type.

use sartor_ir::{Op, Pad, PadMode, normalize_axis, slice_bounds};

use super::{View, array, integers, optional, output_shape};
use crate::{
    Array, Data,
    array::{Element, each},
    reference::{cast::cast, layout},
};

pub(super) fn evaluate(
    op: &Op,
    inputs: &[Option<&Array>],
    wanted: usize,
) -> Result<Vec<Array>, String> {
    let one = match op {
        Op::Identity => Ok(array(inputs, 0)?.clone()),
        Op::Dropout => {
            let x = array(inputs, 0)?;
            let mask = Array { shape: x.shape.clone(), data: Data::Bool(vec![true; x.len()]) };
            return Ok([x.clone(), mask].into_iter().take(wanted).collect());
        }
        Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze | Op::Unsqueeze => {
            let shape = output_shape(op, inputs)?;
            array(inputs, 0)?
                .clone()
                .reshaped(shape)
                .ok_or_else(|| "the element counts differ".to_owned())
        }
        Op::Transpose(it) => {
            let x = array(inputs, 0)?;
            Ok(viewed(x, &View::transpose(&x.shape, &it.resolve(x.shape.len())?)))
        }
        Op::Slice => {
            let x = array(inputs, 0)?;
            Ok(viewed(x, &View::slice(&x.shape, &slice_windows(&x.shape, inputs)?)))
        }
        Op::Split(it) => return split(it.axis, inputs, wanted),
        Op::Concat(it) => concat(it.axis, inputs),
        Op::Pad(it) => pad(it, inputs),
        Op::Expand => {
            let (x, shape) = (array(inputs, 0)?, output_shape(op, inputs)?);
            View::expand(&x.shape, &shape)
                .map(|it| viewed(x, &it))
                .ok_or_else(|| "does not broadcast".to_owned())
        }
        Op::Gather(it) => gather(it.axis, array(inputs, 0)?, array(inputs, 1)?),
        Op::Shape(it) => {
            let x = array(inputs, 0)?;
            let dims: Vec<i64> =
                x.shape[it.range(x.shape.len())].iter().map(|&it| it as i64).collect();
            Ok(Array { shape: vec![dims.len()], data: Data::I64(dims) })
        }
        Op::Size => Ok(Array::scalar(Data::I64(vec![array(inputs, 0)?.len() as i64]))),
        Op::ConstantOfShape(it) => {
            let fill = Array::from_tensor(&it.value)
                .ok_or("the value is of a type that the engine does not run")?;
            let shape = sizes(&array(inputs, 0)?.to_i64())?;
            let fill = fill.reshaped(Vec::new()).ok_or("the value has more than one element")?;
            View::expand(&[], &shape)
                .map(|it| viewed(&fill, &it))
                .ok_or_else(|| "is no shape".to_owned())
        }
        Op::Range => range(inputs),
        _ => Err(format!("{} has no kernel", op.name())),
    };
    one.map(|it| vec![it])
}

fn viewed(x: &Array, view: &View) -> Array {
    Array { shape: view.shape.clone(), data: each!(&x.data, values => view.read(values)) }
}

fn sizes(list: &[i64]) -> Result<Vec<usize>, String> {
    list.iter().map(|&it| usize::try_from(it).map_err(|_| format!("{it} is no extent"))).collect()
}

/// First index, step and count of each axis of a `Slice`.
pub(crate) fn slice_windows(
    shape: &[usize],
    inputs: &[Option<&Array>],
) -> Result<Vec<(usize, isize, usize)>, String> {
    let list = |i: usize| integers(inputs, i).ok_or_else(|| format!("input {i} is missing"));
    let (starts, ends) = (list(1)?, list(2)?);
    let axes = integers(inputs, 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = integers(inputs, 4).unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || steps.contains(&0) {
        return Err("starts, ends, axes and steps differ in length, or a step is 0".to_owned());
    }
    let mut windows: Vec<_> = shape.iter().map(|&n| (0, 1, n)).collect();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = normalize_axis(axis, shape.len())?;
        windows[axis] = slice_bounds(shape[axis], starts[i], ends[i], steps[i]);
    }
    Ok(windows)
}

fn split(axis: i64, inputs: &[Option<&Array>], wanted: usize) -> Result<Vec<Array>, String> {
    let x = array(inputs, 0)?;
    let axis = normalize_axis(axis, x.shape.len())?;
    let n = x.shape[axis];
    let parts = if let Some(parts) = integers(inputs, 1) {
        sizes(&parts)?
    } else {
        let part = n.div_ceil(wanted.max(1));
        (0..wanted).map(|i| part.min(n.saturating_sub(i * part))).collect()
    };
    if parts.iter().sum::<usize>() != n || parts.len() != wanted {
        return Err(format!("parts {parts:?} do not make up {n}"));
    }
    let mut start = 0;
    let mut made = Vec::with_capacity(wanted);
    for count in parts {
        let mut windows: Vec<_> = x.shape.iter().map(|&n| (0, 1, n)).collect();
        windows[axis] = (start, 1, count);
        made.push(viewed(x, &View::slice(&x.shape, &windows)));
        start += count;
    }
    Ok(made)
}

/// The parts one after another along `axis`; all are of the type of `_first`.
fn joined<T: Element>(
    _first: &[T],
    parts: &[&Array],
    axis: usize,
    outer: usize,
    total: usize,
) -> Vec<T> {
    let mut y = vec![T::default(); total];
    let runs =
        parts.iter().filter_map(|it| Some((it.values()?, it.shape[axis..].iter().product())));
    layout::concat(&runs.collect::<Vec<_>>(), outer, &mut y);
    y
}

fn concat(axis: i64, inputs: &[Option<&Array>]) -> Result<Array, String> {
    let parts: Vec<&Array> = inputs.iter().flatten().copied().collect();
    let first = array(inputs, 0)?;
    let axis = normalize_axis(axis, first.shape.len())?;
    let outer: usize = first.shape[..axis].iter().product();
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for part in &parts {
        let fits = part.shape.len() == shape.len() && part.dtype() == first.dtype();
        let others = |it: &Array| {
            it.shape.iter().enumerate().all(|(i, n)| i == axis || first.shape[i] == *n)
        };
        if !fits || !others(part) {
            return Err("the parts differ in type or in an extent off the axis".to_owned());
        }
        shape[axis] += part.shape[axis];
    }
    let total = shape.iter().product();
    let data = each!(&first.data, values => joined(values, &parts, axis, outer, total));
    Ok(Array { shape, data })
}

/// For each result index of each axis the source index, `None` in the constant padding.
pub(crate) fn pad_tables(
    it: &Pad,
    shape: &[usize],
    inputs: &[Option<&Array>],
) -> Result<Vec<Vec<Option<usize>>>, String> {
    let pads = integers(inputs, 1).ok_or("the pads are missing")?;
    let axes = integers(inputs, 3).unwrap_or_else(|| (0..shape.len() as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let mut amounts = vec![(0, 0); shape.len()];
    for (i, &axis) in axes.iter().enumerate() {
        amounts[normalize_axis(axis, shape.len())?] = (pads[i], pads[axes.len() + i]);
    }
    let source = |at: i64, n: i64| match it.mode {
        PadMode::Constant => (0..n).contains(&at).then_some(at),
        PadMode::Edge => (n > 0).then(|| at.clamp(0, n - 1)),
        PadMode::Wrap => at.checked_rem_euclid(n),
        PadMode::Reflect if n == 1 => Some(0),
        PadMode::Reflect => at.checked_rem_euclid(2 * n - 2).map(|it| it.min(2 * n - 2 - it)),
    };
    let table = |(&n, &(before, after)): (&usize, &(i64, i64))| {
        let n = n as i64;
        (-before..n + after).map(|at| source(at, n).map(|it| it as usize)).collect()
    };
    Ok(shape.iter().zip(&amounts).map(table).collect())
}

fn pad(it: &Pad, inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn all<T: Element>(
        x: &[T],
        shape: &[usize],
        tables: &[Vec<Option<usize>>],
        fill: Option<&Array>,
    ) -> Result<Vec<T>, String> {
        let fill = match fill.map(|it| it.values::<T>()) {
            None => T::default(),
            Some(Some(fill)) => *fill.first().ok_or("the fill value is empty")?,
            Some(None) => return Err("the fill value has another type than the input".to_owned()),
        };
        let mut y = vec![fill; tables.iter().map(Vec::len).product()];
        layout::pad(x, shape, tables, fill, &mut y);
        Ok(y)
    }
    let x = array(inputs, 0)?;
    let tables = pad_tables(it, &x.shape, inputs)?;
    let shape = tables.iter().map(Vec::len).collect();
    let data = each!(&x.data, values => all(values, &x.shape, &tables, optional(inputs, 2))?);
    Ok(Array { shape, data })
}

fn gather(axis: i64, x: &Array, indices: &Array) -> Result<Array, String> {
    let axis = normalize_axis(axis, x.shape.len())?;
    let extent = x.shape[axis];
    let picks = indices
        .to_i64()
        .iter()
        .map(|&it| normalize_axis(it, extent))
        .collect::<Result<Vec<_>, _>>();
    let picks = picks.map_err(|_| format!("an index lies outside an axis of {extent}"))?;
    let inner: usize = x.shape[axis + 1..].iter().product();
    let shape = [&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat();
    let total = shape.iter().product();
    let data = each!(&x.data, values => {
        let mut y = values.first().map_or_else(Vec::new, |&it| vec![it; total]);
        if !y.is_empty() {
            layout::gather(values, extent, inner, &picks, &mut y);
        }
        y
    });
    Ok(Array { shape, data })
}

/// A longer row is an error of the model, not data.
const LONGEST: i64 = 1 << 28;

/// `start, start + delta, …` below (or above) the limit.
fn range(inputs: &[Option<&Array>]) -> Result<Array, String> {
    let x = array(inputs, 0)?;
    let too_long =
        |count: i64| format!("a range of {count} numbers with this step is not sensible");
    if x.dtype().is_float() {
        let number = |i| {
            array(inputs, i)
                .and_then(|it| it.to_f64().first().copied().ok_or("is empty".to_owned()))
        };
        let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
        let count = ((limit - start) / delta).ceil().max(0.0) as i64;
        if delta == 0.0 || count > LONGEST {
            return Err(too_long(count));
        }
        let values: Vec<f64> = (0..count).map(|i| start + i as f64 * delta).collect();
        let wide = Array { shape: vec![values.len()], data: Data::F64(values) };
        return Ok(cast(&wide, x.dtype(), true));
    }
    let number = |i| {
        array(inputs, i).and_then(|it| it.to_i64().first().copied().ok_or("is empty".to_owned()))
    };
    let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
    let span = i128::from(limit) - i128::from(start);
    let whole = if delta == 0 {
        i128::MAX
    } else {
        (span + i128::from(delta) - i128::from(delta.signum())) / i128::from(delta)
    };
    let count = whole.clamp(0, i128::from(i64::MAX)) as i64;
    if count > LONGEST {
        return Err(too_long(count));
    }
    let values: Vec<i64> = (0..count).map(|i| start + i * delta).collect();
    Ok(Array { shape: vec![values.len()], data: Data::from_integers(values, x.dtype()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(values: &[i64]) -> Array {
        Array { shape: vec![values.len()], data: Data::I64(values.to_vec()) }
    }

    #[test]
    fn pads_of_every_mode() {
        let (x, pads) = (vector(&[1, 2, 3]), vector(&[2, 1]));
        for (mode, expected) in [
            (PadMode::Constant, [0, 0, 1, 2, 3, 0]),
            (PadMode::Edge, [1, 1, 1, 2, 3, 3]),
            (PadMode::Reflect, [3, 2, 1, 2, 3, 2]),
            (PadMode::Wrap, [2, 3, 1, 2, 3, 1]),
        ] {
            let y = pad(&Pad { mode }, &[Some(&x), Some(&pads)]).unwrap();
            assert_eq!(y, vector(&expected), "{mode:?}");
        }
        let cut =
            pad(&Pad { mode: PadMode::Constant }, &[Some(&x), Some(&vector(&[-1, 0]))]).unwrap();
        assert_eq!(cut, vector(&[2, 3]));
    }

    #[test]
    fn ranges() {
        let scalar = |it: i64| Array::scalar(Data::I64(vec![it]));
        for (start, limit, delta, expected) in [
            (3, 9, 3, vec![3, 6]),
            (10, 4, -2, vec![10, 8, 6]),
            (0, 5, 2, vec![0, 2, 4]),
            (1, 1, 1, vec![]),
        ] {
            let given = [scalar(start), scalar(limit), scalar(delta)];
            let borrowed: Vec<_> = given.iter().map(Some).collect();
            assert_eq!(range(&borrowed).unwrap(), vector(&expected), "{start}..{limit} by {delta}");
        }
        let endless = [scalar(0), scalar(5), scalar(0)];
        assert!(range(&endless.iter().map(Some).collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn gather_counts_from_the_end() {
        let y = gather(0, &vector(&[5, 6, 7]), &vector(&[-1, 0])).unwrap();
        assert_eq!(y, vector(&[7, 5]));
        assert!(gather(0, &vector(&[5]), &vector(&[1])).is_err());
    }
}
