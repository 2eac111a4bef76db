//! An engine: an array of multipliers (or of memory cells), and one mode per pair of number types.

use serde::Serialize;

use crate::crossbar::Crossbar;
use crate::error::{ChipError, Fault};
use crate::ethos_u::EthosU;
use crate::figure::Figure;
use crate::mode::Mode;
use crate::reader::{Bound, Section};
use crate::units::{Cycles, Hertz, Seconds};
use crate::words::Word;

/// One engine of a chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// Whether it is the host: it runs only what falls back, and the time that it takes is counted.
    pub host: bool,
    /// Which family of cost formulas describes it.
    pub model: EngineModel,
    /// Cores (CPU cores, streaming multiprocessors, NPU cores).
    pub cores: Figure<u64>,
    /// Its clock. Absent: the system's.
    pub clock: Option<Figure<Hertz>>,
    /// What is multiplied how fast, in the file's order; never empty.
    pub modes: Vec<Mode>,
    /// Rates of single operators that the array does not set.
    pub op_rates: Vec<OpRate>,
    /// The operators that it runs, by their ONNX names. Absent: all that the chip runs.
    pub ops: Option<Vec<String>>,
}

/// The family of formulas that tells how well work fills an engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EngineModel {
    /// Rounding to the unrolling and the roofline, nothing more.
    Roofline,
    /// Vector units of a CPU or microcontroller.
    Simd,
    /// Output tiles dealt out to processors in waves.
    DotTile {
        /// The largest output tile.
        tile: Figure<Tile>,
    },
    /// A weight-stationary systolic array.
    Systolic {
        /// The array of one core.
        array: Figure<Systolic>,
    },
    /// Arm's Ethos-U family.
    EthosU(Box<EthosU>),
    /// Memory arrays that multiply where the weights lie.
    Crossbar(Box<Crossbar>),
}

/// An output tile of `m` positions and `n` channels that one processor computes in steps of `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tile {
    /// Output positions.
    pub m: u64,
    /// Output channels.
    pub n: u64,
    /// Reduction step.
    pub k: u64,
}

/// The extents of a systolic array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Systolic {
    /// Rows: the reduction.
    pub rows: u64,
    /// Columns: the output channels.
    pub columns: u64,
}

/// How fast operators run whatever they multiply.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpRate {
    /// ONNX names, or `DepthwiseConv`.
    pub ops: Vec<String>,
    /// Whether the figures are those of operators that compute with integers; if not, of all for which there are no such.
    pub integers: bool,
    /// Cycles for each output element; for operators that multiply, a lower bound. Absent: unknown, never binding.
    pub cycles_per_element: Option<Figure<Cycles>>,
    /// Time to start one of them, of those that only give their input another form too. Absent: the runtime's `launch_us`, and
    /// none for those that only give their input another form.
    pub launch: Option<Figure<Seconds>>,
}

/// The names of the families.
#[derive(Clone, Copy, PartialEq)]
enum ModelWord {
    Roofline,
    Simd,
    DotTile,
    Systolic,
    EthosU,
    Crossbar,
}

impl Word for ModelWord {
    const ALL: &'static [(&'static str, Self)] = &[
        ("roofline", Self::Roofline),
        ("simd", Self::Simd),
        ("dot_tile", Self::DotTile),
        ("systolic", Self::Systolic),
        ("ethos_u", Self::EthosU),
        ("crossbar", Self::Crossbar),
    ];
}

impl Engine {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "name",
        "host",
        "model",
        "cores",
        "core_hz",
        "efficiency",
        "tile",
        "array",
        "ethos_u",
        "crossbar",
        "mode",
        "op",
        "ops",
    ];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let efficiency = section.number("efficiency", Bound::Positive)?;
        let modes = section.sections("mode", Mode::KEYS)?;
        if modes.is_empty() {
            let missing = Fault::MissingKey("at least one [[core.engine.mode]]");
            return Err(section.fault("mode", missing, None));
        }
        let op_rates = section.sections("op", OpRate::KEYS)?;
        Ok(Self {
            name: section.text("name")?,
            host: section.flag("host")?,
            model: EngineModel::read(section)?,
            cores: section.count("cores")?,
            clock: section.maybe_number("core_hz", Bound::Positive)?.map(|it| it.map(Hertz)),
            modes: modes
                .iter()
                .map(|mode| Mode::read(mode, &efficiency))
                .collect::<Result<_, _>>()?,
            op_rates: op_rates.iter().map(OpRate::read).collect::<Result<_, _>>()?,
            ops: section.maybe_texts("ops")?,
        })
    }
}

impl EngineModel {
    /// The keys of an engine that belong to one family, with the family.
    const OWN_KEYS: [(&'static str, ModelWord); 4] = [
        ("tile", ModelWord::DotTile),
        ("array", ModelWord::Systolic),
        ("ethos_u", ModelWord::EthosU),
        ("crossbar", ModelWord::Crossbar),
    ];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let word: ModelWord = section.word("model")?;
        for (key, owner) in Self::OWN_KEYS {
            if section.has(key) && word != owner {
                let name = ModelWord::ALL.iter().find(|it| it.1 == owner).map_or("", |it| it.0);
                let help = format!("`{key}` belongs to model \"{name}\"");
                return Err(section.fault(key, Fault::UnknownKey, Some(help)));
            }
        }
        Ok(match word {
            ModelWord::Roofline => Self::Roofline,
            ModelWord::Simd => Self::Simd,
            ModelWord::DotTile => {
                let tile = section.section("tile", &["m", "n", "k"])?;
                let [m, n, k] = counts(&tile, ["m", "n", "k"])?;
                Self::DotTile { tile: tile.figure(Tile { m, n, k })? }
            }
            ModelWord::Systolic => {
                let array = section.section("array", &["rows", "columns"])?;
                let [rows, columns] = counts(&array, ["rows", "columns"])?;
                Self::Systolic { array: array.figure(Systolic { rows, columns })? }
            }
            ModelWord::EthosU => {
                let tables = section.section("ethos_u", EthosU::KEYS)?;
                Self::EthosU(Box::new(EthosU::read(&tables)?))
            }
            ModelWord::Crossbar => {
                let crossbar = section.section("crossbar", Crossbar::KEYS)?;
                Self::Crossbar(Box::new(Crossbar::read(&crossbar)?))
            }
        })
    }
}

/// A time written in microseconds.
pub(crate) fn microseconds(
    section: &Section<'_>,
    key: &str,
) -> Result<Option<Figure<Seconds>>, ChipError> {
    let time = section.maybe_number(key, Bound::NotNegative)?;
    Ok(time.map(|it| it.map(|microseconds| Seconds(microseconds * 1e-6))))
}

/// Several counts of one table.
fn counts<const N: usize>(section: &Section<'_>, keys: [&str; N]) -> Result<[u64; N], ChipError> {
    let mut counts = [0; N];
    for (count, key) in counts.iter_mut().zip(keys) {
        *count = section.plain_count(key, None)?;
    }
    Ok(counts)
}

impl OpRate {
    const KEYS: &'static [&'static str] = &["ops", "integers", "cycles_per_element", "launch_us"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let cycles = section.maybe_number("cycles_per_element", Bound::Positive)?;
        Ok(Self {
            ops: section.texts("ops")?,
            integers: section.flag("integers")?,
            cycles_per_element: cycles.map(|it| it.map(Cycles)),
            launch: microseconds(section, "launch_us")?,
        })
    }
}
