//! Batch normalization in training (Ioffe and Szegedy 2015; ONNX `BatchNormalization` with `training_mode`), with the
//! addition and the activation that follow it: one pass for the statistics, one to write; two passes back.
#![expect(
    unsafe_code,
    reason = "calls loops that were compiled for instruction sets found at run time"
)]
#![expect(
    clippy::inline_always,
    reason = "must become part of the loop that was compiled for a richer instruction set"
)]

use rayon::prelude::*;

use super::elementwise::leveled;
use super::{Level, Tail, clamp, level};

/// Elements of one task.
const TASK: usize = 1 << 14;
/// Independent lanes of a sum.
const LANES: usize = 16;
/// Elements after which the lanes go into double precision.
const FLUSH: usize = 1 << 12;

/// Images, channels, positions: the shape [n, c, positions] of a normalized tensor.
pub(crate) type Normalized = (usize, usize, usize);

/// Mean and (biased) variance of each channel, as used by a forward run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BatchStatistics {
    /// Mean of each channel.
    pub(crate) mean: Vec<f32>,
    /// Mean squared distance from it.
    pub(crate) variance: Vec<f32>,
}

/// What the forward and the backward run of a normalization have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchNorm<'a> {
    /// Shape.
    pub(crate) shape: Normalized,
    /// Factor of each channel.
    pub(crate) scale: &'a [f32],
    /// What keeps the variance above zero.
    pub(crate) epsilon: f32,
    /// The activation that follows.
    pub(crate) tail: Tail,
}

/// Two sums in independent lanes, which go into double precision now and then.
struct Sums {
    lanes: [[f32; LANES]; 2],
    total: [f64; 2],
    count: usize,
}

impl Sums {
    #[inline(always)]
    fn new() -> Self {
        Self { lanes: [[0.0; LANES]; 2], total: [0.0; 2], count: 0 }
    }

    /// Adds both parts of the term at each place of the inputs, which are of one length.
    #[inline(always)]
    fn add<const K: usize>(&mut self, inputs: [&[f32]; K], term: impl Fn([f32; K]) -> (f32, f32)) {
        let [mut first, mut second] = self.lanes;
        let wholes = inputs.map(|it| it.as_chunks::<LANES>().0);
        for at in 0..wholes[0].len() {
            let chunks: [&[f32; LANES]; K] = std::array::from_fn(|k| &wholes[k][at]);
            for lane in 0..LANES {
                let (a, b) = term(std::array::from_fn(|k| chunks[k][lane]));
                first[lane] += a;
                second[lane] += b;
            }
        }
        let whole = wholes[0].len() * LANES;
        for lane in 0..inputs[0].len() - whole {
            let (a, b) = term(std::array::from_fn(|k| inputs[k][whole + lane]));
            first[lane] += a;
            second[lane] += b;
        }
        self.lanes = [first, second];
        self.count += inputs[0].len();
        if self.count >= FLUSH {
            self.flush();
        }
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (total, lanes) in self.total.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
            *lanes = [0.0; LANES];
        }
        self.count = 0;
    }

    #[inline(always)]
    fn finish(mut self) -> (f64, f64) {
        self.flush();
        (self.total[0], self.total[1])
    }
}

/// Σ (x − shift) and Σ (x − shift)² over one channel: runs of `len` elements, `step` apart.
#[inline(always)]
fn moments_with(shift: f32, x: &[f32], len: usize, step: usize) -> (f64, f64) {
    let mut sums = Sums::new();
    for plane in x.chunks(step) {
        for x in plane[..len].chunks(FLUSH) {
            sums.add([x], |[x]| (x - shift, (x - shift) * (x - shift)));
        }
    }
    sums.finish()
}

leveled! {
    fn moments(shift: f32, x: &[f32], len: usize, step: usize) -> (f64, f64) {
        moments_with(shift, x, len, step)
    }
}

leveled! {
    fn apply(factors: &[(f32, f32)], bounds: (f32, f32), len: usize, x: &[f32], y: &mut [f32]) {
        for ((x, y), &(a, b)) in x.chunks(len).zip(y.chunks_mut(len)).zip(factors.iter().cycle()) {
            for (x, y) in x.iter().zip(y) {
                *y = clamp(x * a + b, bounds);
            }
        }
    }
}

leveled! {
    fn apply_onto(
        factors: &[(f32, f32)], bounds: (f32, f32), len: usize, x: &[f32], r: &[f32], y: &mut [f32]
    ) {
        let planes = x.chunks(len).zip(r.chunks(len)).zip(y.chunks_mut(len));
        for (((x, r), y), &(a, b)) in planes.zip(factors.iter().cycle()) {
            for ((x, r), y) in x.iter().zip(r).zip(y) {
                *y = clamp(x * a + b + r, bounds);
            }
        }
    }
}

