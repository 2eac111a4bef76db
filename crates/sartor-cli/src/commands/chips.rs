//! `sartor chips`: the library.

mod diff;
mod figure;
mod sheet;

use std::path::{Path, PathBuf};

use sartor::{Chip, Column, Error, Session, Table, library};
use serde::Serialize;

use crate::{
    args::{ChipFilter, Chips, ChipsCommand},
    exit_code, failure,
    output::Output,
};

/// One line of the list.
#[derive(Serialize)]
struct Line {
    id: String,
    name: String,
    kind: String,
    vendor: String,
    year: Option<u64>,
    /// The fastest arithmetic and its rate.
    arithmetic: String,
    macs_per_s: f64,
    grain: u64,
    /// Pairs of types that it multiplies, weights first.
    types: Vec<String>,
    /// Patterns that make it faster, as `2:4`.
    sparsity: Vec<String>,
    toolchain: String,
    /// Figures of low confidence.
    low_confidence: usize,
}

pub(super) fn run(args: &Chips, session: &Session<'_>, output: &Output) -> Result<u8, Error> {
    match (&args.command, &args.id) {
        (Some(ChipsCommand::Check { files }), _) => return check(files, output),
        (Some(ChipsCommand::Diff { first, second }), _) => {
            diff::run(&session.chip(first)?, &session.chip(second)?, output)
        }
        (None, Some(id)) => sheet::run(&session.chip(id)?, output),
        (None, None) => list(&args.filter, output),
    }?;
    Ok(exit_code::DONE)
}

fn list(filter: &ChipFilter, output: &Output) -> Result<(), Error> {
    let chips: Result<Vec<Chip>, _> = library().iter().map(sartor::LibraryEntry::chip).collect();
    let lines: Vec<Line> = chips?.iter().filter(|it| fits(it, filter)).map(line).collect();
    if lines.is_empty() {
        output.say(&format!("none of the {} chips fits", library().len()));
    }
    output.result(&lines, || {
        let mut table = Table::new([
            Column::text("id"),
            Column::text("name"),
            Column::text("kind"),
            Column::number("best arithmetic"),
            Column::text("n:m"),
            Column::number("grain"),
        ]);
        for it in &lines {
            let rate = sartor::format::si(2.0 * it.macs_per_s, "op/s");
            table.row([
                it.id.clone(),
                it.name.clone(),
                it.kind.clone(),
                format!("{rate} {}", it.arithmetic),
                it.sparsity.join(" "),
                it.grain.to_string(),
            ]);
        }
        if lines.is_empty() { String::new() } else { output.render(&table) }
    })
}

fn fits(chip: &Chip, filter: &ChipFilter) -> bool {
    let lower = |text: &str| text.to_lowercase();
    let class = filter.class.as_deref().is_none_or(|it| chip.class.as_str() == it);
    let vendor = filter.vendor.as_deref().is_none_or(|it| lower(&chip.vendor).contains(&lower(it)));
    let number = filter.number.is_none_or(|wanted| {
        chip.modes().any(|it| it.weights == wanted || it.activations == wanted)
    });
    let sparsity = !filter.sparsity || !chip.core.sparsity.is_empty();
    let quirks = chip.runtime.quirks.iter().flat_map(|it| [&it.id, &it.text]);
    let names = [&chip.id, &chip.name, &chip.vendor, &chip.runtime.toolchain];
    let all: Vec<String> =
        names.into_iter().chain(&chip.notes).chain(quirks).map(|it| lower(it)).collect();
    let words = filter.search.as_deref().unwrap_or_default();
    let found = lower(words).split_whitespace().all(|word| all.iter().any(|it| it.contains(word)));
    class && vendor && number && sparsity && found
}

fn line(chip: &Chip) -> Line {
    let mode = chip.best_mode();
    Line {
        id: chip.id.clone(),
        name: chip.name.clone(),
        kind: chip.class.to_string(),
        vendor: chip.vendor.clone(),
        year: chip.year.as_ref().map(|it| it.value),
        arithmetic: format!("{} × {}", mode.weights, mode.activations),
        macs_per_s: chip.peak(mode).0,
        grain: chip.grain(),
        types: chip.modes().map(|it| format!("{} × {}", it.weights, it.activations)).collect(),
        sparsity: chip.core.sparsity.iter().map(|it| format!("{}:{}", it.n, it.m)).collect(),
        toolchain: chip.runtime.toolchain.clone(),
        low_confidence: chip.low_confidence().len(),
    }
}

/// What was found in one file.
#[derive(Serialize)]
struct Checked {
    file: String,
    ok: bool,
    /// The chip of a sound file.
    chip: Option<Line>,
    faults: Vec<Fault>,
}

/// A fault of a chip file.
#[derive(Serialize)]
struct Fault {
    message: String,
    /// The file in which it lies: the one asked for, or one that it extends.
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    key: Option<String>,
    hint: Option<String>,
}

/// Checks every file, shows each fault with its line, and fails if one is faulty.
fn check(files: &[PathBuf], output: &Output) -> Result<u8, Error> {
    let mut code = exit_code::DONE;
    let mut checked = Vec::new();
    for file in files {
        let found = sartor::check_chip_file(file);
        for error in found.as_ref().err().into_iter().flatten() {
            failure::show(error, output.terminal().width, output.terminal().color);
            code = exit_code::of(error.kind());
        }
        checked.push(outcome(file, found.as_ref()));
    }
    output.result(&checked, || {
        let sound = checked.iter().filter_map(|it| Some((&it.file, it.chip.as_ref()?)));
        sound.flat_map(|(file, chip)| [file, ": ", &chip.id, " is a valid chip file\n"]).collect()
    })?;
    Ok(code)
}

fn outcome(file: &Path, found: Result<&Chip, &Vec<Error>>) -> Checked {
    Checked {
        file: file.display().to_string(),
        ok: found.is_ok(),
        chip: found.ok().map(line),
        faults: found.err().into_iter().flatten().map(fault).collect(),
    }
}

fn fault(error: &Error) -> Fault {
    let chip = if let Error::Chip(it) = error { Some(it) } else { None };
    let place = chip.and_then(|it| it.place.as_ref());
    let at = place.map(sartor::Place::line_and_column);
    Fault {
        message: chip.map_or_else(|| error.to_string(), |it| it.fault.to_string()),
        file: place.map(|it| it.document.name.clone()),
        line: at.map(|it| it.0),
        column: at.map(|it| it.1),
        key: chip.and_then(|it| it.key.clone()),
        hint: chip.and_then(|it| it.help.clone()),
    }
}
