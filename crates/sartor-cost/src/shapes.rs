//! Shapes at a concrete batch.

use std::collections::BTreeMap;

use sartor_ir::{DType, Dim, Fact, Graph, TensorType, ValueId, infer_facts};

use crate::CostError;

/// What is known of every value at one batch.
pub(crate) struct Shapes {
    facts: Vec<Option<Fact>>,
    elements: Vec<Option<u64>>,
}

impl Shapes {
    /// Infers all shapes with the batch in place.
    pub(crate) fn infer(graph: &Graph, batch: usize) -> Result<Self, CostError> {
        let inputs = concrete_inputs(graph, batch)?;
        let facts =
            infer_facts(graph, &inputs).map_err(|error| CostError::Infer { batch, error })?;
        let count = |fact: &Option<Fact>| {
            let shape = fact.as_ref()?.ty.shape.as_ref()?;
            shape.iter().try_fold(1u64, |n, dim| Some(n.saturating_mul(dim.known()? as u64)))
        };
        Ok(Shapes { elements: facts.iter().map(count).collect(), facts })
    }

    /// All extents, if known.
    pub(crate) fn dims(&self, value: ValueId) -> Option<Vec<usize>> {
        self.facts[value.index()].as_ref()?.ty.dims()
    }

    /// Number of elements, if known.
    pub(crate) fn elements(&self, value: ValueId) -> Option<u64> {
        self.elements[value.index()]
    }

    /// Element type, if known.
    pub(crate) fn dtype(&self, value: ValueId) -> Option<DType> {
        Some(self.facts[value.index()].as_ref()?.ty.dtype)
    }

    /// Whether the contents are known ahead of a run, as those of shapes are.
    pub(crate) fn contents_known(&self, value: ValueId) -> bool {
        let fact = self.facts[value.index()].as_ref();
        fact.is_some_and(|it| it.value.is_some() && it.integers().is_some())
    }
}

/// The graph inputs with the batch in place; empty if nothing changes. The batch is the first extent of the first input, and
/// every extent of its name; other inputs follow where they begin with a name or with the same number.
fn concrete_inputs(
    graph: &Graph,
    batch: usize,
) -> Result<BTreeMap<ValueId, TensorType>, CostError> {
    let inputs: Vec<_> =
        graph.inputs().iter().filter(|&&id| graph.constant(id).is_none()).collect();
    let shape = |id: ValueId| graph.value(id).ty.as_ref().and_then(|ty| ty.shape.as_ref());
    let leading: Vec<&Dim> = inputs.iter().filter_map(|&&id| shape(id)?.first()).collect();
    let is_batch = |axis: usize, dim: &Dim| match dim {
        Dim::Symbol(_) => axis == 0 || leading.contains(&dim),
        Dim::Unknown => axis == 0,
        Dim::Known(_) => axis == 0 && leading.first() == Some(&dim),
    };
    let mut concrete = BTreeMap::new();
    let mut changed = false;
    for &&id in &inputs {
        let value = graph.value(id);
        let (Some(ty), Some(shape)) = (&value.ty, shape(id)) else {
            let origin = "the graph input has no declared shape, give it one".to_owned();
            return Err(CostError::UnknownShape { value: value.name.clone(), origin });
        };
        let extent = |(axis, dim): (usize, &Dim)| match dim.known() {
            _ if is_batch(axis, dim) => Ok(Dim::Known(batch)),
            Some(_) => Ok(dim.clone()),
            None => Err(CostError::OpenExtent {
                input: value.name.clone(),
                axis,
                extent: dim.to_string(),
            }),
        };
        let dims = shape.iter().enumerate().map(extent).collect::<Result<Vec<_>, _>>()?;
        changed |= dims != *shape;
        concrete.insert(id, TensorType::new(ty.dtype, dims));
    }
    Ok(if changed { concrete } else { BTreeMap::new() })
}
