//! The walk over the nodes: from jobs and buffers to times. One walk serves the full estimate and the quick price.

use std::collections::BTreeMap;

use sartor_chip::{Bytes, Joules, Macs, NumberType, Seconds};
use sartor_ir::NodeId;
use serde::Serialize;

use super::{Job, Model, Place, Task, Tweak, job::Zeros};
use crate::{
    Change, CostError,
    arena::{self, Arena, Span},
    buffers::{across, tile_room},
    crossbar::{self, Plan},
    energy,
    ethos_u::{self, Schedule, Timing},
    memory::Residence,
    shapes::Shapes,
};

/// What a changed network costs, without the nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Price {
    /// Sum over the nodes.
    pub latency: Seconds,
    /// Energy of all multiplications and of all bytes moved; `None` where the chip does not state a figure for it.
    pub energy: Option<Joules>,
    /// Sum over the nodes.
    pub macs: Macs,
    /// Weights and biases as deployed, in elements.
    pub parameters: u64,
    /// Stored weights, biases and scales.
    pub weight_bytes: Bytes,
    /// The most activations that live at once.
    pub peak_memory: Bytes,
    /// Size of one block of memory for all activations.
    pub arena: Bytes,
    /// Whether the activations fit where they should lie.
    pub activations_fit: bool,
    /// Whether the weights fit where they should lie.
    pub weights_fit: bool,
}

/// One node of a walk.
pub(crate) struct Outcome<'w, 'a> {
    pub(crate) task: &'w Task,
    pub(crate) job: Option<&'w Job<'a>>,
    /// Time of the array and of elementary steps.
    pub(crate) compute: Seconds,
    /// By memory: bytes read and written.
    pub(crate) moved: &'w [[Bytes; 2]],
    /// Activations that its operands need to be read and written, each once.
    pub(crate) activations: Bytes,
    /// Everything, once.
    pub(crate) once: Seconds,
    /// What it takes on an Ethos-U.
    pub(crate) timing: Option<&'w Timing>,
}

/// A finished walk.
pub(crate) struct Walk<'a> {
    pub(crate) arena: Arena,
    pub(crate) residence: Residence<'a>,
    pub(crate) latency: Seconds,
    pub(crate) weights: Bytes,
    pub(crate) arrays: Arrays,
}

impl<'a> Model<'a> {
    /// Latency, energy and memory of the network as it is.
    ///
    /// # Errors
    /// None that preparing it did not find.
    pub fn base(&self) -> Result<Price, CostError> {
        self.price(&[])
    }

    /// Latency, energy and memory with some changes made: the same numbers as those of a changed graph, at a fraction of the time,
    /// because only what a change touches is computed anew.
    ///
    /// # Errors
    /// A value or node that the graph does not have, an axis that a value does not have, types that the chip does not multiply.
    pub fn price(&self, changes: &[Change]) -> Result<Price, CostError> {
        let Changed { jobs, sizes, schedule } = self.changed(changes)?;
        let schedule = schedule.as_ref().or(self.schedule.as_ref());
        let mut price = Price {
            latency: Seconds(0.0),
            energy: None,
            macs: Macs(0),
            parameters: 0,
            weight_bytes: Bytes(0),
            peak_memory: Bytes(0),
            arena: Bytes(0),
            activations_fit: true,
            weights_fit: true,
        };
        let mut joules = Some(Joules(0.0));
        let walk = self.walk(&sizes, &jobs, schedule, |it| {
            let repeats = it.task.repeats;
            if matches!(it.task.place, Place::Host { .. }) {
                joules = None;
            }
            let Some(job) = it.job else { return };
            price.macs += job.macs() * repeats;
            if it.task.place != Place::Chip {
                return;
            }
            price.parameters += job.parameters();
            let one = energy::of_job(self.chip, job, it.moved, |_| ());
            joules = joules.zip(one).map(|(sum, one)| sum + one * repeats as f64);
        });
        price.latency = walk.latency;
        price.energy = joules.map(|it| it + energy::at_rest(self.chip, walk.latency));
        price.weight_bytes = walk.weights;
        price.peak_memory = walk.arena.least;
        price.arena = walk.arena.size;
        price.weights_fit = walk.residence.weights(walk.weights).fits;
        price.activations_fit = walk.residence.activations(&sizes, &walk.arena).fits;
        Ok(price)
    }

