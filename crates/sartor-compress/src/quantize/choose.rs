//! Ranges by trial: each activation takes the method after which the layers that read it err least.

use std::collections::BTreeMap;

use rayon::prelude::*;
use sartor_engine::{Array, Options, Program};
use sartor_ir::{Graph, NodeId, TensorType, ValueId};

use super::{
    QuantizeStatic, RangeMethod,
    place::{Plan, Role},
    range,
    scale::Scale,
};
use crate::{
    CompressError, Samples,
    calibrate::{Observer, observe},
    samples::First,
};

/// The methods that are tried.
const METHODS: &[RangeMethod] = &[
    RangeMethod::MinMax,
    RangeMethod::MovingAverage,
    RangeMethod::Percentile(99.99),
    RangeMethod::Entropy,
    RangeMethod::Mse,
    RangeMethod::Analytic,
];

/// Samples on which they are compared: their activations are in memory at once.
const SAMPLES: usize = 16;

/// The scale of each class of values, given what was seen of it.
pub(super) fn choose(
    graph: &Graph,
    plan: &Plan,
    classes: &BTreeMap<ValueId, Observer>,
    config: &QuantizeStatic,
    samples: &dyn Samples,
) -> Result<BTreeMap<ValueId, Scale>, CompressError> {
    let mut seen: BTreeMap<ValueId, Array> = BTreeMap::new();
    let first = First::of(samples, SAMPLES.min(samples.len()));
    let first: &dyn Samples =
        if crate::calibrate::fixed_batch(graph).is_some() { samples } else { &first };
    observe(graph, &plan.watch, first, &mut |_, _| {}, &mut |id, array| {
        // Networks with a fixed batch show their first one.
        seen.entry(id).or_insert_with(|| array.clone());
        Ok(())
    })?;
    let found: Result<Vec<(ValueId, Scale)>, CompressError> = classes
        .par_iter()
        .map(|(&class, observer)| {
            let mut candidates: Vec<Scale> = Vec::new();
            for &method in METHODS {
                let range = range::find(observer, method, &config.activations, config.scales);
                let scale = Scale::of(range, &config.activations, config.scales);
                if !candidates.contains(&scale) {
                    candidates.push(scale);
                }
            }
            let trials = trials(graph, plan, class, &seen)?;
            let mut scored = Vec::new();
            for scale in candidates {
                scored.push((error(&trials, scale)?, scale));
            }
            // The first of equals: METHODS begins with the widest.
            let best = scored.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
            Ok((class, best.expect("there is a method, and so a candidate").1))
        })
        .collect();
    Ok(found?.into_iter().collect())
}

/// A value and what reads it: nothing, if no layer with weights does.
struct Trial {
    value: Array,
    readers: Vec<(Program, Vec<f32>)>,
}

fn trials(
    graph: &Graph,
    plan: &Plan,
    class: ValueId,
    seen: &BTreeMap<ValueId, Array>,
) -> Result<Vec<Trial>, CompressError> {
    let consumers = graph.consumers();
    let members = seen.iter().filter(|it| plan.class(*it.0) == class);
    members
        .map(|(&id, value)| {
            let layers =
                consumers.of(id).iter().filter(|it| it.1 == 0 && plan.role(it.0) == Role::Weighted);
            let readers = layers.map(|&(node, _)| {
                let program = alone(graph, node, id, value)?;
                let exact = run(&program, value)?;
                Ok((program, exact))
            });
            let readers = readers.collect::<Result<_, CompressError>>()?;
            Ok(Trial { value: value.clone(), readers })
        })
        .collect()
}

/// A program of one node, which reads `value`.
fn alone(
    graph: &Graph,
    node: NodeId,
    value: ValueId,
    like: &Array,
) -> Result<Program, CompressError> {
    let mut part = graph.clone();
    let others: Vec<NodeId> = graph.nodes().map(|it| it.0).filter(|it| *it != node).collect();
    for other in others {
        part.remove_node(other);
    }
    part.set_type(value, Some(TensorType::fixed(like.dtype(), &like.shape)));
    part.forget_types();
    part.set_inputs(vec![value]);
    part.set_outputs(vec![graph.node(node).output()]);
    Program::prepare(&part, std::slice::from_ref(&like.shape), &Options::default())
        .map_err(|it| CompressError::Run(it.to_string()))
}

fn run(program: &Program, value: &Array) -> Result<Vec<f32>, CompressError> {
    let outputs = program.run(std::slice::from_ref(value));
    let outputs = outputs.map_err(|it| CompressError::Run(it.to_string()))?;
    Ok(outputs.first().and_then(Array::as_f32).unwrap_or_default().to_vec())
}

/// `Σ |y - ŷ|² / |y|²` over what reads a class of values rounded with `scale`; of the values themselves where no layer
/// with weights does.
fn error(trials: &[Trial], scale: Scale) -> Result<f64, CompressError> {
    let mut sum = 0.0;
    for trial in trials {
        let Some(values) = trial.value.as_f32() else { continue };
        let rounded: Vec<f32> = values.iter().map(|&it| scale.rounded(it)).collect();
        if trial.readers.is_empty() {
            sum += relative(values, &rounded);
        }
        let rounded = Array::f32(&trial.value.shape, rounded);
        for (program, exact) in &trial.readers {
            sum += relative(exact, &run(program, &rounded)?);
        }
    }
    Ok(sum)
}

fn relative(exact: &[f32], found: &[f32]) -> f64 {
    let noise: f64 = exact.iter().zip(found).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let signal: f64 = exact.iter().map(|it| f64::from(*it).powi(2)).sum();
    if signal > 0.0 { noise / signal } else { noise }
}
