//! Operators without products: how many elementary steps each output element takes.

use sartor_ir::{Named, Node, Op};

use super::Work;
use crate::shapes::{Shapes, product as size};

/// Passes of a normalization over its data: mean, variance, result.
const NORM_PASSES: f64 = 3.0;

pub(super) fn work(node: &Node, shapes: &Shapes) -> Option<Work> {
    Some(Work::elementwise(match &node.op {
        Op::Softmax(_) | Op::LogSoftmax(_) => NORM_PASSES,
        Op::Pool(it) => size(&it.spatial.kernel) as f64,
        Op::GlobalPool(_) | Op::Reduce(_) => shrinkage(node, shapes)?,
        Op::Named(it) => named(it, node, shapes)?,
        _ => 1.0,
    }))
}

/// Input elements to each output element.
fn shrinkage(node: &Node, shapes: &Shapes) -> Option<f64> {
    let (before, after) = (shapes.elements(node.input(0)?)?, shapes.elements(node.output())?);
    Some((before as f64 / after.max(1) as f64).max(1.0))
}

fn named(op: &Named, node: &Node, shapes: &Shapes) -> Option<f64> {
    let extent = |axis: usize| -> Option<usize> { shapes.dims(node.input(0)?)?.get(axis).copied() };
    Some(match op.name.as_str() {
        "LayerNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "MeanVarianceNormalization"
        | "SkipLayerNormalization" => NORM_PASSES,
        "RMSNormalization" | "SimplifiedLayerNormalization" | "LpNormalization" => 2.0,
        "LRN" => op.int("size", 1).ok()?.max(1) as f64,
        "LpPool" => {
            op.ints("kernel_shape").ok()?.unwrap_or_default().iter().product::<i64>() as f64
        }
        "ArgMax" | "ArgMin" | "GlobalLpPool" => shrinkage(node, shapes)?,
        "Resize" | "Upsample" => {
            let axes = shapes.dims(node.input(0)?)?.len().saturating_sub(2) as i32;
            match op.text("mode", "nearest").ok()? {
                "linear" | "bilinear" => 2f64.powi(axes),
                "cubic" => 4f64.powi(axes),
                _ => 1.0,
            }
        }
        "GridSample" => 4.0,
        "TopK" | "Unique" => {
            let rank = shapes.dims(node.input(0)?)?.len();
            (extent(rank.saturating_sub(1)).unwrap_or(2).max(2) as f64).log2()
        }
        "DFT" | "STFT" => (shapes.elements(node.output())?.max(2) as f64).log2(),
        _ => 1.0,
    })
}
