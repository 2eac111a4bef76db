//! Which values are held in bytes, and which nodes compute on them.
//!
//! What lies between dequantizations and a quantization becomes one integer kernel: a convolution or product with
//! quantized weights and its activation, arithmetic of two tensors, pooling, moves, or any function of one element.
//! Sums of products are exact in 32 bits, so that a result differs from the floats that the graph describes by at most
//! one step of its grid, and only where the exact value lies within float rounding of the middle between two steps.

mod pattern;

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{Consumers, DType, Node, NodeId, Op, ValueId, normalize_axis};

use super::Lowering;
use crate::{
    kernel::integer::{Enter, Held, IntegerKernel, Leave, Weights, has_layout},
    program::Action,
};

/// What is computed in integers.
#[derive(Default)]
pub(super) struct Integers {
    /// Quantized values that are held in bytes.
    held: BTreeMap<ValueId, Held>,
    /// Kernels by the node whose output they make.
    units: BTreeMap<NodeId, Unit>,
    /// Nodes that are part of a kernel.
    covered: BTreeSet<NodeId>,
    /// Dequantized values that others than integer kernels read.
    asked: BTreeSet<ValueId>,
}

/// Nodes that are one kernel.
struct Unit {
    /// The node that gives the kernel its name.
    core: NodeId,
    kernel: Box<dyn IntegerKernel>,
    inputs: Vec<ValueId>,
    /// The nodes before the last one.
    covered: Vec<NodeId>,
}

impl Integers {
    /// Whether a node is part of an integer kernel: it reads no floats of its own.
    pub(super) fn takes(&self, id: NodeId) -> bool {
        self.covered.contains(&id) || self.units.contains_key(&id)
    }
}

