//! Gradients of operators that choose, repeat, move or sum up elements (<https://onnx.ai/onnx/operators/>).

use sartor_ir::{Binary, DType, Named, normalize_axis};

use super::{Context, Made, Rule, floats, resample::returned};
use crate::{
    Array,
    reference::{
        conv::tap_table,
        layout::View,
        named::{
            self, Lanes,
            blocks::{as_transposition, center_tables},
            conv_transpose::block_windows,
            pool::{lp, unpooled_places},
            random::dropped,
            select::{Walk, cumulated, triangle, triangle_of},
        },
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "Tile", backward: tile },
    Rule { domain: "", name: "TopK", backward: top },
    Rule { domain: "", name: "CumSum", backward: cumulative_sum },
    Rule { domain: "", name: "Trilu", backward: trilu },
    Rule { domain: "", name: "ReverseSequence", backward: reverse_sequence },
    Rule { domain: "", name: "DepthToSpace", backward: blocks },
    Rule { domain: "", name: "SpaceToDepth", backward: blocks },
    Rule { domain: "", name: "LpPool", backward: lp_pool },
    Rule { domain: "", name: "GlobalLpPool", backward: lp_pool },
    Rule { domain: "", name: "Dropout", backward: dropout },
    Rule { domain: "", name: "CenterCropPad", backward: center },
    Rule { domain: "", name: "MaxUnpool", backward: unpool },
    Rule { domain: "", name: "Col2Im", backward: col2im },
];

/// An element gets the sum over its copies.
fn tile(_: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let table = |(&n, &m): (&usize, &usize)| (0..m).map(|i| Some(i % n.max(1))).collect();
        let tables: Vec<_> = x.shape.iter().zip(&g.shape).map(table).collect();
        let sums = returned(&g.to_f64(), &tables, &x.shape);
        Ok(Array::f32(&x.shape, sums.into_iter().map(|it| it as f32).collect()))
    })
}

/// Of the values; the indices have none.
fn top(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let made = named::evaluate(op, context.inputs, &[x.dtype(), DType::I64])?;
        let picks = made.get(1).map(Array::to_i64).ok_or("there are no indices")?;
        let axis = normalize_axis(op.int("axis", -1)?, x.shape.len())?;
        let (to, from) = (Lanes::new(&x.shape, axis), Lanes::new(&g.shape, axis));
        let (mut dx, dy) = (vec![0.0; x.len()], floats(g));
        for (x_first, g_first) in to.starts().zip(from.starts()) {
            for rank in 0..from.extent {
                let at = g_first + rank * from.inner;
                dx[x_first + picks[at] as usize * to.inner] = dy[at];
            }
        }
        Ok(Array::f32(&x.shape, dx))
    })
}

/// What an element was added to lies on its other side.
fn cumulative_sum(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let axis = context.input(1)?.to_i64().first().copied().ok_or("the axis is missing")?;
        let lanes = Lanes::new(&g.shape, normalize_axis(axis, g.shape.len())?);
        let walk = Walk::read(op)?;
        let back = Walk { reverse: !walk.reverse, ..walk };
        Ok(Array::f32(&g.shape, cumulated(&floats(g), lanes, back, Binary::Add, 0.0)))
    })
}

fn trilu(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let (upper, k) = triangle_of(op, context.inputs)?;
        Ok(Array::f32(&g.shape, triangle(&floats(g), &g.shape, upper, k)))
    })
}

/// Turned around twice a sequence is as it was.
fn reverse_sequence(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let made = named::evaluate(op, &[Some(g), context.optional(1)], &[DType::F32])?;
        made.into_iter().next().ok_or_else(|| "nothing was made".to_owned())
    })
}

fn blocks(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let (split, perm) = as_transposition(op, &x.shape)?;
        let mut back = [0; 6];
        perm.iter().enumerate().for_each(|(to, &from)| back[from] = to);
        let view = View::transpose(&perm.map(|it| split[it]), &back);
        Ok(Array::f32(&x.shape, view.read(&floats(g))))
    })
}

/// `d y / d x = sign(x) (|x| / y)^(p - 1)`; 0 where the norm is.
fn lp_pool(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let (axes, p) = lp(op, x, &g.shape[2..])?;
        let (table, taps) = (tap_table(&axes), axes.iter().map(|it| it.kernel).product::<usize>());
        let (plane, places) =
            (x.shape[2..].iter().product::<usize>(), g.shape[2..].iter().product::<usize>());
        let (values, dy, y) = (floats(x), floats(g), floats(context.output(0)?));
        let mut dx = vec![0.0; x.len()];
        for (at, (&g, &y)) in dy.iter().zip(y.iter()).enumerate() {
            let start = at / places * plane;
            for &index in &table[at % places * taps..][..taps] {
                if index < plane && y > 0.0 {
                    let x = f64::from(values[start + index]);
                    let slope = x.signum() * (x.abs() / f64::from(y)).powf(p - 1.0);
                    dx[start + index] += g * if x == 0.0 { 0.0 } else { slope as f32 };
                }
            }
        }
        Ok(Array::f32(&x.shape, dx))
    })
}

/// The same elements go, and the same factors stay.
fn dropout(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        Ok(match dropped(op, context.inputs)? {
            None => g.clone(),
            Some(factors) => {
                let one = |(g, by): (&f32, &f64)| g * *by as f32;
                Array::f32(&g.shape, floats(g).iter().zip(&factors).map(one).collect())
            }
        })
    })
}

fn center(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let sums = returned(&g.to_f64(), &center_tables(op, context.inputs)?, &x.shape);
        Ok(Array::f32(&x.shape, sums.into_iter().map(|it| it as f32).collect()))
    })
}

/// Of several elements on one place the last one stays.
fn unpool(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let (_, places) = unpooled_places(op, context.inputs)?;
        let (dy, mut last) = (floats(g), vec![usize::MAX; g.len()]);
        for (i, place) in places.iter().enumerate() {
            if let Some(at) = place {
                last[*at] = i;
            }
        }
        let stays = |(i, place): (usize, &Option<usize>)| match place {
            Some(at) if last[*at] == i => dy[*at],
            _ => 0.0,
        };
        Ok(Array::f32(&x.shape, places.iter().enumerate().map(stays).collect()))
    })
}

/// What was added to a place of the image gets that place's gradient.
fn col2im(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let (x, axes) = (context.input(0)?, block_windows(op, context.inputs)?);
        let taps = axes.iter().map(|it| it.kernel).product::<usize>();
        let plane = axes.iter().map(|it| it.input).product::<usize>();
        let (table, dy, places) = (tap_table(&axes), floats(g), x.shape[2]);
        let one = |i: usize| {
            let (at, row) = (i % places, i / places);
            let index = table[at * taps + row % taps];
            dy[row / taps * plane..][..plane].get(index).copied().unwrap_or(0.0)
        };
        Ok(Array::f32(&x.shape, (0..x.len()).map(one).collect()))
    })
}
