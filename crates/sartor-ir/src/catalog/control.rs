//! Control flow (<https://onnx.ai/onnx/operators/onnx__If.html>,
//! <https://onnx.ai/onnx/operators/onnx__Loop.html>, <https://onnx.ai/onnx/operators/onnx__Scan.html>).
//!
//! The facts of captured values follow those of the inputs; a body's inputs are in the same order.

use std::collections::BTreeMap;

use super::{Entry, no_axes};
use crate::{
    Attr, DType, Dim, Fact, Graph, Named, Subgraph, TensorType, infer_facts, normalize_axis,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "If", infer: infer_if, axes: no_axes },
    Entry { domain: "", name: "Loop", infer: infer_loop, axes: no_axes },
    Entry { domain: "", name: "Scan", infer: infer_scan, axes: no_axes },
];

type Facts = Vec<Option<Fact>>;

fn body<'a>(op: &'a Named, name: &str) -> Option<&'a Subgraph> {
    match op.attributes.get(name) {
        Some(Attr::Graph(it)) => Some(it),
        _ => None,
    }
}

/// The types of a body's outputs, given those of its inputs; contents are not followed.
fn infer_body(body: &Graph, inputs: &[Option<Fact>]) -> Result<Facts, String> {
    let known = body.inputs().iter().zip(inputs);
    let types: BTreeMap<_, _> =
        known.filter_map(|(&id, fact)| Some((id, fact.as_ref()?.ty.clone()))).collect();
    let facts = infer_facts(body, &types).map_err(|it| format!("in its body: {it}"))?;
    let output = |it: &crate::ValueId| facts[it.index()].clone().map(|it| Fact::of(it.ty));
    Ok(body.outputs().iter().map(output).collect())
}

/// What two ways to compute a value agree on.
fn agreed(a: Option<Fact>, b: Option<Fact>) -> Option<Fact> {
    let (a, b) = (a?.ty, b?.ty);
    if a.dtype != b.dtype {
        return None;
    }
    let shape = match (a.shape, b.shape) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            let one = |(a, b): (Dim, Dim)| if a == b { a } else { Dim::Unknown };
            Some(a.into_iter().zip(b).map(one).collect())
        }
        _ => None,
    };
    Some(Fact::of(TensorType { dtype: a.dtype, shape }))
}

fn infer_if(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Result<Facts, String> {
    let (Some(then), Some(other)) = (body(op, "then_branch"), body(op, "else_branch")) else {
        return Ok(vec![None; n_outputs]);
    };
    let captured = inputs.get(1..).unwrap_or_default();
    let [a, b] = [then, other].map(|it| infer_body(&it.graph, &given(it, captured)));
    let (a, b) = (a?, b?);
    Ok(a.into_iter().zip(b).map(|(a, b)| agreed(a, b)).collect())
}

/// Carried values keep a type only where the body keeps it.
fn settle(
    body: &Graph,
    mut inputs: Facts,
    carried: std::ops::Range<usize>,
    outputs_from: usize,
) -> Result<Facts, String> {
    // Each round can only forget, an extent or a shape: it ends.
    loop {
        let made = infer_body(body, &inputs)?;
        let mut changed = false;
        for (i, at) in carried.clone().enumerate() {
            let next = made.get(outputs_from + i).cloned().flatten();
            let now = inputs.get(at).cloned().flatten();
            let both = agreed(now.clone().map(|it| Fact::of(it.ty)), next);
            if both.as_ref().map(|it| &it.ty) != now.as_ref().map(|it| &it.ty) {
                inputs[at] = both;
                changed = true;
            }
        }
        if !changed {
            return Ok(made);
        }
    }
}

/// `fact` with an axis of this extent inserted.
fn stacked(fact: Option<Fact>, axis: i64, extent: Dim) -> Option<Fact> {
    let TensorType { dtype, shape } = fact?.ty;
    let shape = shape.and_then(|mut shape| {
        let at = normalize_axis(axis, shape.len() + 1).ok()?;
        shape.insert(at, extent);
        Some(shape)
    });
    Some(Fact::of(TensorType { dtype, shape }))
}

/// The inputs of a body in its order; missing ones are unknown.
fn given(body: &Subgraph, inputs: &[Option<&Fact>]) -> Facts {
    let mut given: Facts = inputs.iter().map(|it| it.map(|it| Fact::of(it.ty.clone()))).collect();
    given.resize(body.graph.inputs().len(), None);
    given
}

fn infer_loop(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Result<Facts, String> {
    let Some(body) = body(op, "body") else { return Ok(vec![None; n_outputs]) };
    let formal = body.graph.inputs().len() - body.captures;
    if formal < 2 {
        return Err(format!("its body has {formal} inputs, expected a counter, a condition, …"));
    }
    let mut given = given(body, inputs);
    for (at, dtype) in [(0, DType::I64), (1, DType::Bool)] {
        given[at] = Some(Fact::of(TensorType::fixed(dtype, &[])));
    }
    let made = settle(&body.graph, given, 2..formal, 1)?;
    let output = |(i, fact): (usize, Option<Fact>)| {
        if i < formal - 2 { fact } else { stacked(fact, 0, Dim::Unknown) }
    };
    Ok(made.into_iter().skip(1).enumerate().map(output).collect())
}

fn infer_scan(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Result<Facts, String> {
    let unknown = Ok(vec![None; n_outputs]);
    let Some(body) = body(op, "body") else { return unknown };
    let Some(&Attr::Int(scanned)) = op.attributes.get("num_scan_inputs") else { return unknown };
    let formal = body.graph.inputs().len() - body.captures;
    let fits = usize::try_from(scanned).ok().and_then(|it| formal.checked_sub(it));
    let states = fits
        .ok_or_else(|| format!("`num_scan_inputs` is {scanned}, its body has {formal} inputs"))?;
    if op.version < 9 {
        // The first form has a batch axis and lengths.
        return unknown;
    }
    let mut given = given(body, inputs);
    let axes = |name: &str, i: usize| match op.attributes.get(name) {
        Some(Attr::Ints(it)) => it.get(i).copied().unwrap_or(0),
        _ => 0,
    };
    let mut length = Dim::Unknown;
    for (i, fact) in given[states..formal].iter_mut().enumerate() {
        let Some(Fact { ty: TensorType { shape: Some(shape), .. }, .. }) = fact else {
            continue;
        };
        let at = normalize_axis(axes("scan_input_axes", i), shape.len())?;
        length = shape.remove(at);
    }
    let made = settle(&body.graph, given, 0..states, 0)?;
    let output = |(i, fact): (usize, Option<Fact>)| {
        if i < states {
            fact
        } else {
            stacked(fact, axes("scan_output_axes", i - states), length.clone())
        }
    };
    Ok(made.into_iter().enumerate().map(output).collect())
}
