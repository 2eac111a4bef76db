//! Matrix products.

use sartor_ir::Gemm;

use super::{Fast, Made, Reads, Seen, Site, made};
use crate::{
    reference::{MatMulBatches, gemm::Matrix},
    simd::{Into, Strided, Tail, bias_gradient, gemm, gemm_onto},
};

/// One product or several of the same sizes, with a bias for each column.
#[derive(Debug)]
struct FastProduct {
    a: Matrix,
    b: Matrix,
    /// Where the operands of each product begin.
    offsets: Vec<(usize, usize)>,
    bias: bool,
}

pub(super) fn prepare_gemm(it: &Gemm, site: &Site<'_>) -> Option<Made> {
    let bias = site.given(2);
    let row = |c: &[usize]| {
        c.iter().product::<usize>() == site.output[1] && c.last() == site.output.last()
    };
    let plain = it.alpha.to_bits() == 1f32.to_bits() && it.beta.to_bits() == 1f32.to_bits();
    if !plain || !site.floats(3) || (bias && !row(&site.shapes[2])) {
        return None;
    }
    let matrix =
        |i: usize, transposed| Matrix::stored(site.shapes[i][0], site.shapes[i][1], transposed);
    let (a, b) = (matrix(0, it.trans_a), matrix(1, it.trans_b));
    let fast = FastProduct { a, b, offsets: vec![(0, 0)], bias };
    made(fast, if bias { &[0, 1, 2] } else { &[0, 1] })
}

pub(super) fn prepare_matmul(site: &Site<'_>) -> Option<Made> {
    let (a, b) = (&site.shapes[0], &site.shapes[1]);
    let mut it = MatMulBatches::new(a, b).ok()?;
    if b.len() <= 2 && a.len() > 2 {
        // One matrix on the right: all rows on the left make one product.
        it.a = Matrix::stored(a[..a.len() - 1].iter().product(), it.a.columns, false);
        it.offsets = vec![(0, 0)];
    }
    let fast = FastProduct { a: it.a, b: it.b, offsets: it.offsets, bias: false };
    if site.floats(2) { made(fast, &[0, 1]) } else { None }
}

fn strided(data: &[f32], it: Matrix, transposed: bool) -> Strided<'_> {
    let (row, col) = (it.row_stride, it.column_stride);
    let (row, col) = if transposed { (col, row) } else { (row, col) };
    Strided { data, row, col }
}

/// Adds left · right to the matrix `to`, which is stored as `it` says.
fn add_product(
    sizes: (usize, usize, usize),
    left: Strided<'_>,
    right: Strided<'_>,
    it: Matrix,
    to: &mut [f32],
) {
    let to = &mut to[..it.rows * it.columns];
    if it.column_stride == 1 {
        gemm_onto(sizes, left, right, to);
    } else {
        // Stored transposed: (left · right)^T = right^T · left^T.
        let turn = |it: Strided<'_>| (it.col, it.row);
        let ((lr, lc), (rr, rc)) = (turn(left), turn(right));
        let (m, n, k) = sizes;
        let left_t = Strided { data: right.data, row: rr, col: rc };
        let right_t = Strided { data: left.data, row: lr, col: lc };
        gemm_onto((n, m, k), left_t, right_t, to);
    }
}

impl Fast for FastProduct {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        let (m, n, k) = (self.a.rows, self.b.columns, self.a.columns);
        let bias = self.bias.then(|| inputs[2]);
        for (&(at_a, at_b), y) in self.offsets.iter().zip(y.chunks_exact_mut((m * n).max(1))) {
            let a = strided(&inputs[0][at_a..], self.a, false);
            let b = strided(&inputs[1][at_b..], self.b, false);
            gemm((m, n, k), a, b, y, bias, Tail::None);
        }
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        let (m, n, k) = (self.a.rows, self.b.columns, self.a.columns);
        into.iter_mut().flatten().for_each(Into::start);
        let rows = Matrix::stored(m, n, false);
        for (&(at_a, at_b), dy) in self.offsets.iter().zip(dy.chunks_exact((m * n).max(1))) {
            if let Some(da) = &mut into[0] {
                let b = strided(&seen.inputs[1][at_b..], self.b, true);
                add_product((m, k, n), strided(dy, rows, false), b, self.a, &mut da.values[at_a..]);
            }
            if let Some(db) = &mut into[1] {
                let a = strided(&seen.inputs[0][at_a..], self.a, true);
                add_product((k, n, m), a, strided(dy, rows, false), self.b, &mut db.values[at_b..]);
            }
        }
        if let Some(Some(dc)) = into.get_mut(2) {
            bias_gradient((m, n, 1), dy, dc.values);
        }
    }

    fn reads(&self) -> Reads {
        Reads::inputs(&[0, 1])
    }
}
