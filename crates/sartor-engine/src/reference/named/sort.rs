//! Order and extremes along an axis (<https://onnx.ai/onnx/operators/onnx__TopK.html>,
//! <https://onnx.ai/onnx/operators/onnx__ArgMax.html>, <https://onnx.ai/onnx/operators/onnx__Unique.html>).

use std::cmp::Ordering;

use sartor_ir::{DType, Named, normalize_axis};

use super::{Lanes, Rule, scalar};
use crate::{
    Array, Data,
    array::{Element, on_each},
    reference::{
        elementwise::Number,
        evaluate::{array, by_number, values},
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "TopK", evaluate: top },
    Rule { domain: "", name: "ArgMax", evaluate: arg },
    Rule { domain: "", name: "ArgMin", evaluate: arg },
    Rule { domain: "", name: "Unique", evaluate: unique },
];

type Made = Result<Vec<Array>, String>;

/// NaN above everything, as numpy sorts.
fn order<T: Number>(a: T, b: T) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Equal elements come in the order of their indices.
fn top(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn chosen<T: Number>(
        inputs: &[Option<&Array>],
        lanes: Lanes,
        k: usize,
        largest: bool,
    ) -> Result<(Data, Vec<i64>), String> {
        let x = values::<T>(inputs, 0)?;
        let mut picks = vec![0i64; lanes.outer * k * lanes.inner];
        let mut found = vec![T::default(); picks.len()];
        for (lane, first) in lanes.starts().enumerate() {
            let at = |i: usize| x[first + i * lanes.inner];
            let mut all: Vec<usize> = (0..lanes.extent).collect();
            let better = |a: &usize, b: &usize| {
                let by = order(at(*a), at(*b));
                (if largest { by.reverse() } else { by }).then(a.cmp(b))
            };
            if k > 0 && k < all.len() {
                all.select_nth_unstable_by(k - 1, better);
            }
            all.truncate(k);
            all.sort_unstable_by(better);
            let start = lane / lanes.inner * k * lanes.inner + lane % lanes.inner;
            for (rank, &i) in all.iter().enumerate() {
                picks[start + rank * lanes.inner] = i as i64;
                found[start + rank * lanes.inner] = at(i);
            }
        }
        Ok((T::wrap(found), picks))
    }
    let x = array(inputs, 0)?;
    let axis = normalize_axis(op.int("axis", -1)?, x.shape.len())?;
    let k = if op.version < 10 { op.int("k", -1)? } else { scalar(inputs, 1)? };
    let k = usize::try_from(k).ok().filter(|it| *it <= x.shape[axis]);
    let k = k.ok_or_else(|| format!("so many of {} elements are not there", x.shape[axis]))?;
    let largest = op.flag("largest", true)?;
    let lanes = Lanes::new(&x.shape, axis);
    let (data, picks) = by_number!(x, chosen(inputs, lanes, k, largest))?;
    let mut shape = x.shape.clone();
    shape[axis] = k;
    let indices = Array { shape: shape.clone(), data: Data::I64(picks) };
    Ok(vec![Array { shape, data }, indices])
}

