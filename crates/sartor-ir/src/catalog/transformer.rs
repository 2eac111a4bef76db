//! ONNX Runtime's fused operators of transformers
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>).

use super::{
    Entry, MICROSOFT,
    composed::{Body, Composition, known, microsoft, named},
    no_axes,
};
use crate::{
    Attr, AttrError, Attrs, Binary, Concat, DType, Dim, Fact, Gather, Named, Op, Split, Tensor,
    TensorType, ValueId, normalize_axis, shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        domain: "",
        name: "SimplifiedLayerNormalization",
        infer: infer_simplified,
        axes: no_axes,
    },
    Entry { domain: MICROSOFT, name: "MultiHeadAttention", infer: infer_heads, axes: no_axes },
    Entry { domain: MICROSOFT, name: "RotaryEmbedding", infer: infer_same, axes: no_axes },
];

pub(super) const COMPOSED: &[Composition] = &[
    Composition { domain: MICROSOFT, name: "Attention", compose: attention },
    Composition { domain: MICROSOFT, name: "EmbedLayerNormalization", compose: embed },
    Composition { domain: MICROSOFT, name: "QAttention", compose: qattention },
    Composition { domain: MICROSOFT, name: "SkipLayerNormalization", compose: skip },
    Composition {
        domain: MICROSOFT,
        name: "SkipSimplifiedLayerNormalization",
        compose: skip_simplified,
    },
];

type Facts = Result<Vec<Option<Fact>>, String>;
type Made = Result<Vec<ValueId>, String>;

const ADD: Op = Op::Binary(Binary::Add);

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_same(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    Ok(vec![inputs.first().copied().flatten().map(|it| Fact::of(it.ty.clone()))])
}

/// The input's shape in the type of the scale, and one number a normalized run.
fn infer_simplified(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    let axis = op.int("axis", -1)?;
    let Some(x) = inputs.first().copied().flatten() else { return Ok(Vec::new()) };
    let dtype = inputs.get(1).copied().flatten().map_or(x.ty.dtype, |it| it.ty.dtype);
    let mut runs = x.ty.shape.clone();
    if let Some(runs) = &mut runs {
        let axis = normalize_axis(axis, runs.len())?;
        runs[axis..].fill(Dim::Known(1));
    }
    let stash = if x.ty.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let runs = Fact::of(TensorType { dtype: stash, shape: runs });
    Ok(vec![Some(x.with_dtype(dtype)), Some(runs)])
}

