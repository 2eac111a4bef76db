//! Chip files as trees of items with their place and origin, and one tree laid over another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ChipError, Document, Fault, Place};
use crate::figure::{Confidence, Provenance};
use crate::suggest::nearest;
use crate::words::Word;

/// Keys that say where a figure comes from.
const ORIGIN_KEYS: [&str; 5] = ["src", "measured", "derived", "assumed", "conf"];

/// Arrays of tables whose items are merged by what names them: the path without indices, and the naming keys.
const NAMED: &[(&str, &[&str])] = &[
    ("core.engine", &["name"]),
    ("core.engine.mode", &["weights", "activations"]),
    ("core.engine.mode.kernel", &["product"]),
    ("core.engine.op", &["ops", "integers"]),
    ("core.engine.crossbar.noise.relaxed", &["after_s"]),
    ("core.arithmetic.scheme", &["weights", "activations", "ops"]),
    ("core.arithmetic.table", &["ops"]),
    ("core.operators.limit", &["ops"]),
    ("core.sparsity", &["n", "m"]),
    ("system.memory", &["name"]),
    ("runtime.quirk", &["id"]),
    ("energy.mac", &["weights", "activations"]),
    ("energy.memory", &["name"]),
];

/// Where a figure comes from, as its own file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    pub(crate) provenance: Provenance,
    pub(crate) confidence: Confidence,
    /// The file that states it.
    pub(crate) document: Arc<Document>,
}

/// A value with its place and the origin that it states or inherits within its own file.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) place: Place,
    /// Where its key stands; the place itself in lists.
    pub(crate) key: Place,
    pub(crate) origin: Option<Origin>,
    pub(crate) value: Value,
}

/// What an item holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    /// A number as written, whole if it is.
    Number {
        written: String,
        real: Option<f64>,
        whole: Option<i64>,
    },
    /// A value that no key of the schema takes.
    Date,
    List(Vec<Item>),
    Table(Table),
}

/// Items by key.
pub(crate) type Table = BTreeMap<String, Item>;

impl Value {
    /// The type's name in messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Flag(_) => "boolean",
            Self::Number { whole: Some(_), .. } => "integer",
            Self::Number { .. } => "float",
            Self::Date => "datetime",
            Self::List(_) => "array",
            Self::Table(_) => "table",
        }
    }

    pub(crate) fn table(&self) -> Option<&Table> {
        if let Self::Table(table) = self { Some(table) } else { None }
    }

    pub(crate) fn list(&self) -> Option<&[Item]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// Turns one TOML text into a tree.
pub(crate) struct Planter<'a> {
    pub(crate) document: &'a Arc<Document>,
    pub(crate) sources: &'a BTreeMap<String, String>,
}

impl Planter<'_> {
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place { document: Arc::clone(self.document), span }
    }

    /// The tree of a whole text.
    pub(crate) fn root(&self, table: &DeTable<'_>) -> Result<Table, ChipError> {
        let origin = self.origin(table, "", None)?;
        self.table(table, "", origin.as_ref())
    }

    fn table(
        &self,
        table: &DeTable<'_>,
        path: &str,
        origin: Option<&Origin>,
    ) -> Result<Table, ChipError> {
        let mut items = Table::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            // `[sources]` has free keys, which may be called as one pleases.
            if ORIGIN_KEYS.contains(&name) && path != "sources" {
                continue;
            }
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let item = self.item(value, &path, origin)?;
            items.insert(name.to_owned(), Item { key: self.place(key.span()), ..item });
        }
        Ok(items)
    }

    fn item(
        &self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        origin: Option<&Origin>,
    ) -> Result<Item, ChipError> {
        let place = self.place(value.span());
        let with = |value, origin: Option<&Origin>| Item {
            key: place.clone(),
            place: place.clone(),
            origin: origin.cloned(),
            value,
        };
        Ok(match value.get_ref() {
            DeValue::String(text) => with(Value::Text(text.to_string()), origin),
            DeValue::Boolean(flag) => with(Value::Flag(*flag), origin),
            DeValue::Integer(integer) => {
                let whole = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
                let real = whole.map(|whole| whole as f64);
                with(Value::Number { written: integer.to_string(), real, whole }, origin)
            }
            DeValue::Float(float) => {
                let real = float.as_str().parse().ok();
                let written = float.as_str().to_owned();
                with(Value::Number { written, real, whole: None }, origin)
            }
            DeValue::Datetime(_) => with(Value::Date, origin),
            DeValue::Array(array) => {
                let items = array.iter().enumerate();
                let items = items.map(|(i, it)| self.item(it, &format!("{path}[{i}]"), origin));
                with(Value::List(items.collect::<Result<_, _>>()?), origin)
            }
            DeValue::Table(table) if path == "sources" => {
                with(Value::Table(self.table(table, path, None)?), None)
            }
            DeValue::Table(table) => {
                let own = self.origin(table, path, origin)?;
                let mut items = self.table(table, path, own.as_ref())?;
                // A figure `{ v = …, src = … }` is its value with that origin.
                match items.remove("v") {
                    None => with(Value::Table(items), own.as_ref()),
                    Some(figure) => match items.into_iter().next() {
                        None => with(figure.value, own.as_ref()),
                        Some((key, stray)) => {
                            let help = "beside `v` stand src, measured, derived, assumed and conf";
                            let key = format!("{path}.{key}");
                            let fault = Fault::UnknownKey;
                            return Err(ChipError::at(
                                stray.key,
                                key,
                                fault,
                                Some(help.to_owned()),
                            ));
                        }
                    },
                }
            }
        })
    }

    /// The origin that a table states, or inherits.
    fn origin(
        &self,
        table: &DeTable<'_>,
        path: &str,
        inherited: Option<&Origin>,
    ) -> Result<Option<Origin>, ChipError> {
        let fault =
            |span, fault, help| ChipError::at(self.place(span), path.to_owned(), fault, help);
        let mut stated: Option<(&'static str, Provenance)> = None;
        for (name, make) in [
            ("src", Provenance::Datasheet as fn(String) -> Provenance),
            ("measured", Provenance::Measured),
            ("derived", Provenance::Derived),
            ("assumed", Provenance::Assumed),
        ] {
            let Some(value) = table.get(name) else { continue };
            let text = value.get_ref().as_str().filter(|text| !text.trim().is_empty());
            let Some(text) = text else {
                let expected = "a text that states the origin";
                let found = value.get_ref().type_str().to_owned();
                return Err(fault(value.span(), Fault::WrongType { expected, found }, None));
            };
            if let Some((first, _)) = stated {
                return Err(fault(value.span(), Fault::TwoOrigins(first, name), None));
            }
            if name == "src" && !self.sources.contains_key(text) {
                let help = match nearest(text, self.sources.keys().map(String::as_str)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("add `{text} = \"<citation>\"` to [sources]"),
                };
                let unknown = Fault::UnknownSource(text.to_owned());
                return Err(fault(value.span(), unknown, Some(help)));
            }
            stated = Some((name, make(text.to_owned())));
        }
        let confidence = match table.get("conf") {
            Some(value) => {
                let found = value.get_ref().as_str().unwrap_or_default();
                let known = Confidence::ALL.iter().find(|(word, _)| *word == found);
                let Some(&(_, confidence)) = known else {
                    let words: Vec<_> = Confidence::ALL.iter().map(|it| it.0).collect();
                    let word =
                        Fault::UnknownWord { found: found.to_owned(), expected: words.join(", ") };
                    return Err(fault(value.span(), word, None));
                };
                Some((confidence, value.span()))
            }
            None => None,
        };
        let Some((_, provenance)) = stated else {
            return Ok(inherited.map(|it| Origin {
                confidence: confidence.map_or(it.confidence, |it| it.0),
                ..it.clone()
            }));
        };
        if let (Provenance::Assumed(_), Some((Confidence::High, span))) = (&provenance, &confidence)
        {
            let expected = "low or med confidence in an assumption";
            let help = Some("name a source, or lower `conf`".to_owned());
            let found = "high".to_owned();
            return Err(fault(span.clone(), Fault::OutOfRange { expected, found }, help));
        }
        let confidence = confidence.map_or_else(|| provenance.usual_confidence(), |it| it.0);
        Ok(Some(Origin { provenance, confidence, document: Arc::clone(self.document) }))
    }
}

