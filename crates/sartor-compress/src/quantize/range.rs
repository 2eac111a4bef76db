//! From what was seen of an activation to the range that its integers cover.

use super::{
    ActivationFormat, RangeMethod, ScaleKind, analytic, entropy,
    scale::{Scale, limits},
};
use crate::calibrate::Observer;

/// Steps of the grid on which each end of a range is searched.
const STEPS: u32 = 96;

/// Rounds over both ends: the second hardly ever moves anything, a third never did.
const ROUNDS: usize = 2;

/// The interval that integers cover; it holds 0, which must be representable exactly (padding and
/// rectifiers make exact zeros; Jacob et al. 2018, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Range {
    /// The smallest interval around `low`, `high` and 0.
    pub(super) fn around(low: f32, high: f32) -> Self {
        Range { low: low.min(0.0), high: high.max(0.0) }
    }

    /// `low` to `high`, but never beyond what was seen, which is `self`.
    pub(super) fn clipped(self, low: f32, high: f32) -> Self {
        Range::around(low.max(self.low), high.min(self.high))
    }

    /// Narrower by one factor at both ends.
    pub(super) fn scaled(self, share: f32) -> Self {
        Range { low: self.low * share, high: self.high * share }
    }
}

/// The range of an activation in the given format.
pub(super) fn find(
    observer: &Observer,
    method: RangeMethod,
    format: &ActivationFormat,
    kind: ScaleKind,
) -> Range {
    let whole = Range::around(observer.low, observer.high);
    let points =
        observer.histogram.as_ref().map(crate::calibrate::Histogram::points).unwrap_or_default();
    match method {
        RangeMethod::MinMax => whole,
        RangeMethod::MovingAverage => match observer.averages.and_then(|it| it.means()) {
            Some((low, high)) => whole.clipped(low as f32, high as f32),
            None => whole,
        },
        RangeMethod::Percentile(share) if format.symmetric => {
            let mut sizes: Vec<_> = points.iter().map(|it| (it.0.abs(), it.1)).collect();
            sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
            let limit = quantile(&sizes, share / 100.0).unwrap_or(0.0);
            whole.clipped(-limit, limit)
        }
        RangeMethod::Percentile(share) => {
            let cut = (100.0 - share) / 200.0;
            let low = quantile(&points, cut).unwrap_or(0.0);
            let high = quantile(&points, 1.0 - cut).unwrap_or(0.0);
            if cut > 0.0 { whole.clipped(low, high) } else { whole }
        }
        // Where activations are compared by the layers that read them, this is for those that none reads.
        RangeMethod::Mse | RangeMethod::Auto => least_error(whole, &points, format, kind),
        RangeMethod::Entropy => entropy::range(whole, &points, levels(format)),
        RangeMethod::Analytic => analytic::range(whole, &points, levels(format), format.symmetric),
    }
}

/// Number of integers of a format.
fn levels(format: &ActivationFormat) -> i32 {
    let (least, most) = limits(format);
    most - least + 1
}

/// The element below or at which a `share` of all lies.
fn quantile(points: &[(f32, u64)], share: f64) -> Option<f32> {
    let total: u64 = points.iter().map(|it| it.1).sum();
    let rank = (share * total as f64).ceil().max(1.0) as u64;
    let mut below = 0;
    let found = points.iter().find(|(_, count)| {
        below += count;
        below >= rank
    });
    found.or(points.last()).map(|it| it.0)
}

/// Grid search for `argmin |x - dq(q(x))|²` (Nagel et al. 2021, section 3.1, "mean squared error"), one end
/// after the other; a symmetric format has one end.
fn least_error(
    whole: Range,
    points: &[(f32, u64)],
    format: &ActivationFormat,
    kind: ScaleKind,
) -> Range {
    let error = |range: Range| {
        let scale = Scale::of(range, format, kind);
        points.iter().map(|&(x, count)| count as f64 * scale.squared_error(x)).sum::<f64>()
    };
    let best = |candidates: &mut dyn Iterator<Item = Range>| {
        let scored = candidates.map(|range| (error(range), range));
        scored.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(whole, |it| it.1)
    };
    // From wide to narrow, so that the wider of two equal ranges wins.
    let shares = || (1..=STEPS).rev().map(|step| step as f32 / STEPS as f32);
    if format.symmetric {
        return best(&mut shares().map(|share| whole.scaled(share)));
    }
    let mut range = whole;
    for _ in 0..ROUNDS {
        range = best(&mut shares().map(|share| Range { high: whole.high * share, ..range }));
        if whole.low < 0.0 {
            range = best(&mut shares().map(|share| Range { low: whole.low * share, ..range }));
        }
    }
    range
}

