//! From one text to the whole chip: the files that it extends, laid under it.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::DeTable;

use crate::error::{ChipError, Document, Fault, Place};
use crate::tree::{Item, Planter, Table, Value, overlay};

/// Finds what a file extends: from the name of the extending file and the reference in it, the name and text of the base.
pub type Bases<'a> = dyn Fn(&str, &str) -> Option<(String, String)> + 'a;

/// The layers, each of which may extend one of another chip.
pub(crate) const LAYERS: [&str; 4] = ["core", "system", "runtime", "energy"];

/// A tree with all bases in it, and the citations of all files.
pub(crate) struct Resolved {
    pub(crate) table: Table,
    pub(crate) sources: BTreeMap<String, String>,
}

/// Reads `document` and what it extends. `trail` holds the names of the files that lead here.
pub(crate) fn resolve(
    document: &Arc<Document>,
    bases: &Bases<'_>,
    trail: &[String],
) -> Result<Resolved, ChipError> {
    let parsed = DeTable::parse(&document.text).map_err(|error| {
        let span = error.span().unwrap_or(0..document.text.len());
        let place = Place { document: Arc::clone(document), span };
        ChipError::at(place, String::new(), Fault::Syntax(error.message().to_owned()), None)
    })?;
    let mut sources = citations(document, parsed.get_ref())?;
    let planter = Planter { document, sources: &sources };
    let mut table = planter.root(parsed.get_ref())?;
    let trail = [trail, std::slice::from_ref(&document.name)].concat();
    let own = sources.clone();
    let mut adopt = |base: &Resolved| {
        for (key, citation) in &base.sources {
            if own.get(key).is_some_and(|it| it != citation) {
                let place = table_place(document, &own_sources(parsed.get_ref(), key));
                let help = Some("use another key for the one in this file".to_owned());
                let clash = Fault::SourceClash(trail.join(" < "));
                return Err(ChipError::at(place, format!("sources.{key}"), clash, help));
            }
            sources.entry(key.clone()).or_insert_with(|| citation.clone());
        }
        Ok(())
    };
    let mut under = match take_extends(&mut table, "")? {
        Some(reference) => {
            let base = base(&reference, document, bases, &trail)?;
            adopt(&base)?;
            base.table
        }
        None => Table::new(),
    };
    for layer in LAYERS {
        let Some(Item { value: Value::Table(own), .. }) = table.get_mut(layer) else { continue };
        let Some(reference) = take_extends(own, layer)? else { continue };
        let base = base(&reference, document, bases, &trail)?;
        adopt(&base)?;
        match base.table.into_iter().find(|it| it.0 == layer) {
            Some((key, item)) => under.insert(key, item),
            None => under.remove(layer),
        };
    }
    Ok(Resolved { table: overlay(under, table, ""), sources })
}

fn base(
    reference: &Item,
    document: &Arc<Document>,
    bases: &Bases<'_>,
    trail: &[String],
) -> Result<Resolved, ChipError> {
    let wanted = reference.value.text().unwrap_or_default();
    let fault = |fault, help: &str| {
        ChipError::at(reference.place.clone(), "extends".to_owned(), fault, Some(help.to_owned()))
    };
    let Some((name, text)) = bases(&document.name, wanted) else {
        let help = "name a chip of the library (`sartor chips`), or a file as \"./base.toml\"";
        return Err(fault(Fault::UnknownBase(wanted.to_owned()), help));
    };
    if trail.contains(&name) {
        let circle = Fault::Circle([trail, &[name]].concat().join(" < "));
        return Err(fault(circle, "break the circle"));
    }
    resolve(&Arc::new(Document { name, text }), bases, trail)
}

/// Takes the key `extends` out of a table.
fn take_extends(table: &mut Table, path: &str) -> Result<Option<Item>, ChipError> {
    let Some(item) = table.remove("extends") else { return Ok(None) };
    if item.value.text().is_some() {
        return Ok(Some(item));
    }
    let key = if path.is_empty() { "extends".to_owned() } else { format!("{path}.extends") };
    let found = item.value.type_name().to_owned();
    let fault = Fault::WrongType { expected: "the id of a chip", found };
    Err(ChipError::at(item.place, key, fault, None))
}

fn own_sources(table: &DeTable<'_>, key: &str) -> std::ops::Range<usize> {
    let entries = table.get("sources").and_then(|it| it.get_ref().as_table());
    entries.and_then(|it| it.get(key)).map_or(0..0, toml::Spanned::span)
}

fn table_place(document: &Arc<Document>, span: &std::ops::Range<usize>) -> Place {
    Place { document: Arc::clone(document), span: span.clone() }
}

/// The citations of `[sources]`, whose keys are free.
fn citations(
    document: &Arc<Document>,
    table: &DeTable<'_>,
) -> Result<BTreeMap<String, String>, ChipError> {
    let fault = |span, key: String, expected, found: &str| {
        let place = table_place(document, &span);
        let found = found.to_owned();
        ChipError::at(place, key, Fault::WrongType { expected, found }, None)
    };
    let mut sources = BTreeMap::new();
    let Some(value) = table.get("sources") else { return Ok(sources) };
    let Some(entries) = value.get_ref().as_table() else {
        let found = value.get_ref().type_str();
        return Err(fault(value.span(), "sources".to_owned(), "a table", found));
    };
    for (key, value) in entries {
        match value.get_ref().as_str() {
            Some(citation) if !citation.trim().is_empty() => {
                sources.insert(key.get_ref().to_string(), citation.to_owned());
            }
            _ => {
                let key = format!("sources.{}", key.get_ref());
                return Err(fault(value.span(), key, "a citation", value.get_ref().type_str()));
            }
        }
    }
    Ok(sources)
}
