//! What is compared before and after: the rows that every view shows.

use crate::format::{NONE, bytes, count, joules, percent, points, ratio, seconds};
use crate::record::{Figures, Limits, Record};
use crate::table::Tone;

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A run over data.
    Measured,
    /// The network itself.
    Counted,
    /// A model of the chip.
    Estimated,
}

impl Source {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Counted => "counted",
            Self::Estimated => "estimate",
        }
    }
}

/// One measure, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) measure: &'static str,
    pub(crate) source: Source,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) change: String,
    pub(crate) tone: Tone,
}

/// All rows of a record: what was measured, then what was estimated, then what was counted.
pub(crate) fn rows(record: &Record) -> Vec<Row> {
    let (before, after) = (&record.before, &record.after);
    let mut rows = accuracy(before, after);
    rows.extend(estimates(before, after));
    rows.extend([
        shrunk("size", bytes, before.bytes, after.bytes),
        shrunk("parameters", count, before.parameters, after.parameters),
        shrunk("MACs", count, before.macs, after.macs),
        shrunk("MAC slots", count, before.mac_slots, after.mac_slots),
    ]);
    rows
}

fn accuracy(before: &Figures, after: &Figures) -> Vec<Row> {
    let measured = |measure, before: Option<String>, after: Option<String>| {
        (before.is_some() || after.is_some()).then(|| Row {
            measure,
            source: Source::Measured,
            before: before.unwrap_or_else(|| NONE.to_owned()),
            after: after.unwrap_or_else(|| NONE.to_owned()),
            change: String::new(),
            tone: Tone::Plain,
        })
    };
    let share = |measure, from: Option<f64>, to: Option<f64>| {
        let row = measured(measure, from.map(percent), to.map(percent))?;
        Some(match from.zip(to) {
            Some((from, to)) => Row { change: points(to - from), ..row },
            None => row,
        })
    };
    let whole = |samples: u64| samples.to_string();
    let top1 = share("top-1", before.top1, after.top1)
        .map(|row| Row { tone: accuracy_tone(before, after), ..row });
    [
        top1,
        measured("95 % interval", interval(before), interval(after)),
        share("top-5", before.top5, after.top5),
        measured("agreement", before.agreement.map(percent), after.agreement.map(percent)),
        measured("samples", before.samples.map(whole), after.samples.map(whole)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn estimates(before: &Figures, after: &Figures) -> Vec<Row> {
    let estimated = |measure, before: String, after: String| Row {
        measure,
        source: Source::Estimated,
        before,
        after,
        change: String::new(),
        tone: Tone::Plain,
    };
    let (change, tone) = speed(before.latency_s, after.latency_s);
    let latency = estimated("latency", seconds(before.latency_s), seconds(after.latency_s));
    let mut rows = vec![Row { change, tone, ..latency }];
    if before.energy_j.is_some() || after.energy_j.is_some() {
        let side = |energy: Option<f64>| energy.map_or_else(|| NONE.to_owned(), joules);
        let row = estimated("energy", side(before.energy_j), side(after.energy_j));
        rows.push(match before.energy_j.zip(after.energy_j) {
            Some((from, to)) => {
                let (change, tone) = size(from, to);
                Row { change, tone, ..row }
            }
            None => row,
        });
    }
    rows.push(Row {
        source: Source::Estimated,
        ..shrunk("peak memory", bytes, before.peak_memory_bytes, after.peak_memory_bytes)
    });
    rows.push(estimated("bound by", before.bound.clone(), after.bound.clone()));
    rows
}

fn interval(figures: &Figures) -> Option<String> {
    let (low, high) = figures.top1_low.zip(figures.top1_high)?;
    Some(format!("{}–{}", percent(low).trim_end_matches(" %"), percent(high)))
}

/// A fall within the interval of the first measurement is no news.
fn accuracy_tone(before: &Figures, after: &Figures) -> Tone {
    match (before.top1, after.top1) {
        (Some(from), Some(to)) if from < to => Tone::Good,
        (Some(from), Some(to)) if to < before.top1_low.unwrap_or(from) => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// The change of a time: `2.31× faster`.
pub(crate) fn speed(before: f64, after: f64) -> (String, Tone) {
    change(before, after, "faster", "slower")
}

/// The change of a size: `3.90× smaller`.
pub(crate) fn size(before: f64, after: f64) -> (String, Tone) {
    change(before, after, "smaller", "larger")
}

fn change(before: f64, after: f64, better: &str, worse: &str) -> (String, Tone) {
    // A quarter of a percent is below what three digits show.
    if !(before > 0.0 && after > 0.0) {
        (NONE.to_owned(), Tone::Plain)
    } else if (before / after - 1.0).abs() < 0.0025 {
        ("same".to_owned(), Tone::Plain)
    } else if after < before {
        (format!("{} {better}", ratio(before / after)), Tone::Good)
    } else {
        (format!("{} {worse}", ratio(after / before)), Tone::Bad)
    }
}

fn shrunk(measure: &'static str, show: fn(u64) -> String, before: u64, after: u64) -> Row {
    let (change, tone) = size(before as f64, after as f64);
    Row { measure, source: Source::Counted, before: show(before), after: show(after), change, tone }
}

/// The limits that were asked for, in words; empty where there were none.
pub(crate) fn limits(limits: &Limits) -> Vec<(&'static str, String)> {
    let all = [
        ("accuracy may fall by", limits.max_drop_points.map(|v| points(v).replace('+', ""))),
        ("top-1 at least", limits.min_accuracy_percent.map(percent)),
        ("latency at most", limits.max_latency_s.map(seconds)),
        ("energy at most", limits.max_energy_j.map(joules)),
        ("size at most", limits.max_size_bytes.map(bytes)),
        ("RAM at most", limits.max_ram_bytes.map(bytes)),
        ("flash at most", limits.max_flash_bytes.map(bytes)),
        ("time for the run", limits.time_s.map(seconds)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    #[test]
    fn changes_say_their_direction() {
        let cases = [
            (speed(2.0, 1.0), "2.00× faster", Tone::Good),
            (speed(1.0, 1.5), "1.50× slower", Tone::Bad),
            (speed(1.0, 1.001), "same", Tone::Plain),
            (size(0.0, 1.0), "–", Tone::Plain),
            (size(f64::NAN, 1.0), "–", Tone::Plain),
            (size(10.0, 4.0), "2.50× smaller", Tone::Good),
        ];
        for ((found, tone), expected, expected_tone) in cases {
            assert_eq!((found.as_str(), tone), (expected, expected_tone));
        }
    }

    #[test]
    fn a_fall_beyond_the_interval_is_marked() {
        let before = sample().before;
        for (top1, tone) in [(91.9, Tone::Good), (91.2, Tone::Plain), (90.9, Tone::Bad)] {
            let after = Figures { top1: Some(top1), ..sample().after };
            assert_eq!(accuracy_tone(&before, &after), tone, "{top1}");
        }
    }

    #[test]
    fn what_was_not_measured_has_no_row() {
        let mut record = sample();
        for figures in [&mut record.before, &mut record.after] {
            *figures = Figures {
                top1: None,
                top1_low: None,
                top5: None,
                agreement: None,
                samples: None,
                energy_j: None,
                ..figures.clone()
            };
        }
        let rows = rows(&record);
        assert!(rows.iter().all(|row| row.source != Source::Measured));
        assert!(rows.iter().all(|row| row.measure != "energy"));
        assert_eq!(rows.len(), 7);
    }
}
