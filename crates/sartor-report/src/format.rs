//! Numbers for people: three significant digits and a unit.
//!
//! Sizes and counts use the decimal prefixes of the SI (1 kB = 1000 bytes). What is not a number is
//! written as a dash.

const PREFIXES: [(&str, f64); 10] = [
    ("p", 1e-12),
    ("n", 1e-9),
    ("µ", 1e-6),
    ("m", 1e-3),
    ("", 1.0),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
];

/// What stands where no number is known.
pub const NONE: &str = "–";

/// Three significant digits and an SI prefix: `si(1.5e9, "MAC/s")` is `1.50 GMAC/s`.
pub fn si(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    let sign = if value < 0.0 { "−" } else { "" };
    if size == 0.0 {
        return format!("0 {unit}").trim_end().to_owned();
    }
    // The first prefix whose rounded mantissa stays below 1000.
    let fitting = PREFIXES.iter().find(|(_, scale)| size / scale < 999.5);
    match fitting {
        Some((prefix, scale)) if size / scale >= 0.0995 => {
            format!("{sign}{} {prefix}{unit}", digits(size / scale)).trim_end().to_owned()
        }
        _ => format!("{sign}{size:.2e} {unit}").trim_end().to_owned(),
    }
}

/// A time: `1.23 ms`; from two minutes in minutes, from two hours in hours.
pub fn seconds(value: f64) -> String {
    match value.abs() {
        size if size.is_finite() && size >= 7200.0 => format!("{} h", significant(value / 3600.0)),
        size if size.is_finite() && size >= 120.0 => format!("{} min", significant(value / 60.0)),
        _ => si(value, "s"),
    }
}

/// An energy: `41.0 µJ`.
pub fn joules(value: f64) -> String {
    si(value, "J")
}

/// A size: `332 kB`; below a thousand exact.
pub fn bytes(value: u64) -> String {
    if value < 1000 { format!("{value} B") } else { si(value as f64, "B") }
}

/// A number of things: `40.8 M`; below a thousand exact.
pub fn count(value: u64) -> String {
    if value < 1000 { value.to_string() } else { si(value as f64, "") }
}

/// A share that is already in percent: `91.64 %`.
pub fn percent(value: f64) -> String {
    if value.is_finite() { format!("{} %", signed(value, "")) } else { NONE.to_owned() }
}

/// A difference of two percentages, with its sign: `−0.12 points`.
pub fn points(value: f64) -> String {
    if value.is_finite() { format!("{} points", signed(value, "+")) } else { NONE.to_owned() }
}

/// A factor: `2.31×`.
pub fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{}×", significant(value)) } else { NONE.to_owned() }
}

/// Three significant digits without a prefix: `0.0123`, `1.23`, `12300`.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    let sign = if value < 0.0 { "−" } else { "" };
    if !value.is_finite() {
        NONE.to_owned()
    } else if size == 0.0 {
        "0".to_owned()
    } else if (1e-4..1e6).contains(&size) {
        format!("{sign}{}", digits(size))
    } else {
        format!("{sign}{size:.2e}")
    }
}

/// Three significant digits of a positive number between 1e-4 and 1e6.
fn digits(value: f64) -> String {
    // The exponent of the rounded number: 9.996 is written 10.0, not 10.00.
    let exponent: i32 = format!("{value:.2e}")
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or_default();
    if let Ok(decimals) = usize::try_from(2 - exponent) {
        return format!("{value:.decimals$}");
    }
    let scale = 10_f64.powi(exponent - 2);
    format!("{:.0}", (value / scale).round() * scale)
}

/// Two decimals with a typographic sign; what rounds to zero has none.
fn signed(value: f64, plus: &str) -> String {
    let text = format!("{:.2}", value.abs());
    let sign = match value {
        _ if text == "0.00" => "",
        value if value < 0.0 => "−",
        _ => plus,
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let cases = [
            (seconds(1.234e-3), "1.23 ms"),
            (seconds(0.999_6), "1.00 s"),
            (seconds(999.6e-6), "1.00 ms"),
            (seconds(9.996e-6), "10.0 µs"),
            (seconds(0.0), "0 s"),
            (seconds(1e-20), "1.00e-20 s"),
            (si(1.98e15, "op/s"), "1.98 Pop/s"),
            (seconds(90.0), "90.0 s"),
            (seconds(600.0), "10.0 min"),
            (seconds(7200.0), "2.00 h"),
            (seconds(f64::NAN), "–"),
            (seconds(f64::INFINITY), "–"),
            (seconds(-2.5e-3), "−2.50 ms"),
            (joules(41e-6), "41.0 µJ"),
            (bytes(999), "999 B"),
            (bytes(331_900), "332 kB"),
            (bytes(u64::MAX), "1.84e19 B"),
            (count(7), "7"),
            (count(40_812_544), "40.8 M"),
            (percent(91.64), "91.64 %"),
            (points(-0.12), "−0.12 points"),
            (points(0.5), "+0.50 points"),
            (points(-0.001), "0.00 points"),
            (ratio(2.314), "2.31×"),
            (significant(12_345.0), "12300"),
            (significant(0.012_345), "0.0123"),
            (significant(0.0), "0"),
            (si(1.5e9, "MAC/s"), "1.50 GMAC/s"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_number_is_written_at_length(value in any::<f64>(), whole in any::<u64>()) {
            for text in [si(value, "s"), ratio(value), significant(value), seconds(value), bytes(whole)] {
                prop_assert!(text.chars().count() <= 14, "{}", text);
            }
        }
    }
}