/// `top` laid over `base`: tables key by key, named arrays item by item, everything else replaced. An item of `top` that is a table
/// with `absent = true` removes what it covers. `path` is the path of both without indices.
pub(crate) fn overlay(base: Table, top: Table, path: &str) -> Table {
    let mut merged = base;
    for (key, item) in top {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if is_absent(&item) {
            merged.remove(&key);
            continue;
        }
        let below = merged.remove(&key);
        merged.insert(key, overlay_item(below, item, &path));
    }
    merged
}

/// The keys that name the items of an array of tables, by its path without indices.
pub(crate) fn naming(path: &str) -> Option<&'static [&'static str]> {
    NAMED.iter().find(|(named, _)| *named == path).map(|(_, keys)| *keys)
}

fn overlay_item(below: Option<Item>, above: Item, path: &str) -> Item {
    let naming = naming(path);
    let value = match (below.map(|it| it.value), above.value) {
        (Some(Value::Table(base)), Value::Table(top)) => Value::Table(overlay(base, top, path)),
        (below, Value::List(top)) if naming.is_some() => {
            let base = if let Some(Value::List(base)) = below { base } else { Vec::new() };
            Value::List(overlay_list(base, top, naming.unwrap_or_default(), path))
        }
        (_, top) => top,
    };
    Item { value, ..above }
}

fn overlay_list(base: Vec<Item>, top: Vec<Item>, naming: &[&str], path: &str) -> Vec<Item> {
    let mut merged = base;
    for item in top {
        let name = name_of(&item, naming);
        let at = merged.iter().position(|it| name.is_some() && name_of(it, naming) == name);
        match at {
            Some(at) if is_absent(&item) => {
                merged.remove(at);
            }
            Some(at) => {
                let below = merged.remove(at);
                merged.insert(at, overlay_item(Some(below), item, path));
            }
            None if is_absent(&item) => {}
            None => merged.push(item),
        }
    }
    merged
}

/// What names an item of an array of tables; `None` where a naming key is missing.
pub(crate) fn name_of(item: &Item, naming: &[&str]) -> Option<Vec<String>> {
    let table = item.value.table()?;
    let text = |value: &Value| match value {
        Value::Number { written, .. } => written.clone(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(items) => {
            let texts = items.iter().map(|it| it.value.text().unwrap_or_default());
            texts.collect::<Vec<_>>().join(" ")
        }
        other => other.text().unwrap_or_default().to_owned(),
    };
    // The first key is what the schema asks for; others may be absent.
    table.get(*naming.first()?)?;
    let name = |key: &&str| table.get(*key).map_or_else(String::new, |it| text(&it.value));
    Some(naming.iter().map(name).collect())
}

fn is_absent(item: &Item) -> bool {
    let absent = item.value.table().and_then(|table| table.get("absent"));
    absent.is_some_and(|it| matches!(it.value, Value::Flag(true)))
}
