//! The block search of the U85, whose buffers are apart.
//!
//! Source: Vela 5.2.0 (its C++ core). Convolutions are searched as on the U55; depthwise kernels, windows and sums take the block
//! of the map's proportions that covers most of it; elementwise operators what the output buffer takes.

use super::{
    block::{Block, Fetch, Misfits, Traversal, depths, input_area},
    machine::{Buffers, Machine, MicroBlock, Volume},
    task::{Task, Work},
};

/// Depth in which accumulators are dealt out, and channels of a brick.
const BRICK: u64 = 16;
const LARGEST: Volume = Volume::new(128, 128, 1024);

/// The block of a U85; `None` where nothing fits. `sparse`: weights are two of four.
pub(crate) fn find(machine: &Machine, task: &Task, sparse: bool) -> Option<Block> {
    let Buffers::Apart { input, accumulators, chaining, output, .. } = machine.buffers else {
        return None;
    };
    let part_kernel = task.work == Work::Conv && kernel_first(task, sparse);
    let micro = micro_block(machine, task, part_kernel)?;
    let traversal = match task.work {
        Work::Depthwise => Traversal::Depthwise,
        Work::Conv if part_kernel => Traversal::PartKernel,
        _ => Traversal::DepthFirst,
    };
    let wide = task.input.bits == 16 && !task.work.is_pool() && task.work != Work::ReduceSum;
    let accumulator_bits = if wide { 64 } else { 32 };
    let narrow = machine.macs <= 256 && micro.size.d == 16 && !sparse;
    let input_depth = match traversal {
        Traversal::PartKernel => 16,
        _ if task.input.bits == 32 || narrow => 32,
        _ if sparse && task.input.bits == 8 => 128,
        _ => 64,
    };
    let search = Search {
        task,
        micro,
        macs: machine.macs,
        inputs: input * 8 / task.input.bits,
        accumulators: accumulators * 8 / accumulator_bits,
        input_depth,
    };
    let (input, output) = match task.work {
        Work::Elementwise(_) => {
            let block = search.elementwise(chaining, output);
            (block, block)
        }
        Work::Conv => search.convolution()?,
        Work::ReduceSum => search.proportional(Some(input_depth))?,
        _ => search.proportional(None)?,
    };
    Some(Block { input, output, micro: micro.size, traversal, wide })
}

/// Whether the kernel goes by part by part: where that uses the array at least as well.
fn kernel_first(task: &Task, sparse: bool) -> bool {
    let (taps, depth) = (task.kernel.elements(), task.widest().d);
    let (step, least, deep) = if sparse { (10, 4, 128) } else { (5, 2, 64) };
    let slots = taps / step * step + (taps % step).max(least);
    let used = |unit: u64| depth as f64 / depth.next_multiple_of(unit) as f64;
    used(16) * (taps as f64 / slots as f64) >= used(deep)
}

/// The micro-block that wastes least, of those that run the operator.
fn micro_block<'m>(machine: &'m Machine, task: &Task, part_kernel: bool) -> Option<&'m MicroBlock> {
    let point = task.kernel.elements() == 1 && !part_kernel;
    let runs = |micro: &&MicroBlock| {
        let deep = micro.size.d > if machine.macs <= 256 { 8 } else { 16 };
        match (machine.macs, task.work, task.input.bits) {
            (_, Work::Elementwise(_), _) | (512, _, _) => true,
            // Deep micro-blocks of the small arrays are for channels of their own.
            (..=256, Work::Conv, bits) => !deep || point && bits > 8,
            (..=256, Work::ReduceSum, _) => !deep,
            (..=256, _, 8) => deep,
            (..=256, _, _) => !deep,
            // Those of the large ones for convolutions.
            (_, Work::Conv, _) => true,
            _ => !deep,
        }
    };
    let size = task.output.size;
    let waste = |micro: &&MicroBlock| size.round_up(micro.size).elements() - size.elements();
    machine.micro_blocks.iter().filter(runs).min_by_key(waste)
}

struct Search<'t> {
    task: &'t Task,
    micro: &'t MicroBlock,
    macs: u64,
    /// Elements that the input buffer holds.
    inputs: u64,
    /// Accumulators that theirs holds.
    accumulators: u64,
    /// Channels of an input block of a convolution.
    input_depth: u64,
}

