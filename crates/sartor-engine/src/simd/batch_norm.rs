//! Batch normalization in training (Ioffe and Szegedy 2015; ONNX `BatchNormalization` with `training_mode`), with the
//! addition and the activation that follow it. A task has a few channels of all images, so that its second pass finds
//! in the cache what the first one read.
#![expect(
    unsafe_code,
    reason = "tasks write disjoint planes, by loops compiled for instruction sets found at run time"
)]
#![expect(
    clippy::inline_always,
    reason = "must become part of the loop that was compiled for a richer instruction set"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::leveled;
use super::{Level, Shared, Tail, clamp, level};

/// Elements of one image in one task, where channels are small.
const RUN: usize = 1 << 10;
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

/// Where a gradient goes.
#[derive(Debug)]
pub(crate) struct Into<'a> {
    /// The elements.
    pub(crate) values: &'a mut [f32],
    /// Whether it is added to them.
    pub(crate) accumulate: bool,
}

impl Into<'_> {
    /// Makes zeros of the elements, unless it is added to them: for kernels that can only add.
    pub(crate) fn start(&mut self) {
        if !self.accumulate {
            self.values.par_chunks_mut(TASK).for_each(|it| it.fill(0.0));
            self.accumulate = true;
        }
    }
}

/// Where the gradient by the input of a normalization goes.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// Nobody asks for it.
    None,
    /// It takes the place of the gradient by the output.
    Place,
    /// To other memory.
    Other(Into<'a>),
}

/// How backward knows what the activation did.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activated<'a> {
    /// By the output; it may be empty where there is no activation.
    Seen(&'a [f32]),
    /// By the input and the shift, as nothing was added. The gradient by the input must take the place of that by
    /// the output, or there must be no activation.
    Follows(&'a [f32]),
}

/// The planes of some channels in all images of [n, c, len].
#[derive(Clone, Debug)]
struct Block {
    images: usize,
    all: usize,
    len: usize,
    channels: Range<usize>,
}

impl Block {
    /// Cuts a tensor by its shape.
    fn cut((images, all, len): Normalized) -> impl IndexedParallelIterator<Item = Self> {
        let width = (RUN / len.max(1)).clamp(1, all.max(1));
        (0..all.div_ceil(width)).into_par_iter().map(move |at| {
            let channels = at * width..all.min((at + 1) * width);
            Self { images, all, len, channels }
        })
    }

    /// Each plane's channel, counted from the first of the block, and its range; images outside.
    #[inline(always)]
    fn planes(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let Self { all, len, channels, .. } = self.clone();
        (0..self.images).flat_map(move |n| {
            (0..channels.len()).map(move |c| {
                let at = (n * all + channels.start + c) * len;
                (c, at..at + len)
            })
        })
    }
}

/// Two sums in independent lanes, which go into double precision now and then.
#[derive(Clone)]
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
        let len = inputs[0].len();
        for start in (0..len).step_by(FLUSH) {
            let end = len.min(start + FLUSH);
            self.add_few(inputs.map(|it| &it[start..end]), &term);
            self.count += end - start;
            if self.count >= FLUSH {
                self.flush();
            }
        }
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "several slices go in step")]
    fn add_few<const K: usize>(
        &mut self,
        inputs: [&[f32]; K],
        term: impl Fn([f32; K]) -> (f32, f32),
    ) {
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
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (total, lanes) in self.total.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
            *lanes = [0.0; LANES];
        }
        self.count = 0;
    }

    fn finish(mut self) -> (f64, f64) {
        self.flush();
        (self.total[0], self.total[1])
    }
}

leveled! {
    /// Σ (x − shift) and Σ (x − shift)² of each channel of a block, given its shifts.
    fn moments(block: &Block, shifts: &[f32], x: &[f32], sums: &mut [Sums]) {
        for (c, range) in block.planes() {
            let shift = shifts[c];
            sums[c].add([&x[range]], |[x]| (x - shift, (x - shift) * (x - shift)));
        }
    }
}

