//! Softmax.

use rayon::prelude::*;
use sartor_ir::normalize_axis;

use super::{Kernel, Prepared, Site, of_first};
use crate::reference::norm;

#[derive(Debug)]
struct SoftmaxKernel {
    extent: usize,
    inner: usize,
    logarithm: bool,
}

pub(super) fn prepare_softmax(axis: i64, logarithm: bool, site: &Site<'_>) -> Option<Prepared> {
    let x = site.shape_of(0)?;
    let axis = normalize_axis(axis, x.len()).ok()?;
    of_first(SoftmaxKernel { extent: x[axis], inner: x[axis + 1..].iter().product(), logarithm })
}

impl Kernel for SoftmaxKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let slab = self.extent * self.inner;
        if slab == 0 {
            return;
        }
        // As many whole slabs as make a task worth its while.
        let chunk = slab * 4096usize.div_ceil(slab);
        y.par_chunks_mut(chunk)
            .zip(inputs[0].par_chunks(chunk))
            .for_each(|(y, x)| norm::softmax(x, self.extent, self.inner, self.logarithm, y));
    }
}
