//! In which order the array takes its weights, and with how many zeros between.
//!
//! Source: Vela 5.2.0, the weight encoders of its C++ core. Channels are rounded up to the array's units, elements of a kernel to
//! those taken at a time; what is added is stored as zeros.

use super::{
    block::{Block, Traversal},
    machine::Machine,
    task::Weights,
};

/// How weights are cut into the parts that the array takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Layout {
    traversal: Traversal,
    u85: bool,
    /// Streams that decoders read side by side.
    streams: u64,
    output_block: u64,
    output_unit: u64,
    input_block: u64,
    input_unit: u64,
    /// Elements of the kernel taken at a time.
    round: u64,
    /// Elements of zeros after each such group of a depthwise kernel.
    pause: u64,
}

impl Layout {
    /// The layout of an operator cut into `block`s. `wide_input`: inputs have 16 bits. `one_stream`: for the fast decoder.
    pub(crate) fn new(machine: &Machine, block: &Block, wide_input: bool, sparse: bool) -> Self {
        let u85 = machine.is_u85();
        let round = match (block.traversal, u85) {
            (Traversal::DepthFirst, _) => 1,
            (Traversal::Depthwise, false) => 4,
            (Traversal::Depthwise, true) => 10,
            (Traversal::PartKernel, _) => {
                if wide_input || sparse {
                    10
                } else {
                    5
                }
            }
        };
        let input_block = match (block.traversal, u85) {
            (_, true) => block.input.d,
            (Traversal::PartKernel, false) => 16,
            (_, false) => {
                if wide_input {
                    16
                } else {
                    32
                }
            }
        };
        let input_unit = match (block.traversal, u85) {
            (Traversal::Depthwise, _) => 1,
            (_, false) => 8,
            (Traversal::PartKernel, true) if wide_input && !sparse => 8,
            (_, true) => input_block,
        };
        let pause = match machine.macs {
            _ if !u85 || block.traversal != Traversal::Depthwise => 0,
            ..=256 if !wide_input => 0,
            ..=512 => 2,
            _ => 6,
        };
        let (output_block, output_unit) = (block.output.d, block.micro.d);
        let (traversal, streams) = (block.traversal, machine.cores);
        Layout {
            traversal,
            u85,
            streams,
            output_block,
            output_unit,
            input_block,
            input_unit,
            round,
            pause,
        }
    }

    /// Independent streams.
    pub(crate) fn streams(&self) -> u64 {
        self.streams
    }

    /// Passes the weights of output channels `from..to` that decoder `stream` reads to `emit`, in order, zeros between included.
    pub(crate) fn walk(
        &self,
        weights: &Weights,
        values: &[i16],
        (from, to): (u64, u64),
        stream: u64,
        mut emit: impl FnMut(i16),
    ) {
        let depthwise = self.traversal == Traversal::Depthwise;
        let part = self.traversal == Traversal::PartKernel;
        // U55 and U65 deal channels out to their cores one by one, the U85 in groups of four within a unit.
        let step = if self.u85 { 1 } else { self.streams };
        let mine = if self.u85 { to - from } else { (to - from + step - 1 - stream) / step };
        let block = if self.u85 {
            self.output_block
        } else {
            (self.output_block + step - 1 - stream) / step
        };
        let offset = if self.u85 { 0 } else { stream };
        let at = |o: u64, y: u64, x: u64, i: u64| {
            let o = from + offset + o * step;
            let index = ((o * weights.h + y) * weights.w + x) * weights.inputs + i;
            values.get(index as usize).copied().unwrap_or(0)
        };
        let inputs = if depthwise { 1 } else { weights.inputs };
        let unit =
            |emit: &mut dyn FnMut(i16), o0: u64, i0: u64, width: u64, tap: Option<(u64, u64)>| {
                let groups: u64 = if self.u85 { 4 * self.streams } else { 1 };
                for o in 0..self.output_unit {
                    if self.u85 && (o % groups) / 4 != stream {
                        continue;
                    }
                    for i in i0..i0 + width {
                        let real = o0 + o < mine && i < inputs;
                        emit(tap.filter(|_| real).map_or(0, |(y, x)| at(o0 + o, y, x, i)));
                    }
                }
            };
        for o_block in (0..mine).step_by(block.max(1) as usize) {
            let o_end = (o_block + block).min(mine);
            for i_block in (0..inputs).step_by(self.input_block as usize) {
                let width = self.input_width(inputs - i_block);
                for (y0, h) in sides(weights.h) {
                    for (x0, w) in sides(weights.w) {
                        let taps = (h * w).next_multiple_of(self.round);
                        let tap = |k: u64| (k < h * w).then(|| (y0 + k / w, x0 + k % w));
                        let outer = if part { self.input_unit } else { width };
                        for i_outer in (0..width).step_by(outer as usize) {
                            for o0 in (o_block..o_end).step_by(self.output_unit as usize) {
                                for k in 0..taps {
                                    let inner =
                                        if self.u85 { 8.min(outer) } else { self.input_unit };
                                    for i in (0..outer).step_by(inner as usize) {
                                        let i0 = i_block + i_outer + i;
                                        unit(&mut emit, o0, i0, inner, tap(k));
                                    }
                                }
                                for _ in 0..self.pause * taps / self.round {
                                    unit(&mut emit, o0, inputs, 1, None);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Channels of an input block that has `left` before the end.
    fn input_width(&self, left: u64) -> u64 {
        match (self.traversal, self.u85) {
            (Traversal::Depthwise, _) => 1,
            (Traversal::PartKernel, _) => {
                left.min(self.input_block).next_multiple_of(self.input_unit)
            }
            (Traversal::DepthFirst, _) => self.input_block,
        }
    }
}

/// The parts of at most eight into which a side of a kernel is cut: where each begins and its length.
fn sides(all: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..all).step_by(8).map(move |at| (at, (all - at).min(8)))
}
