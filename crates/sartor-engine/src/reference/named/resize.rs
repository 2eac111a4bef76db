//! Resampling on a regular grid (<https://onnx.ai/onnx/operators/onnx__Resize.html>,
//! <https://onnx.ai/onnx/operators/onnx__Upsample.html>).
//!
//! Interpolation is linear in the input and goes axis by axis: every index of an output axis is a weighted
//! sum of a few indices of the input axis. The gradient is the transposed map.

use rayon::prelude::*;
use sartor_ir::{Coordinates, DType, Interpolation, Named, NearestMode, Resize, ResizedAxis};

use super::{Lanes, Rule, output_shape};
use crate::{
    Array, Data,
    array::{Element, each},
    reference::{
        elementwise::Float,
        evaluate::{array, integers, optional},
        layout::{self, strides},
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "Resize", evaluate: resize },
    Rule { domain: "", name: "Upsample", evaluate: resize },
];

/// The weighted sums of one axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taps {
    /// Extent of the input.
    pub(crate) input: usize,
    /// Taps of each sum; all have as many.
    pub(crate) count: usize,
    /// Index and weight of every tap of every sum.
    pub(crate) all: Vec<(usize, f64)>,
    /// Sums that lie outside of the input and take the extrapolated value.
    pub(crate) outside: Vec<bool>,
}

/// What a `Resize` does to its input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) interpolation: Interpolation,
    pub(crate) extrapolation: f32,
    /// By axis; `None` where nothing changes.
    pub(crate) axes: Vec<Option<Taps>>,
    /// Extents of the output.
    pub(crate) shape: Vec<usize>,
}

impl Plan {
    /// The plan for these inputs.
    ///
    /// # Errors
    /// Attributes and inputs that do not fit.
    pub(crate) fn new(op: &Named, inputs: &[Option<&Array>]) -> Result<Self, String> {
        let it = Resize::read(op)?;
        let x = array(inputs, 0)?;
        let [region, scales, sizes] = it.inputs();
        let floats = |at: Option<usize>| {
            at.and_then(|at| optional(inputs, at)).map(Array::to_f32).unwrap_or_default()
        };
        let sizes = sizes.and_then(|at| integers(inputs, at)).unwrap_or_default();
        let axes = it.resolve(&x.shape, &floats(region), &floats(scales), &sizes)?;
        let crop = it.coordinates == Coordinates::TfCropAndResize;
        let changes = |axis: &ResizedAxis| {
            axis.input != axis.output || axis.scale.to_bits() != 1f32.to_bits() || crop
        };
        // Checks the size as well.
        output_shape(op, inputs)?;
        if axes.iter().any(|it| it.input == 0 && it.output > 0) {
            return Err(format!("input {:?} has no elements to resize", x.shape));
        }
        Ok(Plan {
            interpolation: it.interpolation,
            extrapolation: it.extrapolation,
            axes: axes.iter().map(|axis| changes(axis).then(|| taps(&it, axis))).collect(),
            shape: axes.iter().map(|it| it.output).collect(),
        })
    }

    /// For each index of each output axis the nearest index of the input, `None` outside.
    pub(crate) fn nearest(&self) -> Vec<Vec<Option<usize>>> {
        let table = |(axis, &n): (&Option<Taps>, &usize)| match axis {
            None => (0..n).map(Some).collect(),
            Some(it) => {
                let one = |(tap, outside): (&(usize, f64), &bool)| (!outside).then_some(tap.0);
                it.all.iter().zip(&it.outside).map(one).collect()
            }
        };
        self.axes.iter().zip(&self.shape).map(table).collect()
    }

    /// Whether element `at` of the output takes the extrapolated value.
    fn is_outside(&self, at: usize, strides: &[usize]) -> bool {
        let axis = |(axis, taps): (usize, &Option<Taps>)| {
            taps.as_ref().is_some_and(|it| it.outside[at / strides[axis] % self.shape[axis]])
        };
        self.axes.iter().enumerate().any(axis)
    }

    /// Sets every element of `y` that lies outside of the input.
    pub(crate) fn extrapolate<T: Copy + Send>(&self, y: &mut [T], value: T) {
        if !self.axes.iter().flatten().any(|it| it.outside.contains(&true)) {
            return;
        }
        let steps = strides(&self.shape);
        for (at, y) in y.iter_mut().enumerate() {
            if self.is_outside(at, &steps) {
                *y = value;
            }
        }
    }
}

