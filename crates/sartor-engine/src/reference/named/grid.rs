//! Sampling at given places (<https://onnx.ai/onnx/operators/onnx__GridSample.html>,
//! <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>,
//! <https://onnx.ai/onnx/operators/onnx__DeformConv.html>).
//!
//! A sample is a sum over few neighbours along each axis; each neighbour's weight has a slope by the
//! coordinate, from which the gradient of the grid follows (Jaderberg et al. 2015, "Spatial transformer
//! networks", equations 5 to 7).

use sartor_ir::{Conv, DType, Named, Op, Spatial};

use super::{Rule, output_shape};
use crate::{
    Array, Data,
    reference::{
        conv::Window,
        evaluate::{array, optional, windows},
        layout::strides,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "GridSample", evaluate: grid_sample },
    Rule { domain: "", name: "AffineGrid", evaluate: affine_grid },
    Rule { domain: "", name: "DeformConv", evaluate: deform_conv },
];

type Made = Result<Vec<Array>, String>;

/// How samples are made of their neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// The attributes of `GridSample`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampler {
    mode: Mode,
    outside: Outside,
    align_corners: bool,
}

/// A neighbour along one axis: its index (`None` for a zero), its weight, and the weight's slope by the
/// coordinate.
type Neighbour = (Option<usize>, f64, f64);

/// A neighbour in space: its offset in a plane, its weight, and the weight's slopes by each coordinate of the
/// grid, as the grid orders them (innermost axis first).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tap {
    pub(crate) offset: usize,
    pub(crate) weight: f64,
    pub(crate) slopes: [f64; MOST_AXES],
}

/// Axes of space that a sample can have.
const MOST_AXES: usize = 4;

/// Coefficient of the cubic (Keys 1981), as ONNX fixes it.
const CUBIC: f64 = -0.75;

impl Sampler {
    pub(crate) fn read(op: &Named) -> Result<Self, String> {
        let mode = match op.text("mode", "linear")? {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" | "bicubic" => Mode::Cubic,
            other => return Err(format!("attribute `mode`: `{other}` is not known")),
        };
        let outside = match op.text("padding_mode", "zeros")? {
            "zeros" => Outside::Zeros,
            "border" => Outside::Border,
            "reflection" => Outside::Reflection,
            other => return Err(format!("attribute `padding_mode`: `{other}` is not known")),
        };
        Ok(Sampler { mode, outside, align_corners: op.flag("align_corners", false)? })
    }

    /// The middles, or the outer edges, of the first and last pixel of an axis.
    fn borders(self, n: usize) -> (f64, f64) {
        let last = n as f64 - 1.0;
        if self.align_corners { (0.0, last) } else { (-0.5, last + 0.5) }
    }

    /// The pixel that stands for index `at`.
    fn pixel(self, at: f64, n: usize) -> Option<usize> {
        let last = n as f64 - 1.0;
        let inside = (0.0..=last).contains(&at);
        match self.outside {
            _ if inside => Some(at as usize),
            Outside::Zeros => None,
            Outside::Border => Some(at.clamp(0.0, last) as usize),
            Outside::Reflection => {
                let (low, high) = self.borders(n);
                Some(reflected(at, low, high).0.clamp(0.0, last) as usize)
            }
        }
    }

    /// The neighbours of the place that `x` in -1..=1 names on an axis of extent `n`, slopes by `x`.
    fn neighbours(self, x: f64, n: usize) -> Vec<Neighbour> {
        let extent = n as f64;
        let scale = if self.align_corners { (extent - 1.0) / 2.0 } else { extent / 2.0 };
        let mut at = (x + 1.0) * scale - if self.align_corners { 0.0 } else { 0.5 };
        if !at.is_finite() {
            // Far outside: a zero, or the border.
            at = -2.0;
        }
        if self.mode == Mode::Nearest {
            at = at.round_ties_even();
        }
        let (low, high) = self.borders(n);
        let mut slope = scale;
        if at < low || at > high {
            match self.outside {
                Outside::Zeros => {}
                // Here each neighbour stands for itself.
                Outside::Border if self.mode == Mode::Cubic => {}
                Outside::Border => (at, slope) = (at.clamp(0.0, extent - 1.0), 0.0),
                Outside::Reflection => {
                    let (place, sign) = reflected(at, low, high);
                    (at, slope) = (place, slope * sign);
                }
            }
        }
        let below = at.floor();
        let t = at - below;
        let one = |k: f64, weight: f64, by: f64| (self.pixel(below + k, n), weight, by * slope);
        match self.mode {
            Mode::Nearest => vec![(self.pixel(at, n), 1.0, 0.0)],
            Mode::Linear => vec![one(0.0, 1.0 - t, -1.0), one(1.0, t, 1.0)],
            Mode::Cubic => [-1.0, 0.0, 1.0, 2.0]
                .into_iter()
                .map(|k| {
                    let (weight, by) = cubic(t - k);
                    one(k, weight, by)
                })
                .collect(),
        }
    }

