//! Matrix products.

use sartor_ir::Gemm;

use super::{Kernel, Prepared, Site};
use crate::{
    reference::{MatMulBatches, gemm::Matrix, layout::View},
    simd::{self, Strided, Tail},
    stage::Stage,
};

/// One product or several of the same shape.
#[derive(Debug)]
struct MatMulKernel {
    a: Matrix,
    b: Matrix,
    /// Where the operands of each product begin.
    offsets: Vec<(usize, usize)>,
    /// A constant right-hand side, which may be scaled.
    weights: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    tail: Tail,
}

pub(super) fn prepare_gemm(it: &Gemm, site: &Site<'_>) -> Option<Prepared> {
    let (a, b) = (site.shape_of(0)?, site.shape_of(1)?);
    let weights: Vec<f32> = site.floats(1)?.iter().map(|w| w * it.alpha).collect();
    let bias = if site.absent(2) {
        None
    } else {
        let c = site.constants.get(2)?.as_ref()?;
        let row = View::expand(&c.shape, &[1, site.shape[1]])?.read(c.as_f32()?);
        Some(row.iter().map(|c| c * it.beta).collect())
    };
    let kernel = MatMulKernel {
        a: Matrix::stored(a[0], a[1], it.trans_a),
        b: Matrix::stored(b[0], b[1], it.trans_b),
        offsets: vec![(0, 0)],
        weights: Some(weights),
        bias,
        tail: Tail::None,
    };
    Some(Prepared { kernel: Box::new(kernel), inputs: vec![0] })
}

pub(super) fn prepare_matmul(site: &Site<'_>) -> Option<Prepared> {
    let (a, b) = (site.shape_of(0)?, site.shape_of(1)?);
    let mut batches = MatMulBatches::new(a, b).ok()?;
    let weights = site.floats(1).map(<[f32]>::to_vec);
    if b.len() <= 2 && a.len() > 2 {
        // One matrix on the right: all rows on the left make one product.
        batches.a = Matrix::stored(a[..a.len() - 1].iter().product(), batches.a.columns, false);
        batches.offsets = vec![(0, 0)];
    }
    let inputs = if weights.is_some() { vec![0] } else { vec![0, 1] };
    let MatMulBatches { a, b, offsets } = batches;
    let kernel = MatMulKernel { a, b, offsets, weights, bias: None, tail: Tail::None };
    Some(Prepared { kernel: Box::new(kernel), inputs })
}

impl Kernel for MatMulKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let (m, n, k) = (self.a.rows, self.b.columns, self.a.columns);
        if m * n == 0 {
            return;
        }
        let right = self.weights.as_deref().unwrap_or_else(|| inputs[1]);
        for (&(at_a, at_b), y) in self.offsets.iter().zip(y.chunks_exact_mut(m * n)) {
            let a = Strided {
                data: &inputs[0][at_a..],
                row: self.a.row_stride,
                col: self.a.column_stride,
            };
            let b =
                Strided { data: &right[at_b..], row: self.b.row_stride, col: self.b.column_stride };
            let bias = self.bias.as_deref();
            simd::gemm((m, n, k), a, b, y, bias, self.tail);
        }
    }

    fn macs(&self) -> usize {
        self.offsets.len() * self.a.rows * self.a.columns * self.b.columns
    }

    fn absorb(&mut self, stage: &Stage) -> bool {
        if self.tail != Tail::None {
            return false;
        }
        match stage {
            Stage::Along { op: sartor_ir::Binary::Add, values, inner: 1, .. }
                if self.bias.is_none() && values.len() == self.b.columns =>
            {
                self.bias = Some(values.clone());
            }
            _ => match stage.as_tail() {
                Some(tail) => self.tail = tail,
                None => return false,
            },
        }
        true
    }
}
