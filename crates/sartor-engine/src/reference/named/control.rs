//! Control flow: `If`, `Loop` and `Scan` (<https://onnx.ai/onnx/operators/onnx__Loop.html>).
//!
//! A body is prepared once for each set of input shapes that it meets, and run as a program of its own. A prepared graph keeps the
//! programs of its nodes from run to run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sartor_ir::{
    Attr, Concat, DType, Gather, Named, Op, Subgraph, Tensor, TensorType, infer_facts,
    normalize_axis,
};

use super::Rule;
use crate::{Array, Data, Options, Program, reference};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "If", evaluate: evaluate_if },
    Rule { domain: "", name: "Loop", evaluate: evaluate_loop },
    Rule { domain: "", name: "Scan", evaluate: evaluate_scan },
];

/// The programs that one node's bodies were prepared as: by attribute, and by the types and shapes of the inputs.
#[derive(Debug, Default)]
pub(crate) struct Bodies(Mutex<BTreeMap<Shape, Arc<Program>>>);

type Shape = (&'static str, Vec<(DType, Vec<usize>)>);

/// More sets of input shapes than these are not kept: a body that meets new ones all the time would fill the memory.
const KEPT: usize = 64;

/// A body of a node.
struct Body<'a> {
    name: &'static str,
    subgraph: &'a Subgraph,
    bodies: &'a Bodies,
}

/// The outputs of a node with bodies, which it prepares or finds in `bodies`; `None` for other operators.
pub(crate) fn evaluate_with(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
    bodies: &Bodies,
) -> Option<Result<Vec<Array>, String>> {
    match (op.domain.as_str(), op.name.as_str()) {
        ("", "If") => Some(run_if(op, inputs, bodies)),
        ("", "Loop") => Some(run_loop(op, inputs, dtypes, bodies)),
        ("", "Scan") => Some(run_scan(op, inputs, dtypes, bodies)),
        _ => None,
    }
}

impl<'a> Body<'a> {
    fn of(op: &'a Named, name: &'static str, bodies: &'a Bodies) -> Result<Self, String> {
        match op.attributes.get(name) {
            Some(Attr::Graph(subgraph)) => Ok(Body { name, subgraph, bodies }),
            _ => Err(format!("its `{name}` could not be read as a graph")),
        }
    }

    /// Inputs of the body that are not captured.
    fn formal(&self) -> usize {
        self.subgraph.graph.inputs().len() - self.subgraph.captures
    }

    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, String> {
        let program = self.program(inputs)?;
        program.run(inputs).map_err(|it| format!("in its body: {it}"))
    }

    /// The program for inputs of these types and shapes.
    fn program(&self, inputs: &[Array]) -> Result<Arc<Program>, String> {
        let shapes = inputs.iter().map(|it| (it.dtype(), it.shape.clone())).collect();
        let key = (self.name, shapes);
        // A poisoned map is a whole one: nothing but whole programs is ever put into it.
        let kept = || self.bodies.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = kept().get(&key) {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(self.prepare(inputs)?);
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&program));
        Ok(program)
    }

    fn prepare(&self, inputs: &[Array]) -> Result<Program, String> {
        let mut graph = (*self.subgraph.graph).clone();
        for (id, array) in graph.inputs().to_vec().into_iter().zip(inputs) {
            graph.set_type(id, Some(TensorType::fixed(array.dtype(), &array.shape)));
        }
        let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
        Program::prepare(&graph, &shapes, &Options::default())
            .map_err(|it| format!("in its body: {it}"))
    }

    /// What output `i` of the body would be like, had it run: for outputs of no iteration at all.
    fn empty(&self, i: usize, inputs: &[Array], axis: i64) -> Result<Array, String> {
        let graph = &self.subgraph.graph;
        let known = graph.inputs().iter().zip(inputs);
        let types: BTreeMap<_, _> =
            known.map(|(&id, it)| (id, TensorType::fixed(it.dtype(), &it.shape))).collect();
        let facts = infer_facts(graph, &types).map_err(|it| format!("in its body: {it}"))?;
        let fact = graph.outputs().get(i).and_then(|it| facts[it.index()].as_ref());
        let dtype = fact.map_or(DType::F32, |it| it.ty.dtype);
        let shape = fact.and_then(|it| it.ty.shape.clone()).unwrap_or_default();
        let mut shape: Vec<usize> = shape.iter().map(|it| it.known().unwrap_or(0)).collect();
        let at = normalize_axis(axis, shape.len() + 1)?;
        shape.insert(at, 0);
        zeros(dtype, shape)
    }
}

