//! Reading a TOML text table by table, with spans, origins and messages that name the key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ChipError, Fault};
use crate::figure::{Confidence, Figure, Provenance};
use crate::suggest::nearest;
use crate::words::Word;

/// The keys by which a table or a figure states its origin.
const ORIGIN_KEYS: [&str; 5] = ["src", "measured", "derived", "assumed", "conf"];

/// What is known about a whole file while it is read.
pub(crate) struct Document<'a> {
    pub(crate) file: &'a str,
    pub(crate) sources: BTreeMap<String, String>,
    pub(crate) spans: RefCell<BTreeMap<String, Range<usize>>>,
    pub(crate) used_sources: RefCell<BTreeSet<String>>,
}

/// A permitted range of numbers; all of them are finite.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    Positive,
    NotNegative,
}

#[derive(Clone)]
struct Origin {
    provenance: Provenance,
    confidence: Confidence,
}

/// One table of the file.
pub(crate) struct Section<'a> {
    document: &'a Document<'a>,
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    origin: Option<Origin>,
}

impl<'a> Section<'a> {
    /// The file's outermost table, which may hold `keys` and a default origin.
    pub(crate) fn root(
        document: &'a Document<'a>,
        table: &'a DeTable<'a>,
        keys: &[&str],
    ) -> Result<Self, ChipError> {
        Self { document, path: String::new(), span: 0..0, table, origin: None }.opened(keys)
    }

