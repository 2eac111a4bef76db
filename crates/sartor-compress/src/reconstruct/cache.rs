//! What flows between two segments, for all samples: as the float network makes it, and as the quantized one does.

use std::collections::BTreeMap;

use sartor_engine::{Array, Program};
use sartor_ir::{Graph, TensorType, ValueId, infer_facts};

use super::{Reconstruct, segments::Segment};
use crate::{
    CompressError, Samples,
    calibrate::{fixed_batch, run_error},
    samples::First,
};

/// Values by id, the samples along axis 0.
pub(super) type Values = BTreeMap<ValueId, Array>;

/// What flows between two segments.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    pub(super) float: Values,
    pub(super) quantized: Values,
    samples: usize,
}

impl Cache {
    /// The network's inputs, and how many samples run at once. Of the samples, as many are taken as the configuration
    /// wants and its memory holds, a whole number of batches.
    pub(super) fn new(
        graph: &Graph,
        segments: &[Segment],
        samples: &dyn Samples,
        config: &Reconstruct,
    ) -> Result<(Self, usize), CompressError> {
        let wanted = config.samples.min(samples.len());
        let batch = fixed_batch(graph).unwrap_or(config.batch.min(wanted)).max(1);
        if wanted < batch {
            let problem = format!("{wanted} samples, the network takes {batch} at once");
            return Err(CompressError::Samples(problem));
        }
        let mut first = None;
        First::of(samples, batch).for_each(batch, &mut |inputs| {
            first = Some(inputs.to_vec());
            Ok(())
        })?;
        let first = first.ok_or_else(|| CompressError::Samples("there is no sample".to_owned()))?;
        let bytes = bytes_per_sample(graph, segments, &first)?;
        let fits = (config.memory_mib << 20) / bytes.max(1);
        let count = wanted.min(fits).max(batch) / batch * batch;
        let mut inputs: Vec<Vec<Array>> = vec![Vec::new(); graph.inputs().len()];
        First::of(samples, count).for_each(batch, &mut |arrays| {
            inputs.iter_mut().zip(arrays).for_each(|(all, it)| all.push(it.clone()));
            Ok(())
        })?;
        let joined = inputs.iter().zip(graph.inputs()).map(|(parts, &id)| Ok((id, join(parts)?)));
        let float: Values = joined.collect::<Result<_, CompressError>>()?;
        Ok((Cache { quantized: float.clone(), float, samples: count }, batch))
    }

    /// Number of samples.
    pub(super) fn len(&self) -> usize {
        self.samples
    }

    /// What the segments after `segment` need of the cache and of what it made.
    pub(super) fn advance(&mut self, segment: &Segment, (float, quantized): (Values, Values)) {
        for (own, new) in [(&mut self.float, float), (&mut self.quantized, quantized)] {
            own.extend(new);
            own.retain(|it, _| segment.alive.contains(it));
        }
    }
}

/// Some samples of the values that a segment reads.
pub(super) fn rows(
    values: &Values,
    ids: &[ValueId],
    rows: &[usize],
) -> Result<Vec<Array>, CompressError> {
    let one = |id: &ValueId| {
        let all = values
            .get(id)
            .ok_or_else(|| CompressError::Run("a stored activation is missing".to_owned()))?;
        let row: usize = all.shape[1..].iter().product();
        let mut shape = all.shape.clone();
        shape[0] = rows.len();
        let data = all.data.runs(rows.iter().map(|it| it * row..(it + 1) * row));
        Ok(Array { shape, data })
    };
    ids.iter().map(one).collect()
}

/// Runs a piece on all samples and shows `visit` what the program watches, batch by batch.
pub(super) fn run(
    program: &Program,
    segment: &Segment,
    values: &Values,
    batch: usize,
    visit: &mut dyn FnMut(ValueId, &Array),
) -> Result<Values, CompressError> {
    let count = values.values().next().map_or(0, |it| it.shape[0]);
    let mut parts: Vec<Vec<Array>> = vec![Vec::new(); segment.outputs.len()];
    for start in (0..count).step_by(batch) {
        let chosen: Vec<usize> = (start..(start + batch).min(count)).collect();
        let inputs = rows(values, &segment.inputs, &chosen)?;
        let outputs = program.run_observed(&inputs, visit).map_err(run_error)?;
        parts.iter_mut().zip(outputs).for_each(|(all, it)| all.push(it));
    }
    let joined = segment.outputs.iter().zip(&parts).map(|(&id, parts)| Ok((id, join(parts)?)));
    joined.collect()
}

/// Arrays one behind the other along axis 0.
fn join(parts: &[Array]) -> Result<Array, CompressError> {
    let first =
        parts.first().ok_or_else(|| CompressError::Samples("there is no sample".to_owned()))?;
    let mut shape = first.shape.clone();
    let Some(extent) = shape.first_mut() else {
        return Err(CompressError::Samples("an array has no axis of samples".to_owned()));
    };
    *extent = parts.iter().map(|it| it.shape[0]).sum();
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part.to_tensor().data());
    }
    let tensor = sartor_ir::Tensor::new(first.dtype(), shape, bytes);
    let tensor = tensor.map_err(run_error)?;
    Array::from_tensor(&tensor)
        .ok_or_else(|| CompressError::Run("an activation of no known type".to_owned()))
}

/// Bytes that the segments keep of a sample at most.
fn bytes_per_sample(
    graph: &Graph,
    segments: &[Segment],
    first: &[Array],
) -> Result<usize, CompressError> {
    let given = graph.inputs().iter().zip(first);
    let types = given.map(|(&id, it)| (id, TensorType::fixed(it.dtype(), &it.shape))).collect();
    let facts = infer_facts(graph, &types)?;
    let batch = first.first().and_then(|it| it.shape.first()).copied().unwrap_or(1).max(1);
    let size = |id: ValueId| {
        let dims = facts[id.index()].as_ref().and_then(|it| it.ty.dims()).unwrap_or_default();
        dims.iter().product::<usize>() / batch
    };
    let mut most = 0;
    let mut before: Vec<ValueId> = graph.inputs().to_vec();
    for segment in segments {
        let floats: usize = before.iter().chain(&segment.outputs).map(|it| size(*it)).sum();
        // Both networks' values.
        most = most.max(2 * size_of::<f32>() * floats);
        before = segment.alive.iter().copied().collect();
    }
    Ok(most)
}
