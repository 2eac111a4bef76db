//! ONNX Runtime's operators of transformers
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>).

use sartor_ir::{DType, Named, normalize_axis};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        attention::{self, Heads, Row},
        elementwise::Float,
        evaluate::{array, optional, values},
        layer_norm::{Centre, layer_norm},
        layout::View,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "SimplifiedLayerNormalization", evaluate: simplified },
    Rule { domain: "com.microsoft", name: "MultiHeadAttention", evaluate: heads },
    Rule { domain: "com.microsoft", name: "RotaryEmbedding", evaluate: rotary },
];

type Made = Result<Vec<Array>, String>;

fn simplified(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    fn normalized<T: Float>(
        inputs: &[Option<&Array>],
        n: usize,
        epsilon: f64,
    ) -> Result<(Data, Data), String> {
        let scale = values::<T>(inputs, 1)?;
        if scale.len() != n {
            return Err(format!("{} scales for runs of {n} elements", scale.len()));
        }
        let x = values::<T>(inputs, 0)?;
        let made = layer_norm(x, n, Centre::Zero, epsilon, Some(scale), None);
        Ok((T::wrap(made.values), T::wrap(made.inverse_deviations)))
    }
    let epsilon = f64::from(op.float("epsilon", 1e-5)?);
    let x = array(inputs, 0)?;
    let axis = normalize_axis(op.int("axis", -1)?, x.shape.len())?;
    let n = x.shape[axis..].iter().product();
    let (data, inverse) = match x.data {
        Data::F64(_) => normalized::<f64>(inputs, n, epsilon)?,
        _ => normalized::<f32>(inputs, n, epsilon)?,
    };
    let mut runs = x.shape.clone();
    runs[axis..].fill(1);
    let made = [Array { shape: x.shape.clone(), data }, Array { shape: runs, data: inverse }];
    Ok(made.into_iter().take(dtypes.len()).collect())
}

/// `input, position ids, cos, sin`: turns each head of `[batch, positions, heads · size]` or
/// `[batch, heads, positions, size]`.
fn rotary(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let interleaved = op.flag("interleaved", false)?;
    let (heads, turning) = (op.int("num_heads", 0)?, op.int("rotary_embedding_dim", 0)?);
    let x = array(inputs, 0)?;
    let cache = array(inputs, 2)?;
    let &[rows, half] = &cache.shape[..] else {
        return Err(format!("cosines {:?} are not [positions, pairs]", cache.shape));
    };
    let (batch, positions, head) = match (&x.shape[..], turning) {
        (&[batch, _, positions, head], _) => (batch, positions, head),
        (&[batch, positions, hidden], 1..) => {
            let heads = usize::try_from(heads).ok().filter(|it| *it > 0 && hidden % it == 0);
            let heads = heads.ok_or("`num_heads` does not divide its last axis")?;
            (batch, positions, hidden / heads)
        }
        (&[batch, positions, _], _) => (batch, positions, 2 * half),
        _ => return Err(format!("its input {:?} has neither 3 nor 4 axes", x.shape)),
    };
    if head == 0 || 2 * half > head || x.len() % head != 0 {
        return Err(format!("heads of {head} elements do not have {half} pairs to turn"));
    }
    let (cos, sin) = (values::<f32>(inputs, 2)?, values::<f32>(inputs, 3)?);
    let at = array(inputs, 1)?.to_i64();
    let each_own = at.len() == batch * positions;
    if sin.len() != cos.len() || !each_own && at.len() != 1 {
        return Err("sines, cosines and positions do not fit its input".to_owned());
    }
    let mut y = values::<f32>(inputs, 0)?.to_vec();
    let per_token = (y.len() / head).checked_div(batch * positions).unwrap_or(0);
    for (i, head) in y.chunks_exact_mut(head).enumerate() {
        // Heads lie within a position, or positions within a head.
        let token = if x.shape.len() == 3 {
            i / per_token
        } else {
            i / (per_token * positions) * positions + i % positions
        };
        let position = if each_own { at[token] } else { at[0] + (token % positions) as i64 };
        let row = usize::try_from(position).ok().filter(|&it| it < rows);
        let row = row.ok_or_else(|| format!("position {position} is beyond {rows} angles"))?;
        let angles = row * half..(row + 1) * half;
        attention::rotate(head, &cos[angles.clone()], &sin[angles], interleaved);
    }
    Ok(vec![Array { shape: x.shape.clone(), data: Data::F32(y) }])
}

/// A tensor `[batch, positions, heads, size]` as `[batch, heads, positions, size]`.
fn by_head(x: &[f32], shape: [usize; 4]) -> Vec<f32> {
    View::transpose(&shape, &[0, 2, 1, 3]).read(x)
}