/// Zeros of any type: their bytes are zeros in each.
fn zeros(dtype: DType, shape: Vec<usize>) -> Result<Array, String> {
    let bytes = dtype.bytes_for(shape.iter().product()).unwrap_or(0);
    let tensor = Tensor::new(dtype, shape, vec![0; bytes]).map_err(|it| it.to_string())?;
    Array::from_tensor(&tensor).ok_or_else(|| format!("{dtype} is not run"))
}

/// The only output of a closed-set operator.
fn one(op: &Op, inputs: &[&Array], dtype: DType) -> Result<Array, String> {
    let given: Vec<_> = inputs.iter().copied().map(Some).collect();
    let made = reference::evaluate(op, &given, &[dtype])?;
    made.into_iter().next().ok_or_else(|| format!("`{}` made nothing", op.name()))
}

/// Slice `i` along `axis`, without that axis.
fn slice(array: &Array, axis: usize, i: usize) -> Result<Array, String> {
    let index = Array::scalar(Data::I64(vec![i as i64]));
    one(&Op::Gather(Gather { axis: axis as i64 }), &[array, &index], array.dtype())
}

/// The arrays, all of one shape, along a new axis.
fn stack(arrays: Vec<Array>, axis: i64) -> Result<Array, String> {
    let rank = arrays.first().map_or(0, |it| it.shape.len());
    let at = normalize_axis(axis, rank + 1)?;
    let dtype = arrays.first().map_or(DType::F32, Array::dtype);
    let mut widened = Vec::with_capacity(arrays.len());
    for mut array in arrays {
        array.shape.insert(at.min(array.shape.len()), 1);
        widened.push(array);
    }
    let borrowed: Vec<_> = widened.iter().collect();
    one(&Op::Concat(Concat { axis: at as i64 }), &borrowed, dtype)
}

fn required<'a>(inputs: &[Option<&'a Array>], i: usize) -> Result<&'a Array, String> {
    inputs.get(i).copied().flatten().ok_or_else(|| format!("input {i} is missing"))
}

/// The captured values, which follow the `formal` inputs of the node.
fn captured(inputs: &[Option<&Array>], formal: usize) -> Result<Vec<Array>, String> {
    (formal..inputs.len()).map(|i| required(inputs, i).cloned()).collect()
}

fn truth(array: &Array) -> Result<bool, String> {
    match array.to_i64().as_slice() {
        [it] => Ok(*it != 0),
        other => Err(format!("its condition has {} elements, expected 1", other.len())),
    }
}

