//! How the weights of an operator are stored, and in which of the array's formats.
//!
//! Source: Vela 5.2.0, the scheduler of its C++ core.

use super::{
    block::{Block, SPLIT_DEPTH, Traversal},
    block85,
    coding::{Coded, coded, fast_bytes},
    cycles::Part,
    machine::{Channel, Machine},
    order::Layout,
    task::{Task, Weights, Work},
};

/// The format of stored weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    /// For the fast decoder.
    pub(crate) fast: bool,
    /// Two of four inputs.
    pub(crate) sparse: bool,
}

/// Stored weights, cut into slices of output channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// Bytes of each slice, biases and scales included.
    pub(crate) ranges: Vec<u64>,
    /// Bytes of weights.
    pub(crate) weights: u64,
    /// Bytes of biases and scales.
    pub(crate) scales: u64,
    /// Weights, padding included.
    source: u64,
    /// Zeros that runs take up.
    skipped: u64,
    /// Different values, 17 for more.
    distinct: u64,
}

impl Encoded {
    pub(crate) fn bytes(&self) -> u64 {
        self.weights + self.scales
    }

    /// Bytes of the largest slice.
    pub(crate) fn largest(&self) -> u64 {
        self.ranges.iter().copied().max().unwrap_or(0)
    }

    /// Bytes of the two buffers that take slices in turn.
    pub(crate) fn pair(&self) -> [u64; 2] {
        let largest =
            |odd: usize| self.ranges.iter().skip(odd).step_by(2).copied().max().unwrap_or(0);
        [largest(0), largest(1)]
    }

    /// Stores the weights of `task` for an array that takes them by `block`, cut at the output channels `cuts`.
    pub(crate) fn new(
        machine: &Machine,
        task: &Task,
        weights: &Weights,
        block: &Block,
        format: Format,
        cuts: &[u64],
    ) -> Self {
        let layout = Layout::new(machine, block, task.input.bits == 16, format.sparse);
        let mut all = Encoded::default();
        for cut in cuts.windows(2) {
            let channels = (cut[0], cut[1]);
            let scales = scale_bytes(machine, block, cut[1] - cut[0]);
            let slice = slice(&layout, weights, channels);
            let bytes = if format.fast {
                fast_bytes(slice.weights, slice.distinct, !format.sparse)
            } else {
                slice.bytes
            };
            all.ranges.push(bytes + scales);
            all.weights += bytes;
            all.scales += scales;
            all.source += slice.weights;
            all.skipped += slice.skipped;
            all.distinct = all.distinct.max(slice.distinct);
        }
        all
    }

    /// Cycles to read and decode all weights once.
    fn decode_cycles(&self, machine: &Machine, format: Format) -> f64 {
        let port = &machine.memories[machine.constants];
        let channel = if format.fast { Channel::FastWeights } else { Channel::Weights };
        let read = (self.weights as f64 / machine.bandwidth(machine.constants, channel)).floor();
        let read = read + port.read_latency;
        if !machine.is_u85() {
            return read;
        }
        let each_cycle = if format.fast {
            if self.distinct < 16 { 64 } else { 32 }
        } else {
            let zeros = (self.skipped as f64 / self.source.max(1) as f64).clamp(0.5, 0.9);
            (8 + ((zeros - 0.5) * 24.0 / 0.4) as u64) * machine.cores
        };
        read.max((self.source / each_cycle) as f64)
    }
}

/// Biases and scales: 10 bytes a channel; U55 and U65 deal them out to their cores, the U85 rounds channels up.
fn scale_bytes(machine: &Machine, block: &Block, channels: u64) -> u64 {
    let stored = |n: u64| (10 * n).next_multiple_of(16);
    if machine.is_u85() {
        stored(channels.next_multiple_of(block.micro.d.next_multiple_of(SPLIT_DEPTH)))
    } else {
        (0..machine.cores)
            .map(|it| stored((channels + machine.cores - 1 - it) / machine.cores))
            .sum()
    }
}

/// The weights of some output channels, in the standard code.
fn slice(layout: &Layout, weights: &Weights, (from, to): (u64, u64)) -> Coded {
    let Some(values) = &weights.values else {
        let count = weights.count() / weights.outputs.max(1) * (to - from);
        let bytes = (count as f64 * weights.ratio).ceil() as u64;
        return Coded {
            bytes: bytes.next_multiple_of(16),
            weights: count,
            skipped: 0,
            distinct: 17,
        };
    };
    let mut all = Coded::default();
    for stream in 0..layout.streams() {
        let mut taken = Vec::new();
        layout.walk(weights, values, (from, to), stream, |it| taken.push(it));
        if taken.is_empty() {
            continue;
        }
        let one = coded(&taken);
        all.bytes += one.bytes;
        all.weights += one.weights;
        all.skipped += one.skipped;
        all.distinct = all.distinct.max(one.distinct);
    }
    all
}

/// Whether of each four input channels, zeros that fill up the last four included, at most two are not zero.
fn two_of_four(weights: &Weights) -> bool {
    if let Some(sparse) = weights.sparse {
        return sparse;
    }
    let Some(values) = &weights.values else { return false };
    let filled = |four: &[i16]| four.iter().filter(|&&weight| weight != 0).count();
    weights.inputs > 0
        && values.iter().all(|it| it.abs() <= 127)
        && values
            .chunks(weights.inputs as usize)
            .all(|inputs| inputs.chunks(4).all(|four| filled(four) <= 2))
}

/// The block, the format and the stored weights of an operator: on the U85 whichever reads, decodes and computes soonest.
pub(crate) fn choose(
    machine: &Machine,
    task: &Task,
    memories: [usize; 3],
) -> Option<(Block, Format, Option<Encoded>)> {
    let dense = super::block::find(machine, task)?;
    let Some(weights) = &task.weights else {
        return Some((dense, Format::default(), None));
    };
    let cuts = [0, weights.outputs];
    let encode = |block: &Block, format| Encoded::new(machine, task, weights, block, format, &cuts);
    let cycles = |block: Block, sparse| {
        let whole = whole(machine, task, block, memories, sparse);
        whole.cycles(machine)
    };
    let standard = encode(&dense, Format::default());
    if !machine.is_u85() || task.work != Work::Conv || dense.traversal == Traversal::Depthwise {
        return Some((dense, Format::default(), Some(standard)));
    }
    let dense_cycles = cycles(dense, false);
    let mut tried = Vec::new();
    if two_of_four(weights)
        && let Some(block) = block85::find(machine, task, true)
    {
        let sparse_cycles = cycles(block, true);
        if sparse_cycles <= dense_cycles {
            for fast in [false, true] {
                let format = Format { fast, sparse: true };
                tried.push((block, format, encode(&block, format), sparse_cycles));
            }
        }
    }
    let fast = Format { fast: true, sparse: false };
    let quick = encode(&dense, fast);
    tried.push((dense, Format::default(), standard, dense_cycles));
    tried.push((dense, fast, quick, dense_cycles));
    let time = |it: &(Block, Format, Encoded, f64)| it.2.decode_cycles(machine, it.1) + it.3;
    let best = tried.into_iter().min_by(|a, b| time(a).total_cmp(&time(b)))?;
    Some((best.0, best.1, Some(best.2)))
}

/// The whole of an operator, weights from where they lie.
pub(crate) fn whole<'t>(
    machine: &Machine,
    task: &'t Task,
    block: Block,
    memories: [usize; 3],
    sparse: bool,
) -> Part<'t> {
    Part {
        task,
        block,
        output: task.output.size,
        memories,
        weights: machine.constants,
        sparse,
        first: true,
        last: true,
    }
}
