//! Axes: where a value stands, and the marks beside it.

use crate::format::seconds;

/// A logarithmic axis over whole decades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogAxis {
    low: i32,
    high: i32,
}

impl LogAxis {
    /// The decades around all positive finite values; `None` where there is no such value.
    pub(super) fn around(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        for value in values.into_iter().filter(|value| value.is_finite() && *value > 0.0) {
            low = low.min(value.log10().floor() as i32);
            high = high.max(value.log10().ceil() as i32);
        }
        (low <= high).then(|| Self { low, high: high.max(low + 1) })
    }

    /// Both ends, as values.
    pub(super) fn ends(self) -> (f64, f64) {
        (10_f64.powi(self.low), 10_f64.powi(self.high))
    }

    /// Where a positive value stands: 0 at the low end, 1 at the high end.
    pub(super) fn place(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    /// Places and labels of at most seven decades.
    pub(super) fn marks(self) -> Vec<(f64, String)> {
        let span = self.high - self.low;
        let step = (span / 6 + i32::from(span % 6 != 0)).max(1);
        let place = |exponent| f64::from(exponent - self.low) / f64::from(span);
        (self.low..=self.high)
            .step_by(step.unsigned_abs() as usize)
            .map(|exponent| (place(exponent), decade(exponent)))
            .collect()
    }
}

/// A power of ten: `0.01`, `1`, `100`, `10 k`, `1 M`.
fn decade(exponent: i32) -> String {
    let prefix = match exponent {
        -3..=2 => return format!("{}", 10_f64.powi(exponent)),
        3..=5 => "k",
        6..=8 => "M",
        9..=11 => "G",
        12..=14 => "T",
        _ => return format!("1e{exponent}"),
    };
    format!("{} {prefix}", 10_u32.pow(exponent.rem_euclid(3).unsigned_abs()))
}

/// Marks in seconds from nothing to at least `longest_s`: places as shares of the longest, labels.
///
/// Steps are 1, 2 or 5 times a power of ten, and there are three to six of them.
pub(super) fn time_marks(longest_s: f64) -> Vec<(f64, String)> {
    let decade = 10_f64.powi((longest_s / 2.5).log10().floor() as i32);
    let step = [1.0, 2.0, 5.0].map(|it| it * decade).into_iter().rev();
    let Some(step) = step.into_iter().find(|step| longest_s / step >= 2.5) else {
        return Vec::new();
    };
    (0..=6)
        .map(|i| f64::from(i) * step)
        .filter(|mark| *mark <= longest_s)
        .map(|mark| (mark / longest_s, short(&seconds(mark))))
        .collect()
}

/// Without the zeros that a mark does not need: `1.50 ms` is `1.5 ms`.
fn short(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') && !number.contains('e') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_enclose_their_values() {
        let axis = LogAxis::around([0.5, 30.0, f64::NAN, 0.0, -1.0]).unwrap();
        assert_eq!(axis, LogAxis { low: -1, high: 2 });
        assert!((axis.place(1.0) - 1.0 / 3.0).abs() < 1e-12);
        let labels: Vec<_> = axis.marks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0.1", "1", "10", "100"]);
        assert_eq!(LogAxis::around([1000.0]), Some(LogAxis { low: 3, high: 4 }));
        assert_eq!(LogAxis::around([f64::INFINITY, 0.0]), None);
        for values in [[1e-300, 1e300], [1e3, 1e12]] {
            assert!(LogAxis::around(values).unwrap().marks().len() <= 7);
        }
    }

    #[test]
    fn labels_of_decades_are_short() {
        let cases = [(-4, "1e-4"), (-2, "0.01"), (2, "100"), (4, "10 k"), (8, "100 M"), (9, "1 G")];
        for (exponent, label) in cases {
            assert_eq!(decade(exponent), label);
        }
    }

    #[test]
    fn times_have_round_marks() {
        let cases = [
            (11.2e-3, vec!["0 s", "2 ms", "4 ms", "6 ms", "8 ms", "10 ms"]),
            (1e-6, vec!["0 s", "200 ns", "400 ns", "600 ns", "800 ns", "1 µs"]),
            (2.6, vec!["0 s", "1 s", "2 s"]),
        ];
        for (longest, expected) in cases {
            let labels: Vec<_> = time_marks(longest).into_iter().map(|(_, label)| label).collect();
            assert_eq!(labels, expected);
        }
    }
}
