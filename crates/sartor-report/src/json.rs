//! The record as JSON: keys in the order of the types, numbers that survive the round trip.

use serde::Deserialize;

use crate::error::ReportError;
use crate::record::{Ceiling, Figures, Limits, NodeEstimate, Record, SCHEMA};

/// Writes a record as indented JSON with a newline at the end.
///
/// # Errors
/// [`ReportError::NotFinite`] for a figure that JSON cannot hold, [`ReportError::Schema`] for a
/// record whose schema is not [`SCHEMA`].
pub fn to_json(record: &Record) -> Result<String, ReportError> {
    check_schema(record.schema)?;
    for (key, value) in numbers(record) {
        if !value.is_finite() {
            return Err(ReportError::NotFinite { key, value });
        }
    }
    let mut text = serde_json::to_string_pretty(record)?;
    text.push('\n');
    Ok(text)
}

/// Reads what [`to_json`] wrote.
///
/// # Errors
/// [`ReportError::Json`] for anything that is not a record, [`ReportError::Schema`] for a record of
/// another layout.
pub fn from_json(text: &str) -> Result<Record, ReportError> {
    /// Read first, so that another layout is named as such and not as a missing key.
    #[derive(Deserialize)]
    struct Head {
        schema: u64,
    }
    check_schema(serde_json::from_str::<Head>(text)?.schema)?;
    Ok(serde_json::from_str(text)?)
}

fn check_schema(found: u64) -> Result<(), ReportError> {
    if found == SCHEMA { Ok(()) } else { Err(ReportError::Schema { found, expected: SCHEMA }) }
}

/// Every floating point figure with its key.
fn numbers(record: &Record) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    figures("before", &record.before, &mut all);
    figures("after", &record.after, &mut all);
    limits(&record.limits, &mut all);
    for (i, ceiling) in record.chip.ceilings.iter().enumerate() {
        let (key, value) = match ceiling {
            Ceiling::Compute { macs_per_s, .. } => ("macs_per_s", macs_per_s),
            Ceiling::Memory { bytes_per_s, .. } => ("bytes_per_s", bytes_per_s),
        };
        all.push((format!("chip.ceilings[{i}].{key}"), *value));
    }
    for (i, step) in record.steps.iter().enumerate() {
        optional(&format!("steps[{i}].predicted_gain"), step.predicted_gain, &mut all);
        optional(&format!("steps[{i}].measured_points"), step.measured_points, &mut all);
    }
    nodes("nodes_before", &record.nodes_before, &mut all);
    nodes("nodes_after", &record.nodes_after, &mut all);
    all
}

fn figures(key: &str, figures: &Figures, all: &mut Vec<(String, f64)>) {
    all.push((format!("{key}.latency_s"), figures.latency_s));
    optional(&format!("{key}.top1"), figures.top1, all);
    optional(&format!("{key}.top1_low"), figures.top1_low, all);
    optional(&format!("{key}.top1_high"), figures.top1_high, all);
    optional(&format!("{key}.top5"), figures.top5, all);
    optional(&format!("{key}.agreement"), figures.agreement, all);
    optional(&format!("{key}.energy_j"), figures.energy_j, all);
}

fn limits(limits: &Limits, all: &mut Vec<(String, f64)>) {
    optional("limits.max_drop_points", limits.max_drop_points, all);
    optional("limits.min_accuracy_percent", limits.min_accuracy_percent, all);
    optional("limits.max_latency_s", limits.max_latency_s, all);
    optional("limits.max_energy_j", limits.max_energy_j, all);
    optional("limits.time_s", limits.time_s, all);
}

fn nodes(key: &str, nodes: &[NodeEstimate], all: &mut Vec<(String, f64)>) {
    for (i, node) in nodes.iter().enumerate() {
        all.push((format!("{key}[{i}].latency_s"), node.latency_s));
    }
}

fn optional(key: &str, value: Option<f64>, all: &mut Vec<(String, f64)>) {
    if let Some(value) = value {
        all.push((key.to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, proptest};

    use super::*;
    use crate::sample::sample;

    /// The record of schema 1 as it was first written: it must stay readable.
    const SCHEMA_1: &str = include_str!("../tests/schema-1.json");

    #[test]
    fn the_record_of_schema_1_is_read_and_written_again() {
        assert_eq!(from_json(SCHEMA_1).unwrap(), sample());
        assert_eq!(to_json(&sample()).unwrap(), SCHEMA_1);
    }

    #[test]
    fn the_contract_of_the_command_is_kept() {
        let value: serde_json::Value = serde_json::from_str(SCHEMA_1).unwrap();
        for figures in ["before", "after"] {
            for key in [
                "top1",
                "top1_low",
                "top1_high",
                "latency_s",
                "energy_j",
                "bytes",
                "macs",
                "mac_slots",
            ] {
                assert!(value[figures][key].is_number(), "{figures}.{key}");
            }
        }
        assert!(value["steps"][0]["where"].is_string());
        assert!(value["refused"][0]["why"].is_string());
        for key in ["chip", "recipe", "seed", "version"] {
            assert!(!value[key].is_null(), "{key}");
        }
    }

    #[test]
    fn what_cannot_be_written_or_read_is_refused() {
        let mut record = sample();
        record.nodes_after[1].latency_s = f64::NAN;
        let error = to_json(&record).unwrap_err().to_string();
        assert!(error.starts_with("`nodes_after[1].latency_s` is NaN"), "{error}");

        let mut record = sample();
        record.after.energy_j = Some(f64::INFINITY);
        assert!(matches!(to_json(&record), Err(ReportError::NotFinite { .. })));

        let newer = SCHEMA_1.replacen("\"schema\": 1", "\"schema\": 2", 1);
        assert!(matches!(from_json(&newer), Err(ReportError::Schema { found: 2, .. })));
        for text in ["", "{", "[]", "{\"schema\": 1}", "null"] {
            assert!(matches!(from_json(text), Err(ReportError::Json(_))), "{text}");
        }
    }

    fn finite() -> impl Strategy<Value = f64> {
        any::<f64>().prop_filter("finite", |value| value.is_finite())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_finite_record_survives_the_round_trip(
            numbers in proptest::array::uniform8(finite()),
            counts in proptest::array::uniform4(any::<u64>()),
            text in any::<String>(),
            met in any::<bool>(),
        ) {
            let mut record = sample();
            record.before.latency_s = numbers[0];
            record.before.top1 = Some(numbers[1]);
            record.after.energy_j = met.then_some(numbers[2]);
            record.limits.max_drop_points = Some(numbers[3]);
            record.steps[0].predicted_gain = Some(numbers[4]);
            record.steps[0].measured_points = met.then_some(numbers[5]);
            record.nodes_after[0].latency_s = numbers[6];
            record.chip.ceilings[0] = Ceiling::Memory { name: text.clone(), bytes_per_s: numbers[7] };
            record.seed = counts[0];
            record.after.bytes = counts[1];
            record.after.samples = Some(counts[2]);
            record.nodes_after[0].macs = counts[3];
            record.verdict.met = met;
            record.recipe = text.clone();
            record.model.file = text;
            prop_assert_eq!(from_json(&to_json(&record).unwrap()).unwrap(), record);
        }
    }
}
