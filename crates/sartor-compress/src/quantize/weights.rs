//! From float weights to integers.

use rayon::prelude::*;
use sartor_engine::reference::quantize::Granularity;

use super::{ScaleKind, WeightFormat, WeightType, scale::LEAST};

/// The largest quantized bias, `2^30`: half of int32 stays free for the sum of the products.
const BIAS_LIMIT: f64 = (1u64 << 30) as f64;

/// Steps of the grid on which the ends of a coarse range are searched.
const STEPS: u16 = 64;

/// Rounds over both ends of an affine range, and of the least-squares fit behind the search.
const ROUNDS: usize = 4;

/// Octaves below the range without clipping in which a power of two is searched for coarse and for other types.
const OCTAVES: (u16, u16) = (3, 1);

/// Weights and their bias, one number a channel, all finite.
pub(super) struct FloatWeights<'a> {
    pub(super) values: &'a [f32],
    /// Only for weights without blocks.
    pub(super) bias: Option<&'a [f32]>,
    /// Which weights share a scale.
    pub(super) by: Granularity,
    /// Number of scales.
    pub(super) scales: usize,
}

/// Quantized weights.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weights {
    pub(super) values: Vec<i64>,
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<i64>,
    /// Bias in units of `input scale × weight scale`, and those units by channel or as one.
    pub(super) bias: Option<(Vec<i32>, Vec<f32>)>,
    /// Channels whose scale had to grow so that the bias fits.
    pub(super) enlarged: usize,
}

/// Scale and zero point of some weights.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Parameters {
    step: f32,
    zero: i32,
}

/// Weights in units of their scale, `w ≈ scale (q - zero)`.
///
/// The scale of types with more than 4 bits is `max |w| / most`, which clips nothing. That of coarser ones
/// minimizes `Σ (w - scale (q - zero))²` over each group of weights that share it (Nagel et al. 2021, section 3.1; for
/// binary weights it is the mean magnitude, Rastegari et al. 2016, equation 6), by search and a least-squares fit.
/// Powers of two are chosen by that error for all types.
///
/// The bias is `round(b / (input scale × weight scale))` (Jacob et al. 2018, equation 11). Where it would leave 32
/// bits the weight scale grows until it fits. A channel of zeros takes the scale that serves its bias best.
pub(super) fn quantize_weights(
    weights: &FloatWeights<'_>,
    input_scale: f32,
    format: &WeightFormat,
    kind: ScaleKind,
) -> Weights {
    let mut groups = vec![Vec::new(); weights.scales];
    for (i, w) in weights.values.iter().enumerate() {
        groups[weights.by.scale_of(i)].push(*w);
    }
    let grid = Grid {
        dtype: format.dtype,
        affine: format.is_affine(matches!(weights.by, Granularity::Block { .. })),
        kind,
    };
    let found = groups.par_iter().enumerate().map(|(at, group)| {
        let own = grid.fit(group);
        let needed = needed(weights, at, input_scale);
        if needed == 0.0 || own.is_some_and(|it| it.step >= needed) {
            return (own.unwrap_or(grid.of_zeros()), false);
        }
        let step = kind.above(needed.max(LEAST));
        (Parameters { step, zero: grid.zero_for(group, step) }, own.is_some())
    });
    let (parameters, enlarged): (Vec<Parameters>, Vec<bool>) = found.unzip();
    let quantized =
        |(i, &w): (usize, &f32)| i64::from(grid.quantize(w, parameters[weights.by.scale_of(i)]));
    let values = weights.values.iter().enumerate().map(quantized).collect();
    let bias = weights.bias.map(|bias| {
        let units: Vec<f32> = parameters.iter().map(|it| it.step * input_scale).collect();
        let unit = |c: usize| f64::from(units[c % units.len()]);
        let round = |(c, b): (usize, &f32)| (f64::from(*b) / unit(c)).round_ties_even() as i32;
        (bias.iter().enumerate().map(round).collect(), units)
    });
    Weights {
        values,
        scales: parameters.iter().map(|it| it.step).collect(),
        zeros: parameters.iter().map(|it| i64::from(it.zero)).collect(),
        bias,
        enlarged: enlarged.into_iter().filter(|it| *it).count(),
    }
}

