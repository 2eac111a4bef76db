//! What an operator moves, and how long its memories take.
//!
//! Source: Vela 5.2.0, the performance estimators of its C++ core. Inputs are fetched anew for each block of outputs and each part
//! of the kernel, weights for each block of positions.

use std::collections::BTreeMap;

use super::{
    cycles::{Part, bus_bytes},
    machine::{Channel, Machine, Volume},
    task::{Map, Task, Work},
};

/// Elements that an operator reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// By operand.
    pub(crate) inputs: [u64; 2],
    pub(crate) output: u64,
    /// How often all weights go by.
    pub(crate) refetch: u64,
}

/// Bytes of weights by where they are at the time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WeightTraffic {
    /// Stored bytes without biases and scales.
    pub(crate) weights: u64,
    /// Biases and scales.
    pub(crate) scales: u64,
    /// The memory of the copy from which the array reads, if there is one.
    pub(crate) staged: Option<usize>,
    /// Bytes copied while the operator before ran.
    pub(crate) before: u64,
    /// Whether the fast decoder reads them.
    pub(crate) fast: bool,
}

impl Part<'_> {
    /// Elements read and written.
    pub(crate) fn access(&self, machine: &Machine) -> Access {
        let task = self.task;
        let mut access = Access { output: task.output.stored().elements(), ..Access::default() };
        if task.work.is_elementwise() {
            access.inputs = operands(machine, task);
            return access;
        }
        let block = self.output.min(self.block.output);
        let mut blocks = self.output.units(block);
        access.refetch = blocks.area();
        if matches!(task.work, Work::Depthwise | Work::MaxPool | Work::Pool) {
            blocks.d = 1;
        }
        let area = task.input.size.min(self.block.input).area();
        let depth = task.input.stored().d;
        let parts = task.kernel.parts().count() as u64;
        access.inputs[0] = area * depth * parts * blocks.elements();
        access
    }

    /// Bytes read by operand, as the bus sees them, and written.
    fn bus(&self, machine: &Machine, access: &Access) -> ([u64; 2], u64) {
        let read = |i: usize, map: &Map| {
            let memory = self.memories[i];
            bus_bytes(machine, true, memory, map, self.block.input, access.inputs[i])
        };
        let second = self.task.operand.as_ref().map_or(0, |map| read(1, map));
        let map = &self.task.output;
        let written =
            bus_bytes(machine, false, self.memories[2], map, self.block.output, access.output);
        ([read(0, &self.task.input), second], written)
    }

    /// By memory: bytes read, bytes written and the cycles that they take.
    pub(crate) fn memory_cycles(
        &self,
        machine: &Machine,
        homes: &[[usize; 2]],
        weights: Option<&WeightTraffic>,
    ) -> BTreeMap<usize, MemoryUse> {
        let access = self.access(machine);
        let (read, written) = self.bus(machine, &access);
        let mut book = Book::default();
        let channel = match self.task.work {
            Work::Elementwise(_) => Channel::Stream,
            _ => Channel::Input,
        };
        book.read(self.memories[0], channel, read[0]);
        if self.task.operand.is_some() {
            book.read(self.memories[1], channel, read[1]);
        }
        if self.task.chain.is_empty() {
            book.write(self.memories[2], Channel::Write, written);
        }
        for (link, home) in self.task.chain.iter().zip(homes) {
            if let Some(map) = link.operand.filter(|it| !it.size.is_scalar()) {
                let elements = map.stored().elements();
                let bytes = bus_bytes(machine, true, home[0], &map, self.block.input, elements);
                book.read(home[0], Channel::Stream, bytes);
            }
        }
        if let (Some(link), Some(home)) = (self.task.chain.last(), homes.last()) {
            let elements = link.output.stored().elements();
            let map = &link.output;
            let bytes = bus_bytes(machine, false, home[1], map, self.block.output, elements);
            book.write(home[1], Channel::Write, bytes);
        }
        if let Some(it) = weights {
            let constants = machine.constants;
            if let Some(staged) = it.staged {
                let rest = it.weights.saturating_sub(it.before);
                book.read(constants, Channel::Copy, rest);
                book.write(staged, Channel::Write, rest);
                let channel = if it.fast { Channel::FastWeights } else { Channel::Weights };
                book.read(staged, channel, it.weights * access.refetch);
            } else {
                book.read(constants, Channel::Weights, it.weights * access.refetch);
            }
            book.read(constants, Channel::Scales, it.scales * access.refetch);
        }
        book.close(machine)
    }
}

/// Elements read by an elementwise operator: operands that are spread are read once for each output on the U55 and U65, as they
/// are on the U85. A scalar of 8 bits lies in the command, on the U85 one of any width.
fn operands(machine: &Machine, task: &Task) -> [u64; 2] {
    let mut read = [0; 2];
    let maps = [Some(&task.input), task.operand.as_ref()];
    let rounded = |map: &Map, size: Volume| Map { size, ..*map }.stored().elements();
    for (at, map) in maps.into_iter().enumerate() {
        let Some(map) = map else { continue };
        if at == 1 && !machine.is_u85() && task.input.size.is_scalar() && task.input.bits > 8 {
            continue;
        }
        read[at] = if machine.is_u85() {
            if map.size.is_scalar() { 0 } else { rounded(map, map.size) }
        } else if !map.size.is_scalar() {
            rounded(&task.input, task.output.size)
        } else if map.bits > 8 {
            rounded(map, map.size)
        } else {
            0
        };
    }
    read
}

/// What one memory moves for an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct MemoryUse {
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) cycles: f64,
}

/// Bytes by memory and channel.
#[derive(Default)]
struct Book(BTreeMap<usize, BTreeMap<Channel, (u64, u64)>>);

impl Book {
    fn read(&mut self, memory: usize, channel: Channel, bytes: u64) {
        self.0.entry(memory).or_default().entry(channel).or_default().0 += bytes;
    }

    fn write(&mut self, memory: usize, channel: Channel, bytes: u64) {
        self.0.entry(memory).or_default().entry(channel).or_default().1 += bytes;
    }

    /// A memory takes as long as all its bytes at its bandwidth, or as the slowest channel.
    fn close(self, machine: &Machine) -> BTreeMap<usize, MemoryUse> {
        let of = |(memory, channels): (usize, BTreeMap<Channel, (u64, u64)>)| {
            let mut all = MemoryUse::default();
            for (channel, (read, written)) in channels {
                all.read += read;
                all.written += written;
                let bytes = (read + written) as f64;
                all.cycles = all.cycles.max((bytes / machine.bandwidth(memory, channel)).floor());
            }
            let bytes = (all.read + all.written) as f64;
            all.cycles = all.cycles.max((bytes / machine.memories[memory].bandwidth).floor());
            (memory, all)
        };
        self.0.into_iter().map(of).collect()
    }
}
