//! Operators one after the other: which weights are copied ahead, and what each operator takes in the end.
//!
//! Source: Vela 5.2.0, the scheduler of its C++ core, as far as one operator runs after the other. Where a map is larger than the
//! staging memory, Vela runs several operators at a time on stripes of it (cascades); here such a map lies in the farther memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    block::{Block, SPLIT_DEPTH, required},
    cycles::Part,
    machine::{Channel, Machine, Volume},
    memo::Memo,
    store::{Encoded, Format, whole},
    task::{Activation, Home, Map, Task, Work},
    traffic::{MemoryUse, WeightTraffic},
};

/// Cycles of copying that a start may show.
const STARTUP: f64 = 1000.0;

/// What an operator takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Price {
    /// Cycles of the array, with what it waits for weights and tables.
    pub(crate) array: f64,
    /// By memory.
    pub(crate) memories: BTreeMap<usize, MemoryUse>,
    /// Bytes of stored weights, biases and scales.
    pub(crate) stored: u64,
    /// Bytes of stored weights alone.
    pub(crate) weights: u64,
    /// How it is cut.
    pub(crate) block: Block,
    /// Whether the array skips zeros of weights that are two of four.
    pub(crate) sparse: bool,
}

impl Price {
    /// Cycles in all: the slowest of array and memories.
    pub(crate) fn cycles(&self) -> f64 {
        self.memories.values().map(|it| it.cycles).fold(self.array, f64::max)
    }
}

/// The prices of operators that run one after the other; `None` for one that no block fits.
pub(crate) fn prices<'t>(
    machine: &Machine,
    tasks: impl IntoIterator<Item = &'t Task>,
    memo: &mut Memo,
) -> Vec<Option<Arc<Price>>> {
    let mut before: Option<Slack> = None;
    let mut all = Vec::new();
    for (at, task) in tasks.into_iter().enumerate() {
        let known = (at == 0, before.map(|it| (it.cycles.to_bits(), it.memory)));
        let found = memo.price(task, known, |memo| {
            let job = Job::new(machine, task, memo)?;
            let staged = job.stage(at, before, memo);
            let slack = job.slack(staged.as_ref());
            Some((job.price(staged.as_ref(), before, slack), slack))
        });
        before = found.as_ref().map(|it| it.1);
        all.push(found.map(|it| it.0));
    }
    all
}

/// What an operator leaves to copies for the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slack {
    cycles: f64,
    memory: u64,
}

/// An operator with its block and its stored weights.
struct Job<'t> {
    machine: &'t Machine,
    task: &'t Task,
    block: Block,
    format: Format,
    encoded: Option<Encoded>,
    /// Cycles of the array while nothing is staged.
    cycles: f64,
}

/// How long an operator takes whose outputs are made in slices of the depth.
struct Sliced {
    input_bytes: u64,
    input_read_bytes: u64,
    run: f64,
    with_copies: f64,
    visible: f64,
    last: f64,
    weight_cycles: f64,
    input_cycles: f64,
}

/// Weights that are copied to the staging memory.
struct Staged {
    encoded: Encoded,
    /// Whether the first slice is copied while the operator before runs.
    ahead: bool,
    /// Cycles to copy all.
    copy: f64,
    /// Cycles of the last slice.
    last: f64,
    /// Bytes of the buffer in which the last slice lies.
    last_buffer: u64,
}

impl<'t> Job<'t> {
    fn new(machine: &'t Machine, task: &'t Task, memo: &mut Memo) -> Option<Self> {
        let memories = homes(machine, task, false);
        let (block, format, encoded) = memo.choose(machine, task, memories)?;
        let cycles = whole(machine, task, block, memories, false).cycles(machine);
        Some(Job { machine, task, block, format, encoded, cycles })
    }

