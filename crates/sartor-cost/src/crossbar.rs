//! Compute-in-memory: matrix-vector products in the arrays that hold the weights (Shafiee et al., ISAAC, ISCA 2016; Le Gallo et al.,
//! Nature Electronics 2023).
//!
//! A weight is spread over the columns of its slices, an input over bit-serial slices; each slice is driven, summed along the columns
//! and converted. One input vector is one product of all tiles of a layer at once; a convolution issues one for each output position.

mod energy;
mod mapping;
mod plan;
#[cfg(test)]
mod tests;

use sartor_chip::{Chip, Crossbar, EngineModel, Joules, MacsPerSecond, Seconds};
use serde::Serialize;

pub(crate) use energy::of_use;
pub(crate) use mapping::Use;
pub(crate) use plan::Plan;

/// What a crossbar's own figures say of it: one product of every array, all rows and all columns in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Headline {
    /// Weights that all arrays hold; of one array, where their number is open.
    pub weights: u64,
    /// Time of one matrix-vector product.
    pub latency: Seconds,
    /// Energy of one matrix-vector product of all arrays, static power included; `None` where the chip does not state it.
    pub energy: Option<Joules>,
    /// Multiply-accumulates a second at full use.
    pub peak: MacsPerSecond,
    /// Energy of one multiply-accumulate at full use.
    pub joules_per_mac: Option<Joules>,
    /// Bits of a converter that would lose nothing.
    pub exact_adc_bits: u64,
    /// Bits that the converter lacks for it; 0 where it loses nothing or sums are digital.
    pub lost_adc_bits: u64,
}

/// The headline figures of a chip whose main engine is a crossbar.
pub fn headline(chip: &Chip) -> Option<Headline> {
    let crossbar = of(chip)?;
    let full = mapping::full(crossbar);
    let arrays = crossbar.arrays.as_ref().map_or(1, |it| it.value);
    let energies = chip.energy.crossbar.as_ref();
    let dynamic = energies.and_then(|it| of_use(crossbar, it, &full)).map(|it| it * arrays as f64);
    let watts = energies.and_then(|it| it.static_power.as_ref()).map(|it| it.value);
    let energy = dynamic.map(|it| watts.map_or(it, |watts| it + watts * full.latency));
    let weights = full.macs.saturating_mul(arrays);
    Some(Headline {
        weights,
        latency: full.latency,
        energy,
        peak: MacsPerSecond(weights as f64 / full.latency.0),
        joules_per_mac: energy.map(|it| it / weights as f64),
        exact_adc_bits: crossbar.exact_adc_bits(),
        lost_adc_bits: lost_bits(crossbar),
    })
}

/// The crossbar of a chip, if its main engine is one.
pub(crate) fn of(chip: &Chip) -> Option<&Crossbar> {
    match &chip.engine().model {
        EngineModel::Crossbar(it) => Some(it),
        _ => None,
    }
}

/// Bits that the converter lacks to lose nothing.
pub(crate) fn lost_bits(crossbar: &Crossbar) -> u64 {
    let has = crossbar.adc_bits.as_ref().map(|it| it.value);
    has.map_or(0, |it| crossbar.exact_adc_bits().saturating_sub(it))
}
