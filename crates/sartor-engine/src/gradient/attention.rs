//! Gradients of attention and rotary positions.

use rayon::prelude::*;
use sartor_ir::{
    DType, Named,
    catalog::{Attention, Shown},
};

use super::{Context, Made, Rule, broadcast, floats, narrowed};
use crate::{
    Array,
    reference::{
        attention::{Heads, Operands, Turns, rotate},
        gemm::Matrix,
        layout::View,
        recurrent::Product,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "Attention", backward: attend },
    Rule { domain: "", name: "RotaryEmbedding", backward: rotary },
];

/// What the forward pass made on its way, by row of scores.
struct Scores {
    /// After the cap.
    capped: Vec<f32>,
    /// After the softmax.
    weights: Vec<f32>,
}

/// With scores `s = factor q kᵀ`, weights `p = softmax(mask + cap(s))` and `y = p v`: `dv = pᵀ dy`,
/// `dp = dy vᵀ`, `ds = p (dp - sum of p dp)`, `dq = factor ds k`, `dk = factor dsᵀ q`.
fn attend(op: &Named, context: &Context<'_>) -> Made {
    let it = Operands::<f32>::new(Attention::of(op)?, context.inputs)?;
    let scores = scores(&it);
    let Heads { batch, heads, kv_heads, queries, keys, depth, value_depth } = it.heads;
    let group = heads / kv_heads;
    let dy = context.gradient(0).map(|g| by_head(g, heads, it.flat));
    let shown = context.gradient(3).map(floats);
    let total = |i: usize, len: usize| {
        context.gradient(i).map_or_else(|| vec![0.0; len], |it| floats(it).into_owned())
    };
    let (mut dk, mut dv) = (total(1, it.k.values.len()), total(2, it.v.values.len()));
    let mut dq = vec![0.0; it.q.values.len()];
    let mut masked = vec![0.0; scores.weights.len()];
    let (size_q, size_k) = (queries * depth, keys * depth);
    let (size_v, size_y, size_s) = (keys * value_depth, queries * value_depth, queries * keys);
    let form = Matrix::stored;
    for head in 0..batch * heads {
        let kv = head / heads * kv_heads + head % heads / group;
        let own = head * size_s..(head + 1) * size_s;
        let p = &scores.weights[own.clone()];
        let mut dp = vec![0.0; size_s];
        let v = &it.v.values[kv * size_v..][..size_v];
        if let Some(dy) = &dy {
            let dy = &dy[head * size_y..][..size_y];
            let (rows, columns) =
                (form(queries, value_depth, false), form(keys, value_depth, true));
            f32::product(dy, rows, v, columns, &mut dp);
            let mut part = vec![0.0; size_v];
            f32::product(p, form(queries, keys, true), dy, rows, &mut part);
            dv[kv * size_v..][..size_v].iter_mut().zip(part).for_each(|(sum, it)| *sum += it);
        }
        let seen = shown.as_ref().map(|it| &it[own.clone()]);
        through_scores(&it, &mut dp, p, &scores.capped[own.clone()], seen, &mut masked[own]);
        for score in &mut dp {
            *score *= it.factor as f32;
        }
        let k = &it.k.values[kv * size_k..][..size_k];
        let q = &it.q.values[head * size_q..][..size_q];
        let s = form(queries, keys, false);
        f32::product(&dp, s, k, form(keys, depth, false), &mut dq[head * size_q..][..size_q]);
        let mut part = vec![0.0; size_k];
        f32::product(&dp, s.transposed(), q, form(queries, depth, false), &mut part);
        dk[kv * size_k..][..size_k].iter_mut().zip(part).for_each(|(sum, it)| *sum += it);
    }
    assemble(&it, context, [dq, dk, dv], &masked)
}

fn scores(it: &Operands<f32>) -> Scores {
    let heads: Vec<(Vec<f32>, Vec<f32>)> = (0..it.heads.batch * it.heads.heads)
        .into_par_iter()
        .map(|at| {
            let (mut capped, mut weights) = (Vec::new(), Vec::new());
            it.head(at, |when, row| {
                let row = row.iter().map(|&it| it as f32);
                match when {
                    Shown::Capped => capped.extend(row),
                    Shown::Weights => weights.extend(row),
                    Shown::Products | Shown::Masked => {}
                }
            });
            (capped, weights)
        })
        .collect();
    let (capped, weights): (Vec<_>, Vec<_>) = heads.into_iter().unzip();
    Scores { capped: capped.concat(), weights: weights.concat() }
}

