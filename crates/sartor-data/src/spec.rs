//! The data spec: a TOML file that says where samples are and what is done to them.

mod check;
mod file;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{DataError, InputSpec, Result, SpecError, dataset::DataSet};

pub(crate) use file::{Format, RawSplit};

/// A data spec that has been read and checked; the files that it names have not been opened yet.
#[derive(Clone, Debug)]
pub struct DataSpec {
    source: Source,
    /// The folder that paths are relative to.
    base: PathBuf,
    inputs: Vec<(Option<String>, InputSpec)>,
    splits: Vec<(String, RawSplit)>,
}

/// A spec's text, for errors that point into it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    name: String,
    text: String,
}

impl Source {
    pub(crate) fn error(
        &self,
        message: impl Into<String>,
        help: Option<String>,
        span: Option<Range<usize>>,
    ) -> DataError {
        DataError::Spec(Box::new(SpecError {
            message: message.into(),
            help,
            span,
            source_name: self.name.clone(),
            source_text: self.text.clone(),
        }))
    }
}

impl DataSpec {
    /// Reads and checks a spec; paths in it are relative to its folder.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| DataError::read(path, error))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&path.display().to_string(), &text, base)
    }

    /// Checks the text of a spec. `name` is what errors call it, `base` the folder that paths are relative to.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Self> {
        let source = Source { name: name.to_owned(), text: text.to_owned() };
        let raw = file::parse(&source)?;
        let (inputs, splits) = check::check(&source, raw)?;
        Ok(Self { source, base: base.to_owned(), inputs, splits })
    }

    /// The names of the splits, in the order of the file.
    pub fn splits(&self) -> impl Iterator<Item = &str> {
        self.splits.iter().map(|(name, _)| name.as_str())
    }

    /// The inputs described: one without a name, or each with its own.
    pub fn inputs(&self) -> &[(Option<String>, InputSpec)] {
        &self.inputs
    }

    /// The text that the spec was read from.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// Opens the files of a split, chooses its samples and reads the first.
    pub fn open(&self, split: &str) -> Result<DataSet> {
        let Some((_, found)) = self.splits.iter().find(|(name, _)| name == split) else {
            let names = self.splits().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
            let help = format!("it has {names}; add `[splits.{split}]`");
            return Err(self.source.error(
                format!("there is no split `{split}`"),
                Some(help),
                None,
            ));
        };
        crate::dataset::open(&self.source, &self.base, &self.inputs, found)
    }
}