/// The least scale of group `at` with which its bias fits.
fn needed(weights: &FloatWeights<'_>, at: usize, input_scale: f32) -> f32 {
    let largest = |bias: &[f32]| bias.iter().fold(0.0f32, |m, b| m.max(b.abs()));
    let bias = match (weights.bias, weights.by) {
        (None, _) => 0.0,
        (Some(bias), Granularity::Tensor) => largest(bias),
        (Some(bias), _) => bias[at].abs(),
    };
    // Rounded up by a hair, so that the quotient stays within the limit.
    (f64::from(bias) / (BIAS_LIMIT * f64::from(input_scale)) * (1.0 + 1e-6)) as f32
}

/// The integers of a type.
#[derive(Clone, Copy, Debug)]
struct Grid {
    dtype: WeightType,
    affine: bool,
    kind: ScaleKind,
}

impl Grid {
    /// Least and largest integer; without an odd one at the lower end if a byte is read around 128.
    fn limits(self) -> (i32, i32) {
        let (least, most) = self.dtype.limits();
        if least == 0 && !self.affine { (1, most) } else { (least, most) }
    }

    /// The zero point of symmetric weights, and of groups that hold nothing else.
    fn middle(self) -> i32 {
        let (least, most) = self.dtype.limits();
        if least == 0 { (most + 1) / 2 } else { 0 }
    }

    /// The parameters of weights that are all zero; binary ones cannot be, and are as small as can be.
    fn of_zeros(self) -> Parameters {
        let step = if self.dtype == WeightType::Binary { LEAST } else { 1.0 };
        Parameters { step, zero: self.middle() }
    }

    fn quantize(self, w: f32, by: Parameters) -> i32 {
        if self.dtype == WeightType::Binary {
            return if w < 0.0 { -1 } else { 1 };
        }
        let ((least, most), zero) = (self.limits(), by.zero as f32);
        ((w / by.step).round_ties_even() + zero).clamp(least as f32, most as f32) as i32
    }

    fn error(self, group: &[f32], by: Parameters) -> f64 {
        let back = |w: f32| (self.quantize(w, by) - by.zero) as f32 * by.step;
        group.iter().map(|&w| f64::from(w - back(w)).powi(2)).sum()
    }

    /// The scale that spreads the integers over `low` to `high`, which hold zero.
    fn spread(self, low: f32, high: f32) -> f32 {
        let ((least, most), zero) = (self.limits(), self.middle());
        let step = if self.affine {
            (high - low) / (most - least) as f32
        } else {
            (high / (most - zero) as f32).max(-low / (zero - least) as f32)
        };
        step.max(LEAST)
    }

    fn zero_at(self, low: f32, step: f32) -> i32 {
        if !self.affine {
            return self.middle();
        }
        let (least, most) = self.limits();
        ((least as f32 - low / step).round_ties_even()).clamp(least as f32, most as f32) as i32
    }

    fn zero_for(self, group: &[f32], step: f32) -> i32 {
        self.zero_at(extent(group).0, step)
    }

    fn parameters(self, low: f32, high: f32) -> Parameters {
        let step = self.spread(low, high);
        Parameters { step, zero: self.zero_at(low, step) }
    }

    /// The parameters of a group; `None` if it holds zeros alone.
    fn fit(self, group: &[f32]) -> Option<Parameters> {
        let (low, high) = extent(group);
        if low >= high {
            return None;
        }
        let coarse = self.dtype.is_coarse();
        let found = match (self.kind, coarse) {
            (ScaleKind::Float, false) => self.parameters(low, high),
            (ScaleKind::Float, true) => self.refined(group, self.searched(group, low, high)),
            (ScaleKind::PowerOfTwo, _) => {
                let most = self.kind.above(self.spread(low, high));
                let octaves = if coarse { OCTAVES.0 } else { OCTAVES.1 };
                let candidates = (0..=octaves).map(|octave| {
                    let step = (most / f32::from(1u16 << octave)).max(LEAST);
                    Parameters { step, zero: self.zero_at(low, step) }
                });
                self.best(group, candidates)
            }
        };
        Some(found)
    }

    /// The first of the candidates with the least error.
    fn best(self, group: &[f32], candidates: impl Iterator<Item = Parameters>) -> Parameters {
        let scored = candidates.map(|it| (self.error(group, it), it));
        scored.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(self.of_zeros(), |it| it.1)
    }

