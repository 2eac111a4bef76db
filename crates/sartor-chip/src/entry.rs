//! A chip as the list of its keys, for people who read it.

use serde::Serialize;
use serde_json::Value as Json;

use crate::absent::meaning;
use crate::figure::{Confidence, Provenance};
use crate::tree::{Item, Value};

/// One key of a chip, as its file has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its path; items of arrays stand by their names: `core.engine[npu].mode[i8 i8].macs_per_cycle`. It ends in its unit.
    pub key: String,
    /// What stands there, in the unit of the key. Absent: the key is absent.
    pub value: Option<Json>,
    /// Where a figure comes from.
    pub provenance: Option<Provenance>,
    /// How far a figure is to be trusted.
    pub confidence: Option<Confidence>,
    /// The file that states it: the chip's own, or one that it extends.
    pub file: Option<String>,
    /// What it means that the key is absent.
    pub default: Option<&'static str>,
}

impl Entry {
    /// The entry of a key; `None` for tables, whose keys have entries of their own, and for versions.
    pub(crate) fn new(key: String, item: Option<&Item>) -> Option<Self> {
        let kind = without_names(&key);
        if kind == "schema" || kind.ends_with("version") {
            return None;
        }
        let absent = Self {
            key,
            value: None,
            provenance: None,
            confidence: None,
            file: None,
            default: meaning(&kind),
        };
        let Some(item) = item else { return Some(absent) };
        let value = plain(&item.value)?;
        let origin = item.origin.as_ref().filter(|_| has_numbers(&value));
        Some(Self {
            value: Some(value),
            provenance: origin.map(|it| it.provenance.clone()),
            confidence: origin.map(|it| it.confidence),
            file: Some(item.place.document.name.clone()),
            default: None,
            ..absent
        })
    }
}

/// A path without the names of items: `core.engine.mode.macs_per_cycle`.
pub(crate) fn without_names(key: &str) -> String {
    let (mut kind, mut depth) = (String::new(), 0_usize);
    for c in key.chars() {
        match c {
            '[' => depth += 1,
            ']' if depth > 0 => depth -= 1,
            _ if depth == 0 => kind.push(c),
            _ => {}
        }
    }
    kind
}

/// A value that is no table and holds none.
fn plain(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::Flag(flag) => Json::from(*flag),
        Value::Number { whole: Some(whole), .. } => Json::from(*whole),
        Value::Number { real, written, .. } => real
            .and_then(serde_json::Number::from_f64)
            .map_or_else(|| Json::from(written.as_str()), Json::Number),
        Value::List(items) => {
            Json::Array(items.iter().map(|it| plain(&it.value)).collect::<Option<_>>()?)
        }
        Value::Date | Value::Table(_) => return None,
    })
}

fn has_numbers(value: &Json) -> bool {
    match value {
        Json::Number(_) => true,
        Json::Array(list) => list.iter().any(has_numbers),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{find, library};

    #[test]
    fn names_of_items_are_no_part_of_a_path() {
        for (key, kind) in [
            ("core.engine[npu].mode[i8 i8].grain", "core.engine.mode.grain"),
            ("a[x[0]y].b", "a.b"),
            ("a]b", "a]b"),
            ("", ""),
        ] {
            assert_eq!(without_names(key), kind);
        }
    }

    #[test]
    fn entries_say_what_stands_where_and_what_does_not() {
        let chip = find("arm-cortex-m4").unwrap();
        let entry = |key: &str| chip.entries().find(|it| it.key == key).cloned();
        let own = entry("core.engine[cpu].mode[i8 i8].macs_per_cycle").unwrap();
        assert_eq!((own.value, own.file.as_deref()), (Some(Json::from(1)), Some("arm-cortex-m4")));
        assert_eq!(own.confidence, Some(Confidence::Low));
        let inherited = entry("core.engine[cpu].mode[i8 i8].unroll.k").unwrap();
        assert_eq!(inherited.file.as_deref(), Some("arm-cortex-m7"));
        assert_eq!(inherited.provenance, Some(Provenance::Datasheet("cmsis".into())));
        let absent = entry("system.memory[sram].burst_bytes").unwrap();
        assert_eq!((absent.value, absent.default), (None, Some("1")));
        assert_eq!(entry("core.engine[cpu].tile"), None, "a key of another model");
        let keys: Vec<&str> = chip.entries().map(|it| it.key.as_str()).collect();
        assert_eq!(keys[0], "chip.id");
        let at = |key: &str| keys.iter().position(|it| *it == key).unwrap();
        assert!(at("core.overlaps") > at("core.arithmetic.scale"), "the order of the schema");
        assert!(at("system.core_hz") < at("runtime.toolchain"));
    }

    /// A new optional key needs a line in `absent.rs`.
    #[test]
    fn it_is_said_what_every_absent_key_stands_for() {
        let mut silent = std::collections::BTreeSet::new();
        for chip in library().iter().map(|it| it.chip().unwrap()) {
            let unsaid =
                chip.entries.iter().filter(|it| it.value.is_none() && it.default.is_none());
            silent.extend(unsaid.map(|it| without_names(&it.key)));
        }
        assert!(silent.is_empty(), "{silent:#?}");
    }
}
