//! Matrix products by the `gemm` crate, which picks its instruction set itself.
#![expect(unsafe_code, reason = "`gemm` takes raw pointers and strides")]

use rayon::prelude::*;

use super::{Tail, clamp};

/// A matrix inside a slice: element (r, c) is `data[r * row + c * col]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided<'a> {
    /// The elements.
    pub(crate) data: &'a [f32],
    /// Distance between rows, in elements.
    pub(crate) row: usize,
    /// Distance between columns, in elements.
    pub(crate) col: usize,
}

/// Multiply-accumulates of a block of the product that one task computes.
const TASK_WORK: usize = 1 << 21;

/// `c = tail(a · b + bias)` with a: m × k, b: k × n, c: m × n row-major and, if given, a bias for each column. The product is cut by its sizes alone.
///
/// # Panics
/// If a slice is shorter than its shape says: a bug of the caller.
pub(crate) fn gemm(
    (m, n, k): (usize, usize, usize),
    a: Strided<'_>,
    b: Strided<'_>,
    c: &mut [f32],
    bias: Option<&[f32]>,
    tail: Tail,
) {
    product((m, n, k), a, b, c, false, &|c, column, width| finish(c, column, width, bias, tail));
}

/// `c += a · b`, of the sizes of [`gemm`].
///
/// # Panics
/// As [`gemm`].
pub(crate) fn gemm_onto(
    sizes: (usize, usize, usize),
    a: Strided<'_>,
    b: Strided<'_>,
    c: &mut [f32],
) {
    product(sizes, a, b, c, true, &|_, _, _| {});
}

/// `c = a · b`, or that added to it; `finish` then sees each block of whole rows with its first column and its width.
fn product(
    (m, n, k): (usize, usize, usize),
    a: Strided<'_>,
    b: Strided<'_>,
    c: &mut [f32],
    accumulate: bool,
    finish: &(dyn Fn(&mut [f32], usize, usize) + Sync),
) {
    if m == 0 || n == 0 {
        return;
    }
    assert_eq!(c.len(), m * n, "product of {m} × {n}");
    if k > 0 {
        assert!((m - 1) * a.row + (k - 1) * a.col < a.data.len(), "left side of {m} × {k}");
        assert!((k - 1) * b.row + (n - 1) * b.col < b.data.len(), "right side of {k} × {n}");
    }
    let work = m * n * k;
    let parts = work.div_ceil(TASK_WORK).clamp(1, 16);
    if m >= n.min(parts * 8) {
        let rows = m.div_ceil(parts).next_multiple_of(8);
        c.par_chunks_mut(rows * n).enumerate().for_each(|(part, c)| {
            let first = part * rows;
            let m = c.len() / n;
            let a = Strided { data: &a.data[(first * a.row).min(a.data.len())..], ..a };
            // SAFETY: the asserts above bound every element of `a` and `b`; `c` holds `m` full rows.
            unsafe { block((m, n, k), a, b, (c.as_mut_ptr(), n), accumulate) };
            finish(c, 0, n);
        });
        return;
    }
    let columns = n.div_ceil(parts).next_multiple_of(16);
    let out = Shared(c.as_mut_ptr());
    (0..n.div_ceil(columns)).into_par_iter().for_each(|part| {
        let first = part * columns;
        let width = columns.min(n - first);
        let b = Strided { data: &b.data[(first * b.col).min(b.data.len())..], ..b };
        // SAFETY: the asserts above bound every element of `a` and `b`; tasks own disjoint columns of `c`, each of
        // which lies inside its m × n elements.
        unsafe {
            let c = out.get().add(first);
            block((m, width, k), a, b, (c, n), accumulate);
            for row in 0..m {
                let c = std::slice::from_raw_parts_mut(c.add(row * n), width);
                finish(c, first, width);
            }
        }
    });
}

/// A pointer to elements of which each task writes its own.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

impl Shared {
    fn get(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: tasks write disjoint elements only.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// One block of the product, by one thread.
///
/// # Safety
/// `a`, `b` and `c` must hold the elements that the sizes and strides name.
unsafe fn block(
    (m, n, k): (usize, usize, usize),
    a: Strided<'_>,
    b: Strided<'_>,
    (c, c_row): (*mut f32, usize),
    accumulate: bool,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            c_row as isize,
            accumulate,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Adds the bias and applies the tail to rows of `width` elements that begin at `column` of the product.
fn finish(c: &mut [f32], column: usize, width: usize, bias: Option<&[f32]>, tail: Tail) {
    let bounds = tail.bounds();
    for line in c.chunks_exact_mut(width) {
        match bias {
            None if tail == Tail::None => {}
            None => {
                for c in line {
                    *c = clamp(*c, bounds);
                }
            }
            Some(bias) => {
                for (c, b) in line.iter_mut().zip(&bias[column..column + width]) {
                    *c = clamp(*c + b, bounds);
                }
            }
        }
    }
}
