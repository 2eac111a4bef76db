//! Elementwise kernels over slices, and the two reductions of calibration.
#![expect(
    unsafe_code,
    reason = "calls loops that were compiled for instruction sets found at run time"
)]

use rayon::prelude::*;

use super::{Level, Tail, clamp, level, tasks};

/// Elements of one task: 64 KiB, so that its in- and outputs stay in L2.
const TASK: usize = 1 << 14;

/// Independent lanes of a reduction, folded in a fixed order at its end.
const LANES: usize = 64;

/// An affine integer grid: q = clamp(roundHalfEven(x / scale) + `zero_point`, low, high), x ≈ (q − `zero_point`) · scale
/// (ONNX `QuantizeLinear`, `DequantizeLinear`). Integers are below 2²² in magnitude; NaN becomes `low`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Width of a step, above zero.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: f32,
    /// Smallest integer.
    pub low: f32,
    /// Largest integer.
    pub high: f32,
}

impl Grid {
    /// The integer of `x` less the zero point.
    #[inline]
    fn steps(self, x: f32) -> f32 {
        /// 1.5 · 2²³: adding and subtracting it rounds half to even.
        const MAGIC: f32 = 12_582_912.0;
        let (low, high) = (self.low - self.zero_point, self.high - self.zero_point);
        let x = x / self.scale;
        let x = if x > low { x } else { low };
        let x = if x < high { x } else { high };
        (x + MAGIC) - MAGIC
    }
}

/// Defines a loop over slices once and compiles it for each level.
macro_rules! leveled {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $result)? { plain($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $result)? { plain($($arg),*) }
            match level() {
                // SAFETY: `level` returns only what this processor has.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => plain($($arg),*),
            }
        }
    };
}

pub(super) use leveled;

leveled! {
    fn activate_slice(bounds: (f32, f32), x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = clamp(x, bounds);
        }
    }
}

leveled! {
    fn activate_slice_in_place(bounds: (f32, f32), y: &mut [f32]) {
        for y in y {
            *y = clamp(*y, bounds);
        }
    }
}

leveled! {
    fn add_slice(bounds: (f32, f32), a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = clamp(a + b, bounds);
        }
    }
}

leveled! {
    fn add_slice_in_place(bounds: (f32, f32), b: &[f32], y: &mut [f32]) {
        for (y, &b) in y.iter_mut().zip(b) {
            *y = clamp(*y + b, bounds);
        }
    }
}

leveled! {
    fn fake_quantize_slice(grid: Grid, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = grid.steps(x) * grid.scale;
        }
    }
}

leveled! {
    /// dy becomes 0 where `x` lies beyond the limits of the grid, or is NaN.
    fn straight_through_slice(grid: Grid, x: &[f32], dy: &mut [f32]) {
        let (low, high) = (grid.low - grid.zero_point, grid.high - grid.zero_point);
        for (dy, &x) in dy.iter_mut().zip(x) {
            // The quotient of a limit by its own scale may miss it by a rounding.
            let steps = x / grid.scale * (1.0 - f32::EPSILON);
            *dy = if (low..=high).contains(&steps) { *dy } else { 0.0 };
        }
    }
}

leveled! {
    /// As `fake_quantize_slice`, but an element whose random byte is below `passes` stays.
    fn partly_quantize_slice(grid: Grid, passes: u32, random: &[u8], x: &[f32], y: &mut [f32]) {
        for ((y, &x), &random) in y.iter_mut().zip(x).zip(random) {
            let rounded = grid.steps(x) * grid.scale;
            *y = if u32::from(random) < passes { x } else { rounded };
        }
    }
}

leveled! {
    /// As `straight_through_slice`, with the elements that stayed; returns d loss / d scale.
    fn learned_step_slice(
        grid: Grid, passes: u32, random: &[u8], x: &[f32], dy: &mut [f32]
    ) -> f32 {
        let (low, high) = (grid.low - grid.zero_point, grid.high - grid.zero_point);
        let mut sums = [0.0f32; LANES];
        for ((dy, x), random) in dy.chunks_mut(LANES).zip(x.chunks(LANES)).zip(random.chunks(LANES)) {
            for (((sum, dy), &x), &random) in sums.iter_mut().zip(dy).zip(x).zip(random) {
                // The quotient of a limit by its own scale may miss it by a rounding.
                let steps = x / grid.scale * (1.0 - f32::EPSILON);
                let (stays, inside) = (u32::from(random) < passes, (low..=high).contains(&steps));
                let of_scale = grid.steps(x) - if inside { steps } else { 0.0 };
                *sum += if stays { 0.0 } else { of_scale * *dy };
                *dy = if stays || inside { *dy } else { 0.0 };
            }
        }
        sums.iter().sum()
    }
}

leveled! {
    fn quantize_u8_slice(grid: Grid, x: &[f32], y: &mut [u8]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (grid.steps(x) + grid.zero_point) as i32 as u8;
        }
    }
}

leveled! {
    fn quantize_i8_slice(grid: Grid, x: &[f32], y: &mut [i8]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (grid.steps(x) + grid.zero_point) as i32 as i8;
        }
    }
}

