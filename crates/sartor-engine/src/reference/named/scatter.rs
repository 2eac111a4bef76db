//! Picking and placing by indices (<https://onnx.ai/onnx/operators/onnx__GatherElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherND.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html>,
//! <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>).
//!
//! Each of them is a list of places in one tensor, run for run, that go with the runs of another.

use sartor_ir::{Binary, DType, Named, normalize_axis};

use super::{Rule, output_shape};
use crate::{
    Array, Data,
    array::{Element, each},
    reference::{
        elementwise::{self, Number},
        evaluate::{array, by_number, integers, values},
        layout::strides,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "GatherElements", evaluate: gather },
    Rule { domain: "", name: "GatherND", evaluate: gather },
    Rule { domain: "", name: "Scatter", evaluate: scatter },
    Rule { domain: "", name: "ScatterElements", evaluate: scatter },
    Rule { domain: "", name: "ScatterND", evaluate: scatter },
    Rule { domain: "", name: "TensorScatter", evaluate: tensor_scatter },
];

type Made = Result<Vec<Array>, String>;

/// Where runs of equal length begin in a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) run: usize,
    pub(crate) starts: Vec<usize>,
}

/// The places that a gathering or scattering operator's indices (input 1) name in its input 0.
pub(crate) fn places(op: &Named, inputs: &[Option<&Array>]) -> Result<Places, String> {
    let (x, indices) = (array(inputs, 0)?, array(inputs, 1)?);
    match op.name.as_str() {
        "GatherND" => {
            let batch = usize::try_from(op.int("batch_dims", 0)?).unwrap_or(usize::MAX);
            slices(&x.shape, indices, batch)
        }
        "ScatterND" => slices(&x.shape, indices, 0),
        _ => elements(&x.shape, indices, op.int("axis", 0)?),
    }
}

/// Element by element: the index replaces the place along `axis`.
fn elements(shape: &[usize], indices: &Array, axis: i64) -> Result<Places, String> {
    let axis = normalize_axis(axis, shape.len())?;
    let fits = indices.shape.len() == shape.len()
        && (0..shape.len()).all(|it| it == axis || indices.shape[it] <= shape[it]);
    if !fits {
        return Err(format!("indices {:?} do not fit input {shape:?}", indices.shape));
    }
    let steps = strides(shape);
    let mut starts = Vec::with_capacity(indices.len());
    for (i, index) in indices.to_i64().into_iter().enumerate() {
        let (mut rest, mut at) = (i, 0);
        for own in (0..shape.len()).rev() {
            let place = rest % indices.shape[own];
            rest /= indices.shape[own];
            at += steps[own] * if own == axis { normalize_axis(index, shape[own])? } else { place };
        }
        starts.push(at);
    }
    Ok(Places { run: 1, starts })
}

/// Slice by slice: the last axis of the indices names leading axes, after `batch` common ones.
fn slices(shape: &[usize], indices: &Array, batch: usize) -> Result<Places, String> {
    let wrong = || {
        format!("indices {:?} with {batch} common axes do not fit input {shape:?}", indices.shape)
    };
    let (&depth, lead) = indices.shape.split_last().ok_or_else(wrong)?;
    let named = batch.saturating_add(depth);
    if batch > lead.len() || named > shape.len() || lead[..batch] != shape[..batch] {
        return Err(wrong());
    }
    let steps = strides(shape);
    let groups: usize = lead[..batch].iter().product();
    let rows: usize = lead[batch..].iter().product();
    let block: usize = shape[batch..].iter().product();
    let numbers = indices.to_i64();
    let mut starts = Vec::with_capacity(groups * rows);
    for i in 0..groups * rows {
        let mut at = i / rows * block;
        for (own, &index) in numbers[i * depth..][..depth].iter().enumerate() {
            at += normalize_axis(index, shape[batch + own])? * steps[batch + own];
        }
        starts.push(at);
    }
    Ok(Places { run: shape[named..].iter().product(), starts })
}

