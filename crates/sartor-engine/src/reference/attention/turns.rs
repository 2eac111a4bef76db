//! ONNX's `RotaryEmbedding`, fitted to the mathematics
//! (<https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>).

use sartor_ir::Named;

use crate::{
    Array,
    reference::{
        elementwise::Float,
        evaluate::{integers, values},
    },
};

/// By which angles each head is turned.
pub(crate) struct Turns<'a, T> {
    /// Elements of a head.
    pub(crate) head: usize,
    /// Whether pairs are neighbours.
    pub(crate) interleaved: bool,
    /// Pairs that turn.
    pub(crate) pairs: usize,
    cos: &'a [T],
    sin: &'a [T],
    /// By sequence and position, the row of the angles.
    rows: Vec<usize>,
    positions: usize,
    heads: usize,
    /// Whether positions lie within heads, or heads within positions.
    by_head: bool,
}

impl<'a, T: Float> Turns<'a, T> {
    /// Reads `X, cosines, sines, position ids?`.
    ///
    /// # Errors
    /// Inputs or attributes that do not fit.
    pub(crate) fn of(op: &Named, inputs: &[Option<&'a Array>]) -> Result<Self, String> {
        let x = crate::reference::evaluate::array(inputs, 0)?;
        let asked = usize::try_from(op.int("num_heads", 0)?).unwrap_or(0);
        let (batch, positions, heads, head) = match x.shape[..] {
            [batch, heads, positions, head] => (batch, positions, heads, head),
            [batch, positions, width] if asked > 0 && width.is_multiple_of(asked) => {
                (batch, positions, asked, width / asked)
            }
            _ => return Err(format!("input {:?} does not divide into {asked} heads", x.shape)),
        };
        let width = usize::try_from(op.int("rotary_embedding_dim", 0)?).unwrap_or(0);
        let pairs = if width == 0 { head } else { width } / 2;
        let (cos, sin) = (values::<T>(inputs, 1)?, values::<T>(inputs, 2)?);
        let count = cos.len().checked_div(pairs).unwrap_or(0);
        let rows = match integers(inputs, 3) {
            None => (0..batch * positions).collect(),
            Some(ids) => {
                let known = |&it: &i64| usize::try_from(it).ok().filter(|it| *it < count);
                let rows: Option<Vec<usize>> = ids.iter().map(known).collect();
                rows.ok_or_else(|| format!("a position is beyond the {count} rows of angles"))?
            }
        };
        let fits = 2 * pairs <= head
            && cos.len() == sin.len()
            && count * pairs == cos.len()
            && rows.len() == batch * positions
            && rows.iter().all(|it| *it < count);
        if !fits {
            return Err(format!(
                "{} cosines and {} sines do not fit {pairs} pairs at {batch} × {positions} positions",
                cos.len(),
                sin.len()
            ));
        }
        let by_head = x.shape.len() == 4;
        let interleaved = op.flag("interleaved", false)?;
        Ok(Turns { head, interleaved, pairs, cos, sin, rows, positions, heads, by_head })
    }

    /// Row of the angles of head number `i` in memory.
    pub(crate) fn row(&self, i: usize) -> usize {
        if self.by_head {
            let (sequence, position) = (i / (self.heads * self.positions), i % self.positions);
            self.rows[sequence * self.positions + position]
        } else {
            self.rows[i / self.heads]
        }
    }

    /// Cosines and sines of head number `i` in memory.
    pub(crate) fn angles(&self, i: usize) -> (&[T], &[T]) {
        let at = self.row(i) * self.pairs;
        (&self.cos[at..at + self.pairs], &self.sin[at..at + self.pairs])
    }
}
