//! A streaming histogram of bounded size.

/// Bins on each side of zero.
const BINS: usize = 4096;

/// Smallest width of a bin, as a power of two: its inverse is still a normal number.
const LEAST: i32 = -126;

/// Counts of elements in bins of width `2^exponent`, on both sides of zero: bin `i` of the positive side
/// holds `i <= x / width < i + 1`, of the negative side `i <= -x / width < i + 1`.
///
/// When an element lies outside, widths double and pairs of bins merge. Edges stay multiples of the
/// width and widths powers of two, so that merging loses nothing: the counts follow from the elements
/// and the largest magnitude alone, whatever the order and the batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    exponent: i32,
    /// Positive side (with zero), then negative side.
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { exponent: LEAST, counts: vec![0; 2 * BINS] }
    }
}

impl Histogram {
    /// The width's logarithm to base 2.
    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// Widens the bins until they hold `magnitude`, a finite number.
    pub fn reserve(&mut self, magnitude: f32) {
        let wanted = exponent_for(magnitude);
        if wanted > self.exponent {
            let shift = (wanted - self.exponent).unsigned_abs();
            let mut counts = vec![0; 2 * BINS];
            for (at, count) in self.counts.iter().enumerate().filter(|it| *it.1 > 0) {
                let (side, bin) = (at / BINS, at % BINS);
                counts[side * BINS + bin.checked_shr(shift).unwrap_or(0)] += count;
            }
            *self = Histogram { exponent: wanted, counts };
        }
    }

    /// The histogram of elements that all fit bins of width `2^exponent`.
    pub(super) fn of(values: &[f32], exponent: i32) -> Self {
        let inverse = power_of_two(-exponent);
        let mut counts = vec![0u32; 2 * BINS];
        for &x in values {
            // The product by a power of two is exact, or below 1 and so in bin 0.
            let bin = ((x.abs() * inverse) as usize).min(BINS - 1);
            counts[bin + usize::from(x < 0.0) * BINS] += 1;
        }
        Histogram { exponent, counts: counts.into_iter().map(u64::from).collect() }
    }

    /// Both together.
    #[must_use]
    pub fn merged(&self, other: &Histogram) -> Self {
        let (mut sum, mut other) = (self.clone(), other.clone());
        let magnitude = |it: &Histogram| power_of_two(it.exponent) * (BINS - 1) as f32;
        if sum.exponent < other.exponent {
            sum.reserve(magnitude(&other));
        } else if other.exponent < sum.exponent {
            other.reserve(magnitude(&sum));
        }
        sum.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        sum
    }

    /// Non-empty bins in ascending order as their middle and their count; the bin above zero, where the
    /// exact zeros of a rectifier lie, stands for zero itself.
    pub fn points(&self) -> Vec<(f32, u64)> {
        let width = power_of_two(self.exponent);
        let middle = |i: usize| (i as f32 + 0.5) * width;
        let (positive, negative) = self.counts.split_at(BINS);
        let below = negative.iter().enumerate().rev().map(|(i, &n)| (-middle(i), n));
        let above =
            positive.iter().enumerate().map(|(i, &n)| (if i == 0 { 0.0 } else { middle(i) }, n));
        below.chain(above).filter(|it| it.1 > 0).collect()
    }
}

/// `2^exponent` for exponents of normal numbers.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent.clamp(-126, 127) + 127) as u32) << 23)
}

/// The least exponent whose bins hold `magnitude`: `magnitude < BINS 2^exponent`.
fn exponent_for(magnitude: f32) -> i32 {
    let floor_log2 = (magnitude.abs().to_bits() >> 23) as i32 - 127;
    (floor_log2 + 1 - BINS.ilog2() as i32).max(LEAST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(values: &[f32]) -> Histogram {
        let mut it = Histogram::default();
        it.reserve(values.iter().fold(0.0f32, |m, x| m.max(x.abs())));
        Histogram::of(values, it.exponent())
    }

    proptest! {
        #[test]
        fn counts_do_not_depend_on_order_or_split(
            values in prop::collection::vec((-20i32..20, -1f32..1.0).prop_map(|(e, m)| m * 2f32.powi(e)), 1..100),
            cut in 0usize..100,
        ) {
            let (a, b) = values.split_at(cut.min(values.len()));
            prop_assert!(whole(a).merged(&whole(b)) == whole(&values));
            prop_assert!(whole(b).merged(&whole(a)) == whole(&values));
        }

        #[test]
        fn points_stand_for_their_elements(values in prop::collection::vec(-100f32..100.0, 1..100)) {
            let histogram = whole(&values);
            let points = histogram.points();
            prop_assert_eq!(points.iter().map(|it| it.1).sum::<u64>(), values.len() as u64);
            prop_assert!(points.is_sorted_by(|a, b| a.0 < b.0));
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let spread = points.iter().flat_map(|it| vec![it.0; it.1 as usize]);
            for (x, y) in sorted.iter().zip(spread) {
                prop_assert!((x - y).abs() <= power_of_two(histogram.exponent()), "{} for {}", y, x);
            }
        }
    }

    #[test]
    fn extreme_magnitudes_fit() {
        for x in [0.0, f32::from_bits(1), f32::MIN_POSITIVE, 1.0, 4096.0, f32::MAX] {
            let exponent = exponent_for(x);
            assert!(f64::from(x) < BINS as f64 * 2f64.powi(exponent), "{x}");
            assert_eq!(whole(&[x, -x]).points().iter().map(|it| it.1).sum::<u64>(), 2, "{x}");
        }
    }
}