    /// The neighbours of a `place`, innermost axis first, in a plane of `extents`, outermost first.
    pub(crate) fn taps(self, place: &[f32], extents: &[usize]) -> Vec<Tap> {
        let axes: Vec<Vec<Neighbour>> = place
            .iter()
            .zip(extents.iter().rev())
            .map(|(&x, &n)| self.neighbours(x.into(), n))
            .collect();
        joined(&axes, extents)
    }
}

/// The products of neighbours of all axes, innermost axis first.
fn joined(axes: &[Vec<Neighbour>], extents: &[usize]) -> Vec<Tap> {
    let steps = strides(extents);
    let mut taps = vec![Tap { offset: 0, weight: 1.0, slopes: [0.0; MOST_AXES] }];
    for (i, own) in axes.iter().enumerate() {
        let step = steps[extents.len() - 1 - i];
        let mut next = Vec::with_capacity(taps.len() * own.len());
        for tap in &taps {
            for &(index, weight, slope) in own {
                let Some(index) = index else { continue };
                let mut made = *tap;
                made.offset += index * step;
                made.slopes.iter_mut().for_each(|it| *it *= weight);
                made.slopes[i] = tap.weight * slope;
                made.weight *= weight;
                next.push(made);
            }
        }
        taps = next;
    }
    taps
}

/// Where `x` comes to lie between two mirrors, and whether its direction is turned: 1 or -1.
fn reflected(x: f64, low: f64, high: f64) -> (f64, f64) {
    let span = high - low;
    if span <= 0.0 {
        return (low, 0.0);
    }
    let (turned, distance) = if x < low { (-1.0, low - x) } else { (1.0, x - low) };
    let laps = (distance / span).floor();
    let rest = distance - laps * span;
    if laps % 2.0 == 0.0 { (low + rest, turned) } else { (high - rest, -turned) }
}

/// Weight and slope of the cubic at a signed distance.
fn cubic(distance: f64) -> (f64, f64) {
    let (x, sign, a) = (distance.abs(), distance.signum(), CUBIC);
    if x <= 1.0 {
        let weight = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
        (weight, sign * (3.0 * (a + 2.0) * x - 2.0 * (a + 3.0)) * x)
    } else if x < 2.0 {
        let weight = ((x - 5.0) * x + 8.0) * x * a - 4.0 * a;
        (weight, sign * ((3.0 * x - 10.0) * x + 8.0) * a)
    } else {
        (0.0, 0.0)
    }
}

/// Refuses grids of more axes than a [`Tap`] has slopes for.
pub(crate) fn check_rank(extents: &[usize]) -> Result<(), String> {
    if extents.len() > MOST_AXES || extents.contains(&0) {
        return Err(format!("space of extents {extents:?} cannot be sampled"));
    }
    Ok(())
}

fn grid_sample(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let sampler = Sampler::read(op)?;
    let (x, grid) = (array(inputs, 0)?, array(inputs, 1)?);
    let extents = &x.shape[2..];
    check_rank(extents)?;
    let (channels, plane) = (x.shape[1], extents.iter().product::<usize>());
    let places: usize = shape[2..].iter().product();
    let (values, grid) = (x.to_f64(), grid.to_f32());
    let mut y = vec![0.0; shape.iter().product()];
    for (i, place) in grid.chunks_exact(extents.len().max(1)).enumerate() {
        let (n, at) = (i / places, i % places);
        let taps = sampler.taps(place, extents);
        for c in n * channels..(n + 1) * channels {
            let x = &values[c * plane..][..plane];
            y[c * places + at] = taps.iter().map(|it| it.weight * x[it.offset]).sum();
        }
    }
    let made = Array { shape, data: Data::F64(y) }.cast(x.dtype());
    Ok(vec![made.ok_or("text cannot be sampled")?])
}

