//! Reductions by their definitions.

use sartor_ir::ReduceKind;

use super::elementwise::{self, Float};

/// A row-major tensor seen as `[kept, reduced]`: where each pair lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReduceView {
    /// Offset of each kept index, in the output's order.
    pub kept: Vec<usize>,
    /// Offset of each reduced index.
    pub reduced: Vec<usize>,
}

impl ReduceView {
    /// The view that reduces `axes` of a tensor of `shape`.
    pub fn new(shape: &[usize], axes: &[usize]) -> Self {
        let mut view = ReduceView { kept: vec![0], reduced: vec![0] };
        let mut stride: usize = shape.iter().product();
        for (axis, &extent) in shape.iter().enumerate() {
            stride = stride.checked_div(extent).unwrap_or(0);
            let list = if axes.contains(&axis) { &mut view.reduced } else { &mut view.kept };
            *list = list.iter().flat_map(|&at| (0..extent).map(move |i| at + i * stride)).collect();
        }
        view
    }
}

/// Reduces `values`, accumulating in 64 bits.
pub(crate) fn reduce<T: Float>(
    kind: ReduceKind,
    values: impl Iterator<Item = T> + Clone,
    count: usize,
) -> T {
    let wide = values.clone().map(|it| -> f64 { it.into() });
    let result = match kind {
        ReduceKind::Mean => wide.sum::<f64>() / count as f64,
        ReduceKind::Sum => wide.sum(),
        ReduceKind::Max => return values.fold(T::ENDS.0, elementwise::larger),
        ReduceKind::Min => return values.fold(T::ENDS.1, elementwise::smaller),
        ReduceKind::Prod => wide.product(),
        ReduceKind::L1 => wide.map(f64::abs).sum(),
        ReduceKind::L2 => wide.map(|it| it * it).sum::<f64>().sqrt(),
        ReduceKind::SumSquare => wide.map(|it| it * it).sum(),
        ReduceKind::LogSum => wide.sum::<f64>().ln(),
        ReduceKind::LogSumExp => {
            let largest = wide.clone().fold(f64::NEG_INFINITY, f64::max);
            let shift = if largest.is_finite() { largest } else { 0.0 };
            wide.map(|it| (it - shift).exp()).sum::<f64>().ln() + shift
        }
    };
    T::narrow(result)
}

/// Reduces integers; `None` for kinds whose results are no integers.
pub fn reduce_integers(
    kind: ReduceKind,
    values: impl Iterator<Item = i64>,
    count: usize,
) -> Option<i64> {
    Some(match kind {
        ReduceKind::Mean => {
            values.fold(0, i64::wrapping_add).checked_div(count as i64).unwrap_or(0)
        }
        ReduceKind::Sum => values.fold(0, i64::wrapping_add),
        ReduceKind::Max => values.max().unwrap_or(i64::MIN),
        ReduceKind::Min => values.min().unwrap_or(i64::MAX),
        ReduceKind::Prod => values.fold(1, i64::wrapping_mul),
        ReduceKind::L1 => values.map(i64::wrapping_abs).fold(0, i64::wrapping_add),
        ReduceKind::SumSquare => values.map(|it| it.wrapping_mul(it)).fold(0, i64::wrapping_add),
        ReduceKind::L2 | ReduceKind::LogSum | ReduceKind::LogSumExp => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind() {
        let x = [1.0f32, 2.0, 3.0, -4.0];
        for (kind, expected) in [
            (ReduceKind::Mean, 0.5),
            (ReduceKind::Sum, 2.0),
            (ReduceKind::Max, 3.0),
            (ReduceKind::Min, -4.0),
            (ReduceKind::Prod, -24.0),
            (ReduceKind::L1, 10.0),
            (ReduceKind::L2, 30f32.sqrt()),
            (ReduceKind::SumSquare, 30.0),
            (ReduceKind::LogSum, 2f32.ln()),
            (ReduceKind::LogSumExp, 3.408_207),
        ] {
            let found = reduce(kind, x.into_iter(), 4);
            assert!((found - expected).abs() < 1e-5, "{kind:?}: {found}, not {expected}");
        }
    }

    #[test]
    fn views_keep_the_order() {
        let view = ReduceView::new(&[2, 3, 2], &[1]);
        assert_eq!(view, ReduceView { kept: vec![0, 1, 6, 7], reduced: vec![0, 2, 4] });
    }
}
