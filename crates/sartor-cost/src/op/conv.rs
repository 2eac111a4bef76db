//! Convolution.

use sartor_chip::ProductKind;
use sartor_ir::{Named, Node, Op, catalog};

use super::Product;
use crate::shapes::{Shapes, product as size};

/// `X [n, c, …]`, `W [o, c/group, …]`, `Y [n, o, …]`: a product over `c/group` channels and the kernel's taps at `n · …` positions.
/// `inputs` are those of `X` and of `W`.
pub(super) fn product(
    group: usize,
    node: &Node,
    shapes: &Shapes,
    [moving, weights]: [usize; 2],
) -> Option<Product> {
    let weight = shapes.dims(node.input(weights)?)?;
    let output = shapes.dims(node.output())?;
    let (&filters, &channels) = (weight.first()?, weight.get(1)?);
    // What the shapes say holds for a network that lost channels too, whose attribute is not changed.
    let inputs = node.input(moving).and_then(|it| shapes.dims(it)?.get(1).copied());
    let groups = match inputs {
        Some(inputs) if group > 1 && channels > 0 => (inputs / channels).max(1),
        _ => group.max(1),
    };
    let positions = (*output.first()? as u64).saturating_mul(size(output.get(2..)?));
    Some(Product {
        taps: size(&weight[2..]),
        depthwise: groups > 1 && channels == 1,
        kind: kind(node, groups, &weight[2..]),
        reduction_axis: 1,
        output_axis: 0,
        weights,
        moving,
        ..Product::matrix(groups as u64, positions, channels as u64, (filters / groups) as u64)
    })
}

/// The kernel that a runtime may choose.
fn kind(node: &Node, groups: usize, taps: &[usize]) -> Option<ProductKind> {
    let plain = |list: &[usize]| list.iter().all(|&it| it == 1);
    let unit =
        |conv: &sartor_ir::Conv| plain(&conv.spatial.strides) && plain(&conv.spatial.dilations);
    match &node.op {
        _ if groups > 1 => Some(ProductKind::Grouped),
        _ if plain(taps) => Some(ProductKind::Pointwise),
        Op::Conv(conv) if taps == [3, 3] && unit(conv) => Some(ProductKind::Conv3x3),
        _ => None,
    }
}

/// `X [n, c, …]`, `W [c, o/group, …]`: each input position gives one product over the channels of its group to all taps of all outputs,
/// which are then added where they overlap (Dumoulin and Visin, A guide to convolution arithmetic, 2016, section 4).
pub(super) fn transposed(op: &Named, node: &Node, shapes: &Shapes) -> Option<Product> {
    let groups = catalog::ConvTranspose::read(op).ok()?.group.max(1);
    let weight = shapes.dims(node.input(1)?)?;
    let input = shapes.dims(node.input(0)?)?;
    let (&channels, &outputs) = (weight.first()?, weight.get(1)?);
    let positions = (*input.first()? as u64).saturating_mul(size(input.get(2..)?));
    let columns = (outputs as u64).saturating_mul(size(&weight[2..]));
    let channels = (channels / groups) as u64;
    Some(Product {
        bias: (groups as u64).saturating_mul(outputs as u64),
        kind: None,
        ..Product::matrix(groups as u64, positions, channels, columns)
    })
}
