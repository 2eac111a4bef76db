//! The grid on which weights lie, and rounding that learns.

use rayon::prelude::*;
use sartor_engine::{AdamW, adamw_step};
use sartor_ir::QuantizeLinear;

/// Ends of the stretched sigmoid (Nagel et al. 2020, equation 23).
const STRETCH: (f32, f32) = (-0.1, 1.1);

/// `β` of the push, at its beginning and at its end.
const BETA: (f32, f32) = (20.0, 2.0);

/// Shares of the largest magnitude that are tried as the range of a channel.
const SHARES: std::ops::RangeInclusive<u32> = 40..=104;

/// Integers and what they stand for: `w = scale (q - zero)`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) scales: Vec<f32>,
    zeros: Vec<f32>,
    pub(super) low: f32,
    pub(super) high: f32,
    /// The scale of each element.
    channels: Vec<u32>,
}

impl Grid {
    /// Of integers of `shape` with scales of `scale_shape`. Its limits are those of the fewest bits that hold the integers;
    /// the odd one at the lower end belongs to it only where it is used. `None` where
    /// shapes do not fit, and for weights of -1 and 1 alone, between which nothing is left to round to.
    pub(super) fn of(
        op: &QuantizeLinear,
        shape: &[usize],
        scale_shape: &[usize],
        (scales, zeros): (Vec<f32>, &[i64]),
        integers: &[i64],
    ) -> Option<Self> {
        let channels = channels(op, shape, scale_shape)?;
        if integers.iter().all(|it| it.abs() == 1) {
            return None;
        }
        let least = integers.iter().copied().min()?;
        let most = integers.iter().copied().max()?;
        let (low, high) = if zeros.iter().any(|it| *it != 0) || least >= 0 {
            let bits = (1..=16).find(|bits| most < 1 << bits && least >= 0).unwrap_or(8);
            if least >= 0 { (0, (1 << bits) - 1) } else { (-128, 127) }
        } else {
            let bits =
                (2..=16).find(|bits| most < 1 << (bits - 1) && least >= -(1 << (bits - 1)))?;
            let most = (1 << (bits - 1)) - 1;
            (if least < -most { -most - 1 } else { -most }, most)
        };
        let zeros = if zeros.len() == scales.len() {
            zeros.to_vec()
        } else {
            vec![*zeros.first()?; scales.len()]
        };
        let zeros = zeros.iter().map(|&it| it as f32).collect();
        Some(Grid { scales, zeros, low: low as f32, high: high as f32, channels })
    }

    /// Scale and zero of element `i`.
    fn at(&self, i: usize) -> (f32, f32) {
        let c = self.channels[i] as usize;
        (self.scales[c], self.zeros[c])
    }

    /// The nearest integers.
    pub(super) fn nearest(&self, weights: &[f32]) -> Vec<f32> {
        let round = |(i, w): (usize, &f32)| {
            let (scale, zero) = self.at(i);
            (w / scale + zero).round_ties_even().clamp(self.low, self.high)
        };
        weights.iter().enumerate().map(round).collect()
    }

    /// What integers stand for.
    pub(super) fn floats(&self, integers: &[f32]) -> Vec<f32> {
        let back = |(i, q): (usize, &f32)| {
            let (scale, zero) = self.at(i);
            (q - zero) * scale
        };
        integers.iter().enumerate().map(back).collect()
    }

    /// Whether each scale belongs to one output channel of a weight whose first axis is that of the output channels,
    /// or whose last is, and none has a zero.
    pub(super) fn is_symmetric(&self) -> bool {
        self.zeros.iter().all(|it| *it == 0.0)
    }
}

