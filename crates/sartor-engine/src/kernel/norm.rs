//! Softmax, and normalization by layer.

use rayon::prelude::*;
use sartor_ir::{Named, normalize_axis};

use super::{Kernel, Prepared, Site, of_first};
use crate::reference::{layer_norm::Centre, layout::View, norm, standard::Standard};

/// Elements that make a task worth its while.
const TASK: usize = 4096;

#[derive(Debug)]
struct SoftmaxKernel {
    extent: usize,
    inner: usize,
    logarithm: bool,
}

pub(super) fn prepare_softmax(axis: i64, logarithm: bool, site: &Site<'_>) -> Option<Prepared> {
    let x = site.shape_of(0)?;
    let axis = normalize_axis(axis, x.len()).ok()?;
    of_first(SoftmaxKernel { extent: x[axis], inner: x[axis + 1..].iter().product(), logarithm })
}

impl Kernel for SoftmaxKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let slab = self.extent * self.inner;
        if slab == 0 {
            return;
        }
        let chunk = slab * TASK.div_ceil(slab);
        y.par_chunks_mut(chunk)
            .zip(inputs[0].par_chunks(chunk))
            .for_each(|(y, x)| norm::softmax(x, self.extent, self.inner, self.logarithm, y));
    }
}

/// `LayerNormalization` or `RMSNormalization`.
#[derive(Debug)]
struct LayerNormKernel {
    run: usize,
    centre: Centre,
    epsilon: f64,
    /// Whether a shift follows the scale among the inputs.
    shifts: bool,
}

pub(super) fn prepare_layer_norm(op: &Named, site: &Site<'_>) -> Option<Prepared> {
    // The other outputs are the statistics.
    let normalizes = matches!(op.name.as_str(), "LayerNormalization" | "RMSNormalization");
    if !normalizes || site.output != 0 {
        return None;
    }
    let x = site.shape_of(0)?;
    let Standard { run, centre, epsilon, .. } = Standard::of(op, x).ok()?;
    let axis = normalize_axis(op.int("axis", -1).ok()?, x.len()).ok()?;
    // Scale and shift must lie as a run does.
    let fits = |i: usize| {
        let view = View::expand(site.shape_of(i)?, &x[axis..])?;
        (view.is_identity(run) && run > 0).then_some(i)
    };
    let shifts = !site.absent(2);
    let mut inputs = vec![0, fits(1)?];
    if shifts {
        inputs.push(fits(2)?);
    }
    let kernel = LayerNormKernel { run, centre, epsilon, shifts };
    Some(Prepared { kernel: Box::new(kernel), inputs })
}

impl Kernel for LayerNormKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let (scale, shift) = (inputs[1], inputs.get(2).filter(|_| self.shifts));
        let chunk = self.run * TASK.div_ceil(self.run);
        y.par_chunks_mut(chunk).zip(inputs[0].par_chunks(chunk)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(self.run).zip(x.chunks_exact(self.run)) {
                let (mean, root) = self.moments(x);
                let scaled = x.iter().zip(scale);
                let one = |x: f32| ((f64::from(x) - mean) * root) as f32;
                y.iter_mut().zip(scaled).for_each(|(y, (&x, s))| *y = one(x) * s);
                if let Some(shift) = shift {
                    y.iter_mut().zip(*shift).for_each(|(y, s)| *y += s);
                }
            }
        });
    }
}

impl LayerNormKernel {
    /// What is subtracted from a run, and the factor that follows, by sums in 64 bits.
    fn moments(&self, x: &[f32]) -> (f64, f64) {
        let count = x.len() as f64;
        let mean = match self.centre {
            Centre::Mean => sum(x, |it| it) / count,
            Centre::Zero => 0.0,
        };
        let variance = sum(x, |it| (it - mean) * (it - mean)) / count;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }
}

/// The sum of a function of each element, in lanes that the compiler makes vectors of.
fn sum(x: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &it)| *lane += of(it.into()));
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&it| of(it.into())).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use sartor_ir::{Attr, Attrs, DType, Graph, Op, TensorType};

    use super::*;
    use crate::{Array, Options, Program, run_reference};

    #[test]
    fn layers_are_their_definition() {
        let wave = |shape: &[usize], by: f32| {
            let count: usize = shape.iter().product();
            Array::f32(shape, (0..count).map(|i| (i as f32 * by).sin() * 3.0 + 1.0).collect())
        };
        let forms: [(&str, i64, &[&[usize]]); 5] = [
            ("LayerNormalization", -1, &[&[3, 5, 17], &[17], &[17]]),
            ("LayerNormalization", 1, &[&[70, 5, 17], &[5, 17]]),
            ("LayerNormalization", 1, &[&[2, 5, 17], &[5, 1], &[17]]),
            ("RMSNormalization", -1, &[&[2, 3, 130], &[130]]),
            ("RMSNormalization", 0, &[&[5], &[5]]),
        ];
        for (name, axis, shapes) in forms {
            let mut graph = Graph::new("layer");
            let attributes = Attrs::new().with("axis", Attr::Int(axis));
            let op = Named { domain: String::new(), name: name.into(), version: 23, attributes };
            let inputs: Vec<Array> = shapes.iter().map(|it| wave(it, 0.7)).collect();
            let ids: Vec<_> = shapes
                .iter()
                .enumerate()
                .map(|(i, it)| {
                    let ty = TensorType::fixed(DType::F32, it);
                    graph.add_input(&format!("x{i}"), ty).unwrap()
                })
                .collect();
            let y = graph.add_node("", Op::Named(op), &ids, &["y"]).unwrap();
            graph.set_outputs(y);
            let shapes: Vec<_> = shapes.iter().map(|it| it.to_vec()).collect();
            let program = Program::prepare(&graph, &shapes, &Options::default()).unwrap();
            let (found, expected) =
                (program.run(&inputs).unwrap(), run_reference(&graph, &inputs).unwrap());
            let pairs = found[0].to_f32().into_iter().zip(expected[0].to_f32());
            assert_eq!(found[0].shape, expected[0].shape);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= 1e-5), "{name} {shapes:?}");
        }
    }
}
