//! The chip as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::core_layer::Core;
use crate::energy::Energy;
use crate::entry::Entry;
use crate::error::{ChipError, Document, Fault, Place};
use crate::figure::Figure;
use crate::library::library_bases;
use crate::lint::{Finding, lint};
use crate::reader::{Section, Traces};
use crate::resolve::{Bases, resolve};
use crate::runtime::Runtime;
use crate::system::System;
use crate::words::words;

/// The version of the schema, and of each of its layers, that this crate reads.
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
        /// A compute-in-memory chip.
        Cim = "cim",
    }
}

/// A chip, as its file and those that it extends describe it.
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
    /// What computes, and in which arithmetic.
    pub core: Core,
    /// Clock and memories: what a board or system chooses.
    pub system: System,
    /// The toolchain and what it costs.
    pub runtime: Runtime,
    /// What the chip draws.
    pub energy: Energy,
    #[serde(skip)]
    pub(crate) entries: Vec<Entry>,
    #[serde(skip)]
    places: BTreeMap<String, Place>,
    #[serde(skip)]
    pub(crate) unused_sources: BTreeSet<String>,
}

const ROOT_KEYS: &[&str] = &["schema", "chip", "sources", "core", "system", "runtime", "energy"];

impl Chip {
    /// Reads a chip file that may extend chips of the library; `name` stands in messages. Contradictions are left to [`lint`]: see
    /// [`Chip::checked`].
    ///
    /// # Errors
    /// The first fault found: bad TOML, an unknown, missing or ill-typed key, a number out of range or without a source, a base
    /// that is not there.
    pub fn parse(name: &str, toml_text: &str) -> Result<Self, ChipError> {
        Self::parse_with(name, toml_text, &library_bases)
    }

    /// Reads a chip file and refuses contradictions: what to use for files of unknown quality. `bases` finds what it extends, from
    /// the name of the extending file and the reference in it.
    ///
    /// # Errors
    /// As [`Chip::parse`], and the first finding of [`lint`].
    pub fn checked(name: &str, toml_text: &str, bases: &Bases<'_>) -> Result<Self, ChipError> {
        Self::all_faults(name, toml_text, bases)
            .map_err(|faults| faults.into_iter().next().expect("a refused chip has a fault"))
    }

    /// As [`Chip::checked`], with every contradiction instead of the first.
    ///
    /// # Errors
    /// The fault that keeps the file from being read, or all findings of [`lint`]; never empty.
    pub fn all_faults(
        name: &str,
        toml_text: &str,
        bases: &Bases<'_>,
    ) -> Result<Self, Vec<ChipError>> {
        let chip = Self::parse_with(name, toml_text, bases).map_err(|it| vec![it])?;
        let error = |finding: Finding| ChipError {
            chip: finding
                .place
                .as_ref()
                .map_or_else(|| name.to_owned(), |it| it.document.name.clone()),
            key: Some(finding.key),
            place: finding.place,
            help: Some(finding.help),
            fault: Box::new(Fault::Contradiction(finding.message)),
        };
        let faults: Vec<ChipError> = lint(&chip).into_iter().map(error).collect();
        if faults.is_empty() { Ok(chip) } else { Err(faults) }
    }

    /// As [`Chip::parse`], with bases from elsewhere.
    ///
    /// # Errors
    /// As [`Chip::parse`].
    pub fn parse_with(name: &str, toml_text: &str, bases: &Bases<'_>) -> Result<Self, ChipError> {
        let document = Arc::new(Document { name: name.to_owned(), text: toml_text.to_owned() });
        let resolved = resolve(&document, bases, &[])?;
        let traces = Traces::default();
        let place = Place { document: Arc::clone(&document), span: 0..0 };
        let mut table = resolved.table;
        // The keys of `[sources]` are free; all citations are in `resolved.sources`.
        let cited = table.remove("sources");
        let root = Section::root(&traces, &table, place, ROOT_KEYS)?;
        let mut chip = Self::read(&root, resolved.sources)?;
        let used = traces.used_sources.into_inner();
        let mut entries = traces.entries.into_inner();
        entries.sort_by(|lhs, rhs| lhs.0.cmp(&rhs.0));
        chip.entries = entries.into_iter().map(|it| it.1).collect();
        chip.places = traces.places.into_inner();
        for (key, item) in cited.iter().filter_map(|it| it.value.table()).flatten() {
            if item.place.document == document {
                chip.places.insert(format!("sources.{key}"), item.place.clone());
                if !used.contains(&(name.to_owned(), key.clone())) {
                    chip.unused_sources.insert(key.clone());
                }
            }
        }
        Ok(chip)
    }

    fn read(root: &Section<'_>, sources: BTreeMap<String, String>) -> Result<Self, ChipError> {
        version(root, "schema", None)?;
        let chip = root.section("chip", &["id", "name", "vendor", "class", "year", "notes"])?;
        Ok(Self {
            id: chip.text("id")?,
            name: chip.text("name")?,
            vendor: chip.text("vendor")?,
            class: chip.word("class")?,
            year: chip.maybe_count("year")?,
            notes: chip.texts("notes")?,
            sources,
            core: Core::read(&root.section("core", Core::KEYS)?)?,
            system: System::read(&root.section("system", System::KEYS)?)?,
            runtime: Runtime::read(&root.section("runtime", Runtime::KEYS)?)?,
            energy: root
                .maybe_section("energy", Energy::KEYS)?
                .as_ref()
                .map_or_else(|| Ok(Energy::default()), Energy::read)?,
            entries: Vec::new(),
            places: BTreeMap::new(),
            unused_sources: BTreeSet::new(),
        })
    }

    /// Where the value of a key such as `system.memory[1].read_bytes_per_s` stands: in the chip's file or in one that it extends.
    pub fn place(&self, key: &str) -> Option<&Place> {
        self.places.get(key)
    }

    /// Every key that the chip's file and those that it extends state, and every absent one that stands for something, in the order
    /// of the schema. As read: changes to the chip do not show here.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|it| it.value.is_some() || it.default.is_some_and(|it| !it.is_empty()))
    }

    /// Every figure of low confidence: its key in the JSON form, such as `system.memories[1].read`, and its origin.
    pub fn low_confidence(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if let Ok(tree) = serde_json::to_value(self) {
            doubtful(&tree, "", &mut found);
        }
        found
    }
}

/// Walks the JSON form for figures of low confidence.
fn doubtful(tree: &serde_json::Value, path: &str, found: &mut Vec<(String, String)>) {
    match tree {
        serde_json::Value::Object(map) => {
            if map.get("confidence").is_some_and(|it| it == "low") {
                let origin = map.get("provenance").and_then(|it| it.as_object());
                let origin = origin.and_then(|it| it.iter().next());
                let said = origin.map_or(String::new(), |(kind, text)| {
                    format!("{kind}: {}", text.as_str().unwrap_or_default())
                });
                found.push((path.to_owned(), said));
                return;
            }
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                doubtful(value, &path, found);
            }
        }
        serde_json::Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                doubtful(value, &format!("{path}[{i}]"), found);
            }
        }
        _ => {}
    }
}

/// Refuses a version that this crate does not read.
pub(crate) fn version(
    section: &Section<'_>,
    key: &str,
    default: Option<u64>,
) -> Result<(), ChipError> {
    let found = section.plain_count(key, default)?;
    if found == SCHEMA {
        return Ok(());
    }
    let fault = Fault::OutOfRange { expected: "version 1", found: found.to_string() };
    Err(section.fault(key, fault, None))
}
