//! Arrays that come with a network: what goes in, and what should come out.

use std::{cmp::Ordering, path::Path};

use sartor_data::{NamedArray, read_npz};
use sartor_engine::Array;
use sartor_ir::{Graph, ValueId};
use sartor_onnx::NoExternalData;
use serde::Serialize;

use crate::{
    Error, file,
    samples::{fitted, to_array},
};

/// The end of a network that arrays belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its inputs.
    Inputs,
    /// Its outputs.
    Outputs,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Side::Inputs => "input",
            Side::Outputs => "output",
        }
    }

    fn ports(self, graph: &Graph) -> &[ValueId] {
        match self {
            Side::Inputs => graph.inputs(),
            Side::Outputs => graph.outputs(),
        }
    }
}

/// Reads one array for each input or output of `graph`, in its order: by name from an `.npz` file, or by place from a
/// folder with `input_0.pb`, `output_0.pb` and so on, a serialized tensor each, as ONNX's tests have them.
///
/// # Errors
/// Files that cannot be read, and an array that is missing or left over.
pub fn read_arrays(path: &Path, graph: &Graph, side: Side) -> Result<Vec<Array>, Error> {
    let arrays =
        if path.is_dir() { from_folder(path, graph, side) } else { from_npz(path, graph, side) }?;
    let declared = side.ports(graph).iter().map(|&it| graph.value(it).ty.as_ref());
    let fit = |(array, ty): (Array, Option<&sartor_ir::TensorType>)| match ty {
        Some(ty) => fitted(array, ty.dtype),
        None => array,
    };
    Ok(arrays.into_iter().zip(declared).map(fit).collect())
}

fn from_npz(path: &Path, graph: &Graph, side: Side) -> Result<Vec<Array>, Error> {
    let mut arrays = read_npz(path)?;
    let missing = |name: &str, arrays: &[NamedArray]| {
        let given: Vec<_> = arrays.iter().filter_map(|it| it.name.as_deref()).collect();
        Error::Invalid(format!(
            "`{}` has no array `{name}` for the network's {}; it has {given:?}",
            path.display(),
            side.word()
        ))
    };
    let mut take = |&id: &ValueId| {
        let name = &graph.value(id).name;
        let at = arrays.iter().position(|it| it.name.as_deref() == Some(name.as_str()));
        let at = at.ok_or_else(|| missing(name, &arrays))?;
        Ok(to_array(arrays.swap_remove(at)))
    };
    side.ports(graph).iter().map(&mut take).collect()
}

fn from_folder(path: &Path, graph: &Graph, side: Side) -> Result<Vec<Array>, Error> {
    let file = |i: usize| path.join(format!("{}_{i}.pb", side.word()));
    let count = side.ports(graph).len();
    // One more than are wanted is looked for, so that an array too many is told.
    let given = (0..=count).take_while(|&it| file(it).is_file()).count();
    if given != count {
        let word = side.word();
        let found = if given > count { "more".to_owned() } else { given.to_string() };
        return Err(Error::Invalid(format!(
            "`{}` has {found} files named as `{word}_0.pb`, expected {count}: one for each {word} of the network",
            path.display()
        )));
    }
    (0..count).map(|it| tensor_file(&file(it))).collect()
}

fn tensor_file(path: &Path) -> Result<Array, Error> {
    let import = |source| Error::Import { path: path.to_owned(), source: Box::new(source) };
    let (_, tensor) =
        sartor_onnx::read_tensor(file::read(path)?, &NoExternalData).map_err(import)?;
    Array::from_tensor(&tensor).ok_or_else(|| {
        Error::Invalid(format!("`{}` holds {}, which is not run", path.display(), tensor.dtype()))
    })
}

/// How far a number may be from what is expected: `absolute + relative · |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Share of the magnitude of the expected number.
    pub relative: f64,
    /// For expected numbers near zero.
    pub absolute: f64,
}

