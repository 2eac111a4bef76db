//! Attention: two products of activations by each head, and a softmax between them (Vaswani et al., Attention is all you need, 2017,
//! section 3.2).

use sartor_ir::{Named, Node, catalog::Attention};

use super::{Product, Work};
use crate::shapes::Shapes;

/// Passes of a softmax over its data: the largest, the sum of exponentials, the quotients.
const SOFTMAX_PASSES: u64 = 3;

/// `heads` times (batch included): `queries` by `keys` over `depth`, then `queries` by `width` over `keys`.
fn two_products(heads: u64, queries: u64, keys: u64, depth: u64, width: u64) -> Work {
    let dynamic =
        Product { bias: 0, bias_input: usize::MAX, ..Product::matrix(heads, queries, depth, keys) };
    let second = Product { channels: keys, outputs: width, weights: 2, ..dynamic };
    let scores = heads.saturating_mul(queries).saturating_mul(keys);
    let inner = vec![("Softmax", scores.saturating_mul(SOFTMAX_PASSES))];
    Work { inner, ..Work::products(vec![dynamic, second]) }
}

/// ONNX's `Attention`: `Q`, `K`, `V` of three axes (heads side by side) or four, past keys and values at inputs 4 and 5.
pub(super) fn work(op: &Named, node: &Node, shapes: &Shapes) -> Option<Work> {
    let it = Attention::of(op).ok()?;
    let split = |input: usize, heads: Option<usize>| {
        let dims = shapes.dims(node.input(input)?)?;
        match *dims {
            [batch, heads, positions, size] => Some([batch, heads, positions, size]),
            [batch, positions, width] => {
                let heads = heads?.max(1);
                Some([batch, heads, positions, width / heads])
            }
            _ => None,
        }
    };
    let [batch, heads, queries, depth] = split(0, it.q_heads)?;
    let [_, _, keys, _] = split(1, it.kv_heads)?;
    let [_, _, _, width] = split(2, it.kv_heads)?;
    let past = node.input(4).and_then(|it| shapes.dims(it)?.get(2).copied()).unwrap_or(0);
    let heads = (batch as u64).saturating_mul(heads as u64);
    Some(two_products(heads, queries as u64, (past + keys) as u64, depth as u64, width as u64))
}

/// ONNX Runtime's `MultiHeadAttention`, whose inputs are projected before: its last output, or else its operands, tell the keys.
pub(super) fn multi_head(op: &Named, node: &Node, shapes: &Shapes) -> Option<Work> {
    let heads = u64::try_from(op.int("num_heads", 1).ok()?).ok()?.max(1);
    let q = shapes.dims(node.input(0)?)?;
    let y = shapes.dims(node.output())?;
    let (&batch, &queries) = (q.first()?, q.get(1)?);
    let width = *y.last()? as u64 / heads;
    let operand = |i: usize| node.input(i).and_then(|it| shapes.dims(it));
    let (keys, depth) = match (q.len(), operand(1)) {
        (3, Some(&[_, keys, _, _, depth] | &[_, _, keys, depth])) => (keys, depth as u64),
        (3, Some(&[_, keys, hidden])) => (keys, hidden as u64 / heads),
        (5, _) => (queries, *q.last()? as u64),
        _ => return None,
    };
    let past = operand(6).and_then(|it| it.get(2).copied()).unwrap_or(0);
    let all = (batch as u64).saturating_mul(heads);
    Some(two_products(all, queries as u64, (past + keys) as u64, depth, width))
}
