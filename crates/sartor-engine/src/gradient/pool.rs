//! Gradients of pooling. The largest element under a window gets the whole gradient, the first one where
//! several are equal; under a mean each element gets its share.

use sartor_ir::{GlobalPool, Pool, PoolKind};

use super::{Context, Made, floats};
use crate::{
    Array,
    reference::{
        self,
        conv::tap_table,
        pool::{average_counts, max_pool},
    },
};

pub(super) fn pool(it: &Pool, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let axes = reference::windows(&it.spatial, &[], &x.shape[2..], &g.shape[2..])?;
        let (values, dy) = (context.floats(0)?, floats(g));
        let mut dx = vec![0.0; x.len()];
        if it.kind == PoolKind::Max {
            let (_, indices) = max_pool(&values, x.shape[0] * x.shape[1], &axes);
            for (&index, &g) in indices.iter().zip(dy.iter()) {
                if let Some(sum) = dx.get_mut(index as usize) {
                    *sum += g;
                }
            }
            return Ok(Array::f32(&x.shape, dx));
        }
        let rows = it.spatial.geometry(&[], &x.shape[2..])?;
        let padded: Vec<_> =
            rows.iter().zip(&x.shape[2..]).map(|(row, &n)| row[3] + n + row[4]).collect();
        let counts = average_counts(&axes, it.count_include_pad.then_some(padded.as_slice()));
        let (table, taps) = (tap_table(&axes), axes.iter().map(|it| it.kernel).product::<usize>());
        let (inputs, outputs) =
            (x.shape[2..].iter().product::<usize>().max(1), counts.len().max(1));
        for (plane, dy) in dx.chunks_exact_mut(inputs).zip(dy.chunks_exact(outputs)) {
            for (at, (g, &count)) in dy.iter().zip(&counts).enumerate() {
                let share = g / count as f32;
                for &index in &table[at * taps..][..taps] {
                    if let Some(sum) = plane.get_mut(index) {
                        *sum += share;
                    }
                }
            }
        }
        Ok(Array::f32(&x.shape, dx))
    })
}

pub(super) fn global(it: GlobalPool, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let x = context.input(0)?;
        let (values, dy) = (context.floats(0)?, floats(g));
        let plane = x.shape[2..].iter().product::<usize>().max(1);
        let mut dx = vec![0.0; x.len()];
        for ((dx, x), &g) in
            dx.chunks_exact_mut(plane).zip(values.chunks_exact(plane)).zip(dy.iter())
        {
            match it {
                GlobalPool::Average => dx.fill(g / plane as f32),
                GlobalPool::Max => dx[largest(x)] = g,
            }
        }
        Ok(Array::f32(&x.shape, dx))
    })
}

/// Position of the first largest element, or of the first NaN.
fn largest(x: &[f32]) -> usize {
    let mut best = 0;
    for (i, it) in x.iter().enumerate() {
        if *it > x[best] || (it.is_nan() && !x[best].is_nan()) {
            best = i;
        }
    }
    best
}
