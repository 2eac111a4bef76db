//! How much the network's outputs depend on each element of a block's output.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sartor_engine::{
    Array,
    train::{BatchNormMode, Gradients, Parameters, Tape, TapeOptions},
};
use sartor_ir::{Graph, ValueId};

use super::{
    Reconstruct,
    cache::{Cache, rows},
    layers::Layers,
    piece::Piece,
    segments::Segment,
};
use crate::{CompressError, calibrate::run_error};

/// For each output of a segment the weight of each element of a sample, 1 on average: the diagonal of `Jᵀ J`, with `J` the
/// derivative of the network's outputs, which is the Fisher information of outputs with normal noise of one size (Li et
/// al. 2021, section 3.3, uses that of the labels). It is estimated as the mean of `(Jᵀ r)²` over the samples, with
/// random signs `r` (Hutchinson 1990), by one pass of the float network forward and backward.
pub(super) fn weights(
    graph: &Graph,
    layers: &Layers,
    segments: &[Segment],
    cache: &Cache,
    (config, batch): (&Reconstruct, usize),
) -> Result<BTreeMap<ValueId, Vec<f32>>, CompressError> {
    let whole = Segment {
        nodes: segments.iter().flat_map(|it| it.nodes.clone()).collect(),
        inputs: graph.inputs().to_vec(),
        outputs: graph.outputs().to_vec(),
        alive: BTreeSet::new(),
    };
    let first: Vec<usize> = (0..batch).collect();
    let given = rows(&cache.float, &whole.inputs, &first)?;
    let piece = Piece::extract(graph, &whole, &layers.constants(true), false, &given)?;
    let outputs: Vec<ValueId> = segments.iter().flat_map(|it| it.outputs.clone()).collect();
    let watch: Vec<ValueId> = outputs.iter().map(|it| piece.ids[it]).collect();
    let options = TapeOptions {
        watch: watch.clone(),
        batch_norm: BatchNormMode::Frozen,
        ..TapeOptions::default()
    };
    let mut tape = Tape::prepare(&piece.graph, &piece.shapes, &options).map_err(run_error)?;
    let mut parameters = Parameters::from_graph(&piece.graph, &[]).map_err(run_error)?;
    let mut gradients = Gradients::new(&parameters);
    let mut numbers = ChaCha8Rng::seed_from_u64(config.seed);
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); outputs.len()];
    for start in (0..cache.len()).step_by(batch) {
        let chosen: Vec<usize> = (start..start + batch).collect();
        let inputs = rows(&cache.float, &whole.inputs, &chosen)?;
        let made = tape.forward(&mut parameters, &inputs).map_err(run_error)?;
        let signs: Vec<_> = made.iter().map(|it| Some(random_signs(it, &mut numbers))).collect();
        tape.backward(&parameters, &signs, &mut gradients).map_err(run_error)?;
        for (sum, id) in sums.iter_mut().zip(&watch) {
            let Some(values) = tape.value_gradient(*id).and_then(Array::as_f32) else { continue };
            let row = values.len() / batch;
            sum.resize(row, 0.0);
            for (i, g) in values.iter().enumerate() {
                sum[i % row] += f64::from(g * g);
            }
        }
    }
    let normal = |(id, sum): (ValueId, &Vec<f64>)| {
        let mean = sum.iter().sum::<f64>() / sum.len() as f64;
        (id, sum.iter().map(|it| if mean > 0.0 { (it / mean) as f32 } else { 1.0 }).collect())
    };
    Ok(outputs.into_iter().zip(&sums).filter(|it| !it.1.is_empty()).map(normal).collect())
}

fn random_signs(like: &Array, numbers: &mut ChaCha8Rng) -> Array {
    let sign = |_: usize| if numbers.next_u32() & 1 == 0 { 1.0 } else { -1.0 };
    Array::f32(&like.shape, (0..like.len()).map(sign).collect())
}
