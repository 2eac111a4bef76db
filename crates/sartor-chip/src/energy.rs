//! The layer *energy*: what the chip draws, whole or by operation.

use serde::Serialize;

use crate::chip::version;
use crate::error::{ChipError, Fault};
use crate::figure::{Confidence, Figure, Provenance};
use crate::number::NumberType;
use crate::reader::{Bound, Section};
use crate::units::{Joules, Watts};
use crate::words::words;

words! {
    /// A published table of energies by operation.
    EnergyTable {
        /// Horowitz, "Computing's Energy Problem", ISSCC 2014, figure 1.1.9: 45 nm, 0.9 V.
        Horowitz45 = "horowitz45",
    }
}

/// What a chip draws; everything is optional, and absent means unknown.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Energy {
    /// The most it may draw for long: `energy ≤ limit × time` where no energies are known.
    pub limit: Option<Figure<Watts>>,
    /// What it draws without work.
    pub idle: Option<Figure<Watts>>,
    /// A table from which the energy of MACs comes that `macs` does not state.
    pub table: Option<EnergyTable>,
    /// Energy of this chip's process over that of the table's. Absent: 1.
    pub process_scale: Option<Figure<f64>>,
    /// Energy of one MAC by number types.
    pub macs: Vec<MacEnergy>,
    /// Energy of one byte by memory.
    pub memories: Vec<MemoryEnergy>,
    /// Energies of a crossbar's parts.
    pub crossbar: Option<CrossbarEnergy>,
}

/// Energy of one multiply-accumulate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MacEnergy {
    /// Number type of the weights.
    pub weights: NumberType,
    /// Number type of the activations.
    pub activations: NumberType,
    /// Energy of one.
    pub energy: Figure<Joules>,
}

/// Energy of one byte of a memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryEnergy {
    /// The memory's name.
    pub name: String,
    /// Read.
    pub read: Figure<Joules>,
    /// Written. Absent in the file: as read.
    pub write: Figure<Joules>,
}

/// Energies of the parts of a crossbar; an absent one is part of another, or unknown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CrossbarEnergy {
    /// One whole matrix-vector product of one full array, converters included: excludes the parts below.
    pub product: Option<Figure<Joules>>,
    /// One cell, read once.
    pub cell: Option<Figure<Joules>>,
    /// One row, driven once.
    pub dac: Option<Figure<Joules>>,
    /// One conversion.
    pub adc: Option<Figure<Joules>>,
    /// One conversion by the converter's bits, for what another width would cost: (bits, energy), bits ascending.
    pub adc_by_bits: Option<Figure<Vec<(f64, Joules)>>>,
    /// Sample and hold of one column.
    pub sample_hold: Option<Figure<Joules>>,
    /// One shift and add.
    pub shift_add: Option<Figure<Joules>>,
    /// One byte read from or written to the buffers.
    pub buffer_per_byte: Option<Figure<Joules>>,
    /// Links and other parts that draw all the time.
    pub static_power: Option<Figure<Watts>>,
}

/// A number of picojoules as joules.
fn picojoules(section: &Section<'_>, key: &str) -> Result<Option<Figure<Joules>>, ChipError> {
    let figure = section.maybe_number(key, Bound::NotNegative)?;
    Ok(figure.map(|figure| figure.map(|picojoules| Joules(picojoules * 1e-12))))
}

fn watts(section: &Section<'_>, key: &str) -> Result<Option<Figure<Watts>>, ChipError> {
    Ok(section.maybe_number(key, Bound::Positive)?.map(|figure| figure.map(Watts)))
}

impl Energy {
    pub(crate) const KEYS: &'static [&'static str] =
        &["version", "limit_w", "idle_w", "table", "process_scale", "mac", "memory", "crossbar"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        version(section, "version", Some(1))?;
        let macs = section.sections("mac", &["weights", "activations", "pj"])?;
        let memories =
            section.sections("memory", &["name", "read_pj_per_byte", "write_pj_per_byte"])?;
        let crossbar = section.maybe_section("crossbar", CrossbarEnergy::KEYS)?;
        Ok(Self {
            limit: watts(section, "limit_w")?,
            idle: watts(section, "idle_w")?,
            table: section.maybe_word("table")?,
            process_scale: section.maybe_number("process_scale", Bound::Positive)?,
            macs: macs.iter().map(MacEnergy::read).collect::<Result<_, _>>()?,
            memories: memories.iter().map(MemoryEnergy::read).collect::<Result<_, _>>()?,
            crossbar: crossbar.as_ref().map(CrossbarEnergy::read).transpose()?,
        })
    }

    /// Energy of one MAC: as stated, else from the table.
    pub fn of_mac(&self, weights: NumberType, activations: NumberType) -> Option<Figure<Joules>> {
        let stated =
            self.macs.iter().find(|it| (it.weights, it.activations) == (weights, activations));
        if let Some(stated) = stated {
            return Some(stated.energy.clone());
        }
        let EnergyTable::Horowitz45 = self.table?;
        let scale = self.process_scale.as_ref().map_or(1.0, |it| it.value);
        let arithmetic = format!("Horowitz 2014, 45 nm, × process scale {scale}");
        let value = Joules(horowitz_mac(weights, activations) * 1e-12 * scale);
        Some(Figure {
            value,
            provenance: Provenance::Derived(arithmetic),
            confidence: Confidence::Low,
        })
    }

    /// Energies of a memory's bytes, where the chip states them.
    pub fn of_memory(&self, name: &str) -> Option<&MemoryEnergy> {
        self.memories.iter().find(|it| it.name == name)
    }
}

