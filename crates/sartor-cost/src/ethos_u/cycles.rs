//! How long the array takes, apart from the memories.
//!
//! Source: Vela 5.2.0, the performance estimators of its C++ core. Three things go on at a time, block by block: multiplying,
//! writing out, and issuing commands; the slowest sets the pace, and the others show once, at an end.

use super::{
    block::{Block, Traversal},
    machine::{Machine, Volume},
    task::{Activation, Chained, Elementwise, Map, Task, Work},
};

/// Which part of an operator is asked for, and from where its data come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'t> {
    pub(crate) task: &'t Task,
    pub(crate) block: Block,
    /// Output size: of the whole, or of a slice of the depth.
    pub(crate) output: Volume,
    /// Memories of input, operand and output.
    pub(crate) memories: [usize; 3],
    /// The memory from which biases and weights come.
    pub(crate) weights: usize,
    /// Whether weights are two of four.
    pub(crate) sparse: bool,
    /// Whether nothing comes before, that hides the first read.
    pub(crate) first: bool,
    /// Whether nothing comes after, that hides the last write.
    pub(crate) last: bool,
}

/// Bytes on the bus for `elements` of a map, since a burst may not be used wholly.
pub(crate) fn bus_bytes(
    machine: &Machine,
    read: bool,
    memory: usize,
    map: &Map,
    block: Volume,
    elements: u64,
) -> u64 {
    let bits = map.bits;
    let cores = if machine.is_u85() { 1 } else { machine.cores };
    let contiguous = if map.linear {
        let pitch = map.size.d * bits / 8;
        if pitch == block.d && (read || block.d <= 16) {
            bits * block.w * block.d
        } else if read {
            bits * block.d
        } else {
            (64 * 8).min(16 * bits * cores).min(block.d * bits)
        }
    } else if map.size.w * bits * 2 == block.d {
        bits * block.w * block.d
    } else if read {
        16 * bits * block.w
    } else {
        16 * bits * block.w * cores
    };
    let burst = machine.memories[memory].burst.max(1);
    elements * bits / 8 * burst / burst.min(contiguous / 8).max(1)
}

impl Part<'_> {
    fn input_block(&self) -> Volume {
        self.task.input.size.min(self.block.input)
    }

    fn output_block(&self) -> Volume {
        self.output.min(self.block.output)
    }

    /// Cycles until the first input block is there.
    fn input_cycles(&self, machine: &Machine) -> f64 {
        let maps = [Some(&self.task.input), self.task.operand.as_ref()];
        let cycles = |(map, memory): (Option<&Map>, usize)| {
            let Some(map) = map else { return 0.0 };
            let port = &machine.memories[memory];
            let elements = map.size.min(self.block.input).elements();
            let bytes = bus_bytes(machine, true, memory, map, self.block.input, elements);
            port.read_latency + (bytes as f64 / port.bandwidth).floor()
        };
        maps.into_iter().zip(self.memories).map(cycles).fold(0.0, f64::max)
    }

    /// Cycles until an output block is written.
    fn write_cycles(&self, machine: &Machine) -> f64 {
        let port = &machine.memories[self.memories[2]];
        let map = Map { size: self.output, ..self.task.output };
        let elements = self.output_block().elements();
        let block = self.block.output;
        let bytes = bus_bytes(machine, false, self.memories[2], &map, block, elements);
        port.write_latency + (bytes as f64 / port.bandwidth).floor()
    }

    /// The micro-block, which on the U55-256 and U65 becomes one row where there is but one row of outputs.
    fn micro(&self, machine: &Machine) -> Volume {
        let micro = self.block.micro;
        let row = !machine.is_u85()
            && micro.h == 2
            && self.task.work == Work::Conv
            && self.output.h == 1
            && self.output.w.is_multiple_of(2)
            && self.task.kernel.h == 1;
        if row { Volume::new(1, 4, micro.d) } else { micro }
    }

    /// Cycles of the multipliers for one block.
    fn multiply(&self, machine: &Machine) -> f64 {
        let (task, u85) = (self.task, machine.is_u85());
        let (input, micro) = (self.input_block(), self.micro(machine));
        let units = self.output_block().units(micro);
        let bits = task.input.bits;
        let decoders = if u85 { machine.cores } else { 1 };
        let decode = 32 * micro.d / (8 * decoders);
        let part = self.block.traversal == Traversal::PartKernel;
        let deep = input.d.div_ceil(8);
        let sparse = if self.sparse { 2 } else { 1 };
        let mut cycles = 0;
        for elements in task.kernel.parts() {
            let at_four = decode.max(4 * units.area());
            let (steps, busy) = match task.work {
                Work::MaxPool | Work::Pool => {
                    let wide = if !u85 && machine.macs == 32 { 1 } else { bits / 2 };
                    (1, elements.max(4) * units.elements() * wide)
                }
                Work::Depthwise => {
                    let steps = elements.div_ceil(4);
                    (steps, decode.max(4 * units.area() * (bits / 8)) * steps * units.d)
                }
                Work::Conv if part => {
                    let steps = elements.div_ceil(if bits == 16 { 2 } else { 4 });
                    (steps, at_four * steps * units.d * deep / sparse)
                }
                _ if u85 => {
                    let pace = decode.max(input.d / 8 * units.area());
                    (elements, pace * elements * units.d * (bits / 8) / sparse)
                }
                _ => (elements, at_four * elements * units.d),
            };
            let mut wait = self.wait(machine, steps, units);
            if part {
                wait *= deep;
            }
            cycles += busy + wait;
        }
        if matches!(task.work, Work::Conv | Work::ReduceSum) {
            cycles *= task.input.size.d.div_ceil(input.d);
        }
        let cycles = if u85 { cycles } else { cycles / machine.cores };
        cycles as f64 / machine.speed
    }

    /// Cycles that the accumulators' own delay shows: where one micro-block follows on itself.
    fn wait(&self, machine: &Machine, steps: u64, units: Volume) -> u64 {
        let smallest = !machine.is_u85() && machine.macs == 32;
        let delay = match (smallest, self.block.wide) {
            (true, true) => 7,
            (true, false) => 3,
            (false, true) if machine.macs <= 128 => 3,
            _ => 2,
        };
        let mut wait = match (units.area(), units.d) {
            (1, 1) => delay * steps,
            (1, d) => delay * (steps - 1) * d,
            _ => 0,
        };
        if smallest && self.block.wide && units.d > 1 && (units.w == 1 || units.h == 1) {
            wait += delay * units.d;
        }
        wait
    }

    /// Cycles of the whole part.
    pub(crate) fn cycles(&self, machine: &Machine) -> f64 {
        if self.task.work.is_elementwise() {
            return self.elementwise(machine);
        }
        let (block, micro) = (self.output_block(), self.micro(machine));
        let blocks =
            self.output.units(micro).elements() as f64 / block.units(micro).elements() as f64;
        let mut out =
            (output_rate(machine, self.task, self.block.wide) * block.elements() as f64).ceil();
        if self.task.weights.is_some() {
            // A bias and its scale are 10 bytes; requests for them are of 256.
            let latency = machine.memories[self.weights].read_latency;
            out = out.max(10.0 * block.d as f64 * latency / 256.0);
        }
        let multiply = self.multiply(machine);
        let (read, write) = (self.input_cycles(machine), self.write_cycles(machine));
        let turn = if blocks > 1.0 { (write - read).abs() } else { 0.0 };
        // Four commands are in flight.
        let command = (turn + multiply + out) / 4.0;
        let (multiply, out) = (multiply.max(command), out.max(command));
        let mut total = if multiply > out {
            (multiply * blocks).floor() + if self.last { out } else { 0.0 }
        } else {
            out * blocks + multiply
        };
        total = total.floor();
        total += if self.last { write } else { 0.0 } + if self.first { read } else { 0.0 };
        total
    }

    fn elementwise(&self, machine: &Machine) -> f64 {
        let rate = output_rate(machine, self.task, self.block.wide);
        let elements = Map { size: self.output, ..self.task.output }.stored().elements() as f64;
        let block = self.write_cycles(machine).max(self.input_cycles(machine));
        let command = (block / self.block.output.elements() as f64 + rate) / 4.0;
        (command * elements).ceil().max((rate * elements).ceil())
    }
}

