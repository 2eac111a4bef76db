//! The record of a run and its views.
//!
//! A [`Record`] says what a run changed, why, what it refused, and what came of it. [`to_json`],
//! [`to_terminal`] and [`to_html`] are pure functions of it: the same record gives the same bytes,
//! on every machine and on every day.
//!
//! This crate knows no graph, no chip, no file and no clock. Whoever makes a run fills in the plain
//! data of [`record`]; the views label every figure as counted, measured or estimated.
//!
//! ```
//! use sartor_report::{Cell, Column, Table, Terminal, Tone};
//!
//! let mut table = Table::new([Column::text("node"), Column::number("latency (estimate)")]);
//! table.row([Cell::from("conv1"), Cell::from(sartor_report::format::seconds(1.234e-3))]);
//! table.row([Cell::from("total"), Cell::from("1.23 ms").tone(Tone::Strong)]);
//! let text = table.render(Terminal { width: 80, color: false });
//! assert!(text.contains("1.23 ms"));
//! ```

pub mod analysis;
pub mod format;
pub mod record;

mod comparison;
mod error;
mod html;
mod json;
mod pairs;
#[cfg(test)]
mod sample;
mod table;
mod terminal;

pub use analysis::Analysis;
pub use error::ReportError;
pub use html::{analysis_to_html, to_html};
pub use json::{from_json, to_json};
pub use record::Record;
pub use table::{Cell, Column, Table, Terminal, Tone};
pub use terminal::{analysis_to_terminal, to_terminal};
