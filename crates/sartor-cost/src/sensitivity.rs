//! Which field of the chip binds: what latency and energy would be if one of them were a little larger.

use sartor_chip::{Bytes, Chip, EngineModel, Figure};
use serde::Serialize;

use crate::{CostError, Model};

/// What one field of the chip is worth to a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The field, as chip files name it.
    pub field: String,
    /// By how many percent it was changed.
    pub change_percent: f64,
    /// The latency after the change over that before, less one: −0.05 is 5 % quicker.
    pub latency_change: f64,
    /// The same for the energy, where the chip states all figures of it.
    pub energy_change: Option<f64>,
}

/// A field and how to multiply it.
type Field = (String, Box<dyn Fn(&mut Chip, f64)>);

impl Model<'_> {
    /// The network on chips of which one field each is `percent` larger (or smaller, below 0), the field that changes latency most
    /// first. Fields that change neither latency nor energy are left out. Capacities count whole bytes.
    ///
    /// # Errors
    /// None for a model that was prepared.
    pub fn sensitivity(&self, percent: f64) -> Result<Vec<Sensitivity>, CostError> {
        let factor = 1.0 + percent / 100.0;
        let before = self.base()?;
        let mut found = Vec::new();
        for (field, scale) in fields(self.chip) {
            let mut chip = self.chip.clone();
            scale(&mut chip, factor);
            let after = self.on(&chip)?.base()?;
            let latency_change = after.latency / before.latency - 1.0;
            let energies = after.energy.zip(before.energy).filter(|it| it.1.0 > 0.0);
            let energy_change = energies.map(|(after, before)| after / before - 1.0);
            if latency_change == 0.0 && energy_change.is_none_or(|it| it == 0.0) {
                continue;
            }
            found.push(Sensitivity {
                field,
                change_percent: percent,
                latency_change,
                energy_change,
            });
        }
        found.sort_by(|a, b| {
            b.latency_change.abs().total_cmp(&a.latency_change.abs()).then(a.field.cmp(&b.field))
        });
        Ok(found)
    }
}

/// All fields that may be scaled.
fn fields(chip: &Chip) -> Vec<Field> {
    let mut fields: Vec<Field> = vec![(
        "system.core_hz".to_owned(),
        Box::new(|chip, factor| chip.system.clock.value.0 *= factor),
    )];
    memories(chip, &mut fields);
    for at in 0..chip.core.engines.len() {
        engine(chip, at, &mut fields);
    }
    fields.push((
        "runtime.launch_us".to_owned(),
        Box::new(|chip, factor| times(&mut chip.runtime.launch, |it| it.0 *= factor)),
    ));
    fields.push((
        "runtime.invoke_us".to_owned(),
        Box::new(|chip, factor| times(&mut chip.runtime.invoke, |it| it.0 *= factor)),
    ));
    fields.push((
        "core.drain_cycles".to_owned(),
        Box::new(|chip, factor| times(&mut chip.core.drain, |it| it.0 *= factor)),
    ));
    fields
}

