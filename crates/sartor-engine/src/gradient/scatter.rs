//! Gradients of picking and placing by indices (<https://onnx.ai/onnx/operators/onnx__GatherElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterElements.html> and their kin): what was picked gets the
//! gradient back, what was replaced gets none. Of equal elements under a largest or smallest one, the first
//! gets it.

use sartor_ir::Named;

use super::{Context, Gradients, Made, Rule, floats};
use crate::{
    Array,
    reference::named::scatter::{Places, Reduction, places},
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "GatherElements", backward: gather },
    Rule { domain: "", name: "GatherND", backward: gather },
    Rule { domain: "", name: "Scatter", backward: scatter },
    Rule { domain: "", name: "ScatterElements", backward: scatter },
    Rule { domain: "", name: "ScatterND", backward: scatter },
];

fn gather(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let (x, at) = (context.input(0)?, places(op, context.inputs)?);
        let mut dx = vec![0.0; x.len()];
        for (&start, g) in at.starts.iter().zip(floats(g).chunks_exact(at.run.max(1))) {
            let row = &mut dx[start..][..at.run];
            row.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        }
        Ok(Array::f32(&x.shape, dx))
    })
}

/// For each element that is written to, by position: the updates in their order.
fn writers(at: &Places) -> Vec<(usize, Vec<usize>)> {
    let pairs = at.starts.iter().enumerate();
    let mut all: Vec<(usize, usize)> = pairs
        .flat_map(|(i, &start)| (0..at.run).map(move |j| (start + j, i * at.run + j)))
        .collect();
    all.sort_unstable();
    let group = |it: &[(usize, usize)]| (it[0].0, it.iter().map(|it| it.1).collect());
    all.chunk_by(|a, b| a.0 == b.0).map(group).collect()
}

fn scatter(op: &Named, context: &Context<'_>) -> Made {
    let mut made: Gradients = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (x, updates) = (context.input(0)?, context.input(2)?);
    let by = Reduction::read(op)?;
    let (values, news, dy) = (floats(x), floats(updates), floats(g));
    let (mut dx, mut du) = (dy.to_vec(), vec![0.0; updates.len()]);
    for (at, who) in writers(&places(op, context.inputs)?) {
        let (own, others): (f32, Vec<f32>) = (values[at], who.iter().map(|&it| news[it]).collect());
        let slopes = slopes(by, own, &others);
        dx[at] = dy[at] * slopes[0];
        who.iter().zip(&slopes[1..]).for_each(|(&i, slope)| du[i] = dy[at] * slope);
    }
    if context.wants(0) {
        made[0] = Some(Array::f32(&x.shape, dx));
    }
    if context.wants(2) {
        made[2] = Some(Array::f32(&updates.shape, du));
    }
    Ok(made)
}

/// d result / d element, then by each update, of an element on which `updates` were placed.
fn slopes(by: Reduction, own: f32, updates: &[f32]) -> Vec<f32> {
    let all: Vec<f32> = std::iter::once(own).chain(updates.iter().copied()).collect();
    let marked = |place: Option<usize>| {
        let one = |i: usize| f32::from(u8::from(Some(i) == place));
        (0..all.len()).map(one).collect()
    };
    match by {
        Reduction::None => marked(Some(all.len() - 1)),
        Reduction::Add => vec![1.0; all.len()],
        Reduction::Mul => {
            let others = |i: usize| {
                let rest = all.iter().enumerate().filter(|it| it.0 != i);
                rest.map(|it| it.1).product()
            };
            (0..all.len()).map(others).collect()
        }
        Reduction::Max => {
            marked((0..all.len()).reduce(|best, i| if all[i] > all[best] { i } else { best }))
        }
        Reduction::Min => {
            marked((0..all.len()).reduce(|best, i| if all[i] < all[best] { i } else { best }))
        }
    }
}
