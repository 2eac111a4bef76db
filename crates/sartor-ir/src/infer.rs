//! Type and shape inference: the driver; the rules live in `op/*`.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{DType, Graph, IntegerTensor, NodeId, Tensor, TensorType, ValueId, integer};

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Its type.
    pub ty: TensorType,
    /// Its contents, if it is a small integer tensor that can be computed ahead.
    pub value: Option<IntegerTensor>,
    /// Its contents, if it is a small constant of floats: the scales of a `Resize`, for instance.
    pub floats: Option<Vec<f32>>,
}

/// More floats than this do not say anything about shapes.
const MOST_FLOATS: usize = 64;

impl Fact {
    /// A type and no contents.
    pub fn of(ty: TensorType) -> Self {
        Fact { ty, value: None, floats: None }
    }

    /// What a constant says.
    pub fn constant(tensor: &Tensor) -> Self {
        let small = tensor.dtype().is_float() && tensor.len() <= MOST_FLOATS;
        Fact {
            ty: tensor.ty(),
            value: IntegerTensor::read(tensor),
            floats: small.then(|| tensor.to_f32().ok()).flatten(),
        }
    }

    /// Another element type, contents dropped.
    #[must_use]
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Fact::of(TensorType { dtype, shape: self.ty.shape.clone() })
    }

    /// The contents as numbers, if all are known.
    pub fn integers(&self) -> Option<Vec<i64>> {
        self.value.as_ref()?.known()
    }
}

/// Shapes that do not fit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("node `{node}` ({op}): {problem}")]
pub struct InferError {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// What does not fit, with the shapes.
    pub problem: String,
}

/// Infers the facts of every value into a table by [`ValueId::index`]. `inputs` replaces the declared
/// types of some graph inputs, for instance with a concrete batch; declared types of other values only
/// fill in what inference leaves open, and only if `inputs` is empty (they may speak of another batch).
///
/// # Errors
/// The first node, in topological order, whose input shapes do not fit, or whose output contradicts its
/// declared type.
pub fn infer_facts(
    graph: &Graph,
    inputs: &BTreeMap<ValueId, TensorType>,
) -> Result<Vec<Option<Fact>>, InferError> {
    let mut facts: Vec<Option<Fact>> = vec![None; graph.value_count()];
    for (id, value) in graph.values() {
        if let Some(tensor) = &value.constant {
            facts[id.index()] = Some(Fact::constant(tensor));
        } else if graph.producer(id).is_none() {
            facts[id.index()] = inputs.get(&id).or(value.ty.as_ref()).cloned().map(Fact::of);
        }
    }
    for (id, node) in graph.nodes() {
        let captured = node.captures.iter().map(|it| facts[it.index()].as_ref());
        let inputs_known =
            node.inputs.iter().map(|it| it.and_then(|it| facts[it.index()].as_ref()));
        let given: Vec<_> = inputs_known.chain(captured).collect();
        let error = |problem| error_at(graph, id, problem);
        let mut made = node.op.infer(&given, node.outputs.len()).map_err(error)?;
        if let [Some(fact)] = made.as_mut_slice() {
            // The rule of `Shape` knows the contents by itself.
            let known = fact.value.take();
            fact.value = known.or_else(|| integer::evaluate(&node.op, &given, fact));
        }
        for (&output, fact) in node.outputs.iter().zip(made) {
            let Some(output) = output else { continue };
            let declared = if inputs.is_empty() { graph.value(output).ty.as_ref() } else { None };
            facts[output.index()] = joined(fact, declared).map_err(error)?;
        }
    }
    Ok(facts)
}

/// Infers and stores the types of all values of `graph`.
///
/// # Errors
/// As [`infer_facts`].
pub fn infer(graph: &mut Graph) -> Result<(), InferError> {
    let facts = infer_facts(graph, &BTreeMap::new())?;
    let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
    for (id, fact) in ids.into_iter().zip(facts) {
        if let Some(fact) = fact {
            graph.set_type(id, Some(fact.ty));
        }
    }
    Ok(())
}

/// What inference and declaration know together.
fn joined(fact: Option<Fact>, declared: Option<&TensorType>) -> Result<Option<Fact>, String> {
    let (fact, declared) = match (fact, declared) {
        (None, None) => return Ok(None),
        (Some(fact), None) => return Ok(Some(fact)),
        (None, Some(declared)) => return Ok(Some(Fact::of(declared.clone()))),
        (Some(fact), Some(declared)) => (fact, declared),
    };
    if !fact.ty.compatible(declared) {
        return Err(format!("the output is {}, the file declares {declared}", fact.ty));
    }
    let shape = match (&fact.ty.shape, &declared.shape) {
        (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(a, b)| a.or(b)).collect()),
        (a, b) => a.clone().or_else(|| b.clone()),
    };
    Ok(Some(Fact { ty: TensorType { dtype: fact.ty.dtype, shape }, ..fact }))
}

fn error_at(graph: &Graph, id: NodeId, problem: String) -> InferError {
    let node = graph.node(id);
    let unnamed = || {
        node.outputs
            .iter()
            .flatten()
            .next()
            .map_or_else(String::new, |&it| graph.value(it).name.clone())
    };
    let name = if node.name.is_empty() { unnamed() } else { node.name.clone() };
    InferError { node: name, op: node.op.name().to_owned(), problem }
}
