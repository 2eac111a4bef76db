//! Scaled dot-product attention (Vaswani et al., "Attention Is All You Need", 2017, section 3.2) and rotary
//! positions (Su et al., "Enhanced Transformer with Rotary Position Embedding", 2021, section 3.4), by their
//! definitions.

mod operands;
mod turns;

pub(crate) use operands::Operands;
pub(crate) use turns::Turns;

use super::elementwise::Float;

/// Extents of an attention.
#[expect(clippy::struct_field_names, reason = "there are heads of two kinds")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Sequences.
    pub(crate) batch: usize,
    /// Heads of the queries.
    pub(crate) heads: usize,
    /// Heads of keys and values; each serves a run of `heads / kv_heads` query heads.
    pub(crate) kv_heads: usize,
    /// Positions that ask.
    pub(crate) queries: usize,
    /// Positions that answer.
    pub(crate) keys: usize,
    /// Elements of a query and of a key.
    pub(crate) depth: usize,
    /// Elements of a value.
    pub(crate) value_depth: usize,
}

/// The place of one row of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Sequence.
    pub(crate) batch: usize,
    /// Query head.
    pub(crate) head: usize,
    /// Query position.
    pub(crate) query: usize,
}

/// `softmax(edit(factor q kᵀ)) v` in 64 bits. Layouts: `q [batch, heads, queries, depth]`,
/// `k [batch, kv_heads, keys, depth]`, `v [batch, kv_heads, keys, value_depth]`,
/// result `[batch, heads, queries, value_depth]`.
///
/// `edit` may change each row of scores before the softmax (masks, biases, caps; minus infinity forbids a
/// position; a row without an allowed position gives zeros), `seen` is shown each row after it.
pub(crate) fn attention<T: Float>(
    shape: &Heads,
    (q, k, v): (&[T], &[T], &[T]),
    factor: f64,
    mut edit: impl FnMut(Row, &mut [f64]),
    mut seen: impl FnMut(Row, &[f64]),
) -> Vec<T> {
    let wide = |it: &T| -> f64 { (*it).into() };
    let group = shape.heads.checked_div(shape.kv_heads).unwrap_or(1).max(1);
    let mut y = Vec::with_capacity(shape.batch * shape.heads * shape.queries * shape.value_depth);
    let mut scores = vec![0.0; shape.keys];
    let mut sums = vec![0.0; shape.value_depth];
    for batch in 0..shape.batch {
        for head in 0..shape.heads {
            let kv = batch * shape.kv_heads + head / group;
            let keys = &k[kv * shape.keys * shape.depth..][..shape.keys * shape.depth];
            let values = &v[kv * shape.keys * shape.value_depth..];
            for query in 0..shape.queries {
                let row = Row { batch, head, query };
                let at = (batch * shape.heads + head) * shape.queries + query;
                let asked = &q[at * shape.depth..][..shape.depth];
                for (j, score) in scores.iter_mut().enumerate() {
                    let key = &keys[j * shape.depth..][..shape.depth];
                    let pairs = asked.iter().zip(key);
                    *score = factor * pairs.map(|(a, b)| wide(a) * wide(b)).sum::<f64>();
                }
                edit(row, &mut scores);
                softmax(&mut scores);
                seen(row, &scores);
                sums.fill(0.0);
                for (j, &weight) in scores.iter().enumerate() {
                    let value = &values[j * shape.value_depth..][..shape.value_depth];
                    sums.iter_mut().zip(value).for_each(|(sum, it)| *sum += weight * wide(it));
                }
                y.extend(sums.iter().map(|&it| T::narrow(it)));
            }
        }
    }
    y
}

/// `exp(x_i) / sum of exp(x_j)`; zeros where every element is minus infinity.
fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY && !row.iter().any(|it| it.is_nan()) {
        row.fill(0.0);
        return;
    }
    for it in row.iter_mut() {
        *it = (*it - largest).exp();
    }
    let sum: f64 = row.iter().sum();
    for it in row {
        *it /= sum;
    }
}

/// Turns pairs of elements of `head`, in place, by the angles of `cos` and `sin`. A pair is two neighbours
/// if `interleaved`, else an element of the first half and its mate in the second half of the
/// `2 cos.len()` elements that turn; what is behind them stays.
pub(crate) fn rotate<T: Float>(head: &mut [T], cos: &[T], sin: &[T], interleaved: bool) {
    let half = cos.len();
    for (i, (&cos, &sin)) in cos.iter().zip(sin).enumerate() {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
        let (x, y): (f64, f64) = (head[a].into(), head[b].into());
        let (cos, sin): (f64, f64) = (cos.into(), sin.into());
        head[a] = T::narrow(x * cos - y * sin);
        head[b] = T::narrow(x * sin + y * cos);
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn masks_choose_values() {
        let shape = Heads {
            batch: 1,
            heads: 2,
            kv_heads: 1,
            queries: 2,
            keys: 2,
            depth: 1,
            value_depth: 2,
        };
        let (q, k, v) = ([1f32; 4], [1f32; 2], [1f32, 2., 3., 6.]);
        let causal = |row: Row, scores: &mut [f64]| scores[row.query + 1..].fill(f64::NEG_INFINITY);
        let mut rows = Vec::new();
        let y = attention(&shape, (&q, &k, &v), 1.0, causal, |_, it| rows.push(it.to_vec()));
        assert_eq!(y, [1., 2., 2., 4., 1., 2., 2., 4.]);
        assert_eq!(rows[..2], [vec![1.0, 0.0], vec![0.5, 0.5]]);
        let nothing = |_: Row, scores: &mut [f64]| scores.fill(f64::NEG_INFINITY);
        assert_eq!(attention(&shape, (&q, &k, &v), 1.0, nothing, |_, _| ()), [0.0; 8]);
    }

    #[test]
    fn a_quarter_turn() {
        let mut head = [1f32, 2., 3., 4., 5.];
        rotate(&mut head, &[0.0, 1.0], &[1.0, 0.0], false);
        assert_eq!(head, [-3., 2., 1., 4., 5.]);
        rotate(&mut head, &[0.0, 1.0], &[1.0, 0.0], true);
        assert_eq!(head, [-2., -3., 1., 4., 5.]);
    }
}
