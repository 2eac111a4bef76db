//! Matrix products.

use sartor_ir::{Gemm, Node};

use super::Product;
use crate::shapes::{Shapes, product as size};

/// `A [m, k]`, `B [k, n]`, either of them possibly stored transposed.
pub(super) fn product(gemm: &Gemm, node: &Node, shapes: &Shapes) -> Option<Product> {
    let output = shapes.dims(node.output())?;
    let b = shapes.dims(node.input(1)?)?;
    let reduction_axis = usize::from(gemm.trans_b);
    let channels = *b.get(reduction_axis)? as u64;
    let (positions, outputs) = (*output.first()? as u64, *output.get(1)? as u64);
    Some(Product {
        reduction_axis,
        output_axis: 1 - reduction_axis,
        ..Product::matrix(1, positions, channels, outputs)
    })
}

/// `A […, m, k]`, `B […, k, n]`: a plain matrix on the right serves all leading positions at once, others are products apart.
pub(super) fn product_matmul(
    node: &Node,
    shapes: &Shapes,
    [moving, weights]: [usize; 2],
) -> Option<Product> {
    let (a, b) = (shapes.dims(node.input(moving)?)?, shapes.dims(node.input(weights)?)?);
    let all = shapes.elements(node.output())?;
    let outputs = if b.len() > 1 { *b.last()? as u64 } else { 1 };
    let reduction_axis = b.len().saturating_sub(2);
    let groups = size(&b[..reduction_axis]);
    let positions = all / outputs.saturating_mul(groups).max(1);
    Some(Product {
        reduction_axis,
        output_axis: b.len().saturating_sub(1),
        weights,
        moving,
        bias_input: usize::MAX,
        ..Product::matrix(groups, positions, *a.last()? as u64, outputs)
    })
}
