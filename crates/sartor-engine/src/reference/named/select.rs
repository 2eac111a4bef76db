//! Operators that choose, repeat or mark elements, and sums along an axis
//! (<https://onnx.ai/onnx/operators/>).

use sartor_ir::{Binary, DType, Named, normalize_axis};

use super::{Lanes, Rule, blocks::tabled, output_shape, scalar};
use crate::{
    Array, Data,
    array::{Element, each, on_each},
    reference::{
        elementwise::{Float, Number},
        evaluate::{array, by_float, by_number, integers, optional, values},
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "Tile", evaluate: tile },
    Rule { domain: "", name: "OneHot", evaluate: one_hot },
    Rule { domain: "", name: "NonZero", evaluate: non_zero },
    Rule { domain: "", name: "Compress", evaluate: compress },
    Rule { domain: "", name: "ReverseSequence", evaluate: reverse_sequence },
    Rule { domain: "", name: "Trilu", evaluate: trilu },
    Rule { domain: "", name: "EyeLike", evaluate: eye_like },
    Rule { domain: "", name: "CumSum", evaluate: cumulate },
    Rule { domain: "", name: "CumProd", evaluate: cumulate },
    Rule { domain: "", name: "Det", evaluate: determinant },
];

type Made = Result<Vec<Array>, String>;

fn tile(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    output_shape(op, inputs)?;
    let x = array(inputs, 0)?;
    let repeats = integers(inputs, 1).ok_or("the repeats are missing")?;
    if repeats.len() != x.shape.len() {
        return Err(format!("{} repeats for input {:?}", repeats.len(), x.shape));
    }
    let mut tables = Vec::with_capacity(repeats.len());
    for (&n, &by) in x.shape.iter().zip(&repeats) {
        let count = usize::try_from(by).ok().and_then(|by| n.checked_mul(by));
        let count = count.ok_or_else(|| format!("a tensor is not repeated {by} times"))?;
        tables.push((0..count).map(|i| Some(i % n)).collect());
    }
    Ok(vec![tabled(x, &tables)])
}

/// `indices, depth, [off, on]`: an index outside of the depth marks nothing.
fn one_hot(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn marked<T: Element>(values: &[T], lanes: Lanes, picks: &[i64]) -> Result<Vec<T>, String> {
        let &[off, on] = values else { return Err("the values are not two".to_owned()) };
        let mut y = vec![off; lanes.outer * lanes.extent * lanes.inner];
        let depth = lanes.extent as i64;
        for (i, &pick) in picks.iter().enumerate() {
            let pick = if pick < 0 { pick.saturating_add(depth) } else { pick };
            if (0..depth).contains(&pick) {
                let (row, column) = (i / lanes.inner, i % lanes.inner);
                y[(row * lanes.extent + pick as usize) * lanes.inner + column] = on;
            }
        }
        Ok(y)
    }
    let (indices, choices) = (array(inputs, 0)?, array(inputs, 2)?);
    let axis = normalize_axis(op.int("axis", -1)?, indices.shape.len() + 1)?;
    let shape = output_shape(op, inputs)?;
    let lanes = Lanes::new(&shape, axis);
    let picks = indices.to_i64();
    let data = each!(&choices.data, values => marked(values, lanes, &picks)?);
    Ok(vec![Array { shape, data }])
}

/// The positions of all elements that are not the default: 0, or false.
fn others<T: Element>(values: &[T]) -> Vec<usize> {
    values.iter().enumerate().filter(|it| *it.1 != T::default()).map(|it| it.0).collect()
}

/// The places of all elements that are not 0, one column each.
fn non_zero(_: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    let places: Vec<usize> = on_each!(&x.data, values => {
        others(values)
    });
    let rank = x.shape.len();
    let mut rows = vec![0i64; rank * places.len()];
    for (column, &place) in places.iter().enumerate() {
        let mut rest = place;
        for axis in (0..rank).rev() {
            rows[axis * places.len() + column] = (rest % x.shape[axis]) as i64;
            rest /= x.shape[axis];
        }
    }
    Ok(vec![Array { shape: vec![rank, places.len()], data: Data::I64(rows) }])
}

fn compress(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (x, condition) = (array(inputs, 0)?, array(inputs, 1)?);
    let flat = Array { shape: vec![x.len()], data: x.data.clone() };
    let (x, axis) = match op.attributes.get("axis") {
        None => (&flat, 0),
        Some(_) => (x, normalize_axis(op.int("axis", 0)?, x.shape.len())?),
    };
    let chosen: Vec<_> = condition
        .to_i64()
        .into_iter()
        .enumerate()
        .filter(|it| it.1 != 0 && it.0 < x.shape[axis])
        .map(|it| Some(it.0))
        .collect();
    let mut tables: Vec<Vec<_>> = x.shape.iter().map(|&n| (0..n).map(Some).collect()).collect();
    tables[axis] = chosen;
    Ok(vec![tabled(x, &tables)])
}

