//! Which part of the output is made at a time: the block search.
//!
//! Source: Vela 5.2.0 (its C++ core for U55 and U65). Among the blocks whose input and accumulators fit twice into the shared
//! buffer, the one that fetches least for each output is taken: inputs anew for each block and each part of the kernel, weights
//! anew for each block of positions.

use sartor_chip::Granules;

use super::{
    machine::{Buffers, Machine, Volume},
    task::{Activation, Kernel, Task, Work},
};

/// In which order the weights go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Traversal {
    /// All input channels of a block for one kernel element, then the next element.
    DepthFirst,
    /// All elements of the kernel for eight (U85: 16) input channels, then the next channels.
    PartKernel,
    /// One channel at a time.
    Depthwise,
}

/// How an operator is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) input: Volume,
    pub(crate) output: Volume,
    /// The part of it that one step makes.
    pub(crate) micro: Volume,
    pub(crate) traversal: Traversal,
    /// Whether accumulators are wider than 32 bits.
    pub(crate) wide: bool,
}

/// Depth at which the compiler may split outputs.
pub(crate) const SPLIT_DEPTH: u64 = 16;

/// Input extent that `outputs` positions need.
pub(crate) fn required(outputs: u64, stride: u64, kernel: u64) -> u64 {
    (outputs - 1) * stride + kernel
}

/// Height and width of the input of a block, in whole units.
pub(crate) fn input_area(output: Volume, kernel: Kernel, unit: Volume) -> (u64, u64) {
    let (dilated_h, dilated_w) = kernel.dilated();
    let h = required(output.h, kernel.stride_h, dilated_h.min(8)).next_multiple_of(unit.h);
    let w = required(output.w, kernel.stride_w, dilated_w.min(8)).next_multiple_of(unit.w);
    (h, w)
}

/// How often the input goes by because a kernel is larger than 8 × 8.
pub(crate) fn input_repeats(kernel: Kernel) -> u64 {
    let (h, w) = kernel.dilated();
    h.div_ceil(8) * w.div_ceil(8)
}

/// What a block fetches for each output, and whether to prefer it.
pub(crate) struct Fetch<'t> {
    pub(crate) task: &'t Task,
    /// Input channels fetched.
    pub(crate) depth: u64,
    pub(crate) best: f32,
    pub(crate) coverage: f32,
}

impl<'t> Fetch<'t> {
    pub(crate) fn new(task: &'t Task) -> Self {
        let depth = task.widest().d;
        Fetch { task, depth, best: f32::INFINITY, coverage: f32::INFINITY }
    }

    /// Elements fetched for each output. `output` is the block that covers the map, `block` the one that is charged.
    pub(crate) fn cost(&self, output: Volume, input: Volume) -> f32 {
        let size = self.task.output.size;
        let part = |all: u64, unit: u64| all as f32 / unit as f32;
        let (h, w, d) = (part(size.h, output.h), part(size.w, output.w), part(size.d, output.d));
        let whole = size.units(output);
        let mut weights = 0.0;
        if self.task.work.has_weights() {
            weights = (self.task.kernel.elements() * self.depth * whole.area()) as f32;
            if self.task.work != Work::Depthwise {
                weights *= d * output.d as f32;
            }
        }
        let repeats = input_repeats(self.task.kernel);
        let mut inputs = (input.area() * self.depth * repeats) as f32 * h * w;
        if !self.task.work.keeps_depth() {
            inputs *= whole.d as f32;
        }
        (inputs + weights) / size.elements() as f32
    }

    /// Whether a block of this cost replaces the best so far; `any_size` lifts the limit on ties.
    pub(crate) fn takes(
        &mut self,
        cost: f32,
        output: Volume,
        input: Volume,
        any_size: bool,
    ) -> bool {
        let whole = self.task.widest();
        // Inputs that fit wholly into both buffers are read once.
        let cost = if whole.elements() < input.elements() * 2 { cost / 2.0 } else { cost };
        if cost < self.best {
            (self.best, self.coverage) = (cost, f32::INFINITY);
            return true;
        }
        let covered = whole.area() as f32 / whole.min(input).area().max(1) as f32;
        let tie = cost <= self.best
            && covered <= self.coverage
            && (any_size || (output.h <= 4 && output.w <= 4));
        if tie {
            self.coverage = covered;
        }
        tie
    }
}

/// Depths to try: from the split depth in steps of a micro-block, whole splits while the map is deeper.
pub(crate) fn depths(step: u64, end: u64, map: u64) -> impl Iterator<Item = u64> {
    let split = move |depth: u64| {
        if depth < map { depth.next_multiple_of(SPLIT_DEPTH) } else { depth }
    };
    let first = split(step.max(end.min(SPLIT_DEPTH)));
    std::iter::successors(Some(first), move |&depth| Some(split(depth + step)))
        .take_while(move |&depth| depth <= end)
}

/// Whether the kernel goes by part by part: where that uses the array at least as well.
fn part_kernel(task: &Task) -> bool {
    let depth = task.widest().d;
    if depth <= 8 {
        return true;
    }
    let used = |n: u64, unit: u64| n as f64 / n.next_multiple_of(unit) as f64;
    let (deep, taps) = if task.input.bits == 8 { (32, 4) } else { (16, 2) };
    used(depth, 8) * used(task.kernel.elements(), taps) >= used(depth, deep)
}