/// Cycles for each element on its way out.
fn output_rate(machine: &Machine, task: &Task, wide: bool) -> f64 {
    let rate = |rates: &[f64], at: usize| rates.get(at).copied().unwrap_or(1.0);
    if machine.is_u85() {
        let activation = match task.activation {
            Activation::None => 0.0,
            _ => rate(&machine.activation_cycles, 0),
        };
        let (work, input) = (task.work, task.input.bits);
        let first = output_85(machine, work, input, task.output.bits, !task.chain.is_empty());
        let links = task.chain.iter().enumerate().map(|(i, link): (usize, &Chained)| {
            let bits = if i == 0 { task.output.bits } else { task.chain[i - 1].output.bits };
            let chained = i + 1 < task.chain.len();
            output_85(machine, Work::Elementwise(link.work), bits, link.output.bits, chained)
        });
        return first.max(activation) + links.sum::<f64>();
    }
    let at = match (task.work, task.input.bits, task.output.bits) {
        (Work::Elementwise(_), 32, _) => usize::from(task.operand.is_some()),
        (Work::Elementwise(Elementwise::Product), _, 32) => 2,
        (Work::Elementwise(Elementwise::Product), _, _) => 3,
        (Work::Elementwise(Elementwise::Sum), _, _) => 5,
        (Work::Elementwise(_), _, _) => 7,
        _ if wide => 3,
        (Work::MaxPool, _, _) => 6,
        _ => 7,
    };
    let activation = match task.activation {
        Activation::Table(_) => 0,
        Activation::Clamp => 1,
        Activation::None => 2,
    };
    rate(&machine.output_cycles, at).max(rate(&machine.activation_cycles, activation))
}

/// As [`output_rate`], of one operator on the U85. `chained`: its output stays inside.
fn output_85(machine: &Machine, work: Work, input: u64, output: u64, chained: bool) -> f64 {
    let binary = matches!(work, Work::Elementwise(Elementwise::Sum | Elementwise::Product));
    let at = match (input, output) {
        _ if work == Work::Elementwise(Elementwise::Quotient) => return 33.0,
        (32, _) | (_, 32) if chained => 4,
        (_, 33..) => 3,
        (32, 32) if binary => 5,
        (32, _) if binary => 4,
        (_, 32) => 2,
        (_, 16) => 1,
        _ => 0,
    };
    machine.output_cycles.get(at).copied().unwrap_or(1.0)
}
