//! Scales and zero points: `x = scale (q - zero_point)` (Jacob et al. 2018, equation 1).

use std::collections::BTreeMap;

use rayon::prelude::*;
use sartor_ir::{Tensor, ValueId};

use super::{ActivationFormat, ActivationType, QuantizeStatic, WeightFormat, place::Plan, range};
use crate::calibrate::Observer;

/// The least scale, `2^-60`: the product of two is still a normal float32, so that no bias scale vanishes.
const LEAST: f32 = 1.0 / (1u64 << 60) as f32;

/// The largest quantized bias, `2^30`: half of int32 stays free for the sum of the products.
const BIAS_LIMIT: f64 = (1u64 << 30) as f64;

/// The per-tensor parameters of an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// The scale: the distance of two neighbouring integers.
    pub(super) step: f32,
    pub(super) zero_point: i32,
    dtype: ActivationType,
}

/// Least and largest integer of a format; symmetric ones leave out the odd one at the lower end.
fn limits(format: &ActivationFormat) -> (i32, i32) {
    match (format.dtype, format.symmetric) {
        (ActivationType::Uint8, false) => (0, 255),
        (ActivationType::Uint8, true) => (1, 255),
        (ActivationType::Int8, false) => (-128, 127),
        (ActivationType::Int8, true) => (-127, 127),
    }
}

impl Scale {
    /// The parameters that spread the format's integers over `range`, with 0 exactly on one of them. A range
    /// without extent, of an activation that is always zero, gets the scale 1.
    pub(super) fn of(range: range::Range, format: &ActivationFormat) -> Self {
        let (least, most) = limits(format);
        let (low, high) = (f64::from(range.low), f64::from(range.high));
        let middle = i32::midpoint(least, most);
        let (extent, steps) = if format.symmetric {
            (low.abs().max(high), f64::from(most - middle))
        } else {
            (high - low, f64::from(most - least))
        };
        let step = if extent > 0.0 { ((extent / steps) as f32).max(LEAST) } else { 1.0 };
        let zero_point = if format.symmetric {
            middle
        } else {
            (f64::from(least) - low / f64::from(step))
                .round()
                .clamp(f64::from(least), f64::from(most)) as i32
        };
        Scale { step, zero_point, dtype: format.dtype }
    }

    /// `(x - dq(q(x)))²`.
    pub(super) fn squared_error(&self, x: f32) -> f64 {
        let (least, most) = match self.dtype {
            ActivationType::Uint8 => (0.0, 255.0),
            ActivationType::Int8 => (-128.0, 127.0),
        };
        let (x, scale, zero) = (f64::from(x), f64::from(self.step), f64::from(self.zero_point));
        // Truncation after a shift to non-negative numbers rounds, and needs no library call.
        let shifted = ((x / scale + zero).clamp(least, most) - least + 0.5) as i32;
        let back = (f64::from(shifted) + least - zero) * scale;
        (x - back) * (x - back)
    }

    /// The scale as a scalar.
    pub(super) fn scale_tensor(&self) -> Tensor {
        Tensor::from_f32(&[], &[self.step])
    }

    /// The zero point as a scalar of the format's type.
    pub(super) fn zero_point_tensor(&self) -> Tensor {
        match self.dtype {
            ActivationType::Uint8 => Tensor::from_u8(&[], &[self.zero_point as u8]),
            ActivationType::Int8 => Tensor::from_i8(&[], &[self.zero_point as i8]),
        }
    }
}

/// The parameters of each class of values that share them.
pub(super) fn activation_scales(
    plan: &Plan,
    observers: &BTreeMap<ValueId, Observer>,
    config: &QuantizeStatic,
) -> BTreeMap<ValueId, Scale> {
    let mut classes: BTreeMap<ValueId, Observer> = BTreeMap::new();
    for (value, observer) in observers {
        let class = plan.class(*value);
        let joint = classes.get(&class).map_or_else(|| observer.clone(), |it| it.merged(observer));
        classes.insert(class, joint);
    }
    let found = classes.par_iter().map(|(&class, observer)| {
        let range = range::find(observer, config.ranges, &config.activations);
        (class, Scale::of(range, &config.activations))
    });
    found.collect()
}

/// Quantized weights.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weights {
    pub(super) values: Vec<i8>,
    /// One for each channel, or a single one.
    pub(super) scales: Vec<f32>,
    /// Bias in units of `input scale × weight scale`, and those units by channel.
    pub(super) bias: Option<(Vec<i32>, Vec<f32>)>,
    /// Channels whose scale had to grow so that the bias fits.
    pub(super) enlarged: usize,
}

/// Weights `[outer, channels, inner]` and their bias `[channels]`, all finite.
pub(super) struct FloatWeights<'a> {
    pub(super) values: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) channels: usize,
    pub(super) inner: usize,
}

