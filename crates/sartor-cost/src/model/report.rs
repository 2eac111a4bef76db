//! The full estimate: the walk with everything written down.

use std::collections::{BTreeMap, BTreeSet};

use sartor_chip::{Bytes, Joules, Macs, Seconds};

use super::{Job, Model, Place, evaluate::Outcome, job::Part};
use crate::{
    Estimate, NodeCost, Resource, RunsOn,
    confidence::Doubts,
    crossbar::{self, Plan},
    energy,
    op::chip_name,
};

/// What is written down on the way.
struct Notes {
    doubts: Doubts,
    /// Products by the arithmetic in which they run.
    arithmetic: BTreeMap<String, usize>,
    missing: BTreeSet<String>,
    shares: BTreeMap<Resource, Seconds>,
    fallbacks: Vec<String>,
}

impl<'a> Model<'a> {
    /// What the network costs, in total and by node.
    pub fn estimate(&self) -> Estimate {
        let mut notes = Notes {
            doubts: Doubts::of(self.chip),
            arithmetic: BTreeMap::new(),
            missing: BTreeSet::new(),
            shares: BTreeMap::new(),
            fallbacks: self.network.fallbacks.clone(),
        };
        let mut nodes = Vec::with_capacity(self.network.tasks.len());
        let walk = self.walk(&self.sizes, &[], self.schedule.as_ref(), |it| {
            nodes.push(self.node_cost(it, &mut notes));
        });
        if self.chip.invoke() > Seconds(0.0) {
            *notes.shares.entry(Resource::Overhead).or_default() += self.chip.invoke();
        }
        let latency = walk.latency;
        let joules: Joules = nodes.iter().filter_map(|it| it.energy).sum();
        let largest = notes.shares.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let bound = largest.map_or(Resource::Overhead, |it| it.0.clone());
        let mut energy = energy::total(self.chip, joules, notes.missing, latency);
        if nodes.iter().any(|it| it.runs_on == RunsOn::Host) {
            energy.joules = None;
            energy.missing.push("what the host draws".to_owned());
        }
        let mut assumptions = self.network.assumptions.clone();
        assumptions.extend(self.without_rate());
        assumptions.extend(walk.arrays.plan.iter().filter_map(|it| self.arrays_note(it)));
        let used = notes.arithmetic.into_iter();
        let used = used.map(|(how, count)| format!("{how} ({count} operators)"));
        Estimate {
            chip: self.chip.id.clone(),
            batch: self.options.batch,
            precision: used.collect::<Vec<_>>().join("; "),
            latency,
            cycles: latency * self.chip.system.clock.value,
            energy,
            macs: nodes.iter().map(|it| it.macs).sum(),
            mac_slots: nodes.iter().map(|it| it.mac_slots).sum(),
            parameters: nodes.iter().map(|it| it.parameters).sum(),
            weight_bytes: walk.weights,
            peak_memory: walk.arena.least,
            weights: walk.residence.weights(walk.weights),
            activations: walk.residence.activations(&self.sizes, &walk.arena),
            arena: walk.arena,
            shares: notes.shares.into_iter().collect(),
            bound,
            nodes,
            low_confidence: notes.doubts.list(),
            fallbacks: notes.fallbacks,
            assumptions,
        }
    }

    /// What there is to say of a plan of arrays.
    fn arrays_note(&self, plan: &Plan) -> Option<String> {
        let crossbar = crossbar::of(self.chip)?;
        let all = crossbar.arrays.as_ref().map(|it| it.value)?;
        if plan.fits {
            return None;
        }
        let written = if crossbar.write_row.is_some() {
            "each layer is written anew in each inference"
        } else {
            "nothing says how long it takes to write them anew, which is not counted"
        };
        Some(format!("the weights need {} arrays of {all}: {written}", plan.needed))
    }

    /// Operators of which the chip says nothing although it does of others.
    fn without_rate(&self) -> Option<String> {
        let mut rates = self.chip.engines().flat_map(|it| &it.op_rates);
        if rates.any(|it| it.cycles_per_element.is_some()) {
            let tasks = self.network.tasks.iter().zip(&self.jobs).enumerate();
            let unknown = tasks.filter_map(|(at, (task, job))| {
                let op = self.network.node(at).op.name();
                let elementary = job.as_ref().is_some_and(|it| it.parts.is_empty());
                let here = task.place == Place::Chip && elementary;
                (here && self.chip.cycles_per_element(op).is_none()).then(|| op.to_owned())
            });
            let unknown: Vec<_> = unknown.collect::<BTreeSet<_>>().into_iter().collect();
            if !unknown.is_empty() {
                let (id, ops) = (&self.chip.id, unknown.join(", "));
                return Some(format!(
                    "{id} states no rate of {ops}: they count their traffic and their start alone"
                ));
            }
        }
        None
    }