    fn part(&self, staged: bool) -> Part<'t> {
        let memories = homes(self.machine, self.task, staged);
        whole(self.machine, self.task, self.block, memories, self.format.sparse)
    }

    fn weight_channel(&self) -> Channel {
        if self.format.fast { Channel::FastWeights } else { Channel::Weights }
    }

    /// Times of the operator cut at `cuts`; `slack`: cycles that hide the first copy; `pair`: a slice is copied while another runs.
    fn sliced(
        &self,
        cuts: &[u64],
        encoded: &Encoded,
        staged: bool,
        slack: f64,
        pair: bool,
    ) -> Sliced {
        let machine = self.machine;
        let from = if staged { machine.staging } else { machine.constants };
        let input = &self.task.input;
        let (h, w) = self.task.kernel.dilated();
        let output = self.task.output.size;
        let seen = Volume::new(
            required(output.h, self.task.kernel.stride_h, h).min(input.size.h),
            required(output.w, self.task.kernel.stride_w, w).min(input.size.w),
            input.size.d,
        );
        let clipped = Task { input: Map { size: seen, ..*input }, ..self.task.clone() };
        let (mut read, mut fetched, mut fetches) = (0, 0, 0);
        let (mut run, mut visible, mut last, mut slack) = (0.0, 0.0, 0.0, slack);
        let slices = cuts.len() - 1;
        for (i, cut) in cuts.windows(2).enumerate() {
            let part = Part {
                task: &clipped,
                output: output.with_depth(cut[1] - cut[0]),
                weights: from,
                first: i == 0,
                last: i + 1 == slices,
                ..self.part(false)
            };
            let access = part.access(machine);
            read += access.inputs[0] * input.bits / 8;
            fetched += encoded.ranges[i] * access.refetch;
            fetches += access.refetch;
            last = part.cycles(machine);
            if from != machine.constants {
                let copy = machine.copy_cycles(machine.constants, from, encoded.ranges[i]);
                visible += (copy - slack).max(0.0);
            }
            run += last;
            slack = if pair { last } else { 0.0 };
        }
        let each = fetched / fetches.max(1);
        Sliced {
            input_bytes: seen.elements() * input.bits / 8,
            input_read_bytes: read,
            run,
            with_copies: run + visible,
            visible,
            last,
            weight_cycles: machine.read_cycles(from, each, self.weight_channel()) * fetches as f64,
            input_cycles: machine.read_cycles(self.part(false).memories[0], read, Channel::Input),
        }
    }

    /// Whether and how the weights are copied to the staging memory; `at`: the operator's place.
    fn stage(&self, at: usize, before: Option<Slack>, memo: &mut Memo) -> Option<Staged> {
        let machine = self.machine;
        let (weights, encoded) = (self.task.weights.as_ref()?, self.encoded.as_ref()?);
        let (from, to) = (machine.constants, machine.staging);
        if from == to {
            return None;
        }
        let bytes = encoded.bytes();
        let copy = machine.copy_cycles(from, to, bytes);
        let refetch = self.part(false).access(machine).refetch;
        let channel = self.weight_channel();
        let in_place = machine.read_cycles(from, bytes, channel) * refetch as f64;
        let from_copy = machine.read_cycles(to, bytes, channel) * refetch as f64;
        if from_copy >= in_place {
            return None;
        }
        let whole_cuts = [0, weights.outputs];
        let plain = self.sliced(&whole_cuts, encoded, false, 0.0, false);
        let depth = weights.outputs;
        let slack = before.map_or(0.0, |it| it.cycles);
        let smallest = (copy * depth.min(SPLIT_DEPTH) as f64 / depth as f64).floor();
        let first_pays =
            before.is_none() && refetch > 1 && (smallest < in_place / 10.0 || smallest <= STARTUP);
        let seen_copy = (copy - slack).max(0.0);
        let pays = first_pays
            || from_copy + seen_copy < in_place
            || depth / self.block.output.d > 2
            || (at != 0 && smallest < slack && refetch > 1);
        if !pays {
            return None;
        }
        let plan = Plan { job: self, weights, encoded, copy, slack, busy: plain.run > in_place };
        let (cuts, cut_encoded) = plan.cut(memo)?;
        let limit = machine.staging_limit;
        let pair = cut_encoded.pair();
        let double = pair[0] + pair[1] <= limit && cut_encoded.largest() < cut_encoded.bytes();
        let buffers =
            if double { pair } else { [cut_encoded.bytes().min(cut_encoded.largest()), 0] };
        if buffers[0] + buffers[1] > limit {
            return None;
        }
        let room = before.map_or(limit, |it| it.memory);
        let ahead = at != 0 && buffers[0] < room;
        let hidden = match () {
            () if ahead => slack,
            () if first_pays => STARTUP,
            () => 0.0,
        };
        let sliced = self.sliced(&cuts, &cut_encoded, true, hidden, double);
        if !plan.improves(&plain, &sliced, buffers, room, first_pays, cuts.len() - 1, refetch) {
            return None;
        }
        let last_buffer = if double { buffers[cuts.len() % 2] } else { buffers[0] };
        Some(Staged { encoded: cut_encoded, ahead, copy, last: sliced.last, last_buffer })
    }

    fn slack(&self, staged: Option<&Staged>) -> Slack {
        let limit = self.machine.staging_limit;
        match staged {
            Some(it) => Slack { cycles: it.last, memory: limit.saturating_sub(it.last_buffer) },
            None => Slack { cycles: self.cycles, memory: limit },
        }
    }

    /// What the operator takes.
    fn price(&self, staged: Option<&Staged>, before: Option<Slack>, own: Slack) -> Price {
        let machine = self.machine;
        let slack = before.map_or(0.0, |it| it.cycles);
        let encoded = staged.map(|it| &it.encoded).or(self.encoded.as_ref());
        let from = if staged.is_some() { machine.staging } else { machine.constants };
        let part = Part { weights: from, ..self.part(true) };
        let mut array = part.cycles(machine);
        if let Some(staged) = staged {
            let first = staged.encoded.ranges.first().copied().unwrap_or(0);
            let wait = machine.copy_cycles(machine.constants, machine.staging, first) - slack;
            array = (staged.copy - slack + own.cycles).max(array + wait.max(0.0));
        }
        // A table at the end of another operator comes without a wait in the compiler's estimate.
        if let (Activation::Table(bytes), Work::Pool) = (self.task.activation, self.task.work) {
            let port = &machine.memories[machine.constants];
            let copy =
                (bytes as f64).max((bytes as f64 / port.bandwidth).floor() + port.read_latency);
            array += if staged.is_some() { copy } else { (copy - slack).max(0.0) };
        }
        let traffic = encoded.map(|it| WeightTraffic {
            weights: it.weights,
            scales: it.scales,
            staged: staged.map(|_| machine.staging),
            before: staged.filter(|it| it.ahead).map_or(0, |it| it.encoded.ranges[0]),
            fast: self.format.fast,
        });
        let links: Vec<[usize; 2]> = self
            .task
            .chain
            .iter()
            .map(|it| {
                let operand =
                    it.operand.map_or(machine.staging, |map| memory(machine, map.home, true));
                [operand, memory(machine, it.output.home, true)]
            })
            .collect();
        Price {
            array,
            memories: part.memory_cycles(machine, &links, traffic.as_ref()),
            stored: encoded.map_or(0, Encoded::bytes),
            weights: encoded.map_or(0, |it| it.weights),
            block: self.block,
            sparse: self.format.sparse,
        }
    }
}

