//! How much of each node's result is quantization noise.

use std::collections::{BTreeMap, BTreeSet};

use sartor_engine::{Array, Data};
use sartor_ir::{Graph, ValueId};

use super::Quantized;
use crate::{CompressError, InMemory, Samples, calibrate::observe};

/// Fills in `sqnr_db` of every node: `10 log10(Σ x² / Σ (x - y)²)` over all elements of its output, `x` in
/// `float` and `y` in the quantized graph; infinite where both are the same. Memory holds the activations of one
/// batch: a few dozen samples are enough.
///
/// # Errors
/// As for running either graph on the samples.
pub fn measure_sqnr(
    float: &Graph,
    quantized: &mut Quantized,
    samples: &dyn Samples,
) -> Result<(), CompressError> {
    let pairs: Vec<(usize, ValueId, ValueId)> = quantized
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(i, node)| {
            let dequantized = quantized.graph.find_value(&format!("{}_dequantized", node.output));
            let y = dequantized.or_else(|| quantized.graph.find_value(&node.output))?;
            Some((i, float.find_value(&node.output)?, y))
        })
        .collect();
    let watch_float: BTreeSet<ValueId> = pairs.iter().map(|it| it.1).collect();
    let watch_quantized: BTreeSet<ValueId> = pairs.iter().map(|it| it.2).collect();
    let mut sums: BTreeMap<(ValueId, ValueId), (f64, f64)> = BTreeMap::new();
    let batch = samples.len().min(64);
    samples.for_each(batch, &mut |inputs| {
        let part = InMemory::new(inputs.to_vec())?;
        let (mut signal, mut noisy) = (BTreeMap::new(), BTreeMap::new());
        let keep = |into: &mut BTreeMap<ValueId, Vec<f32>>, id, array: &Array| {
            if let Data::F32(values) = &array.data {
                into.entry(id).or_default().extend_from_slice(values);
            }
            Ok(())
        };
        let silent = &mut |_: usize, _: usize| {};
        observe(float, &watch_float, &part, silent, &mut |id, array| keep(&mut signal, id, array))?;
        observe(&quantized.graph, &watch_quantized, &part, silent, &mut |id, array| {
            keep(&mut noisy, id, array)
        })?;
        for (_, x_id, y_id) in &pairs {
            let (Some(x), Some(y)) = (signal.get(x_id), noisy.get(y_id)) else { continue };
            let sum = sums.entry((*x_id, *y_id)).or_default();
            for (x, y) in x.iter().zip(y) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                sum.0 += x * x;
                sum.1 += (x - y) * (x - y);
            }
        }
        Ok(())
    })?;
    for (i, x, y) in pairs {
        quantized.nodes[i].sqnr_db =
            sums.get(&(x, y)).map(|(signal, noise)| 10.0 * (signal / noise).log10());
    }
    Ok(())
}