leveled! {
    /// y = clamp(a · x + b + r), given (a, b) of each channel of a block.
    fn apply(
        block: &Block, factors: &[(f32, f32)], bounds: (f32, f32), x: &[f32], r: Option<&[f32]>, y: &Shared
    ) {
        for (c, range) in block.planes() {
            let (a, b) = factors[c];
            // SAFETY: the planes of a block are those of one task.
            let y = unsafe { y.slice(range.clone()) };
            let x = &x[range.clone()];
            match r {
                None => y.iter_mut().zip(x).for_each(|(y, x)| *y = clamp(x * a + b, bounds)),
                Some(r) => {
                    let both = y.iter_mut().zip(x.iter().zip(&r[range]));
                    both.for_each(|(y, (x, r))| *y = clamp(x * a + b + r, bounds));
                }
            }
        }
    }
}

/// Whether a gradient passes an activation whose result is `y`. NaN passes.
#[inline(always)]
#[expect(
    clippy::needless_bitwise_bool,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "no branch, and NaN is neither below nor above"
)]
fn passes(y: f32, (low, high): (f32, f32)) -> bool {
    !(y <= low) & !(y >= high)
}

leveled! {
    /// As [`gradient_sums`] without residual: what the activation did follows from x, given (a, b) of each channel as
    /// [`apply`] took them. dy stays as it is.
    fn activated_sums(
        block: &Block, means: &[f32], factors: &[(f32, f32)], bounds: (f32, f32), x: &[f32], dy: &Shared,
        sums: &mut [Sums]
    ) {
        for (c, range) in block.planes() {
            let (mean, (a, b)) = (means[c], factors[c]);
            // SAFETY: the planes of a block are those of one task.
            let dy = unsafe { dy.slice(range.clone()) };
            sums[c].add([&x[range], dy], |[x, g]| {
                let g = if passes(x * a + b, bounds) { g } else { 0.0 };
                (g, g * (x - mean))
            });
        }
    }
}

leveled! {
    /// As [`spread`] onto dy, after [`activated_sums`].
    fn activated_spread(
        block: &Block, spreads: &[[f32; 3]], factors: &[(f32, f32)], bounds: (f32, f32), x: &[f32], dy: &Shared
    ) {
        for (channel, range) in block.planes() {
            let ([p, q, r], (a, b)) = (spreads[channel], factors[channel]);
            // SAFETY: the planes of a block are those of one task.
            let dy = unsafe { dy.slice(range.clone()) };
            for (g, x) in dy.iter_mut().zip(&x[range]) {
                let passed = if passes(x * a + b, bounds) { *g } else { 0.0 };
                *g = passed * p + (x * q + r);
            }
        }
    }
}

leveled! {
    /// Σ g and Σ g · (x − mean) of each channel of a block, where g is dy behind the activation, which takes the place
    /// of dy.
    fn gradient_sums(
        block: &Block, means: &[f32], bounds: Option<(f32, f32)>, x: &[f32], y: &[f32], dy: &Shared, sums: &mut [Sums]
    ) {
        for (c, range) in block.planes() {
            let mean = means[c];
            // SAFETY: the planes of a block are those of one task.
            let dy = unsafe { dy.slice(range.clone()) };
            if let Some(bounds) = bounds {
                for (dy, y) in dy.iter_mut().zip(&y[range.clone()]) {
                    *dy = if passes(*y, bounds) { *dy } else { 0.0 };
                }
            }
            sums[c].add([&x[range], dy], |[x, g]| (g, g * (x - mean)));
        }
    }
}

leveled! {
    /// dx = factors · (g, x, 1), or that added to dx, given the factors of each channel of a block.
    fn spread(
        block: &Block, factors: &[[f32; 3]], x: &[f32], dy: &Shared, dx: Option<(&Shared, bool)>
    ) {
        for (channel, range) in block.planes() {
            let [a, b, c] = factors[channel];
            // SAFETY: the planes of a block are those of one task.
            let g = unsafe { dy.slice(range.clone()) };
            let x = &x[range.clone()];
            let Some((dx, accumulate)) = dx else {
                g.iter_mut().zip(x).for_each(|(g, x)| *g = *g * a + (x * b + c));
                continue;
            };
            // SAFETY: as above.
            let dx = unsafe { dx.slice(range) };
            let all = dx.iter_mut().zip(g.iter().zip(x));
            if accumulate {
                all.for_each(|(dx, (g, x))| *dx += g * a + (x * b + c));
            } else {
                all.for_each(|(dx, (g, x))| *dx = g * a + (x * b + c));
            }
        }
    }
}

leveled! {
    fn pass_back(bounds: (f32, f32), y: &[f32], dy: &mut [f32]) {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy = if passes(*y, bounds) { *dy } else { 0.0 };
        }
    }
}

