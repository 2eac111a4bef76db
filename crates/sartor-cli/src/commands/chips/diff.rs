//! `sartor chips diff A B`: where two chips differ.

use std::collections::{BTreeMap, BTreeSet};

use sartor::{Cell, Chip, Column, Confidence, Entry, Error, Table, Tone, format};
use serde::Serialize;
use serde_json::Value;

use super::figure;
use crate::output::Output;

/// The JSON of a comparison.
#[derive(Serialize)]
struct Comparison {
    a: String,
    b: String,
    differences: Vec<Difference>,
}

/// One key in which they differ.
#[derive(Serialize)]
struct Difference {
    /// As the files have it, with the names of items; an item that one of them lacks, as a whole.
    key: String,
    a: Side,
    b: Side,
    /// B's number over A's.
    ratio: Option<f64>,
}

/// What one of them says.
#[derive(Clone, Default, Serialize)]
struct Side {
    value: Option<Value>,
    /// What stands for an absent value.
    default: Option<&'static str>,
    confidence: Option<Confidence>,
}

const LAYERS: [&str; 5] = ["chip", "core", "system", "runtime", "energy"];

type Entries<'c> = BTreeMap<&'c str, &'c Entry>;

pub(super) fn run(first: &Chip, second: &Chip, output: &Output) -> Result<(), Error> {
    let found = Comparison {
        a: first.id.clone(),
        b: second.id.clone(),
        differences: differences(first, second),
    };
    output.result(&found, || text(&found, output))
}

fn differences(first: &Chip, second: &Chip) -> Vec<Difference> {
    let compared = |chip: &'_ Chip| -> Vec<Entry> {
        let all = chip.entries().filter(|it| it.key != "chip.id" && it.key != "chip.name");
        all.cloned().collect()
    };
    let lists = [compared(first), compared(second)];
    let [a, b] = lists
        .each_ref()
        .map(|it| it.iter().map(|it| (it.key.as_str(), it)).collect::<Entries<'_>>());
    let items = [items(&a), items(&b)];
    // The order of the schema, and in it what A has before what only B has.
    let order = |key: &str| LAYERS.iter().position(|it| key.starts_with(it));
    let only_in_b = lists[1].iter().filter(|it| !a.contains_key(it.key.as_str()));
    let mut keys: Vec<&str> = lists[0].iter().chain(only_in_b).map(|it| it.key.as_str()).collect();
    keys.sort_by_key(|key| order(key));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for key in keys {
        let lacking = items_of(key).find(|it| items.iter().any(|all| !all.contains(it)));
        let Some(item) = lacking else {
            found.extend(difference(key, [a.get(key), b.get(key)]));
            continue;
        };
        if seen.insert(item) {
            let [a, b] = items.each_ref().map(|all| Side {
                value: all.contains(item).then(|| Value::from("present")),
                ..Side::default()
            });
            found.push(Difference { key: item.to_owned(), a, b, ratio: None });
        }
    }
    found
}

fn difference(key: &str, sides: [Option<&&Entry>; 2]) -> Option<Difference> {
    let [a, b] = sides.map(|entry| {
        entry.map_or_else(Side::default, |it| Side {
            value: it.value.clone(),
            default: it.default,
            confidence: it.confidence,
        })
    });
    let [x, y] = [&a, &b].map(|it| it.value.as_ref().and_then(Value::as_f64));
    // 1 and 1.0 are written differently and mean the same.
    let same = a.value == b.value || x.is_some() && x.map(f64::to_bits) == y.map(f64::to_bits);
    if same {
        return None;
    }
    // Years have no ratio.
    let sized = x.zip(y).filter(|it| it.0 != 0.0 && key != "chip.year");
    let ratio = sized.map(|(x, y)| y / x);
    Some(Difference { key: key.to_owned(), a, b, ratio })
}

/// The items that a key lies in, the outermost first: of `a[x].b[y].c` these are `a[x]` and `a[x].b[y]`.
fn items_of(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices(']').map(|(at, _)| &key[..=at])
}

fn items<'c>(entries: &Entries<'c>) -> BTreeSet<&'c str> {
    entries.keys().flat_map(|it| items_of(it)).collect()
}

fn text(found: &Comparison, output: &Output) -> String {
    if found.differences.is_empty() {
        return format!("{} and {} differ in nothing but their names\n", found.a, found.b);
    }
    let mut table = Table::new([
        Column::text("key"),
        Column::prose(&found.a),
        Column::prose(&found.b),
        Column::number("B / A"),
    ]);
    let mut last = "";
    for it in &found.differences {
        let (at, key) = figure::place(&it.key);
        let whole = key.is_empty();
        if at != last && !whole {
            table.row([Cell::from(at).tone(Tone::Strong)]);
        }
        last = at;
        let ratio = it.ratio.map(format::ratio).unwrap_or_default();
        table.row([
            if whole { Cell::from(at).tone(Tone::Strong) } else { Cell::from(format!("  {key}")) },
            side(&it.key, &it.a),
            side(&it.key, &it.b),
            Cell::from(ratio),
        ]);
    }
    output.render(&table)
}

fn side(key: &str, side: &Side) -> Cell {
    let Some(value) = &side.value else {
        let default = side.default.map(|it| format!("absent: {it}"));
        return Cell::from(default.unwrap_or_else(|| format::NONE.to_owned())).tone(Tone::Faint);
    };
    let shown = figure::value(key, value);
    match side.confidence {
        Some(Confidence::Low) => Cell::from(format!("{shown} (low)")).tone(Tone::Caution),
        Some(trust) => Cell::from(format!("{shown} ({trust})")),
        None => Cell::from(shown),
    }
}
