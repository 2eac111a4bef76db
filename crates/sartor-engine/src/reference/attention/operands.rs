//! ONNX's `Attention`, fitted to the mathematics (<https://onnx.ai/onnx/operators/onnx__Attention.html>).

use sartor_ir::{
    DType,
    catalog::{Attention, Shown},
};

use super::{Heads, Row, softmax};
use crate::{
    Array,
    reference::{
        elementwise::Float,
        evaluate::{array, optional},
        gemm::Matrix,
        layout::{View, concat},
        recurrent::Product,
    },
};

/// `[batch, heads, positions, size]` and its shape.
pub(crate) struct ByHead<T> {
    /// Extents.
    pub(crate) shape: [usize; 4],
    /// Elements.
    pub(crate) values: Vec<T>,
}

impl<T: Float> ByHead<T> {
    /// An input `[batch, heads, positions, size]` or `[batch, positions, heads size]`.
    fn read(input: &Array, heads: Option<usize>) -> Result<Self, String> {
        let values: Vec<T> = match input.values::<T>() {
            Some(values) => values.to_vec(),
            None => input.to_f64().into_iter().map(T::narrow).collect(),
        };
        let split = |width: usize| heads.filter(|&it| it > 0 && width.is_multiple_of(it));
        match input.shape[..] {
            [batch, heads, positions, size] => {
                Ok(ByHead { shape: [batch, heads, positions, size], values })
            }
            [batch, positions, width] if let Some(heads) = split(width) => {
                let size = width / heads;
                let view = View::transpose(&[batch, positions, heads, size], &[0, 2, 1, 3]);
                let values = view.read(&values);
                Ok(ByHead { shape: [batch, heads, positions, size], values })
            }
            _ => Err(format!("input {:?} does not divide into heads {heads:?}", input.shape)),
        }
    }

    /// The same with earlier positions before its own.
    fn behind(self, past: Option<&Array>) -> Result<Self, String> {
        let Some(past) = past else { return Ok(self) };
        let past = ByHead::<T>::read(past, None)?;
        let ([b, h, old, size], [batch, heads, new, own]) = (past.shape, self.shape);
        if (b, h, size) != (batch, heads, own) {
            return Err(format!("past {:?} does not fit {:?}", past.shape, self.shape));
        }
        let mut values = vec![T::default(); batch * heads * (old + new) * size];
        let parts = [(&past.values[..], old * size), (&self.values[..], new * size)];
        concat(&parts, batch * heads, &mut values);
        Ok(ByHead { shape: [batch, heads, old + new, size], values })
    }

    /// As an array.
    pub(crate) fn array(self) -> Array {
        Array { shape: self.shape.to_vec(), data: T::wrap(self.values) }
    }
}

/// A mask as numbers that are added to the scores.
struct Mask {
    /// As it is stored.
    values: Vec<f64>,
    /// Distances between sequences, heads, queries and keys.
    strides: [isize; 4],
    /// Keys that it speaks of; those behind are forbidden.
    keys: usize,
}

impl Mask {
    fn read(input: &Array, [batch, heads, queries]: [usize; 3]) -> Result<Self, String> {
        let keys = input.shape.last().copied().unwrap_or(1);
        let view = View::expand(&input.shape, &[batch, heads, queries, keys]);
        let strides = view.as_ref().and_then(|it| it.strides.clone().try_into().ok());
        let strides = strides.ok_or_else(|| {
            format!("mask {:?} does not broadcast to {:?}", input.shape, [batch, heads, queries])
        })?;
        let allowed = |it: &f64| if *it == 0.0 { f64::NEG_INFINITY } else { 0.0 };
        let values = input.to_f64();
        let bool = input.dtype() == DType::Bool;
        let values = if bool { values.iter().map(allowed).collect() } else { values };
        Ok(Mask { values, strides, keys })
    }

    fn value(&self, row: Row, key: usize) -> f64 {
        if key >= self.keys {
            return f64::NEG_INFINITY;
        }
        let at = [row.batch, row.head, row.query, key];
        let at: isize =
            at.iter().zip(&self.strides).map(|(&i, stride)| i.cast_signed() * stride).sum();
        self.values[at.cast_unsigned()]
    }
}

