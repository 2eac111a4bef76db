//! Which figures of low confidence an estimate rests on.

use std::collections::BTreeMap;

use sartor_chip::{Chip, Confidence, Figure};

/// The figures of low confidence that were used, by key.
#[derive(Default)]
pub(crate) struct Doubts(BTreeMap<String, String>);

impl Doubts {
    /// Notes a figure that was used.
    pub(crate) fn used<T>(&mut self, figure: &Figure<T>, key: impl FnOnce() -> String) {
        if figure.confidence == Confidence::Low {
            self.0.entry(key()).or_insert_with(|| figure.provenance.to_string());
        }
    }

    /// Notes a figure that was used if the chip states it.
    pub(crate) fn maybe<T>(&mut self, figure: Option<&Figure<T>>, key: impl FnOnce() -> String) {
        if let Some(figure) = figure {
            self.used(figure, key);
        }
    }

    /// Notes what every estimate for `chip` uses.
    pub(crate) fn of(chip: &Chip) -> Self {
        let mut doubts = Doubts::default();
        doubts.used(&chip.system.clock, || "system.core_hz".to_owned());
        doubts.maybe(chip.runtime.launch.as_ref(), || "runtime.launch_us".to_owned());
        doubts.maybe(chip.core.drain.as_ref(), || "core.drain_cycles".to_owned());
        doubts
    }

    /// Sentences in the order of keys.
    pub(crate) fn list(self) -> Vec<String> {
        self.0.into_iter().map(|(key, origin)| format!("{key} ({origin})")).collect()
    }
}
