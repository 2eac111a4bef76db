//! Energy: MACs and moved bytes, each by the chip's figure.

use std::collections::BTreeSet;

use sartor_chip::{Bytes, Chip, Joules, Macs, Mode, Seconds};

use crate::estimate::Energy;

/// The energy of one node, `None` where a figure is missing; `missing` is told the name of each that is.
pub(crate) fn of_node<'c>(
    chip: &Chip,
    macs: impl Iterator<Item = (Macs, &'c Mode)>,
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
    for (macs, mode) in macs {
        let name = || format!("energy.mac of {} × {}", mode.weights, mode.activations);
        add(macs.0, chip.energy.of_mac(mode.weights, mode.activations).map(|it| it.value), &name);
    }
    for (memory, [read, written]) in chip.system.memories.iter().zip(moved) {
        let figures = chip.energy.of_memory(&memory.name);
        let name = || format!("energy.memory of {}", memory.name);
        add(read.0, figures.map(|it| it.read.value), &name);
        add(written.0, figures.map(|it| it.write.value), &name);
    }
    known.then_some(total)
}

/// The energy of the whole.
pub(crate) fn total(
    chip: &Chip,
    nodes: Joules,
    missing: BTreeSet<String>,
    latency: Seconds,
) -> Energy {
    Energy {
        joules: missing.is_empty().then_some(nodes),
        at_most: chip.energy.limit.as_ref().map(|it| it.value * latency),
        missing: missing.into_iter().collect(),
    }
}