/// Where index `i` of the output lies in the input: in single precision, so that ties fall as elsewhere.
fn place(coordinates: Coordinates, axis: &ResizedAxis, i: usize) -> f32 {
    let (i, input, output) = (i as f32, axis.input as f32, axis.output as f32);
    let half = (i + 0.5) / axis.scale - 0.5;
    match coordinates {
        Coordinates::HalfPixelSymmetric => {
            let adjustment = output / (axis.scale * input);
            input / 2.0 * (1.0 - adjustment) + (i + 0.5) / axis.scale - 0.5
        }
        Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if axis.output == 1 => 0.0,
        Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => half,
        // The extent before it was rounded, as ONNX's own tests have it.
        Coordinates::AlignCorners => i * (input - 1.0) / (axis.scale * input - 1.0),
        Coordinates::Asymmetric => i / axis.scale,
        Coordinates::TfHalfPixelForNn => (i + 0.5) / axis.scale,
        Coordinates::TfCropAndResize => {
            let (start, end) = axis.region;
            if axis.output > 1 {
                start * (input - 1.0) + i * (end - start) * (input - 1.0) / (output - 1.0)
            } else {
                0.5 * (start + end) * (input - 1.0)
            }
        }
    }
}

fn round(mode: NearestMode, x: f64, shrinks: bool) -> f64 {
    match mode {
        NearestMode::RoundPreferFloor => (x - 0.5).ceil(),
        NearestMode::RoundPreferCeil => (x + 0.5).floor(),
        NearestMode::Ceil => x.ceil(),
        NearestMode::Simple if shrinks => x.ceil(),
        NearestMode::Floor | NearestMode::Simple => x.floor(),
    }
}

/// The weight of a neighbour at a distance: the triangle, or Keys's cubic.
fn weight(it: &Resize, distance: f64) -> f64 {
    let (x, a) = (distance.abs(), f64::from(it.cubic_coefficient));
    match it.interpolation {
        Interpolation::Cubic if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        Interpolation::Cubic if x < 2.0 => ((x - 5.0) * x + 8.0) * x * a - 4.0 * a,
        Interpolation::Cubic => 0.0,
        _ => (1.0 - x).max(0.0),
    }
}

/// The sums of one axis.
fn taps(it: &Resize, axis: &ResizedAxis) -> Taps {
    let last = axis.input.saturating_sub(1) as f64;
    let crop = it.coordinates == Coordinates::TfCropAndResize;
    let clamped = |at: f64| at.clamp(0.0, last) as usize;
    // Against aliases the filter grows as the image shrinks.
    let widen = if it.antialias { f64::from(axis.scale.min(1.0)) } else { 1.0 };
    let support = if it.interpolation == Interpolation::Cubic { 2.0 } else { 1.0 };
    let first = (-support / widen).floor() as i64 + 1;
    let count = match it.interpolation {
        Interpolation::Nearest => 1,
        _ => (2 - 2 * first) as usize,
    };
    let mut made = Taps {
        input: axis.input,
        count,
        all: Vec::with_capacity(axis.output * count),
        outside: Vec::with_capacity(axis.output),
    };
    for i in 0..axis.output {
        let at = f64::from(place(it.coordinates, axis, i));
        made.outside.push(crop && !(0.0..=last).contains(&at));
        if it.interpolation == Interpolation::Nearest {
            made.all.push((clamped(round(it.nearest, at, axis.scale < 1.0)), 1.0));
            continue;
        }
        // The neighbour to the left, so that what is left lies in (0, 1].
        let base = at.ceil() - 1.0;
        let one = |k: i64| {
            let (index, distance) = (base + k as f64, k as f64 - (at - base));
            let counts = !it.exclude_outside || (0.0..=last).contains(&index);
            let weight = if counts { weight(it, distance * widen) } else { 0.0 };
            (clamped(index), weight)
        };
        let own: Vec<_> = (first..first + count as i64).map(one).collect();
        let sum: f64 = own.iter().map(|it| it.1).sum();
        made.all.extend(own.iter().map(|it| (it.0, if sum == 0.0 { 0.0 } else { it.1 / sum })));
    }
    made
}

/// The weighted sums of `x` along one axis, each in 64 bits; slabs before the axis are independent.
fn along<T: Float>(x: &[T], lanes: Lanes, taps: &Taps) -> Vec<T> {
    let (from, to) = (lanes.extent * lanes.inner, taps.outside.len() * lanes.inner);
    let mut y = vec![T::default(); lanes.outer * to];
    if from == 0 || to == 0 {
        return y;
    }
    y.par_chunks_mut(to).zip(x.par_chunks(from)).for_each(|(y, x)| {
        let sums = y.chunks_exact_mut(lanes.inner).zip(taps.all.chunks_exact(taps.count));
        for (y, taps) in sums {
            for (j, y) in y.iter_mut().enumerate() {
                let term = |&(at, weight): &(usize, f64)| -> f64 {
                    let it: f64 = x[at * lanes.inner + j].into();
                    it * weight
                };
                *y = T::narrow(taps.iter().map(term).sum());
            }
        }
    });
    y
}