    /// Grid search over one end, or over both in turn.
    fn searched(self, group: &[f32], low: f32, high: f32) -> Parameters {
        let shares = || (1..=STEPS).rev().map(|it| f32::from(it) / f32::from(STEPS));
        if !self.affine {
            return self.best(group, shares().map(|it| self.parameters(low * it, high * it)));
        }
        let (mut from, mut to) = (low, high);
        let error = |from: f32, to: f32| self.error(group, self.parameters(from, to));
        let least = |of: &dyn Fn(f32) -> f64| {
            let scored = shares().map(|it| (of(it), it));
            scored.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |it| it.1)
        };
        for _ in 0..ROUNDS {
            to = high * least(&|share| error(from, high * share));
            from = low * least(&|share| error(low * share, to));
        }
        self.parameters(from, to)
    }

    /// Alternates between the integers of a scale and the scale that fits integers best, `Σ w q / Σ q²`, while that helps.
    fn refined(self, group: &[f32], mut at: Parameters) -> Parameters {
        let mut error = self.error(group, at);
        for _ in 0..ROUNDS {
            let (mut dot, mut norm) = (0.0f64, 0.0f64);
            for &w in group {
                let q = f64::from(self.quantize(w, at) - at.zero);
                dot += f64::from(w) * q;
                norm += q * q;
            }
            let next = Parameters { step: ((dot / norm.max(1.0)) as f32).max(LEAST), ..at };
            let found = self.error(group, next);
            if found >= error || norm == 0.0 {
                break;
            }
            (at, error) = (next, found);
        }
        at
    }
}

