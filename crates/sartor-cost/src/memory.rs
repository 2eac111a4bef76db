//! Where weights and activations lie, and for how long.

use sartor_chip::{Bytes, Chip, Content, Seconds};
use sartor_ir::Graph;

use crate::{
    CostError, arithmetic::Arithmetics, estimate::Placement, fold::Folding, shapes::Shapes,
};

/// How long each buffer of activations is needed.
pub(crate) struct Liveness {
    /// By value: size of the buffer that it heads.
    sizes: Vec<Bytes>,
    /// By value: first and last position: 0 for graph inputs, then nodes in their order.
    spans: Vec<Option<(usize, usize)>>,
    /// The most that lives at once.
    pub(crate) peak: Bytes,
}

impl Liveness {
    pub(crate) fn of(
        graph: &Graph,
        folding: &Folding<'_>,
        shapes: &Shapes,
        arithmetics: &Arithmetics<'_>,
    ) -> Result<Self, CostError> {
        let count = graph.value_count();
        let mut live = Liveness {
            sizes: vec![Bytes(u64::MAX); count],
            spans: vec![None; count],
            peak: Bytes(0),
        };
        let touch = |live: &mut Self, value, at: usize| {
            if folding.is_fixed(value) {
                return Ok(());
            }
            let (Some(elements), Some(dtype)) = (shapes.elements(value), shapes.dtype(value))
            else {
                return Err(unknown(graph, value));
            };
            let bytes =
                Bytes(elements.saturating_mul(arithmetics.activation_bits(dtype)).div_ceil(8));
            let head = folding.buffer(value).index();
            live.sizes[head] = live.sizes[head].min(bytes);
            let (first, last) = live.spans[head].unwrap_or((at, at));
            live.spans[head] = Some((first.min(at), last.max(at)));
            Ok(())
        };
        for &input in graph.inputs() {
            touch(&mut live, input, 0)?;
        }
        let end = graph.node_count();
        for (at, (_, node)) in graph.nodes().enumerate() {
            for value in node.reads().chain(node.outputs.iter().flatten().copied()) {
                touch(&mut live, value, at + 1)?;
            }
        }
        for &output in graph.outputs() {
            touch(&mut live, output, end)?;
        }
        live.peak = (0..=end)
            .scan(live.changes(end), |changes, at| {
                changes.1 += changes.0[at].0;
                let now = changes.1;
                changes.1 = changes.1 - changes.0[at].1;
                Some(now)
            })
            .max()
            .unwrap_or_default();
        Ok(live)
    }

    /// By position: bytes that begin to live, bytes that live for the last time.
    fn changes(&self, end: usize) -> (Vec<(Bytes, Bytes)>, Bytes) {
        let mut changes = vec![(Bytes(0), Bytes(0)); end + 1];
        for (span, &size) in self.spans.iter().zip(&self.sizes) {
            if let &Some((first, last)) = span {
                changes[first].0 += size;
                changes[last].1 += size;
            }
        }
        (changes, Bytes(0))
    }

    /// Size of the buffer in which `value` lies; none for constants.
    pub(crate) fn size(&self, folding: &Folding<'_>, value: sartor_ir::ValueId) -> Bytes {
        let head = folding.buffer(value).index();
        if self.spans[head].is_some() { self.sizes[head] } else { Bytes(0) }
    }

    /// Bytes that are made before the node at `at` (counted from 0) and read there or later.
    pub(crate) fn across(&self, at: usize) -> Bytes {
        let crossing = |span: &Option<(usize, usize)>| {
            span.is_some_and(|(first, last)| first <= at && last > at)
        };
        self.spans
            .iter()
            .zip(&self.sizes)
            .filter(|(span, _)| crossing(span))
            .map(|(_, &size)| size)
            .sum()
    }
}

fn unknown(graph: &Graph, value: sartor_ir::ValueId) -> CostError {
    let origin = match graph.producer(value) {
        Some(id) => {
            let node = graph.node(id);
            format!(
                "node `{}` ({}) does not tell it, declare the value's shape in the file",
                node.name,
                node.op.name()
            )
        }
        None => "it is a graph input without a declared shape".to_owned(),
    };
    CostError::UnknownShape { value: graph.value(value).name.clone(), origin }
}

/// Which memories hold what.
pub(crate) struct Residence<'c> {
    chip: &'c Chip,
    /// The memory of the activations.
    pub(crate) activations: usize,
    home: usize,
    /// The memory that keeps weights, and what is left in it.
    keeper: Option<(usize, Option<Bytes>)>,
}

impl<'c> Residence<'c> {
    /// Activations lie in the nearest memory that takes the peak, else in the farthest that takes any.
    pub(crate) fn new(chip: &'c Chip, peak: Bytes) -> Self {
        let holding = |content| {
            let memories = chip.system.memories.iter().enumerate();
            memories.filter(move |(_, memory)| memory.holds.contains(&content)).map(|(i, _)| i)
        };
        let far = chip.system.memories.len() - 1;
        let fits = |&i: &usize| {
            chip.system.memories[i].capacity.as_ref().is_none_or(|it| it.value >= peak)
        };
        let activations = holding(Content::Activations)
            .find(fits)
            .or(holding(Content::Activations).next_back())
            .unwrap_or(far);
        let keeper =
            holding(Content::Weights).find(|&i| chip.system.memories[i].keeps_weights).map(|i| {
                let taken = if i == activations { peak } else { Bytes(0) };
                (i, chip.system.memories[i].capacity.as_ref().map(|it| it.value - taken))
            });
        Residence {
            chip,
            activations,
            home: holding(Content::Weights).next_back().unwrap_or(far),
            keeper,
        }
    }

    /// The memory from which a node's weights are read: in node order, the keeping memory takes what it has room for.
    pub(crate) fn place(&mut self, weights: Bytes) -> usize {
        match &mut self.keeper {
            Some((keeper, None)) => *keeper,
            Some((keeper, Some(room))) if *room >= weights => {
                *room = *room - weights;
                *keeper
            }
            _ => self.home,
        }
    }

    /// Where the weights lie, for a total of `needed` bytes of which `kept` stay near.
    pub(crate) fn weights(&self, needed: Bytes, kept: Bytes) -> Placement {
        let all_kept = self.keeper.filter(|_| kept == needed);
        let at = all_kept.map_or(self.home, |(keeper, _)| keeper);
        let fits = all_kept.is_some()
            || self.chip.system.memories[at].capacity.as_ref().is_none_or(|it| it.value >= needed);
        self.placement(at, needed, fits)
    }

    /// Where the activations lie.
    pub(crate) fn activations(&self, peak: Bytes) -> Placement {
        let capacity = self.chip.system.memories[self.activations].capacity.as_ref();
        self.placement(self.activations, peak, capacity.is_none_or(|it| it.value >= peak))
    }

    fn placement(&self, at: usize, needed: Bytes, fits: bool) -> Placement {
        let memory = &self.chip.system.memories[at];
        Placement {
            memory: memory.name.clone(),
            capacity: memory.capacity.as_ref().map(|it| it.value),
            needed,
            fits,
        }
    }

    /// Time to bring activations to the host and back: through the nearest memory, from theirs outwards, of known bandwidth.
    pub(crate) fn host_transfer(&self, bytes: Bytes) -> Seconds {
        let mut outward = self.chip.system.memories[self.activations..].iter();
        let bandwidth = outward.find_map(|it| it.read.as_ref());
        bandwidth.map_or(Seconds(0.0), |it| bytes / it.value)
    }
}
