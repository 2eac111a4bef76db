//! Gradients of resampling. A sample is a weighted sum of its neighbours, so each neighbour gets its weight's
//! share of the gradient; a place in a grid gets the slopes of the weights (Jaderberg et al. 2015, "Spatial
//! transformer networks", equations 6 and 7).

use sartor_ir::{Interpolation, Named};

use super::{Context, Made, Rule, floats};
use crate::{
    Array,
    reference::{
        layout::strides,
        named::{
            Lanes,
            grid::{Sampler, check_rank, pixel_places},
            region::Align,
            resize::{Plan, Taps},
        },
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "Resize", backward: resize },
    Rule { domain: "", name: "Upsample", backward: resize },
    Rule { domain: "", name: "GridSample", backward: grid_sample },
    Rule { domain: "", name: "AffineGrid", backward: affine_grid },
    Rule { domain: "", name: "RoiAlign", backward: align },
];

fn resize(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let (x, plan) = (context.input(0)?, Plan::new(op, context.inputs)?);
        let mut sums: Vec<f64> = g.to_f64();
        plan.extrapolate(&mut sums, 0.0);
        if plan.interpolation == Interpolation::Nearest {
            sums = returned(&sums, &plan.nearest(), &x.shape);
        } else {
            let mut shape = plan.shape.clone();
            for (axis, taps) in plan.axes.iter().enumerate() {
                let Some(taps) = taps else { continue };
                sums = along(&sums, Lanes::new(&shape, axis), taps);
                shape[axis] = taps.input;
            }
        }
        Ok(narrowed(&x.shape, sums))
    })
}

fn narrowed(shape: &[usize], sums: Vec<f64>) -> Array {
    Array::f32(shape, sums.into_iter().map(|it| it as f32).collect())
}

/// Each element of `g` added to the element of a tensor of `shape` that `tables` name for its place.
pub(super) fn returned(g: &[f64], tables: &[Vec<Option<usize>>], shape: &[usize]) -> Vec<f64> {
    let steps = strides(shape);
    let mut sums = vec![0.0; shape.iter().product()];
    let Some((inner, outer)) = tables.split_last() else { return g.to_vec() };
    for (i, g) in g.chunks_exact(inner.len().max(1)).enumerate() {
        let (mut rest, mut at) = (i, Some(0));
        for (table, step) in outer.iter().zip(&steps).rev() {
            let own = table[rest % table.len()];
            at = at.zip(own).map(|(sum, own)| sum + own * step);
            rest /= table.len();
        }
        let Some(at) = at else { continue };
        for (own, g) in inner.iter().zip(g) {
            if let Some(own) = own {
                sums[at + own] += g;
            }
        }
    }
    sums
}

/// The transposed map of one axis.
fn along(g: &[f64], lanes: Lanes, taps: &Taps) -> Vec<f64> {
    let mut sums = vec![0.0; lanes.outer * taps.input * lanes.inner];
    let (from, to) = (lanes.extent * lanes.inner, taps.input * lanes.inner);
    if from == 0 || to == 0 {
        return sums;
    }
    for (sums, g) in sums.chunks_exact_mut(to).zip(g.chunks_exact(from)) {
        for (g, taps) in g.chunks_exact(lanes.inner).zip(taps.all.chunks_exact(taps.count)) {
            for &(at, weight) in taps {
                let row = &mut sums[at * lanes.inner..][..lanes.inner];
                row.iter_mut().zip(g).for_each(|(sum, g)| *sum += weight * g);
            }
        }
    }
    sums
}

fn grid_sample(op: &Named, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (x, grid) = (context.input(0)?, context.input(1)?);
    let sampler = Sampler::read(op)?;
    let extents = &x.shape[2..];
    check_rank(extents)?;
    let (channels, d) = (x.shape[1], extents.len());
    let (plane, places) =
        (extents.iter().product::<usize>(), g.shape[2..].iter().product::<usize>());
    let (values, places_at, dy) = (floats(x), floats(grid), floats(g));
    let (mut dx, mut dgrid) = (vec![0.0f64; x.len()], vec![0.0f64; grid.len()]);
    for (i, place) in places_at.chunks_exact(d).enumerate() {
        let (n, at) = (i / places, i % places);
        let taps = sampler.taps(place, extents);
        for c in n * channels..(n + 1) * channels {
            let g = f64::from(dy[c * places + at]);
            for tap in &taps {
                dx[c * plane + tap.offset] += g * tap.weight;
                let x = f64::from(values[c * plane + tap.offset]);
                for (sum, slope) in dgrid[i * d..][..d].iter_mut().zip(tap.slopes) {
                    *sum += g * x * slope;
                }
            }
        }
    }
    if context.wants(0) {
        made[0] = Some(narrowed(&x.shape, dx));
    }
    if context.wants(1) {
        made[1] = Some(narrowed(&grid.shape, dgrid));
    }
    Ok(made)
}

fn affine_grid(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let theta = context.input(0)?;
        let d = g.shape.len() - 2;
        let places = pixel_places(&g.shape[1..=d], op.flag("align_corners", false)?);
        let image = (places.len() / (d + 1) * d).max(1);
        let mut sums = vec![0.0f64; theta.len()];
        for (sums, g) in sums.chunks_exact_mut(d * (d + 1)).zip(floats(g).chunks_exact(image)) {
            for (place, g) in places.chunks_exact(d + 1).zip(g.chunks_exact(d)) {
                for (sums, &g) in sums.chunks_exact_mut(d + 1).zip(g) {
                    sums.iter_mut().zip(place).for_each(|(sum, it)| *sum += f64::from(g) * it);
                }
            }
        }
        Ok(narrowed(&theta.shape, sums))
    })
}

/// Of the input, with means; where regions begin and end is not differentiated.
fn align(op: &Named, context: &Context<'_>) -> Made {
    let Some(g) = context.gradient(0) else { return Ok(context.zero()) };
    context.first(|| {
        let it = Align::read(op)?;
        if it.largest {
            return Err("`RoiAlign` of the largest samples has no gradient".to_owned());
        }
        let (x, regions) = (context.input(0)?, context.input(1)?);
        let images = context.input(2)?.to_i64();
        let (channels, plane) = (x.shape[1], x.shape[2] * x.shape[3]);
        let cells = [g.shape[2], g.shape[3]];
        let size = (cells[0] * cells[1]).max(1);
        let (mut sums, dy) = (vec![0.0f64; x.len()], floats(g));
        for (r, region) in regions.to_f64().chunks_exact(4).enumerate() {
            let samples = it.cells(region, cells, [x.shape[2], x.shape[3]]);
            let first = usize::try_from(images[r]).map_err(|_| "an image is negative")? * channels;
            for c in 0..channels {
                let sums = &mut sums[(first + c) * plane..][..plane];
                for (own, &g) in samples.iter().zip(&dy[(r * channels + c) * size..][..size]) {
                    let share = f64::from(g) / own.len().max(1) as f64;
                    own.iter().flatten().for_each(|&(at, weight)| sums[at] += share * weight);
                }
            }
        }
        Ok(narrowed(&x.shape, sums))
    })
}