/// From d loss / d weights, in place, to d loss / d products, for one head; what the masks get is left in
/// `masked`. `shown` is the gradient of the scores that the node shows.
fn through_scores(
    it: &Operands<f32>,
    g: &mut [f32],
    weights: &[f32],
    capped: &[f32],
    shown: Option<&[f32]>,
    masked: &mut [f32],
) {
    let add = |when: Shown, g: &mut [f32]| {
        if let (Some(shown), true) = (shown, it.it.shown == when) {
            g.iter_mut().zip(shown).for_each(|(sum, it)| *sum += it);
        }
    };
    let keys = it.heads.keys.max(1);
    add(Shown::Weights, g);
    for (g, p) in g.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
        let dot: f64 = g.iter().zip(p).map(|(g, p)| f64::from(*g) * f64::from(*p)).sum();
        g.iter_mut().zip(p).for_each(|(g, &p)| *g = (f64::from(p) * (f64::from(*g) - dot)) as f32);
    }
    add(Shown::Masked, g);
    masked.copy_from_slice(g);
    add(Shown::Capped, g);
    let cap = it.it.softcap;
    if cap > 0.0 {
        g.iter_mut().zip(capped).for_each(|(g, y)| *g *= 1.0 - (y / cap).powi(2));
    }
    add(Shown::Products, g);
}

/// `[batch, positions, heads size]` by head, or what is by head already.
fn by_head(g: &Array, heads: usize, flat: bool) -> Vec<f32> {
    let values = floats(g);
    if !flat {
        return values.into_owned();
    }
    let (batch, positions, width) = (g.shape[0], g.shape[1], g.shape[2]);
    let size = width.checked_div(heads).unwrap_or(0);
    View::transpose(&[batch, positions, heads, size], &[0, 2, 1, 3]).read(&values)
}

fn assemble(
    it: &Operands<f32>,
    context: &Context<'_>,
    [dq, dk, dv]: [Vec<f32>; 3],
    masked: &[f32],
) -> Made {
    let Heads { batch, heads, kv_heads, queries, keys, depth, value_depth } = it.heads;
    let mut made = context.zero();
    // The positions `range` of a gradient by head, in the layout of input `i`.
    let part = |i: usize, g: &[f32], shape: [usize; 4], range: std::ops::Range<usize>| {
        let [batch, heads, positions, size] = shape;
        let windows = [(0, 1, batch), (0, 1, heads), (range.start, 1, range.len()), (0, 1, size)];
        let mut view = View::slice(&[batch, heads, positions, size], &windows);
        let given = context.input(i)?;
        if given.shape.len() == 3 {
            view.shape.swap(1, 2);
            view.strides.swap(1, 2);
        }
        Ok::<_, String>(Array::f32(&given.shape, view.read(g)))
    };
    let past = context.optional(4).map_or(0, |it| it.shape[2]);
    let (of_k, of_v) = ([batch, kv_heads, keys, depth], [batch, kv_heads, keys, value_depth]);
    let rows = [
        (0, &dq, [batch, heads, queries, depth], 0..queries),
        (1, &dk, of_k, past..keys),
        (2, &dv, of_v, past..keys),
        (4, &dk, of_k, 0..past),
        (5, &dv, of_v, 0..past),
    ];
    for (i, g, shape, range) in rows {
        if context.wants(i) {
            made[i] = Some(part(i, g, shape, range)?);
        }
    }
    if let (Some(mask), true) = (context.optional(3), context.wants(3))
        && mask.dtype() != DType::Bool
    {
        let known = mask.shape.last().copied().unwrap_or(1).min(keys);
        let windows = [(0, 1, batch), (0, 1, heads), (0, 1, queries), (0, 1, known)];
        let own = View::slice(&[batch, heads, queries, keys], &windows).read(masked);
        let sums = broadcast::sum(&own, &[batch, heads, queries, known], &mask.shape)?;
        made[3] = Some(Array::f32(&mask.shape, sums));
    }
    Ok(made)
}

/// Turning back is the adjoint of turning; an angle's cosine and sine get the sums over the pairs that they
/// turned.
fn rotary(op: &Named, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let inputs = narrowed(context.inputs);
    let inputs: Vec<_> = inputs.iter().map(Option::as_deref).collect();
    let turns = Turns::<f32>::of(op, &inputs)?;
    let (x, dy) = (context.floats(0)?, floats(g));
    let mut dx = dy.to_vec();
    let angles = context.input(1)?;
    let (mut dcos, mut dsin) = (vec![0.0f64; angles.len()], vec![0.0f64; angles.len()]);
    let (size, pairs) = (turns.head.max(1), turns.pairs);
    for (i, dx) in dx.chunks_exact_mut(size).enumerate() {
        let (cos, sin) = turns.angles(i);
        let back: Vec<f32> = sin.iter().map(|it| -it).collect();
        rotate(dx, cos, &back, turns.interleaved);
        let (x, dy) = (&x[i * size..][..size], &dy[i * size..][..size]);
        for pair in 0..pairs {
            let (a, b) =
                if turns.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
            let [xa, xb, ya, yb] = [x[a], x[b], dy[a], dy[b]].map(f64::from);
            let at = turns.row(i) * pairs + pair;
            dcos[at] += ya * xa + yb * xb;
            dsin[at] += yb * xa - ya * xb;
        }
    }
    let narrow = |sums: Vec<f64>| sums.into_iter().map(|it| it as f32).collect::<Vec<f32>>();
    for (i, values) in [dx, narrow(dcos), narrow(dsin)].into_iter().enumerate() {
        if context.wants(i) {
            made[i] = Some(Array::f32(&context.input(i)?.shape, values));
        }
    }
    Ok(made)
}