/// The scale of each element, `None` where the shapes do not fit.
fn channels(op: &QuantizeLinear, shape: &[usize], scales: &[usize]) -> Option<Vec<u32>> {
    let count: usize = shape.iter().product();
    if scales.iter().product::<usize>() == 1 {
        return Some(vec![0; count]);
    }
    let rank = i64::try_from(shape.len()).ok()?;
    let axis = usize::try_from(if op.axis < 0 { op.axis + rank } else { op.axis }).ok()?;
    let extent = *shape.get(axis)?;
    let inner: usize = shape[axis + 1..].iter().product();
    if scales.len() == 1 && scales[0] == extent {
        return Some((0..count).map(|i| (i / inner % extent) as u32).collect());
    }
    let blocks = *scales.get(axis)?;
    let block = op.block_size;
    let fits = scales.len() == shape.len() && block > 0 && blocks == extent.div_ceil(block);
    let at = |i: usize| {
        ((i / inner / extent * blocks + i / inner % extent / block) * inner + i % inner) as u32
    };
    fits.then(|| (0..count).map(at).collect())
}

/// For each scale of a grid the one with the least squared error of its weights, by grid search over ranges around the
/// largest magnitude (Nagel et al. 2021, section 3.1). Grids with zero points keep theirs.
pub(super) fn best_scales(grid: &mut Grid, weights: &[f32]) {
    if !grid.is_symmetric() {
        return;
    }
    let mut members: Vec<Vec<f32>> = vec![Vec::new(); grid.scales.len()];
    for (w, &c) in weights.iter().zip(&grid.channels) {
        members[c as usize].push(*w);
    }
    let (low, high) = (grid.low, grid.high);
    let found: Vec<Option<f32>> = members
        .par_iter()
        .map(|members| {
            let largest = members.iter().fold(0.0f32, |a, w| a.max(w.abs()));
            let error = |scale: f32| -> f64 {
                let one = |w: &f32| {
                    let d = f64::from(w - (w / scale).round_ties_even().clamp(low, high) * scale);
                    d * d
                };
                members.iter().map(one).sum()
            };
            let candidates =
                SHARES.rev().map(|share| largest * share as f32 / (100.0 * high.max(1.0)));
            let scored = candidates.filter(|it| it.is_normal()).map(|it| (error(it), it));
            scored.min_by(|a, b| a.0.total_cmp(&b.0)).map(|it| it.1)
        })
        .collect();
    for (scale, found) in grid.scales.iter_mut().zip(found) {
        *scale = found.unwrap_or(*scale);
    }
}

/// The rounding of one layer while it learns.
#[derive(Clone, Debug)]
pub(super) struct Rounding<'a> {
    grid: &'a Grid,
    floors: Vec<f32>,
    /// Rounding variables.
    v: Vec<f32>,
    gradient: Vec<f32>,
    moments: [Vec<f32>; 2],
}

/// Elements of one task.
const TASK: usize = 1 << 10;

impl<'a> Rounding<'a> {
    /// Begins where the soft weights are the float ones.
    pub(super) fn new(grid: &'a Grid, weights: &[f32]) -> Self {
        let scaled = |i: usize| {
            let (scale, zero) = grid.at(i);
            weights[i] / scale + zero
        };
        let floors: Vec<f32> = (0..weights.len()).map(|i| scaled(i).floor()).collect();
        let begin = |i: usize| {
            let (low, high) = STRETCH;
            let share = ((scaled(i) - floors[i] - low) / (high - low)).clamp(1e-4, 1.0 - 1e-4);
            (share / (1.0 - share)).ln()
        };
        let v: Vec<f32> = (0..weights.len()).map(begin).collect();
        let zeros = vec![0.0; v.len()];
        Rounding { grid, floors, gradient: zeros.clone(), moments: [zeros.clone(), zeros], v }
    }

    /// The soft weights.
    pub(super) fn soft(&self, into: &mut [f32]) {
        into.par_chunks_mut(TASK).enumerate().for_each(|(task, into)| {
            for (k, w) in into.iter_mut().enumerate() {
                let i = task * TASK + k;
                let (scale, zero) = self.grid.at(i);
                let q =
                    (self.floors[i] + rectified(self.v[i]).0).clamp(self.grid.low, self.grid.high);
                *w = (q - zero) * scale;
            }
        });
    }

