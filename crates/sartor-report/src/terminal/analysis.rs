//! An analysis in a terminal: the whole first, then where the time goes, then what could be done.

use crate::analysis::Analysis;
use crate::format;
use crate::table::{Cell, Column, Table, Terminal, Tone};

/// How many fields of the sensitivity are worth a line.
const FIELDS: usize = 8;

/// Shows analyses of one network as lines of text: one in detail, several side by side.
pub fn analysis_to_terminal(analyses: &[Analysis], terminal: Terminal) -> String {
    let mut parts = vec![summary(analyses).render(terminal)];
    if let [one] = analyses {
        parts.extend(details(one, terminal));
    } else {
        parts.push(ranking(analyses).render(terminal));
    }
    parts.join("\n")
}

fn heading(text: &str) -> Cell {
    Cell::from(text).tone(Tone::Strong)
}

/// A row's title and what each analysis says to it.
type Row<'a> = (&'a str, Box<dyn Fn(&Analysis) -> String>);

/// The figures of the whole network, one column a chip.
pub(crate) fn rows() -> Vec<Row<'static>> {
    fn row(title: &'static str, value: impl Fn(&Analysis) -> String + 'static) -> Row<'static> {
        (title, Box::new(value))
    }
    vec![
        row("latency (estimate)", latency),
        row("bound by", |it| it.bound.clone()),
        row("energy (estimate)", energy),
        row("MACs", |it| format::count(it.macs)),
        row("MAC slots", |it| format::count(it.mac_slots)),
        row("array used", |it| format::percent(100.0 * it.utilisation)),
        row("weights", |it| placed(it, "weights", it.weight_bytes)),
        row("peak activations", |it| placed(it, "activations", it.peak_memory_bytes)),
        row("arithmetic", |it| it.precision.clone()),
    ]
}

/// The latency, or that it is more.
pub(crate) fn latency(it: &Analysis) -> String {
    let at_least = if it.latency_at_least { "≥ " } else { "" };
    format!("{at_least}{}", format::seconds(it.latency_s))
}

fn energy(it: &Analysis) -> String {
    match (it.energy_j, it.energy_at_most_j) {
        (Some(joules), _) => format::joules(joules),
        (None, Some(joules)) => format!("at most {}", format::joules(joules)),
        (None, None) => "not known".to_owned(),
    }
}

/// `332 kB in sram (2.10 MB)`, or that it does not fit.
fn placed(it: &Analysis, what: &str, bytes: u64) -> String {
    let bytes = format::bytes(bytes);
    let Some(place) = it.placements.iter().find(|place| place.what == what) else { return bytes };
    let capacity = place.capacity_bytes.map(|it| format!(" ({})", format::bytes(it)));
    let capacity = capacity.unwrap_or_default();
    if place.fits {
        format!("{bytes} in {}{capacity}", place.memory)
    } else {
        format!("{bytes}: does not fit {}{capacity}", place.memory)
    }
}

/// As many chips stand side by side; more stand below each other.
const COLUMNS: usize = 3;

fn summary(analyses: &[Analysis]) -> Table {
    if analyses.len() > COLUMNS {
        return below_each_other(analyses);
    }
    let columns = std::iter::once(Column::text(""))
        .chain(analyses.iter().map(|it| Column::prose(&it.chip_name)));
    let mut table = Table::new(columns);
    for (title, value) in rows() {
        table.row(std::iter::once(title.to_owned()).chain(analyses.iter().map(&value)));
    }
    table
}

fn below_each_other(analyses: &[Analysis]) -> Table {
    let mut table = Table::new([
        Column::text("chip"),
        Column::number("latency"),
        Column::text("bound by"),
        Column::number("energy"),
        Column::number("array used"),
        Column::number("weights"),
        Column::number("activations"),
        Column::text("arithmetic"),
    ]);
    let fitting = |bytes: u64, fits: bool| {
        format!("{}{}", format::bytes(bytes), if fits { "" } else { " too large" })
    };
    for it in analyses {
        table.row([
            it.chip.clone(),
            latency(it),
            it.bound.clone(),
            energy(it),
            format::percent(100.0 * it.utilisation),
            fitting(it.weight_bytes, it.weights_fit),
            fitting(it.peak_memory_bytes, it.activations_fit),
            it.precision.clone(),
        ]);
    }
    table
}

