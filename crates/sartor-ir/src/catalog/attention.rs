//! Attention and rotary positions (<https://onnx.ai/onnx/operators/onnx__Attention.html>,
//! <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>).

use super::{Entry, no_axes};
use crate::{Dim, Fact, Named, TensorType, shape::list};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Attention", infer: infer_attention, axes: no_axes },
    Entry { domain: "", name: "RotaryEmbedding", infer: infer_rotary, axes: no_axes },
];

/// Which scores `Attention` shows as its fourth output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Products of queries and keys.
    Products,
    /// Those, capped.
    Capped,
    /// Those, with masks added.
    Masked,
    /// What they are after the softmax.
    Weights,
}

/// The attributes of `Attention`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Whether a query sees no key behind its own position.
    pub causal: bool,
    /// Heads of the queries, where the inputs have three axes.
    pub q_heads: Option<usize>,
    /// Heads of keys and values, where the inputs have three axes.
    pub kv_heads: Option<usize>,
    /// Factor of the scores; `1 / sqrt(head size)` where absent.
    pub scale: Option<f32>,
    /// Scores go through `cap tanh(score / cap)`; 0 for as they are.
    pub softcap: f32,
    /// What the fourth output shows.
    pub shown: Shown,
}

fn count(value: i64) -> Option<usize> {
    usize::try_from(value).ok().filter(|it| *it > 0)
}

impl Attention {
    /// Reads the attributes. The precision of the softmax is not one: it is computed in 64 bits.
    ///
    /// # Errors
    /// An attribute that is wrong.
    pub fn of(op: &Named) -> Result<Self, String> {
        let scale =
            if op.attributes.get("scale").is_some() { Some(op.float("scale", 1.0)?) } else { None };
        Ok(Attention {
            causal: op.flag("is_causal", false)?,
            q_heads: count(op.int("q_num_heads", 0)?),
            kv_heads: count(op.int("kv_num_heads", 0)?),
            scale,
            softcap: op.float("softcap", 0.0)?,
            shown: match op.int("qk_matmul_output_mode", 0)? {
                0 => Shown::Products,
                1 => Shown::Capped,
                2 => Shown::Masked,
                3 => Shown::Weights,
                other => {
                    return Err(format!("`qk_matmul_output_mode` is {other}, expected 0 to 3"));
                }
            },
        })
    }
}

/// `[batch, heads, positions, size of a head]` of an input with three or four axes.
fn heads(shape: &[Dim], heads: Option<usize>) -> Result<[Dim; 4], String> {
    match (shape, heads) {
        ([batch, heads, positions, size], _) => {
            Ok([batch, heads, positions, size].map(Clone::clone))
        }
        ([batch, positions, width], Some(heads)) => {
            let size = match width.known() {
                Some(it) if it % heads != 0 => {
                    return Err(format!("{} does not divide into {heads} heads", list(shape)));
                }
                it => it.map_or(Dim::Unknown, |it| Dim::Known(it / heads)),
            };
            Ok([batch.clone(), Dim::Known(heads), positions.clone(), size])
        }
        ([_, _, _], None) => Err(format!("{} needs the number of heads", list(shape))),
        _ => Err(format!("{} has neither three nor four axes", list(shape))),
    }
}

fn sum(a: &Dim, b: &Dim) -> Dim {
    match (a.known(), b.known()) {
        (Some(a), Some(b)) => Dim::Known(a + b),
        _ => Dim::Unknown,
    }
}

fn infer_attention(
    op: &Named,
    inputs: &[Option<&Fact>],
    n_outputs: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let it = Attention::of(op)?;
    let given = |i: usize| inputs.get(i).copied().flatten();
    let shape = |i: usize| given(i).and_then(|it| it.ty.shape.as_deref());
    let (Some(q_fact), Some(q), Some(k), Some(v)) = (given(0), shape(0), shape(1), shape(2)) else {
        return Ok(vec![None; n_outputs]);
    };
    let flat = q.len() == 3;
    let [batch, q_heads, queries, _] = heads(q, it.q_heads)?;
    let [k, v] = [heads(k, it.kv_heads)?, heads(v, it.kv_heads)?];
    if !k[1].compatible(&v[1]) || !k[2].compatible(&v[2]) {
        return Err(format!("keys {} do not fit values {}", list(&k), list(&v)));
    }
    let past = match (given(4), shape(4)) {
        (None, _) => Dim::Known(0),
        (_, Some([_, _, it, _])) => it.clone(),
        _ => Dim::Unknown,
    };
    let total = sum(&past, &k[2]);
    let dtype = q_fact.ty.dtype;
    let value_dtype = given(2).map_or(dtype, |it| it.ty.dtype);
    let y = if flat {
        vec![batch.clone(), queries.clone(), q_heads.times(&v[3])]
    } else {
        vec![batch.clone(), q_heads.clone(), queries.clone(), v[3].clone()]
    };
    let fact = |dtype, shape| Some(Fact::of(TensorType::new(dtype, shape)));
    let present = |it: &[Dim; 4]| vec![batch.clone(), it[1].clone(), total.clone(), it[3].clone()];
    let outputs = [
        fact(dtype, y),
        fact(dtype, present(&k)),
        fact(value_dtype, present(&v)),
        fact(dtype, vec![batch.clone(), q_heads.clone(), queries.clone(), total.clone()]),
    ];
    Ok(outputs.into_iter().take(n_outputs).collect())
}

fn infer_rotary(
    _: &Named,
    inputs: &[Option<&Fact>],
    _: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let x = inputs.first().copied().flatten();
    if let Some(shape) = x.and_then(|it| it.ty.shape.as_deref())
        && !matches!(shape.len(), 3 | 4)
    {
        return Err(format!("{} has neither three nor four axes", list(shape)));
    }
    Ok(vec![x.map(|it| Fact::of(it.ty.clone()))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attr, Attrs, DType};

    #[test]
    fn shapes_of_attention() {
        let fact = |shape: &[usize]| Fact::of(TensorType::fixed(DType::F32, shape));
        let attributes =
            Attrs::new().with("q_num_heads", Attr::Int(6)).with("kv_num_heads", Attr::Int(3));
        let op = Named { domain: String::new(), name: "Attention".into(), version: 23, attributes };
        let (q, k, v) = (fact(&[2, 4, 48]), fact(&[2, 5, 24]), fact(&[2, 5, 30]));
        let past = fact(&[2, 3, 7, 8]);
        let inputs = [Some(&q), Some(&k), Some(&v), None, Some(&past)];
        let made = infer_attention(&op, &inputs, 4).unwrap();
        let text: Vec<_> = made.iter().flatten().map(|it| it.ty.to_string()).collect();
        assert_eq!(text, ["f32[2,4,60]", "f32[2,3,12,8]", "f32[2,3,12,10]", "f32[2,6,4,12]"]);
        let odd = fact(&[2, 4, 47]);
        assert!(infer_attention(&op, &[Some(&odd), Some(&k), Some(&v)], 1).is_err());
    }
}
