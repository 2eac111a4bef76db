//! Figures of chips as people read them.

use sartor::{Confidence, Provenance, format};
use serde_json::Value;

/// Ends of keys, what their unit is in the SI, and its name. The first that fits counts.
const UNITS: &[(&str, f64, &str)] = &[
    ("programming_us", 1.0, "µS"),
    ("g_max_us", 1.0, "µS"),
    ("_bytes_per_s", 1.0, "B/s"),
    ("_pj_per_byte", 1e-12, "J/B"),
    ("_bytes", 1.0, "B"),
    ("_bits", 1.0, "bits"),
    ("_hz", 1.0, "Hz"),
    ("_us", 1e-6, "s"),
    ("_ns", 1e-9, "s"),
    ("_pj", 1e-12, "J"),
    (".pj", 1e-12, "J"),
    ("_s", 1.0, "s"),
    ("_w", 1.0, "W"),
    ("_cycles", 1.0, "cycles"),
];

/// The value of a key, with its unit and an SI prefix where that is shorter.
pub(super) fn value(key: &str, value: &Value) -> String {
    match value {
        Value::Number(number) => quantity(key, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Array(list) => list.iter().map(|it| item(key, it)).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn item(key: &str, value: &Value) -> String {
    match value {
        Value::Array(pair) => {
            pair.iter().map(|it| self::value("", it)).collect::<Vec<_>>().join(": ")
        }
        other => self::value(key, other),
    }
}

fn quantity(key: &str, number: f64) -> String {
    let unit = UNITS.iter().find(|it| key.ends_with(it.0));
    let &(_, scale, name) = unit.unwrap_or(&("", 1.0, ""));
    let plain = scale >= 1.0 && (number.abs() < 1000.0 || name.is_empty() || name == "cycles");
    if plain {
        format!("{number} {name}").trim_end().to_owned()
    } else {
        format::si(number * scale, name)
    }
}

/// A key as the table that it lies in and the rest: of `a.b[x].c.d` these are `a.b[x]` and `c.d`.
pub(super) fn place(key: &str) -> (&str, &str) {
    let end = key.rfind(']').map(|at| at + 1).or_else(|| key.find('.')).unwrap_or(key.len());
    let (table, rest) = key.split_at(end);
    (table, rest.strip_prefix('.').unwrap_or(rest))
}

/// Who says so, in short: documents by their key in the list of sources.
pub(super) fn origin(provenance: &Provenance) -> String {
    match provenance {
        Provenance::Datasheet(source) => format!("[{source}]"),
        other => other.to_string(),
    }
}

/// How far it is to be trusted.
pub(super) fn confidence(confidence: Option<Confidence>) -> &'static str {
    confidence.map_or("", Confidence::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_in_tables() {
        for (key, table, rest) in [
            ("core.engine[npu].mode[i8 i8].unroll.k", "core.engine[npu].mode[i8 i8]", "unroll.k"),
            ("system.core_hz", "system", "core_hz"),
            ("core.arithmetic.bias_bits", "core", "arithmetic.bias_bits"),
            ("runtime.quirk[slow]", "runtime.quirk[slow]", ""),
            ("energy", "energy", ""),
        ] {
            assert_eq!(place(key), (table, rest));
        }
    }

    #[test]
    fn values_bear_their_units() {
        for (key, number, shown) in [
            ("system.core_hz", "400e6", "400 MHz"),
            ("system.memory[sram].capacity_bytes", "2097152", "2.10 MB"),
            ("system.memory[ddr].read_bytes_per_s", "204.8e9", "205 GB/s"),
            ("runtime.launch_us", "4.0", "4.00 µs"),
            ("core.engine[a].crossbar.read_ns", "130.25", "130 ns"),
            ("core.engine[a].crossbar.noise.g_max_us", "20.7", "20.7 µS"),
            ("core.engine[a].crossbar.noise.t0_s", "300", "300 s"),
            ("energy.memory[hbm].read_pj_per_byte", "31", "31.0 pJ/B"),
            ("energy.mac[i8 i8].pj", "0.3", "0.300 pJ"),
            ("energy.limit_w", "270", "270 W"),
            ("core.engine[npu].mode[i8 i8].macs_per_cycle", "221184", "221184"),
            ("core.drain_cycles", "1856", "1856 cycles"),
            ("core.arithmetic.bias_bits", "32", "32 bits"),
            ("core.overlaps", "true", "yes"),
            ("core.weight_store.bytes_per_weight", "[[0.0, 1.0], [0.5, 0.62]]", "0: 1, 0.5: 0.62"),
        ] {
            let parsed: Value = serde_json::from_str(number).unwrap();
            assert_eq!(value(key, &parsed), shown, "{key}");
        }
    }
}