/// Whether a gradient passes an activation whose result is `y`. NaN passes.
#[inline(always)]
fn passes(y: f32, (low, high): (f32, f32)) -> bool {
    !(y <= low) & !(y >= high)
}

leveled! {
    /// Σ g and Σ g · (x − mean) over one channel, where g is dy behind the activation.
    fn gradient_sums(
        mean: f32, bounds: Option<(f32, f32)>, x: &[f32], y: &[f32], dy: &[f32], len: usize, step: usize
    ) -> (f64, f64) {
        let mut sums = Sums::new();
        for ((x, y), dy) in x.chunks(step).zip(y.chunks(step)).zip(dy.chunks(step)) {
            for at in (0..len).step_by(FLUSH) {
                let end = len.min(at + FLUSH);
                let (x, y, dy) = (&x[at..end], &y[at..end], &dy[at..end]);
                match bounds {
                    None => sums.add([x, dy], |[x, g]| (g, g * (x - mean))),
                    Some(bounds) => sums.add([x, y, dy], |[x, y, g]| {
                        let g = if passes(y, bounds) { g } else { 0.0 };
                        (g, g * (x - mean))
                    }),
                }
            }
        }
        sums.finish()
    }
}

leveled! {
    /// dx = factors · (g, x, 1), or that added to `dx`, one plane of `len` elements after the other.
    fn spread(
        factors: &[[f32; 3]], bounds: Option<(f32, f32)>, len: usize,
        x: &[f32], y: &[f32], dy: &[f32], accumulate: bool, dx: &mut [f32]
    ) {
        let planes = x.chunks(len).zip(y.chunks(len)).zip(dy.chunks(len)).zip(dx.chunks_mut(len));
        for ((((x, y), dy), dx), &[a, b, c]) in planes.zip(factors.iter().cycle()) {
            let all = dx.iter_mut().zip(x.iter().zip(y.iter().zip(dy)));
            match (bounds, accumulate) {
                (None, false) => all.for_each(|(dx, (x, (_, g)))| *dx = g * a + (x * b + c)),
                (None, true) => all.for_each(|(dx, (x, (_, g)))| *dx += g * a + (x * b + c)),
                (Some(bounds), false) => all.for_each(|(dx, (x, (y, g)))| {
                    *dx = if passes(*y, bounds) { *g } else { 0.0 } * a + (x * b + c);
                }),
                (Some(bounds), true) => all.for_each(|(dx, (x, (y, g)))| {
                    *dx += if passes(*y, bounds) { *g } else { 0.0 } * a + (x * b + c);
                }),
            }
        }
    }
}

