//! Sums of products named by their axes.

use std::collections::BTreeMap;

use sartor_ir::{
    Named, Node,
    catalog::{Einsum, Label},
};

use super::{Product, Work};
use crate::shapes::Shapes;

/// Two operands are a product of matrices: letters of both and the output are groups, letters of both alone are summed, others belong
/// to one side. More operands are multiplied from left to right, each time over all letters that are left.
pub(super) fn work(op: &Named, node: &Node, shapes: &Shapes) -> Option<Work> {
    let inputs: Vec<&[usize]> =
        node.inputs.iter().flatten().map(|&it| shapes.dims(it)).collect::<Option<_>>()?;
    let ranks: Vec<usize> = inputs.iter().map(|it| it.len()).collect();
    let it = Einsum::read(op.text("equation", "").ok()?, &ranks).ok()?;
    let mut extents: BTreeMap<Label, u64> = BTreeMap::new();
    for (labels, dims) in it.inputs.iter().zip(&inputs) {
        for (&label, &dim) in labels.iter().zip(*dims) {
            let extent = extents.entry(label).or_insert(1);
            *extent = (*extent).max(dim as u64);
        }
    }
    if it.inputs.len() < 2 {
        return Some(Work::elementwise(1.0));
    }
    let mut products = Vec::new();
    let mut left = it.inputs[0].clone();
    for (at, right) in it.inputs.iter().enumerate().skip(1) {
        let later = |label: &Label| {
            it.output.contains(label) || it.inputs[at + 1..].iter().any(|it| it.contains(label))
        };
        let size = |wanted: &dyn Fn(bool, bool, bool) -> bool| {
            let chosen = extents.iter().filter(|(label, _)| {
                wanted(left.contains(label), right.contains(label), later(label))
            });
            chosen.fold(1u64, |n, (_, &extent)| n.saturating_mul(extent))
        };
        let groups = size(&|l, r, later| l && r && later);
        let channels = size(&|l, r, later| (l || r) && !later);
        let positions = size(&|l, r, later| l && !r && later);
        let outputs = size(&|l, r, later| !l && r && later);
        let axis = |summed: bool| right.iter().position(|it| later(it) != summed).unwrap_or(0);
        products.push(Product {
            reduction_axis: axis(true),
            output_axis: axis(false),
            weights: at,
            bias: 0,
            bias_input: usize::MAX,
            ..Product::matrix(groups, positions, channels, outputs)
        });
        let kept: Vec<Label> = extents
            .keys()
            .filter(|it| (left.contains(it) || right.contains(it)) && later(it))
            .copied()
            .collect();
        left = kept;
    }
    Some(Work::products(products))
}