/// The question how to cut weights for copying.
struct Plan<'j, 't> {
    job: &'j Job<'t>,
    weights: &'j super::task::Weights,
    encoded: &'j Encoded,
    /// Cycles to copy all weights.
    copy: f64,
    /// Cycles that the operator before leaves.
    slack: f64,
    /// Whether the array takes longer than all weights read in place.
    busy: bool,
}

impl Plan<'_, '_> {
    /// Output channels at which to cut, and the weights so stored; `None`: the slices would not fill the array.
    fn cut(&self, memo: &mut Memo) -> Option<(Vec<u64>, Encoded)> {
        let (job, depth) = (self.job, self.weights.outputs);
        let half = job.machine.staging_limit / 2;
        let bytes = self.encoded.bytes() as f64;
        let least = (SPLIT_DEPTH as f64 / depth as f64).min(1.0);
        let hidden = (self.slack / self.copy).min(1.0);
        let aligned = (hidden / least).floor() * least;
        let mut ratio = if 1.0 - aligned < least / 2.0 { 1.0 } else { hidden };
        if self.busy && ratio > 0.5 && ratio < 1.0 {
            let middle = (depth / 2).next_multiple_of(SPLIT_DEPTH) / depth;
            ratio = (middle as f64).clamp(0.5, 1.0);
        }
        ratio = ratio.max(least).min((half as f64 / bytes).min(1.0));
        let whole = (vec![0, depth], self.encoded.clone());
        if ratio >= 1.0 {
            return Some(whole);
        }
        let granule =
            if job.machine.is_u85() { job.block.micro.d.max(SPLIT_DEPTH) } else { SPLIT_DEPTH };
        let blocks = job.block.output.d;
        let mut first = ((depth as f64 * ratio) as u64 / granule * granule).max(SPLIT_DEPTH);
        if first >= depth {
            return Some(whole);
        }
        let part = Part {
            output: job.task.output.size.with_depth(first),
            weights: job.machine.staging,
            last: false,
            ..job.part(false)
        };
        let rest = (depth as f64 * part.cycles(job.machine) / self.copy) as u64;
        let mut rest = rest.max(SPLIT_DEPTH).next_multiple_of(blocks);
        if rest as f64 / depth as f64 * bytes > half as f64 {
            rest = (half as f64 / bytes * depth as f64) as u64;
        }
        let (cuts, encoded) = loop {
            rest = (rest / if rest > blocks { blocks } else { granule })
                * if rest > blocks { blocks } else { granule };
            rest = rest.max(granule);
            let mut cuts = vec![0];
            cuts.extend((first..depth).step_by(rest as usize));
            cuts.push(depth);
            let encoded = memo.cut(job.machine, job.task, &job.block, job.format, &cuts)?;
            if encoded.largest() <= half || (first == SPLIT_DEPTH && rest == granule) {
                break (cuts, encoded);
            }
            if rest > first {
                rest = (rest / 2).next_multiple_of(granule);
            } else {
                first = (first / 2).next_multiple_of(SPLIT_DEPTH);
            }
        };
        let filled = rest as f64 / rest.next_multiple_of(blocks) as f64;
        (cuts.len() <= 3 || filled >= 0.3 || !self.busy).then_some((cuts, encoded))
    }

