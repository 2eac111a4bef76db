//! The chip as a whole.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;
use toml::de::DeTable;

use crate::compute::Compute;
use crate::deploy::{Deploy, Operators};
use crate::error::{ChipError, Fault};
use crate::figure::Figure;
use crate::lint::lint;
use crate::memory::Memory;
use crate::quantization::Quantization;
use crate::reader::{Bound, Document, Section};
use crate::sparsity::{SparsityPattern, WeightStore};
use crate::units::{Cycles, Hertz, Seconds, Watts};
use crate::words::words;

/// The version of the schema that this crate reads.
pub const SCHEMA: u64 = 1;

words! {
    /// What kind of chip it is.
    Class {
        /// A graphics processor.
        Gpu = "gpu",
        /// A general-purpose processor with an operating system.
        Cpu = "cpu",
        /// A neural processor.
        Npu = "npu",
        /// A microcontroller.
        Mcu = "mcu",
    }
}

/// A chip, as its file describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chip {
    /// The name under which it is asked for.
    pub id: String,
    /// Its full name.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// What kind of chip it is.
    pub class: Class,
    /// The year in which it was announced.
    pub year: Option<Figure<u64>>,
    /// What else its users should know.
    pub notes: Vec<String>,
    /// Citations by the keys that [`Provenance::Datasheet`](crate::Provenance::Datasheet) names.
    pub sources: BTreeMap<String, String>,
    /// The clock of the compute array.
    pub clock: Figure<Hertz>,
    /// What it multiplies.
    pub compute: Compute,
    /// Its integer arithmetic.
    pub quantization: Quantization,
    /// Sparsity patterns that make it faster; empty where there are none.
    pub sparsity: Vec<SparsityPattern>,
    /// How weights are stored. Absent: as they are.
    pub weight_store: Option<WeightStore>,
    /// Memories, from near to far; never empty.
    pub memories: Vec<Memory>,
    /// What every operator costs beyond its work.
    pub overhead: Overhead,
    /// What it draws.
    pub power: Power,
    /// Which operators it runs.
    pub operators: Operators,
    /// How a network gets onto it.
    pub deploy: Deploy,
    #[serde(skip)]
    spans: BTreeMap<String, Range<usize>>,
    #[serde(skip)]
    pub(crate) used_sources: BTreeSet<String>,
}

/// What every operator costs beyond its work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overhead {
    /// Whether transfers overlap computation.
    pub overlaps: bool,
    /// Time to start one operator. Absent: unknown.
    pub launch: Option<Figure<Seconds>>,
    /// Cycles to fill and drain the array for one operator. Absent: unknown.
    pub drain: Option<Figure<Cycles>>,
}

/// What a chip draws.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Power {
    /// The most it may draw for long: `energy ≤ limit × time` where no energies are known. Absent: unknown.
    pub limit: Option<Figure<Watts>>,
    /// What it draws without work. Absent: unknown.
    pub idle: Option<Figure<Watts>>,
}

const ROOT_KEYS: &[&str] = &[
    "schema",
    "chip",
    "sources",
    "clock",
    "compute",
    "quantization",
    "sparsity",
    "weight_store",
    "memory",
    "overhead",
    "power",
    "operators",
    "deploy",
];

impl Chip {
    /// Reads a chip file; `name` stands in messages. Contradictions are left to [`lint`]: see [`Chip::checked`].
    ///
    /// # Errors
    /// The first fault found: bad TOML, an unknown, missing or ill-typed key, a number out of range or without a source.
    pub fn parse(name: &str, toml_text: &str) -> Result<Self, ChipError> {
        let table = DeTable::parse(toml_text).map_err(|error| ChipError {
            chip: name.to_owned(),
            key: None,
            span: error.span(),
            help: None,
            fault: Box::new(Fault::Syntax(error.message().to_owned())),
        })?;
        let document = Document {
            file: name,
            sources: BTreeMap::new(),
            spans: RefCell::default(),
            used_sources: RefCell::default(),
        };
        let sources = sources(&document, table.get_ref())?;
        let document = Document { sources, ..document };
        let root = Section::root(&document, table.get_ref(), ROOT_KEYS)?;
        Self::read(&root, &document)
    }

    /// Reads a chip file and refuses contradictions: what to use for files of unknown quality.
    ///
    /// # Errors
    /// As [`Chip::parse`], and the first finding of [`lint`].
    pub fn checked(name: &str, toml_text: &str) -> Result<Self, ChipError> {
        let chip = Self::parse(name, toml_text)?;
        match lint(&chip).into_iter().next() {
            None => Ok(chip),
            Some(finding) => Err(ChipError {
                chip: name.to_owned(),
                key: Some(finding.key),
                span: finding.span,
                help: Some(finding.help),
                fault: Box::new(Fault::Contradiction(finding.message)),
            }),
        }
    }