/// The places of all pixels of `extents` in -1..=1, innermost axis first, each with a 1 behind it.
pub(crate) fn pixel_places(extents: &[usize], corners: bool) -> Vec<f64> {
    let place = |i: usize, n: usize| {
        let (i, n) = (i as f64, n as f64);
        match (corners, n > 1.0) {
            (true, true) => 2.0 * i / (n - 1.0) - 1.0,
            (true, false) => 0.0,
            (false, _) => (2.0 * i + 1.0) / n - 1.0,
        }
    };
    let count: usize = extents.iter().product();
    let mut places = Vec::with_capacity(count * (extents.len() + 1));
    for at in 0..count {
        let mut rest = at;
        for &n in extents.iter().rev() {
            places.push(place(rest % n, n));
            rest /= n;
        }
        places.push(1.0);
    }
    places
}

/// `theta [n, d, d + 1]` times the places of all pixels.
fn affine_grid(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let theta = array(inputs, 0)?;
    let d = shape.len() - 2;
    if theta.shape != [shape[0], d, d + 1] {
        return Err(format!("theta {:?} is no map of {d} axes", theta.shape));
    }
    let places = pixel_places(&shape[1..=d], op.flag("align_corners", false)?);
    let mut y = Vec::with_capacity(shape.iter().product());
    for theta in theta.to_f64().chunks_exact(d * (d + 1)) {
        for place in places.chunks_exact(d + 1) {
            let row = |row: &[f64]| row.iter().zip(place).map(|(a, b)| a * b).sum::<f64>();
            y.extend(theta.chunks_exact(d + 1).map(row));
        }
    }
    let made = Array { shape, data: Data::F64(y) }.cast(theta.dtype());
    Ok(vec![made.ok_or("theta is no number")?])
}

/// The windows of the convolution that this is without offsets.
fn plain_windows(op: &Named, x: &Array, w: &Array, shape: &[usize]) -> Result<Vec<Window>, String> {
    let mut attributes = op.attributes.clone();
    attributes.take("offset_group");
    attributes.take("group");
    let spatial = match Op::from_attributes("Conv", attributes) {
        Some(Ok(Op::Conv(Conv { spatial, .. }))) => spatial,
        Some(Err(it)) => return Err(it.to_string()),
        _ => Spatial::default(),
    };
    windows(&spatial, &w.shape[2..], &x.shape[2..], &shape[2..])
}

/// Dai et al. 2017, "Deformable convolutional networks", equation 2, with the masks of Zhu et al. 2018.
/// `X, W, offset [n, groups taps d, …], B?, mask? [n, groups taps, …]`.
fn deform_conv(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let (x, w, offset) = (array(inputs, 0)?, array(inputs, 1)?, array(inputs, 2)?);
    let (channels, per_group) = (x.shape[1], w.shape[1]);
    let group = usize::try_from(op.int("group", 1)?).unwrap_or(0).max(1);
    let parts = usize::try_from(op.int("offset_group", 1)?).unwrap_or(0).max(1);
    let axes = plain_windows(op, x, w, &shape)?;
    let (d, taps) = (axes.len(), axes.iter().map(|it| it.kernel).product::<usize>());
    let places: usize = shape[2..].iter().product();
    let plane: usize = x.shape[2..].iter().product();
    check_rank(&x.shape[2..])?;
    let (values, weights, offsets) = (x.to_f64(), w.to_f64(), offset.to_f64());
    let mask = optional(inputs, 4).map(Array::to_f64);
    let expected = shape[0] * parts * taps * places;
    if offsets.len() != expected * d
        || mask.as_ref().is_some_and(|it| it.len() != expected)
        || !channels.is_multiple_of(parts)
    {
        return Err(format!("offsets {:?} do not fit output {shape:?}", offset.shape));
    }
    let bias = optional(inputs, 3).map(Array::to_f64);
    let (filters, per_part) = (shape[1] / group, channels / parts);
    let mut y = vec![0.0; shape.iter().product()];
    for (at, y) in y.chunks_exact_mut(places.max(1)).enumerate() {
        y.fill(bias.as_ref().map_or(0.0, |it| it[at % shape[1]]));
    }
    for n in 0..shape[0] {
        for at in 0..places {
            for part in 0..parts {
                for tap in 0..taps {
                    let row = (n * parts + part) * taps + tap;
                    let by = |axis: usize| offsets[(row * d + axis) * places + at];
                    let near = moved(&axes, at, tap, by);
                    let factor = mask.as_ref().map_or(1.0, |it| it[row * places + at]);
                    for c in part * per_part..(part + 1) * per_part {
                        let x = &values[(n * channels + c) * plane..][..plane];
                        let sample: f64 = near.iter().map(|it| it.weight * x[it.offset]).sum();
                        let first = c / per_group * filters;
                        for o in first..first + filters {
                            let w = weights[(o * per_group + c % per_group) * taps + tap];
                            y[(n * shape[1] + o) * places + at] += factor * sample * w;
                        }
                    }
                }
            }
        }
    }
    let made = Array { shape, data: Data::F64(y) }.cast(x.dtype());
    Ok(vec![made.ok_or("text cannot be sampled")?])
}