    /// Whether the operator is not slower so.
    #[expect(clippy::too_many_arguments, reason = "the two times and what they rest on")]
    fn improves(
        &self,
        plain: &Sliced,
        sliced: &Sliced,
        buffers: [u64; 2],
        room: u64,
        first_pays: bool,
        slices: usize,
        refetch: u64,
    ) -> bool {
        let machine = self.job.machine;
        let mut input = sliced.input_cycles;
        if machine.spills() && self.job.task.input.home == Home::Staging {
            let from_staging = |bytes| machine.read_cycles(machine.staging, bytes, Channel::Input);
            let both = sliced.input_bytes + buffers[0] + buffers[1] <= machine.staging_limit;
            let by_input =
                plain.run.max(plain.weight_cycles).max(from_staging(plain.input_read_bytes));
            let by_weights = sliced.with_copies.max(sliced.weight_cycles).max(sliced.input_cycles);
            if !both
                && sliced.input_bytes < room
                && by_input < by_weights
                && by_input < sliced.input_cycles
            {
                return false;
            }
            if both {
                input = from_staging(sliced.input_read_bytes);
            }
        }
        let old = plain.run.max(plain.weight_cycles).max(input);
        let mut new = sliced.with_copies.max(sliced.weight_cycles).max(input);
        if self.busy {
            if sliced.visible / (slices as f64) < STARTUP {
                new -= sliced.visible;
            }
            if slices > 1 && (new - sliced.with_copies).abs() < 0.5 && first_pays {
                new -= slices as f64 * STARTUP / 2.0;
            }
        }
        old >= new && (refetch != 1 || self.copy + sliced.weight_cycles <= old)
    }
}

/// Memories of input, operand and output; `staged`: maps that may be staged are.
fn homes(machine: &Machine, task: &Task, staged: bool) -> [usize; 3] {
    let of = |map: &Map| memory(machine, map.home, staged);
    [of(&task.input), task.operand.as_ref().map_or(machine.features, of), of(&task.output)]
}

fn memory(machine: &Machine, home: Home, staged: bool) -> usize {
    match home {
        Home::Constants => machine.constants,
        Home::Staging if staged => machine.staging,
        Home::Staging | Home::Features => machine.features,
    }
}