/// Symmetric weights: `scale = max |w| / most`, by channel or as a whole; the bias is
/// `round(b / (input scale × weight scale))` (Jacob et al. 2018, equation 11). Where it would leave 32 bits
/// the weight scale grows until it fits. A channel of zeros takes the scale that serves its bias best.
pub(super) fn quantize_weights(
    weights: &FloatWeights,
    input_scale: f32,
    format: &WeightFormat,
) -> Weights {
    let most = ((1u32 << (format.bits - 1)) - 1) as f32;
    let channel_of = |i: usize| (i / weights.inner.max(1)) % weights.channels.max(1);
    let mut largest = vec![0.0f32; weights.channels];
    for (i, w) in weights.values.iter().enumerate() {
        let it = &mut largest[channel_of(i)];
        *it = it.max(w.abs());
    }
    let needed = |c: usize| {
        let bias = weights.bias.map_or(0.0, |it| f64::from(it[c].abs()));
        // Rounded up by a hair, so that the quotient stays within the limit.
        (bias / (BIAS_LIMIT * f64::from(input_scale)) * (1.0 + 1e-6)) as f32
    };
    let mut enlarged = 0;
    let mut scales: Vec<f32> = Vec::with_capacity(weights.channels);
    for (c, largest) in largest.iter().enumerate() {
        let wanted = largest / most;
        enlarged += usize::from(*largest > 0.0 && needed(c) > wanted);
        let unused = *largest == 0.0 && needed(c) == 0.0;
        scales.push(if unused { 1.0 } else { wanted.max(needed(c)).max(LEAST) });
    }
    if !format.per_channel {
        let live =
            (0..scales.len()).filter(|&c| largest[c] > 0.0 || needed(c) > 0.0).map(|c| scales[c]);
        let joint = live.reduce(f32::max).unwrap_or(1.0);
        scales.fill(joint);
    }
    let quantized = |(i, w): (usize, &f32)| {
        (w / scales[channel_of(i)]).round_ties_even().clamp(-most, most) as i8
    };
    let values = weights.values.iter().enumerate().map(quantized).collect();
    let bias = weights.bias.map(|bias| {
        let units: Vec<f32> = scales.iter().map(|it| it * input_scale).collect();
        let round =
            |(b, unit): (&f32, &f32)| (f64::from(*b) / f64::from(*unit)).round_ties_even() as i32;
        (bias.iter().zip(&units).map(round).collect(), units)
    });
    Weights { values, scales, bias, enlarged }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use range::Range;

    fn formats() -> Vec<ActivationFormat> {
        let all = [ActivationType::Uint8, ActivationType::Int8].into_iter();
        all.flat_map(|dtype| [false, true].map(|symmetric| ActivationFormat { dtype, symmetric }))
            .collect()
    }

    proptest! {
        #[test]
        fn rounding_is_within_half_a_step_and_zero_is_exact(
            low in -1000f32..10.0, extent in 1e-3f32..1000.0, at in 0f32..=1.0,
        ) {
            let range = Range::around(low, low + extent);
            for format in formats() {
                let scale = Scale::of(range, &format);
                let x = range.low + at * (range.high - range.low);
                let error = scale.squared_error(x).sqrt();
                prop_assert!(error <= f64::from(scale.step) * 0.501, "{:?} {} {}", format, x, error);
                prop_assert!(scale.squared_error(0.0) <= 0.0);
            }
        }

        #[test]
        fn weights_are_within_half_a_step(
            values in prop::collection::vec(-2f32..2.0, 24), bias in prop::collection::vec(-3f32..3.0, 4),
            input_scale in 1e-4f32..1.0, bits in 7u32..=8, per_channel: bool,
        ) {
            let float = FloatWeights { values: &values, bias: Some(&bias), channels: 4, inner: 3 };
            let it = quantize_weights(&float, input_scale, &WeightFormat { bits, per_channel });
            for (i, w) in values.iter().enumerate() {
                let scale = it.scales[i / 3 % 4];
                prop_assert!((w - f32::from(it.values[i]) * scale).abs() <= scale * 0.501);
            }
            let (quantized, units) = it.bias.unwrap();
            for c in 0..4 {
                prop_assert!((f64::from(bias[c]) - f64::from(quantized[c]) * f64::from(units[c])).abs()
                    <= f64::from(units[c]) * 0.501);
            }
        }
    }

    #[test]
    fn zero_points_by_format() {
        let range = Range { low: -1.0, high: 3.0 };
        let expected = [(ActivationType::Uint8, false, 64), (ActivationType::Uint8, true, 128)];
        let signed = [(ActivationType::Int8, false, -64), (ActivationType::Int8, true, 0)];
        for (dtype, symmetric, zero_point) in expected.into_iter().chain(signed) {
            let scale = Scale::of(range, &ActivationFormat { dtype, symmetric });
            assert_eq!(scale.zero_point, zero_point, "{dtype:?} {symmetric}");
        }
        let none = Scale::of(Range { low: 0.0, high: 0.0 }, &ActivationFormat::default());
        assert_eq!((none.step.to_bits(), none.zero_point), (1f32.to_bits(), 0));
    }

    #[test]
    fn dead_channels_and_large_biases_keep_their_bias() {
        let values = [0.0, 0.0, 1e-9, 1e-9, 0.5, -1.0, 0.0, 0.0];
        let bias = [0.7, 100.0, -0.25, 0.0];
        let float = FloatWeights { values: &values, bias: Some(&bias), channels: 4, inner: 2 };
        let it = quantize_weights(&float, 1e-3, &WeightFormat::default());
        assert_eq!(it.enlarged, 1);
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