/// Elements of one task of elementwise work.
const TASK: usize = 1 << 14;

/// dy becomes 0 where the activation that gave y did not let its argument through; without activation y may be empty.
pub(crate) fn activate_backward(tail: Tail, y: &[f32], dy: &mut [f32]) {
    if tail != Tail::None {
        assert_eq!(y.len(), dy.len(), "gradient of equal lengths");
        let bounds = tail.bounds();
        dy.par_chunks_mut(TASK)
            .zip(y.par_chunks(TASK))
            .for_each(|(dy, y)| pass_back(bounds, y, dy));
    }
}

/// db[c] += Σ dy over images and positions.
pub(crate) fn bias_gradient(shape: Normalized, dy: &[f32], db: &mut [f32]) {
    assert_eq!(db.len(), shape.1, "bias of {shape:?}");
    assert_eq!(dy.len(), shape.0 * shape.1 * shape.2, "gradient of {shape:?}");
    let db = Shared::new(db);
    Block::cut(shape).for_each(|block| {
        let mut sums = vec![Sums::new(); block.channels.len()];
        moments(&block, &vec![0.0; sums.len()], dy, &mut sums);
        // SAFETY: blocks have their own channels.
        let db = unsafe { db.slice(block.channels) };
        db.iter_mut().zip(sums).for_each(|(db, sums)| *db += sums.finish().0 as f32);
    });
}

/// Mean and variance of each channel of a block of x. Sums about a value near the mean lose nothing to cancellation.
fn statistics(block: &Block, x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
    let mut sums = vec![Sums::new(); block.channels.len()];
    let one = Block { images: block.images.min(1), ..block.clone() };
    moments(&one, &vec![0.0; sums.len()], x, &mut sums);
    let near: Vec<f32> =
        sums.into_iter().map(|it| (it.finish().0 / block.len.max(1) as f64) as f32).collect();
    let mut sums = vec![Sums::new(); near.len()];
    moments(block, &near, x, &mut sums);
    let count = (block.images * block.len).max(1) as f64;
    for (c, sums) in sums.into_iter().enumerate() {
        let (sum, squares) = sums.finish();
        let off = sum / count;
        mean[c] = (f64::from(near[c]) + off) as f32;
        variance[c] = (squares / count - off * off).max(0.0) as f32;
    }
}

