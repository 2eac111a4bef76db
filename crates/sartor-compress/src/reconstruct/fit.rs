//! Scales and biases fitted to a layer's outputs by least squares.

use std::collections::BTreeMap;

use sartor_engine::Array;
use sartor_ir::{Op, ValueId};

use super::{
    cache::{Cache, Values, run},
    layers::{Layer, Layers},
    optimize::Reconstruction,
    piece::Piece,
};
use crate::CompressError;

/// A scale may change by this factor at most, either way: a fit beyond it is one to noise.
const MOST: f64 = 1.25;

/// Sums over samples and positions for one channel.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    z: f64,
    y: f64,
    zz: f64,
    zy: f64,
}

/// For each layer of a block, in order and given the rounded weights: the scale and the bias of each channel for which the
/// layer's output `a z + b` comes closest to the float one, by linear regression. What does not bring the block closer
/// to its target is undone.
pub(super) fn scales(
    block: &Reconstruction<'_>,
    twin: &Piece,
    layers: &mut Layers,
    cache: &Cache,
    target: &Values,
) -> Result<(), CompressError> {
    let mut best = block.deviation(layers, cache, target)?.0.weighted;
    for i in block.members(layers) {
        let layer = &layers.weights[i];
        let id = block.graph.node(layer.consumer).output();
        if !layer.grid.is_symmetric() || layer.grid.scales.len() < 2 {
            continue;
        }
        let piece = block.piece(layers, cache, true)?;
        let sums = sums(block, (twin, &piece), cache, (id, layer))?;
        let Some(sums) = sums.filter(|it| it.len() == layer.grid.scales.len()) else { continue };
        let before = layers.clone();
        apply(layers, i, &sums);
        let now = block.deviation(layers, cache, target)?.0.weighted;
        if now < best {
            best = now;
        } else {
            *layers = before;
        }
    }
    Ok(())
}

fn apply(layers: &mut Layers, i: usize, sums: &[Sums]) {
    let layer = &mut layers.weights[i];
    let bias = layers
        .biases
        .iter_mut()
        .find(|it| it.consumer == layer.consumer && it.now.len() == sums.len());
    let mut shifts = Vec::with_capacity(sums.len());
    for (scale, it) in layer.grid.scales.iter_mut().zip(sums) {
        let (mean_z, mean_y) = (it.z / it.count, it.y / it.count);
        let (variance, covariance) = if bias.is_some() {
            (it.zz - it.z * mean_z, it.zy - it.z * mean_y)
        } else {
            (it.zz, it.zy)
        };
        let factor =
            if variance > 0.0 { (covariance / variance).clamp(1.0 / MOST, MOST) } else { 1.0 };
        *scale = (f64::from(*scale) * factor) as f32;
        // The output is `a (z - b₀) + b`, with the bias `b₀` that was in `z`.
        shifts.push((factor, mean_y - factor * mean_z));
    }
    if let Some(bias) = bias {
        for (b, (factor, shift)) in bias.now.iter_mut().zip(shifts) {
            *b = (factor * f64::from(*b) + shift) as f32;
        }
    }
}

/// The sums of each channel of the layer's output, quantized (`z`) and float (`y`).
fn sums(
    block: &Reconstruction<'_>,
    (twin, piece): (&Piece, &Piece),
    cache: &Cache,
    (id, layer): (ValueId, &Layer),
) -> Result<Option<Vec<Sums>>, CompressError> {
    let mut seen: [Vec<Array>; 2] = [Vec::new(), Vec::new()];
    let sources = [(twin, &cache.float), (piece, &cache.quantized)];
    for (seen, (piece, values)) in seen.iter_mut().zip(sources) {
        let program = piece.program(&[id])?;
        let own = piece.ids.get(&id).copied();
        run(&program, block.segment, values, block.batch, &mut |it, array| {
            if Some(it) == own {
                seen.push(array.clone());
            }
        })?;
    }
    let last = !matches!(block.graph.node(layer.consumer).op, Op::Conv(_));
    let [float, quantized] = seen;
    let mut sums: BTreeMap<usize, Sums> = BTreeMap::new();
    for (y, z) in float.iter().zip(&quantized) {
        let axis = if last { y.shape.len().saturating_sub(1) } else { 1 };
        let (Some(&extent), Some(ys), Some(zs)) = (y.shape.get(axis), y.as_f32(), z.as_f32())
        else {
            return Ok(None);
        };
        let inner: usize = y.shape[axis + 1..].iter().product();
        for (i, (y, z)) in ys.chunks(inner.max(1)).zip(zs.chunks(inner.max(1))).enumerate() {
            let it = sums.entry(i % extent).or_default();
            for (y, z) in y.iter().zip(z) {
                let (y, z) = (f64::from(*y), f64::from(*z));
                it.count += 1.0;
                it.z += z;
                it.y += y;
                it.zz += z * z;
                it.zy += z * y;
            }
        }
    }
    Ok(Some(sums.into_values().collect()))
}
