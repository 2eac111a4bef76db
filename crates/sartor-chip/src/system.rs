//! The layer *system*: the clock and the memories that a board or a licensee chooses.

use serde::Serialize;

use crate::chip::version;
use crate::error::{ChipError, Fault};
use crate::figure::Figure;
use crate::memory::Memory;
use crate::reader::{Bound, Section};
use crate::units::Hertz;

/// Clock and memories.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct System {
    /// The clock of the engines that state none of their own.
    pub clock: Figure<Hertz>,
    /// Memories, from near to far; never empty.
    pub memories: Vec<Memory>,
}

impl System {
    pub(crate) const KEYS: &'static [&'static str] = &["version", "core_hz", "memory"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        version(section, "version", Some(1))?;
        let memories = section.sections("memory", Memory::KEYS)?;
        if memories.is_empty() {
            let missing = Fault::MissingKey("at least one [[system.memory]]");
            return Err(section.fault("memory", missing, None));
        }
        Ok(Self {
            clock: section.number("core_hz", Bound::Positive)?.map(Hertz),
            memories: memories.iter().map(Memory::read).collect::<Result<_, _>>()?,
        })
    }
}
