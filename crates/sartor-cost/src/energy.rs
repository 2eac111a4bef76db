//! Energy: MACs and moved bytes, each by the chip's figure.

use std::collections::BTreeSet;

use sartor_chip::{Bytes, Chip, Joules, Seconds};

use crate::{crossbar, estimate::Energy, model::Job};

/// The energy of one run of a node, `None` where a figure is missing; `missing` is told the name of each that is.
pub(crate) fn of_job(
    chip: &Chip,
    job: &Job<'_>,
    moved: &[[Bytes; 2]],
    mut missing: impl FnMut(&dyn Fn() -> String),
) -> Option<Joules> {
    let mut known = true;
    let mut total = Joules(0.0);
    let mut add = |count: u64, figure: Option<Joules>, name: &dyn Fn() -> String| match figure {
        _ if count == 0 => {}
        Some(each) => total += each * count as f64,
        None => {
            known = false;
            missing(name);
        }
    };
    for part in &job.parts {
        if let (Some(it), Some(crossbar)) = (&part.arrays, crossbar::of(chip)) {
            let energies = chip.energy.crossbar.as_ref();
            let one = energies.and_then(|energies| crossbar::of_use(crossbar, energies, it));
            add(it.products, one, &|| "energy.crossbar".to_owned());
            continue;
        }
        let mode = part.arithmetic.mode;
        let name = || format!("energy.mac of {} × {}", mode.weights, mode.activations);
        let figure = chip.energy.of_mac(mode.weights, mode.activations).map(|it| it.value);
        add(part.product.macs(), figure, &name);
    }
    for (memory, [read, written]) in chip.system.memories.iter().zip(moved) {
        let figures = chip.energy.of_memory(&memory.name);
        let name = || format!("energy.memory of {}", memory.name);
        add(read.0, figures.map(|it| it.read.value), &name);
        add(written.0, figures.map(|it| it.write.value), &name);
    }
    known.then_some(total)
}

/// What the chip draws all the time, for as long as a run takes.
pub(crate) fn at_rest(chip: &Chip, latency: Seconds) -> Joules {
    let links = chip.energy.crossbar.as_ref().and_then(|it| it.static_power.as_ref());
    let idle = chip.energy.idle.iter();
    idle.chain(links).map(|it| it.value * latency).sum()
}

/// The energy of the whole.
pub(crate) fn total(
    chip: &Chip,
    nodes: Joules,
    missing: BTreeSet<String>,
    latency: Seconds,
) -> Energy {
    Energy {
        joules: missing.is_empty().then(|| nodes + at_rest(chip, latency)),
        at_most: chip.energy.limit.as_ref().map(|it| it.value * latency),
        missing: missing.into_iter().collect(),
    }
}
