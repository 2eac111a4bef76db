//! `sartor chips`: the library.

use std::path::Path;

use sartor::{Chip, Column, Error, Session, Table, library};
use serde::Serialize;

use crate::{
    args::{Chips, ChipsCommand},
    output::Output,
};

/// One line of the list.
#[derive(Serialize)]
struct Line {
    id: String,
    name: String,
    kind: String,
    /// The fastest arithmetic and its rate.
    arithmetic: String,
    macs_per_s: f64,
    grain: u64,
    toolchain: String,
}

pub(super) fn run(args: &Chips, session: &Session<'_>, output: &Output) -> Result<(), Error> {
    match (&args.check, &args.id) {
        (Some(ChipsCommand::Check { file }), _) => check(file, output),
        (None, Some(id)) => one(&session.chip(id)?, output),
        (None, None) => list(output),
    }
}

fn list(output: &Output) -> Result<(), Error> {
    let chips: Result<Vec<Chip>, _> = library().iter().map(sartor::LibraryEntry::chip).collect();
    let lines: Vec<Line> = chips?.iter().map(line).collect();
    output.result(&lines, || {
        let mut table = Table::new([
            Column::text("id"),
            Column::text("name"),
            Column::text("kind"),
            Column::number("best arithmetic"),
            Column::number("grain"),
            Column::text("toolchain"),
        ]);
        for it in &lines {
            let rate = sartor::format::si(2.0 * it.macs_per_s, "op/s");
            table.row([
                it.id.clone(),
                it.name.clone(),
                it.kind.clone(),
                format!("{rate} {}", it.arithmetic),
                it.grain.to_string(),
                it.toolchain.clone(),
            ]);
        }
        output.render(&table)
    })
}

fn line(chip: &Chip) -> Line {
    let mode = chip.best_mode();
    Line {
        id: chip.id.clone(),
        name: chip.name.clone(),
        kind: chip.class.to_string(),
        arithmetic: format!("{} × {}", mode.weights, mode.activations),
        macs_per_s: chip.peak(mode).0,
        grain: chip.grain(),
        toolchain: chip.runtime.toolchain.clone(),
    }
}

/// Every figure of a chip with its source, as the tree that the JSON form has.
fn one(chip: &Chip, output: &Output) -> Result<(), Error> {
    output.result(chip, || {
        let mut table =
            Table::new([Column::text("figure"), Column::number("value"), Column::prose("source")]);
        if let Ok(tree) = serde_json::to_value(chip) {
            rows(&mut table, "", &tree);
        }
        let mut text = output.render(&table);
        for (key, citation) in &chip.sources {
            text = format!("{text}[{key}] {citation}\n");
        }
        text
    })
}

/// A figure is an object with `value`, `provenance` and `confidence`; everything else is walked.
fn rows(table: &mut Table, path: &str, tree: &serde_json::Value) {
    use serde_json::Value;
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match tree {
        Value::Object(map) if map.contains_key("value") && map.contains_key("provenance") => {
            let source =
                format!("{} ({} confidence)", words(&map["provenance"]), words(&map["confidence"]));
            table.row([path.to_owned(), words(&map["value"]), source]);
        }
        Value::Object(map) => map
            .iter()
            .filter(|it| it.0 != "sources")
            .for_each(|(key, it)| rows(table, &below(key), it)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().enumerate().for_each(|(i, it)| rows(table, &format!("{path}[{i}]"), it));
        }
        Value::Null => {}
        other => {
            table.row([path.to_owned(), words(other), String::new()]);
        }
    }
}

fn words(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(it) => it.clone(),
        Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(map) => map
            .iter()
            .map(|(key, it)| format!("{key} {}", words(it)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

fn check(file: &Path, output: &Output) -> Result<(), Error> {
    let name = file.display();
    let chip = sartor::chip_file(file)?;
    output.result(&line(&chip), || format!("{name}: {} is a valid chip file\n", chip.id))
}
