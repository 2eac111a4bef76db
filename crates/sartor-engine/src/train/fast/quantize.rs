//! Quantization and back as one rounding, with the straight-through estimator as its gradient.

use sartor_ir::{Op, QuantizeLinear};

use super::{Fast, Made, Reads, Seen, Site, made};
use crate::{
    reference::{
        self,
        quantize::{Granularity, limits},
    },
    simd::{self, Grid, Into},
    train::dropout::random_bytes,
};

/// Each run of `inner` elements has the next grid, and so again.
#[derive(Debug)]
struct Rounding {
    grids: Vec<Grid>,
    inner: usize,
}

/// One scale, which may learn, and elements that stay unrounded by chance.
#[derive(Debug)]
struct LearnedRounding {
    /// Its scale is that of the last run.
    grid: Grid,
    /// An element whose random byte is below this stays.
    passes: u32,
    random: Vec<u8>,
}

/// The kernel of `QuantizeLinear` at `first` with `DequantizeLinear` at `second` behind it, if both have the
/// same parameters. `unrounded` is the share of the elements that stay.
pub(in super::super) fn prepare(
    first: &Site<'_>,
    second: &Site<'_>,
    unrounded: f32,
) -> Option<Made> {
    let (Op::QuantizeLinear(it), Op::DequantizeLinear(back)) = (&first.step.op, &second.step.op)
    else {
        return None;
    };
    if !first.floats(1) || (it.block_size, back.block_size) != (0, 0) {
        return None;
    }
    let scales = first.constants.get(1).copied().flatten();
    if unrounded > 0.0 || scales.is_none() {
        return learned(first, second, unrounded);
    }
    let scales = scales?;
    let same = second.constants.get(1).copied().flatten()? == scales
        && zeros(first, scales.len())? == zeros(second, scales.len())?
        && (scales.len() == 1 || it.axis == back.axis);
    if !same || first.wants(1..3) || second.wants(1..3) {
        return None;
    }
    let (grids, inner) = grids(it, first)?;
    made(Rounding { grids, inner }, &[0])
}

fn learned(first: &Site<'_>, second: &Site<'_>, unrounded: f32) -> Option<Made> {
    let single = first.shapes.get(1)?.iter().product::<usize>() == 1;
    let same = first.step.inputs.get(1) == second.step.inputs.get(1)
        && zeros(first, 1)? == zeros(second, 1)?;
    if !single || !same || first.wants(2..3) || second.wants(2..3) {
        return None;
    }
    let (low, high) = limits(*first.step.dtypes.first()?)?;
    let zero_point = *zeros(first, 1)?.first()? as f32;
    let grid = Grid { scale: 1.0, zero_point, low: low as f32, high: high as f32 };
    let passes = (unrounded * 256.0).round() as u32;
    // Without chance no byte is ever drawn, and none is below 0.
    let random = vec![0; first.output.iter().product()];
    made(LearnedRounding { grid, passes, random }, &[0, 1])
}

fn grids(it: &QuantizeLinear, site: &Site<'_>) -> Option<(Vec<Grid>, usize)> {
    let scales = site.constants[1]?;
    let (low, high) = limits(*site.step.dtypes.first()?)?;
    let inner = match reference::quantize_granularity(it, &site.output, &scales.shape).ok()? {
        Granularity::Tensor => site.output.iter().product::<usize>().max(1),
        Granularity::Channel { inner, .. } => inner.max(1),
        Granularity::Block { .. } => return None,
    };
    let zeros = zeros(site, scales.len())?;
    let grid = |(&scale, zero): (&f32, i64)| Grid {
        scale,
        zero_point: zero as f32,
        low: low as f32,
        high: high as f32,
    };
    Some((scales.as_f32()?.iter().zip(zeros).map(grid).collect(), inner))
}

fn zeros(site: &Site<'_>, count: usize) -> Option<Vec<i64>> {
    if site.given(2) { Some(site.constants[2]?.to_i64()) } else { Some(vec![0; count]) }
}

impl Fast for Rounding {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        let runs = y.chunks_mut(self.inner).zip(inputs[0].chunks(self.inner));
        for ((y, x), &grid) in runs.zip(self.grids.iter().cycle()) {
            simd::fake_quantize(grid, x, y);
        }
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], _into: &mut [Option<Into<'_>>]) {
        let runs = dy.chunks_mut(self.inner).zip(seen.inputs[0].chunks(self.inner));
        for ((dy, x), &grid) in runs.zip(self.grids.iter().cycle()) {
            simd::straight_through(grid, x, dy);
        }
    }

    fn reads(&self) -> Reads {
        Reads::inputs(&[0])
    }

    fn passes(&self) -> &[usize] {
        &[0]
    }
}

impl Fast for LearnedRounding {
    fn begin(&mut self, seed: u64, stream: u64) {
        if self.passes > 0 {
            random_bytes(&mut self.random, seed, stream);
        }
    }

    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        self.grid.scale = inputs[1][0];
        simd::partly_quantize(self.grid, self.passes, &self.random, inputs[0], y);
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        let of_scale = simd::learned_step(self.grid, self.passes, &self.random, seen.inputs[0], dy);
        if let Some(into) = into.get_mut(1).and_then(Option::as_mut) {
            let before = if into.accumulate { into.values[0] } else { 0.0 };
            into.values[0] = before + of_scale;
        }
    }

    fn reads(&self) -> Reads {
        Reads::inputs(&[0])
    }

    fn passes(&self) -> &[usize] {
        &[0]
    }
}