fn interpolated<T: Float>(plan: &Plan, mut shape: Vec<usize>, values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    for (axis, taps) in plan.axes.iter().enumerate().rev() {
        let Some(taps) = taps else { continue };
        values = along(&values, Lanes::new(&shape, axis), taps);
        shape[axis] = taps.outside.len();
    }
    plan.extrapolate(&mut values, T::narrow(plan.extrapolation.into()));
    values
}

/// The element at each place of `tables`, the extrapolated value where they name none.
fn picked<T: Element>(x: &[T], shape: &[usize], plan: &Plan, fill: T) -> Vec<T> {
    let mut y = vec![fill; plan.shape.iter().product()];
    layout::pad(x, shape, &plan.nearest(), fill, &mut y);
    y
}

fn resize(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Result<Vec<Array>, String> {
    let plan = Plan::new(op, inputs)?;
    let x = array(inputs, 0)?;
    if plan.interpolation == Interpolation::Nearest {
        let fill = Array::f32(&[1], vec![plan.extrapolation]).cast(x.dtype());
        let fill = fill.ok_or("text cannot be resized")?.data;
        let data = each!(&x.data, values => {
            let fill = like(values, &fill).and_then(|it| it.first().copied()).unwrap_or_default();
            picked(values, &x.shape, &plan, fill)
        });
        return Ok(vec![Array { shape: plan.shape, data }]);
    }
    let data = match &x.data {
        Data::F32(values) => Data::F32(interpolated(&plan, x.shape.clone(), values)),
        _ => Data::F64(interpolated(&plan, x.shape.clone(), &x.to_f64())),
    };
    let made = Array { shape: plan.shape, data }.cast(x.dtype());
    Ok(vec![made.ok_or("text cannot be resized")?])
}

/// The elements of `data` if they are of the type of `_first`.
fn like<'a, T: Element>(_first: &[T], data: &'a Data) -> Option<&'a [T]> {
    T::of(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::{evaluate, tests::named};
    use sartor_ir::{Attr, Attrs};

    fn line(words: &[(&str, &str)], x: &[f32], scale: f32) -> Vec<f32> {
        let attrs = words
            .iter()
            .fold(Attrs::new(), |it, (name, word)| it.with(name, Attr::Str((*word).to_owned())));
        let x = Array::f32(&[x.len()], x.to_vec());
        let scale = Array::f32(&[1], vec![scale]);
        let made =
            evaluate(&named("Resize", attrs), &[Some(&x), None, Some(&scale)], &[DType::F32]);
        made.unwrap()[0].to_f32()
    }

    /// The pages of ONNX have these in two dimensions.
    #[test]
    fn lines() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let linear = ("mode", "linear");
        assert_eq!(line(&[], &x[..2], 2.0), [1.0, 1.0, 2.0, 2.0]);
        assert_eq!(line(&[linear], &x[..2], 2.0), [1.0, 1.25, 1.75, 2.0]);
        let corners = ("coordinate_transformation_mode", "align_corners");
        let second = line(&[linear, corners], &x[..2], 2.0)[1];
        assert!((second - 4.0 / 3.0).abs() < 1e-6, "{second}");
        let asymmetric = ("coordinate_transformation_mode", "asymmetric");
        assert_eq!(line(&[asymmetric, ("nearest_mode", "floor")], &x, 0.5), [1.0, 3.0]);
        let cubic = line(&[("mode", "cubic")], &x, 2.0);
        assert!((cubic[1] - 1.191_406_3).abs() < 1e-6, "{cubic:?}");
    }

    #[test]
    fn a_fine_filter_sees_all_pixels() {
        let attrs =
            Attrs::new().with("mode", Attr::Str("linear".into())).with("antialias", Attr::Int(1));
        let x = Array::f32(&[8], vec![0., 0., 0., 8., 0., 0., 0., 0.]);
        let scale = Array::f32(&[1], vec![0.25]);
        let made =
            evaluate(&named("Resize", attrs), &[Some(&x), None, Some(&scale)], &[DType::F32]);
        let sum: f32 = made.unwrap()[0].to_f32().iter().sum();
        assert!((sum - 2.0).abs() < 0.3, "{sum}");
    }
}
