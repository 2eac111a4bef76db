//! Convolution of any rank through matrices of patches (im2col): its value, for weights that change, and
//! its gradients (Chellapilla et al. 2006, "High performance convolutional neural networks for document
//! processing", section 4). Images are taken one after the other, so that each sum has one order.

use sartor_ir::Conv;

use super::{Context, Made};
use crate::{
    Array,
    reference::{self, conv::tap_table},
    simd::{Strided, Tail, gemm},
};

/// Sizes of a convolution as matrices.
struct Patches {
    batch: usize,
    groups: usize,
    /// Input and output channels of one group.
    channels: usize,
    filters: usize,
    /// Elements of an input plane, an output plane and a filter plane.
    inputs: usize,
    outputs: usize,
    taps: usize,
    /// Input index of every tap at every position, `usize::MAX` in the padding.
    table: Vec<usize>,
}

impl Patches {
    fn new(it: &Conv, x: &Array, w: &Array, outputs: &[usize]) -> Result<Self, String> {
        let fits = x.shape.len() >= 3 && w.shape.len() == x.shape.len() && it.group > 0;
        if !fits || x.shape[1] != w.shape[1] * it.group || !w.shape[0].is_multiple_of(it.group) {
            return Err(format!("input {:?} does not fit weight {:?}", x.shape, w.shape));
        }
        let axes = reference::windows(&it.spatial, &w.shape[2..], &x.shape[2..], outputs)?;
        Ok(Patches {
            batch: x.shape[0],
            groups: it.group,
            channels: w.shape[1],
            filters: w.shape[0] / it.group,
            inputs: x.shape[2..].iter().product(),
            outputs: outputs.iter().product(),
            taps: w.shape[2..].iter().product(),
            table: tap_table(&axes),
        })
    }

    /// Rows of the matrix of patches.
    fn terms(&self) -> usize {
        self.channels * self.taps
    }

    /// Where group `g` of image `n` begins in an input and in an output.
    fn starts(&self, n: usize, g: usize) -> (usize, usize) {
        let at = n * self.groups + g;
        (at * self.channels * self.inputs, at * self.filters * self.outputs)
    }

    /// `patches[c, t, p] = x[c, index(p, t)]`, 0 in the padding.
    fn gather(&self, x: &[f32], patches: &mut [f32]) {
        for (row, patch) in patches.chunks_exact_mut(self.outputs.max(1)).enumerate() {
            let plane = &x[row / self.taps * self.inputs..][..self.inputs];
            for (at, value) in patch.iter_mut().enumerate() {
                let index = self.table[at * self.taps + row % self.taps];
                *value = plane.get(index).copied().unwrap_or(0.0);
            }
        }
    }

    /// The adjoint of [`Patches::gather`]: adds to `x`.
    fn scatter(&self, patches: &[f32], x: &mut [f32]) {
        for (row, patch) in patches.chunks_exact(self.outputs.max(1)).enumerate() {
            let plane = &mut x[row / self.taps * self.inputs..][..self.inputs];
            for (at, &value) in patch.iter().enumerate() {
                let index = self.table[at * self.taps + row % self.taps];
                if let Some(sum) = plane.get_mut(index) {
                    *sum += value;
                }
            }
        }
    }
}

fn rows(data: &[f32], columns: usize) -> Strided<'_> {
    Strided { data, row: columns, col: 1 }
}

fn transposed(data: &[f32], columns: usize) -> Strided<'_> {
    Strided { data, row: 1, col: columns }
}

