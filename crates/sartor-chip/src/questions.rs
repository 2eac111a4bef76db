//! The questions that cost models and planners ask a chip.

use crate::arithmetic::Scheme;
use crate::chip::Chip;
use crate::engine::{Engine, OpRate};
use crate::figure::Figure;
use crate::memory::{Content, Memory};
use crate::mode::Mode;
use crate::number::NumberType;
use crate::operators::OpFacts;
use crate::runtime::Quirk;
use crate::units::{Bytes, Cycles, Hertz, MacsPerSecond, Seconds};

impl Chip {
    /// The engines that run networks, the main one first: all but the host.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.core.engines.iter().filter(|engine| !engine.host)
    }

    /// The main engine.
    pub fn engine(&self) -> &Engine {
        self.core.engines.first().expect("a parsed chip has an engine")
    }

    /// The engine that runs what falls back, if the chip's file describes it.
    pub fn host(&self) -> Option<&Engine> {
        self.core.engines.iter().find(|engine| engine.host)
    }

    /// All modes of the engines that run networks, in the file's order.
    pub fn modes(&self) -> impl Iterator<Item = &Mode> {
        self.engines().flat_map(|engine| &engine.modes)
    }

    /// The engine and mode that multiply these types, if the chip has one.
    pub fn engine_for(
        &self,
        weights: NumberType,
        activations: NumberType,
    ) -> Option<(&Engine, &Mode)> {
        let mut all =
            self.engines().flat_map(|engine| engine.modes.iter().map(move |it| (engine, it)));
        all.find(|(_, mode)| (mode.weights, mode.activations) == (weights, activations))
    }

    /// The mode that multiplies these types, if the chip has one.
    pub fn mode(&self, weights: NumberType, activations: NumberType) -> Option<&Mode> {
        self.engine_for(weights, activations).map(|it| it.1)
    }

    /// The engine that a mode belongs to: the one that holds it; for a copy of a mode, the first that multiplies its types.
    pub fn engine_of(&self, mode: &Mode) -> &Engine {
        let holds = |engine: &&Engine| engine.modes.iter().any(|own| std::ptr::eq(own, mode));
        self.engines()
            .find(holds)
            .or_else(|| self.engine_for(mode.weights, mode.activations).map(|it| it.0))
            .unwrap_or_else(|| self.engine())
    }

    /// The clock of an engine.
    pub fn clock_of<'c>(&'c self, engine: &'c Engine) -> &'c Figure<Hertz> {
        engine.clock.as_ref().unwrap_or(&self.system.clock)
    }

    /// The fastest mode (by peak × efficiency); of equals, the first in the file.
    pub fn best_mode(&self) -> &Mode {
        let faster = |best, mode| if self.rate(mode) > self.rate(best) { mode } else { best };
        self.modes().reduce(faster).expect("a parsed chip has a mode")
    }

    /// The mode in which a floating-point network runs as it is: the widest one. `None`: the chip has no float arithmetic.
    pub fn float_mode(&self) -> Option<&Mode> {
        let wanted = [NumberType::F32, NumberType::F16, NumberType::Bf16];
        wanted.into_iter().find_map(|number| self.mode(number, number))
    }

    /// Peak throughput of a mode, dense.
    pub fn peak(&self, mode: &Mode) -> MacsPerSecond {
        MacsPerSecond(mode.macs_per_cycle.value * self.clock_of(self.engine_of(mode)).value.0)
    }

    /// Throughput that well-shaped work reaches: peak × efficiency.
    pub fn rate(&self, mode: &Mode) -> MacsPerSecond {
        self.peak(mode) * mode.efficiency.value
    }

    /// The multiple to which channels are worth pruning, in the fastest mode.
    pub fn grain(&self) -> u64 {
        self.best_mode().grain.value
    }

    /// The best scheme for an operator, whatever its types.
    pub fn preferred_scheme(&self, op: &str) -> Option<&Scheme> {
        self.core.arithmetic.schemes.iter().find(|scheme| scheme.covers(op))
    }

    /// The scheme for an operator with these types, if the chip has one.
    pub fn scheme_for(
        &self,
        op: &str,
        weights: NumberType,
        activations: NumberType,
    ) -> Option<&Scheme> {
        let fits = |scheme: &&Scheme| {
            scheme.covers(op) && scheme.weights == weights && scheme.activations == activations
        };
        self.core.arithmetic.schemes.iter().find(fits)
    }

    /// What the runtime does with these types that one should know.
    pub fn quirks_of(
        &self,
        weights: NumberType,
        activations: NumberType,
    ) -> impl Iterator<Item = &Quirk> {
        self.runtime.quirks.iter().filter(move |quirk| {
            quirk.weights.is_none_or(|number| number == weights)
                && quirk.activations.is_none_or(|number| number == activations)
        })
    }

    /// Whether the chip itself runs an operator, and its toolchain takes it.
    pub fn runs(&self, op: &str) -> bool {
        self.core.operators.runs(op) && !self.runtime.deny.iter().any(|denied| denied == op)
    }

    /// Why the chip does not run an operator, as a fragment (`stride 4 above 3`); `None` where it does.
    pub fn refuses(&self, facts: &OpFacts<'_>) -> Option<String> {
        if !self.core.operators.runs(facts.op) {
            return Some(format!("{} does not run {}", self.id, facts.op));
        }
        if !self.runs(facts.op) {
            return Some(format!("{} does not take {}", self.runtime.toolchain, facts.op));
        }
        self.core.operators.limits.iter().find_map(|limit| limit.broken_by(facts))
    }

    /// Cycles for each output element of an operator, where the chip states them.
    pub fn cycles_per_element(&self, op: &str) -> Option<&Figure<Cycles>> {
        self.stated_of(op, false, |rate| rate.cycles_per_element.as_ref())
    }

    /// The same of an operator that computes with integers: its own figure, or that of all.
    pub fn cycles_per_integer(&self, op: &str) -> Option<&Figure<Cycles>> {
        self.stated_of(op, true, |rate| rate.cycles_per_element.as_ref())
            .or_else(|| self.cycles_per_element(op))
    }

    /// Time to start an operator, where the chip states one of its own.
    pub fn launch_of(&self, op: &str) -> Option<&Figure<Seconds>> {
        self.stated_of(op, false, |rate| rate.launch.as_ref())
    }

    /// The first figure that an engine states of an operator.
    fn stated_of<'c, T>(
        &'c self,
        op: &str,
        integers: bool,
        figure: impl Fn(&'c OpRate) -> Option<&'c Figure<T>>,
    ) -> Option<&'c Figure<T>> {
        let rates = self.engines().flat_map(|engine| &engine.op_rates);
        let own = rates.filter(|it| it.integers == integers);
        own.filter(|rate| rate.ops.iter().any(|known| known == op)).find_map(figure)
    }

    /// The memory nearest to the array.
    pub fn near_memory(&self) -> &Memory {
        self.system.memories.first().expect("a parsed chip has a memory")
    }

    /// The memory farthest from the array.
    pub fn far_memory(&self) -> &Memory {
        self.system.memories.last().expect("a parsed chip has a memory")
    }

    /// The farthest memory that holds `content`: where it lives.
    pub fn home_of(&self, content: Content) -> Option<&Memory> {
        self.system.memories.iter().rev().find(|memory| memory.holds.contains(&content))
    }

    /// Stored bytes of `weights` bytes of weights of which `zero_fraction` are zero.
    pub fn weight_bytes_encoded(&self, weights: Bytes, zero_fraction: f64) -> Bytes {
        self.core
            .weight_store
            .as_ref()
            .map_or(weights, |store| store.encoded(weights, zero_fraction))
    }

    /// Time that a run costs beside its operators; nothing where it is not known.
    pub fn invoke(&self) -> Seconds {
        self.runtime.invoke.as_ref().map_or(Seconds(0.0), |invoke| invoke.value)
    }

    /// Time that an operator costs beyond its work; unknown parts count nothing.
    pub fn overhead_of(&self, op: &str) -> Seconds {
        let launch = self.launch_of(op).or(self.runtime.launch.as_ref());
        let launch = launch.map_or(Seconds(0.0), |launch| launch.value);
        let drain = self.core.drain.as_ref();
        launch + drain.map_or(Seconds(0.0), |drain| drain.value / self.system.clock.value)
    }
}
