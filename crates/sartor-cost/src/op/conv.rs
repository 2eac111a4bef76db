//! Convolution.

use sartor_ir::{Conv, Node};

use super::Product;
use crate::shapes::Shapes;

/// `X [n, c, …]`, `W [o, c/group, …]`, `Y [n, o, …]`: a product over `c/group` channels and the kernel's taps at `n · …` positions.
pub(super) fn product(conv: &Conv, node: &Node, shapes: &Shapes) -> Option<Product> {
    let weight = shapes.dims(node.input(1)?)?;
    let output = shapes.dims(node.output())?;
    let (&filters, &channels) = (weight.first()?, weight.get(1)?);
    let size = |extents: &[usize]| extents.iter().map(|&it| it as u64).product::<u64>();
    let groups = conv.group.max(1);
    Some(Product {
        groups: groups as u64,
        channels: channels as u64,
        taps: size(&weight[2..]),
        outputs: (filters / groups) as u64,
        positions: *output.first()? as u64 * size(output.get(2..)?),
        depthwise: groups > 1 && channels == 1,
        reduction_axis: 1,
        output_axis: 0,
    })
}