    fn node_cost(&self, it: &Outcome<'_, 'a>, notes: &mut Notes) -> NodeCost {
        let node = self.network.flat.graph.node(it.task.id);
        let mut cost = NodeCost {
            node: self.network.flat.origin(it.task.id),
            name: it.task.name.clone(),
            op: node.op.name().to_owned(),
            runs_on: RunsOn::Nowhere,
            macs: Macs(0),
            mac_slots: Macs(0),
            parameters: 0,
            weight_bytes: Bytes(0),
            activation_bytes: Bytes(0),
            moved: Vec::new(),
            times: Vec::new(),
            repeats: it.task.repeats,
            latency: it.once * it.task.repeats as f64,
            energy: Some(Joules(0.0)),
            bound: Resource::Overhead,
            margin: None,
            utilisation: 0.0,
            note: String::new(),
        };
        if let Some(job) = it.job {
            cost.macs = job.macs() * it.task.repeats;
        }
        match (&it.task.place, it.job) {
            (Place::Nowhere(_) | Place::View(_) | Place::Fused(_), _)
                if it.timing.is_some() && it.once > Seconds(0.0) =>
            {
                self.stepwise(it, &mut cost, notes);
            }
            (Place::Nowhere(why), _) | (Place::View(why) | Place::Fused(why), None) => {
                (*why).clone_into(&mut cost.note);
            }
            (Place::View(why) | Place::Fused(why), Some(job)) => {
                (*why).clone_into(&mut cost.note);
                if it.once > Seconds(0.0) {
                    let repeats = it.task.repeats as f64;
                    cost.runs_on = RunsOn::Chip;
                    cost.times.push((Resource::Compute, job.compute * repeats));
                    cost.times.push((Resource::Overhead, job.overhead * repeats));
                    self.settle(it, &mut cost, notes);
                }
            }
            (Place::Host { reason, .. }, _) => self.host(reason.as_deref(), it, &mut cost, notes),
            (Place::Chip, Some(job)) => self.on_chip(job, it, &mut cost, notes),
            (Place::Chip, None) => {}
        }
        cost
    }

