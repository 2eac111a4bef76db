//! Ranges by relative entropy (Migacz 2017, "8-bit Inference with `TensorRT`", GPU Technology Conference): the clipping
//! after which the distribution of the elements loses least.

use super::range::Range;

/// Shares of the whole range that are tried, in these parts of it.
const STEPS: u16 = 96;

/// The narrowest range that is tried is this part of the whole.
const LEAST: u16 = STEPS / 16;

/// `argmin KL(P ‖ Q)` over ranges narrower than `whole` by one factor at both ends. `P` are the `points` (value and count)
/// with what is clipped added at the ends; `Q` spreads the unclipped elements of each of `levels` cells evenly over the
/// points in it. Deviations: exact zeros, which every range represents, count in neither; and what the chance of finite
/// counts adds to the divergence, a half over the number of elements for each point but the first of a cell (Miller 1955,
/// "Note on the bias of information estimates"), is taken off, or else few samples would look like a fine structure that
/// only narrow ranges keep.
pub(super) fn range(whole: Range, points: &[(f32, u64)], levels: i32) -> Range {
    let points: Vec<(f64, f64)> = points
        .iter()
        .filter(|it| it.0.abs() > 0.0)
        // The middle of the last bin may lie beyond the last element.
        .map(|it| (f64::from(it.0.clamp(whole.low, whole.high)), it.1 as f64))
        .collect();
    let scored = (LEAST..=STEPS).rev().map(|step| {
        let range = whole.scaled(f32::from(step) / f32::from(STEPS));
        (divergence(range, &points, levels), range)
    });
    // The first of equals, and so the widest.
    scored.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(whole, |it| it.1)
}

fn divergence(range: Range, points: &[(f64, f64)], levels: i32) -> f64 {
    let (low, high) = (f64::from(range.low), f64::from(range.high));
    let first = points.partition_point(|it| it.0 < low);
    let last = points.partition_point(|it| it.0 <= high);
    let inside = &points[first..last];
    let sum = |part: &[(f64, f64)]| part.iter().map(|it| it.1).sum::<f64>();
    let (below, above, kept) = (sum(&points[..first]), sum(&points[last..]), sum(inside));
    if inside.is_empty() {
        return f64::INFINITY;
    }
    let levels = f64::from(levels);
    let cell =
        |x: f64| ((x - low) / (high - low) * levels).floor().clamp(0.0, levels - 1.0) as usize;
    let total = below + above + kept;
    let mut divergence = 0.0;
    let (mut at, mut by_chance) = (0, 0);
    for run in inside.chunk_by(|a, b| cell(a.0) == cell(b.0)) {
        let mean = sum(run) / run.len() as f64;
        by_chance += run.len() - 1;
        for (_, count) in run {
            let clipped = if at == 0 { below } else { 0.0 }
                + if at + 1 == inside.len() { above } else { 0.0 };
            let (p, q) = ((count + clipped) / total, mean / kept);
            divergence += p * (p / q).ln();
            at += 1;
        }
    }
    divergence - by_chance as f64 / (2.0 * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_levels_can_tell_apart_is_not_clipped() {
        let points: Vec<(f32, u64)> =
            (1..=200u16).map(|i| (f32::from(i), 7 + u64::from(i % 5))).collect();
        let whole = Range { low: 0.0, high: 200.0 };
        assert_eq!(range(whole, &points, 256), whole);
    }

    #[test]
    fn the_outermost_elements_count_though_their_bin_is_wider() {
        let points = [(0.25, 10), (0.5, 20), (0.75, 5), (1.000_1, 400)];
        let whole = Range { low: 0.0, high: 1.0 };
        assert_eq!(range(whole, &points, 256), whole);
    }

    #[test]
    fn few_elements_are_not_taken_for_structure() {
        // About one element for each of 4096 points of a flat distribution.
        let mut state = 1u32;
        let mut chance = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        let count =
            |byte: u32| u64::from(byte > 90) + u64::from(byte > 180) + u64::from(byte > 240);
        let points: Vec<(f32, u64)> =
            (1..=4095u16).map(|i| (f32::from(i), count(chance()))).filter(|it| it.1 > 0).collect();
        let found = range(Range { low: 0.0, high: 4096.0 }, &points, 256);
        assert!(found.high > 3500.0, "{found:?}");
    }

    #[test]
    fn a_few_far_elements_are_clipped() {
        // Shape within, and three elements ten times as far out.
        let mut points: Vec<(f32, u64)> =
            (1..=400u16).map(|i| (f32::from(i) * 0.01, 1000 + u64::from(i % 7) * 300)).collect();
        points.extend([(38.0, 1), (39.0, 1), (40.0, 1)]);
        let found = range(Range { low: 0.0, high: 40.0 }, &points, 256);
        assert!((4.0..8.0).contains(&found.high), "{found:?}");
    }
}
