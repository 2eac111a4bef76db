//! Numbers on the command line, each with its range.

use sartor::Every;

/// A share to keep.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text, |it| it > 0.0 && it <= 1.0, "a number above 0 and at most 1")
}

/// A percentage, or a difference of two.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    number(text, |it| (0.0..=100.0).contains(&it), "a number from 0 to 100")
}

/// The share of the elements that a range must hold, in percent.
pub(crate) fn percentile(text: &str) -> Result<f64, String> {
    number(text, |it| it > 50.0 && it <= 100.0, "a number above 50 and at most 100")
}

/// A quantity of something.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    number(text, |it| it > 0.0 && it.is_finite(), "a number above 0")
}

/// A share that leaves something on both sides.
pub(crate) fn inner_share(text: &str) -> Result<f64, String> {
    number(text, |it| it > 0.0 && it < 1.0, "a number above 0 and below 1")
}

/// A share that may be nothing or all.
pub(crate) fn from_0_to_1(text: &str) -> Result<f64, String> {
    number(text, |it| (0.0..=1.0).contains(&it), "a number from 0 to 1")
}

/// The factor of a mean that forgets.
pub(crate) fn below_one(text: &str) -> Result<f64, String> {
    number(text, |it| (0.0..1.0).contains(&it), "a number from 0 to below 1")
}

/// A quantity that may be nothing.
pub(crate) fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |it| it >= 0.0 && it.is_finite(), "a number that is not below 0")
}

/// Minutes, as `10m`, or epochs, as `1e`.
pub(crate) fn every(text: &str) -> Result<Every, String> {
    let minutes = text.strip_suffix('m').and_then(|it| it.parse::<f64>().ok());
    let epochs = text.strip_suffix('e').and_then(|it| it.parse::<u32>().ok());
    match (minutes.filter(|it| *it > 0.0 && it.is_finite()), epochs.filter(|it| *it > 0)) {
        (Some(minutes), _) => Ok(Every::Seconds(60.0 * minutes)),
        (_, Some(epochs)) => Ok(Every::Epochs(epochs)),
        _ => Err("expected minutes, as `10m`, or epochs, as `1e`".to_owned()),
    }
}

fn number(text: &str, fits: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    text.parse().ok().filter(|it| fits(*it)).ok_or_else(|| format!("expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_they_should() {
        type Reader = fn(&str) -> Result<f64, String>;
        let cases: [(Reader, &[&str], &[&str]); 8] = [
            (share, &["1", "0.001"], &["0", "1.001", "-1", "NaN", "half", ""]),
            (percent, &["0", "100"], &["-0.1", "100.1", "NaN", "inf"]),
            (percentile, &["99.99", "100"], &["50", "101", "NaN"]),
            (positive, &["1e-9", "1e9"], &["0", "-1", "inf", "NaN"]),
            (inner_share, &["0.1"], &["0", "1", "NaN"]),
            (from_0_to_1, &["0", "1"], &["-0.1", "1.1", "NaN"]),
            (below_one, &["0", "0.999"], &["-0.1", "1", "NaN"]),
            (not_negative, &["0", "1e-7"], &["-1e-9", "inf", "NaN"]),
        ];
        for (read, good, bad) in cases {
            let wrong = |it: &&&str| read(it).is_err();
            assert_eq!(good.iter().find(wrong), None);
            assert_eq!(bad.iter().find(|it| !wrong(it)), None);
        }
    }

    #[test]
    fn distances_in_minutes_or_epochs() {
        assert_eq!(every("1.5m"), Ok(Every::Seconds(90.0)));
        assert_eq!(every("3e"), Ok(Every::Epochs(3)));
        for wrong in ["", "m", "10", "0m", "0e", "-1m", "NaNm", "1.5e", "5s"] {
            assert!(every(wrong).is_err(), "{wrong}");
        }
    }
}
