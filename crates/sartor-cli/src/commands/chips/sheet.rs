//! `sartor chips ID`: everything that is known of one chip, and who says so.

use sartor::{Cell, Chip, Column, Confidence, Entry, Error, Table, Tone, format};
use serde::Serialize;
use serde_json::Value;

use super::figure;
use crate::output::Output;

/// The JSON of a chip: all its parts in SI units, and its keys as its file has them.
#[derive(Serialize)]
struct Sheet<'c> {
    kind: &'c str,
    #[serde(flatten)]
    chip: &'c Chip,
    keys: Vec<&'c Entry>,
}

/// Longer texts stand beside the values, where they may take several lines.
const LONGEST_VALUE: usize = 24;

pub(super) fn run(chip: &Chip, output: &Output) -> Result<(), Error> {
    let sheet = Sheet { kind: chip.class.as_str(), chip, keys: chip.entries().collect() };
    output.result(&sheet, || {
        let mut text = heading(chip);
        text.push_str(&output.render(&modes(chip)));
        for layer in ["core", "system", "runtime", "energy"] {
            text.extend(["\n", layer, "\n", &output.render(&keys(chip, layer))]);
        }
        text.push_str("\nsources\n");
        for (key, citation) in &chip.sources {
            text.extend(["[", key, "] ", citation, "\n"]);
        }
        text + &doubts(chip)
    })
}

fn heading(chip: &Chip) -> String {
    let year = chip.year.as_ref().map(|it| format!(", {}", it.value)).unwrap_or_default();
    let mut text = format!("{}: {}\n{}, {}{year}\n", chip.id, chip.name, chip.class, chip.vendor);
    for note in &chip.notes {
        text.extend(["- ", note, "\n"]);
    }
    text + "\n"
}

/// What is multiplied how fast.
fn modes(chip: &Chip) -> Table {
    let mut table = Table::new([
        Column::text("engine"),
        Column::text("multiplies"),
        Column::number("peak"),
        Column::number("reached"),
        Column::number("sums"),
        Column::number("grain"),
    ]);
    for engine in &chip.core.engines {
        for mode in &engine.modes {
            let macs = mode.macs_per_cycle.value * chip.clock_of(engine).value.0;
            let rate = |share: f64| format::si(2.0 * macs * share, "op/s");
            table.row([
                format!("{}{}", engine.name, if engine.host { " (host)" } else { "" }),
                format!("{} × {}", mode.weights, mode.activations),
                rate(1.0),
                rate(mode.efficiency.value),
                format!("{} bits, {}", mode.accumulator.bits.value, mode.accumulator.overflow),
                mode.grain.value.to_string(),
            ]);
        }
    }
    table
}

/// The keys of a layer, table by table: first what is stated, then what stands for absent keys.
fn keys(chip: &Chip, layer: &str) -> Table {
    let mut table = Table::new([
        Column::text("key"),
        Column::number("value"),
        Column::text("trust"),
        Column::prose("origin"),
    ]);
    let own = chip.entries().next().and_then(|it| it.file.clone());
    let of_layer = |it: &&Entry| it.key.split(['.', '[']).next() == Some(layer);
    let mut last = layer;
    let mut defaults: Vec<(String, &str)> = Vec::new();
    for entry in chip.entries().filter(of_layer) {
        let (at, key) = figure::place(&entry.key);
        let Some(value) = &entry.value else {
            let line = (kind(&entry.key), entry.default.unwrap_or_default());
            if !defaults.contains(&line) {
                defaults.push(line);
            }
            continue;
        };
        if at.contains('[') && is_named(at, value) {
            continue;
        }
        if at != last {
            let title = at.strip_prefix(layer).unwrap_or(at).trim_start_matches('.');
            table.row([Cell::from(title).tone(Tone::Strong)]);
            last = at;
        }
        table.row(stated(key, &figure::value(&entry.key, value), entry, own.as_deref()));
    }
    for (key, default) in defaults {
        let faint = |text: &str| Cell::from(text).tone(Tone::Faint);
        let key = key.strip_prefix(layer).unwrap_or(&key).trim_start_matches('.').to_owned();
        table.row([faint(&key), faint("absent"), faint(""), faint(&format!("so: {default}"))]);
    }
    table
}

/// Whether the name of the item says the value already, as `mode[i8 i8]` says its types.
fn is_named(item: &str, value: &Value) -> bool {
    let name = item.rsplit_once('[').map_or("", |it| it.1).trim_end_matches(']');
    match value {
        Value::String(text) => name == text || name.split(' ').any(|it| it == text),
        Value::Array(list) => {
            let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            !words.is_empty() && name.ends_with(&words.join(" "))
        }
        _ => false,
    }
}

fn stated(key: &str, value: &str, entry: &Entry, own: Option<&str>) -> [Cell; 4] {
    let mut origin = entry.provenance.as_ref().map(figure::origin).unwrap_or_default();
    let long = value.chars().count() > LONGEST_VALUE;
    if long {
        origin = format!("{value} {origin}");
    }
    let base = entry.file.as_deref().filter(|it| Some(*it) != own && entry.provenance.is_some());
    if let Some(base) = base {
        origin = format!("{origin} (from {base})");
    }
    let tone = match entry.confidence {
        Some(Confidence::Low) => Tone::Caution,
        _ => Tone::Plain,
    };
    [
        Cell::from(format!("  {key}")),
        Cell::from(if long { "" } else { value }).tone(tone),
        Cell::from(figure::confidence(entry.confidence)).tone(tone),
        Cell::from(origin.trim()),
    ]
}

/// A key without the names of items, for what holds of all of them.
fn kind(key: &str) -> String {
    let mut pieces = key.split('[');
    let first = pieces.next().unwrap_or_default().to_owned();
    let after = pieces.map(|it| it.split_once(']').map_or(it, |it| it.1));
    after.fold(first, |kind, piece| kind + piece)
}

fn doubts(chip: &Chip) -> String {
    let trusts: Vec<Confidence> = chip.entries().filter_map(|it| it.confidence).collect();
    let low = trusts.iter().filter(|it| **it == Confidence::Low).count();
    format!(
        "\n{low} of {} figures are of low confidence: recalled, conflicting or assumed\n",
        trusts.len()
    )
}
