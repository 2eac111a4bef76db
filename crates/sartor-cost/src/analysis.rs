//! Graph × chip → estimate.

use std::collections::{BTreeMap, BTreeSet};

use sartor_chip::{Bytes, Chip, Cycles, Fallback, Joules, Macs, Seconds};
use sartor_ir::{Graph, Node, NodeId};

use crate::{
    CostError, Estimate, NodeCost, Precision, Resource, RunsOn,
    arithmetic::{Arithmetic, Arithmetics},
    array::{Occupation, occupation},
    confidence::Doubts,
    energy,
    fold::{Folding, Role},
    memory::{Liveness, Residence},
    op::{Product, Work, chip_name, work},
    shapes::Shapes,
    weights::{Stored, stored},
};

/// What to assume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Samples in one run.
    pub batch: usize,
    /// The number types.
    pub precision: Precision,
}

/// What `graph` costs on `chip`.
///
/// The graph's inputs get the batch wherever their first extent, or its name, stands. Formulas: `docs/cost-model.md`.
///
/// # Errors
/// Shapes that cannot be inferred, types that the chip does not multiply when they are asked for, a batch above the chip's, an
/// operator for which the chip refuses the network.
pub fn estimate(graph: &Graph, chip: &Chip, options: &Options) -> Result<Estimate, CostError> {
    let most = chip.core.operators.batch_max.as_ref().map_or(u64::MAX, |it| it.value);
    if options.batch == 0 || options.batch as u64 > most {
        return Err(CostError::Batch { chip: chip.id.clone(), most, found: options.batch });
    }
    let arithmetics = Arithmetics::new(chip, options.precision)?;
    let shapes = Shapes::infer(graph, options.batch)?;
    let folding = Folding::of(graph, &shapes);
    let live = Liveness::of(graph, &folding, &shapes, &arithmetics)?;
    let mut walk = Walk {
        graph,
        chip,
        shapes,
        arithmetics,
        residence: Residence::new(chip, live.peak),
        folding,
        live,
        on_host: false,
        doubts: Doubts::of(chip),
        arithmetic_used: BTreeMap::new(),
        missing: BTreeSet::new(),
        shares: BTreeMap::new(),
        kept: Bytes(0),
        fallbacks: Vec::new(),
    };
    let nodes = graph.nodes().enumerate();
    let nodes =
        nodes.map(|(at, (id, node))| walk.node(at, id, node)).collect::<Result<Vec<_>, _>>()?;
    Ok(walk.finish(nodes, options))
}

/// The state of one walk over a graph.
struct Walk<'g, 'c> {
    graph: &'g Graph,
    chip: &'c Chip,
    shapes: Shapes,
    folding: Folding<'g>,
    arithmetics: Arithmetics<'c>,
    live: Liveness,
    residence: Residence<'c>,
    /// Whether the rest runs on the host.
    on_host: bool,
    doubts: Doubts,
    /// Products by the arithmetic in which they run.
    arithmetic_used: BTreeMap<String, usize>,
    missing: BTreeSet<String>,
    shares: BTreeMap<Resource, Seconds>,
    /// Weights that stay near.
    kept: Bytes,
    fallbacks: Vec<String>,
}

/// A running node on the chip.
struct Job<'c> {
    work: Work,
    arithmetic: Option<Arithmetic<'c>>,
    stored: Stored<'c>,
    reads: Bytes,
    writes: Bytes,
    /// Memory from which the weights come.
    weights_from: usize,
}

