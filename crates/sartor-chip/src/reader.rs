//! Reading a chip's tree table by table, with messages that name the key and its place.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::entry::{Entry, without_names};
use crate::error::{ChipError, Fault, Place};
use crate::figure::{Figure, Provenance};
use crate::suggest::nearest;
use crate::tree::{Item, Origin, Table, Value, name_of, naming};
use crate::words::Word;

/// What reading leaves behind.
#[derive(Default)]
pub(crate) struct Traces {
    /// Where each key's value stands.
    pub(crate) places: RefCell<BTreeMap<String, Place>>,
    /// (file, key) of the sources that figures name.
    pub(crate) used_sources: RefCell<BTreeSet<(String, String)>>,
    /// Every key of the tables that were opened, with its place in the schema.
    pub(crate) entries: RefCell<Vec<(Vec<usize>, Entry)>>,
}

/// Points of a curve.
pub(crate) type Pairs = Vec<(f64, f64)>;

/// What numbers are allowed.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    Positive,
    NotNegative,
    /// Any finite number, as coefficients are.
    Any,
}

impl Bound {
    fn expected(self) -> &'static str {
        match self {
            Self::Positive => "a finite number above zero",
            Self::NotNegative => "a finite number, zero or above",
            Self::Any => "a finite number",
        }
    }

    fn admits(self, number: f64) -> bool {
        number.is_finite()
            && match self {
                Self::Positive => number > 0.0,
                Self::NotNegative => number >= 0.0,
                Self::Any => true,
            }
    }
}

fn join(path: &str, key: &str) -> String {
    match (path.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (false, true) => path.to_owned(),
        (false, false) => format!("{path}.{key}"),
    }
}

/// One table of the tree.
pub(crate) struct Section<'a> {
    traces: &'a Traces,
    path: String,
    /// The path with the names of items instead of their indices.
    named: String,
    /// The places in the schema of the tables that lead here.
    rank: Vec<usize>,
    keys: Vec<&'static str>,
    place: Place,
    table: &'a Table,
    origin: Option<&'a Origin>,
}