fn gather(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (shape, at) = (output_shape(op, inputs)?, places(op, inputs)?);
    let x = array(inputs, 0)?;
    let data = x.data.runs(at.starts.iter().map(|&it| it..it + at.run));
    Ok(vec![Array { shape, data }])
}

/// What becomes of an element on which another is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

impl Reduction {
    pub(crate) fn read(op: &Named) -> Result<Self, String> {
        Ok(match op.text("reduction", "none")? {
            "none" => Reduction::None,
            "add" => Reduction::Add,
            "mul" => Reduction::Mul,
            "max" => Reduction::Max,
            "min" => Reduction::Min,
            other => return Err(format!("attribute `reduction`: `{other}` is not known")),
        })
    }

    fn apply<T: Number>(self, old: T, new: T) -> T {
        match self {
            Reduction::None => new,
            Reduction::Add => T::arithmetic(Binary::Add, old, new),
            Reduction::Mul => T::arithmetic(Binary::Mul, old, new),
            Reduction::Max => elementwise::larger(old, new),
            Reduction::Min => elementwise::smaller(old, new),
        }
    }
}

/// Placed one after the other, so that the last of several stays.
fn placed<T: Copy>(x: &[T], updates: &[T], at: &Places, f: impl Fn(T, T) -> T) -> Vec<T> {
    let mut y = x.to_vec();
    for (&start, updates) in at.starts.iter().zip(updates.chunks_exact(at.run.max(1))) {
        for (y, &new) in y[start..][..at.run].iter_mut().zip(updates) {
            *y = f(*y, new);
        }
    }
    y
}

fn scatter(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn reduced<T: Number>(
        inputs: &[Option<&Array>],
        at: &Places,
        by: Reduction,
    ) -> Result<Data, String> {
        let (x, updates) = (values::<T>(inputs, 0)?, values::<T>(inputs, 2)?);
        Ok(T::wrap(placed(x, updates, at, |old, new| by.apply(old, new))))
    }
    fn replaced<T: Element>(
        x: &[T],
        inputs: &[Option<&Array>],
        at: &Places,
    ) -> Result<Data, String> {
        Ok(T::wrap(placed(x, values::<T>(inputs, 2)?, at, |_, new| new)))
    }
    let (x, updates) = (array(inputs, 0)?, array(inputs, 2)?);
    let at = places(op, inputs)?;
    if updates.len() != at.starts.len() * at.run {
        return Err(format!("updates {:?} do not fit the indices", updates.shape));
    }
    let by = Reduction::read(op)?;
    let data = if by == Reduction::None {
        crate::array::on_each!(&x.data, values => replaced(values, inputs, &at)?)
    } else if x.dtype() == DType::Bool {
        return Err("truth values are not reduced".to_owned());
    } else {
        by_number!(x, reduced(inputs, &at, by))?
    };
    Ok(vec![Array { shape: x.shape.clone(), data }])
}

