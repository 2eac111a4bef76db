//! Whether a chip runs an operator of these sizes.

use sartor_chip::{Chip, OpFacts};
use sartor_ir::{Node, Op};

use crate::shapes::Shapes;

/// Why the chip does not run `node`; `None` where it does.
pub(super) fn refused(chip: &Chip, node: &Node, shapes: &Shapes) -> Option<String> {
    let op = node.op.name();
    let limited = !chip.core.operators.limits.is_empty();
    if !limited || !chip.runs(op) {
        return chip.refuses(&OpFacts { op, ..OpFacts::default() });
    }
    let list = |it: &[usize]| it.iter().map(|&it| it as u64).collect::<Vec<u64>>();
    let dims = |i: usize| node.input(i).and_then(|it| shapes.dims(it));
    let (mut kernel, mut strides, mut dilations) = (Vec::new(), Vec::new(), Vec::new());
    let mut depthwise = false;
    match &node.op {
        Op::Conv(it) => {
            let weight = dims(1).unwrap_or_default();
            kernel = list(weight.get(2..).unwrap_or_default());
            depthwise = it.group > 1 && weight.get(1) == Some(&1);
            (strides, dilations) = (list(&it.spatial.strides), list(&it.spatial.dilations));
        }
        Op::Pool(it) => {
            kernel = list(&it.spatial.kernel);
            (strides, dilations) = (list(&it.spatial.strides), list(&it.spatial.dilations));
        }
        Op::Named(it) if it.name == "ConvTranspose" => {
            kernel = list(dims(1).and_then(|it| it.get(2..)).unwrap_or_default());
            let given = it.ints("strides").ok().flatten().unwrap_or_default();
            strides = given.iter().filter_map(|&it| u64::try_from(it).ok()).collect();
        }
        _ => {}
    }
    let values = || node.inputs.iter().take(1).chain(&node.outputs).flatten();
    let known = || values().filter_map(|&it| shapes.dims(it));
    let channels: Vec<u64> = known().filter_map(|it| it.get(1).map(|&it| it as u64)).collect();
    let shapes: Vec<Vec<u64>> = known().map(list).collect();
    let facts = OpFacts {
        op,
        kernel: &kernel,
        strides: &strides,
        dilations: &dilations,
        channels: &channels,
        shapes: &shapes,
    };
    let named = depthwise && chip.runs("DepthwiseConv");
    let as_depthwise = || chip.refuses(&OpFacts { op: "DepthwiseConv", ..facts.clone() });
    chip.refuses(&facts).or_else(|| if named { as_depthwise() } else { None })
}
