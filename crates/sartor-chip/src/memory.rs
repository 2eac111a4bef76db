//! Memories, from near the array to far from it.

use serde::Serialize;

use crate::error::ChipError;
use crate::figure::Figure;
use crate::reader::{Bound, Section};
use crate::units::{Bytes, BytesPerSecond, Cycles};
use crate::words::words;

words! {
    /// What a memory may hold.
    Content {
        /// Weights and other constants.
        Weights = "weights",
        /// Activations.
        Activations = "activations",
    }
}

/// One memory or link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memory {
    /// Its name, such as `l2` or `flash`.
    pub name: String,
    /// How much it holds, over the whole chip. Absent: unknown, or a link.
    pub capacity: Option<Figure<Bytes>>,
    /// Bandwidth of reads. Absent: unknown, to be taken as never binding.
    pub read: Option<Figure<BytesPerSecond>>,
    /// Bandwidth of writes. Absent: unknown, or read-only.
    pub write: Option<Figure<BytesPerSecond>>,
    /// What it may hold.
    pub holds: Vec<Content>,
    /// Whether weights that fit stay from one inference to the next, and then cost no traffic to farther memories.
    pub keeps_weights: bool,
    /// Cycles of the system's clock from a request to its first byte. Absent: none.
    pub latency: Option<Figure<Cycles>>,
    /// As `latency`, of a write. Absent: as that of a read.
    pub write_latency: Option<Figure<Cycles>>,
    /// Bytes of the shortest transfer. Absent: 1.
    pub burst: Option<Figure<Bytes>>,
    /// Ports through which the chip reaches it. Absent: 1.
    pub ports: Option<Figure<u64>>,
    /// Reads in flight, of one port. Absent: no limit.
    pub max_reads: Option<Figure<u64>>,
    /// Writes in flight, of one port. Absent: no limit.
    pub max_writes: Option<Figure<u64>>,
}

impl Memory {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "name",
        "capacity_bytes",
        "read_bytes_per_s",
        "write_bytes_per_s",
        "holds",
        "keeps_weights",
        "latency_cycles",
        "write_latency_cycles",
        "burst_bytes",
        "ports",
        "max_reads",
        "max_writes",
    ];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let bandwidth = |key| {
            let figure = section.maybe_number(key, Bound::Positive)?;
            Ok(figure.map(|figure| figure.map(BytesPerSecond)))
        };
        let cycles = |key| {
            let figure = section.maybe_number(key, Bound::NotNegative)?;
            Ok(figure.map(|figure| figure.map(Cycles)))
        };
        Ok(Self {
            name: section.text("name")?,
            capacity: section.maybe_count("capacity_bytes")?.map(|figure| figure.map(Bytes)),
            read: bandwidth("read_bytes_per_s")?,
            write: bandwidth("write_bytes_per_s")?,
            holds: section.words("holds")?,
            keeps_weights: section.flag("keeps_weights")?,
            latency: cycles("latency_cycles")?,
            write_latency: cycles("write_latency_cycles")?,
            burst: section.maybe_count("burst_bytes")?.map(|figure| figure.map(Bytes)),
            ports: section.maybe_count("ports")?,
            max_reads: section.maybe_count("max_reads")?,
            max_writes: section.maybe_count("max_writes")?,
        })
    }
}
