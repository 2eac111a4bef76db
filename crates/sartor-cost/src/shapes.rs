//! Shapes at a concrete batch.

use std::{collections::BTreeMap, sync::Arc};

use sartor_ir::{DType, Dim, Fact, Graph, TensorType, ValueId, infer_facts};

use crate::CostError;

/// What is known of every value at one batch. A copy is cheap: only the extents are copied, so that some may change.
#[derive(Clone)]
pub(crate) struct Shapes {
    facts: Arc<[Option<Fact>]>,
    /// By value: where its extents begin, and its rank; `None` if not all are known.
    spans: Arc<[Option<(u32, u32)>]>,
    extents: Vec<usize>,
    elements: Vec<Option<u64>>,
}

/// Lengths that open extents of inputs are tried with, until all shapes fit.
const LENGTHS: [usize; 6] = [512, 576, 1024, 256, 128, 2048];

impl Shapes {
    /// Infers all shapes with the batch in place; also says what was assumed for open extents.
    pub(crate) fn infer(graph: &Graph, batch: usize) -> Result<(Self, Vec<String>), CostError> {
        let mut first = None;
        for length in LENGTHS {
            let (inputs, assumed) = concrete_inputs(graph, batch, length)?;
            match infer_facts(graph, &inputs) {
                Ok(facts) => return Ok((Self::of(facts), assumed)),
                Err(error) => first = first.or(Some(CostError::Infer { batch, error })),
            }
            if assumed.is_empty() {
                break;
            }
        }
        Err(first.expect("one length was tried"))
    }

    /// The shapes of inferred facts.
    pub(crate) fn of(facts: Vec<Option<Fact>>) -> Self {
        let mut extents = Vec::new();
        let spans: Vec<_> = facts
            .iter()
            .map(|fact| {
                let dims = fact.as_ref()?.ty.dims()?;
                let start = extents.len() as u32;
                extents.extend_from_slice(&dims);
                Some((start, dims.len() as u32))
            })
            .collect();
        let mut shapes = Shapes {
            facts: facts.into(),
            elements: vec![None; spans.len()],
            spans: spans.into(),
            extents,
        };
        for value in 0..shapes.spans.len() {
            shapes.count(ValueId::from_index(value));
        }
        shapes
    }

    fn count(&mut self, value: ValueId) {
        let count = self.dims(value).map(product);
        self.elements[value.index()] = count;
    }

    /// Gives `value` another extent along `axis`; `false` if it has no such axis or its shape is not known.
    pub(crate) fn set(&mut self, value: ValueId, axis: usize, extent: usize) -> bool {
        let Some((start, rank)) = self.spans.get(value.index()).copied().flatten() else {
            return false;
        };
        if axis >= rank as usize {
            return false;
        }
        self.extents[start as usize + axis] = extent;
        self.count(value);
        true
    }

    /// All extents, if known.
    pub(crate) fn dims(&self, value: ValueId) -> Option<&[usize]> {
        let (start, rank) = self.spans[value.index()]?;
        Some(&self.extents[start as usize..(start + rank) as usize])
    }

    /// Number of elements, if known.
    pub(crate) fn elements(&self, value: ValueId) -> Option<u64> {
        self.elements[value.index()]
    }

    /// Element type, if known.
    pub(crate) fn dtype(&self, value: ValueId) -> Option<DType> {
        Some(self.facts[value.index()].as_ref()?.ty.dtype)
    }

    /// What was inferred of a value, before any extent was changed.
    pub(crate) fn fact(&self, value: ValueId) -> Option<&Fact> {
        self.facts[value.index()].as_ref()
    }

    /// Type with the present extents, if known.
    pub(crate) fn ty(&self, value: ValueId) -> Option<TensorType> {
        Some(TensorType::fixed(self.dtype(value)?, self.dims(value)?))
    }

    /// The contents, if they are known integers.
    pub(crate) fn integers(&self, value: ValueId) -> Option<Vec<i64>> {
        self.facts[value.index()].as_ref()?.integers()
    }

    /// Whether the contents are known ahead of a run, as those of shapes are.
    pub(crate) fn contents_known(&self, value: ValueId) -> bool {
        let fact = self.facts[value.index()].as_ref();
        fact.is_some_and(|it| it.value.is_some() && it.integers().is_some())
    }
}

/// The product of extents, saturating.
pub(crate) fn product(extents: &[usize]) -> u64 {
    extents.iter().fold(1, |n: u64, &it| n.saturating_mul(it as u64))
}

/// Graph inputs with concrete extents, and what was assumed of them.
type Inputs = (BTreeMap<ValueId, TensorType>, Vec<String>);

/// The graph inputs with the batch in place; empty if nothing changes. The batch is the first extent of the first input, and
/// every extent of its name; other inputs follow where they begin with a name or with the same number. Other open extents get
/// `length`.
fn concrete_inputs(graph: &Graph, batch: usize, length: usize) -> Result<Inputs, CostError> {
    let inputs: Vec<_> =
        graph.inputs().iter().filter(|&&id| graph.constant(id).is_none()).collect();
    let shape = |id: ValueId| graph.value(id).ty.as_ref().and_then(|ty| ty.shape.as_ref());
    let leading: Vec<&Dim> = inputs.iter().filter_map(|&&id| shape(id)?.first()).collect();
    let is_batch = |axis: usize, dim: &Dim| match dim {
        Dim::Symbol(_) => axis == 0 || leading.contains(&dim),
        Dim::Unknown => axis == 0,
        Dim::Known(_) => axis == 0 && leading.first() == Some(&dim),
    };
    let (mut concrete, mut assumed) = (BTreeMap::new(), Vec::new());
    let mut changed = false;
    for &&id in &inputs {
        let value = graph.value(id);
        let (Some(ty), Some(shape)) = (&value.ty, shape(id)) else {
            let origin = "the graph input has no declared shape, give it one".to_owned();
            return Err(CostError::UnknownShape { value: value.name.clone(), origin });
        };
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, dim) in shape.iter().enumerate() {
            dims.push(match dim.known() {
                _ if is_batch(axis, dim) => Dim::Known(batch),
                Some(_) => dim.clone(),
                None => {
                    let name = &value.name;
                    assumed.push(format!("extent `{dim}` of input `{name}` is taken as {length}"));
                    Dim::Known(length)
                }
            });
        }
        changed |= dims != *shape;
        concrete.insert(id, TensorType::new(ty.dtype, dims));
    }
    Ok((if changed { concrete } else { BTreeMap::new() }, assumed))
}