/// `[batch, heads, positions, size]` and its shape.
struct Operand {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl Operand {
    /// `part` of input `i`, which is `[batch, positions, heads, parts, size]`.
    fn part(inputs: &[Option<&Array>], i: usize, part: usize) -> Result<Self, String> {
        let x = array(inputs, i)?;
        let &[batch, positions, heads, parts, size] = &x.shape[..] else {
            return Err(format!("packed input {i} {:?} does not have 5 axes", x.shape));
        };
        if part >= parts {
            return Err(format!("packed input {i} {:?} has {parts} parts", x.shape));
        }
        let ranges = [batch, positions, heads, 1, size].map(|it| (0, 1, it));
        let mut windows = ranges.to_vec();
        windows[3].0 = part;
        let picked = View::slice(&x.shape, &windows).read(values::<f32>(inputs, i)?);
        let values = by_head(&picked, [batch, positions, heads, size]);
        Ok(Operand { shape: [batch, heads, positions, size], values })
    }

    /// Input `i`: `[batch, positions, heads · size]`, or with the heads apart already.
    fn whole(inputs: &[Option<&Array>], i: usize, heads: usize) -> Result<Self, String> {
        let x = array(inputs, i)?;
        let numbers = values::<f32>(inputs, i)?;
        match x.shape[..] {
            [batch, positions, hidden] if hidden % heads == 0 => {
                let size = hidden / heads;
                let values = by_head(numbers, [batch, positions, heads, size]);
                Ok(Operand { shape: [batch, heads, positions, size], values })
            }
            [batch, own, positions, size] if own == heads => {
                Ok(Operand { shape: [batch, heads, positions, size], values: numbers.to_vec() })
            }
            _ => Err(format!("input {i} {:?} does not split into {heads} heads", x.shape)),
        }
    }

    /// Adds one number to each element of each head.
    fn shift(&mut self, bias: &[f32]) {
        let [_, heads, positions, size] = self.shape;
        for (i, run) in self.values.chunks_exact_mut((positions * size).max(1)).enumerate() {
            let own = &bias[i % heads * size..][..size];
            run.iter_mut().zip(own.iter().cycle()).for_each(|(it, bias)| *it += bias);
        }
    }

    /// The positions of input `i`, which is like this one, and then its own.
    fn behind(self, inputs: &[Option<&Array>], i: usize) -> Result<Self, String> {
        let Some(past) = optional(inputs, i) else { return Ok(self) };
        let [batch, heads, positions, size] = self.shape;
        let &[b, h, before, s] = &past.shape[..] else {
            return Err(format!("past {:?} does not have 4 axes", past.shape));
        };
        if (b, h, s) != (batch, heads, size) {
            return Err(format!("past {:?} does not fit {:?}", past.shape, self.shape));
        }
        let old = values::<f32>(inputs, i)?;
        let mut joined = Vec::with_capacity(old.len() + self.values.len());
        for at in 0..batch * heads {
            joined.extend_from_slice(&old[at * before * size..][..before * size]);
            joined.extend_from_slice(&self.values[at * positions * size..][..positions * size]);
        }
        Ok(Operand { shape: [batch, heads, before + positions, size], values: joined })
    }

    fn array(self) -> Array {
        Array { shape: self.shape.to_vec(), data: Data::F32(self.values) }
    }
}

/// Queries, keys and values, with biases, before past positions are put in front.
fn operands(inputs: &[Option<&Array>], heads: usize) -> Result<[Operand; 3], String> {
    let rank = |i: usize| optional(inputs, i).map_or(0, |it| it.shape.len());
    let [mut q, mut k, mut v] = match (rank(0), rank(1)) {
        (5, _) => [0, 1, 2].map(|part| Operand::part(inputs, 0, part)),
        (_, 5) => [
            Operand::whole(inputs, 0, heads),
            Operand::part(inputs, 1, 0),
            Operand::part(inputs, 1, 1),
        ],
        _ => [0, 1, 2].map(|i| Operand::whole(inputs, i, heads)),
    }
    .into_iter()
    .collect::<Result<Vec<_>, _>>()?
    .try_into()
    .map_err(|_| "three operands are expected".to_owned())?;
    if optional(inputs, 3).is_some() {
        let bias = values::<f32>(inputs, 3)?;
        let sizes = [&q, &k, &v].map(|it| it.shape[1] * it.shape[3]);
        if bias.len() != sizes.iter().sum::<usize>() {
            return Err(format!("{} biases for {sizes:?} elements", bias.len()));
        }
        let (own, rest) = bias.split_at(sizes[0]);
        q.shift(own);
        // Keys that come by head were projected elsewhere, with their biases.
        if rank(1) != 4 {
            k.shift(&rest[..sizes[1]]);
            v.shift(&rest[sizes[1]..]);
        }
    }
    Ok([q, k, v])
}

/// Which positions a mask allows.
struct Mask<'a> {
    shape: &'a [usize],
    values: Vec<i64>,
    /// Added to the scores of positions that are not allowed.
    penalty: f64,
    batch: usize,
    keys: usize,
    past: usize,
}

