//! Matrix products.

use sartor_ir::{Gemm, Node};

use super::Product;
use crate::shapes::Shapes;

/// `A [m, k]`, `B [k, n]`, either of them possibly stored transposed.
pub(super) fn product(gemm: &Gemm, node: &Node, shapes: &Shapes) -> Option<Product> {
    let output = shapes.dims(node.output())?;
    let b = shapes.dims(node.input(1)?)?;
    let reduction_axis = usize::from(gemm.trans_b);
    Some(Product {
        groups: 1,
        channels: *b.get(reduction_axis)? as u64,
        taps: 1,
        outputs: *output.get(1)? as u64,
        positions: *output.first()? as u64,
        depthwise: false,
        reduction_axis,
        output_axis: 1 - reduction_axis,
    })
}

/// `A […, m, k]`, `B […, k, n]`: a plain matrix on the right serves all leading positions at once, others are products apart.
pub(super) fn product_matmul(node: &Node, shapes: &Shapes) -> Option<Product> {
    let (a, b) = (shapes.dims(node.input(0)?)?, shapes.dims(node.input(1)?)?);
    let all = shapes.elements(node.output())?;
    let outputs = if b.len() > 1 { *b.last()? as u64 } else { 1 };
    let reduction_axis = b.len().saturating_sub(2);
    let groups: u64 = b[..reduction_axis].iter().map(|&it| it as u64).product();
    Some(Product {
        groups,
        channels: *a.last()? as u64,
        taps: 1,
        outputs,
        positions: all / (outputs * groups).max(1),
        depthwise: false,
        reduction_axis,
        output_axis: b.len().saturating_sub(1),
    })
}
