//! Products with weights of a few bits.

use sartor_ir::{Named, Node, catalog::MatMulNBits};

use super::Product;
use crate::shapes::{Shapes, product as size};

/// `A […, k]` times packed weights `[n, k]`.
pub(super) fn packed(op: &Named, node: &Node, shapes: &Shapes) -> Option<Product> {
    let sizes = MatMulNBits::of(op).ok()?;
    let a = shapes.dims(node.input(0)?)?;
    let positions = size(a.get(..a.len().checked_sub(1)?)?);
    Some(Product {
        packed: Some(sizes.bits as u8),
        reduction_axis: 1,
        output_axis: 0,
        bias_input: 5,
        ..Product::matrix(1, positions, sizes.k as u64, sizes.n as u64)
    })
}
