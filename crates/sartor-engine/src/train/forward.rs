//! Values of operators whose weights change from run to run.

use sartor_ir::{Conv, DType, Gemm, Op};

use crate::{
    Array, gradient, kernel,
    reference::{self, MatMulBatches, gemm::Matrix, layout::View},
    simd::{self, PackedConv, Strided, Tail},
};

/// The outputs of `op`, as [`reference::evaluate`] gives them, with products by the fast kernels.
pub(super) fn evaluate(
    op: &Op,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    if inputs.iter().flatten().any(|it| it.as_f32().is_none()) {
        return reference::evaluate(op, inputs, dtypes);
    }
    let input = |i: usize| inputs.get(i).copied().flatten();
    let (Some(a), Some(b)) = (input(0), input(1)) else {
        return reference::evaluate(op, inputs, dtypes);
    };
    let one = match op {
        Op::Conv(it) => {
            let shape = reference::output_shape(op, inputs)?;
            conv(it, &shape, a, b, input(2).and_then(Array::as_f32))
        }
        Op::Gemm(it) => {
            let shape = reference::output_shape(op, inputs)?;
            gemm(it, &shape, a, b, input(2))
        }
        Op::MatMul => matmul(&reference::output_shape(op, inputs)?, a, b),
        _ => return reference::evaluate(op, inputs, dtypes),
    };
    one.map(|it| vec![it])
}

fn conv(
    it: &Conv,
    shape: &[usize],
    x: &Array,
    w: &Array,
    bias: Option<&[f32]>,
) -> Result<Array, String> {
    let Some(plane) = kernel::plane_shape(it, &x.shape, &w.shape, shape) else {
        return gradient::conv_forward(it, shape, x, w, bias);
    };
    let mut y = vec![0.0; shape.iter().product()];
    let packed = PackedConv::new(&plane, &gradient::floats(w), bias);
    packed.run(&gradient::floats(x), None, Tail::None, &mut y);
    Ok(Array::f32(shape, y))
}

fn product(left: &[f32], l: Matrix, right: &[f32], r: Matrix, y: &mut [f32]) {
    let a = Strided { data: left, row: l.row_stride, col: l.column_stride };
    let b = Strided { data: right, row: r.row_stride, col: r.column_stride };
    simd::gemm((l.rows, r.columns, l.columns), a, b, y, None, Tail::None);
}

fn gemm(
    it: &Gemm,
    shape: &[usize],
    a: &Array,
    b: &Array,
    c: Option<&Array>,
) -> Result<Array, String> {
    let mut y = vec![0.0; shape.iter().product()];
    let [l, r] = [(a, it.trans_a), (b, it.trans_b)]
        .map(|(it, transposed)| Matrix::stored(it.shape[0], it.shape[1], transposed));
    product(&gradient::floats(a), l, &gradient::floats(b), r, &mut y);
    for y in &mut y {
        *y *= it.alpha;
    }
    if let Some(c) = c {
        let view =
            View::expand(&c.shape, shape).ok_or("the addend does not broadcast to the product")?;
        let addend = view.read(&gradient::floats(c));
        y.iter_mut().zip(addend).for_each(|(y, c)| *y += it.beta * c);
    }
    Ok(Array::f32(shape, y))
}

fn matmul(shape: &[usize], a: &Array, b: &Array) -> Result<Array, String> {
    let mut it = MatMulBatches::new(&a.shape, &b.shape)?;
    if b.shape.len() <= 2 && a.shape.len() > 2 {
        // One matrix on the right: all rows on the left make one product.
        it.a = Matrix::stored(a.shape[..a.shape.len() - 1].iter().product(), it.a.columns, false);
        it.offsets = vec![(0, 0)];
    }
    let (x, w) = (gradient::floats(a), gradient::floats(b));
    let mut y = vec![0.0; shape.iter().product()];
    let size = (it.a.rows * it.b.columns).max(1);
    for (&(at_a, at_b), y) in it.offsets.iter().zip(y.chunks_exact_mut(size)) {
        product(&x[at_a..], it.a, &w[at_b..], it.b, y);
    }
    Ok(Array::f32(shape, y))
}
