//! Scales and zero points: `x = scale (q - zero_point)` (Jacob et al. 2018, equation 1).

use std::collections::BTreeMap;

use rayon::prelude::*;
use sartor_ir::{Tensor, ValueId};

use super::{ActivationFormat, ActivationType, QuantizeStatic, ScaleKind, place::Plan, range};
use crate::calibrate::Observer;

/// The least scale, `2^-60`: the product of two is still a normal float32, so that no bias scale vanishes.
pub(super) const LEAST: f32 = 1.0 / (1u64 << 60) as f32;

/// The per-tensor parameters of an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// The scale: the distance of two neighbouring integers.
    pub(super) step: f32,
    pub(super) zero_point: i32,
    dtype: ActivationType,
}

/// Least and largest integer of a format; symmetric ones leave out the odd one at the lower end.
pub(super) fn limits(format: &ActivationFormat) -> (i32, i32) {
    let (least, most) = integers(format.dtype);
    (if format.symmetric { least + 1 } else { least }, most)
}

fn integers(dtype: ActivationType) -> (i32, i32) {
    dtype.limits().expect("floats are given no scale")
}

impl Scale {
    /// The parameters that spread the format's integers over `range`, with 0 exactly on one of them. A range
    /// without extent, of an activation that is always zero, gets the scale 1. A power of two is rounded up.
    pub(super) fn of(range: range::Range, format: &ActivationFormat, kind: ScaleKind) -> Self {
        let (least, most) = limits(format);
        let (low, high) = (f64::from(range.low), f64::from(range.high));
        let middle = i32::midpoint(least, most);
        let (extent, steps) = if format.symmetric {
            (low.abs().max(high), f64::from(most - middle))
        } else {
            (high - low, f64::from(most - least))
        };
        let step = if extent > 0.0 { ((extent / steps) as f32).max(LEAST) } else { 1.0 };
        let step = kind.above(step);
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
        let x = f64::from(x);
        let error = x - self.nearest(x);
        error * error
    }

    /// `dq(q(x))`.
    pub(super) fn rounded(&self, x: f32) -> f32 {
        self.nearest(f64::from(x)) as f32
    }

    fn nearest(&self, x: f64) -> f64 {
        let (least, most) = integers(self.dtype);
        let (least, most) = (f64::from(least), f64::from(most));
        let (scale, zero) = (f64::from(self.step), f64::from(self.zero_point));
        // Truncation after a shift to non-negative numbers rounds, and needs no library call.
        let shifted = ((x / scale + zero).clamp(least, most) - least + 0.5) as i32;
        (f64::from(shifted) + least - zero) * scale
    }

    /// The scale as a scalar.
    pub(super) fn scale_tensor(&self) -> Tensor {
        Tensor::from_f32(&[], &[self.step])
    }

    /// The zero point as a scalar of the format's type.
    pub(super) fn zero_point_tensor(&self) -> Tensor {
        Tensor::from_integers(self.dtype.dtype(), &[], &[i64::from(self.zero_point)])
            .expect("the type is one of integers, and this is one number")
    }
}

/// What was seen of each class of values that share parameters.
pub(super) fn by_class(
    plan: &Plan,
    observers: &BTreeMap<ValueId, Observer>,
) -> BTreeMap<ValueId, Observer> {
    let mut classes: BTreeMap<ValueId, Observer> = BTreeMap::new();
    for (value, observer) in observers {
        let class = plan.class(*value);
        let joint = classes.get(&class).map_or_else(|| observer.clone(), |it| it.merged(observer));
        classes.insert(class, joint);
    }
    classes
}

/// The parameters of each class of values.
pub(super) fn activation_scales(
    classes: &BTreeMap<ValueId, Observer>,
    config: &QuantizeStatic,
) -> BTreeMap<ValueId, Scale> {
    let found = classes.par_iter().map(|(&class, observer)| {
        let range = range::find(observer, config.ranges, &config.activations, config.scales);
        (class, Scale::of(range, &config.activations, config.scales))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use range::Range;

    fn formats() -> Vec<ActivationFormat> {
        use ActivationType::{Int4, Int8, Int16, Uint4, Uint8, Uint16};
        let all = [Uint8, Int8, Uint16, Int16, Uint4, Int4].into_iter();
        all.flat_map(|dtype| [false, true].map(|symmetric| ActivationFormat { dtype, symmetric }))
            .collect()
    }

    proptest! {
        #[test]
        fn rounding_is_within_half_a_step_and_zero_is_exact(
            low in -1000f32..10.0, extent in 1e-3f32..1000.0, at in 0f32..=1.0,
        ) {
            let range = Range::around(low, low + extent);
            for (format, kind) in formats().into_iter().flat_map(|it| {
                [(it.clone(), ScaleKind::Float), (it, ScaleKind::PowerOfTwo)]
            }) {
                let scale = Scale::of(range, &format, kind);
                prop_assert!(kind == ScaleKind::Float || scale.step.to_bits().trailing_zeros() >= 23);
                let x = range.low + at * (range.high - range.low);
                let error = scale.squared_error(x).sqrt();
                prop_assert!(error <= f64::from(scale.step) * 0.501, "{:?} {} {}", format, x, error);
                prop_assert!(scale.squared_error(0.0) <= 0.0);
            }
        }
    }

    #[test]
    fn zero_points_by_format() {
        let range = Range { low: -1.0, high: 3.0 };
        let expected = [(ActivationType::Uint8, false, 64), (ActivationType::Uint8, true, 128)];
        let signed = [(ActivationType::Int8, false, -64), (ActivationType::Int8, true, 0)];
        for (dtype, symmetric, zero_point) in expected.into_iter().chain(signed) {
            let scale = Scale::of(range, &ActivationFormat { dtype, symmetric }, ScaleKind::Float);
            assert_eq!(scale.zero_point, zero_point, "{dtype:?} {symmetric}");
        }
        let none = Scale::of(
            Range { low: 0.0, high: 0.0 },
            &ActivationFormat::default(),
            ScaleKind::Float,
        );
        assert_eq!((none.step.to_bits(), none.zero_point), (1f32.to_bits(), 0));
    }
}