    fn read(root: &Section<'_>, document: &Document<'_>) -> Result<Self, ChipError> {
        let schema = root.plain_count("schema", None)?;
        if schema != SCHEMA {
            let fault = Fault::OutOfRange { expected: "schema 1", found: schema.to_string() };
            return Err(root.fault("schema", fault, None));
        }
        let chip = root.section("chip", &["id", "name", "vendor", "class", "year", "notes"])?;
        let memories = root.sections("memory", Memory::KEYS)?;
        if memories.is_empty() {
            return Err(root.fault("memory", Fault::MissingKey("at least one [[memory]]"), None));
        }
        let sparsity = root.sections("sparsity", SparsityPattern::KEYS)?;
        let weight_store = root.maybe_section("weight_store", WeightStore::KEYS)?;
        Ok(Self {
            id: chip.text("id")?,
            name: chip.text("name")?,
            vendor: chip.text("vendor")?,
            class: chip.word("class")?,
            year: chip.maybe_count("year")?,
            notes: chip.texts("notes")?,
            sources: document.sources.clone(),
            clock: root
                .section("clock", &["core_hz"])?
                .number("core_hz", Bound::Positive)?
                .map(Hertz),
            compute: Compute::read(&root.section("compute", Compute::KEYS)?)?,
            quantization: Quantization::read(&root.section("quantization", Quantization::KEYS)?)?,
            sparsity: sparsity.iter().map(SparsityPattern::read).collect::<Result<_, _>>()?,
            weight_store: weight_store.as_ref().map(WeightStore::read).transpose()?,
            memories: memories.iter().map(Memory::read).collect::<Result<_, _>>()?,
            overhead: Overhead::read(&root.section("overhead", Overhead::KEYS)?)?,
            power: Power::read(&root.section("power", Power::KEYS)?)?,
            operators: Operators::read(&root.section("operators", Operators::KEYS)?)?,
            deploy: Deploy::read(&root.section("deploy", Deploy::KEYS)?)?,
            spans: document.spans.take(),
            used_sources: document.used_sources.take(),
        })
    }

    /// Where the value of a key such as `memory[1].read_bytes_per_s` stands in the text.
    pub fn span(&self, key: &str) -> Option<Range<usize>> {
        self.spans.get(key).cloned()
    }
}

/// The citations of `[sources]`, whose keys are free.
fn sources(
    document: &Document<'_>,
    table: &DeTable<'_>,
) -> Result<BTreeMap<String, String>, ChipError> {
    let fault = |span, key: Option<String>, expected, found: &str| ChipError {
        chip: document.file.to_owned(),
        key,
        span: Some(span),
        help: None,
        fault: Box::new(Fault::WrongType { expected, found: found.to_owned() }),
    };
    let mut sources = BTreeMap::new();
    let Some(value) = table.get("sources") else { return Ok(sources) };
    let Some(entries) = value.get_ref().as_table() else {
        return Err(fault(
            value.span(),
            Some("sources".to_owned()),
            "a table",
            value.get_ref().type_str(),
        ));
    };
    for (key, value) in entries {
        let path = format!("sources.{}", key.get_ref());
        match value.get_ref().as_str() {
            Some(citation) if !citation.trim().is_empty() => {
                document.spans.borrow_mut().insert(path, value.span());
                sources.insert(key.get_ref().to_string(), citation.to_owned());
            }
            _ => {
                return Err(fault(
                    value.span(),
                    Some(path),
                    "a citation",
                    value.get_ref().type_str(),
                ));
            }
        }
    }
    Ok(sources)
}

impl Overhead {
    const KEYS: &'static [&'static str] = &["overlaps", "launch_us", "drain_cycles"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let launch = section.maybe_number("launch_us", Bound::NotNegative)?;
        let drain = section.maybe_number("drain_cycles", Bound::NotNegative)?;
        Ok(Self {
            overlaps: section.flag("overlaps")?,
            launch: launch.map(|figure| figure.map(|microseconds| Seconds(microseconds * 1e-6))),
            drain: drain.map(|figure| figure.map(Cycles)),
        })
    }
}

impl Power {
    const KEYS: &'static [&'static str] = &["limit_w", "idle_w"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let watts =
            |key| Ok(section.maybe_number(key, Bound::Positive)?.map(|figure| figure.map(Watts)));
        Ok(Self { limit: watts("limit_w")?, idle: watts("idle_w")? })
    }
}
