//! Numbers with an origin.

use std::fmt;

use serde::Serialize;

use crate::words::words;

/// A value of a chip file together with who says so and how sure that is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure<T> {
    /// The value, in the unit of its type.
    pub value: T,
    /// Where the value comes from.
    pub provenance: Provenance,
    /// How far the value is to be trusted.
    pub confidence: Confidence,
}

impl<T> Figure<T> {
    /// The same origin with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Figure<U> {
        Figure {
            value: change(self.value),
            provenance: self.provenance,
            confidence: self.confidence,
        }
    }
}

/// Where a figure comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// A published document; the key of its citation in [`Chip::sources`](crate::Chip::sources).
    Datasheet(String),
    /// A measurement; what was measured and on what.
    Measured(String),
    /// Arithmetic on other figures; the arithmetic.
    Derived(String),
    /// An assumption; why it was made.
    Assumed(String),
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datasheet(source) => write!(f, "source {source}"),
            Self::Measured(how) => write!(f, "measured: {how}"),
            Self::Derived(arithmetic) => write!(f, "derived: {arithmetic}"),
            Self::Assumed(why) => write!(f, "assumed: {why}"),
        }
    }
}

impl Provenance {
    /// The confidence of a figure that states none: high for documents and measurements, medium for arithmetic on them, low for
    /// assumptions.
    pub(crate) fn usual_confidence(&self) -> Confidence {
        match self {
            Self::Datasheet(_) | Self::Measured(_) => Confidence::High,
            Self::Derived(_) => Confidence::Medium,
            Self::Assumed(_) => Confidence::Low,
        }
    }
}

words! {
    /// How far a figure is to be trusted.
    Confidence {
        /// Conflicting, recalled without opening the document, or assumed.
        Low = "low",
        /// From a secondary source, or derived from good figures.
        Medium = "med",
        /// Read in the vendor's own text, or measured.
        High = "high",
    }
}
