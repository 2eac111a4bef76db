//! How much a channel matters, judged by its weights.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{Graph, Op, Tensor, ValueId};
use serde::{Deserialize, Serialize};

use super::groups::{Group, Groups};

/// The norm of a channel's slice of a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// Sum of magnitudes (Li et al. 2017, "Pruning Filters for Efficient `ConvNets`",
    /// <https://arxiv.org/abs/1608.08710>).
    #[default]
    L1,
    /// Root of the sum of squares.
    L2,
}

/// The importance of every channel of every group, in the order of [`Groups::all`].
///
/// As in `DepGraph` (Fang et al. 2023, <https://arxiv.org/abs/2301.12900>) all weights that a channel runs
/// through speak for it: of each weight of `Conv`, `Gemm` and `MatMul` on either side, and of each scale of
/// `BatchNormalization`, the norm of the channel's slice is divided by the mean norm over the group, and the
/// quotients are averaged over the weights. An importance of 1 is the group's average, whatever the sizes of
/// the layers; a group none of whose weights is a constant of 1s everywhere.
pub fn importance(graph: &Graph, groups: &Groups, criterion: Criterion) -> Vec<Vec<f64>> {
    let weights = weights(graph);
    let mut slices = BTreeMap::new();
    groups
        .all()
        .iter()
        .map(|group| of_group(group, graph, &weights, criterion, &mut slices))
        .collect()
}

/// Sums over one index of one axis, by (value, axis).
type Slices = BTreeMap<(ValueId, usize), Vec<f64>>;

fn of_group(
    group: &Group,
    graph: &Graph,
    weights: &BTreeSet<ValueId>,
    criterion: Criterion,
    slices: &mut Slices,
) -> Vec<f64> {
    let mut totals = vec![0.0; group.size()];
    let mut members = 0usize;
    for (at, &(value, axis)) in group.axes.iter().enumerate() {
        let Some(tensor) = graph.constant(value).filter(|_| weights.contains(&value)) else {
            continue;
        };
        let sums =
            slices.entry((value, axis)).or_insert_with(|| slice_sums(tensor, axis, criterion));
        let norms: Vec<f64> =
            group.channels.iter().map(|it| norm(&it.0, group.axes[at], sums, criterion)).collect();
        let mean = norms.iter().sum::<f64>() / norms.len() as f64;
        if mean > 0.0 && mean.is_finite() {
            totals.iter_mut().zip(&norms).for_each(|(total, norm)| *total += norm / mean);
            members += 1;
        }
    }
    if members == 0 {
        return vec![1.0; group.size()];
    }
    totals.iter().map(|it| it / members as f64).collect()
}

fn norm(cells: &[super::Cell], on: (ValueId, usize), sums: &[f64], criterion: Criterion) -> f64 {
    // Cells are in order of value and axis: those on this axis stand together.
    let start = cells.partition_point(|it| (it.value, it.axis) < on);
    let run = cells[start..].iter().take_while(|it| (it.value, it.axis) == on);
    let sum: f64 = run.map(|it| sums.get(it.index).copied().unwrap_or(0.0)).sum();
    match criterion {
        Criterion::L1 => sum,
        Criterion::L2 => sum.sqrt(),
    }
}

/// The constants that are judged.
fn weights(graph: &Graph) -> BTreeSet<ValueId> {
    let mut weights = BTreeSet::new();
    for (_, node) in graph.nodes() {
        let operands: &[usize] = match node.op {
            Op::Conv(_) | Op::Gemm(_) | Op::BatchNormalization(_) => &[1],
            Op::MatMul => &[0, 1],
            _ => &[],
        };
        weights.extend(
            operands
                .iter()
                .filter_map(|&i| node.input(i))
                .filter(|&it| graph.constant(it).is_some()),
        );
    }
    weights
}

/// The sum of magnitudes, or of squares, over each index of `axis`; empty for a type that is not read.
fn slice_sums(tensor: &Tensor, axis: usize, criterion: Criterion) -> Vec<f64> {
    let Ok(values) = tensor.to_f32() else { return Vec::new() };
    let extent = tensor.shape()[axis];
    let inner: usize = tensor.shape()[axis + 1..].iter().product();
    let mut sums = vec![0.0; extent];
    for (i, run) in values.chunks_exact(inner.max(1)).enumerate() {
        let one = |it: &f32| match criterion {
            Criterion::L1 => f64::from(it.abs()),
            Criterion::L2 => f64::from(*it) * f64::from(*it),
        };
        sums[i % extent] += run.iter().map(one).sum::<f64>();
    }
    sums
}
