//! Convolution of any rank through matrices of patches (im2col): its value, for weights that change, and
//! its gradients (Chellapilla et al. 2006, "High performance convolutional neural networks for document
//! processing", section 4). Images are taken one after the other, so that each sum has one order.

use sartor_ir::{Conv, ConvTranspose, Named};

use super::{Context, Made, Rule};
use crate::{
    Array,
    reference::{
        self,
        conv::{Window, tap_table},
        named::conv_transpose,
    },
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
        Ok(Patches::of(&axes, x.shape[0], it.group, &w.shape))
    }

    /// For windows over the axes of space, and a weight `[groups * filters, channels, …]`.
    fn of(axes: &[Window], batch: usize, groups: usize, w: &[usize]) -> Self {
        let product = |of: fn(&Window) -> usize| axes.iter().map(of).product();
        Patches {
            batch,
            groups,
            channels: w[1],
            filters: w[0] / groups,
            inputs: product(|it| it.input),
            outputs: product(|it| it.output),
            taps: product(|it| it.kernel),
            table: tap_table(axes),
        }
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
    let mut y = convolved(&p, &super::floats(x), &super::floats(w));
    add_bias(&mut y, p.outputs, bias);
    Ok(Array::f32(shape, y))
}

/// `y[n, o, p] = sum over c, t of w[o, c, t] patches[c, t, p]`.
fn convolved(p: &Patches, x: &[f32], w: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; p.batch * p.groups * p.filters * p.outputs];
    let mut patches = vec![0.0; p.terms() * p.outputs];
    for (n, g) in (0..p.batch).flat_map(|n| (0..p.groups).map(move |g| (n, g))) {
        let (at_x, at_y) = p.starts(n, g);
        p.gather(&x[at_x..], &mut patches);
        let (w, y) = (&w[g * p.filters * p.terms()..], &mut y[at_y..]);
        let sizes = (p.filters, p.outputs, p.terms());
        let y = &mut y[..p.filters * p.outputs];
        gemm(sizes, rows(w, p.terms()), rows(&patches, p.outputs), y, None, Tail::None);
    }
    y
}

/// Adds to each plane of `plane` elements the bias of its channel.
fn add_bias(y: &mut [f32], plane: usize, bias: Option<&[f32]>) {
    let Some(bias) = bias.filter(|it| !it.is_empty()) else { return };
    for (i, plane) in y.chunks_exact_mut(plane.max(1)).enumerate() {
        for y in plane {
            *y += bias[i % bias.len()];
        }
    }
}

/// The value of the transposed convolution: the input gradient of a convolution with windows `axes`, from
/// an output `x`, with a bias.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn transposed_forward(
    axes: &[Window],
    group: usize,
    shape: &[usize],
    x: &Array,
    w: &Array,
    bias: Option<&[f32]>,
) -> Result<Array, String> {
    let p = Patches::of(axes, x.shape[0], group, &w.shape);
    let mut y = by_input(&p, &super::floats(w), &super::floats(x));
    if y.len() != shape.iter().product::<usize>() {
        return Err(format!("input {:?} does not fit weight {:?}", x.shape, w.shape));
    }
    add_bias(&mut y, p.inputs, bias);
    Ok(Array::f32(shape, y))
}

/// The gradient of `ConvTranspose`: by its input a convolution, by its weight that of one.
pub(super) fn transposed_backward(op: &Named, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let (x, w) = (context.input(0)?, context.input(1)?);
    let axes = conv_transpose::windows(op, x, w)?;
    let p = Patches::of(&axes, x.shape[0], ConvTranspose::read(op)?.group, &w.shape);
    let g = super::floats(g);
    if context.wants(0) {
        made[0] = Some(Array::f32(&x.shape, convolved(&p, &g, &super::floats(w))));
    }
    if context.wants(1) {
        made[1] = Some(Array::f32(&w.shape, by_weight(&p, &g, &super::floats(x))));
    }
    if context.wants(2) {
        let channels = p.groups * p.channels;
        made[2] = Some(Array::f32(&[channels], by_bias(channels, p.inputs, &g)));
    }
    Ok(made)
}

pub(super) const RULES: &[Rule] =
    &[Rule { domain: "", name: "ConvTranspose", backward: transposed_backward }];

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
        made[2] = Some(Array::f32(&[w.shape[0]], by_bias(w.shape[0], p.outputs, &g)));
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

/// `db[o] = sum over n, p of dy[n, o, p]`, for planes of `plane` elements.
fn by_bias(channels: usize, plane: usize, g: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0f64; channels];
    for (i, plane) in g.chunks_exact(plane.max(1)).enumerate() {
        sums[i % channels] += plane.iter().map(|&it| f64::from(it)).sum::<f64>();
    }
    sums.into_iter().map(|it| it as f32).collect()
}
