//! What would make a network quicker on a chip: changes that the model can price, the best first.

use std::collections::BTreeSet;

use sartor_chip::{Bytes, Chip, Seconds};
use serde::Serialize;

use crate::{
    Change, CostError, Model, Options,
    link::ChannelGroup,
    model::{Job, Place, Task},
};

/// What kind of change it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Fewer output channels, down to the next step of the staircase.
    Channels,
    /// Narrower weights or activations that the chip multiplies.
    Types,
    /// A pattern of zeros that the chip skips.
    Pattern,
    /// Weights or activations that fit into a nearer memory.
    Memory,
    /// An operator that runs on the host replaced by one that does not.
    Fallback,
    /// More samples in one run.
    Batch,
}

/// One change and what it would gain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Opportunity {
    /// The layer, or `network`.
    pub layer: String,
    /// What kind of change it is.
    pub kind: Kind,
    /// The change: `16 → 8 output channels`.
    pub change: String,
    /// Predicted gain in latency (for a batch: for each sample).
    pub gain: Seconds,
    /// The gain over the latency before.
    pub share: f64,
    /// Why it gains.
    pub reason: String,
    /// The change as data, where [`Model::price`] can make it.
    #[serde(skip)]
    pub changes: Vec<Change>,
}

/// Gains below this share of the latency are not worth a word.
const LEAST_SHARE: f64 = 0.001;

/// The batch that is tried.
const BATCH: usize = 8;

impl Model<'_> {
    /// The `most` best changes, each alone, by predicted gain. A gain is a prediction of latency: what a change costs in accuracy is
    /// not asked here.
    ///
    /// # Errors
    /// None for a model that was prepared.
    pub fn opportunities(&self, most: usize) -> Result<Vec<Opportunity>, CostError> {
        let mut search = Search { model: self, before: self.base()?.latency, found: Vec::new() };
        for group in self.channel_groups() {
            search.channels(&group)?;
        }
        for (at, job) in self.jobs.iter().enumerate() {
            let Some(job) = job.as_ref().filter(|_| self.network.tasks[at].place == Place::Chip)
            else {
                continue;
            };
            search.types(at, job)?;
            search.patterns(at, job)?;
        }
        search.all_types()?;
        search.memory()?;
        search.fallbacks()?;
        search.batch()?;
        let mut found = search.found;
        found.retain(|it| it.share >= LEAST_SHARE);
        found.sort_by(|a, b| b.gain.0.total_cmp(&a.gain.0).then_with(|| a.layer.cmp(&b.layer)));
        found.truncate(most);
        Ok(found)
    }
}

struct Search<'m, 'a> {
    model: &'m Model<'a>,
    before: Seconds,
    found: Vec<Opportunity>,
}

impl Search<'_, '_> {
    fn add(
        &mut self,
        (layer, kind): (&str, Kind),
        after: Seconds,
        change: String,
        reason: String,
        changes: Vec<Change>,
    ) {
        let gain = Seconds(self.before.0 - after.0);
        let share = gain / self.before;
        let layer = layer.to_owned();
        self.found.push(Opportunity { layer, kind, change, gain, share, reason, changes });
    }

    fn priced(&self, changes: &[Change]) -> Result<Seconds, CostError> {
        Ok(self.model.price(changes)?.latency)
    }

    /// Fewer output channels, with all layers that are tied to them.
    fn channels(&mut self, group: &ChannelGroup) -> Result<(), CostError> {
        let network = &*self.model.network;
        let at = network.tasks.iter().position(|it| it.name == group.layer);
        let job = at.and_then(|at| self.model.jobs[at].as_ref());
        let Some(mode) = job.and_then(|it| it.parts.first()).map(|it| it.arithmetic.mode) else {
            return Ok(());
        };
        let step = mode.unroll.value.n.max(mode.grain.value).max(1) as usize;
        let next = group.width.saturating_sub(1) / step * step;
        if next == 0 {
            return Ok(());
        }
        let changes = group.narrowed(next);
        let after = self.priced(&changes)?;
        let change = format!("{} → {next} output channels", group.width);
        let reason = format!(
            "the array takes output channels in steps of {step}; {} other axes shrink with them",
            group.axes.len() - 1
        );
        self.add((&group.layer, Kind::Channels), after, change, reason, changes);
        Ok(())
    }

    /// The quickest narrower mode of the chip.
    fn types(&mut self, at: usize, job: &Job<'_>) -> Result<(), CostError> {
        let task = &self.model.network.tasks[at];
        let Some(now) = job.parts.first().map(|it| it.arithmetic.mode) else { return Ok(()) };
        let width = |it: &sartor_chip::Mode| (it.weights.bits(), it.activations.bits());
        let mut best: Option<(Seconds, &sartor_chip::Mode)> = None;
        for mode in self.model.chip.modes() {
            let (weights, activations) = (mode.weights, mode.activations);
            let narrower = width(mode).0 <= width(now).0 && width(mode).1 <= width(now).1;
            if !narrower || width(mode) == width(now) {
                continue;
            }
            let after = self.priced(&[Change::Types { node: task.id, weights, activations }])?;
            if best.is_none_or(|it| after < it.0) {
                best = Some((after, mode));
            }
        }
        let Some((after, mode)) = best else { return Ok(()) };
        let (weights, activations) = (mode.weights, mode.activations);
        let change = format!("{} × {} → {weights} × {activations}", now.weights, now.activations);
        let reason = "the chip multiplies narrower numbers faster, and fewer bytes move; \
                      conversions at the edges are not counted"
            .to_owned();
        let changes = vec![Change::Types { node: task.id, weights, activations }];
        self.add((&task.name, Kind::Types), after, change, reason, changes);
        Ok(())
    }

