//! Moving elements without computing.

/// Distances between neighbours along each axis of a row-major tensor.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// An affine view: element `i` of the result is element `offset + sum of i[axis] strides[axis]`.
/// Transposing, slicing and broadcasting are all this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Distance in the source by axis of the result.
    pub strides: Vec<isize>,
    /// Where the result begins in the source.
    pub offset: usize,
}

impl View {
    /// Axis `i` of the result is axis `perm[i]` of a source of `shape`.
    pub fn transpose(shape: &[usize], perm: &[usize]) -> Self {
        let from = strides(shape);
        View {
            shape: perm.iter().map(|&it| shape[it]).collect(),
            strides: perm.iter().map(|&it| from[it].cast_signed()).collect(),
            offset: 0,
        }
    }

    /// A window of a source of `shape`: first index, step and count by axis.
    pub fn slice(shape: &[usize], windows: &[(usize, isize, usize)]) -> Self {
        let from = strides(shape);
        View {
            shape: windows.iter().map(|it| it.2).collect(),
            strides: windows
                .iter()
                .zip(&from)
                .map(|(it, &stride)| it.1 * stride.cast_signed())
                .collect(),
            offset: windows.iter().zip(&from).map(|(it, stride)| it.0 * stride).sum(),
        }
    }

    /// A source of `shape` broadcast to `target`, aligned at the last axis; `None` if it does not fit.
    pub fn expand(shape: &[usize], target: &[usize]) -> Option<Self> {
        let lead = target.len().checked_sub(shape.len())?;
        let from = strides(shape);
        let mut along = vec![0; lead];
        for (axis, &extent) in shape.iter().enumerate() {
            along.push(match (extent, target[lead + axis]) {
                (1, _) => 0,
                (n, m) if n == m => from[axis].cast_signed(),
                _ => return None,
            });
        }
        Some(View { shape: target.to_vec(), strides: along, offset: 0 })
    }

    /// Whether the view shows `len` elements in the order in which they lie, from the first.
    pub fn is_identity(&self, len: usize) -> bool {
        let plain = strides(&self.shape);
        let same =
            |axis: usize| self.shape[axis] == 1 || self.strides[axis] == plain[axis].cast_signed();
        self.offset == 0
            && self.shape.iter().product::<usize>() == len
            && (0..self.shape.len()).all(same)
    }

    /// Calls `run` with the source offset of each run along the last axis, in the result's order.
    pub fn for_each_row(&self, mut run: impl FnMut(usize)) {
        let outer = self.shape.len().saturating_sub(1);
        if self.shape.contains(&0) {
            return;
        }
        let mut index = vec![0usize; outer];
        let mut at = self.offset.cast_signed();
        loop {
            run(at.cast_unsigned());
            let mut axis = outer;
            loop {
                let Some(next) = axis.checked_sub(1) else { return };
                axis = next;
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis].cast_signed();
                index[axis] = 0;
            }
        }
    }

    /// Copies what the view shows of `x` to `y`.
    pub fn copy<T: Copy>(&self, x: &[T], y: &mut [T]) {
        let (row, stride) =
            (self.shape.last().copied().unwrap_or(1), self.strides.last().copied().unwrap_or(1));
        let mut rest = y;
        self.for_each_row(|at| {
            let (run, tail) = std::mem::take(&mut rest).split_at_mut(row);
            rest = tail;
            match stride {
                1 => run.copy_from_slice(&x[at..at + row]),
                0 => run.fill(x[at]),
                _ => {
                    for (i, to) in run.iter_mut().enumerate() {
                        *to = x[at.wrapping_add_signed(i.cast_signed() * stride)];
                    }
                }
            }
        });
    }

    /// What the view shows of `x`.
    pub fn read<T: Copy>(&self, x: &[T]) -> Vec<T> {
        let Some(&first) = x.first() else { return Vec::new() };
        let mut y = vec![first; self.shape.iter().product()];
        self.copy(x, &mut y);
        y
    }
}