    /// The jobs that changes touch, by position, and all buffers.
    fn changed(&self, changes: &[Change]) -> Result<Changed<'a>, CostError> {
        let network = &*self.network;
        if changes.is_empty() {
            return Ok(Changed { jobs: Vec::new(), sizes: self.sizes.clone(), schedule: None });
        }
        let mut shapes = network.shapes.clone();
        let mut tweaks: BTreeMap<u32, Tweak> = BTreeMap::new();
        for change in changes {
            match *change {
                Change::Extent { value, axis, extent } => {
                    let uses = network.uses.get(value.index());
                    let uses = uses.filter(|_| shapes.set(value, axis, extent));
                    let uses =
                        uses.ok_or_else(|| CostError::NoAxis { value: value.to_string(), axis })?;
                    for &at in uses {
                        tweaks.entry(at).or_default();
                    }
                }
                Change::Types { node, weights, activations } => {
                    self.tweak(&mut tweaks, node)?.types = Some((weights, activations));
                }
                Change::Pattern { node, pattern } => {
                    self.tweak(&mut tweaks, node)?.pattern =
                        pattern.map_or(Zeros::Free, Zeros::Pattern);
                }
                Change::Zeros { node, fraction } => {
                    self.tweak(&mut tweaks, node)?.zeros = Some(fraction);
                }
            }
        }
        let widths = self.widths(&tweaks);
        let sizes = network.buffers.sizes(&shapes, |buffer| widths.of(buffer));
        let mut jobs = Vec::with_capacity(tweaks.len());
        for (&at, tweak) in &tweaks {
            if let Some(job) = self.job(at as usize, &shapes, tweak)? {
                jobs.push((at, job));
            }
        }
        let schedule = self.rescheduled(&shapes, &tweaks, &jobs);
        Ok(Changed { jobs, sizes, schedule })
    }

    /// What nodes take with changes made, on an Ethos-U.
    fn rescheduled(
        &self,
        shapes: &Shapes,
        tweaks: &BTreeMap<u32, Tweak>,
        jobs: &[(u32, Job<'a>)],
    ) -> Option<Schedule> {
        let (schedule, network) = (self.schedule.as_ref()?, &self.network);
        let mut changed = ethos_u::Changed {
            bits: self.activation_bits(jobs),
            ratios: BTreeMap::new(),
            patterns: BTreeMap::new(),
        };
        for (&at, tweak) in tweaks {
            let id = network.tasks[at as usize].id;
            if let Some(zeros) = tweak.zeros {
                changed.ratios.insert(id, ethos_u::stored_ratio(self.chip, zeros));
            }
            match tweak.pattern {
                Zeros::Own => {}
                Zeros::Free => drop(changed.patterns.insert(id, false)),
                Zeros::Pattern(pattern) => drop(changed.patterns.insert(id, pattern == (2, 4))),
            }
        }
        let graph = (&*network.flat.graph, &network.folding, shapes);
        schedule.again(self.chip, graph, changed, &network.on_host())
    }

    fn tweak<'t>(
        &self,
        tweaks: &'t mut BTreeMap<u32, Tweak>,
        node: NodeId,
    ) -> Result<&'t mut Tweak, CostError> {
        let at = self.network.tasks.iter().position(|it| it.id == node);
        let at = at.ok_or_else(|| CostError::NoNode { node: node.to_string() })?;
        Ok(tweaks.entry(at as u32).or_default())
    }

    /// The widths of activations around products whose types change: a buffer is as wide as the widest activations of the products
    /// that touch it; one that none touches is so only if the types of all products change.
    fn widths(&self, tweaks: &BTreeMap<u32, Tweak>) -> Widths {
        let mut widths = Widths::default();
        let changed = |at: usize| tweaks.get(&(at as u32)).and_then(|it| it.types);
        if !tweaks.values().any(|it| it.types.is_some()) {
            return widths;
        }
        let mut all = true;
        for (at, job) in self.jobs.iter().enumerate() {
            let Some(job) = job.as_ref().filter(|it| !it.parts.is_empty()) else { continue };
            let types = changed(at);
            all &= types.is_some();
            let own = || job.parts.iter().map(|it| it.arithmetic.mode.activations.bits()).max();
            let bits = types.map(|it| it.1.bits()).or_else(own).unwrap_or(NumberType::F32.bits());
            let task = &self.network.tasks[at];
            for &buffer in task.reads.iter().chain(&task.writes) {
                let width = widths.by_buffer.entry(buffer).or_insert(0);
                *width = (*width).max(bits);
            }
        }
        widths.others = if all { widths.by_buffer.values().copied().max() } else { None };
        widths
    }

    /// Walks over all nodes: those in `changed` as they are there, others as they are.
    pub(crate) fn walk(
        &self,
        sizes: &[Span],
        changed: &[(u32, Job<'a>)],
        schedule: Option<&Schedule>,
        mut visit: impl FnMut(&Outcome<'_, 'a>),
    ) -> Walk<'a> {
        let arena = arena::plan(sizes);
        let mut residence = Residence::new(self.chip, sizes, &arena);
        let arrays = self.arrays(changed);
        let (mut latency, mut weights) = (self.chip.invoke(), Bytes(0));
        let mut moved = vec![[Bytes(0); 2]; self.chip.system.memories.len()];
        let mut next = changed.iter().peekable();
        for (at, (task, base)) in self.network.tasks.iter().zip(&self.jobs).enumerate() {
            let new = next.next_if(|it| it.0 as usize == at).map(|it| &it.1);
            let job = new.or(base.as_ref());
            moved.fill([Bytes(0); 2]);
            let (mut activations, mut compute, mut once) = (Bytes(0), Seconds(0.0), Seconds(0.0));
            let on_host = matches!(task.place, Place::Host { .. });
            let timing = schedule.and_then(|it| it.of_node(task.id)).filter(|_| !on_host);
            match (timing, &task.place, job) {
                (Some(timing), _, _) => {
                    weights += timing.stored;
                    moved.copy_from_slice(&timing.moved);
                    let all = task.reads.iter().chain(&task.writes);
                    activations = all.map(|&it| sizes[it as usize].0).sum();
                    (compute, once) = (timing.array, timing.total);
                }
                (None, Place::Host { reason, suffix }, job) => {
                    if reason.is_some() {
                        activations = if *suffix {
                            across(sizes, at as u32)
                        } else {
                            let all = task.reads.iter().chain(&task.writes);
                            all.map(|&it| sizes[it as usize].0).sum()
                        };
                    }
                    compute = job.map_or(Seconds(0.0), |it| it.compute);
                    once = residence.host_transfer(activations) + compute;
                }
                (None, Place::View(_) | Place::Fused(_), Some(job)) => {
                    (compute, once) = (job.compute, job.compute + job.overhead);
                }
                (None, Place::Chip, Some(job)) => {
                    let stored = job.stored();
                    weights += stored;
                    let from = residence.place(stored);
                    activations = self.traffic(task, job, sizes, &residence, from, &mut moved);
                    compute = job.compute + arrays.time(at);
                    once = self.once(compute, job.overhead, &moved);
                }
                _ => {}
            }
            latency += once * task.repeats as f64;
            visit(&Outcome { task, job, compute, moved: &moved, activations, once, timing });
        }
        Walk { arena, residence, latency, weights, arrays }
    }

    /// The arrays of a crossbar, dealt out to all nodes.
    fn arrays(&self, changed: &[(u32, Job<'a>)]) -> Arrays {
        let Some(crossbar) = crossbar::of(self.chip) else { return Arrays::default() };
        let mut next = changed.iter().peekable();
        let (mut at, mut uses) = (Vec::new(), Vec::new());
        for (i, (task, base)) in self.network.tasks.iter().zip(&self.jobs).enumerate() {
            let new = next.next_if(|it| it.0 as usize == i).map(|it| &it.1);
            let parts = new.or(base.as_ref()).filter(|_| task.place == Place::Chip);
            for it in parts.iter().flat_map(|it| &it.parts).filter_map(|it| it.arrays) {
                at.push(i);
                uses.push(it);
            }
        }
        let plan = Plan::of(crossbar, &uses);
        let mut times = vec![Seconds(0.0); self.jobs.len()];
        for (i, it) in uses.iter().enumerate() {
            times[at[i]] += plan.time(i, it);
        }
        Arrays { times, plan: Some(plan) }
    }

    /// Fills in the bytes that a node moves, by memory: its operands where they lie, weights as often as they are read, operands that
    /// loop tiling reads again. Returns the bytes of its activations, each counted once.
    fn traffic(
        &self,
        task: &Task,
        job: &Job<'a>,
        sizes: &[Span],
        residence: &Residence<'a>,
        from: usize,
        moved: &mut [[Bytes; 2]],
    ) -> Bytes {
        let size = |it: &u32| sizes[*it as usize].0;
        let writes: Bytes = task.writes.iter().map(size).sum();
        let mut reads: Bytes = task.reads.iter().map(size).sum();
        if job.partial && reads > writes {
            let at = task.reads.first().map_or(residence.activations, |&it| residence.of(it));
            moved[at][0] += writes;
            reads = writes;
        } else {
            for it in &task.reads {
                moved[residence.of(*it)][0] += size(it);
            }
        }
        for it in &task.writes {
            moved[residence.of(*it)][1] += size(it);
        }
        let home = task.reads.iter().map(|&it| residence.of(it)).max().unwrap_or(0);
        for part in &job.parts {
            let bytes = part.stored.bytes;
            let room = tile_room(self.chip, from);
            let again = if room.is_some_and(|it| it >= bytes) { 1 } else { part.product.steps };
            moved[from][0] += bytes * again.max(1);
        }
        moved[from][0] += job.constants.bytes;
        self.tile(job, reads, [home, from], moved);
        let partial = job.partial_sums();
        if partial > Bytes(0) {
            // Half is written, half is read, in the nearest memory.
            moved[0][0] += Bytes(partial.0 / 2);
            moved[0][1] += Bytes(partial.0 / 2);
        }
        reads + writes
    }

    /// Loop tiling: where neither the inputs nor the weights of a product fit into half of the nearer memory (the other half is
    /// filled meanwhile), one of them is read once for each tile of the other; the cheaper order is taken.
    fn tile(
        &self,
        job: &Job<'a>,
        inputs: Bytes,
        [home, from]: [usize; 2],
        moved: &mut [[Bytes; 2]],
    ) {
        let weights: Bytes = job.parts.iter().map(|it| it.stored.bytes).sum();
        let nearer = home.min(from);
        let Some(room) = tile_room(self.chip, nearer).map(|it| (it.0 / 2).max(1)) else { return };
        let tiles = |bytes: Bytes| bytes.0.div_ceil(room);
        let (of_inputs, of_weights) = (tiles(inputs), tiles(weights));
        if of_inputs < 2 || of_weights < 2 {
            return;
        }
        let seconds = |memory: usize, bytes: Bytes| {
            let read = self.chip.system.memories[memory].read.as_ref();
            read.map_or(bytes.0 as f64 * f64::MIN_POSITIVE, |it| (bytes / it.value).0)
        };
        let inputs_again = inputs * (of_weights - 1);
        let weights_again = weights * (of_inputs - 1);
        if seconds(home, inputs_again) <= seconds(from, weights_again) {
            moved[home][0] += inputs_again;
        } else {
            moved[from][0] += weights_again;
        }
    }

    /// Time of one run of a node: the longest of its resources, or their sum without overlap, and the overhead.
    fn once(&self, compute: Seconds, overhead: Seconds, moved: &[[Bytes; 2]]) -> Seconds {
        let times = (0..moved.len()).map(|i| self.memory_time(i, moved[i]));
        let work = if self.chip.core.overlaps {
            times.fold(compute, Seconds::max)
        } else {
            compute + times.sum()
        };
        work + overhead
    }

    /// How long a memory takes for bytes read and written.
    pub(crate) fn memory_time(&self, memory: usize, [read, written]: [Bytes; 2]) -> Seconds {
        let memory = &self.chip.system.memories[memory];
        let time = |bytes: Bytes, figure: Option<&sartor_chip::Figure<_>>| {
            figure.map_or(Seconds(0.0), |it| bytes / it.value)
        };
        time(read, memory.read.as_ref()) + time(written, memory.write.as_ref())
    }
}

/// The arrays of a crossbar: empty where the chip has none.
#[derive(Default)]
pub(crate) struct Arrays {
    /// By position.
    times: Vec<Seconds>,
    pub(crate) plan: Option<Plan>,
}

impl Arrays {
    fn time(&self, at: usize) -> Seconds {
        self.times.get(at).copied().unwrap_or_default()
    }
}

/// What changes make of a network.
struct Changed<'a> {
    jobs: Vec<(u32, Job<'a>)>,
    sizes: Vec<Span>,
    schedule: Option<Schedule>,
}

/// Widths of floats by buffer.
#[derive(Default)]
struct Widths {
    by_buffer: BTreeMap<u32, u32>,
    others: Option<u32>,
}

impl Widths {
    fn of(&self, buffer: u32) -> Option<u32> {
        self.by_buffer.get(&buffer).copied().or(self.others)
    }
}