/// The first `lengths[batch]` steps of each sequence in reverse order.
fn reverse_sequence(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn reversed<T: Copy>(
        x: &[T],
        lengths: &[usize],
        inner: usize,
        at: impl Fn(usize, usize) -> usize,
    ) -> Vec<T> {
        let mut y = x.to_vec();
        for (n, &length) in lengths.iter().enumerate() {
            for t in 0..length {
                let from = at(n, length - 1 - t) * inner;
                let to = at(n, t) * inner;
                y[to..to + inner].copy_from_slice(&x[from..from + inner]);
            }
        }
        y
    }
    let x = array(inputs, 0)?;
    let time_first = match (op.int("batch_axis", 1)?, op.int("time_axis", 0)?) {
        (1, 0) => true,
        (0, 1) => false,
        other => return Err(format!("batch and time axes {other:?} are not 0 and 1")),
    };
    let &[a, b, ..] = x.shape.as_slice() else {
        return Err(format!("input {:?} has no batch and time", x.shape));
    };
    let (steps, batch) = if time_first { (a, b) } else { (b, a) };
    let given = integers(inputs, 1).ok_or("the lengths are missing")?;
    let fits = |it: &i64| usize::try_from(*it).ok().filter(|it| *it <= steps);
    let lengths: Option<Vec<usize>> = given.iter().map(fits).collect();
    let lengths = lengths.filter(|it| it.len() == batch);
    let lengths = lengths.ok_or_else(|| format!("lengths {given:?} do not fit {:?}", x.shape))?;
    let inner = x.shape[2..].iter().product();
    let data = each!(&x.data, values => {
        let at = |n: usize, t: usize| if time_first { t * batch + n } else { n * steps + t };
        reversed(values, &lengths, inner, at)
    });
    Ok(vec![Array { shape: x.shape.clone(), data }])
}

/// The triangle of each matrix on or above (else below) diagonal `k`; zeros elsewhere.
pub(crate) fn triangle<T: Copy + Default>(x: &[T], shape: &[usize], upper: bool, k: i64) -> Vec<T> {
    let (rows, columns) = (shape[shape.len() - 2].max(1), shape[shape.len() - 1].max(1));
    let stays = |i: usize| {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        let above = column.saturating_sub(row);
        if upper { above >= k } else { above <= k }
    };
    x.iter().enumerate().map(|(i, &it)| if stays(i) { it } else { T::default() }).collect()
}

/// Whether the upper triangle stays, and from which diagonal.
pub(crate) fn triangle_of(op: &Named, inputs: &[Option<&Array>]) -> Result<(bool, i64), String> {
    let k = if optional(inputs, 1).is_some() { scalar(inputs, 1)? } else { 0 };
    Ok((op.flag("upper", true)?, k))
}

fn trilu(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    if x.shape.len() < 2 {
        return Err(format!("input {:?} is no matrix", x.shape));
    }
    let (upper, k) = triangle_of(op, inputs)?;
    let data = each!(&x.data, values => triangle(values, &x.shape, upper, k));
    Ok(vec![Array { shape: x.shape.clone(), data }])
}

fn eye_like(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let like = array(inputs, 0)?;
    let &[rows, columns] = like.shape.as_slice() else {
        return Err(format!("input {:?} is no matrix", like.shape));
    };
    let k = op.int("k", 0)?;
    let one = |i: usize| i64::from((i % columns.max(1)) as i64 - (i / columns.max(1)) as i64 == k);
    let dtype = dtypes.first().copied().unwrap_or(like.dtype());
    let data = Data::from_integers((0..rows * columns).map(one).collect(), dtype);
    Ok(vec![Array { shape: vec![rows, columns], data }])
}

/// How `CumSum` and `CumProd` walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) exclusive: bool,
    pub(crate) reverse: bool,
}

impl Walk {
    pub(crate) fn read(op: &Named) -> Result<Self, String> {
        Ok(Walk { exclusive: op.flag("exclusive", false)?, reverse: op.flag("reverse", false)? })
    }
}

/// Sums (or with `Mul` products, from `start`) of what comes before each element along an axis.
pub(crate) fn cumulated<T: Number>(
    x: &[T],
    lanes: Lanes,
    walk: Walk,
    op: Binary,
    start: T,
) -> Vec<T> {
    let mut y = vec![start; x.len()];
    for first in lanes.starts() {
        let mut so_far = start;
        for step in 0..lanes.extent {
            let step = if walk.reverse { lanes.extent - 1 - step } else { step };
            let at = first + step * lanes.inner;
            let next = T::arithmetic(op, so_far, x[at]);
            y[at] = if walk.exclusive { so_far } else { next };
            so_far = next;
        }
    }
    y
}

fn cumulate(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn all<T: Number>(op: &Named, inputs: &[Option<&Array>], lanes: Lanes) -> Result<Data, String> {
        let x = values::<T>(inputs, 0)?;
        let walk = Walk::read(op)?;
        let (by, start) = if op.name == "CumProd" {
            let one = Array::f32(&[1], vec![1.0]).cast(T::wrap(Vec::new()).dtype());
            let one = one.and_then(|it| it.values::<T>()?.first().copied());
            (Binary::Mul, one.unwrap_or_default())
        } else {
            (Binary::Add, T::default())
        };
        Ok(T::wrap(cumulated(x, lanes, walk, by, start)))
    }
    let x = array(inputs, 0)?;
    let lanes = Lanes::new(&x.shape, normalize_axis(scalar(inputs, 1)?, x.shape.len())?);
    let data = by_number!(x, all(op, inputs, lanes))?;
    Ok(vec![Array { shape: x.shape.clone(), data }])
}

