//! Cutting a network into pieces that are reconstructed one after the other.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{DType, Graph, NodeId, Op, ValueId};

use super::{Granularity, layers::Layers};

/// Layers that are reconstructed at once at most: a larger block is taken layer by layer.
const MOST_LAYERS: usize = 8;

/// Nodes that follow each other in the order of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) nodes: Vec<NodeId>,
    /// What it reads of segments before and of the network's inputs.
    pub(super) inputs: Vec<ValueId>,
    /// What segments after it read, and outputs of the network.
    pub(super) outputs: Vec<ValueId>,
    /// Everything that segments after it read, whoever made it.
    pub(super) alive: BTreeSet<ValueId>,
}

/// A place between two nodes.
struct Cut {
    /// Nodes before it.
    end: usize,
    alive: BTreeSet<ValueId>,
}

/// Cuts where everything flows through one value or, for single layers, through some; each segment has a layer.
pub(super) fn cut(graph: &Graph, layers: &Layers, unit: Granularity) -> Vec<Segment> {
    let nodes: Vec<NodeId> =
        graph.nodes().map(|it| it.0).filter(|it| !layers.constant_nodes.contains(it)).collect();
    let cuts = cuts(graph, &nodes);
    let weighted = |range: std::ops::Range<usize>| {
        let inside = |it: &&super::layers::Layer| nodes[range.clone()].contains(&it.consumer);
        layers.weights.iter().filter(inside).count()
    };
    let choose = |from: usize, to: usize, narrow: bool| {
        let mut chosen: Vec<usize> = Vec::new();
        let mut begin = from;
        for (i, cut) in cuts.iter().enumerate() {
            let fits = cut.end > begin && cut.end < to && (!narrow || cut.alive.len() == 1);
            // What remains behind the last layer goes with it.
            if fits && weighted(begin..cut.end) > 0 && weighted(cut.end..nodes.len()) > 0 {
                chosen.push(i);
                begin = cut.end;
            }
        }
        chosen
    };
    let mut ends = Vec::new();
    if unit == Granularity::Layer {
        ends = choose(0, nodes.len(), false);
    } else {
        let mut begin = 0;
        let blocks = choose(0, nodes.len(), true);
        for end in blocks.into_iter().map(Some).chain([None]) {
            let to = end.map_or(nodes.len(), |it| cuts[it].end);
            if weighted(begin..to) > MOST_LAYERS {
                ends.extend(choose(begin, to, false));
            }
            ends.extend(end);
            begin = to;
        }
    }
    let mut segments = Vec::new();
    let mut begin = 0;
    let mut before: BTreeSet<ValueId> = graph.inputs().iter().copied().collect();
    for end in ends.into_iter().map(Some).chain([None]) {
        let (to, alive) =
            end.map_or((nodes.len(), BTreeSet::new()), |it| (cuts[it].end, cuts[it].alive.clone()));
        segments.push(segment(graph, &nodes[begin..to], &before, alive.clone()));
        (begin, before) = (to, alive);
    }
    segments
}

fn segment(
    graph: &Graph,
    nodes: &[NodeId],
    before: &BTreeSet<ValueId>,
    alive: BTreeSet<ValueId>,
) -> Segment {
    let read: BTreeSet<ValueId> =
        nodes.iter().flat_map(|it| graph.node(*it).reads().collect::<Vec<_>>()).collect();
    let made = nodes
        .iter()
        .flat_map(|it| graph.node(*it).outputs.iter().flatten().copied().collect::<Vec<_>>());
    let shown = |it: &ValueId| alive.contains(it) || graph.outputs().contains(it);
    let outputs = made.filter(shown).collect();
    let inputs = before.iter().copied().filter(|it| read.contains(it)).collect();
    Segment { nodes: nodes.to_vec(), inputs, outputs, alive }
}

/// Places where all that is alive can be stored sample by sample, and where a result is complete.
fn cuts(graph: &Graph, nodes: &[NodeId]) -> Vec<Cut> {
    let mut last: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (i, id) in nodes.iter().enumerate() {
        last.extend(graph.node(*id).reads().map(|it| (it, i)));
    }
    let stored = |it: &ValueId| is_stored(graph, *it);
    let mut alive: BTreeSet<ValueId> =
        graph.inputs().iter().copied().filter(|it| last.contains_key(it)).collect();
    let consumers = graph.consumers();
    let mut cuts = Vec::new();
    for (i, id) in nodes.iter().enumerate() {
        let node = graph.node(*id);
        let made: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        alive.extend(made.iter().filter(|it| last.contains_key(it)));
        alive.retain(|it| last[it] > i);
        let complete = made.iter().all(|it| is_complete(graph, consumers.of(*it)));
        if complete && !alive.is_empty() && alive.iter().all(stored) && !is_quantizer(&node.op) {
            cuts.push(Cut { end: i + 1, alive: alive.clone() });
        }
    }
    cuts
}

fn is_quantizer(op: &Op) -> bool {
    matches!(op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_))
}

/// Whether a value holds floats with the samples along axis 0, as the network's inputs have them.
fn is_stored(graph: &Graph, id: ValueId) -> bool {
    let first = |id: ValueId| graph.value(id).ty.as_ref()?.shape.as_ref()?.first().cloned();
    let float = graph.value(id).ty.as_ref().is_some_and(|it| it.dtype == DType::F32);
    let batch = graph.inputs().first().and_then(|it| first(*it));
    graph.inputs().contains(&id) || (float && batch.is_some() && first(id) == batch)
}

/// Whether no activation or addend follows that belongs to what makes the value they read.
fn is_complete(graph: &Graph, readers: &[(NodeId, usize)]) -> bool {
    readers.iter().all(|(reader, _)| {
        let node = graph.node(*reader);
        let alone =
            graph.constant_input(node, 0).is_some() || graph.constant_input(node, 1).is_some();
        match &node.op {
            Op::Unary(_) | Op::Clip | Op::PRelu | Op::BatchNormalization(_) => false,
            Op::Binary(_) => !alone,
            _ => true,
        }
    })
}