    /// A node on the host: with a `reason` it is the one that leaves the chip, and the transfer is part of its cost.
    fn host(
        &self,
        reason: Option<&str>,
        it: &Outcome<'_, 'a>,
        cost: &mut NodeCost,
        notes: &mut Notes,
    ) {
        cost.runs_on = RunsOn::Host;
        let own = it.compute * it.task.repeats as f64;
        if own > Seconds(0.0) {
            cost.times.push((Resource::Host, own));
        }
        if reason.is_some() {
            cost.activation_bytes = it.activations;
            cost.times.push((Resource::Fallback, Seconds(cost.latency.0 - own.0)));
        }
        for (resource, seconds) in &cost.times {
            *notes.shares.entry(resource.clone()).or_default() += *seconds;
        }
        let longest = cost.times.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0));
        cost.bound = longest.map_or(Resource::Overhead, |it| it.0.clone());
        let Some(reason) = reason else {
            "on the host, after an operator that the chip does not run".clone_into(&mut cost.note);
            return;
        };
        let counted = if self.chip.host().is_some() { "is" } else { "is not" };
        let name = &cost.name;
        notes.fallbacks.push(format!("`{name}`: {reason}; the host's own time {counted} counted"));
        reason.clone_into(&mut cost.note);
    }

    /// A node that runs only because the chip's compiler makes operators of it.
    fn stepwise(&self, it: &Outcome<'_, 'a>, cost: &mut NodeCost, notes: &mut Notes) {
        cost.runs_on = RunsOn::Chip;
        cost.activation_bytes = it.activations * it.task.repeats;
        self.times(it, cost, notes);
        self.settle(it, cost, notes);
    }

    fn on_chip(&self, job: &Job<'a>, it: &Outcome<'_, 'a>, cost: &mut NodeCost, notes: &mut Notes) {
        let repeats = it.task.repeats;
        cost.runs_on = RunsOn::Chip;
        cost.mac_slots = job.slots() * repeats;
        cost.parameters = job.parameters();
        cost.weight_bytes = job.stored();
        cost.activation_bytes = it.activations * repeats;
        self.times(it, cost, notes);
        self.settle(it, cost, notes);
        for part in &job.parts {
            self.used(part, notes);
            if let Some(it) = &part.arrays {
                let lost = crossbar::of(self.chip).map_or(0, crossbar::lost_bits);
                let exact = if lost > 0 { ", converters lose bits" } else { "" };
                cost.note = format!("{} arrays of weights{exact}", it.arrays);
            } else if let Some(pattern) = part.stored.pattern {
                cost.note = format!("the array skips {}:{} zeros", pattern.n, pattern.m);
            } else if part.occupation.split > 1 {
                cost.note = format!("the sums are split into {} parts", part.occupation.split);
            }
        }
        if let Some(timing) = it.timing {
            cost.weight_bytes = timing.stored;
            timing.note.clone_into(&mut cost.note);
            if timing.total == Seconds(0.0) {
                cost.runs_on = RunsOn::Nowhere;
            }
        }
        if let Some(first) = job.parts.first() {
            let possible = cost.latency.0 * self.chip.peak(first.arithmetic.mode).0;
            let share = if possible > 0.0 { cost.macs.0 as f64 / possible } else { 0.0 };
            cost.utilisation = share.min(1.0);
        }
        let missing = |name: &dyn Fn() -> String| {
            notes.missing.insert(name());
        };
        let joules = energy::of_job(self.chip, job, it.moved, missing);
        cost.energy = joules.map(|it| it * repeats as f64);
    }

    /// How long each resource takes.
    fn times(&self, it: &Outcome<'_, 'a>, cost: &mut NodeCost, notes: &mut Notes) {
        let repeats = it.task.repeats;
        let node = self.network.flat.graph.node(it.task.id);
        if let Some(timing) = it.timing {
            cost.times.push((Resource::Compute, timing.array * repeats as f64));
            for (i, memory) in self.chip.system.memories.iter().enumerate() {
                let [read, written] = timing.moved[i];
                if read + written > Bytes(0) {
                    cost.moved.push((memory.name.clone(), (read + written) * repeats));
                    let seconds = timing.memories[i] * repeats as f64;
                    cost.times.push((Resource::Memory(memory.name.clone()), seconds));
                }
            }
            return;
        }
        let Some(job) = it.job else { return };
        let work = crate::op::Work::products(job.parts.iter().map(|it| it.product).collect());
        let rate = self.chip.cycles_per_element(chip_name(node, &work));
        notes.doubts.maybe(rate, || format!("compute.op.cycles_per_element of {}", node.op.name()));
        cost.times.push((Resource::Compute, it.compute * repeats as f64));
        for (i, (memory, &bytes)) in self.chip.system.memories.iter().zip(it.moved).enumerate() {
            let all = bytes[0] + bytes[1];
            if all == Bytes(0) {
                continue;
            }
            cost.moved.push((memory.name.clone(), all * repeats));
            let seconds = self.memory_time(i, bytes) * repeats as f64;
            cost.times.push((Resource::Memory(memory.name.clone()), seconds));
            let name = &memory.name;
            notes.doubts.maybe(memory.read.as_ref(), || format!("memory {name} read_bytes_per_s"));
            notes
                .doubts
                .maybe(memory.capacity.as_ref(), || format!("memory {name} capacity_bytes"));
        }
        let overhead = job.overhead * repeats as f64;
        cost.times.push((Resource::Overhead, overhead));
    }

    /// The binding resource and its margin; what each resource has of the latency.
    fn settle(&self, it: &Outcome<'_, 'a>, cost: &mut NodeCost, notes: &mut Notes) {
        let work = cost.times.iter().filter(|it| it.0 != Resource::Overhead);
        let spent: Vec<_> = if self.chip.core.overlaps {
            work.max_by(|a, b| a.1.0.total_cmp(&b.1.0)).into_iter().collect()
        } else {
            work.collect()
        };
        let overhead = cost.times.iter().filter(|it| it.0 == Resource::Overhead);
        for (resource, seconds) in spent.into_iter().chain(overhead) {
            // An operator of many steps takes longer than the resource that binds most of them.
            let seconds = if it.timing.is_some() { &cost.latency } else { seconds };
            *notes.shares.entry(resource.clone()).or_default() += *seconds;
        }
        let mut ranked: Vec<_> = cost.times.iter().filter(|it| it.1.0 > 0.0).collect();
        ranked.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
        let bound = ranked.first().map_or(Resource::Overhead, |it| it.0.clone());
        let margin = ranked.get(1).map(|next| ranked[0].1 / next.1);
        (cost.bound, cost.margin) = (bound, margin);
    }

    /// Notes the figures that a product uses.
    fn used(&self, part: &Part<'a>, notes: &mut Notes) {
        *notes.arithmetic.entry(part.arithmetic.describe()).or_default() += 1;
        let mode = part.arithmetic.mode;
        let key =
            |name: &str| format!("compute.mode {} × {} {name}", mode.weights, mode.activations);
        let doubts = &mut notes.doubts;
        doubts.used(&mode.macs_per_cycle, || key("macs_per_cycle"));
        doubts.used(&mode.efficiency, || key("efficiency"));
        match &mode.depthwise {
            Some(depthwise) if part.product.depthwise => {
                doubts.used(&depthwise.macs_per_cycle, || key("depthwise.macs_per_cycle"));
                doubts.used(&depthwise.unroll, || key("depthwise.unroll"));
            }
            _ => doubts.used(&mode.unroll, || key("unroll")),
        }
        let pattern = part.stored.pattern.map(|it| &it.speedup);
        doubts.maybe(pattern, || "sparsity.speedup".to_owned());
        let store = self.chip.core.weight_store.as_ref();
        doubts.maybe(store.map(|it| &it.bytes_per_weight), || {
            "weight_store.bytes_per_weight".to_owned()
        });
    }
}