    /// One step, given d error / d weight, the strength of the push on one element and its exponent.
    pub(super) fn step(
        &mut self,
        of_weights: &[f32],
        (push, beta): (f32, f32),
        (at, rate): (u32, f32),
    ) {
        let (grid, floors, v) = (self.grid, &self.floors, &self.v);
        self.gradient.par_chunks_mut(TASK).enumerate().for_each(|(task, gradient)| {
            for (k, g) in gradient.iter_mut().enumerate() {
                let i = task * TASK + k;
                let (h, slope) = rectified(v[i]);
                let q = floors[i] + h;
                let inside = q > grid.low && q < grid.high;
                let of_error = if inside { of_weights[i] * grid.at(i).0 } else { 0.0 };
                *g = (of_error + push * push_slope(h, beta)) * slope;
            }
        });
        let adam = AdamW { rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-12, weight_decay: 0.0 };
        let [m, v] = &mut self.moments;
        adamw_step(adam, at, &mut self.v, &self.gradient, m, v);
    }

    /// The integers at the end.
    pub(super) fn hard(&self) -> Vec<f32> {
        let one = |(floor, v): (&f32, &f32)| {
            let up = if rectified(*v).0 >= 0.5 { 1.0 } else { 0.0 };
            (floor + up).clamp(self.grid.low, self.grid.high)
        };
        self.floors.iter().zip(&self.v).map(one).collect()
    }

    /// `h(V)` of every element.
    #[cfg(test)]
    pub(super) fn shares(&self) -> Vec<f32> {
        self.v.iter().map(|it| rectified(*it).0).collect()
    }
}

/// `h(V)` and `d h / d V`.
fn rectified(v: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + (-v).exp());
    let (low, high) = STRETCH;
    let stretched = (high - low) * sigmoid + low;
    let inside = stretched > 0.0 && stretched < 1.0;
    let slope = if inside { (high - low) * sigmoid * (1.0 - sigmoid) } else { 0.0 };
    (stretched.clamp(0.0, 1.0), slope)
}

/// `d / d h` of `1 - |2 h - 1|^β` (Nagel et al. 2020, equation 24).
fn push_slope(h: f32, beta: f32) -> f32 {
    let centred = 2.0 * h - 1.0;
    -2.0 * beta * centred.abs().powf(beta - 1.0) * centred.signum()
}

