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
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|it| Box::new(it) as _)
    }

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
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_width(usize::from(width)).with_links(false);
    let mut text = String::new();
    let rendered = shown.source.is_some() && handler.render_report(&mut text, &shown).is_ok();
    let mut stderr = std::io::stderr().lock();
    if rendered {
        let _ = writeln!(stderr, "error: {text}");
        return;
    }
    let _ = writeln!(stderr, "error: {}", shown.message);
    if let Some(help) = &shown.help {
        let _ = writeln!(stderr, "hint: {help}");
    }
}

impl Shown {
    fn of(error: &Error) -> Self {
        let plain = Shown { message: error.to_string(), help: None, source: None, span: None };
        match error {
            Error::Chip(it) => Shown { help: it.help.clone(), ..Self::chip(plain, it) },
            Error::Data(DataError::Spec(it)) => Shown {
                message: it.message.clone(),
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

    /// A faulty chip file is read again to show its line; a library chip has none.
    fn chip(plain: Self, error: &ChipError) -> Self {
        let text = error
            .span
            .as_ref()
            .and_then(|_| sartor::read_text(std::path::Path::new(&error.chip)).ok());
        let source = text.map(|it| NamedSource::new(&error.chip, it));
        Shown { span: error.span.clone().filter(|_| source.is_some()), source, ..plain }
    }
}