/// The operands of a node, checked.
pub(crate) struct Operands<T> {
    /// Attributes.
    pub(crate) it: Attention,
    /// Extents.
    pub(crate) heads: Heads,
    /// Queries.
    pub(crate) q: ByHead<T>,
    /// Keys, past ones first.
    pub(crate) k: ByHead<T>,
    /// Values, past ones first.
    pub(crate) v: ByHead<T>,
    /// Factor of the scores.
    pub(crate) factor: f64,
    /// Whether the inputs have three axes.
    pub(crate) flat: bool,
    mask: Option<Mask>,
    /// Keys of each sequence that are none but padding begin here.
    ends: Option<Vec<i64>>,
    /// By sequence, the keys before its first query.
    offsets: Vec<i64>,
}

impl<T: Float> Operands<T> {
    /// Reads the inputs.
    ///
    /// # Errors
    /// An input that is missing or does not fit.
    pub(crate) fn new(it: Attention, inputs: &[Option<&Array>]) -> Result<Self, String> {
        let flat = array(inputs, 0)?.shape.len() == 3;
        let (past_k, past_v) = (optional(inputs, 4), optional(inputs, 5));
        let q = ByHead::read(array(inputs, 0)?, it.q_heads)?;
        let k = ByHead::read(array(inputs, 1)?, it.kv_heads)?.behind(past_k)?;
        let v = ByHead::read(array(inputs, 2)?, it.kv_heads)?.behind(past_v)?;
        let [batch, heads, queries, depth] = q.shape;
        let ([kb, kv_heads, keys, kd], [vb, vh, vk, value_depth]) = (k.shape, v.shape);
        let fits = (kb, kd) == (batch, depth)
            && (vb, vh, vk) == (batch, kv_heads, keys)
            && kv_heads > 0
            && heads.is_multiple_of(kv_heads);
        if !fits {
            let (q, k, v) = (q.shape, k.shape, v.shape);
            return Err(format!("queries {q:?}, keys {k:?} and values {v:?} do not fit"));
        }
        let mask = optional(inputs, 3);
        let mask = mask.map(|it| Mask::read(it, [batch, heads, queries])).transpose()?;
        let ends = optional(inputs, 6).map(Array::to_i64);
        if ends.as_ref().is_some_and(|it| it.len() != batch) {
            return Err(format!("lengths {ends:?} do not fit {batch} sequences"));
        }
        let past = past_k.map(|it| it.shape[2] as i64);
        let offset = |b: usize| match (&ends, past) {
            (_, Some(past)) => past,
            (Some(ends), None) => ends[b] - queries as i64,
            (None, None) => 0,
        };
        Ok(Operands {
            offsets: (0..batch).map(offset).collect(),
            factor: it.scale.map_or(1.0 / (depth as f64).sqrt(), f64::from),
            heads: Heads { batch, heads, kv_heads, queries, keys, depth, value_depth },
            it,
            q,
            k,
            v,
            flat,
            mask,
            ends,
        })
    }

    /// `cap tanh(score / cap)` of each score, if there is a cap.
    pub(crate) fn cap(&self, scores: &mut [f64]) {
        let cap = f64::from(self.it.softcap);
        if cap > 0.0 {
            for score in scores {
                *score = cap * (*score / cap).tanh();
            }
        }
    }

    /// Adds the masks to the scores of a row; one without an allowed key becomes minus infinity.
    pub(crate) fn mask(&self, row: Row, scores: &mut [f64]) {
        let last = self.offsets[row.batch] + row.query as i64;
        let end = self.ends.as_ref().map_or(i64::MAX, |it| it[row.batch]);
        let mut any = false;
        for (j, score) in scores.iter_mut().enumerate() {
            let at = j as i64;
            let forbidden = self.it.causal && at > last || at >= end;
            let own = self.mask.as_ref().map_or(0.0, |it| it.value(row, j));
            let bias = if forbidden { f64::NEG_INFINITY } else { own };
            any |= bias > f64::NEG_INFINITY;
            *score += bias;
        }
        if !any {
            scores.fill(f64::NEG_INFINITY);
        }
    }