/// Picojoules of one MAC at 45 nm. Floats: multiply and add of the wider type, 4.6 (fp32) and 1.5 (fp16). Integers: 0.2 for 8 × 8
/// bits, growing with the product of the widths, and 0.1 for the 32-bit sum.
fn horowitz_mac(weights: NumberType, activations: NumberType) -> f64 {
    if weights.is_float() || activations.is_float() {
        return if weights.bits().max(activations.bits()) > 16 { 4.6 } else { 1.5 };
    }
    0.2 * f64::from(weights.bits() * activations.bits()) / 64.0 + 0.1
}

impl MacEnergy {
    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let energy = section.number("pj", Bound::NotNegative)?;
        Ok(Self {
            weights: section.word("weights")?,
            activations: section.word("activations")?,
            energy: energy.map(|it| Joules(it * 1e-12)),
        })
    }
}

impl MemoryEnergy {
    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let read = section.number("read_pj_per_byte", Bound::NotNegative)?;
        let read = read.map(|it| Joules(it * 1e-12));
        let write = picojoules(section, "write_pj_per_byte")?.unwrap_or_else(|| read.clone());
        Ok(Self { name: section.text("name")?, read, write })
    }
}

impl CrossbarEnergy {
    /// One conversion of so many bits: the nearest entry of the table by bits, else as for the chip's own converter.
    pub fn conversion(&self, bits: u64) -> Option<Joules> {
        let away = |it: &&(f64, Joules)| (it.0 - bits as f64).abs();
        let entries = self.adc_by_bits.as_ref().map_or(&[][..], |it| &it.value);
        let nearest = entries.iter().min_by(|lhs, rhs| away(lhs).total_cmp(&away(rhs)));
        nearest.map(|it| it.1).or_else(|| self.adc.as_ref().map(|it| it.value))
    }

    const KEYS: &'static [&'static str] = &[
        "product_pj",
        "cell_pj",
        "dac_pj",
        "adc_pj",
        "adc_pj_by_bits",
        "sample_hold_pj",
        "shift_add_pj",
        "buffer_pj_per_byte",
        "static_w",
    ];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let by_bits = section.maybe_pairs("adc_pj_by_bits")?;
        if let Some(table) = &by_bits
            && !table.value.is_sorted_by(|(lhs, _), (rhs, _)| lhs < rhs)
        {
            let expected = "pairs [bits, picojoules] with ascending bits";
            let fault = Fault::OutOfRange { expected, found: format!("{:?}", table.value) };
            return Err(section.fault("adc_pj_by_bits", fault, None));
        }
        let joules = |(bits, picojoules): (f64, f64)| (bits, Joules(picojoules * 1e-12));
        Ok(Self {
            product: picojoules(section, "product_pj")?,
            cell: picojoules(section, "cell_pj")?,
            dac: picojoules(section, "dac_pj")?,
            adc: picojoules(section, "adc_pj")?,
            adc_by_bits: by_bits.map(|it| it.map(|table| table.into_iter().map(joules).collect())),
            sample_hold: picojoules(section, "sample_hold_pj")?,
            shift_add: picojoules(section, "shift_add_pj")?,
            buffer_per_byte: picojoules(section, "buffer_pj_per_byte")?,
            static_power: watts(section, "static_w")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_horowitz_sums() {
        use NumberType::{F16, F32, I4, I8};
        for (weights, activations, picojoules) in
            [(I8, I8, 0.3), (F16, F16, 1.5), (F32, F32, 4.6), (I4, I8, 0.2)]
        {
            assert!((horowitz_mac(weights, activations) - picojoules).abs() < 1e-12);
        }
    }
}
