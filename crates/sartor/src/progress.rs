//! What a long run says of itself, and how it is stopped.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::Error;

/// Where a run reports its progress.
pub trait Progress {
    /// A phase begins, of `total` units if that is known.
    fn begin(&self, phase: &str, total: Option<u64>);

    /// `units` more are done.
    fn advance(&self, units: u64);

    /// How the phase stands, in a few words.
    fn note(&self, _words: &str) {}

    /// A line that stays.
    fn line(&self, _text: &str) {}

    /// The phase is over.
    fn end(&self);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}

/// A flag by which a user stops a run; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks the run to stop at the next batch.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run was asked to stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`Error::Interrupted`] if the run was asked to stop.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_raised() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