/// Writes parts of `[outer, run]` one after another into each of `outer` rows of `y`.
pub fn concat<T: Copy>(parts: &[(&[T], usize)], outer: usize, y: &mut [T]) {
    let row: usize = parts.iter().map(|it| it.1).sum();
    let mut start = 0;
    for &(part, run) in parts {
        for i in 0..outer {
            y[i * row + start..][..run].copy_from_slice(&part[i * run..][..run]);
        }
        start += run;
    }
}

/// Picks rows of `inner` elements at `indices` from each of the `outer` slabs of `extent` rows.
pub fn gather<T: Copy>(x: &[T], extent: usize, inner: usize, indices: &[usize], y: &mut [T]) {
    if extent * inner == 0 {
        return;
    }
    let slabs = x.chunks_exact(extent * inner);
    for (slab, y) in slabs.zip(y.chunks_exact_mut((indices.len() * inner).max(1))) {
        for (&index, y) in indices.iter().zip(y.chunks_exact_mut(inner)) {
            y.copy_from_slice(&slab[index * inner..][..inner]);
        }
    }
}

/// For each index of each result axis the index of the source, `None` outside it: padding of every kind.
pub fn pad<T: Copy>(x: &[T], shape: &[usize], tables: &[Vec<Option<usize>>], fill: T, y: &mut [T]) {
    // Trailing axes that copy straight make one run.
    let straight = |axis: usize| tables[axis].iter().copied().eq((0..shape[axis]).map(Some));
    let cut = (0..shape.len()).rev().find(|&axis| !straight(axis)).map_or(0, |axis| axis + 1);
    let run: usize = shape[cut..].iter().product();
    if run == 0 || tables.iter().any(Vec::is_empty) {
        return;
    }
    let from = strides(shape);
    let Some(inner) = cut.checked_sub(1) else {
        y.copy_from_slice(&x[..run]);
        return;
    };
    for (i, y) in y.chunks_exact_mut(tables[inner].len() * run).enumerate() {
        let (mut rest, mut at) = (i, Some(0));
        for axis in (0..inner).rev() {
            let own = tables[axis][rest % tables[axis].len()];
            at = at.zip(own).map(|(sum, own)| sum + own * from[axis]);
            rest /= tables[axis].len();
        }
        for (own, y) in tables[inner].iter().zip(y.chunks_exact_mut(run)) {
            match at.zip(*own) {
                Some((at, own)) => y.copy_from_slice(&x[at + own * from[inner]..][..run]),
                None => y.fill(fill),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views() {
        let x: Vec<i32> = (0..6).collect();
        assert_eq!(View::transpose(&[2, 3], &[1, 0]).read(&x), [0, 3, 1, 4, 2, 5]);
        assert_eq!(View::slice(&[2, 3], &[(0, 1, 2), (2, -1, 3)]).read(&x), [2, 1, 0, 5, 4, 3]);
        assert_eq!(
            View::expand(&[3, 1], &[2, 3, 2]).unwrap().read(&x[..3]),
            [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]
        );
        assert_eq!(View::transpose(&[], &[]).read(&[7]), [7]);
        assert!(View::transpose(&[2, 1, 3], &[0, 2, 1]).is_identity(6));
        assert!(View::expand(&[2], &[3]).is_none());
    }

    #[test]
    fn padding_by_tables() {
        let mut y = [0; 12];
        let rows = vec![None, Some(0), Some(1)];
        let columns = vec![Some(0), Some(0), Some(1), None];
        pad(&[1, 2, 3, 4], &[2, 2], &[rows, columns], 9, &mut y);
        assert_eq!(y, [9, 9, 9, 9, 1, 1, 2, 9, 3, 3, 4, 9]);
    }

    #[test]
    fn gathering_and_joining() {
        let mut y = [0; 4];
        gather(&[1, 2, 3, 4, 5, 6], 3, 1, &[2, 0], &mut y);
        assert_eq!(y, [3, 1, 6, 4]);
        concat(&[(&[1, 2], 1), (&[3, 4], 1)], 2, &mut y);
        assert_eq!(y, [1, 3, 2, 4]);
    }
}
