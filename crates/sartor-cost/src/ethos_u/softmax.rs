//! Softmax as the array computes it: in fixed point, by some thirty operators.
//!
//! Source: the operators that Vela 5.2.0 makes of one. Its reciprocal is three steps of Newton's method (each two products and a
//! difference, of three passes) on the sum over a row, so most operators have but one element a row.

use sartor_ir::{Node, NodeId};

use super::{
    lower::{Draft, Lowering, Place, plain},
    machine::Volume,
    task::{Activation, Elementwise, Home, Kernel, Map, Work},
};

/// What an operator over rows does, whether its first operand is a constant, and whether the U85 chains it to the one before.
type Step = (Elementwise, bool, bool);

const OTHER: Elementwise = Elementwise::Other;
const SUM: Elementwise = Elementwise::Sum;
const PRODUCT: Elementwise = Elementwise::Product;

/// From the sum of a row to a first estimate of its reciprocal.
const START: [Step; 6] = [
    (OTHER, false, false),
    (SUM, true, false),
    (SUM, false, false),
    (OTHER, false, true),
    (PRODUCT, false, false),
    (SUM, false, true),
];

/// One step of Newton's method.
const NEWTON: [Step; 5] = [
    (PRODUCT, false, false),
    (SUM, true, true),
    (PRODUCT, false, true),
    (PRODUCT, false, true),
    (SUM, false, false),
];

/// Adds the operators of a softmax over the last axis.
pub(super) fn lower(lowering: &mut Lowering<'_>, id: NodeId, node: &Node) -> Option<()> {
    let (mut input, mut output) =
        (lowering.place(node.input(0)?, false)?, lowering.place(node.output(), false)?);
    let Volume { h, w, d } = input.map.size;
    let rows = h * w;
    let inner = |size: Volume, bits: u64| Place {
        value: None,
        map: Map { size, bits, linear: false, home: Home::Staging },
    };
    let full = inner(Volume::new(1, rows, d), 32);
    let row = inner(Volume::new(1, rows, 1), 32);
    let constant = Place {
        map: Map { linear: true, home: Home::Constants, size: Volume::new(1, 1, 1), ..row.map },
        ..row
    };
    let step = |kind, first: Place, second: Option<Place>, to: Place| Draft {
        operand: second,
        ..plain(id, Work::Elementwise(kind), first, to)
    };
    // The largest of each row, as a window over its elements.
    input.map.size = Volume::new(rows, d, 1);
    let largest = inner(Volume::new(rows, 1, 1), input.map.bits);
    let window = Kernel { w: d, ..Kernel::POINT };
    lowering.push(Draft { kernel: window, ..plain(id, Work::MaxPool, input, largest) });
    input.map.size = full.map.size;
    let shifted =
        Draft { activation: Activation::Table(1024), ..step(SUM, input, Some(largest), full) };
    lowering.push(shifted);
    lowering.push(step(OTHER, full, Some(constant), full));
    lowering.push(plain(id, Work::ReduceSum, full, row));
    let steps = START.into_iter().chain((0..3).flat_map(|_| NEWTON));
    for (kind, from_constant, chained) in steps {
        let first = if from_constant { constant } else { row };
        lowering.push_or_chain(step(kind, first, Some(row), row), chained);
    }
    lowering.push(step(PRODUCT, full, Some(row), full));
    output.map.size = full.map.size;
    lowering.push_or_chain(step(OTHER, full, Some(constant), output), true);
    Some(())
}