impl BatchNorm<'_> {
    /// 1 / sqrt(variance + epsilon).
    fn inverse(&self, variance: f32) -> f64 {
        1.0 / (f64::from(variance) + f64::from(self.epsilon)).sqrt()
    }

    /// Factor and addend of channel `c`: without residual y = tail(x · factor + addend).
    fn factors(&self, c: usize, shift: f32, mean: f32, variance: f32) -> (f32, f32) {
        let a = f64::from(self.scale[c]) * self.inverse(variance);
        (a as f32, (f64::from(shift) - f64::from(mean) * a) as f32)
    }

    /// y = tail((x − mean) / sqrt(variance + epsilon) · scale + shift + residual), by the statistics of x, which are
    /// left in `statistics`, or by those there if they are `given`.
    ///
    /// # Panics
    /// If a slice does not have the length of the shape: a bug of the caller. So does the other.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        shift: &[f32],
        (statistics, given): (&mut BatchStatistics, bool),
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let (n, channels, len) = self.shape;
        assert!(x.len() == n * channels * len && y.len() == x.len(), "tensors of {:?}", self.shape);
        assert!(residual.is_none_or(|r| r.len() == y.len()), "residual of {:?}", self.shape);
        statistics.mean.resize(channels, 0.0);
        statistics.variance.resize(channels, 0.0);
        let mean = Shared::new(&mut statistics.mean);
        let variance = Shared::new(&mut statistics.variance);
        let (y, bounds) = (Shared::new(y), self.tail.bounds());
        Block::cut(self.shape).for_each(|block| {
            let channels = block.channels.clone();
            // SAFETY: blocks have their own channels.
            let (mean, variance) =
                unsafe { (mean.slice(channels.clone()), variance.slice(channels.clone())) };
            if !given {
                self::statistics(&block, x, mean, variance);
            }
            let factor = |(i, c): (usize, usize)| self.factors(c, shift[c], mean[i], variance[i]);
            let factors: Vec<_> = channels.enumerate().map(factor).collect();
            apply(&block, &factors, bounds, x, residual, &y);
        });
    }

    /// Gradients: that of the residual takes the place of `dy`, unless that of the input does; `dscale` and `dshift`
    /// get theirs added. `x` is that of the forward run; `given` says that the statistics are not those of `x`.
    pub(crate) fn backward(
        &self,
        (x, dy): (&[f32], &mut [f32]),
        (statistics, given): (&BatchStatistics, bool),
        activated: Activated<'_>,
        dx: Target<'_>,
        (dscale, dshift): (Option<&mut [f32]>, Option<&mut [f32]>),
    ) {
        let (n, channels, len) = self.shape;
        let size = n * channels * len;
        let bounds = (self.tail != Tail::None).then(|| self.tail.bounds());
        assert!(x.len() == size && dy.len() == size, "tensors of {:?}", self.shape);
        let seen = bounds.is_none() || !matches!(activated, Activated::Seen(y) if y.len() != size);
        assert!(seen, "output of {:?}", self.shape);
        let (dy, count) = (Shared::new(dy), (n * len) as f64);
        let [dscale, dshift] = [dscale, dshift].map(|it| it.map(Shared::new));
        let (wanted, other) = match dx {
            Target::None => (false, None),
            Target::Place => (true, None),
            Target::Other(Into { values, accumulate }) => {
                assert_eq!(values.len(), size, "gradient of {:?}", self.shape);
                (true, Some((Shared::new(values), accumulate)))
            }
        };
        Block::cut(self.shape).for_each(|block| {
            let mut sums = vec![Sums::new(); block.channels.len()];
            let means = &statistics.mean[block.channels.clone()];
            // What the activation did follows from x where nothing was added and dx takes the place of dy.
            let follows = match (bounds, &activated) {
                (Some(bounds), Activated::Follows(shift)) if other.is_none() => {
                    let factor = |c: usize| {
                        self.factors(c, shift[c], statistics.mean[c], statistics.variance[c])
                    };
                    Some((block.channels.clone().map(factor).collect::<Vec<_>>(), bounds))
                }
                _ => None,
            };
            match (&follows, &activated) {
                (Some((factors, bounds)), _) => {
                    activated_sums(&block, means, factors, *bounds, x, &dy, &mut sums);
                }
                (None, Activated::Seen(y)) => {
                    gradient_sums(&block, means, bounds, x, y, &dy, &mut sums);
                }
                (None, Activated::Follows(_)) => {
                    gradient_sums(&block, means, None, x, &[], &dy, &mut sums);
                }
            }
            let mut spreads = Vec::with_capacity(sums.len());
            for (c, sums) in block.channels.clone().zip(sums) {
                let ((g, gx), inverse) = (sums.finish(), self.inverse(statistics.variance[c]));
                for (total, part) in [(&dscale, gx * inverse), (&dshift, g)] {
                    if let Some(total) = total {
                        // SAFETY: blocks have their own channels.
                        let total = unsafe { total.slice(c..c + 1) };
                        total[0] += part as f32;
                    }
                }
                let mean = f64::from(statistics.mean[c]);
                spreads.push(self.spreads(c, (g, gx), (inverse, mean), (!given).then_some(count)));
            }
            match (&follows, &other) {
                _ if !wanted => {}
                (Some((factors, bounds)), _) => {
                    activated_spread(&block, &spreads, factors, *bounds, x, &dy);
                }
                (None, other) => {
                    let to = other.as_ref().map(|(dx, accumulate)| (dx, *accumulate));
                    spread(&block, &spreads, x, &dy, to);
                }
            }
        });
    }

    /// The factors of (g, x, 1) in dx of channel `c`, given Σ g and Σ g · (x − mean), 1 / sqrt(variance + epsilon) and
    /// the mean, and over how many elements these were taken if they depend on x.
    fn spreads(
        &self,
        c: usize,
        (g, gx): (f64, f64),
        (inverse, mean): (f64, f64),
        count: Option<f64>,
    ) -> [f32; 3] {
        let a = f64::from(self.scale[c]) * inverse;
        let Some(count) = count else { return [a as f32, 0.0, 0.0] };
        let b = -a * inverse * inverse * gx / count;
        [a as f32, b as f32, (-a * g / count - b * mean) as f32]
    }
}