#[cfg(test)]
mod tests {
    use super::super::ActivationType;
    use super::*;

    fn seen(values: &[f32]) -> Observer {
        let mut observer = Observer::new(true);
        observer.see(values).unwrap();
        observer
    }

    fn ranged(observer: &Observer, method: RangeMethod, format: &ActivationFormat) -> Range {
        find(observer, method, format, ScaleKind::Float)
    }

    const UINT8: ActivationFormat =
        ActivationFormat { dtype: ActivationType::Uint8, symmetric: false };
    const INT8: ActivationFormat =
        ActivationFormat { dtype: ActivationType::Int8, symmetric: true };

    #[test]
    fn min_max_takes_everything_and_zero() {
        for (values, low, high) in
            [(&[-1.0, 3.0][..], -1.0, 3.0), (&[2.0, 5.0], 0.0, 5.0), (&[-4.0, -2.0], -4.0, 0.0)]
        {
            assert_eq!(ranged(&seen(values), RangeMethod::MinMax, &UINT8), Range { low, high });
        }
    }

    #[test]
    fn every_method_stays_within_what_was_seen_and_holds_zero() {
        let mut observer = Observer::new(true).with_averages();
        let values: Vec<f32> =
            (0..4000u16).map(|i| (f32::from(i) * 0.7).sin().powi(5) * 3.0 + 0.2).collect();
        observer.see_batch(&values, 8).unwrap();
        for method in [
            RangeMethod::MinMax,
            RangeMethod::MovingAverage,
            RangeMethod::Percentile(99.0),
            RangeMethod::Entropy,
            RangeMethod::Mse,
            RangeMethod::Analytic,
        ] {
            for (format, kind) in [(UINT8, ScaleKind::Float), (INT8, ScaleKind::PowerOfTwo)] {
                let range = find(&observer, method, &format, kind);
                assert!(observer.low <= range.low && range.low <= 0.0, "{method:?} {range:?}");
                assert!(0.0 <= range.high && range.high <= observer.high, "{method:?} {range:?}");
                assert!(range.high - range.low > 1.0, "{method:?} {range:?}");
            }
        }
    }

    #[test]
    fn percentiles_match_the_exact_ones_within_a_bin() {
        let values: Vec<f32> = (0..=10_000u16).map(|i| f32::from(i) / 100.0 - 30.0).collect();
        let observer = seen(&values);
        let range = ranged(&observer, RangeMethod::Percentile(99.0), &UINT8);
        assert!((range.low + 29.5).abs() < 0.05 && (range.high - 69.5).abs() < 0.05, "{range:?}");
        let range = ranged(&observer, RangeMethod::Percentile(99.0), &INT8);
        assert!((range.high - 69.0).abs() < 0.05 && (range.low + 30.0).abs() < 1e-6, "{range:?}");
        let all = ranged(&observer, RangeMethod::Percentile(100.0), &UINT8);
        assert_eq!(all, Range { low: -30.0, high: 70.0 });
    }

    #[test]
    fn squared_error_clips_an_outlier_but_nothing_uniform() {
        let uniform: Vec<f32> = (0..=1000u16).map(|i| f32::from(i) / 1000.0).collect();
        let range = ranged(&seen(&uniform), RangeMethod::Mse, &UINT8);
        assert!(range.high > 0.98, "{range:?}");
        let mut many: Vec<f32> = uniform.iter().cycle().take(1_000_000).copied().collect();
        many.push(20.0);
        // n (h / 255)² / 12 + (20 - h)² is least at h = 20 / (1 + n / (12 · 255²)) = 8.76.
        let range = ranged(&seen(&many), RangeMethod::Mse, &UINT8);
        assert!((range.high - 8.76).abs() < 0.25, "{range:?}");
        assert_eq!(
            ranged(&seen(&many), RangeMethod::MinMax, &UINT8),
            Range { low: 0.0, high: 20.0 }
        );
    }
}