/// `past, update, write indices?`: the update is written along `axis`, from another place for each sample.
fn tensor_scatter(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn written<T: Element>(
        x: &[T],
        inputs: &[Option<&Array>],
        at: &Places,
    ) -> Result<Vec<T>, String> {
        Ok(placed(x, values::<T>(inputs, 1)?, at, |_, new| new))
    }
    let (past, update) = (array(inputs, 0)?, array(inputs, 1)?);
    let axis = normalize_axis(op.int("axis", -2)?, past.shape.len())?;
    let circular = match op.text("mode", "linear")? {
        "linear" => false,
        "circular" => true,
        other => return Err(format!("attribute `mode`: `{other}` is not known")),
    };
    let same = |it: usize| it == axis || past.shape.get(it) == update.shape.get(it);
    if axis == 0 || update.shape.len() != past.shape.len() || !(0..past.shape.len()).all(same) {
        return Err(format!("update {:?} does not fit cache {:?}", update.shape, past.shape));
    }
    let begins = integers(inputs, 2).unwrap_or_else(|| vec![0; past.shape[0]]);
    let (longest, length) = (past.shape[axis], update.shape[axis]);
    let run: usize = past.shape[axis + 1..].iter().product();
    let prefixes: usize = past.shape[..axis].iter().product();
    let per_sample = prefixes / past.shape[0].max(1);
    let mut starts = Vec::with_capacity(prefixes * length);
    for prefix in 0..prefixes {
        let begin = begins.get(prefix / per_sample.max(1)).copied().unwrap_or(0);
        for i in 0..length {
            let to = usize::try_from(begin).unwrap_or(usize::MAX).saturating_add(i);
            let to = if circular { to % longest.max(1) } else { to };
            if to >= longest {
                return Err(format!("place {to} is beyond a cache of {longest}"));
            }
            starts.push((prefix * longest + to) * run);
        }
    }
    let at = Places { run, starts };
    let data = each!(&past.data, values => written(values, inputs, &at)?);
    Ok(vec![Array { shape: past.shape.clone(), data }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{named, run};
    use sartor_ir::{Attr, Attrs};

    fn integers_of(shape: &[usize], list: &[i64]) -> Array {
        Array { shape: shape.to_vec(), data: Data::I64(list.to_vec()) }
    }

    /// From ONNX's pages.
    #[test]
    fn onnx_examples() {
        let x = integers_of(&[3, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let at = integers_of(&[2, 3], &[1, 2, 0, 2, 0, 0]);
        let y = run(&named("GatherElements", Attrs::new()), &[&x, &at]);
        assert_eq!(y[0], integers_of(&[2, 3], &[4, 8, 3, 7, 2, 3]));
        let x = integers_of(&[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7]);
        let batch = Attrs::new().with("batch_dims", Attr::Int(1));
        let y = run(&named("GatherND", batch), &[&x, &integers_of(&[2, 1], &[1, 0])]);
        assert_eq!(y[0], integers_of(&[2, 2], &[2, 3, 4, 5]));
        let line = integers_of(&[1, 5], &[1, 2, 3, 4, 5]);
        let (at, new) = (integers_of(&[1, 2], &[1, 1]), integers_of(&[1, 2], &[10, 20]));
        for (word, expected) in [("none", 20), ("add", 32), ("mul", 400), ("max", 20), ("min", 2)] {
            let attrs =
                Attrs::new().with("axis", Attr::Int(1)).with("reduction", Attr::Str(word.into()));
            let y = run(&named("ScatterElements", attrs), &[&line, &at, &new]);
            assert_eq!(y[0], integers_of(&[1, 5], &[1, expected, 3, 4, 5]), "{word}");
        }
        let x = integers_of(&[4], &[1, 2, 3, 4]);
        let (at, new) = (integers_of(&[2, 1], &[3, -4]), integers_of(&[2], &[9, 8]));
        let y = run(&named("ScatterND", Attrs::new()), &[&x, &at, &new]);
        assert_eq!(y[0], integers_of(&[4], &[8, 2, 3, 9]));
    }

    #[test]
    fn a_cache_turns_around() {
        let past = integers_of(&[2, 3, 1], &[1, 2, 3, 4, 5, 6]);
        let update = integers_of(&[2, 2, 1], &[10, 20, 30, 40]);
        let attrs = Attrs::new().with("mode", Attr::Str("circular".into()));
        let y = run(&named("TensorScatter", attrs), &[&past, &update, &integers_of(&[2], &[2, 0])]);
        assert_eq!(y[0], integers_of(&[2, 3, 1], &[20, 2, 10, 30, 40, 6]));
    }

    #[test]
    fn a_wrong_index_is_an_error() {
        let (x, at) = (integers_of(&[2], &[1, 2]), integers_of(&[1], &[2]));
        let op = named("GatherElements", Attrs::new());
        assert!(gather(&op, &[Some(&x), Some(&at)], &[DType::I64]).is_err());
    }
}
