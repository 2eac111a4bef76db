//! `LSTM`, `GRU` and `RNN`.

use sartor_chip::ProductKind;
use sartor_ir::{
    Named, Node,
    catalog::{Cell, Recurrent},
};

use super::{Product, Work};
use crate::shapes::Shapes;

/// `X [t, n, i]` (or `[n, t, i]`), `W [directions, gates · h, i]`, `R [directions, gates · h, h]`. The inputs of all steps are projected by
/// one product; the recurrent product runs once for each step, each after the last (Appleyard et al., Optimizing performance of
/// recurrent neural networks on GPUs, 2016, section 3).
pub(super) fn work(op: &Named, node: &Node, shapes: &Shapes) -> Option<Work> {
    let it = Recurrent::of(op).ok()?;
    let (x, w) = (shapes.dims(node.input(0)?)?, shapes.dims(node.input(1)?)?);
    let r = shapes.dims(node.input(2)?)?;
    let ([a, b, _], &[directions, rows, inputs], &[_, _, hidden]) = (x, w, r) else { return None };
    let (steps, batch) = if it.batch_first { (*b, *a) } else { (*a, *b) };
    let [steps, batch] = [steps as u64, batch as u64];
    let [directions, rows, inputs, hidden] =
        [directions as u64, rows as u64, inputs as u64, hidden as u64];
    let weights = Product {
        reduction_axis: 2,
        output_axis: 1,
        bias: 2 * directions * rows,
        bias_input: 3,
        ..Product::matrix(directions, steps.saturating_mul(batch), inputs, rows)
    };
    let recurrent = Product {
        channels: hidden,
        positions: batch,
        steps,
        kind: Some(ProductKind::Recurrent),
        weights: 2,
        moving: 0,
        bias: directions * rows,
        bias_input: usize::MAX,
        ..weights
    };
    let cells =
        [directions, steps, batch, hidden].iter().fold(1, |n: u64, &it| n.saturating_mul(it));
    let (sigmoids, tangents, others) = match it.cell {
        Cell::Rnn => (0, 1, 1),
        Cell::Gru => (2, 1, 4),
        Cell::Lstm => (3, 2, 4),
    };
    let inner = vec![
        ("Sigmoid", cells.saturating_mul(sigmoids)),
        ("Tanh", cells.saturating_mul(tangents)),
        ("Mul", cells.saturating_mul(others)),
    ];
    Some(Work { inner, ..Work::products(vec![weights, recurrent]) })
}
