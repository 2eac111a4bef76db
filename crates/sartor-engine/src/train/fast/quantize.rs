//! Quantization and back as one rounding, with the straight-through estimator as its gradient.

use sartor_ir::{Op, QuantizeLinear};

use super::{Fast, Made, Reads, Seen, Site, made};
use crate::{
    reference::{
        self,
        quantize::{Granularity, limits},
    },
    simd::{self, Grid, Into},
};

/// Each run of `inner` elements has the next grid, and so again.
#[derive(Debug)]
struct Rounding {
    grids: Vec<Grid>,
    inner: usize,
}

/// The kernel of `QuantizeLinear` at `first` with `DequantizeLinear` at `second` behind it, if both have the
/// same constant parameters.
pub(in super::super) fn prepare(first: &Site<'_>, second: &Site<'_>) -> Option<Made> {
    let (Op::QuantizeLinear(it), Op::DequantizeLinear(back)) = (&first.step.op, &second.step.op)
    else {
        return None;
    };
    let scales = first.constants.get(1).copied().flatten()?;
    let same = second.constants.get(1).copied().flatten()? == scales
        && zeros(first, scales.len())? == zeros(second, scales.len())?
        && (scales.len() == 1 || it.axis == back.axis)
        && (it.block_size, back.block_size) == (0, 0);
    if !same || !first.floats(1) || first.wants(1..3) || second.wants(1..3) {
        return None;
    }
    let (grids, inner) = grids(it, first)?;
    made(Rounding { grids, inner }, &[0])
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