impl Mask<'_> {
    fn apply(&self, row: Row, scores: &mut [f64]) -> Result<(), String> {
        let at = |i: usize| self.values.get(i).copied().unwrap_or(0);
        let b = row.batch;
        let allowed: Box<dyn Fn(usize) -> bool> = match *self.shape {
            // The end of each sequence; then, perhaps, where it begins.
            [n] if n == 2 * self.batch => {
                let (end, start) = (at(b), at(self.batch + b));
                Box::new(move |j| (start..end).contains(&(j as i64)))
            }
            [n] if n == self.batch || n == 3 * self.batch + 2 => {
                let end = at(b);
                Box::new(move |j| (j as i64) < end)
            }
            [batch, keys] if batch == self.batch && keys == self.keys => {
                Box::new(move |j| at(b * keys + j) > 0)
            }
            [batch, queries, keys] if batch == self.batch && keys == self.keys => {
                Box::new(move |j| at((b * queries + row.query) * keys + j) > 0)
            }
            [batch, 1, queries, keys] if batch == self.batch && keys >= self.keys => {
                Box::new(move |j| at((b * queries + self.past + row.query) * keys + j) > 0)
            }
            _ => return Err(format!("its mask {:?} is of no known form", self.shape)),
        };
        for (j, score) in scores.iter_mut().enumerate() {
            if !allowed(j) {
                *score += self.penalty;
            }
        }
        Ok(())
    }
}

/// What is done to the scores of an attention before the softmax.
struct Scores<'a> {
    shape: Heads,
    past: usize,
    mask: Option<Mask<'a>>,
    /// Added, one number a score.
    added: Option<Vec<f32>>,
    /// Whether a position answers only to those behind it.
    causal: bool,
}

impl<'a> Scores<'a> {
    fn of(op: &Named, inputs: &[Option<&'a Array>], shape: Heads) -> Result<Self, String> {
        let Heads { batch, heads, queries, keys, .. } = shape;
        let past = optional(inputs, 6).map_or(0, |it| it.shape[2]);
        let penalty = f64::from(op.float("mask_filter_value", -10000.0)?);
        let mask = optional(inputs, 4).map(|it| Mask {
            shape: &it.shape,
            values: it.to_i64(),
            penalty,
            batch,
            keys,
            past,
        });
        let mut added = None;
        if let Some(it) = optional(inputs, 5) {
            let view = View::expand(&it.shape, &[batch, heads, queries, keys]);
            let view = view.ok_or_else(|| format!("its bias {:?} does not broadcast", it.shape))?;
            added = Some(view.read(values::<f32>(inputs, 5)?));
        }
        Ok(Scores { shape, past, mask, added, causal: op.flag("unidirectional", false)? })
    }

    fn edit(&self, row: Row, scores: &mut [f64]) -> Result<(), String> {
        let Heads { heads, queries, keys, .. } = self.shape;
        if let Some(mask) = &self.mask {
            mask.apply(row, scores)?;
        }
        if let Some(added) = &self.added {
            let at = ((row.batch * heads + row.head) * queries + row.query) * keys;
            scores.iter_mut().zip(&added[at..]).for_each(|(it, &add)| *it += f64::from(add));
        }
        if self.causal {
            let behind = (self.past + row.query + 1).min(keys);
            scores[behind..].fill(f64::NEG_INFINITY);
        }
        Ok(())
    }
}

/// `query, key?, value?, bias?, key padding mask?, attention bias?, past key?, past value?`.
fn heads(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let heads = usize::try_from(op.int("num_heads", 0)?).ok().filter(|&it| it > 0);
    let heads = heads.ok_or("`num_heads` must be positive")?;
    if (8..inputs.len()).any(|i| inputs[i].is_some()) || dtypes.len() > 3 {
        return Err("shared buffers and raw scores are not supported".to_owned());
    }
    let [q, k, v] = operands(inputs, heads)?;
    let (k, v) = (k.behind(inputs, 6)?, v.behind(inputs, 7)?);
    let [batch, _, queries, depth] = q.shape;
    let ([_, _, keys, _], value_depth) = (k.shape, v.shape[3]);
    if k.shape != [batch, heads, keys, depth] || v.shape != [batch, heads, keys, value_depth] {
        let shapes = [q.shape, k.shape, v.shape];
        return Err(format!("queries, keys and values {shapes:?} do not fit"));
    }
    let shape = Heads { batch, heads, kv_heads: heads, queries, keys, depth, value_depth };
    let factor = match op.float("scale", 0.0)? {
        0.0 => 1.0 / (depth as f64).sqrt(),
        scale => f64::from(scale),
    };
    let scores = Scores::of(op, inputs, shape)?;
    let mut outcome = Ok(());
    let edit = |row: Row, it: &mut [f64]| {
        if let Err(problem) = scores.edit(row, it) {
            outcome = Err(problem);
        }
    };
    let operands = (&q.values[..], &k.values[..], &v.values[..]);
    let y = attention::attention(&shape, operands, factor, edit, |_, _| ());
    outcome?;
    let y = View::transpose(&[batch, heads, queries, value_depth], &[0, 2, 1, 3]).read(&y);
    let y = Array { shape: vec![batch, queries, heads * value_depth], data: Data::F32(y) };
    Ok([y, k.array(), v.array()].into_iter().take(dtypes.len()).collect())
}
