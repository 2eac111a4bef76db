//! Sums of products named by their axes (<https://onnx.ai/onnx/operators/onnx__Einsum.html>).

use std::collections::BTreeMap;

use super::{Entry, Made, no_axes, shapeless, typed};
use crate::{
    Dim, Fact, Named,
    op::{rank_of, shape_of},
};

pub(super) const ENTRIES: &[Entry] = &[Entry { domain: "", name: "Einsum", infer, axes: no_axes }];

/// What names an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// An axis under an ellipsis, counted from its end: these broadcast.
    Broadcast(usize),
    /// A letter.
    Letter(char),
}

/// An equation, for operands of known ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Einsum {
    /// The names of each operand's axes.
    pub inputs: Vec<Vec<Label>>,
    /// The names of the output's axes.
    pub output: Vec<Label>,
}

/// A term of an equation: letters, and where the ellipsis stands.
fn term(text: &str) -> Result<(Vec<char>, Option<usize>), String> {
    let (mut letters, mut ellipsis) = (Vec::new(), None);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("...") {
            if ellipsis.replace(letters.len()).is_some() {
                return Err(format!("the term `{text}` has two ellipses"));
            }
            rest = tail;
        } else if first.is_ascii_alphabetic() {
            letters.push(first);
            rest = &rest[1..];
        } else {
            return Err(format!("the term `{text}` has a `{first}`"));
        }
    }
    Ok((letters, ellipsis))
}

/// The names of `rank` axes.
fn labels(text: &str, rank: usize) -> Result<Vec<Label>, String> {
    let (letters, ellipsis) = term(text)?;
    let hidden = rank.checked_sub(letters.len());
    let Some(hidden) = hidden.filter(|it| *it == 0 || ellipsis.is_some()) else {
        return Err(format!("the term `{text}` does not name the axes of rank {rank}"));
    };
    let at = ellipsis.unwrap_or(letters.len());
    let mut made: Vec<Label> = letters.into_iter().map(Label::Letter).collect();
    made.splice(at..at, (0..hidden).rev().map(Label::Broadcast));
    Ok(made)
}

impl Einsum {
    /// Reads `equation` for operands of `ranks`.
    ///
    /// # Errors
    /// An equation that does not fit.
    pub fn read(equation: &str, ranks: &[usize]) -> Result<Self, String> {
        let plain: String = equation.chars().filter(|it| !it.is_whitespace()).collect();
        let (left, right) = match plain.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (plain.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(format!("`{equation}` is not for {} operands", ranks.len()));
        }
        let inputs: Vec<Vec<Label>> = terms
            .iter()
            .zip(ranks)
            .map(|(it, &rank)| labels(it, rank))
            .collect::<Result<_, _>>()?;
        let mut counts: BTreeMap<Label, usize> = BTreeMap::new();
        inputs.iter().flatten().for_each(|&it| *counts.entry(it).or_default() += 1);
        let hidden = counts.keys().filter(|it| matches!(it, Label::Broadcast(_))).count();
        let output = if let Some(text) = right {
            let (letters, ellipsis) = term(text)?;
            labels(text, letters.len() + if ellipsis.is_some() { hidden } else { 0 })?
        } else {
            // Without an arrow: what is under ellipses, then the letters that stand once, in order.
            let once = counts.iter().filter(|it| *it.1 == 1).map(|it| *it.0);
            let letters = once.filter(|it| matches!(it, Label::Letter(_)));
            (0..hidden).rev().map(Label::Broadcast).chain(letters).collect()
        };
        let mut seen = Vec::new();
        for it in &output {
            if seen.contains(it) || !counts.contains_key(it) {
                return Err(format!(
                    "the output of `{equation}` names an axis twice, or one that is not there"
                ));
            }
            seen.push(*it);
        }
        Ok(Einsum { inputs, output })
    }
}

/// The extent that two axes of one name have together.
fn joined(a: &Dim, b: &Dim) -> Result<Dim, String> {
    match (a, b) {
        (Dim::Known(1), it) | (it, Dim::Known(1)) => Ok(it.clone()),
        _ if a.compatible(b) => Ok(a.or(b)),
        _ => Err(format!("an axis has the extents {a} and {b}")),
    }
}

fn infer(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let ranks: Option<Vec<usize>> = (0..inputs.len()).map(|i| rank_of(inputs, i)).collect();
    let Some(ranks) = ranks else { return Ok(vec![shapeless(inputs, 0)]) };
    let it = Einsum::read(op.text("equation", "")?, &ranks)?;
    let mut extents: BTreeMap<Label, Dim> = BTreeMap::new();
    for (i, labels) in it.inputs.iter().enumerate() {
        for (label, dim) in labels.iter().zip(shape_of(inputs, i).into_iter().flatten()) {
            let known = match extents.get(label) {
                Some(other) => joined(other, dim)?,
                None => dim.clone(),
            };
            extents.insert(*label, known);
        }
    }
    let extent = |it: &Label| extents.get(it).cloned().unwrap_or(Dim::Unknown);
    Ok(vec![typed(inputs, 0, it.output.iter().map(extent).collect())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attr, Attrs, DType, TensorType};

    #[test]
    fn equations() {
        for (equation, shapes, expected) in [
            ("ij,jk->ik", vec![vec![2, 3], vec![3, 4]], "f32[2,4]"),
            ("ij,jk", vec![vec![2, 3], vec![3, 4]], "f32[2,4]"),
            ("bij, bjk -> bik", vec![vec![5, 2, 3], vec![5, 3, 4]], "f32[5,2,4]"),
            ("...ii->...i", vec![vec![7, 3, 3]], "f32[7,3]"),
            ("...ij,...jk", vec![vec![7, 2, 3], vec![6, 1, 3, 4]], "f32[6,7,2,4]"),
            ("ij->", vec![vec![2, 3]], "f32[]"),
            ("ba", vec![vec![2, 3]], "f32[3,2]"),
        ] {
            let facts: Vec<Fact> =
                shapes.iter().map(|it| Fact::of(TensorType::fixed(DType::F32, it))).collect();
            let given: Vec<_> = facts.iter().map(Some).collect();
            let op = Named {
                domain: String::new(),
                name: "Einsum".into(),
                version: 12,
                attributes: Attrs::new().with("equation", Attr::Str(equation.into())),
            };
            let made = infer(&op, &given, 1).unwrap();
            assert_eq!(made[0].as_ref().unwrap().ty.to_string(), expected, "{equation}");
        }
        for (equation, ranks) in
            [("ij->ijk", vec![2]), ("i->ii", vec![1]), ("i.j", vec![2]), ("ij", vec![3])]
        {
            assert!(Einsum::read(equation, &ranks).is_err(), "{equation}");
        }
    }
}