    /// The chip's fastest mode for all products.
    fn all_types(&mut self) -> Result<(), CostError> {
        let mode = self.model.chip.best_mode();
        let (weights, activations) = (mode.weights, mode.activations);
        let tasks = self.model.network.tasks.iter().zip(&self.model.jobs);
        let products = tasks.filter(|(task, job)| {
            task.place == Place::Chip && job.as_ref().is_some_and(|it| !it.parts.is_empty())
        });
        let change = |(task, _): (&Task, _)| Change::Types { node: task.id, weights, activations };
        let changes: Vec<Change> = products.map(change).collect();
        let after = self.priced(&changes)?;
        let text = format!("all products in {weights} × {activations}");
        let reason = "the chip's fastest arithmetic, without conversions in between".to_owned();
        self.add(("network", Kind::Types), after, text, reason, changes);
        Ok(())
    }

    /// Patterns of zeros that the chip skips and the layer does not have.
    fn patterns(&mut self, at: usize, job: &Job<'_>) -> Result<(), CostError> {
        let task = &self.model.network.tasks[at];
        let constant = task.contents.iter().any(Option::is_some);
        if !constant || job.parts.iter().any(|it| it.stored.pattern.is_some()) {
            return Ok(());
        }
        for pattern in &self.model.chip.core.sparsity {
            let (n, m) = (pattern.n, pattern.m);
            let change = Change::Pattern { node: task.id, pattern: Some((n, m)) };
            let after = self.priced(&[change])?;
            let reason = format!(
                "the chip skips zeros where at most {n} of {m} weights are others: {} times as fast",
                pattern.speedup.value
            );
            let text = format!("{n}:{m} zeros");
            self.add((&task.name, Kind::Pattern), after, text, reason, vec![change]);
        }
        Ok(())
    }

    /// What it would gain if all weights, or all activations, lay in the nearest memory for them.
    fn memory(&mut self) -> Result<(), CostError> {
        let model = self.model;
        let found = model.estimate();
        for (what, spilled) in
            [("weights", found.weights.spilled), ("activations", found.activations.spilled)]
        {
            if spilled == Bytes(0) {
                continue;
            }
            let mut chip = model.chip.clone();
            let content = match what {
                "weights" => sartor_chip::Content::Weights,
                _ => sartor_chip::Content::Activations,
            };
            let keeps = |it: &&mut sartor_chip::Memory| {
                it.holds.contains(&content) && (what == "activations" || it.keeps_weights)
            };
            let Some(near) = chip.system.memories.iter_mut().find(keeps) else { continue };
            let name = near.name.clone();
            if let Some(capacity) = &mut near.capacity {
                capacity.value += spilled;
            }
            let after = model.on(&chip)?.base()?.latency;
            let change = format!("{spilled} fewer {what}");
            let reason = format!(
                "{spilled} of {what} do not fit into {name} and are read from farther away"
            );
            self.add(("network", Kind::Memory), after, change, reason, Vec::new());
        }
        Ok(())
    }

    /// Operators that the chip does not run.
    fn fallbacks(&mut self) -> Result<(), CostError> {
        let model = self.model;
        let mut seen = BTreeSet::new();
        for (at, task) in model.network.tasks.iter().enumerate() {
            let Place::Host { reason: Some(why), .. } = &task.place else { continue };
            let op = model.network.node(at).op.name();
            if !seen.insert(op) {
                continue;
            }
            let chip = with_operator(model.chip, op);
            let after = Model::new(&model.network.flat.graph, &chip, &model.options)?;
            let after = after.base()?.latency;
            let change = format!("{op} replaced by operators that the chip runs");
            self.add((&task.name, Kind::Fallback), after, change, why.clone(), Vec::new());
        }
        Ok(())
    }

    /// More samples in one run; the gain is that of each sample.
    fn batch(&mut self) -> Result<(), CostError> {
        let model = self.model;
        let most = model.chip.core.operators.batch_max.as_ref().map_or(u64::MAX, |it| it.value);
        let batch = model.options.batch * BATCH;
        if batch as u64 > most {
            return Ok(());
        }
        let options = Options { batch, ..model.options };
        // A graph that is bound to its batch cannot be run with another one.
        let Ok(larger) = Model::new(&model.network.flat.graph, model.chip, &options) else {
            return Ok(());
        };
        let after = larger.base()?.latency / BATCH as f64;
        let change = format!("{batch} samples in one run");
        let reason = "weights are read and operators started once for all of them".to_owned();
        self.add(("network", Kind::Batch), after, change, reason, Vec::new());
        Ok(())
    }
}

/// The chip as if it ran `op`.
fn with_operator(chip: &Chip, op: &str) -> Chip {
    let mut chip = chip.clone();
    if let Some(allow) = &mut chip.core.operators.allow {
        allow.push(op.to_owned());
    }
    chip.core.operators.deny.retain(|it| it != op);
    chip.runtime.deny.retain(|it| it != op);
    chip
}
