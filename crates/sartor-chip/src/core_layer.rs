//! The layer *core*: what computes, in which arithmetic, with which zeros, on which operators.

use serde::Serialize;

use crate::arithmetic::Arithmetic;
use crate::chip::version;
use crate::engine::Engine;
use crate::error::{ChipError, Fault};
use crate::figure::Figure;
use crate::operators::Operators;
use crate::reader::{Bound, Section};
use crate::sparsity::{SparsityPattern, WeightStore};
use crate::units::Cycles;

/// What computes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Core {
    /// The engines, the main one first; never empty.
    pub engines: Vec<Engine>,
    /// The integer arithmetic.
    pub arithmetic: Arithmetic,
    /// Sparsity patterns that make it faster; empty where there are none.
    pub sparsity: Vec<SparsityPattern>,
    /// How weights are stored. Absent: as they are.
    pub weight_store: Option<WeightStore>,
    /// Which operators it runs.
    pub operators: Operators,
    /// Whether transfers overlap computation.
    pub overlaps: bool,
    /// Cycles to fill and drain the array for one operator. Absent: unknown, counted as none.
    pub drain: Option<Figure<Cycles>>,
}

impl Core {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "version",
        "engine",
        "arithmetic",
        "sparsity",
        "weight_store",
        "operators",
        "overlaps",
        "drain_cycles",
    ];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        version(section, "version", Some(1))?;
        let engines = section.sections("engine", Engine::KEYS)?;
        if engines.is_empty() {
            let missing = Fault::MissingKey("at least one [[core.engine]]");
            return Err(section.fault("engine", missing, None));
        }
        let sparsity = section.sections("sparsity", SparsityPattern::KEYS)?;
        let weight_store = section.maybe_section("weight_store", WeightStore::KEYS)?;
        let drain = section.maybe_number("drain_cycles", Bound::NotNegative)?;
        Ok(Self {
            engines: engines.iter().map(Engine::read).collect::<Result<_, _>>()?,
            arithmetic: Arithmetic::read(&section.section("arithmetic", Arithmetic::KEYS)?)?,
            sparsity: sparsity.iter().map(SparsityPattern::read).collect::<Result<_, _>>()?,
            weight_store: weight_store.as_ref().map(WeightStore::read).transpose()?,
            operators: Operators::read(&section.section("operators", Operators::KEYS)?)?,
            overlaps: section.flag("overlaps")?,
            drain: drain.map(|figure| figure.map(Cycles)),
        })
    }
}
