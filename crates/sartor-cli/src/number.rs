//! Numbers on the command line, each with its range.

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

/// A difference that is borne.
pub(crate) fn tolerance(text: &str) -> Result<f64, String> {
    number(text, |it| it >= 0.0 && it.is_finite(), "a number that is not below 0")
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
        let cases: [(Reader, &[&str], &[&str]); 5] = [
            (share, &["1", "0.001"], &["0", "1.001", "-1", "NaN", "half", ""]),
            (percent, &["0", "100"], &["-0.1", "100.1", "NaN", "inf"]),
            (percentile, &["99.99", "100"], &["50", "101", "NaN"]),
            (tolerance, &["0", "1e-7"], &["-1e-9", "inf", "NaN"]),
            (positive, &["1e-9", "1e9"], &["0", "-1", "inf", "NaN"]),
        ];
        for (read, good, bad) in cases {
            let wrong = |it: &&&str| read(it).is_err();
            assert_eq!(good.iter().find(wrong), None);
            assert_eq!(bad.iter().find(|it| !wrong(it)), None);
        }
    }
}