/// The chips by latency, fastest first, with the best opportunity of each.
fn ranking(analyses: &[Analysis]) -> Table {
    let mut order: Vec<&Analysis> = analyses.iter().collect();
    order.sort_by(|a, b| a.latency_s.total_cmp(&b.latency_s));
    let mut table = Table::new([
        Column::text("fastest first"),
        Column::number("latency"),
        Column::prose("best opportunity"),
    ]);
    for it in order {
        let best = it.opportunities.first();
        let best = best.map(|best| {
            let gain = format::percent(100.0 * best.gain_s / it.latency_s);
            format!("{}: {} (−{gain})", best.where_, best.what)
        });
        table.row([it.chip.clone(), latency(it), best.unwrap_or_else(|| format::NONE.to_owned())]);
    }
    table
}

fn details(it: &Analysis, terminal: Terminal) -> Vec<String> {
    let mut parts = vec![nodes(it).render(terminal), shares(it).render(terminal)];
    parts.extend(opportunities(it).map(|table| table.render(terminal)));
    parts.extend(sensitivity(it).map(|table| table.render(terminal)));
    for (title, list) in [
        ("runs elsewhere", &it.fallbacks),
        ("rests on figures of low confidence", &it.low_confidence),
    ] {
        if !list.is_empty() {
            let mut table = Table::new([Column::prose("")]);
            table.row([heading(title)]);
            for line in list {
                table.row([Cell::from(line.as_str()).tone(Tone::Caution)]);
            }
            parts.push(table.render(terminal));
        }
    }
    parts
}

fn nodes(it: &Analysis) -> Table {
    let mut table = Table::new([
        Column::text("node"),
        Column::text("operator"),
        Column::number("MACs"),
        Column::number("slots"),
        Column::number("bytes moved"),
        Column::number("latency"),
        Column::number("array used"),
        Column::text("bound by"),
        Column::number("margin"),
    ]);
    for node in it.nodes.iter().filter(|node| node.latency_s > 0.0) {
        table.row([
            node.name.clone(),
            node.op.clone(),
            format::count(node.macs),
            format::count(node.mac_slots),
            format::bytes(node.bytes),
            format::seconds(node.latency_s),
            format::percent(100.0 * node.utilisation),
            node.bound.clone(),
            node.margin.map_or_else(|| format::NONE.to_owned(), format::ratio),
        ]);
    }
    table
}

fn shares(it: &Analysis) -> Table {
    let mut table =
        Table::new([Column::text("waits for"), Column::number("latency"), Column::number("share")]);
    for share in it.shares.iter().filter(|share| share.latency_s > 0.0) {
        let percent = 100.0 * share.latency_s / it.latency_s;
        table.row([
            share.resource.clone(),
            format::seconds(share.latency_s),
            format::percent(percent),
        ]);
    }
    table
}

fn opportunities(it: &Analysis) -> Option<Table> {
    let mut table =
        Table::new([Column::number("gain"), Column::prose("opportunity"), Column::prose("why")]);
    for best in &it.opportunities {
        table.row([
            format!("−{}", format::percent(100.0 * best.gain_s / it.latency_s)),
            format!("{}: {}", best.where_, best.what),
            best.why.clone(),
        ]);
    }
    (!it.opportunities.is_empty()).then_some(table)
}

fn sensitivity(it: &Analysis) -> Option<Table> {
    let mut table = Table::new([
        Column::text("which figure of the chip binds"),
        Column::number("if it were"),
        Column::number("latency"),
    ]);
    let moving = it.sensitivity.iter().filter(|field| field.latency_change_percent != 0.0);
    let mut any = false;
    for field in moving.take(FIELDS) {
        any = true;
        table.row([
            field.field.clone(),
            signed(field.change_percent),
            signed(field.latency_change_percent),
        ]);
    }
    any.then_some(table)
}

/// `+10 %`, `−4.2 %`.
pub(crate) fn signed(percent: f64) -> String {
    let sign = if percent < 0.0 { '−' } else { '+' };
    format!("{sign}{}", format::percent(percent.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample_analysis;

    #[test]
    fn one_chip_is_shown_in_detail_and_several_side_by_side() {
        let one = sample_analysis();
        let slow = Analysis {
            chip: "slow".to_owned(),
            chip_name: "A slow chip".to_owned(),
            latency_s: 2.0 * one.latency_s,
            ..one.clone()
        };
        let terminal = Terminal { width: 110, color: false };
        insta::assert_snapshot!(analysis_to_terminal(std::slice::from_ref(&one), terminal));
        insta::assert_snapshot!(analysis_to_terminal(&[slow.clone(), one.clone()], terminal));
        let lower = Analysis { latency_at_least: true, ..one.clone() };
        insta::assert_snapshot!(analysis_to_terminal(&[slow, one.clone(), lower, one], terminal));
    }
}