impl<'c> Walk<'_, 'c> {
    fn node(&mut self, at: usize, id: NodeId, node: &Node) -> Result<NodeCost, CostError> {
        let mut cost = self.nothing(id, node);
        let role = self.folding.role(id);
        if role == Role::Ahead {
            "computed ahead".clone_into(&mut cost.note);
            return Ok(cost);
        }
        let reason = self.off_chip(at, node, &cost.name)?;
        if self.on_host || reason.is_some() {
            self.host(at, node, reason, &mut cost);
            return Ok(cost);
        }
        if let Role::Folded(why) = role {
            why.clone_into(&mut cost.note);
            return Ok(cost);
        }
        let job = self.job(node, &cost.name)?;
        self.times(node, &job, &mut cost);
        self.settle(&job, &mut cost);
        Ok(cost)
    }

    /// A node that costs nothing.
    fn nothing(&self, id: NodeId, node: &Node) -> NodeCost {
        let output = node.outputs.iter().flatten().next();
        let name = match output {
            Some(&output) if node.name.is_empty() => self.graph.value(output).name.clone(),
            _ => node.name.clone(),
        };
        NodeCost {
            node: id,
            name,
            op: node.op.name().to_owned(),
            runs_on: RunsOn::Nowhere,
            macs: Macs(0),
            mac_slots: Macs(0),
            parameters: 0,
            weight_bytes: Bytes(0),
            activation_bytes: Bytes(0),
            moved: Vec::new(),
            times: Vec::new(),
            latency: Seconds(0.0),
            energy: Some(Joules(0.0)),
            bound: Resource::Overhead,
            margin: None,
            utilisation: 0.0,
            note: String::new(),
        }
    }

    /// Why this node leaves the chip, if it does so anew.
    fn off_chip(
        &mut self,
        at: usize,
        node: &Node,
        name: &str,
    ) -> Result<Option<String>, CostError> {
        let op = node.op.name();
        if self.on_host || self.chip.runs(op) {
            return Ok(None);
        }
        let chip = &self.chip.id;
        match self.chip.core.operators.fallback {
            Fallback::Split => {
                self.fallbacks.push(format!(
                    "`{name}` ({op}) runs by other means of {chip}, counted by its traffic"
                ));
                Ok(None)
            }
            Fallback::CpuPerOp => Ok(Some(format!("{chip} does not run {op}: host and back"))),
            Fallback::CpuSuffix => {
                self.on_host = true;
                let rest = self.graph.node_count() - at;
                Ok(Some(format!(
                    "{chip} does not run {op}: it and all after it ({rest} nodes) run on the host"
                )))
            }
            Fallback::Reject => Err(CostError::Rejected {
                chip: chip.clone(),
                node: name.to_owned(),
                op: op.to_owned(),
            }),
        }
    }

    /// A node on the host: with a `reason` it is the one that leaves the chip, and the transfer is its cost.
    fn host(&mut self, at: usize, node: &Node, reason: Option<String>, cost: &mut NodeCost) {
        cost.runs_on = RunsOn::Host;
        if let Some(Work::Product(product)) = work(node, &self.shapes) {
            cost.macs = Macs(product.macs());
        }
        let Some(reason) = reason else {
            "on the host, after an operator that the chip does not run".clone_into(&mut cost.note);
            return;
        };
        let moved = if self.on_host {
            self.live.across(at)
        } else {
            let values = node.reads().chain(node.outputs.iter().flatten().copied());
            values.map(|it| self.live.size(&self.folding, it)).sum()
        };
        cost.activation_bytes = moved;
        cost.latency = self.residence.host_transfer(moved);
        cost.bound = Resource::Fallback;
        cost.times = vec![(Resource::Fallback, cost.latency)];
        *self.shares.entry(Resource::Fallback).or_default() += cost.latency;
        self.fallbacks
            .push(format!("`{}`: {reason}; the host's own time is not counted", cost.name));
        cost.note = reason;
    }

    /// What a running node takes.
    fn job(&mut self, node: &Node, name: &str) -> Result<Job<'c>, CostError> {
        let work = work(node, &self.shapes).ok_or_else(|| CostError::UnknownShape {
            value: name.to_owned(),
            origin: format!(
                "an operand of node `{name}` ({}) has no inferred shape",
                node.op.name()
            ),
        })?;
        let size = |it| self.live.size(&self.folding, it);
        let writes: Bytes = node.outputs.iter().flatten().map(|&it| size(it)).sum();
        let distinct: BTreeSet<_> = node.reads().map(|it| self.folding.buffer(it)).collect();
        let all: Bytes = distinct.into_iter().map(size).sum();
        let (arithmetic, stored) = match &work {
            Work::Product(product) => {
                let arithmetic = self.arithmetics.of(self.graph, &self.folding, &self.shapes, node);
                let stored = stored(
                    self.chip,
                    self.graph,
                    &self.folding,
                    &self.shapes,
                    node,
                    product,
                    &arithmetic,
                );
                (Some(arithmetic), stored)
            }
            Work::Elementwise | Work::Window => (None, self.constants(node)),
        };
        let weights_from = self.residence.place(stored.bytes);
        if self.chip.system.memories[weights_from].keeps_weights {
            self.kept += stored.bytes;
        }
        let reads = if work == Work::Window { all.min(writes) } else { all };
        Ok(Job { work, arithmetic, stored, reads, writes, weights_from })
    }

    /// Floating-point constants that an operator without products reads, such as those of a batch normalization.
    fn constants(&self, node: &Node) -> Stored<'c> {
        let fixed = node.reads().filter(|&it| self.folding.is_fixed(it));
        let mut stored = Stored::default();
        let quantizing = matches!(
            node.op,
            sartor_ir::Op::QuantizeLinear(_) | sartor_ir::Op::DequantizeLinear(_)
        );
        for value in fixed {
            let (Some(elements), Some(dtype)) =
                (self.shapes.elements(value), self.shapes.dtype(value))
            else {
                continue;
            };
            let bits = self.arithmetics.activation_bits(dtype);
            stored.bytes += Bytes((elements * bits).div_ceil(8));
            stored.parameters += if dtype.is_float() && !quantizing { elements } else { 0 };
        }
        stored
    }

    /// Fills in what `job` moves and how long each resource takes.
    fn times(&mut self, node: &Node, job: &Job<'c>, cost: &mut NodeCost) {
        let outputs: u64 =
            node.outputs.iter().flatten().filter_map(|&it| self.shapes.elements(it)).sum();
        let rate = self.chip.cycles_per_element(chip_name(node, &job.work));
        self.doubts.maybe(rate, || format!("compute.op.cycles_per_element of {}", node.op.name()));
        let mut cycles = rate.map_or(0.0, |it| it.value.0 * outputs as f64);
        if let (Work::Product(product), Some(arithmetic)) = (&job.work, &job.arithmetic) {
            let Occupation { slots, cycles: dense } = occupation(self.chip, arithmetic, product);
            cost.macs = Macs(product.macs());
            cost.mac_slots = slots;
            let speedup = job.stored.pattern.map_or(1.0, |it| it.speedup.value);
            if let Some(pattern) = job.stored.pattern {
                cost.note = format!("the array skips {}:{} zeros", pattern.n, pattern.m);
            }
            cycles = cycles.max(dense.0 / speedup);
            self.product_figures(arithmetic, product, &job.stored);
        }
        cost.times.push((Resource::Compute, Cycles(cycles) / self.chip.system.clock.value));
        for (i, moved) in self.moved(job).into_iter().enumerate() {
            let memory = &self.chip.system.memories[i];
            let [read, written] = moved;
            if read + written == Bytes(0) {
                continue;
            }
            cost.moved.push((memory.name.clone(), read + written));
            let time = |bytes: Bytes, figure: Option<&sartor_chip::Figure<sartor_chip::BytesPerSecond>>| {
                figure.map_or(Seconds(0.0), |it| bytes / it.value)
            };
            let seconds = time(read, memory.read.as_ref()) + time(written, memory.write.as_ref());
            cost.times.push((Resource::Memory(memory.name.clone()), seconds));
            self.doubts
                .maybe(memory.read.as_ref(), || format!("memory {} read_bytes_per_s", memory.name));
            self.doubts.maybe(memory.capacity.as_ref(), || {
                format!("memory {} capacity_bytes", memory.name)
            });
        }
        cost.times.push((Resource::Overhead, self.chip.overhead_per_op()));
    }

    /// By memory: bytes read and written.
    fn moved(&self, job: &Job<'c>) -> Vec<[Bytes; 2]> {
        let mut moved = vec![[Bytes(0); 2]; self.chip.system.memories.len()];
        moved[self.residence.activations][0] += job.reads;
        moved[self.residence.activations][1] += job.writes;
        moved[job.weights_from][0] += job.stored.bytes;
        moved
    }

    /// Notes the figures that a product uses.
    fn product_figures(
        &mut self,
        arithmetic: &Arithmetic<'c>,
        product: &Product,
        stored: &Stored<'c>,
    ) {
        *self.arithmetic_used.entry(arithmetic.describe()).or_default() += 1;
        let mode = arithmetic.mode;
        let key =
            |name: &str| format!("compute.mode {} × {} {name}", mode.weights, mode.activations);
        self.doubts.used(&mode.macs_per_cycle, || key("macs_per_cycle"));
        self.doubts.used(&mode.efficiency, || key("efficiency"));
        match &mode.depthwise {
            Some(depthwise) if product.depthwise => {
                self.doubts.used(&depthwise.macs_per_cycle, || key("depthwise.macs_per_cycle"));
                self.doubts.used(&depthwise.unroll, || key("depthwise.unroll"));
            }
            _ => self.doubts.used(&mode.unroll, || key("align")),
        }
        self.doubts.maybe(stored.pattern.map(|it| &it.speedup), || "sparsity.speedup".to_owned());
        let store = self.chip.core.weight_store.as_ref();
        self.doubts.maybe(store.map(|it| &it.bytes_per_weight), || {
            "weight_store.bytes_per_weight".to_owned()
        });
    }

    /// Latency, binding resource and energy from the times.
    fn settle(&mut self, job: &Job<'c>, cost: &mut NodeCost) {
        let overhead = self.chip.overhead_per_op();
        let work = cost.times.iter().filter(|it| it.0 != Resource::Overhead);
        let longest = work.clone().max_by(|a, b| a.1.0.total_cmp(&b.1.0)).cloned();
        let spent = if self.chip.core.overlaps {
            longest.into_iter().collect()
        } else {
            work.cloned().collect::<Vec<_>>()
        };
        cost.runs_on = RunsOn::Chip;
        cost.latency = spent.iter().map(|it| it.1).sum::<Seconds>() + overhead;
        for (resource, seconds) in spent.into_iter().chain([(Resource::Overhead, overhead)]) {
            *self.shares.entry(resource).or_default() += seconds;
        }
        let mut ranked: Vec<_> = cost.times.iter().filter(|it| it.1.0 > 0.0).collect();
        ranked.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
        cost.bound = ranked.first().map_or(Resource::Overhead, |it| it.0.clone());
        cost.margin = ranked.get(1).map(|next| ranked[0].1 / next.1);
        cost.parameters = job.stored.parameters;
        cost.weight_bytes = job.stored.bytes;
        cost.activation_bytes = job.reads + job.writes;
        if let Some(arithmetic) = &job.arithmetic {
            let possible = cost.latency.0 * self.chip.peak(arithmetic.mode).0;
            cost.utilisation =
                if possible > 0.0 { (cost.macs.0 as f64 / possible).min(1.0) } else { 0.0 };
        }
        let moved: Vec<_> =
            self.moved(job).into_iter().map(|[read, written]| read + written).collect();
        cost.energy = energy::of_node(
            self.chip,
            cost.macs,
            job.arithmetic.as_ref(),
            &moved,
            &mut self.missing,
        );
    }

    fn finish(self, nodes: Vec<NodeCost>, options: &Options) -> Estimate {
        let latency: Seconds = nodes.iter().map(|it| it.latency).sum();
        let weight_bytes: Bytes = nodes.iter().map(|it| it.weight_bytes).sum();
        let joules = nodes.iter().filter_map(|it| it.energy).sum();
        let largest = self.shares.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let bound = largest.map_or(Resource::Overhead, |it| it.0.clone());
        let mut energy = energy::total(self.chip, joules, self.missing, latency);
        if nodes.iter().any(|it| it.runs_on == RunsOn::Host) {
            energy.joules = None;
            energy.missing.push("what the host draws".to_owned());
        }
        let used = self
            .arithmetic_used
            .into_iter()
            .map(|(how, count)| format!("{how} ({count} operators)"));
        Estimate {
            chip: self.chip.id.clone(),
            batch: options.batch,
            precision: used.collect::<Vec<_>>().join("; "),
            latency,
            cycles: latency * self.chip.system.clock.value,
            energy,
            macs: Macs(nodes.iter().map(|it| it.macs.0).sum()),
            mac_slots: Macs(nodes.iter().map(|it| it.mac_slots.0).sum()),
            parameters: nodes.iter().map(|it| it.parameters).sum(),
            weight_bytes,
            peak_memory: self.live.peak,
            weights: self.residence.weights(weight_bytes, self.kept),
            activations: self.residence.activations(self.live.peak),
            shares: self.shares.into_iter().collect(),
            bound,
            nodes,
            low_confidence: self.doubts.list(),
            fallbacks: self.fallbacks,
        }
    }
}
