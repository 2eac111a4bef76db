//! The questions that cost models and planners ask a chip.

use crate::chip::Chip;
use crate::compute::Mode;
use crate::deploy::Quirk;
use crate::figure::Figure;
use crate::memory::{Content, Memory};
use crate::number::NumberType;
use crate::quantization::Scheme;
use crate::units::{Bytes, Cycles, MacsPerSecond, Seconds};

impl Chip {
    /// The mode that multiplies these types, if the chip has one.
    pub fn mode(&self, weights: NumberType, activations: NumberType) -> Option<&Mode> {
        self.compute
            .modes
            .iter()
            .find(|mode| mode.weights == weights && mode.activations == activations)
    }

    /// The fastest mode (by peak × efficiency); of equals, the first in the file.
    pub fn best_mode(&self) -> &Mode {
        let faster = |best, mode| if self.rate(mode) > self.rate(best) { mode } else { best };
        let (first, rest) = self.compute.modes.split_first().expect("a parsed chip has a mode");
        rest.iter().fold(first, faster)
    }

    /// The mode in which a floating-point network runs as it is: the widest one. `None`: the chip has no float arithmetic.
    pub fn float_mode(&self) -> Option<&Mode> {
        let wanted = [NumberType::F32, NumberType::F16, NumberType::Bf16];
        wanted.into_iter().find_map(|number| self.mode(number, number))
    }

    /// Peak throughput of a mode, dense.
    pub fn peak(&self, mode: &Mode) -> MacsPerSecond {
        MacsPerSecond(mode.macs_per_cycle.value * self.clock.value.0)
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
        self.quantization.schemes.iter().find(|scheme| scheme.covers(op))
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
        self.quantization.schemes.iter().find(fits)
    }

    /// What the runtime does with these types that one should know.
    pub fn quirks_of(
        &self,
        weights: NumberType,
        activations: NumberType,
    ) -> impl Iterator<Item = &Quirk> {
        self.deploy.quirks.iter().filter(move |quirk| {
            quirk.weights.is_none_or(|number| number == weights)
                && quirk.activations.is_none_or(|number| number == activations)
        })
    }

    /// Whether the chip itself runs an operator.
    pub fn runs(&self, op: &str) -> bool {
        self.operators.allow.as_ref().is_none_or(|allow| allow.iter().any(|known| known == op))
    }

    /// Cycles for each output element of an operator, where the chip states them.
    pub fn cycles_per_element(&self, op: &str) -> Option<&Figure<Cycles>> {
        let rate =
            self.compute.op_rates.iter().find(|rate| rate.ops.iter().any(|known| known == op));
        rate.map(|rate| &rate.cycles_per_element)
    }

    /// The memory nearest to the array.
    pub fn near_memory(&self) -> &Memory {
        self.memories.first().expect("a parsed chip has a memory")
    }

    /// The memory farthest from the array.
    pub fn far_memory(&self) -> &Memory {
        self.memories.last().expect("a parsed chip has a memory")
    }

    /// The farthest memory that holds `content`: where it lives.
    pub fn home_of(&self, content: Content) -> Option<&Memory> {
        self.memories.iter().rev().find(|memory| memory.holds.contains(&content))
    }

    /// Stored bytes of `weights` bytes of weights of which `zero_fraction` are zero.
    pub fn weight_bytes_encoded(&self, weights: Bytes, zero_fraction: f64) -> Bytes {
        self.weight_store.as_ref().map_or(weights, |store| store.encoded(weights, zero_fraction))
    }

    /// Time that one operator costs beyond its work; unknown parts count nothing.
    pub fn overhead_per_op(&self) -> Seconds {
        let launch = self.overhead.launch.as_ref().map_or(Seconds(0.0), |launch| launch.value);
        let drain = self
            .overhead
            .drain
            .as_ref()
            .map_or(Seconds(0.0), |drain| drain.value / self.clock.value);
        launch + drain
    }
}
