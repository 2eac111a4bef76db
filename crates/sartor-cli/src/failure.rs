//! How an error is shown.

use std::{fmt, io::Write, ops::Range};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use sartor::{ChipError, DataError, Error};

/// An error with the line of the file that it speaks of.
#[derive(Debug)]
struct Shown {
    message: String,
    help: Option<String>,
    source: Option<NamedSource<String>>,
    span: Option<Range<usize>>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|it| it as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        self.source.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}

/// Writes an error to standard error: one sentence, the faulty line if there is one, and a hint.
pub(crate) fn show(error: &Error, width: u16, color: bool) {
    let shown = Shown::of(error);
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "error: {}", shown.message);
    if shown.source.is_some() {
        let _ = write!(stderr, "{}", snippet(&shown, width, color));
    }
    if let Some(help) = &shown.help {
        let _ = writeln!(stderr, "hint: {help}");
    }
}

/// The faulty line with its neighbours: miette's report from its frame on, without the message above it.
fn snippet(shown: &Shown, width: u16, color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(usize::from(width));
    let mut text = String::new();
    if handler.with_links(false).render_report(&mut text, shown).is_err() {
        return String::new();
    }
    let lines = text.lines().skip_while(|it| !it.contains('╭'));
    lines.flat_map(|it| [it.trim_end(), "\n"]).collect()
}

impl Shown {
    fn of(error: &Error) -> Self {
        let plain = Shown { message: error.to_string(), help: None, source: None, span: None };
        match error {
            Error::Chip(it) => Shown { help: it.help.clone(), ..Self::chip(plain, it) },
            Error::Data(DataError::Spec(it)) => Shown {
                message: it.to_string(),
                help: it.help.clone(),
                source: it
                    .span
                    .as_ref()
                    .map(|_| NamedSource::new(&it.source_name, it.source_text.clone())),
                span: it.span.clone(),
            },
            Error::Recipe { name, text, message, span } => Shown {
                message: format!("`{name}`: {message}"),
                source: span.as_ref().map(|_| NamedSource::new(name, text.clone())),
                span: span.clone(),
                ..plain
            },
            Error::Unsupported(_) => {
                Shown { help: Some("`sartor inspect` lists what can be run".to_owned()), ..plain }
            }
            _ => plain,
        }
    }

    /// A faulty chip file with its line: of the file itself or of one that it extends.
    fn chip(plain: Self, error: &ChipError) -> Self {
        let Some(place) = &error.place else { return plain };
        let source = NamedSource::new(&place.document.name, place.document.text.clone());
        Shown { span: Some(place.span.clone()), source: Some(source), ..plain }
    }
}