leveled! {
    fn pass_back(bounds: (f32, f32), y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for (dx, (y, dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
            *dx = if passes(*y, bounds) { *dy } else { 0.0 };
        }
    }
}

leveled! {
    fn pass_back_onto(bounds: (f32, f32), y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for (dx, (y, dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
            *dx += if passes(*y, bounds) { *dy } else { 0.0 };
        }
    }
}

/// dx = dy where the activation that gave y let it pass, else 0; or that added to `dx` if `accumulate`.
pub(crate) fn activate_backward(
    tail: Tail,
    y: &[f32],
    dy: &[f32],
    accumulate: bool,
    dx: &mut [f32],
) {
    assert!(y.len() == dx.len() && dy.len() == dx.len(), "gradient of equal lengths");
    let bounds = tail.bounds();
    let tasks = dx.par_chunks_mut(TASK).zip(y.par_chunks(TASK).zip(dy.par_chunks(TASK)));
    if accumulate {
        tasks.for_each(|(dx, (y, dy))| pass_back_onto(bounds, y, dy, dx));
    } else {
        tasks.for_each(|(dx, (y, dy))| pass_back(bounds, y, dy, dx));
    }
}

/// db[c] += Σ dy over images and positions.
pub(crate) fn bias_gradient((_, channels, len): Normalized, dy: &[f32], db: &mut [f32]) {
    assert_eq!(db.len(), channels, "bias of {channels} channels");
    if dy.is_empty() {
        return;
    }
    db.par_iter_mut().enumerate().for_each(|(c, db)| {
        *db += moments(0.0, &dy[c * len..], len, channels * len).0 as f32;
    });
}

/// Mean and variance of each channel of x [n, c, positions].
pub(crate) fn batch_statistics((n, channels, len): Normalized, x: &[f32]) -> BatchStatistics {
    assert_eq!(x.len(), n * channels * len, "input of {n} × {channels} × {len}");
    if x.is_empty() {
        return BatchStatistics { mean: vec![0.0; channels], variance: vec![0.0; channels] };
    }
    let count = (n * len) as f64;
    let (mean, variance) = (0..channels)
        .into_par_iter()
        .map(|c| {
            let x = &x[c * len..];
            // Sums about a value near the mean lose nothing to cancellation.
            let near = (moments(0.0, &x[..len], len, len).0 / len as f64) as f32;
            let (sum, squares) = moments(near, x, len, channels * len);
            let off = sum / count;
            ((f64::from(near) + off) as f32, (squares / count - off * off).max(0.0) as f32)
        })
        .unzip();
    BatchStatistics { mean, variance }
}

impl BatchNorm<'_> {
    /// Planes of one task: a whole number of them.
    fn planes(&self) -> usize {
        (TASK / self.shape.2.max(1)).clamp(1, self.shape.1.max(1))
    }

    /// 1 / sqrt(variance + epsilon).
    fn inverse(&self, statistics: &BatchStatistics, c: usize) -> f32 {
        (1.0 / (f64::from(statistics.variance[c]) + f64::from(self.epsilon)).sqrt()) as f32
    }

    /// y = tail((x − mean) / sqrt(variance + epsilon) · scale + shift + residual).
    ///
    /// # Panics
    /// If a slice does not have the length of the shape: a bug of the caller. So does the other.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        shift: &[f32],
        statistics: &BatchStatistics,
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let (n, channels, len) = self.shape;
        assert!(x.len() == n * channels * len && y.len() == x.len(), "tensors of {:?}", self.shape);
        assert!(residual.is_none_or(|r| r.len() == y.len()), "residual of {:?}", self.shape);
        if y.is_empty() {
            return;
        }
        let factors: Vec<_> = (0..channels)
            .map(|c| {
                let a = self.scale[c] * self.inverse(statistics, c);
                (a, shift[c] - statistics.mean[c] * a)
            })
            .collect();
        let (planes, bounds) = (self.planes(), self.tail.bounds());
        let image = |image: usize, y: &mut [f32]| {
            let at = image * channels * len;
            y.par_chunks_mut(planes * len).enumerate().for_each(|(part, y)| {
                let factors = &factors[part * planes..];
                let range = at + part * planes * len..at + part * planes * len + y.len();
                match residual {
                    None => apply(factors, bounds, len, &x[range], y),
                    Some(r) => apply_onto(factors, bounds, len, &x[range.clone()], &r[range], y),
                }
            });
        };
        y.par_chunks_mut(channels * len).enumerate().for_each(|(n, y)| image(n, y));
    }

    /// Gradients: `dx`, that of the residual, and what is added to `dscale` and `dshift`. `x` and `y` are those of the
    /// forward run; `frozen` says that the statistics were given rather than those of `x`.
    pub(crate) fn backward(
        &self,
        (x, y, dy): (&[f32], &[f32], &[f32]),
        statistics: &BatchStatistics,
        frozen: bool,
        dx: Into<'_>,
        residual: Option<Into<'_>>,
        (dscale, dshift): (&mut [f32], &mut [f32]),
    ) {
        let (n, channels, len) = self.shape;
        let size = n * channels * len;
        assert!(
            x.len() == size && y.len() == size && dy.len() == size,
            "tensors of {:?}",
            self.shape
        );
        assert_eq!(dx.values.len(), size, "gradient of {:?}", self.shape);
        if size == 0 {
            return;
        }
        let bounds = (self.tail != Tail::None).then(|| self.tail.bounds());
        let step = channels * len;
        let mut factors = vec![[0.0; 3]; channels];
        factors.par_iter_mut().zip(dscale.par_iter_mut().zip(dshift)).enumerate().for_each(
            |(c, (factors, (dscale, dshift)))| {
                let (at, mean) = (c * len, statistics.mean[c]);
                let (g, gx) = gradient_sums(mean, bounds, &x[at..], &y[at..], &dy[at..], len, step);
                let inverse = f64::from(self.inverse(statistics, c));
                *dscale += (gx * inverse) as f32;
                *dshift += g as f32;
                let a = f64::from(self.scale[c]) * inverse;
                let count = (n * len) as f64;
                let b = if frozen { 0.0 } else { -a * inverse * inverse * gx / count };
                let shift = if frozen { 0.0 } else { -a * g / count - b * f64::from(mean) };
                *factors = [a as f32, b as f32, shift as f32];
            },
        );
        if let Some(Into { values, accumulate }) = residual {
            activate_backward(self.tail, y, dy, accumulate, values);
        }
        let planes = self.planes();
        dx.values.par_chunks_mut(step).enumerate().for_each(|(image, values)| {
            values.par_chunks_mut(planes * len).enumerate().for_each(|(part, values)| {
                let at = image * step + part * planes * len;
                let range = at..at + values.len();
                let (x, y, dy) = (&x[range.clone()], &y[range.clone()], &dy[range]);
                let factors = &factors[part * planes..];
                spread(factors, bounds, len, x, y, dy, dx.accumulate, values);
            });
        });
    }
}

/// Where a gradient goes.
#[derive(Debug)]
pub(crate) struct Into<'a> {
    /// The elements.
    pub(crate) values: &'a mut [f32],
    /// Whether it is added to them.
    pub(crate) accumulate: bool,
}
