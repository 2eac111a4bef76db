//! Counts that need no chip.

use sartor_chip::{Macs, Reduction, Unroll};
use sartor_ir::Graph;

use crate::{
    CostError,
    inline::flatten,
    op::{Product, work},
    shapes::Shapes,
};

/// Multiply-accumulates of one run of `batch` samples.
///
/// # Errors
/// Shapes that cannot be inferred.
pub fn macs(graph: &Graph, batch: usize) -> Result<Macs, CostError> {
    total(graph, batch, |it| Macs(it.macs()))
}

/// Multiply-accumulates of one run of `batch` samples, with input and output channels of each group rounded up
/// to multiples of `grain`: the work of a `grain` × `grain` array that walks over taps and positions.
/// Depthwise convolutions, which have one input channel to each output, count their output channels only.
///
/// # Errors
/// Shapes that cannot be inferred.
pub fn square_slots(graph: &Graph, batch: usize, grain: u64) -> Result<Macs, CostError> {
    let dense = Unroll { k: grain, taps: 1, n: grain, m: 1, reduction: Reduction::Channels };
    let depthwise = Unroll { k: 1, ..dense };
    total(graph, batch, |it| {
        if it.depthwise {
            return depthwise.mac_slots(it.channels, it.taps, it.all_outputs(), it.positions);
        }
        dense.mac_slots(it.channels, it.taps, it.outputs, it.positions) * it.groups * it.steps
    })
}

fn total(graph: &Graph, batch: usize, count: impl Fn(&Product) -> Macs) -> Result<Macs, CostError> {
    let (graph, _) = flatten(graph, batch)?;
    let (shapes, _) = Shapes::infer(&graph.graph, batch)?;
    let mut sum = 0u64;
    for (id, node) in graph.graph.nodes() {
        let products = work(node, &shapes).map(|it| it.products).unwrap_or_default();
        for it in &products {
            let Macs(all) = count(it) * graph.repeats(id);
            sum = sum.saturating_add(all);
        }
    }
    Ok(Macs(sum))
}
