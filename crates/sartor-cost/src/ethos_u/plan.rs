//! A network on an Ethos-U: what each of its nodes takes.

use std::collections::{BTreeMap, BTreeSet};

use sartor_chip::{Bytes, Chip, Cycles, Seconds};
use sartor_ir::{Graph, NodeId};

use super::{
    lower::{Assumed, Lowered, lower},
    machine::Machine,
    memo::Memo,
    schedule::prices,
    task::Weights,
};
use crate::{fold::Folding, shapes::Shapes};

/// What the nodes of a network take on an Ethos-U.
#[derive(Clone)]
pub(crate) struct Schedule {
    /// By node.
    nodes: Vec<Option<Timing>>,
    /// Quantized weights, by the node that reads them; one for each group.
    weights: BTreeMap<NodeId, Vec<Weights>>,
    /// Stored bytes for each weight, by node.
    ratios: BTreeMap<NodeId, f64>,
    memo: Memo,
}

/// What one node takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Timing {
    /// Time of the array, with what it waits for.
    pub(crate) array: Seconds,
    /// By memory: time.
    pub(crate) memories: Vec<Seconds>,
    /// By memory: bytes read and written.
    pub(crate) moved: Vec<[Bytes; 2]>,
    /// In all: of each of its operators the slowest of array and memories.
    pub(crate) total: Seconds,
    /// Stored weights, biases and scales.
    pub(crate) stored: Bytes,
    /// Stored weights alone.
    weights: Bytes,
    /// What else there is to say, or empty.
    pub(crate) note: &'static str,
}

/// What changes of a network that was planned before.
pub(crate) struct Changed {
    /// Bits of activations.
    pub(crate) bits: u64,
    /// Stored bytes for each weight of single nodes.
    pub(crate) ratios: BTreeMap<NodeId, f64>,
    /// Whether the weights of single nodes are two of four.
    pub(crate) patterns: BTreeMap<NodeId, bool>,
}

impl Schedule {
    /// Plans `graph` for `chip`; `None` if that is no Ethos-U, or a shape is not known. `bits`: of activations. Nodes that are
    /// `elsewhere` are left out.
    pub(crate) fn of(
        chip: &Chip,
        graph: &Graph,
        folding: &Folding,
        shapes: &Shapes,
        bits: u64,
        elsewhere: &BTreeSet<NodeId>,
    ) -> Option<Self> {
        let machine = Machine::of(chip)?;
        let assumed = Assumed { bits, ratio: stored_ratio(chip, 0.0), ..Assumed::default() };
        let lowered = lower(&machine, graph, folding, shapes, &assumed, elsewhere)?;
        let mut memo = Memo::default();
        let nodes = timings(chip, graph, &machine, &lowered, &mut memo);
        memo.keep();
        let mut weights: BTreeMap<NodeId, Vec<Weights>> = BTreeMap::new();
        for (id, task) in lowered.tasks {
            weights.entry(id).or_default().extend(task.weights);
        }
        let count = |all: &Vec<Weights>| all.iter().map(Weights::count).sum::<u64>().max(1) as f64;
        let of = |id: &NodeId| nodes.get(id.index()).and_then(Option::as_ref);
        let ratio = |id: &NodeId| of(id).map_or(0, |it: &Timing| it.weights.0) as f64;
        let ratios = weights.iter().map(|(id, all)| (*id, ratio(id) / count(all))).collect();
        Some(Schedule { nodes, weights, ratios, memo })
    }

    /// The same network with other `shapes` and some changes.
    pub(crate) fn again(
        &self,
        chip: &Chip,
        (graph, folding, shapes): (&Graph, &Folding, &Shapes),
        changed: Changed,
        elsewhere: &BTreeSet<NodeId>,
    ) -> Option<Self> {
        let machine = Machine::of(chip)?;
        let assumed = Assumed {
            bits: changed.bits,
            ratio: stored_ratio(chip, 0.0),
            ratios: changed.ratios,
            patterns: changed.patterns,
            known: Some(&self.weights),
            before: Some(&self.ratios),
        };
        let lowered = lower(&machine, graph, folding, shapes, &assumed, elsewhere)?;
        let mut memo = self.memo.clone();
        let nodes = timings(chip, graph, &machine, &lowered, &mut memo);
        Some(Schedule { nodes, weights: BTreeMap::new(), ratios: BTreeMap::new(), memo })
    }

    /// What the node takes.
    pub(crate) fn of_node(&self, id: NodeId) -> Option<&Timing> {
        self.nodes.get(id.index())?.as_ref()
    }
}

/// Stored bytes for each weight, of which so many are zero.
pub(crate) fn stored_ratio(chip: &Chip, zeros: f64) -> f64 {
    let whole = Bytes(1 << 20);
    chip.weight_bytes_encoded(whole, zeros).0 as f64 / whole.0 as f64
}

/// What each node takes: the sum over its operators.
fn timings(
    chip: &Chip,
    graph: &Graph,
    machine: &Machine,
    lowered: &Lowered,
    memo: &mut Memo,
) -> Vec<Option<Timing>> {
    let clock = chip.clock_of(chip.engine()).value;
    let count = machine.memories.len();
    let empty = || Timing {
        memories: vec![Seconds(0.0); count],
        moved: vec![[Bytes(0); 2]; count],
        ..Timing::default()
    };
    let mut nodes: Vec<Option<Timing>> = vec![None; graph.node_slots()];
    for (&id, &note) in &lowered.melted {
        nodes[id.index()] = Some(Timing { note, ..empty() });
    }
    let prices = prices(machine, lowered.tasks.iter().map(|it| &it.1), memo);
    for (&(id, _), price) in lowered.tasks.iter().zip(prices) {
        let timing = nodes[id.index()].get_or_insert_with(empty);
        let Some(price) = price else {
            timing.note = "no block of it fits into the array's buffers: not counted";
            continue;
        };
        timing.array += Cycles(price.array) / clock;
        timing.total += Cycles(price.cycles()) / clock;
        timing.stored += Bytes(price.stored);
        timing.weights += Bytes(price.weights);
        for (&memory, used) in &price.memories {
            timing.memories[memory] += Cycles(used.cycles) / clock;
            timing.moved[memory][0] += Bytes(used.read);
            timing.moved[memory][1] += Bytes(used.written);
        }
        if price.sparse {
            timing.note = "the array skips 2:4 zeros";
        }
    }
    nodes
}