/// The shapes of the queries' side, `[batch, positions, elements]` (as one axis or by head), and of the keys.
fn infer_heads(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Facts {
    let heads = op.attributes.clone().required_int("num_heads")?;
    let heads = usize::try_from(heads).ok().filter(|&it| it > 0);
    let heads = heads.ok_or_else(|| AttrError::new("num_heads", "must be positive"))?;
    let unknown = Ok(vec![None; n_outputs]);
    let shape = |i: usize| inputs.get(i).copied().flatten().and_then(|it| it.ty.shape.clone());
    let Some(dtype) = inputs.first().copied().flatten().map(|it| it.ty.dtype) else {
        return unknown;
    };
    let Some(q) = shape(0) else { return unknown };
    let per_head = |it: &Dim| {
        it.known().filter(|it| it % heads == 0).map_or(Dim::Unknown, |it| Dim::Known(it / heads))
    };
    let (batch, queries) = (q.first().cloned(), q.get(1).cloned());
    let (Some(batch), Some(queries)) = (batch, queries) else {
        return Err(format!("queries {} have no positions", list(&q)));
    };
    // Keys in one tensor with the queries or with the values have an axis for that.
    let (keys, depth, value_depth) = match (q.len(), shape(1), shape(2)) {
        (5, ..) => (queries.clone(), q[4].clone(), q[4].clone()),
        (3, Some(k), _) if k.len() == 5 => (k[1].clone(), k[4].clone(), k[4].clone()),
        (3, Some(k), Some(v)) if k.len() == 3 && v.len() == 3 => {
            (k[1].clone(), per_head(&k[2]), per_head(&v[2]))
        }
        (3, Some(k), Some(v)) if k.len() == 4 && v.len() == 4 => {
            (k[2].clone(), k[3].clone(), v[3].clone())
        }
        _ => return unknown,
    };
    let past = match inputs.get(6).copied().flatten() {
        Some(_) => shape(6).and_then(|it| it.get(2).cloned()).unwrap_or(Dim::Unknown),
        None => Dim::Known(0),
    };
    let total = match (past, keys) {
        (Dim::Known(0), keys) => keys,
        (Dim::Known(a), Dim::Known(b)) => Dim::Known(a + b),
        _ => Dim::Unknown,
    };
    let many = Dim::Known(heads);
    let made = [
        vec![batch.clone(), queries.clone(), value_depth.times(&many)],
        vec![batch.clone(), many.clone(), total.clone(), depth],
        vec![batch.clone(), many.clone(), total.clone(), value_depth],
        vec![batch, many, queries, total],
    ];
    Ok(made.into_iter().map(|it| Some(Fact::of(TensorType::new(dtype, it)))).collect())
}

/// Of `values`, the sum of those given.
fn sum(body: &mut Body<'_>, first: ValueId, rest: &[Option<ValueId>]) -> Result<ValueId, String> {
    rest.iter().flatten().try_fold(first, |sum, &it| body.apply(ADD, &[sum, it]))
}

/// The small number under the root, which is smaller here than in ONNX's own operators.
fn epsilon(op: &Named) -> Result<Attrs, String> {
    let epsilon = op.float("epsilon", 1e-12)?;
    Ok(Attrs::new().with("epsilon", Attr::Float(epsilon)))
}

/// `input, skip, gamma, beta?, bias?` to the normalized sum, its means, the inverse deviations and the sum.
fn skip(op: &Named, body: &mut Body<'_>) -> Made {
    let first = body.input(0)?;
    let total = sum(body, first, &[Some(body.input(1)?), body.optional(4)])?;
    let inputs = [Some(total), Some(body.input(2)?), body.optional(3)];
    let count = body.n_outputs.clamp(1, 3);
    let norm = named("LayerNormalization", 17, epsilon(op)?);
    let mut made = body.outputs(norm, &inputs, count)?;
    made.push(total);
    Ok(made)
}

/// As [`skip`] without the mean; `input, skip, gamma, bias?`. There are no means to give out.
fn skip_simplified(op: &Named, body: &mut Body<'_>) -> Made {
    let first = body.input(0)?;
    let total = sum(body, first, &[Some(body.input(1)?), body.optional(3)])?;
    let inputs = [Some(total), Some(body.input(2)?)];
    let norm = named("SimplifiedLayerNormalization", 1, epsilon(op)?);
    let made = body.outputs(norm, &inputs, 2)?;
    let zero = body.apply(Op::Binary(Binary::Sub), &[made[1], made[1]])?;
    Ok(vec![made[0], zero, made[1], total])
}

/// `ids, segments?, words, positions, segment vectors?, gamma, beta, mask?, position ids?` to the normalized
/// sum of the vectors, the number of positions that the mask allows, and the sum.
fn embed(op: &Named, body: &mut Body<'_>) -> Made {
    let rows = || Op::Gather(Gather { axis: 0 });
    let ids = body.input(0)?;
    let words = body.input(2)?;
    let words = body.apply(rows(), &[words, ids])?;
    let positions = body.input(3)?;
    let positions = if let Some(at) = body.optional(8) {
        body.apply(rows(), &[positions, at])?
    } else {
        let attrs = Attrs::new().with("start", Attr::Int(1)).with("end", Attr::Int(2));
        let count = body.apply(known("Shape", attrs)?, &[ids])?;
        let (start, axis) = (body.integers(&[0]), body.integers(&[0]));
        body.apply(Op::Slice, &[positions, start, count, axis])?
    };
    let segments = match (body.optional(1), body.optional(4)) {
        (Some(at), Some(vectors)) => Some(body.apply(rows(), &[vectors, at])?),
        _ => None,
    };
    let total = sum(body, words, &[Some(positions), segments])?;
    let inputs = [Some(total), Some(body.input(5)?), body.optional(6)];
    let made = body.apply_some(named("LayerNormalization", 17, epsilon(op)?), &inputs)?;
    if body.n_outputs < 2 {
        return Ok(vec![made]);
    }
    // Without a mask the counts are zeros, as many as there are sequences.
    let counted = match body.optional(7) {
        Some(mask) => {
            let one = body.constant(Tensor::from_i32(&[], &[1]));
            let allowed = body.apply(Op::Binary(Binary::Equal), &[mask, one])?;
            body.cast(allowed, DType::I32)?
        }
        None => body.apply(Op::Binary(Binary::Sub), &[ids, ids])?,
    };
    let (axis, flags) = (body.integers(&[1]), Attrs::new().with("keepdims", Attr::Int(0)));
    let counts = body.apply(known("ReduceSum", flags)?, &[counted, axis])?;
    Ok(vec![made, counts, total])
}

/// `input, weights, bias?, mask?, past?, attention bias?`: a projection to queries, keys and values in front
/// of `MultiHeadAttention`. Past and present stack keys and values in one tensor.
fn attention(op: &Named, body: &mut Body<'_>) -> Made {
    let (x, weights) = (body.input(0)?, body.input(1)?);
    let projected = body.apply(Op::MatMul, &[x, weights])?;
    let projected = sum(body, projected, &[body.optional(2)])?;
    attend(op, body, projected, [3, 4, 5])
}

/// As [`attention`] with a projection of integers: `input, weights, bias, input scale, weight scale, mask?,
/// input zero?, weight zero?, past?`.
fn qattention(op: &Named, body: &mut Body<'_>) -> Made {
    let inputs = [
        Some(body.input(0)?),
        Some(body.input(1)?),
        Some(body.input(3)?),
        Some(body.input(4)?),
        body.optional(6),
        body.optional(7),
        body.optional(2),
    ];
    let projected = body.apply_some(microsoft("MatMulIntegerToFloat", Attrs::new()), &inputs)?;
    attend(op, body, projected, [5, 8, 9])
}

/// Attention over what was projected to queries, keys and values; mask, past and bias are these inputs.
fn attend(
    op: &Named,
    body: &mut Body<'_>,
    projected: ValueId,
    [mask, past, bias]: [usize; 3],
) -> Made {
    let mut attrs = op.attributes.clone();
    for name in ["do_rotary", "past_present_share_buffer"] {
        if attrs.flag(name, false)? {
            return Err(AttrError::new(name, "is not supported").into());
        }
    }
    attrs.take("rotary_embedding_dim");
    let sizes = attrs.ints("qkv_hidden_sizes")?;
    let sizes = sizes.map(|it| body.integers(&it));
    let split = Op::Split(Split { axis: -1 });
    let parts = body.outputs(split, &[Some(projected), sizes], 3)?;
    let past = match body.optional(past) {
        Some(past) => {
            let mut half = |i: i64| {
                let index = body.constant(Tensor::from_i64(&[], &[i]));
                body.apply(Op::Gather(Gather { axis: 0 }), &[past, index])
            };
            [Some(half(0)?), Some(half(1)?)]
        }
        None => [None, None],
    };
    let inputs = [
        Some(parts[0]),
        Some(parts[1]),
        Some(parts[2]),
        None,
        body.optional(mask),
        body.optional(bias),
        past[0],
        past[1],
    ];
    let count = if body.n_outputs > 1 { 3 } else { 1 };
    let made = body.outputs(microsoft("MultiHeadAttention", attrs), &inputs, count)?;
    let [y, key, value] = made[..] else { return Ok(made) };
    let axis = body.integers(&[0]);
    let key = body.apply(Op::Unsqueeze, &[key, axis])?;
    let value = body.apply(Op::Unsqueeze, &[value, axis])?;
    Ok(vec![y, body.apply(Op::Concat(Concat { axis: 0 }), &[key, value])?])
}
