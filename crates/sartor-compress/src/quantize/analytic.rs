//! Ranges from a formula: the clipping that is best for a distribution of which only the spread is measured (Banner et
//! al. 2019, "Post training 4-bit quantization of convolutional networks for rapid-deployment", section 3, ACIQ).

use super::range::Range;

/// Mean magnitude over standard deviation: `1 / √2` for Laplace's distribution, `√(2 / π)` for Gauss's. What lies
/// below the middle of the two counts as Laplace's.
const BETWEEN: f64 = 0.752_5;

/// Limits of the integral over a Gauss tail, in standard deviations, and its steps.
const TAIL: (f64, u16) = (10.0, 400);

/// Halvings of the interval in which the clipping of a Gauss distribution is searched.
const HALVINGS: usize = 50;

/// Half the width of the range that is best for `2^bits` integers, in units of the spread.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Laplace,
    Gauss,
}

impl Shape {
    /// `argmin_c` of clipping and rounding noise. For Laplace's distribution with mean magnitude 1 that solves
    /// `c e^c = 3 · 4^bits` (equation 9); for Gauss's with deviation 1, `∫_c^∞ (x - c) φ(x) dx = c / (6 · 4^bits)`
    /// (the derivative of equation 11).
    fn clipping(self, bits: f64) -> f64 {
        let levels = 4f64.powf(bits);
        match self {
            Shape::Laplace => {
                let wanted = (3.0 * levels).ln();
                // Newton's method on c + ln c, which is concave and rises: it converges from below.
                (0..8).fold(1.0, |c: f64, _| c - (c + c.ln() - wanted) / (1.0 + 1.0 / c))
            }
            Shape::Gauss => {
                let (mut low, mut high) = (0.0, TAIL.0);
                for _ in 0..HALVINGS {
                    let middle = f64::midpoint(low, high);
                    if tail(middle) > middle / (6.0 * levels) {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                low
            }
        }
    }
}

/// `∫_c^∞ (x - c) φ(x) dx` by Simpson's rule.
fn tail(c: f64) -> f64 {
    let (extent, steps) = TAIL;
    let width = extent / f64::from(steps);
    let at = |i: u16| {
        let x = f64::from(i) * width;
        x * (-0.5 * (c + x) * (c + x)).exp() / (2.0 * std::f64::consts::PI).sqrt()
    };
    let weight = |i: u16| if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
    (0..=steps).map(|i| weight(i) * at(i)).sum::<f64>() * width / 3.0
}

/// The range for elements in `points` (value and count), of which `whole` holds all. What is never negative, as
/// behind a rectifier, is taken as one half of a distribution around zero, of which one side is clipped and rounded
/// in half as wide steps: as if there was one more bit.
pub(super) fn range(whole: Range, points: &[(f32, u64)], levels: i32, symmetric: bool) -> Range {
    let half = whole.low >= 0.0;
    let used =
        || points.iter().filter(|it| !half || it.0 > 0.0).map(|it| (f64::from(it.0), it.1 as f64));
    let count: f64 = used().map(|it| it.1).sum();
    if count == 0.0 {
        return whole;
    }
    let mean = if half { 0.0 } else { used().map(|(x, n)| x * n).sum::<f64>() / count };
    let magnitude = used().map(|(x, n)| (x - mean).abs() * n).sum::<f64>() / count;
    let deviation = (used().map(|(x, n)| (x - mean).powi(2) * n).sum::<f64>() / count).sqrt();
    let bits = f64::from(levels).log2() + f64::from(u8::from(half));
    let limit = if magnitude < BETWEEN * deviation {
        magnitude * Shape::Laplace.clipping(bits)
    } else {
        deviation * Shape::Gauss.clipping(bits)
    };
    let (low, high) = match (half, symmetric) {
        (true, _) => (0.0, limit),
        (false, true) => (-mean.abs() - limit, mean.abs() + limit),
        (false, false) => (mean - limit, mean + limit),
    };
    whole.clipped(low as f32, high as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The multiples that the paper gives for 2, 3 and 4 bits, and those of its published tables.
    #[test]
    fn multiples_are_the_papers() {
        for (shape, bits, expected) in [
            (Shape::Laplace, 2.0, 2.83),
            (Shape::Laplace, 3.0, 3.89),
            (Shape::Laplace, 4.0, 5.03),
            (Shape::Gauss, 2.0, 1.71),
            (Shape::Gauss, 3.0, 2.15),
            (Shape::Gauss, 4.0, 2.55),
        ] {
            let found = shape.clipping(bits);
            assert!((found - expected).abs() < 0.01, "{shape:?} {bits}: {found}");
        }
    }

    #[test]
    fn a_laplace_distribution_is_recognized() {
        let density = |i: i32| ((-0.01 * f64::from(i.abs())).exp() * 1e6) as u64;
        let points: Vec<(f32, u64)> =
            (-1000..=1000).map(|i| (i as f32 * 0.01, density(i))).collect();
        let whole = Range { low: -10.0, high: 10.0 };
        let found = range(whole, &points, 16, false);
        assert!((found.high - 5.03).abs() < 0.05 && (found.low + 5.03).abs() < 0.05, "{found:?}");
        let right: Vec<_> = points.into_iter().filter(|it| it.0 >= 0.0).collect();
        let found = range(Range { low: 0.0, high: 10.0 }, &right, 16, false);
        assert!((found.high - 6.2).abs() < 0.1, "{found:?}");
        assert_eq!(range(whole, &[], 16, false), whole);
    }
}