impl Lowering<'_> {
    /// Whether a value is held in bytes.
    pub(in crate::program) fn is_held(&self, id: ValueId) -> bool {
        self.integers.held.contains_key(&id)
    }

    /// Finds all that can be computed in integers.
    pub(super) fn find_integers(&mut self, live: &[NodeId]) {
        let alive: BTreeSet<NodeId> = live.iter().copied().collect();
        let consumers = self.graph.consumers();
        let graph = Readers { consumers: &consumers, alive: &alive };
        for &id in live {
            let node = self.graph.node(id);
            let Some(mut held) = self.grid_of(node, &graph) else { continue };
            match self.unit_before(id, held, &graph) {
                Some((unit, channels_last)) => {
                    held.channels_last = channels_last;
                    self.integers.covered.extend(&unit.covered);
                    self.integers.units.insert(id, unit);
                }
                None => held.channels_last = self.wants_channels_last(node.output(), &graph),
            }
            self.integers.held.insert(node.output(), held);
        }
        for &id in live {
            if !self.integers.takes(id)
                && let Some(unit) = self.float_product(id, &graph)
            {
                self.integers.units.insert(id, unit);
            }
        }
        self.forget_idle_bytes();
        self.find_asked(live, &graph);
    }

    /// Values that no integer kernel makes or reads are no better as bytes.
    fn forget_idle_bytes(&mut self) {
        let it = &self.integers;
        let mut used: BTreeSet<ValueId> =
            it.units.values().flat_map(|it| it.inputs.clone()).collect();
        used.extend(it.units.keys().map(|&id| self.graph.node(id).output()));
        self.integers.held.retain(|id, _| used.contains(id));
    }

    /// Finds the dequantized values that must be there as floats.
    fn find_asked(&mut self, live: &[NodeId], graph: &Readers<'_>) {
        for &id in live {
            let output = self.graph.node(id).output();
            let outside = |reader: &NodeId| !self.integers.takes(*reader);
            if self.bytes_behind(output).is_some()
                && (self.wanted.contains(&output) || graph.of(output).iter().any(outside))
            {
                self.integers.asked.insert(output);
            }
        }
    }

    /// How a quantization's output can be held in bytes: eight bits, one grid, and read by nothing but dequantizations
    /// to the same grid.
    fn grid_of(&self, node: &Node, graph: &Readers<'_>) -> Option<Held> {
        let Op::QuantizeLinear(_) = &node.op else { return None };
        let output = node.output();
        let dtype = self.facts[output.index()].as_ref()?.ty.dtype;
        let offset = match dtype {
            DType::U8 => 0,
            DType::I8 => 128,
            _ => return None,
        };
        let scale = self.constant(node, 1)?;
        let (&[scale], &[zero]) = (scale.as_f32()?, self.zeros(node, scale.len())?.as_slice())
        else {
            return None;
        };
        let undone = |reader: &NodeId| self.undoes(self.graph.node(*reader), node);
        let readers = graph.of(output);
        let known = self.shape(output).is_some() && self.is_float(node.input(0)?);
        if !known || readers.is_empty() || self.wanted.contains(&output) || scale <= 0.0 {
            return None;
        }
        readers.iter().all(undone).then_some(Held {
            scale,
            zero: u8::try_from(zero + offset).ok()?,
            channels_last: false,
        })
    }

    /// The held value that `id` is the dequantization of.
    fn bytes_behind(&self, id: ValueId) -> Option<(ValueId, Held)> {
        let node = self.graph.node(self.graph.producer(id)?);
        let Op::DequantizeLinear(_) = &node.op else { return None };
        let source = node.input(0)?;
        Some((source, *self.integers.held.get(&source)?))
    }

    /// Whether a reader of a held value works on positions.
    fn wants_channels_last(&self, id: ValueId, graph: &Readers<'_>) -> bool {
        let spatial = |reader: &NodeId| {
            matches!(self.graph.node(*reader).op, Op::Conv(_) | Op::Pool(_) | Op::GlobalPool(_))
        };
        let floats = graph.of(id).into_iter().map(|it| self.graph.node(it).output());
        let used = floats.into_iter().flat_map(|it| graph.of(it)).any(|it| spatial(&it));
        used && self.shape(id).is_some_and(|it| has_layout(&it))
    }

    /// The integers of constant input `i` behind its dequantization, with the axis of its outputs moved first.
    fn weights(&self, node: &Node, i: usize, output_axis: usize) -> Option<Weights> {
        let back = self.graph.node(self.graph.producer(node.input(i)?)?);
        let Op::DequantizeLinear(it) = &back.op else { return None };
        let (stored, scale) = (self.constant(back, 0)?, self.constant(back, 1)?);
        let (scales, zeros) = (scale.as_f32()?, self.zeros(back, scale.len())?);
        let outputs = *stored.shape.get(output_axis)?;
        let by_output = scales.len() == outputs
            && normalize_axis(it.axis, stored.shape.len()).ok()? == output_axis;
        if it.block_size != 0 || stored.dtype().is_float() || !(scales.len() == 1 || by_output) {
            return None;
        }
        let inner: usize = stored.shape[output_axis + 1..].iter().product();
        let numbers = stored.to_i64();
        let terms = numbers.len().checked_div(outputs)?;
        let mut values = Vec::with_capacity(numbers.len());
        for o in 0..outputs {
            let zero = zeros[o % zeros.len()];
            for at in 0..terms {
                let (outer, within) = (at / inner, at % inner);
                let number = numbers[(outer * outputs + o) * inner + within] - zero;
                values.push(i8::try_from(number).ok()?);
            }
        }
        let scales = (0..outputs).map(|o| scales[o % scales.len()]).collect();
        Some(Weights { values, scales })
    }

    /// Makes the step of a node that reads or makes bytes; `false` if it does neither.
    pub(super) fn add_integer(&mut self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        if self.integers.covered.contains(&id) {
            return true;
        }
        let output = node.output();
        if let Some(unit) = self.integers.units.remove(&id) {
            let core = self.graph.node(unit.core);
            unit.inputs.iter().for_each(|&it| self.need_plain(it));
            let inputs = unit.inputs.into_iter().map(Some).collect();
            self.push(core, Action::Integer(unit.kernel), inputs, vec![Some(output)]);
            return true;
        }
        let shape = self.shape(output).unwrap_or_default();
        if let Some(&held) = self.integers.held.get(&output) {
            node.input(0).into_iter().for_each(|it| self.need_plain(it));
            let kernel = Box::new(Enter { held, shape });
            node.reads().for_each(|it| self.need_plain(it));
            self.push(node, Action::Integer(kernel), vec![node.input(0)], vec![Some(output)]);
            return true;
        }
        let Some(source) = node.input(0) else { return false };
        let Some(&held) = self.integers.held.get(&source) else { return false };
        if self.integers.asked.contains(&output) {
            let kernel = Box::new(Leave { held, shape });
            self.push(node, Action::Integer(kernel), vec![Some(source)], vec![Some(output)]);
        }
        true
    }
}

/// The nodes that run and read a value.
struct Readers<'a> {
    consumers: &'a Consumers,
    alive: &'a BTreeSet<NodeId>,
}

impl Readers<'_> {
    fn of(&self, id: ValueId) -> Vec<NodeId> {
        let all = self.consumers.of(id).iter().map(|it| it.0);
        all.filter(|it| self.alive.contains(it)).collect()
    }
}