/// The block of a U55 or U65; `None` where nothing fits.
pub(crate) fn find(machine: &Machine, task: &Task) -> Option<Block> {
    let Buffers::Shared { banks, granules } = &machine.buffers else {
        return super::block85::find(machine, task, false);
    };
    let micro = machine.micro_blocks.first()?.size;
    let traversal = match task.work {
        Work::Depthwise => Traversal::Depthwise,
        Work::Conv if part_kernel(task) => Traversal::PartKernel,
        _ => Traversal::DepthFirst,
    };
    let wide = task.input.bits == 16 && !task.work.is_pool();
    let room = Room::new(*banks, granules, task, wide);
    let depth = task.widest().d;
    let input_depth = match (task.input.bits, traversal) {
        (16, _) => depth.min(16).next_multiple_of(4),
        (_, Traversal::PartKernel) => depth.min(16).next_multiple_of(8),
        _ => depth.min(32).next_multiple_of(8),
    };
    let size = task.output.size;
    let end = size.min(Volume::new(32, 64, 128)).round_up(micro);
    let mut fetch = Fetch::new(task);
    let mut found = None;
    let mut too_large = Misfits::new(micro, end);
    for d in depths(micro.d, end.d, size.d) {
        for h in (micro.h..=end.h).step_by(micro.h as usize) {
            for w in (micro.w..=end.w).step_by(micro.w as usize) {
                if too_large.has(h, w) {
                    continue;
                }
                let block = Volume::new(h, w, d);
                let (input_h, input_w) = input_area(block, task.kernel, micro);
                let input_d = if task.work.keeps_depth() { d } else { input_depth };
                let input = Volume::new(input_h, input_w, input_d);
                // One row of outputs needs no accumulators for a second.
                let row = size.h == 1 && task.kernel.h == 1 && micro.h == 2;
                let covering = if row { Volume { h: h.min(size.h), ..block } } else { block };
                if !room.holds(covering, input) {
                    too_large.add(h, w);
                    continue;
                }
                let cost = if task.work.is_elementwise() {
                    size.elements() as f32 / block.elements() as f32
                } else {
                    fetch.cost(covering, input)
                };
                if fetch.takes(cost, block, input, false) {
                    found = Some(Block { input, output: block, micro, traversal, wide });
                }
            }
        }
    }
    found
}

/// Heights and widths of blocks that did not fit at one depth, and so fit at no larger one.
pub(super) struct Misfits {
    step: Volume,
    columns: usize,
    seen: Vec<bool>,
}

impl Misfits {
    /// For blocks in steps of `step` up to `end`.
    pub(super) fn new(step: Volume, end: Volume) -> Self {
        let columns = (end.w / step.w) as usize;
        Misfits { step, columns, seen: vec![false; columns * (end.h / step.h) as usize] }
    }

    fn at(&self, h: u64, w: u64) -> usize {
        (h / self.step.h - 1) as usize * self.columns + (w / self.step.w - 1) as usize
    }

    pub(super) fn has(&self, h: u64, w: u64) -> bool {
        self.seen[self.at(h, w)]
    }

    pub(super) fn add(&mut self, h: u64, w: u64) {
        let at = self.at(h, w);
        self.seen[at] = true;
    }
}

/// The shared buffer of an operator.
struct Room {
    /// Banks between the output's and the table's.
    banks: u64,
    input_granule: u64,
    input_bytes: u64,
    /// Bits and granule of the accumulators; none for elementwise operators.
    accumulators: Option<(u64, u64)>,
    /// Whether a second operand needs as much as the first.
    second: bool,
}

impl Room {
    fn new(banks: u64, granules: &Granules, task: &Task, wide: bool) -> Self {
        let elementwise = task.work.is_elementwise();
        let scalar =
            task.input.size.is_scalar() || task.operand.is_some_and(|it| it.size.is_scalar());
        let table = if matches!(task.activation, Activation::Table(_)) { 2 } else { 0 };
        let end = if banks > 16 { 2 } else { 0 };
        let input_granule = match (task.input.bits, elementwise) {
            (8, false) => granules.input_8,
            (16, false) => granules.input_16,
            (8, true) => granules.elementwise_8,
            (16, true) => granules.elementwise_16,
            _ => granules.input_32,
        };
        let accumulators =
            if wide { (40, granules.accumulators_40) } else { (32, granules.accumulators_32) };
        Room {
            banks: banks.saturating_sub(2 + end.max(table)),
            input_granule,
            input_bytes: task.input.bits / 8,
            accumulators: (!elementwise).then_some(accumulators),
            second: elementwise && !(scalar && task.input.bits <= 16),
        }
    }

    /// Whether two input blocks and two blocks of accumulators fit.
    fn holds(&self, output: Volume, input: Volume) -> bool {
        let banks = |bytes: u64, granule: u64| (bytes.div_ceil(1024) * 2).next_multiple_of(granule);
        let bytes = input.area() * (input.d * self.input_bytes).next_multiple_of(8);
        let inputs = banks(bytes, self.input_granule);
        let rest = match self.accumulators {
            Some((bits, granule)) => {
                banks(output.area() * output.d.next_multiple_of(8) * bits / 8, granule)
            }
            None if self.second => inputs,
            None => 0,
        };
        inputs + rest <= self.banks
    }
}