leveled! {
    fn min_max_slice(x: &[f32]) -> (f32, f32) {
        let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (whole, rest) = x.as_chunks::<LANES>();
        for x in whole {
            for lane in 0..LANES {
                low[lane] = if x[lane] < low[lane] { x[lane] } else { low[lane] };
                high[lane] = if x[lane] > high[lane] { x[lane] } else { high[lane] };
            }
        }
        let low = rest.iter().chain(&low).copied().fold(f32::INFINITY, f32::min);
        let high = rest.iter().chain(&high).copied().fold(f32::NEG_INFINITY, f32::max);
        (low, high)
    }
}

/// y = tail(x).
pub(crate) fn activate(tail: Tail, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "activation of equal lengths");
    let bounds = tail.bounds();
    tasks::for_each_chunk(y, TASK, TASK, |i, y| activate_slice(bounds, &x[i * TASK..], y));
}

/// y = tail(y).
pub(crate) fn activate_in_place(tail: Tail, y: &mut [f32]) {
    let bounds = tail.bounds();
    tasks::for_each_chunk(y, TASK, TASK, |_, y| activate_slice_in_place(bounds, y));
}

/// y = tail(a + b).
pub(crate) fn add(tail: Tail, a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == y.len() && b.len() == y.len(), "sum of equal lengths");
    let bounds = tail.bounds();
    let chunk = |i: usize, y: &mut [f32]| add_slice(bounds, &a[i * TASK..], &b[i * TASK..], y);
    tasks::for_each_chunk(y, TASK, TASK, chunk);
}

/// y = tail(y + b).
pub(crate) fn add_in_place(tail: Tail, b: &[f32], y: &mut [f32]) {
    assert_eq!(b.len(), y.len(), "sum of equal lengths");
    let bounds = tail.bounds();
    tasks::for_each_chunk(y, TASK, TASK, |i, y| add_slice_in_place(bounds, &b[i * TASK..], y));
}

/// y = x rounded to the grid and back: (q − `zero_point`) · scale.
pub fn fake_quantize(grid: Grid, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "rounding of equal lengths");
    y.par_chunks_mut(TASK)
        .zip(x.par_chunks(TASK))
        .for_each(|(y, x)| fake_quantize_slice(grid, x, y));
}

/// The straight-through estimator (Bengio et al. 2013, section 4): `dy` stays where `x` lies within the limits of the
/// grid and becomes 0 elsewhere.
pub(crate) fn straight_through(grid: Grid, x: &[f32], dy: &mut [f32]) {
    assert_eq!(x.len(), dy.len(), "gradient of equal lengths");
    dy.par_chunks_mut(TASK)
        .zip(x.par_chunks(TASK))
        .for_each(|(dy, x)| straight_through_slice(grid, x, dy));
}

/// As [`fake_quantize`], but an element whose byte in `random` is below `passes` stays as it is.
pub(crate) fn partly_quantize(grid: Grid, passes: u32, random: &[u8], x: &[f32], y: &mut [f32]) {
    assert!(x.len() == y.len() && x.len() == random.len(), "rounding of equal lengths");
    tasks::for_each_chunk(y, TASK, TASK, |i, y| {
        partly_quantize_slice(grid, passes, &random[i * TASK..], &x[i * TASK..], y);
    });
}

/// The gradients of [`partly_quantize`]: `dy` becomes d loss / d x by the straight-through estimator, and
/// d loss / d scale is returned, by that of the learned step size (Esser et al. 2020, equation 3). An element that
/// stayed passes its gradient on and knows no scale.
pub(crate) fn learned_step(
    grid: Grid,
    passes: u32,
    random: &[u8],
    x: &[f32],
    dy: &mut [f32],
) -> f32 {
    assert!(x.len() == dy.len() && x.len() == random.len(), "gradient of equal lengths");
    let parts: Vec<f32> = dy
        .par_chunks_mut(TASK)
        .zip(x.par_chunks(TASK).zip(random.par_chunks(TASK)))
        .map(|(dy, (x, random))| learned_step_slice(grid, passes, random, x, dy))
        .collect();
    parts.iter().map(|&it| f64::from(it)).sum::<f64>() as f32
}

/// The integers of `x` on a grid within 0..=255.
pub fn quantize_u8(grid: Grid, x: &[f32], y: &mut [u8]) {
    assert_eq!(x.len(), y.len(), "quantization of equal lengths");
    y.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(y, x)| quantize_u8_slice(grid, x, y));
}

/// The integers of `x` on a grid within −128..=127.
pub fn quantize_i8(grid: Grid, x: &[f32], y: &mut [i8]) {
    assert_eq!(x.len(), y.len(), "quantization of equal lengths");
    y.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(y, x)| quantize_i8_slice(grid, x, y));
}

/// Smallest and largest element; NaN is passed over. (∞, −∞) where there is none.
pub fn min_max(x: &[f32]) -> (f32, f32) {
    x.par_chunks(TASK)
        .map(min_max_slice)
        .reduce(|| (f32::INFINITY, f32::NEG_INFINITY), |a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// Largest magnitude; NaN is passed over, 0 where there is nothing.
pub fn abs_max(x: &[f32]) -> f32 {
    let (low, high) = min_max(x);
    if low > high { 0.0 } else { high.abs().max(low.abs()) }
}