impl<'a> Section<'a> {
    /// The whole tree, refusing unknown keys.
    pub(crate) fn root(
        traces: &'a Traces,
        table: &'a Table,
        place: Place,
        keys: &[&'static str],
    ) -> Result<Self, ChipError> {
        let (path, named) = (String::new(), String::new());
        let (rank, keys) = (Vec::new(), keys.to_vec());
        Self { traces, path, named, rank, keys, place, table, origin: None }.opened()
    }

    /// Checks the keys and notes where their values stand.
    fn opened(self) -> Result<Self, ChipError> {
        for (name, item) in self.table {
            if !self.keys.contains(&name.as_str()) {
                let help = match nearest(name, self.keys.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known here: {}", self.keys.join(", ")),
                };
                let path = self.key_path(name);
                return Err(ChipError::at(item.key.clone(), path, Fault::UnknownKey, Some(help)));
            }
            self.note(self.key_path(name), item);
        }
        let entries = self.keys.iter().enumerate().filter_map(|(index, key)| {
            let rank = [&self.rank[..], &[index]].concat();
            Some((rank, Entry::new(join(&self.named, key), self.table.get(*key))?))
        });
        self.traces.entries.borrow_mut().extend(entries);
        Ok(self)
    }

    fn note(&self, path: String, item: &Item) {
        self.traces.places.borrow_mut().insert(path, item.place.clone());
    }

    fn key_path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// A fault at `key`, or at this table where the key is absent.
    pub(crate) fn fault(&self, key: &str, fault: Fault, help: Option<String>) -> ChipError {
        let place = self.table.get(key).map_or_else(|| self.place.clone(), |it| it.place.clone());
        ChipError::at(place, self.key_path(key), fault, help)
    }

    fn wrong_type(&self, key: &str, expected: &'static str, found: &Item) -> ChipError {
        let fault = Fault::WrongType { expected, found: found.value.type_name().to_owned() };
        ChipError::at(found.place.clone(), self.key_path(key), fault, None)
    }

    fn required<T>(
        &self,
        key: &str,
        expected: &'static str,
        value: Option<T>,
    ) -> Result<T, ChipError> {
        value.ok_or_else(|| self.fault(key, Fault::MissingKey(expected), None))
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn figure_from<T>(
        &self,
        key: &str,
        origin: Option<&Origin>,
        value: T,
    ) -> Result<Figure<T>, ChipError> {
        let Some(origin) = origin else {
            let help = "write `{ v = …, src = \"key\" }` (or measured, derived, assumed), or give the table or file a `src`";
            return Err(self.fault(key, Fault::NoSource, Some(help.to_owned())));
        };
        if let Provenance::Datasheet(source) = &origin.provenance {
            let used = (origin.document.name.clone(), source.clone());
            self.traces.used_sources.borrow_mut().insert(used);
        }
        let (provenance, confidence) = (origin.provenance.clone(), origin.confidence);
        Ok(Figure { value, provenance, confidence })
    }

    /// A figure made from this whole table.
    pub(crate) fn figure<T>(&self, value: T) -> Result<Figure<T>, ChipError> {
        self.figure_from("", self.origin, value)
    }

    /// A table below this one.
    pub(crate) fn maybe_section(
        &self,
        key: &str,
        keys: &[&'static str],
    ) -> Result<Option<Section<'a>>, ChipError> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        self.child(key, None, item, keys).map(Some)
    }

    pub(crate) fn section(
        &self,
        key: &str,
        keys: &[&'static str],
    ) -> Result<Section<'a>, ChipError> {
        let section = self.maybe_section(key, keys)?;
        self.required(key, "a table", section)
    }

    /// An array of tables; empty where it is absent.
    pub(crate) fn sections(
        &self,
        key: &str,
        keys: &[&'static str],
    ) -> Result<Vec<Section<'a>>, ChipError> {
        let items = self.array(key, "an array of tables")?.iter().enumerate();
        items.map(|(index, item)| self.child(key, Some(index), item, keys)).collect()
    }

    /// The table `item` under `key`, or the one at `index` of an array.
    fn child(
        &self,
        key: &str,
        index: Option<usize>,
        item: &'a Item,
        keys: &[&'static str],
    ) -> Result<Section<'a>, ChipError> {
        let Some(table) = item.value.table() else {
            return Err(self.wrong_type(key, "a table", item));
        };
        let (mut path, mut named) = (self.key_path(key), join(&self.named, key));
        let at = self.keys.iter().position(|known| *known == key).unwrap_or_default();
        let mut rank = [&self.rank[..], &[at]].concat();
        if let Some(index) = index {
            let name = naming(&without_names(&named)).and_then(|keys| name_of(item, keys));
            named = format!("{named}[{}]", name.map_or(index.to_string(), |it| it.join(" ")));
            path = format!("{path}[{index}]");
            rank.push(index);
            self.note(path.clone(), item);
        }
        let (place, origin) = (item.place.clone(), item.origin.as_ref());
        let keys = keys.to_vec();
        Section { traces: self.traces, path, named, rank, keys, place, table, origin }.opened()
    }

    fn array(&self, key: &str, expected: &'static str) -> Result<&'a [Item], ChipError> {
        let Some(item) = self.table.get(key) else { return Ok(&[]) };
        item.value.list().ok_or_else(|| self.wrong_type(key, expected, item))
    }

    pub(crate) fn maybe_text(&self, key: &str) -> Result<Option<String>, ChipError> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        match item.value.text() {
            Some(text) if !text.trim().is_empty() => Ok(Some(text.to_owned())),
            Some(_) => {
                let fault = Fault::OutOfRange { expected: "a text", found: "nothing".into() };
                Err(self.fault(key, fault, None))
            }
            None => Err(self.wrong_type(key, "a string", item)),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<String, ChipError> {
        let text = self.maybe_text(key)?;
        self.required(key, "a string", text)
    }

    /// A list of texts; empty where it is absent.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, ChipError> {
        let text = |item: &Item| match item.value.text() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong_type(key, "a string", item)),
        };
        self.array(key, "an array")?.iter().map(text).collect()
    }

    /// A list of texts; `None` where it is absent.
    pub(crate) fn maybe_texts(&self, key: &str) -> Result<Option<Vec<String>>, ChipError> {
        self.has(key).then(|| self.texts(key)).transpose()
    }

    /// A list of lists of texts; empty where it is absent.
    pub(crate) fn chains(&self, key: &str) -> Result<Vec<Vec<String>>, ChipError> {
        let text = |item: &Item| match item.value.text() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong_type(key, "a string", item)),
        };
        let chain = |item: &Item| match item.value.list() {
            Some(list) => list.iter().map(text).collect(),
            None => Err(self.wrong_type(key, "a list of strings", item)),
        };
        self.array(key, "an array")?.iter().map(chain).collect()
    }

    fn word_of<T: Word>(&self, key: &str, item: &Item) -> Result<T, ChipError> {
        let Some(found) = item.value.text() else {
            return Err(self.wrong_type(key, "a string", item));
        };
        if let Some(&(_, word)) = T::ALL.iter().find(|(word, _)| *word == found) {
            return Ok(word);
        }
        let words: Vec<&str> = T::ALL.iter().map(|&(word, _)| word).collect();
        let help =
            nearest(found, words.iter().copied()).map(|word| format!("did you mean `{word}`?"));
        let fault = Fault::UnknownWord { found: found.to_owned(), expected: words.join(", ") };
        Err(ChipError::at(item.place.clone(), self.key_path(key), fault, help))
    }

    pub(crate) fn maybe_word<T: Word>(&self, key: &str) -> Result<Option<T>, ChipError> {
        self.table.get(key).map(|item| self.word_of(key, item)).transpose()
    }

    pub(crate) fn word<T: Word>(&self, key: &str) -> Result<T, ChipError> {
        let word = self.maybe_word(key)?;
        self.required(key, "a string", word)
    }

    pub(crate) fn words<T: Word>(&self, key: &str) -> Result<Vec<T>, ChipError> {
        self.array(key, "an array")?.iter().map(|item| self.word_of(key, item)).collect()
    }

    /// A flag; false where it is absent.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, ChipError> {
        match self.table.get(key) {
            None => Ok(false),
            Some(Item { value: Value::Flag(flag), .. }) => Ok(*flag),
            Some(item) => Err(self.wrong_type(key, "true or false", item)),
        }
    }

    fn number_of(&self, key: &str, item: &Item, bound: Bound) -> Result<f64, ChipError> {
        let Value::Number { written, real, .. } = &item.value else {
            return Err(self.wrong_type(key, "a number", item));
        };
        real.filter(|&number| bound.admits(number)).ok_or_else(|| {
            let fault = Fault::OutOfRange { expected: bound.expected(), found: written.clone() };
            ChipError::at(item.place.clone(), self.key_path(key), fault, None)
        })
    }

    fn count_of(&self, key: &str, item: &Item) -> Result<u64, ChipError> {
        let Value::Number { written, whole, real } = &item.value else {
            return Err(self.wrong_type(key, "a whole number", item));
        };
        if whole.is_none() && real.is_some_and(f64::is_finite) {
            return Err(self.wrong_type(key, "a whole number", item));
        }
        let count = whole.and_then(|whole| u64::try_from(whole).ok()).filter(|&count| count > 0);
        count.ok_or_else(|| {
            let expected = "a whole number above zero";
            let fault = Fault::OutOfRange { expected, found: written.clone() };
            ChipError::at(item.place.clone(), self.key_path(key), fault, None)
        })
    }

    fn leaf<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Item) -> Result<T, ChipError>,
    ) -> Result<Option<Figure<T>>, ChipError> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        if item.value.table().is_some() {
            let path = format!("{}.v", self.key_path(key));
            let missing = Fault::MissingKey("the number");
            return Err(ChipError::at(item.place.clone(), path, missing, None));
        }
        self.figure_from(key, item.origin.as_ref(), read(item)?).map(Some)
    }

    pub(crate) fn maybe_number(
        &self,
        key: &str,
        bound: Bound,
    ) -> Result<Option<Figure<f64>>, ChipError> {
        self.leaf(key, |item| self.number_of(key, item, bound))
    }

    pub(crate) fn number(&self, key: &str, bound: Bound) -> Result<Figure<f64>, ChipError> {
        let number = self.maybe_number(key, bound)?;
        self.required(key, "a number", number)
    }

    pub(crate) fn maybe_count(&self, key: &str) -> Result<Option<Figure<u64>>, ChipError> {
        self.leaf(key, |item| self.count_of(key, item))
    }

    pub(crate) fn count(&self, key: &str) -> Result<Figure<u64>, ChipError> {
        let count = self.maybe_count(key)?;
        self.required(key, "a whole number above zero", count)
    }

    /// A count that is part of a figure made from the whole table.
    pub(crate) fn plain_count(&self, key: &str, default: Option<u64>) -> Result<u64, ChipError> {
        let count = self.table.get(key).map(|item| self.count_of(key, item)).transpose()?;
        self.required(key, "a whole number above zero", count.or(default))
    }

    /// A list of counts; empty where it is absent.
    pub(crate) fn counts(&self, key: &str) -> Result<Vec<u64>, ChipError> {
        self.array(key, "an array")?.iter().map(|item| self.count_of(key, item)).collect()
    }

    /// A list of numbers with one origin; `None` where it is absent.
    pub(crate) fn maybe_numbers(
        &self,
        key: &str,
        bound: Bound,
    ) -> Result<Option<Figure<Vec<f64>>>, ChipError> {
        self.leaf(key, |item| {
            let list = item.value.list().ok_or_else(|| self.wrong_type(key, "an array", item))?;
            list.iter().map(|it| self.number_of(key, it, bound)).collect()
        })
    }

    /// A list of pairs of numbers, zero or above, with one origin; `None` where it is absent.
    pub(crate) fn maybe_pairs(&self, key: &str) -> Result<Option<Figure<Pairs>>, ChipError> {
        let number = |item: &Item| self.number_of(key, item, Bound::NotNegative);
        let pair = |item: &Item| match item.value.list() {
            Some([first, second]) => Ok((number(first)?, number(second)?)),
            _ => Err(self.wrong_type(key, "a pair of numbers", item)),
        };
        self.leaf(key, |item| {
            let list = item.value.list().ok_or_else(|| self.wrong_type(key, "an array", item))?;
            list.iter().map(pair).collect()
        })
    }
}
