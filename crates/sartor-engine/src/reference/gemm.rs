//! Matrix products by their definition.

use super::elementwise::Number;

/// A matrix in a slice: extents and distances between rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub column_stride: usize,
}

impl Matrix {
    /// A matrix stored row by row, seen transposed if `transposed`; the extents are those stored.
    pub fn stored(rows: usize, columns: usize, transposed: bool) -> Self {
        let plain = Matrix { rows, columns, row_stride: columns, column_stride: 1 };
        if transposed { plain.transposed() } else { plain }
    }

    /// Rows become columns.
    #[must_use]
    pub fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `y[i, j] = sum over k of a[i, k] b[k, j]`, floats summed in 64 bits; `y` is stored row by row.
pub(crate) fn matmul<T: Number>(a: &[T], a_shape: Matrix, b: &[T], b_shape: Matrix, y: &mut [T]) {
    for i in 0..a_shape.rows {
        for j in 0..b_shape.columns {
            let term = |k: usize| {
                let left = a[i * a_shape.row_stride + k * a_shape.column_stride];
                let right = b[k * b_shape.row_stride + j * b_shape.column_stride];
                (left, right)
            };
            y[i * b_shape.columns + j] = T::dot(T::default(), (0..a_shape.columns).map(term));
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn transposes_are_views() {
        let (a, b) = ([1f32, 2., 3., 4., 5., 6.], [1., 0., 0., 1., 1., 1.]);
        let mut y = [0.0; 4];
        matmul(&a, Matrix::stored(2, 3, false), &b, Matrix::stored(3, 2, false), &mut y);
        assert_eq!(y, [4., 5., 10., 11.]);
        matmul(&a, Matrix::stored(3, 2, true), &b, Matrix::stored(2, 3, true), &mut y);
        assert_eq!(y, [1., 9., 2., 12.]);
    }
}