fn engine(chip: &Chip, at: usize, fields: &mut Vec<Field>) {
    let engine = &chip.core.engines[at];
    let name = &engine.name;
    if engine.clock.is_some() {
        let scale = move |chip: &mut Chip, factor| {
            times(&mut chip.core.engines[at].clock, |it| it.0 *= factor);
        };
        fields.push((format!("engine {name} core_hz"), Box::new(scale)));
    }
    for (index, mode) in engine.modes.iter().enumerate() {
        let scale = move |chip: &mut Chip, factor: f64| {
            chip.core.engines[at].modes[index].macs_per_cycle.value *= factor;
        };
        let types = format!("{} × {}", mode.weights, mode.activations);
        fields.push((format!("engine {name} {types} macs_per_cycle"), Box::new(scale)));
        if mode.depthwise.is_some() {
            let scale = move |chip: &mut Chip, factor: f64| {
                if let Some(it) = &mut chip.core.engines[at].modes[index].depthwise {
                    it.macs_per_cycle.value *= factor;
                }
            };
            let field = format!("engine {name} {types} depthwise.macs_per_cycle");
            fields.push((field, Box::new(scale)));
        }
    }
    for (index, rate) in engine.op_rates.iter().enumerate() {
        let ops = rate.ops.join(", ");
        let cycles = move |chip: &mut Chip, factor: f64| {
            let rate = &mut chip.core.engines[at].op_rates[index];
            times(&mut rate.cycles_per_element, |it| it.0 *= factor);
        };
        let launch = move |chip: &mut Chip, factor: f64| {
            times(&mut chip.core.engines[at].op_rates[index].launch, |it| it.0 *= factor);
        };
        fields.push((format!("engine {name} op {ops} cycles_per_element"), Box::new(cycles)));
        fields.push((format!("engine {name} op {ops} launch_us"), Box::new(launch)));
    }
    if matches!(engine.model, EngineModel::Crossbar(_)) {
        crossbar(at, fields);
    }
}

fn memories(chip: &Chip, fields: &mut Vec<Field>) {
    for (at, memory) in chip.system.memories.iter().enumerate() {
        let name = &memory.name;
        fields.push((
            format!("memory {name} read_bytes_per_s"),
            Box::new(move |chip, factor| {
                times(&mut chip.system.memories[at].read, |it| it.0 *= factor);
            }),
        ));
        fields.push((
            format!("memory {name} write_bytes_per_s"),
            Box::new(move |chip, factor| {
                times(&mut chip.system.memories[at].write, |it| it.0 *= factor);
            }),
        ));
        fields.push((
            format!("memory {name} capacity_bytes"),
            Box::new(move |chip, factor| {
                let scale = |it: &mut Bytes| it.0 = (it.0 as f64 * factor) as u64;
                times(&mut chip.system.memories[at].capacity, scale);
            }),
        ));
    }
}

/// Fields of the crossbar of engine `at`. A converter with more bits takes longer, in proportion, and more energy: by the factor by
/// which the energies of ISAAC's converters grow (1.667 pJ at 8 bits, 1.42 at 7, 2.38 at 10: about 1.17 a bit).
fn crossbar(at: usize, fields: &mut Vec<Field>) {
    const ENERGY_PER_BIT: f64 = 1.17;
    let with = move |change: fn(&mut sartor_chip::Crossbar, f64)| {
        move |chip: &mut Chip, factor: f64| {
            if let EngineModel::Crossbar(it) = &mut chip.core.engines[at].model {
                change(it, factor);
            }
        }
    };
    fields.push((
        "crossbar.arrays".to_owned(),
        Box::new(with(|it, factor| times(&mut it.arrays, |it| *it = (*it as f64 * factor) as u64))),
    ));
    fields.push((
        "crossbar.read_ns".to_owned(),
        Box::new(with(|it, factor| it.read.value.0 *= factor)),
    ));
    fields.push((
        "crossbar.write_row_ns".to_owned(),
        Box::new(with(|it, factor| times(&mut it.write_row, |it| it.0 *= factor))),
    ));
    let scale = with(|it, factor| times(&mut it.adc, |it| it.0 *= factor));
    fields.push((
        "crossbar.adc_bits".to_owned(),
        Box::new(move |chip, factor| {
            scale(chip, factor);
            let EngineModel::Crossbar(it) = &chip.core.engines[at].model else { return };
            let Some(bits) = it.adc_bits.as_ref().map(|it| it.value as f64) else { return };
            let energy = ENERGY_PER_BIT.powf(bits * (factor - 1.0));
            if let Some(energies) = &mut chip.energy.crossbar {
                times(&mut energies.adc, |it| it.0 *= energy);
            }
        }),
    ));
}

/// Changes a figure if the chip states it.
fn times<T>(figure: &mut Option<Figure<T>>, change: impl FnOnce(&mut T)) {
    if let Some(figure) = figure {
        change(&mut figure.value);
    }
}
