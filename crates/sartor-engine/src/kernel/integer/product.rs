//! Convolutions and matrix products of bytes with constant weights.

use super::{Held, IntegerKernel, Source, has_layout, turned};
use crate::simd::{ByteConv, ConvShape, Requant, Sink};

/// Quantized weights, zero points taken off.
pub(crate) struct Weights {
    /// [output, input, tap …].
    pub(crate) values: Vec<i8>,
    /// Scale of each output.
    pub(crate) scales: Vec<f32>,
}

/// What is known of a product when it is prepared.
pub(crate) struct ProductSite {
    /// The geometry; a matrix product is a convolution of one tap.
    pub(crate) geometry: ConvShape,
    /// Shape of the input.
    pub(crate) shape: Vec<usize>,
    /// How the input is held.
    pub(crate) x: Held,
    /// Whether the kernel wants channels last.
    pub(crate) channels_last: bool,
    /// The weights.
    pub(crate) weights: Weights,
    /// One number for each output, or none.
    pub(crate) bias: Vec<f32>,
    /// Real limits of the result.
    pub(crate) limits: (f32, f32),
    /// How the result is held; floats if it is not.
    pub(crate) y: Option<Held>,
}

#[derive(Debug)]
struct ProductKernel {
    conv: ByteConv,
    macs: usize,
    shape: Vec<usize>,
    from: bool,
    to: bool,
    /// Whether floats lie channels first.
    planes: bool,
}

/// The kernel; `None` if a sum could leave 32 bits or a scale is no number.
pub(crate) fn prepare(site: &ProductSite) -> Option<Box<dyn IntegerKernel>> {
    let requant = requant(site)?;
    let conv = ByteConv::new(&site.geometry, &site.weights.values, site.x.zero, &requant);
    let (shape, from, to) = (site.shape.clone(), site.x.channels_last, site.channels_last);
    let of = &site.geometry;
    let macs = of.batch * of.out_channels * of.out_h * of.out_w * of.terms();
    let to_last = to && has_layout(&shape);
    Some(Box::new(ProductKernel { conv, macs, to: to_last, shape, from, planes: to }))
}

fn requant(site: &ProductSite) -> Option<Requant> {
    let terms = site.geometry.terms();
    let (unit, zero, bounds) = match &site.y {
        Some(it) => (it.scale, i32::from(it.zero), it.bounds(site.limits)),
        None => (1.0, 0, site.limits),
    };
    let mut made = Requant { bounds, zero, ..Requant::default() };
    for o in 0..site.geometry.out_channels {
        let weights = site.weights.values.get(o * terms..(o + 1) * terms)?;
        let step = site.x.scale * site.weights.scales[o];
        let bias = site.bias.get(o).copied().unwrap_or(0.0);
        let (whole, rest) = whole_steps(bias, step);
        let of = |keep: fn(i64) -> i64| weights.iter().map(|&w| keep(i64::from(w))).sum::<i64>();
        let correction = -i64::from(site.x.zero) * of(|w| w) + whole;
        let largest = 255 * of(|w| w.max(0)) + correction.max(0);
        let smallest = 255 * of(|w| w.min(0)) + correction.min(0);
        i32::try_from(largest).ok()?;
        i32::try_from(smallest).ok()?;
        made.bias.push(i32::try_from(correction).ok()?);
        made.factor.push(step / unit);
        made.addend.push(rest / unit);
    }
    let sound = made.factor.iter().chain(&made.addend).all(|it| it.is_finite());
    sound.then_some(made)
}

/// A bias as steps of the sum if it is a whole number of them, as far as its own rounding lets one see; what is left.
fn whole_steps(bias: f32, step: f32) -> (i64, f32) {
    let steps = f64::from(bias) / f64::from(step);
    let whole = steps.round_ties_even();
    if (steps - whole).abs() <= steps.abs() * 2f64.powi(-22) && whole.abs() < 2f64.powi(31) {
        (whole as i64, 0.0)
    } else {
        (0, bias)
    }
}

impl IntegerKernel for ProductKernel {
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>) {
        let x = turned(inputs[0].bytes(), &self.shape, self.from, self.to);
        let y = match y {
            Sink::Floats(y) if self.planes => Sink::Planes(y),
            other => other,
        };
        self.conv.run(&x, y);
    }

    fn macs(&self) -> usize {
        self.macs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_of_whole_steps_are_added_before_rounding() {
        let step = 0.0123f32 * 0.00456;
        assert_eq!(whole_steps(12_345_678.0 * step, step), (12_345_678, 0.0));
        assert_eq!(whole_steps(-3.0 * step, step), (-3, 0.0));
        assert_eq!(whole_steps(0.0, step), (0, 0.0));
        assert_eq!(whole_steps(2.5 * step, step), (0, 2.5 * step));
    }
}