fn arg(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn extremes<T: Number>(
        inputs: &[Option<&Array>],
        lanes: Lanes,
        (largest, last): (bool, bool),
    ) -> Result<Vec<i64>, String> {
        let x = values::<T>(inputs, 0)?;
        let one = |first: usize| {
            let mut best = 0;
            for i in 1..lanes.extent {
                let by = order(x[first + i * lanes.inner], x[first + best * lanes.inner]);
                let better = if largest { Ordering::Greater } else { Ordering::Less };
                if by == better || last && by == Ordering::Equal {
                    best = i;
                }
            }
            best as i64
        };
        Ok(lanes.starts().map(one).collect())
    }
    let x = array(inputs, 0)?;
    let axis = normalize_axis(op.int("axis", 0)?, x.shape.len())?;
    if x.shape[axis] == 0 {
        return Err("an axis without elements has no extreme".to_owned());
    }
    let mode = (op.name == "ArgMax", op.flag("select_last_index", false)?);
    let picks = by_number!(x, extremes(inputs, Lanes::new(&x.shape, axis), mode))?;
    let mut shape = x.shape.clone();
    if op.flag("keepdims", true)? {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    Ok(vec![Array { shape, data: Data::I64(picks) }])
}

/// Slabs along an axis that are equal.
struct Classes {
    /// First slab of each class.
    first: Vec<usize>,
    /// The class of each slab.
    of: Vec<usize>,
    counts: Vec<i64>,
}

/// The classes of `n` slabs: sorted, or by first appearance.
fn classes(n: usize, order: impl Fn(usize, usize) -> Ordering, sorted: bool) -> Classes {
    let mut all: Vec<usize> = (0..n).collect();
    all.sort_by(|&a, &b| order(a, b).then(a.cmp(&b)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in all {
        match groups.last_mut() {
            Some(group) if order(group[0], i) == Ordering::Equal => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if !sorted {
        groups.sort_by_key(|it| it[0]);
    }
    let mut of = vec![0; n];
    for (class, group) in groups.iter().enumerate() {
        for &i in group {
            of[i] = class;
        }
    }
    Classes {
        first: groups.iter().map(|it| it[0]).collect(),
        counts: groups.iter().map(|it| it.len() as i64).collect(),
        of,
    }
}

fn unique(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    fn compared<T: Element + PartialOrd>(x: &[T], lanes: Lanes, a: usize, b: usize) -> Ordering {
        for o in 0..lanes.outer {
            for i in 0..lanes.inner {
                let at = |slab: usize| x[(o * lanes.extent + slab) * lanes.inner + i];
                // What is not ordered is NaN: the same for this purpose.
                match at(a).partial_cmp(&at(b)) {
                    Some(Ordering::Equal) => {}
                    Some(other) => return other,
                    None => {
                        let nan = |it: T| it.partial_cmp(&it).is_none();
                        let by = nan(at(a)).cmp(&nan(at(b)));
                        if by != Ordering::Equal {
                            return by;
                        }
                    }
                }
            }
        }
        Ordering::Equal
    }
    let x = array(inputs, 0)?;
    let sorted = op.flag("sorted", true)?;
    let (lanes, axis) = if op.attributes.get("axis").is_some() {
        let axis = normalize_axis(op.int("axis", 0)?, x.shape.len())?;
        (Lanes::new(&x.shape, axis), Some(axis))
    } else {
        (Lanes { outer: 1, extent: x.len(), inner: 1 }, None)
    };
    let classes = on_each!(&x.data, values => {
        classes(lanes.extent, |a, b| compared(values, lanes, a, b), sorted)
    });
    let rows = (0..lanes.outer).flat_map(|o| {
        classes.first.iter().map(move |&slab| {
            let start = (o * lanes.extent + slab) * lanes.inner;
            start..start + lanes.inner
        })
    });
    let data = x.data.runs(rows);
    let count = classes.first.len();
    let shape = match axis {
        None => vec![count],
        Some(axis) => [&x.shape[..axis], &[count], &x.shape[axis + 1..]].concat(),
    };
    let list = |it: Vec<i64>| Array { shape: vec![it.len()], data: Data::I64(it) };
    let wide = |it: Vec<usize>| list(it.into_iter().map(|it| it as i64).collect());
    let all = [Array { shape, data }, wide(classes.first), wide(classes.of), list(classes.counts)];
    Ok(all.into_iter().take(dtypes.len()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::{
        evaluate,
        tests::{named, run},
    };
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn the_best() {
        let x = Array::f32(&[2, 4], vec![0., 3., 3., 1., 9., 8., f32::NAN, 2.]);
        let two = Array { shape: vec![1], data: Data::I64(vec![2]) };
        let y = run(&named("TopK", Attrs::new()), &[&x, &two]);
        assert_eq!(y[1].data, Data::I64(vec![1, 2, 2, 0]));
        let small = named("TopK", Attrs::new().with("largest", Attr::Int(0)));
        let y = run(&small, &[&x, &two]);
        assert_eq!(y[0], Array::f32(&[2, 2], vec![0.0, 1.0, 2.0, 8.0]));
        let old = Named { version: 9, ..named("TopK", Attrs::new().with("k", Attr::Int(1))) };
        assert_eq!(run(&old, &[&x])[1].data, Data::I64(vec![1, 2]));
        for (last, expected) in [(0, 1), (1, 2)] {
            let attrs =
                Attrs::new().with("axis", Attr::Int(1)).with("select_last_index", Attr::Int(last));
            let y = run(&named("ArgMax", attrs), &[&x.rows(0..1).unwrap()]);
            assert_eq!(y[0], Array { shape: vec![1, 1], data: Data::I64(vec![expected]) });
        }
    }

    /// From ONNX's page.
    #[test]
    fn each_once() {
        let x = Array { shape: vec![6], data: Data::I32(vec![2, 1, 1, 3, 4, 3]) };
        for (sorted, expected) in [
            (0, [vec![0, 1, 3, 4], vec![0, 1, 1, 2, 3, 2], vec![1, 2, 2, 1]]),
            (1, [vec![1, 0, 3, 4], vec![1, 0, 0, 2, 3, 2], vec![2, 1, 2, 1]]),
        ] {
            let op = named("Unique", Attrs::new().with("sorted", Attr::Int(sorted)));
            let y = evaluate(&op, &[Some(&x)], &[DType::I32; 4]).unwrap();
            for (found, expected) in y[1..].iter().zip(&expected) {
                assert_eq!(found.to_i64(), *expected);
            }
        }
    }
}
