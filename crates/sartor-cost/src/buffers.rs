//! The buffers of activations: how large they are and how long they live.

use sartor_chip::{Bytes, Chip};
use sartor_ir::{Graph, ValueId};

use crate::{arena::Span, arithmetic::Arithmetics, fold::Folding, shapes::Shapes};

/// All buffers of a graph. What depends on structure alone is here; sizes are computed for given shapes.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    /// By value: its buffer; `None` for constants.
    of: Vec<Option<u32>>,
    /// By buffer: first and last step: 0 for graph inputs, then the nodes in their order.
    spans: Vec<(u32, u32)>,
    /// Values with their buffers and the bits of an element: a buffer has the size of the smallest value in it.
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    buffer: u32,
    value: ValueId,
    bits: u32,
    float: bool,
}

impl Buffers {
    pub(crate) fn of(
        graph: &Graph,
        folding: &Folding,
        shapes: &Shapes,
        arithmetics: &Arithmetics<'_>,
    ) -> Self {
        let count = graph.value_count();
        let mut buffers = Buffers { of: vec![None; count], spans: Vec::new(), members: Vec::new() };
        let mut seen = vec![false; count];
        let mut touch = |value: ValueId, at: u32| {
            if folding.is_fixed(value) {
                return;
            }
            let head = folding.buffer(value).index();
            let buffer = *buffers.of[head].get_or_insert_with(|| {
                buffers.spans.push((at, at));
                buffers.spans.len() as u32 - 1
            });
            let (first, last) = buffers.spans[buffer as usize];
            buffers.spans[buffer as usize] = (first.min(at), last.max(at));
            buffers.of[value.index()] = Some(buffer);
            if !std::mem::replace(&mut seen[value.index()], true)
                && let Some(dtype) = shapes.dtype(value)
            {
                let bits = arithmetics.activation_bits(dtype) as u32;
                buffers.members.push(Member { buffer, value, bits, float: dtype.is_float() });
            }
        };
        for &input in graph.inputs() {
            touch(input, 0);
        }
        for (at, (_, node)) in graph.nodes().enumerate() {
            for value in node.reads().chain(node.outputs.iter().flatten().copied()) {
                touch(value, at as u32 + 1);
            }
        }
        for &output in graph.outputs() {
            touch(output, graph.node_count() as u32);
        }
        buffers
    }

    /// The buffer in which `value` lies; `None` for constants.
    pub(crate) fn buffer(&self, value: ValueId) -> Option<u32> {
        self.of[value.index()]
    }

    /// Sizes and spans for `shapes`; `bits` may give the floats of a buffer another width. Buffers of unknown size count nothing.
    pub(crate) fn sizes(&self, shapes: &Shapes, bits: impl Fn(u32) -> Option<u32>) -> Vec<Span> {
        let mut sizes: Vec<Option<u64>> = vec![None; self.spans.len()];
        for it in &self.members {
            let Some(elements) = shapes.elements(it.value) else { continue };
            let width = bits(it.buffer).filter(|_| it.float).unwrap_or(it.bits);
            let bytes = elements.saturating_mul(u64::from(width)).div_ceil(8);
            let size = &mut sizes[it.buffer as usize];
            *size = Some(size.map_or(bytes, |it| it.min(bytes)));
        }
        sizes
            .iter()
            .zip(&self.spans)
            .map(|(size, &span)| (Bytes(size.unwrap_or(0)), span))
            .collect()
    }

    /// A value of the graph whose size is not known, if there is one.
    pub(crate) fn unknown<'a>(&'a self, shapes: &'a Shapes) -> impl Iterator<Item = ValueId> + 'a {
        let open = |it: &&ValueId| shapes.elements(**it).is_none();
        self.members.iter().map(|it| &it.value).filter(open).copied()
    }
}

/// Bytes that are made before step `at` and read there or later.
pub(crate) fn across(sizes: &[Span], at: u32) -> Bytes {
    sizes.iter().filter(|(_, (first, last))| *first <= at && *last > at).map(|it| it.0).sum()
}

/// Near capacity in which a layer's tiles may lie while its operands lie farther: that of the nearest memory that is nearer than
/// `far`.
pub(crate) fn tile_room(chip: &Chip, far: usize) -> Option<Bytes> {
    let nearer = chip.system.memories[..far].iter();
    nearer.filter_map(|it| it.capacity.as_ref()).map(|it| it.value).max()
}