fn evaluate_if(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Result<Vec<Array>, String> {
    run_if(op, inputs, &Bodies::default())
}

fn evaluate_loop(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    run_loop(op, inputs, dtypes, &Bodies::default())
}

fn evaluate_scan(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    run_scan(op, inputs, dtypes, &Bodies::default())
}

fn run_if(op: &Named, inputs: &[Option<&Array>], bodies: &Bodies) -> Result<Vec<Array>, String> {
    let branch = if truth(required(inputs, 0)?)? { "then_branch" } else { "else_branch" };
    Body::of(op, branch, bodies)?.run(&captured(inputs, 1)?)
}

fn run_loop(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
    bodies: &Bodies,
) -> Result<Vec<Array>, String> {
    let body = Body::of(op, "body", bodies)?;
    let formal = body.formal();
    if formal < 2 || body.subgraph.graph.outputs().len() + 1 < formal {
        return Err(
            "its body does not take a counter and a condition, or returns too little".into()
        );
    }
    let limit = match inputs.first().copied().flatten().map(Array::to_i64).as_deref() {
        None => i64::MAX,
        Some([it]) => *it,
        Some(other) => return Err(format!("its limit has {} elements, expected 1", other.len())),
    };
    let mut go_on = inputs.get(1).copied().flatten().map_or(Ok(true), truth)?;
    let mut state: Vec<Array> =
        (2..formal).map(|i| required(inputs, i).cloned()).collect::<Result<_, _>>()?;
    let outside = captured(inputs, formal)?;
    let stacked = body.subgraph.graph.outputs().len() + 1 - formal;
    let mut rows: Vec<Vec<Array>> = vec![Vec::new(); stacked];
    let mut i = 0;
    let given = |i: i64, go_on: bool, state: &[Array]| {
        let head = [Array::scalar(Data::I64(vec![i])), Array::scalar(Data::Bool(vec![go_on]))];
        head.iter().chain(state).chain(&outside).cloned().collect::<Vec<_>>()
    };
    while go_on && i < limit {
        let mut made = body.run(&given(i, go_on, &state))?.into_iter();
        go_on = truth(&made.next().ok_or("its body returns nothing")?)?;
        state = made.by_ref().take(formal - 2).collect();
        rows.iter_mut().zip(made).for_each(|(rows, it)| rows.push(it));
        i += 1;
    }
    let first = given(0, true, &state);
    let mut outputs = state;
    for (k, rows) in rows.into_iter().enumerate() {
        outputs.push(if rows.is_empty() {
            body.empty(formal - 1 + k, &first, 0)?
        } else {
            stack(rows, 0)?
        });
    }
    outputs.truncate(dtypes.len());
    Ok(outputs)
}

/// Axes and directions of what a `Scan` walks along.
struct Walk {
    input_axes: Vec<i64>,
    output_axes: Vec<i64>,
    input_reversed: Vec<bool>,
    output_reversed: Vec<bool>,
}

impl Walk {
    fn of(op: &Named, inputs: usize, outputs: usize) -> Self {
        let list = |name: &str, count: usize| {
            let given = match op.attributes.get(name) {
                Some(Attr::Ints(it)) => it.clone(),
                _ => Vec::new(),
            };
            (0..count).map(|i| given.get(i).copied().unwrap_or(0)).collect::<Vec<_>>()
        };
        let flags =
            |name: &str, count: usize| list(name, count).iter().map(|it| *it != 0).collect();
        // Opset 8 calls the directions of the inputs `directions`, and has no others.
        let directions = if op.version < 9 { "directions" } else { "scan_input_directions" };
        Walk {
            input_axes: list("scan_input_axes", inputs),
            output_axes: list("scan_output_axes", outputs),
            input_reversed: flags(directions, inputs),
            output_reversed: flags("scan_output_directions", outputs),
        }
    }
}

fn run_scan(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
    bodies: &Bodies,
) -> Result<Vec<Array>, String> {
    let body = Body::of(op, "body", bodies)?;
    let formal = body.formal();
    let scanned = match op.attributes.get("num_scan_inputs") {
        Some(&Attr::Int(it)) if it > 0 && it as usize <= formal => it as usize,
        _ => return Err(format!("`num_scan_inputs` does not fit a body of {formal} inputs")),
    };
    let first = usize::from(op.version < 9);
    let outside = captured(inputs, first + formal)?;
    let arrays: Vec<Array> =
        (first..first + formal).map(|i| required(inputs, i).cloned()).collect::<Result<_, _>>()?;
    let states = formal - scanned;
    let stacked = body.subgraph.graph.outputs().len().checked_sub(states);
    let stacked = stacked.ok_or("its body returns fewer values than it carries")?;
    let walk = Walk::of(op, scanned, stacked);
    let mut outputs = if op.version < 9 {
        batched_scan(&body, &arrays, states, inputs.first().copied().flatten(), &walk, &outside)?
    } else {
        scan(&body, &arrays, states, None, &walk, &outside)?
    };
    outputs.truncate(dtypes.len());
    Ok(outputs)
}

/// One walk; `length` cuts it short.
fn scan(
    body: &Body<'_>,
    arrays: &[Array],
    states: usize,
    length: Option<usize>,
    walk: &Walk,
    outside: &[Array],
) -> Result<Vec<Array>, String> {
    let (state, sequences) = arrays.split_at(states);
    let mut state = state.to_vec();
    let mut axes = Vec::with_capacity(sequences.len());
    let mut steps = length;
    for (sequence, &axis) in sequences.iter().zip(&walk.input_axes) {
        let axis = normalize_axis(axis, sequence.shape.len())?;
        let extent = sequence.shape[axis];
        if length.is_none() && steps.is_some_and(|it| it != extent) || length > Some(extent) {
            return Err(format!("its sequences are of {extent} and {} steps", steps.unwrap_or(0)));
        }
        steps = steps.or(Some(extent));
        axes.push(axis);
    }
    let steps = steps.unwrap_or(0);
    let mut rows: Vec<Vec<Array>> = vec![Vec::new(); walk.output_axes.len()];
    for step in 0..steps {
        let mut given = state.clone();
        for (i, sequence) in sequences.iter().enumerate() {
            let at = if walk.input_reversed[i] { steps - 1 - step } else { step };
            given.push(slice(sequence, axes[i], at)?);
        }
        given.extend_from_slice(outside);
        let mut made = body.run(&given)?.into_iter();
        state = made.by_ref().take(states).collect();
        rows.iter_mut().zip(made).for_each(|(rows, it)| rows.push(it));
    }
    let mut outputs = state;
    for (i, mut rows) in rows.into_iter().enumerate() {
        if rows.is_empty() {
            return Err("its sequences are empty".into());
        }
        if walk.output_reversed[i] {
            rows.reverse();
        }
        outputs.push(stack(rows, walk.output_axes[i])?);
    }
    Ok(outputs)
}

/// The form of opset 8: a batch axis in front of everything, sequences along axis 1, each of its own
/// length, padded with zeros to the longest.
fn batched_scan(
    body: &Body<'_>,
    arrays: &[Array],
    states: usize,
    lengths: Option<&Array>,
    walk: &Walk,
    outside: &[Array],
) -> Result<Vec<Array>, String> {
    let batch = arrays.first().and_then(|it| it.shape.first()).copied().unwrap_or(0);
    let lengths = lengths.map(Array::to_i64);
    let mut samples: Vec<Vec<Array>> = Vec::new();
    for n in 0..batch {
        let mut own = Vec::with_capacity(arrays.len());
        for array in arrays {
            if array.shape.first() != Some(&batch) {
                return Err(format!("its inputs are of {batch} and {:?} samples", array.shape));
            }
            own.push(slice(array, 0, n)?);
        }
        let length = lengths.as_ref().and_then(|it| it.get(n)).map(|&it| it.max(0) as usize);
        samples.push(scan(body, &own, states, length, walk, outside)?);
    }
    let count = samples.first().map_or(0, Vec::len);
    let longest = arrays.get(states).and_then(|it| it.shape.get(1)).copied().unwrap_or(0);
    let mut outputs = Vec::with_capacity(count);
    for i in 0..count {
        let mut parts = Vec::with_capacity(batch);
        for sample in &samples {
            let part = sample[i].clone();
            parts.push(if i < states { part } else { padded(part, longest)? });
        }
        outputs.push(stack(parts, 0)?);
    }
    Ok(outputs)
}

/// Zeros behind axis 0, up to `extent`.
fn padded(array: Array, extent: usize) -> Result<Array, String> {
    let missing = extent.saturating_sub(array.shape.first().copied().unwrap_or(0));
    if missing == 0 {
        return Ok(array);
    }
    let dtype = array.dtype();
    let mut shape = array.shape.clone();
    shape[0] = missing;
    one(&Op::Concat(Concat { axis: 0 }), &[&array, &zeros(dtype, shape)?], dtype)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sartor_ir::{Attrs, Binary, Graph};

    use super::*;

    /// `(i, go on, sum) -> (sum < limit, sum + step, sum)` with `limit` and `step` captured.
    fn counting_body() -> Subgraph {
        let mut body = Graph::new("body");
        let input = |graph: &mut Graph, name: &str, dtype| {
            graph.add_input(name, TensorType::fixed(dtype, &[])).unwrap()
        };
        input(&mut body, "i", DType::I64);
        input(&mut body, "go on", DType::Bool);
        let sum = input(&mut body, "sum", DType::F32);
        let limit = input(&mut body, "limit", DType::F32);
        let step = input(&mut body, "step", DType::F32);
        let next = body.add_node("", Op::Binary(Binary::Add), &[sum, step], &["next"]).unwrap()[0];
        let less =
            body.add_node("", Op::Binary(Binary::Less), &[next, limit], &["less"]).unwrap()[0];
        body.set_outputs(vec![less, next, sum]);
        Subgraph { graph: Arc::new(body), captures: 2, source: bytes::Bytes::new() }
    }

    fn named(name: &str, attributes: Attrs) -> Named {
        Named { domain: String::new(), name: name.into(), version: 16, attributes }
    }

    #[test]
    fn a_loop_carries_stacks_and_stops() {
        let op = named("Loop", Attrs::new().with("body", Attr::Graph(counting_body())));
        let float = |it| Array::f32(&[], vec![it]);
        let (sum, limit, step) = (float(0.0), float(2.5), float(1.0));
        let run = |count: Option<&Array>| {
            let inputs = [count, None, Some(&sum), Some(&limit), Some(&step)];
            evaluate_loop(&op, &inputs, &[DType::F32, DType::F32]).unwrap()
        };
        let made = run(None);
        assert_eq!(made[0].as_f32(), Some([3.0].as_slice()));
        assert_eq!(made[1], Array::f32(&[3], vec![0.0, 1.0, 2.0]));
        let none = run(Some(&Array::scalar(Data::I64(vec![0]))));
        assert_eq!(none[0].as_f32(), Some([0.0].as_slice()));
        assert_eq!(none[1], Array::f32(&[0], Vec::new()));
    }

    #[test]
    fn a_body_is_prepared_once_for_each_set_of_shapes() {
        let op = named("Loop", Attrs::new().with("body", Attr::Graph(counting_body())));
        let float = |it| Array::f32(&[], vec![it]);
        let (sum, limit, step) = (float(0.0), float(2.5), float(1.0));
        let inputs = [None, None, Some(&sum), Some(&limit), Some(&step)];
        let bodies = Bodies::default();
        let run = || evaluate_with(&op, &inputs, &[DType::F32, DType::F32], &bodies).unwrap();
        assert_eq!(run(), run());
        assert_eq!(bodies.0.lock().unwrap().len(), 1);
        assert!(evaluate_with(&named("Gelu", Attrs::new()), &inputs, &[], &bodies).is_none());
    }

    #[test]
    fn a_branch_that_could_not_be_read_is_an_error() {
        let op = named("If", Attrs::new());
        let yes = Array::scalar(Data::Bool(vec![true]));
        let error = evaluate_if(&op, &[Some(&yes)], &[DType::F32]).unwrap_err();
        assert!(error.contains("then_branch"), "{error}");
    }
}
