//! The invariants of a graph.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{Graph, InferError, ValueId, infer_facts};

/// A broken invariant, numbered as in [`verify`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VerifyError {
    /// 1: a node reads a value that nothing makes.
    #[error(
        "node `{node}` reads `{value}`, which no node makes and which is neither an input nor a constant"
    )]
    Undefined {
        /// The reader.
        node: String,
        /// The value.
        value: String,
    },
    /// 2: a node stands before one whose output it reads.
    #[error("node `{node}` reads `{value}` before it is made")]
    Order {
        /// The reader.
        node: String,
        /// The value.
        value: String,
    },
    /// 3: a graph output that nothing makes.
    #[error("graph output `{0}` is made by no node and is neither an input nor a constant")]
    Output(String),
    /// 4: too few or too many inputs or outputs.
    #[error("node `{node}` ({op}) has {found} {what}, expected {expected}")]
    Arity {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        expected: String,
    },
    /// 5: a required input or the first output is left out.
    #[error("node `{node}` ({op}) leaves out its required {what} {at}")]
    Missing {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// `input` or `output`.
        what: &'static str,
        /// Position.
        at: usize,
    },
    /// 6: an empty or repeated graph input or output.
    #[error("graph {0} `{1}` is listed twice")]
    Repeated(&'static str, String),
    /// 7: shapes or types that do not fit.
    #[error(transparent)]
    Types(#[from] InferError),
}

/// Checks every invariant of a graph:
///
/// 1. each value that a node reads is a graph input, a constant or made by a node;
/// 2. nodes are in topological order (so there is no cycle);
/// 3. each graph output is defined;
/// 4. each node has as many inputs and outputs as its operator takes;
/// 5. required inputs and first outputs are there, and at least one output;
/// 6. no graph input or output is listed twice;
/// 7. inferred types fit each other and the declared ones.
///
/// By construction ([`Graph`]'s mutators) names are unique, a value has at most one producer, and
/// constants have the bytes that their type and shape ask for.
///
/// # Errors
/// The first broken invariant.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    let mut made: BTreeSet<ValueId> = graph.inputs().iter().copied().collect();
    made.extend(graph.values().filter(|(_, value)| value.constant.is_some()).map(|(id, _)| id));
    let name = |id: ValueId| graph.value(id).name.clone();
    for (_, node) in graph.nodes() {
        check_arity(node)?;
        if let Some(value) = node.reads().find(|it| !made.contains(it)) {
            let (node, value_name) = (node.name.clone(), name(value));
            return Err(match graph.producer(value) {
                None => VerifyError::Undefined { node, value: value_name },
                Some(_) => VerifyError::Order { node, value: value_name },
            });
        }
        made.extend(node.outputs.iter().flatten());
    }
    if let Some(&output) = graph.outputs().iter().find(|it| !made.contains(it)) {
        return Err(VerifyError::Output(name(output)));
    }
    for (what, list) in [("input", graph.inputs()), ("output", graph.outputs())] {
        let mut seen = BTreeSet::new();
        if let Some(&twice) = list.iter().find(|it| !seen.insert(**it)) {
            return Err(VerifyError::Repeated(what, name(twice)));
        }
    }
    infer_facts(graph, &BTreeMap::new())?;
    Ok(())
}

fn check_arity(node: &crate::Node) -> Result<(), VerifyError> {
    let arity = node.op.arity();
    let op = || node.op.name().to_owned();
    for (what, found, (least, most)) in [
        ("inputs", node.inputs.len(), arity.inputs),
        ("outputs", node.outputs.len(), arity.outputs),
    ] {
        if !(least..=most).contains(&found) {
            let expected = match most {
                usize::MAX => format!("at least {least}"),
                _ if least == most => format!("{least}"),
                _ => format!("{least} to {most}"),
            };
            return Err(VerifyError::Arity {
                node: node.name.clone(),
                op: op(),
                what,
                found,
                expected,
            });
        }
    }
    let missing = |what, at| VerifyError::Missing { node: node.name.clone(), op: op(), what, at };
    if let Some(at) = (0..arity.inputs.0).find(|&i| node.input(i).is_none()) {
        return Err(missing("input", at));
    }
    if let Some(at) = (0..arity.outputs.0).find(|&i| node.outputs[i].is_none()) {
        return Err(missing("output", at));
    }
    if node.outputs.iter().all(Option::is_none) {
        return Err(missing("output", 0));
    }
    Ok(())
}