/// `y[n, o, p] = bias[o] + sum over c, t of w[o, c, t] patches[c, t, p]`, for an output of `shape`.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn forward(
    it: &Conv,
    shape: &[usize],
    x: &Array,
    w: &Array,
    bias: Option<&[f32]>,
) -> Result<Array, String> {
    let p = Patches::new(it, x, w, &shape[2..])?;
    let (values, weights) = (super::floats(x), super::floats(w));
    let mut y = vec![0.0; shape.iter().product()];
    let mut patches = vec![0.0; p.terms() * p.outputs];
    for (n, g) in (0..p.batch).flat_map(|n| (0..p.groups).map(move |g| (n, g))) {
        let (at_x, at_y) = p.starts(n, g);
        p.gather(&values[at_x..], &mut patches);
        let (w, y) = (&weights[g * p.filters * p.terms()..], &mut y[at_y..]);
        let sizes = (p.filters, p.outputs, p.terms());
        let y = &mut y[..p.filters * p.outputs];
        gemm(sizes, rows(w, p.terms()), rows(&patches, p.outputs), y, None, Tail::None);
        for (o, plane) in y.chunks_exact_mut(p.outputs.max(1)).enumerate() {
            let bias = bias.map_or(0.0, |it| it[g * p.filters + o]);
            plane.iter_mut().for_each(|y| *y += bias);
        }
    }
    Ok(Array::f32(shape, y))
}

pub(super) fn backward(it: &Conv, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (x, w) = (context.input(0)?, context.input(1)?);
    let p = Patches::new(it, x, w, &g.shape[2..])?;
    let g = super::floats(g);
    if context.wants(0) {
        made[0] = Some(Array::f32(&x.shape, by_input(&p, &super::floats(w), &g)));
    }
    if context.wants(1) {
        made[1] = Some(Array::f32(&w.shape, by_weight(&p, &super::floats(x), &g)));
    }
    if context.wants(2) {
        made[2] = Some(Array::f32(&[w.shape[0]], by_bias(&p, &g)));
    }
    Ok(made)
}

/// `dx = scatter(w^T dy)`.
fn by_input(p: &Patches, w: &[f32], g: &[f32]) -> Vec<f32> {
    let mut dx = vec![0.0; p.batch * p.groups * p.channels * p.inputs];
    let mut patches = vec![0.0; p.terms() * p.outputs];
    for (n, group) in (0..p.batch).flat_map(|n| (0..p.groups).map(move |g| (n, g))) {
        let (at_x, at_y) = p.starts(n, group);
        let w = transposed(&w[group * p.filters * p.terms()..], p.terms());
        let dy = rows(&g[at_y..], p.outputs);
        gemm((p.terms(), p.outputs, p.filters), w, dy, &mut patches, None, Tail::None);
        p.scatter(&patches, &mut dx[at_x..]);
    }
    dx
}

/// `dw = sum over images of dy patches^T`.
fn by_weight(p: &Patches, x: &[f32], g: &[f32]) -> Vec<f32> {
    let mut dw = vec![0.0; p.groups * p.filters * p.terms()];
    let mut patches = vec![0.0; p.terms() * p.outputs];
    let mut part = vec![0.0; p.filters * p.terms()];
    for (n, group) in (0..p.batch).flat_map(|n| (0..p.groups).map(move |g| (n, g))) {
        let (at_x, at_y) = p.starts(n, group);
        p.gather(&x[at_x..], &mut patches);
        let (dy, patches) = (rows(&g[at_y..], p.outputs), transposed(&patches, p.outputs));
        gemm((p.filters, p.terms(), p.outputs), dy, patches, &mut part, None, Tail::None);
        let own = &mut dw[group * part.len()..][..part.len()];
        own.iter_mut().zip(&part).for_each(|(sum, it)| *sum += it);
    }
    dw
}

/// `db[o] = sum over n, p of dy[n, o, p]`.
fn by_bias(p: &Patches, g: &[f32]) -> Vec<f32> {
    let all = p.groups * p.filters;
    let mut sums = vec![0.0f64; all];
    for (i, plane) in g.chunks_exact(p.outputs.max(1)).enumerate() {
        sums[i % all] += plane.iter().map(|&it| f64::from(it)).sum::<f64>();
    }
    sums.into_iter().map(|it| it as f32).collect()
}