/// Gauss's elimination with the largest pivot of each column.
fn determinant(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn of(mut m: Vec<f64>, n: usize) -> f64 {
        let mut product = 1.0;
        for k in 0..n {
            let largest = (k..n).max_by(|&a, &b| m[a * n + k].abs().total_cmp(&m[b * n + k].abs()));
            let pivot = largest.unwrap_or(k);
            if m[pivot * n + k] == 0.0 {
                return 0.0;
            }
            if pivot != k {
                (0..n).for_each(|j| m.swap(pivot * n + j, k * n + j));
                product = -product;
            }
            product *= m[k * n + k];
            for i in k + 1..n {
                let factor = m[i * n + k] / m[k * n + k];
                for j in k..n {
                    m[i * n + j] -= factor * m[k * n + j];
                }
            }
        }
        product
    }
    fn all<T: Float>(inputs: &[Option<&Array>], n: usize, count: usize) -> Result<Data, String> {
        let x = values::<T>(inputs, 0)?;
        let one = |i: usize| {
            let matrix = x[i * n * n..][..n * n].iter().map(|&it| it.into()).collect();
            T::narrow(of(matrix, n))
        };
        Ok(T::wrap((0..count).map(one).collect()))
    }
    let shape = output_shape(op, inputs)?;
    let x = array(inputs, 0)?;
    let n = x.shape.last().copied().unwrap_or(0);
    let data = by_float!(x, all(inputs, n, shape.iter().product()))?;
    Ok(vec![Array { shape, data }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{named, run};
    use sartor_ir::{Attr, Attrs};

    fn line(list: &[i64]) -> Array {
        Array { shape: vec![list.len()], data: Data::I64(list.to_vec()) }
    }

    #[test]
    fn small_ones() {
        let x = Array { shape: vec![2, 2], data: Data::I32(vec![1, 2, 3, 4]) };
        let y = run(&named("Tile", Attrs::new()), &[&x, &line(&[1, 2])]);
        assert_eq!(y[0].data, Data::I32(vec![1, 2, 1, 2, 3, 4, 3, 4]));
        let y = run(&named("Trilu", Attrs::new().with("upper", Attr::Int(0))), &[&x]);
        assert_eq!(y[0].data, Data::I32(vec![1, 0, 3, 4]));
        let values = Array { shape: vec![2], data: Data::I8(vec![0, 5]) };
        let y = run(&named("OneHot", Attrs::new()), &[&line(&[1, -1, 7]), &line(&[3]), &values]);
        assert_eq!(y[0].data, Data::I8(vec![0, 5, 0, 0, 0, 5, 0, 0, 0]));
        let y = run(
            &named("NonZero", Attrs::new()),
            &[&Array { shape: vec![2, 2], data: Data::Bool(vec![true, false, true, true]) }],
        );
        assert_eq!(y[0], Array { shape: vec![2, 3], data: Data::I64(vec![0, 1, 1, 0, 0, 1]) });
        let chosen = Array { shape: vec![2], data: Data::Bool(vec![false, true]) };
        let y = run(&named("Compress", Attrs::new().with("axis", Attr::Int(1))), &[&x, &chosen]);
        assert_eq!(y[0], Array { shape: vec![2, 1], data: Data::I32(vec![2, 4]) });
        let y = run(&named("ReverseSequence", Attrs::new()), &[&x, &line(&[1, 2])]);
        assert_eq!(y[0].data, Data::I32(vec![1, 4, 3, 2]));
        let m = Array::f32(&[2, 2], vec![0.0, 2.0, 3.0, 4.0]);
        assert_eq!(run(&named("Det", Attrs::new()), &[&m])[0].to_f32(), [-6.0]);
    }

    #[test]
    fn sums_on_the_way() {
        let x = line(&[1, 2, 3]);
        let axis = Array::scalar(Data::I64(vec![0]));
        for (exclusive, reverse, sums, products) in [
            (0, 0, [1, 3, 6], [1, 2, 6]),
            (1, 0, [0, 1, 3], [1, 1, 2]),
            (0, 1, [6, 5, 3], [6, 6, 3]),
            (1, 1, [5, 3, 0], [6, 3, 1]),
        ] {
            let attrs = Attrs::new()
                .with("exclusive", Attr::Int(exclusive))
                .with("reverse", Attr::Int(reverse));
            let y = run(&named("CumSum", attrs.clone()), &[&x, &axis]);
            assert_eq!(y[0], line(&sums));
            let y = run(&named("CumProd", attrs), &[&x, &axis]);
            assert_eq!(y[0], line(&products));
        }
    }
}