impl Search<'_> {
    /// Unit in which an input block of `depth` channels is stored.
    fn unit(&self, depth: u64) -> Volume {
        let bits = depth * self.task.input.bits;
        let bricks = usize::from(bits > 128) + usize::from(bits > 256);
        let unit = self.micro.input_units[bricks];
        unit.with_depth(unit.d * 128 / self.task.input.bits)
    }

    /// Blocks of a convolution: least fetched for each output, input and accumulators twice in their buffers if that fits.
    fn convolution(&self) -> Option<(Volume, Volume)> {
        let (task, size) = (self.task, self.task.output.size);
        let unit = self.unit(self.input_depth);
        let step = Volume { d: self.micro.size.d.max(BRICK), ..self.micro.size };
        let end = size.min(LARGEST).zip(step, u64::max).round_up(self.micro.size);
        let (dilated_h, dilated_w) = task.kernel.dilated();
        let by_volume =
            (dilated_h, dilated_w) == (task.input.size.h, task.input.size.w) && size.area() == 1;
        for copies in [2, 1] {
            let mut fetch = Fetch::new(task);
            let (mut found, mut too_large) = (None, Misfits::new(step, end));
            for d in depths(self.micro.size.d, end.d, size.d) {
                for h in (step.h..=end.h).step_by(step.h as usize) {
                    for w in (step.w..=end.w).step_by(step.w as usize) {
                        if too_large.has(h, w) {
                            continue;
                        }
                        let block = Volume::new(h, w, d);
                        let (input_h, input_w) = input_area(block, task.kernel, unit);
                        let depth = self.input_depth.next_multiple_of(unit.d);
                        let input = Volume::new(input_h, input_w, depth);
                        let held = depth.min(task.widest().d).next_multiple_of(unit.d);
                        let sums = block.area() * d.next_multiple_of(BRICK);
                        if input.area() * held * copies > self.inputs
                            || sums * copies > self.accumulators
                        {
                            too_large.add(h, w);
                            continue;
                        }
                        let cost = if by_volume {
                            size.elements() as f32 / block.elements() as f32
                        } else {
                            fetch.cost(block, input)
                        };
                        if fetch.takes(cost, block, input, false) {
                            found = Some((input.with_depth(self.input_depth), block));
                        }
                    }
                }
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn granule(&self) -> Volume {
        self.micro.size.with_depth(BRICK)
    }

    fn input_of(&self, block: Volume, fixed_depth: Option<u64>) -> Volume {
        let depth = fixed_depth.unwrap_or(block.d);
        let unit = self.unit(depth);
        let (h, w) = input_area(block, self.task.kernel, unit);
        Volume::new(h, w, depth.next_multiple_of(unit.d))
    }

    /// Blocks of the proportions of the map, then smaller until another row of inputs fits beside.
    fn proportional(&self, fixed_depth: Option<u64>) -> Option<(Volume, Volume)> {
        let size = self.task.output.size.round_up(self.granule());
        let limit = size.min(LARGEST);
        let mut block = self.area_fit(size, limit, fixed_depth)?;
        let granule = self.granule();
        let mut force = 0u8;
        loop {
            let input = self.input_of(block, fixed_depth);
            let row = self.input_of(Volume { h: granule.h, ..block }, fixed_depth);
            let cut = block.h < size.h || block.w < size.w || block.d < size.d;
            let spare = self.inputs.saturating_sub(input.elements());
            if !cut || spare >= row.elements() {
                return Some((input, block));
            }
            let may = |bit: u8, differs: bool| differs || force & bit != 0;
            if may(2, block.h != size.h) && block.h > granule.h {
                block.h -= granule.h;
            } else if may(1, block.d > block.w) && block.d > granule.d {
                block.d -= granule.d;
            } else if may(4, block.w != size.w) && block.w > granule.w {
                block.w -= granule.w;
            } else if force != 7 {
                force = force << 1 | 1;
            } else if block.d > granule.d {
                block.d = (block.d / 2).max(granule.d);
            } else {
                return Some((input, block));
            }
        }
    }

    /// The block whose area (for point kernels: row and depth) covers most of the map, over all depths that fit.
    fn area_fit(&self, size: Volume, limit: Volume, fixed_depth: Option<u64>) -> Option<Volume> {
        let granule = self.granule();
        let micro_sums = self.micro.size.area() * BRICK;
        let by_depth = self.task.kernel.dilated() == (1, 1);
        let deepest = self.macs.max(self.accumulators / micro_sums).min(limit.d);
        let target = if by_depth { size.w * size.d } else { size.area() } as f64;
        let (mut best, mut best_score) = (None, f64::INFINITY);
        for depth in (BRICK..=deepest).step_by(BRICK as usize) {
            let unit = self.unit(fixed_depth.unwrap_or(depth));
            let Some(block) = self.area_at(depth, unit, size, limit, fixed_depth) else { break };
            let used = if depth % unit.d == 0 { unit.d } else { depth % unit.d };
            let waste = 1.0 + (unit.d - used) as f64 / unit.d as f64 / 10.0;
            let fit = 1.0 + (1.0 - limit.d as f64 / depth as f64).abs() / 10.0;
            let other = if by_depth { depth } else { block.h };
            let coverage = 1.0 + (1.0 - target / (block.w * other) as f64).abs();
            let score = coverage * fit * waste;
            if score < best_score {
                (best, best_score) = (Some(block), score);
                if depth >= size.d && block.w >= size.w && block.h >= size.h {
                    return Some(size.round_up(granule));
                }
            }
        }
        best
    }

    /// The largest block of one depth whose input and accumulators fit.
    fn area_at(
        &self,
        depth: u64,
        unit: Volume,
        size: Volume,
        limit: Volume,
        fixed_depth: Option<u64>,
    ) -> Option<Volume> {
        let granule = self.granule();
        let micro_sums = self.micro.size.area() * BRICK;
        let whole_input = self.task.input.size.round_up(unit).elements();
        let aspect = size.h as f64 / size.w as f64;
        let (mut sums, mut before, mut retries) = (self.accumulators, None, 25);
        loop {
            let (mut w, mut h) = by_aspect(aspect, sums / depth, granule);
            (w, h) = (w.min(limit.w), h.min(limit.h));
            let area = w * h;
            if w < size.w {
                w = best_tile(size.w, granule.w, w);
            }
            h = (area / w / granule.h * granule.h).max(granule.h);
            let needed = w * h * depth;
            let sum_ratio = self.accumulators as f64 / needed as f64;
            let input = self.input_of(Volume::new(h, w, depth), fixed_depth);
            let mut input_ratio = self.inputs as f64 / input.elements().min(whole_input) as f64;
            if sum_ratio >= 1.0 && input_ratio >= 1.0 {
                return Some(Volume::new(h, w, depth));
            }
            if before == Some(needed) {
                retries -= 1;
                if retries <= 0 {
                    input_ratio = 0.9;
                }
            }
            before = Some(needed);
            if input_ratio < 1.0 && sum_ratio > 1.0 {
                sums = sums.min(needed);
            }
            let ratio = input_ratio.min(sum_ratio);
            let scaled = ((sums / micro_sums) as f64 * ratio) as u64 * micro_sums;
            sums = if scaled == sums { sums.saturating_sub(micro_sums) } else { scaled };
            if sums < micro_sums {
                return None;
            }
        }
    }

    /// The block of an elementwise operator: what the output buffer takes, wide before deep before high.
    fn elementwise(&self, chaining: u64, output: u64) -> Volume {
        let (task, granule) = (self.task, self.granule());
        let size = task.output.size.round_up(granule);
        let limit = size.min(LARGEST);
        let scalar =
            task.input.size.is_scalar() || task.operand.is_some_and(|it| it.size.is_scalar());
        let chain_bricks = chaining / 6 / (BRICK * (task.input.bits / 8));
        let row = output * 8 / task.input.bits / granule.d;
        let chain_row = chain_bricks / self.micro.size.h;
        let mut h = tile(size.h, granule.h, limit.h);
        let width = tile(size.w, granule.w, row.min(limit.w)).max(granule.w);
        let mut w = row;
        let mut d = share(granule.d, limit.d, &mut w, width);
        if let Some(other) = task.operand.filter(|_| !scalar) {
            let whole = task.output.size;
            let less =
                |f: fn(Volume) -> u64| f(task.input.size) < f(whole) || f(other.size) < f(whole);
            let (deep, wide, high) = (less(|it| it.d), less(|it| it.w), less(|it| it.h));
            if deep {
                (d, w) = (tile(size.d, granule.d, limit.d), chain_row);
                if !wide && !high {
                    h = share(self.micro.size.h, limit.h, &mut w, width);
                }
            } else if high {
                w = chain_row;
                d = share(BRICK, limit.d, &mut w, width);
            }
        }
        Volume::new(h, w, d).round_up(granule)
    }
}

/// Width and height of `area` at a proportion, in whole granules.
fn by_aspect(aspect: f64, area: u64, granule: Volume) -> (u64, u64) {
    let mut w = (area as f64 / aspect).sqrt();
    let mut h = w * aspect;
    if h < 1.0 {
        (w, h) = (w * h, 1.0);
    } else if w < 1.0 {
        (h, w) = (h * w, 1.0);
    }
    let whole = |n: f64, unit: u64| (n as u64).max(unit) / unit * unit;
    (whole(w, granule.w), whole(h, granule.h))
}

/// A tile of `range` in whole granules, near `tile` at most, that leaves little over.
fn best_tile(range: u64, granule: u64, tile: u64) -> u64 {
    if range.is_multiple_of(tile) {
        return tile;
    }
    let tiles = range / tile;
    let even = (range / (tiles + 1)).next_multiple_of(granule).max(granule);
    let first = even.saturating_sub(granule * 2).max(even.div_ceil(2)).max(granule);
    let (mut best, mut rest) = (tile, range % tile);
    let mut at = tile;
    while at >= first {
        let left = if range.is_multiple_of(at) { at } else { range % at };
        if left > rest {
            (best, rest) = (at, left);
        }
        at -= granule;
        if at == 0 {
            break;
        }
    }
    best
}

/// A tile of `range`, `limit` at most, in whole granules.
fn tile(range: u64, granule: u64, limit: u64) -> u64 {
    if limit == 0 || range.is_multiple_of(limit) {
        return limit.max(granule);
    }
    (range / (range / limit + 1)).next_multiple_of(granule).max(granule)
}

/// Grows `value` towards `limit` by what `available` has more than `required`, which shrinks it.
fn share(value: u64, limit: u64, available: &mut u64, required: u64) -> u64 {
    let excess = (*available / required).min(limit / value);
    if excess >= 2 {
        *available /= excess;
        value * excess
    } else {
        value
    }
}
