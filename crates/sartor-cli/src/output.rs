//! Results to standard output, talk to standard error.

use std::io::{self, IsTerminal, Write};

use sartor::{Error, Table, Terminal};
use serde::Serialize;

use crate::args::{Color, Format, Global};

/// Where and how a command prints.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    terminal: Terminal,
}

/// Columns where standard output is no terminal.
const PLAIN_WIDTH: u16 = 110;

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && no_color_is_unset(),
        };
        let width = terminal_size::terminal_size_of(io::stdout()).map_or(PLAIN_WIDTH, |it| it.0.0);
        Output { format: global.format, quiet: global.quiet, terminal: Terminal { width, color } }
    }

    pub(crate) fn terminal(&self) -> Terminal {
        self.terminal
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints text, or `value` as JSON if that is the format.
    pub(crate) fn result(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        if self.is_json() {
            let json =
                serde_json::to_string_pretty(value).map_err(|it| Error::Bug(it.to_string()))?;
            return self.print(&format!("{json}\n"));
        }
        self.print(&text())
    }

    /// Prints to standard output; a reader who went away is no error.
    #[expect(
        clippy::unused_self,
        reason = "printing goes through the output so that no command prints by itself"
    )]
    pub(crate) fn print(&self, text: &str) -> Result<(), Error> {
        let written = io::stdout().lock().write_all(text.as_bytes());
        match written {
            Err(it) if it.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::Write { path: "standard output".into(), source: it })
            }
            _ => Ok(()),
        }
    }

    /// Says something to the person, on standard error.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    pub(crate) fn render(&self, table: &Table) -> String {
        table.render(self.terminal)
    }
}

#[expect(clippy::disallowed_methods, reason = "the command line is where the environment is read")]
fn no_color_is_unset() -> bool {
    std::env::var("NO_COLOR").map_or(true, |it| it.is_empty())
}