/// The neighbours of tap `tap` at position `at`, moved `by` so much along each axis; zeros outside.
fn moved(axes: &[Window], at: usize, tap: usize, by: impl Fn(usize) -> f64) -> Vec<Tap> {
    let sampler = Sampler { mode: Mode::Linear, outside: Outside::Zeros, align_corners: true };
    let (mut at, mut tap) = (at, tap);
    let mut near = Vec::with_capacity(axes.len());
    for (i, axis) in axes.iter().enumerate().rev() {
        let start = (at % axis.output * axis.stride + tap % axis.kernel * axis.dilation) as f64;
        let place = start - axis.pad as f64 + by(i);
        let (below, n) = (place.floor(), axis.input);
        let t = place - below;
        let pixel = |k: f64| if place.is_finite() { sampler.pixel(below + k, n) } else { None };
        near.push(vec![(pixel(0.0), 1.0 - t, -1.0), (pixel(1.0), t, 1.0)]);
        (at, tap) = (at / axis.output, tap / axis.kernel);
    }
    let extents: Vec<usize> = axes.iter().map(|it| it.input).collect();
    joined(&near, &extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{Numbers, named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn the_plain_grid_gives_the_image_back() {
        let mut numbers = Numbers::new(1);
        for shape in [vec![2, 3, 4, 5], vec![2, 1, 3, 4, 2]] {
            let x = numbers.array(&shape);
            let d = shape.len() - 2;
            let identity: Vec<f32> =
                (0..d * (d + 1)).map(|i| f32::from(u8::from(i % (d + 2) == 0))).collect();
            let theta = Array::f32(&[2, d, d + 1], [identity.clone(), identity].concat());
            let dims: Vec<i64> = shape.iter().map(|&it| it as i64).collect();
            let size = Array { shape: vec![dims.len()], data: Data::I64(dims) };
            for corners in [0, 1] {
                let aligned = Attrs::new().with("align_corners", Attr::Int(corners));
                let grid = run(&named("AffineGrid", aligned.clone()), &[&theta, &size]).remove(0);
                for mode in ["nearest", "linear", "cubic"] {
                    let attrs = aligned.clone().with("mode", Attr::Str(mode.into()));
                    let y = run(&named("GridSample", attrs), &[&x, &grid]).remove(0);
                    let close = |(a, b): (f32, f32)| (a - b).abs() < 1e-4;
                    assert!(y.to_f32().into_iter().zip(x.to_f32()).all(close), "{mode}");
                }
            }
        }
    }

    #[test]
    fn mirrors() {
        for (x, expected) in [(1.0, 1.0), (-1.0, 1.0), (4.5, 1.5), (7.0, 1.0), (-4.0, 2.0)] {
            assert!((reflected(x, 0.0, 3.0).0 - expected).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn without_offsets_it_is_a_convolution() {
        let mut numbers = Numbers::new(2);
        let (x, w) = (numbers.array(&[2, 4, 5, 6]), numbers.array(&[6, 2, 3, 2]));
        let attrs = Attrs::new()
            .with("group", Attr::Int(2))
            .with("strides", Attr::Ints(vec![2, 1]))
            .with("pads", Attr::Ints(vec![1, 0, 1, 1]));
        let conv = Op::from_attributes("Conv", attrs.clone()).unwrap().unwrap();
        let expected =
            crate::reference::evaluate(&conv, &[Some(&x), Some(&w)], &[DType::F32]).unwrap();
        let places = &expected[0].shape[2..];
        let zeros =
            Array::f32(&[2, 2 * 12, places[0], places[1]], vec![0.0; 48 * places[0] * places[1]]);
        let op = named("DeformConv", attrs.with("offset_group", Attr::Int(2)));
        let y = run(&op, &[&x, &w, &zeros]);
        assert_eq!(y[0].shape, expected[0].shape);
        let close = |(a, b): (f32, f32)| (a - b).abs() < 1e-5;
        assert!(y[0].to_f32().into_iter().zip(expected[0].to_f32()).all(close));
    }
}