impl Default for Tolerance {
    /// That of ONNX's own tests.
    fn default() -> Self {
        Tolerance { relative: 1e-3, absolute: 1e-7 }
    }
}

/// An output against what was expected of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The output.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Largest difference; infinite where only one of the two is a number, or the infinities differ.
    pub absolute: f64,
    /// Largest difference as a share of the expected number; numbers expected to be zero do not count.
    pub relative: f64,
    /// Elements beyond the tolerance.
    pub beyond: usize,
    /// What differs besides the numbers: element type or shape.
    pub form: Option<String>,
}

impl Difference {
    /// Compares an output with what is expected of it. Equal infinities, and NaN with NaN, are equal.
    pub fn of(name: &str, found: &Array, expected: &Array, tolerance: Tolerance) -> Self {
        let mut it = Difference {
            name: name.to_owned(),
            shape: found.shape.clone(),
            absolute: 0.0,
            relative: 0.0,
            beyond: 0,
            form: None,
        };
        if found.dtype() != expected.dtype() || found.shape != expected.shape {
            it.form = Some(format!("{}, expected {}", form(found), form(expected)));
            return it;
        }
        if found.data == expected.data {
            return it;
        }
        for (a, b) in found.to_f64().into_iter().zip(expected.to_f64()) {
            let apart = distance(a, b);
            it.absolute = it.absolute.max(apart);
            if b != 0.0 && apart > 0.0 {
                it.relative =
                    it.relative.max(if b.is_infinite() { apart } else { apart / b.abs() });
            }
            let bound = tolerance.absolute + tolerance.relative * b.abs();
            it.beyond += usize::from(apart > 0.0 && !(apart <= bound && apart.is_finite()));
        }
        it
    }

    /// Whether the output is what was expected.
    pub fn holds(&self) -> bool {
        self.form.is_none() && self.beyond == 0
    }
}

/// `f32 [2, 3]`.
fn form(array: &Array) -> String {
    format!("{} {:?}", array.dtype(), array.shape)
}

/// 0 for equal infinities and for NaN twice, infinite where only one is a number.
fn distance(a: f64, b: f64) -> f64 {
    if a.partial_cmp(&b) == Some(Ordering::Equal) || a.is_nan() && b.is_nan() {
        return 0.0;
    }
    let apart = (a - b).abs();
    if apart.is_nan() { f64::INFINITY } else { apart }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sartor_engine::Data;

    fn floats(values: &[f32]) -> Array {
        Array::f32(&[values.len()], values.to_vec())
    }

    #[test]
    fn differences_are_told() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for (found, expected, absolute, beyond) in [
            (&[1.0, 2.0][..], &[1.0, 2.0][..], 0.0, 0),
            (&[1.0, 2.0], &[1.0, 2.5], 0.5, 1),
            (&[1.0], &[1.000_5], 0.0005, 0),
            (&[nan, inf], &[nan, inf], 0.0, 0),
            (&[nan, 1.0], &[1.0, 1.0], f64::INFINITY, 1),
            (&[inf], &[-inf], f64::INFINITY, 1),
            (&[1e30], &[inf], f64::INFINITY, 1),
        ] {
            let it = Difference::of("y", &floats(found), &floats(expected), Tolerance::default());
            assert!(distance(it.absolute, absolute) < 1e-6, "{it:?}");
            assert_eq!((it.beyond, it.holds()), (beyond, beyond == 0), "{it:?}");
        }
    }

    #[test]
    fn form_comes_before_numbers() {
        let column = Array::f32(&[2, 1], vec![1.0, 2.0]);
        let it = Difference::of("y", &column, &floats(&[1.0, 2.0]), Tolerance::default());
        assert_eq!(it.form.as_deref(), Some("f32 [2, 1], expected f32 [2]"));
        let ints = Array { shape: vec![1], data: Data::I64(vec![1]) };
        assert!(!Difference::of("y", &ints, &floats(&[1.0]), Tolerance::default()).holds());
    }
}