/// Least and largest weight, at most and at least zero.
fn extent(group: &[f32]) -> (f32, f32) {
    group.iter().fold((0.0, 0.0), |(low, high), &w| (w.min(low), w.max(high)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: &[WeightType] = &[
        WeightType::Int16,
        WeightType::Int8,
        WeightType::Int7,
        WeightType::Uint8,
        WeightType::Int4,
        WeightType::Uint4,
        WeightType::Int2,
        WeightType::Ternary,
        WeightType::Binary,
    ];

    fn channels(values: &[f32], extent: usize) -> FloatWeights<'_> {
        let inner = values.len() / extent;
        FloatWeights {
            values,
            bias: None,
            by: Granularity::Channel { extent, inner },
            scales: extent,
        }
    }

    fn format(dtype: WeightType) -> WeightFormat {
        WeightFormat { dtype, ..WeightFormat::default() }
    }

    fn back(it: &Weights, by: Granularity) -> Vec<f32> {
        let element = |(i, q): (usize, &i64)| {
            let at = by.scale_of(i);
            (q - it.zeros[at]) as f32 * it.scales[at]
        };
        it.values.iter().enumerate().map(element).collect()
    }

    fn error(float: &[f32], back: &[f32]) -> f64 {
        float.iter().zip(back).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    proptest! {
        #[test]
        fn fine_weights_are_within_half_a_step_and_coarse_ones_within_the_error_of_no_clipping(
            values in prop::collection::vec(-2f32..2.0, 24), bias in prop::collection::vec(-3f32..3.0, 4),
            input_scale in 1e-4f32..1.0,
        ) {
            for (&dtype, kind) in
                ALL.iter().flat_map(|it| [(it, ScaleKind::Float), (it, ScaleKind::PowerOfTwo)])
            {
                let float = FloatWeights { bias: Some(&bias), ..channels(&values, 4) };
                let it = quantize_weights(&float, input_scale, &format(dtype), kind);
                let (least, most) = dtype.limits();
                let fits = |q: &i64| i64::from(least) <= *q && *q <= i64::from(most);
                prop_assert!(it.values.iter().all(fits) && it.scales.iter().all(|it| it.is_normal()));
                if kind == ScaleKind::PowerOfTwo {
                    prop_assert!(it.scales.iter().all(|it| it.to_bits().trailing_zeros() >= 23));
                }
                let found = back(&it, float.by);
                let whole = |c: usize| {
                    let largest = values[6 * c..][..6].iter().fold(0.0f32, |m, w| m.max(w.abs()));
                    kind.above(largest / most as f32)
                };
                for c in 0..4 {
                    let at = 6 * c..6 * c + 6;
                    if !dtype.is_coarse() && kind == ScaleKind::Float {
                        let far = values[at.clone()].iter().zip(&found[at]).map(|(a, b)| (a - b).abs());
                        prop_assert!(far.fold(0.0, f32::max) <= it.scales[c] * 0.505, "{:?}", dtype);
                    } else if dtype == WeightType::Int4 {
                        let step = whole(c).max(LEAST);
                        let plain: Vec<f32> =
                            values[at.clone()].iter().map(|w| (w / step).round_ties_even() * step).collect();
                        let (plain, own) = (error(&values[at.clone()], &plain), error(&values[at.clone()], &found[at]));
                        prop_assert!(own <= plain * 1.001 + 1e-9, "{} for {}", own, plain);
                    }
                }
                let (quantized, units) = it.bias.unwrap();
                for c in 0..4 {
                    prop_assert!((f64::from(bias[c]) - f64::from(quantized[c]) * f64::from(units[c])).abs()
                        <= f64::from(units[c]) * 0.501);
                }
            }
        }
    }

    #[test]
    fn binary_weights_have_the_mean_magnitude() {
        let values = [0.5, -1.5, 1.0, -2.0];
        let it = quantize_weights(
            &channels(&values, 1),
            1.0,
            &format(WeightType::Binary),
            ScaleKind::Float,
        );
        assert_eq!(it.values, [1, -1, 1, -1]);
        assert!((it.scales[0] - 1.25).abs() < 1e-6, "{:?}", it.scales);
    }

    #[test]
    fn finer_types_and_finer_sharing_have_less_error() {
        let values: Vec<f32> =
            (0..256u16).map(|i| (f32::from(i) * 0.7).sin() * (1.0 + f32::from(i / 64))).collect();
        let of = |dtype| {
            let float = channels(&values, 4);
            error(
                &values,
                &back(&quantize_weights(&float, 1.0, &format(dtype), ScaleKind::Float), float.by),
            )
        };
        let types = [
            WeightType::Int16,
            WeightType::Int8,
            WeightType::Int7,
            WeightType::Int4,
            WeightType::Ternary,
            WeightType::Binary,
        ];
        let errors: Vec<f64> = types.iter().map(|it| of(*it)).collect();
        assert!(errors.is_sorted(), "{errors:?}");
        let by = [
            (Granularity::Block { extent: 64, inner: 1, block: 16 }, 16),
            (Granularity::Channel { extent: 4, inner: 64 }, 4),
            (Granularity::Tensor, 1),
        ];
        let errors: Vec<f64> = by
            .into_iter()
            .map(|(by, scales)| {
                let float = FloatWeights { values: &values, bias: None, by, scales };
                let it = quantize_weights(&float, 1.0, &format(WeightType::Int4), ScaleKind::Float);
                error(&values, &back(&it, by))
            })
            .collect();
        assert!(errors.is_sorted(), "{errors:?}");
    }

    #[test]
    fn dead_channels_and_large_biases_keep_their_bias() {
        let values = [0.0, 0.0, 1e-9, 1e-9, 0.5, -1.0, 0.0, 0.0];
        let bias = [0.7, 100.0, -0.25, 0.0];
        for (kind, dtype) in [
            (ScaleKind::Float, WeightType::Int8),
            (ScaleKind::PowerOfTwo, WeightType::Int8),
            (ScaleKind::Float, WeightType::Uint4),
        ] {
            let float = FloatWeights { bias: Some(&bias), ..channels(&values, 4) };
            let it = quantize_weights(&float, 1e-3, &format(dtype), kind);
            assert_eq!(it.enlarged, 1, "{dtype:?}");
            let (quantized, units) = it.bias.unwrap();
            for c in 0..4 {
                assert!(
                    it.scales[c].is_normal() && quantized[c].unsigned_abs() <= 1 << 30,
                    "{:?}",
                    it.scales
                );
                let back = quantized[c] as f32 * units[c];
                assert!(
                    (back - bias[c]).abs() <= 1e-4 * bias[c].abs(),
                    "channel {c}: {back} for {}",
                    bias[c]
                );
            }
        }
    }
}