    /// Refuses unknown keys, notes all spans and takes the default origin of this table.
    fn opened(mut self, keys: &[&str]) -> Result<Self, ChipError> {
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            if !keys.contains(&name) && !ORIGIN_KEYS.contains(&name) {
                let help = match nearest(name, keys.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known here: {}", keys.join(", ")),
                };
                return Err(self.fault_at(name, key.span(), Fault::UnknownKey, Some(help)));
            }
            self.document.spans.borrow_mut().insert(self.key_path(name), value.span());
        }
        self.origin = self.origin_in(self.table, "", self.origin.clone())?;
        Ok(self)
    }

    fn key_path(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }

    fn fault_at(
        &self,
        key: &str,
        span: Range<usize>,
        fault: Fault,
        help: Option<String>,
    ) -> ChipError {
        let key = Some(self.key_path(key)).filter(|key| !key.is_empty());
        ChipError {
            chip: self.document.file.to_owned(),
            key,
            span: Some(span),
            help,
            fault: Box::new(fault),
        }
    }

    /// A fault of the value under `key` (or of the table, where there is none).
    pub(crate) fn fault(&self, key: &str, fault: Fault, help: Option<String>) -> ChipError {
        let span = self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        self.fault_at(key, span, fault, help)
    }

    fn wrong_type(
        &self,
        key: &str,
        expected: &'static str,
        found: &Spanned<DeValue<'_>>,
    ) -> ChipError {
        let fault = Fault::WrongType { expected, found: found.get_ref().type_str().to_owned() };
        self.fault_at(key, found.span(), fault, None)
    }

    fn required<T>(
        &self,
        key: &str,
        expected: &'static str,
        value: Option<T>,
    ) -> Result<T, ChipError> {
        value.ok_or_else(|| self.fault(key, Fault::MissingKey(expected), None))
    }

    /// Whether the table holds `key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// The origin stated in `table`, else `inherited`.
    fn origin_in(
        &self,
        table: &DeTable<'_>,
        key: &str,
        inherited: Option<Origin>,
    ) -> Result<Option<Origin>, ChipError> {
        let mut stated: Option<(&'static str, Provenance)> = None;
        for (name, make) in [
            ("src", Provenance::Datasheet as fn(String) -> Provenance),
            ("measured", Provenance::Measured),
            ("derived", Provenance::Derived),
            ("assumed", Provenance::Assumed),
        ] {
            let Some(value) = table.get(name) else { continue };
            let Some(text) = value.get_ref().as_str().filter(|text| !text.trim().is_empty()) else {
                return Err(self.wrong_type(key, "a text that states the origin", value));
            };
            if let Some((first, _)) = stated {
                return Err(self.fault_at(key, value.span(), Fault::TwoOrigins(first, name), None));
            }
            if name == "src" {
                self.check_source(key, text, value.span())?;
            }
            stated = Some((name, make(text.to_owned())));
        }
        let confidence = match table.get("conf") {
            Some(value) => Some(self.word_of::<Confidence>(key, value)?),
            None => None,
        };
        Ok(match stated {
            Some((_, provenance)) => {
                let confidence = confidence.unwrap_or_else(|| provenance.usual_confidence());
                if let (Provenance::Assumed(_), Confidence::High) = (&provenance, confidence) {
                    let fault = Fault::OutOfRange {
                        expected: "low or med confidence in an assumption",
                        found: "high".into(),
                    };
                    return Err(self.fault(
                        key,
                        fault,
                        Some("name a source, or lower `conf`".to_owned()),
                    ));
                }
                Some(Origin { provenance, confidence })
            }
            None => inherited.map(|origin| Origin {
                confidence: confidence.unwrap_or(origin.confidence),
                ..origin
            }),
        })
    }

    fn check_source(&self, key: &str, source: &str, span: Range<usize>) -> Result<(), ChipError> {
        let sources = &self.document.sources;
        if !sources.contains_key(source) {
            let help = match nearest(source, sources.keys().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("add `{source} = \"<citation>\"` to [sources]"),
            };
            return Err(self.fault_at(
                key,
                span,
                Fault::UnknownSource(source.to_owned()),
                Some(help),
            ));
        }
        Ok(())
    }

    fn figure_from<T>(
        &self,
        key: &str,
        origin: Option<Origin>,
        value: T,
    ) -> Result<Figure<T>, ChipError> {
        let Some(Origin { provenance, confidence }) = origin else {
            let help = "write `{ v = …, src = \"key\" }` (or measured, derived, assumed), or give the table or file a `src`";
            return Err(self.fault(key, Fault::NoSource, Some(help.to_owned())));
        };
        if let Provenance::Datasheet(source) = &provenance {
            self.document.used_sources.borrow_mut().insert(source.clone());
        }
        Ok(Figure { value, provenance, confidence })
    }

    /// `value`, read from several keys of this table, with the table's origin.
    pub(crate) fn figure<T>(&self, value: T) -> Result<Figure<T>, ChipError> {
        self.figure_from("", self.origin.clone(), value)
    }

    /// The table under `key`, if present.
    pub(crate) fn maybe_section(
        &self,
        key: &str,
        keys: &[&str],
    ) -> Result<Option<Section<'a>>, ChipError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.wrong_type(key, "a table", value));
        };
        self.child(self.key_path(key), value.span(), table, keys).map(Some)
    }

    /// The table under `key`.
    pub(crate) fn section(&self, key: &str, keys: &[&str]) -> Result<Section<'a>, ChipError> {
        let section = self.maybe_section(key, keys)?;
        self.required(key, "a table", section)
    }

    /// The tables of the array under `key`; none if absent.
    pub(crate) fn sections(&self, key: &str, keys: &[&str]) -> Result<Vec<Section<'a>>, ChipError> {
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let Some(array) = value.get_ref().as_array() else {
            return Err(self.wrong_type(key, "an array of tables", value));
        };
        let mut sections = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let Some(table) = item.get_ref().as_table() else {
                return Err(self.wrong_type(key, "a table", item));
            };
            let path = format!("{}[{index}]", self.key_path(key));
            self.document.spans.borrow_mut().insert(path.clone(), item.span());
            sections.push(self.child(path, item.span(), table, keys)?);
        }
        Ok(sections)
    }

    fn child(
        &self,
        path: String,
        span: Range<usize>,
        table: &'a DeTable<'a>,
        keys: &[&str],
    ) -> Result<Section<'a>, ChipError> {
        Section { document: self.document, path, span, table, origin: self.origin.clone() }
            .opened(keys)
    }

    /// The text under `key`, if present.
    pub(crate) fn maybe_text(&self, key: &str) -> Result<Option<String>, ChipError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) if !text.trim().is_empty() => Ok(Some(text.to_owned())),
            Some(_) => Err(self.fault(
                key,
                Fault::OutOfRange { expected: "a text", found: "nothing".into() },
                None,
            )),
            None => Err(self.wrong_type(key, "a string", value)),
        }
    }

    /// The text under `key`.
    pub(crate) fn text(&self, key: &str) -> Result<String, ChipError> {
        let text = self.maybe_text(key)?;
        self.required(key, "a string", text)
    }

    fn array(&self, key: &str) -> Result<&'a [Spanned<DeValue<'a>>], ChipError> {
        let Some(value) = self.table.get(key) else { return Ok(&[]) };
        match value.get_ref().as_array() {
            Some(array) => Ok(array),
            None => Err(self.wrong_type(key, "an array", value)),
        }
    }

    /// The texts of the array under `key`; none if absent.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, ChipError> {
        let text = |item: &Spanned<DeValue<'_>>| match item.get_ref().as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong_type(key, "a string", item)),
        };
        self.array(key)?.iter().map(text).collect()
    }

    fn word_of<T: Word>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<T, ChipError> {
        let Some(found) = value.get_ref().as_str() else {
            return Err(self.wrong_type(key, "a string", value));
        };
        if let Some(&(_, word)) = T::ALL.iter().find(|(word, _)| *word == found) {
            return Ok(word);
        }
        let words: Vec<&str> = T::ALL.iter().map(|&(word, _)| word).collect();
        let help =
            nearest(found, words.iter().copied()).map(|word| format!("did you mean `{word}`?"));
        let fault = Fault::UnknownWord { found: found.to_owned(), expected: words.join(", ") };
        Err(self.fault_at(key, value.span(), fault, help))
    }

    /// The word under `key`, if present.
    pub(crate) fn maybe_word<T: Word>(&self, key: &str) -> Result<Option<T>, ChipError> {
        self.table.get(key).map(|value| self.word_of(key, value)).transpose()
    }

    /// The word under `key`.
    pub(crate) fn word<T: Word>(&self, key: &str) -> Result<T, ChipError> {
        let word = self.maybe_word(key)?;
        self.required(key, "a string", word)
    }

    /// The words of the array under `key`; none if absent.
    pub(crate) fn words<T: Word>(&self, key: &str) -> Result<Vec<T>, ChipError> {
        self.array(key)?.iter().map(|item| self.word_of(key, item)).collect()
    }

    /// The Boolean under `key`; `false` if absent.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, ChipError> {
        let Some(value) = self.table.get(key) else { return Ok(false) };
        value.get_ref().as_bool().ok_or_else(|| self.wrong_type(key, "true or false", value))
    }

    fn number_of(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        bound: Bound,
    ) -> Result<f64, ChipError> {
        let (number, written) = match value.get_ref() {
            DeValue::Float(float) => (float.as_str().parse().ok(), float.as_str().to_owned()),
            DeValue::Integer(integer) => {
                let whole = i64::from_str_radix(integer.as_str(), integer.radix());
                (whole.ok().map(|whole| whole as f64), integer.to_string())
            }
            _ => return Err(self.wrong_type(key, "a number", value)),
        };
        let expected = match bound {
            Bound::Positive => "a finite number above zero",
            Bound::NotNegative => "a finite number, zero or above",
        };
        let fits = |number: &f64| match bound {
            Bound::Positive => number.is_finite() && *number > 0.0,
            Bound::NotNegative => number.is_finite() && *number >= 0.0,
        };
        number.filter(fits).ok_or_else(|| {
            self.fault_at(key, value.span(), Fault::OutOfRange { expected, found: written }, None)
        })
    }

    fn count_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<u64, ChipError> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(self.wrong_type(key, "a whole number", value));
        };
        let count =
            u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|&count| count > 0);
        count.ok_or_else(|| {
            let fault = Fault::OutOfRange {
                expected: "a whole number above zero",
                found: integer.to_string(),
            };
            self.fault_at(key, value.span(), fault, None)
        })
    }

    /// The leaf under `key`, written plainly or as `{ v = …, src = … }`, read by `read`.
    fn leaf<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Spanned<DeValue<'_>>) -> Result<T, ChipError>,
    ) -> Result<Option<Figure<T>>, ChipError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let Some(table) = value.get_ref().as_table() else {
            return self.figure_from(key, self.origin.clone(), read(value)?).map(Some);
        };
        let path = self.key_path(key);
        let inner = Section {
            document: self.document,
            path,
            span: value.span(),
            table,
            origin: self.origin.clone(),
        };
        let inner = inner.opened(&["v"])?;
        let number = inner.required("v", "the number", table.get("v"))?;
        self.figure_from(key, inner.origin, read(number)?).map(Some)
    }

    /// The number under `key`, if present.
    pub(crate) fn maybe_number(
        &self,
        key: &str,
        bound: Bound,
    ) -> Result<Option<Figure<f64>>, ChipError> {
        self.leaf(key, |value| self.number_of(key, value, bound))
    }

    /// The number under `key`.
    pub(crate) fn number(&self, key: &str, bound: Bound) -> Result<Figure<f64>, ChipError> {
        let number = self.maybe_number(key, bound)?;
        self.required(key, "a number", number)
    }

    /// The whole number above zero under `key`, if present.
    pub(crate) fn maybe_count(&self, key: &str) -> Result<Option<Figure<u64>>, ChipError> {
        self.leaf(key, |value| self.count_of(key, value))
    }

    /// The whole number above zero under `key`.
    pub(crate) fn count(&self, key: &str) -> Result<Figure<u64>, ChipError> {
        let count = self.maybe_count(key)?;
        self.required(key, "a whole number above zero", count)
    }

    /// The whole number under `key` without an origin of its own (it shares its table's); `default` if absent.
    pub(crate) fn plain_count(&self, key: &str, default: Option<u64>) -> Result<u64, ChipError> {
        let count =
            self.table.get(key).map(|value| self.count_of(key, value)).transpose()?.or(default);
        self.required(key, "a whole number above zero", count)
    }

    /// The pairs of numbers, zero or above, in the array under `key`.
    pub(crate) fn pairs(&self, key: &str) -> Result<Vec<(f64, f64)>, ChipError> {
        let number = |value: &Spanned<DeValue<'_>>| self.number_of(key, value, Bound::NotNegative);
        let pair =
            |item: &Spanned<DeValue<'a>>| match item.get_ref().as_array().map(|array| &array[..]) {
                Some([first, second]) => Ok((number(first)?, number(second)?)),
                _ => Err(self.wrong_type(key, "a pair of numbers", item)),
            };
        self.array(key)?.iter().map(pair).collect()
    }
}
