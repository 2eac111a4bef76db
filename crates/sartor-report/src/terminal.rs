//! The record in a terminal: the verdict first, then the figures, then the reasons.

pub(crate) mod analysis;

pub use analysis::analysis_to_terminal;

use crate::comparison::{limits, rows, speed};
use crate::format::points;
use crate::record::{Fidelity, Record, Refused, StepRecord};
use crate::table::{Cell, Column, Table, Terminal, Tone};

/// Shows a record as lines of text, each with a newline at its end.
pub fn to_terminal(record: &Record, terminal: Terminal) -> String {
    let lists = [
        ("done", steps(&record.steps)),
        ("refused", refused(&record.refused)),
        ("warnings", list(Tone::Caution, &record.warnings)),
        ("assumed about the chip", list(Tone::Caution, &record.chip.low_confidence)),
        ("deploy", list(Tone::Plain, &record.deploy)),
    ];
    let mut parts = vec![head(record).render(terminal), figures(record).render(terminal)];
    for (heading, list) in lists {
        if let Some(list) = list {
            let mut line = Table::new([Column::prose("")]);
            line.row([toned(heading, Tone::Strong)]);
            parts.push(line.render(terminal) + &list.render(terminal));
        }
    }
    parts.join("\n")
}

fn head(record: &Record) -> Table {
    let (mark, words, tone) = if record.verdict.met {
        ("✓", "limits met", Tone::Good)
    } else {
        ("✗", "limits not met", Tone::Bad)
    };
    let mut table = Table::new([Column::number(""), Column::prose("")]);
    table.row([mark, &format!("{words}: {}", record.verdict.reason)].map(|it| toned(it, tone)));
    table.row(["", &format!("{} for {}", record.model.file, record.chip.name)]);
    let asked: Vec<_> =
        limits(&record.limits).iter().map(|(name, value)| format!("{name} {value}")).collect();
    if !asked.is_empty() {
        table.row([String::new(), asked.join(", ")].map(|it| toned(&it, Tone::Faint)));
    }
    if let Some(data) = &record.data {
        table.row(["", data].map(|it| toned(it, Tone::Faint)));
    }
    table
}

/// The rows under the name of their source, so that no estimate passes for a measurement.
fn figures(record: &Record) -> Table {
    let mut table = Table::new([
        Column::text(""),
        Column::number("before"),
        Column::number("after"),
        Column::text("change"),
    ]);
    let mut source = None;
    for row in rows(record) {
        if source != Some(row.source) {
            source = Some(row.source);
            table.row([toned(row.source.label(), Tone::Faint)]);
        }
        table.row([
            Cell::from(format!("· {}", row.measure)),
            Cell::from(row.before),
            Cell::from(row.after).tone(Tone::Strong),
            Cell::from(row.change).tone(row.tone),
        ]);
    }
    table
}

fn steps(steps: &[StepRecord]) -> Option<Table> {
    let mut table = Table::new([Column::number(""), Column::prose("")]);
    for (i, step) in steps.iter().enumerate() {
        table.row([Cell::from((i + 1).to_string()), title(&step.what, &step.where_)]);
        table.row(["", &step.why]);
        table.row([Cell::from(""), toned(&effect(step), Tone::Faint)]);
    }
    (!steps.is_empty()).then_some(table)
}

fn refused(refused: &[Refused]) -> Option<Table> {
    let mut table = Table::new([Column::number(""), Column::prose("")]);
    for it in refused {
        table.row([Cell::from("✗"), title(&it.what, &it.where_)]);
        table.row(["", &it.why]);
    }
    (!refused.is_empty()).then_some(table)
}

fn list(tone: Tone, lines: &[String]) -> Option<Table> {
    let mut table = Table::new([Column::number(""), Column::prose("")]);
    for line in lines {
        table.row([toned("·", tone), Cell::from(line.as_str())]);
    }
    (!lines.is_empty()).then_some(table)
}

fn title(what: &str, place: &str) -> Cell {
    let text = if place.is_empty() { what.to_owned() } else { format!("{what}: {place}") };
    Cell::from(text).tone(Tone::Strong)
}

fn toned(text: &str, tone: Tone) -> Cell {
    Cell::from(text).tone(tone)
}

/// What a step brought, each figure with its source.
pub(crate) fn effect(step: &StepRecord) -> String {
    let gain = step.predicted_gain.map(|gain| format!("estimate: {}", speed(gain, 1.0).0));
    let change = step.measured_points.map(|it| format!("measured: top-1 {}", points(it)));
    let fidelity = match step.fidelity {
        Fidelity::Exact => "exact",
        Fidelity::Rounding => "exact up to rounding",
        Fidelity::Lossy => "lossy",
    };
    let parts = [gain, change, Some(fidelity.to_owned())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    #[test]
    fn a_run_that_met_its_limits() {
        let text = to_terminal(&sample(), Terminal { width: 80, color: false });
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_run_that_did_not_on_a_narrow_terminal() {
        let mut record = sample();
        record.verdict.met = false;
        record.verdict.reason = "latency is 48.5 ms by estimate, 40 ms allowed; flash binds".into();
        record.steps.truncate(1);
        record.warnings.clear();
        record.deploy.clear();
        record.data = None;
        let text = to_terminal(&record, Terminal { width: 60, color: false });
        insta::assert_snapshot!(text);
    }

    #[test]
    fn reasons_are_never_cut() {
        let record = sample();
        for width in [30, 40, 80, 200] {
            let text = to_terminal(&record, Terminal { width, color: false });
            let words: Vec<_> = text.split_whitespace().collect();
            for why in record.steps.iter().map(|it| &it.why) {
                let why: Vec<_> = why.split_whitespace().collect();
                assert!(words.windows(why.len()).any(|it| it == why), "{width}: {why:?}\n{text}");
            }
        }
    }
}