/// `β` at a share of the way from the end of the warm-up to the end.
pub(super) fn beta(share: f32) -> f32 {
    BETA.1 + (BETA.0 - BETA.1) * (1.0 - share).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(scales: &[f32], inner: usize, (low, high): (f32, f32)) -> Grid {
        let channels = (0..scales.len() * inner).map(|i| (i / inner) as u32).collect();
        Grid { scales: scales.to_vec(), zeros: vec![0.0; scales.len()], low, high, channels }
    }

    #[test]
    fn limits_are_those_of_the_fewest_bits() {
        let op = QuantizeLinear::along(0);
        for (integers, zeros, low, high) in [
            (vec![-127, 3], vec![0], -127.0, 127.0),
            (vec![-128, 3], vec![0], -128.0, 127.0),
            (vec![-7, 7], vec![0], -7.0, 7.0),
            (vec![-8, 6], vec![0], -8.0, 7.0),
            (vec![-1, 0], vec![0], -1.0, 1.0),
            (vec![-2, 1], vec![0], -2.0, 1.0),
            (vec![3, 15], vec![8], 0.0, 15.0),
        ] {
            let it = Grid::of(&op, &[2], &[], (vec![1.0], &zeros), &integers).unwrap();
            assert_eq!((it.low, it.high), (low, high), "{integers:?}");
        }
    }

    #[test]
    fn binary_weights_have_no_grid() {
        let op = QuantizeLinear::along(0);
        assert_eq!(Grid::of(&op, &[2], &[], (vec![1.0], &[0]), &[-1, 1]), None);
    }

    #[test]
    fn blocks_and_channels_find_their_scale() {
        let along = |axis, block_size| QuantizeLinear { block_size, ..QuantizeLinear::along(axis) };
        for (op, shape, scales, expected) in [
            (along(0, 0), vec![2, 3], vec![2], vec![0, 0, 0, 1, 1, 1]),
            (along(-1, 0), vec![2, 3], vec![3], vec![0, 1, 2, 0, 1, 2]),
            (along(1, 2), vec![2, 3], vec![2, 2], vec![0, 0, 1, 2, 2, 3]),
            (along(0, 2), vec![3, 2], vec![2, 2], vec![0, 1, 0, 1, 2, 3]),
        ] {
            assert_eq!(channels(&op, &shape, &scales), Some(expected), "{shape:?} {scales:?}");
        }
        assert_eq!(channels(&along(0, 0), &[2, 3], &[3]), None);
    }

    #[test]
    fn the_soft_weights_begin_as_the_float_ones_and_their_gradient_is_the_difference() {
        let grid = grid(&[0.5, 0.1], 3, (-7.0, 7.0));
        let weights = [0.31, -1.2, 3.3, 0.42, -0.77, 0.06];
        let mut rounding = Rounding::new(&grid, &weights);
        let mut soft = [0.0; 6];
        rounding.soft(&mut soft);
        for (w, soft) in weights.iter().zip(soft) {
            assert!((w.clamp(-3.5, 3.5).clamp(-3.5, 3.5) - soft).abs() < 0.1, "{w} {soft}");
        }
        // The loss is Σ c w + push Σ (1 - |2 h - 1|^β).
        let c = [0.3, -0.2, 0.9, 1.1, -0.4, 0.8];
        let (push, exponent) = (0.05f32, 3.0f32);
        let loss = |it: &Rounding<'_>| -> f64 {
            let mut w = [0.0; 6];
            it.soft(&mut w);
            let error: f64 = w.iter().zip(c).map(|(w, c)| f64::from(w * c)).sum();
            let pushed = it
                .shares()
                .iter()
                .map(|h| f64::from(1.0 - (2.0 * h - 1.0).abs().powf(exponent)))
                .sum::<f64>();
            error + f64::from(push) * pushed
        };
        let mut stepped = rounding.clone();
        stepped.step(&c, (push, exponent), (1, 0.0));
        for i in 0..6 {
            let (mut up, mut down) = (rounding.clone(), rounding.clone());
            up.v[i] += 1e-2;
            down.v[i] -= 1e-2;
            let difference = (loss(&up) - loss(&down)) / 2e-2;
            assert!(
                (difference - f64::from(stepped.gradient[i])).abs() < 1e-3,
                "{i}: {difference} {:?}",
                stepped.gradient
            );
        }
        rounding.v[0] = 30.0;
        rounding.v[1] = -30.0;
        assert_eq!(&rounding.shares()[..2], [1.0, 0.0]);
    }

    #[test]
    fn scales_of_least_error_are_no_worse_than_those_of_the_largest_weight() {
        let weights: Vec<f32> = (0..64u8)
            .map(|i| (f32::from(i) * 0.7).sin() * if i == 5 { 4.0 } else { 0.5 })
            .collect();
        let largest = weights.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let before = grid(&[largest / 7.0], 64, (-7.0, 7.0));
        let mut after = before.clone();
        best_scales(&mut after, &weights);
        let error = |it: &Grid| -> f32 {
            it.floats(&it.nearest(&weights))
                .iter()
                .zip(&weights)
                .map(|(a, b)| (a - b) * (a - b))
                .sum()
        };
        assert!(error(&after) < 0.9 * error(&before), "{} {}", error(&after), error(&before));
    }
}