    /// The result of one head of one sequence, `[queries, value size]`: products of whole matrices, the softmax
    /// in 64 bits. `see` is shown each row of scores at each stage.
    pub(crate) fn head(&self, at: usize, mut see: impl FnMut(Shown, &[f64])) -> Vec<T>
    where
        T: Product,
    {
        let Heads { heads, kv_heads, queries, keys, depth, value_depth, .. } = self.heads;
        let (batch, head) = (at / heads, at % heads);
        let kv = batch * kv_heads + head / (heads / kv_heads);
        let q = &self.q.values[at * queries * depth..][..queries * depth];
        let k = &self.k.values[kv * keys * depth..][..keys * depth];
        let v = &self.v.values[kv * keys * value_depth..][..keys * value_depth];
        let (rows, columns) =
            (Matrix::stored(queries, depth, false), Matrix::stored(keys, depth, true));
        let mut scores = vec![T::default(); queries * keys];
        T::product(q, rows, k, columns, &mut scores);
        let mut wide = vec![0.0; keys];
        for (query, scores) in scores.chunks_exact_mut(keys.max(1)).enumerate() {
            let scaled = scores.iter().map(|&it| self.factor * it.into());
            wide.iter_mut().zip(scaled).for_each(|(wide, it)| *wide = it);
            see(Shown::Products, &wide);
            self.cap(&mut wide);
            see(Shown::Capped, &wide);
            self.mask(Row { batch, head, query }, &mut wide);
            see(Shown::Masked, &wide);
            softmax(&mut wide);
            see(Shown::Weights, &wide);
            scores.iter_mut().zip(&wide).for_each(|(score, &it)| *score = T::narrow(it));
        }
        let mut y = vec![T::default(); queries * value_depth];
        let (rows, columns) =
            (Matrix::stored(queries, keys, false), Matrix::stored(keys, value_depth, false));
        T::product(&scores, rows, v, columns, &mut y);
        y
    }

    /// The result by head as the node's first output has it.
    pub(crate) fn output(&self, y: &[T]) -> Array {
        let Heads { batch, heads, queries, value_depth, .. } = self.heads;
        let shape = [batch, heads, queries, value_depth];
        if !self.flat {
            return ByHead { shape, values: y.to_vec() }.array();
        }
        let values = View::transpose(&shape, &[0, 2, 1, 3]).read(y);
        Array { shape: vec![batch, queries, heads * value_depth], data: T::wrap(values) }
    }
}

#[cfg(test)]
mod tests {
    use sartor_ir::{Attr, Attrs, Named};

    use super::{super::attention, *};

    #[test]
    fn a_head_is_attention_by_its_definition() {
        let wave = |shape: &[usize], by: f32| {
            let count: usize = shape.iter().product();
            Array::f32(shape, (0..count).map(|i| (i as f32 * by).sin()).collect())
        };
        let attributes = Attrs::new()
            .with("is_causal", Attr::Int(1))
            .with("softcap", Attr::Float(0.9))
            .with("q_num_heads", Attr::Int(4))
            .with("kv_num_heads", Attr::Int(2));
        let op = Named { domain: String::new(), name: "Attention".into(), version: 24, attributes };
        let (q, k, v) = (wave(&[2, 5, 12], 0.7), wave(&[2, 5, 6], 1.3), wave(&[2, 5, 8], 0.4));
        let mask = wave(&[4, 1, 5], 2.1);
        let inputs = [Some(&q), Some(&k), Some(&v), Some(&mask)];
        let it = Operands::<f32>::new(Attention::of(&op).unwrap(), &inputs).unwrap();
        let edit = |row: Row, scores: &mut [f64]| {
            it.cap(scores);
            it.mask(row, scores);
        };
        let operands = (&it.q.values[..], &it.k.values[..], &it.v.values[..]);
        let expected = attention(&it.heads, operands, it.factor, edit, |_, _| ());
        let found: Vec<f32> = (0..8).flat_map(|at| it.head(at, |_, _| ())).collect();
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
