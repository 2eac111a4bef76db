//! Gradients of matrix products: with `Y = A B` they are `dA = dY B^T` and `dB = A^T dY`.

use sartor_ir::Gemm;

use super::{Context, Made, broadcast, floats};
use crate::{
    Array,
    reference::{MatMulBatches, gemm::Matrix},
    simd::{self, Strided, Tail},
};

fn strided(data: &[f32], it: Matrix) -> Strided<'_> {
    Strided { data, row: it.row_stride, col: it.column_stride }
}

/// `left right` for matrices of these forms.
fn product(left: &[f32], l: Matrix, right: &[f32], r: Matrix, y: &mut [f32]) {
    let sizes = (l.rows, r.columns, l.columns);
    simd::gemm(sizes, strided(left, l), strided(right, r), y, None, Tail::None);
}

/// `Y = alpha A' B' + beta C`: gradients are made in the form in which an operand is stored.
pub(super) fn gemm(it: &Gemm, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (a, b, dy) = (context.input(0)?, context.input(1)?, floats(g));
    let [a_form, b_form] = [(a, it.trans_a), (b, it.trans_b)]
        .map(|(it, transposed)| Matrix::stored(it.shape[0], it.shape[1], transposed));
    let g_form = Matrix::stored(a_form.rows, b_form.columns, false);
    let scaled = |mut values: Vec<f32>, factor: f32, shape: &[usize]| {
        for it in &mut values {
            *it *= factor;
        }
        Some(Array::f32(shape, values))
    };
    if context.wants(0) {
        let (mut da, b) = (vec![0.0; a.len()], floats(b));
        if it.trans_a {
            product(&b, b_form, &dy, g_form.transposed(), &mut da);
        } else {
            product(&dy, g_form, &b, b_form.transposed(), &mut da);
        }
        made[0] = scaled(da, it.alpha, &a.shape);
    }
    if context.wants(1) {
        let (mut db, a) = (vec![0.0; b.len()], floats(a));
        if it.trans_b {
            product(&dy, g_form.transposed(), &a, a_form, &mut db);
        } else {
            product(&a, a_form.transposed(), &dy, g_form, &mut db);
        }
        made[1] = scaled(db, it.alpha, &b.shape);
    }
    if let (true, Some(c)) = (context.wants(2), context.optional(2)) {
        made[2] = scaled(broadcast::sum(&dy, &g.shape, &c.shape)?, it.beta, &c.shape);
    }
    Ok(made)
}

/// Batched products: an operand that several products share gets the sum of their gradients.
pub(super) fn matmul(context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (a, b, dy) = (context.input(0)?, context.input(1)?, floats(g));
    let mut it = MatMulBatches::new(&a.shape, &b.shape)?;
    if b.shape.len() <= 2 && a.shape.len() > 2 {
        // One matrix on the right: all rows on the left make one product.
        it.a = Matrix::stored(a.shape[..a.shape.len() - 1].iter().product(), it.a.columns, false);
        it.offsets = vec![(0, 0)];
    }
    let form = Matrix::stored(it.a.rows, it.b.columns, false);
    let size = form.rows * form.columns;
    let parts = || it.offsets.iter().enumerate().map(|(i, at)| (&dy[i * size..], *at));
    if context.wants(0) {
        let (mut da, b) = (Sum::new(a.len(), it.a), floats(b));
        for (dy, (at_a, at_b)) in parts() {
            da.add(at_a, |y| product(dy, form, &b[at_b..], it.b.transposed(), y));
        }
        made[0] = Some(Array::f32(&a.shape, da.total));
    }
    if context.wants(1) {
        let (mut db, a) = (Sum::new(b.len(), it.b), floats(a));
        for (dy, (at_a, at_b)) in parts() {
            db.add(at_b, |y| product(&a[at_a..], it.a.transposed(), dy, form, y));
        }
        made[1] = Some(Array::f32(&b.shape, db.total));
    }
    Ok(made)
}

/// Matrices of one size, of which some may get several contributions.
struct Sum {
    total: Vec<f32>,
    part: Vec<f32>,
    touched: Vec<bool>,
}

impl Sum {
    fn new(len: usize, form: Matrix) -> Self {
        let size = form.rows * form.columns;
        let count = len.checked_div(size).unwrap_or(0);
        Sum { total: vec![0.0; len], part: vec![0.0; size], touched: vec![false; count] }
    }

    /// Adds what `make` writes to the matrix that begins at `at`.
    fn add(&mut self, at: usize, make: impl FnOnce(&mut [f32])) {
        let size = self.part.len();
        if size == 0 {
            return;
        }
        let own = &mut self.total[at..at + size];
        if std::mem::replace(&mut self.touched[at / size], true) {
            make(&mut self.part);
            own.iter_mut().zip(&self.part).for_each(|(sum, it)| *sum += it);
        } else {
            make(own);
        }
    }
}
