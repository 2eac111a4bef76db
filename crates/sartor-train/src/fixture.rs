//! A small network and small data for the tests of this crate.

use sartor_data::{Augmentation, DataError};
use sartor_engine::Array;
use sartor_ir::{
    BatchNormalization, Binary, Conv, DType, Dim, Flatten, Gemm, GlobalPool, Graph, Op, Spatial,
    Tensor, TensorType, Unary,
};

use crate::{Batch, Samples};

/// A sine that no weight repeats.
fn wave(shape: &[usize], phase: f32) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| 0.4 * (1.7 * i as f32 + phase).sin()).collect();
    Tensor::from_f32(shape, &values)
}

/// `[N, 1, 6, 6]` to 3 scores: convolution with bias, normalization, an offset by position, rectifier, pooling, two
/// layers.
pub(crate) fn network() -> Graph {
    let mut graph = Graph::new("small");
    let known = |it: usize| Dim::Known(it);
    let ty = TensorType::new(DType::F32, vec![Dim::symbol("N"), known(1), known(6), known(6)]);
    let x = graph.add_input("x", ty).unwrap();
    let constant = |graph: &mut Graph, name: &str, shape: &[usize]| {
        graph.add_constant(name, wave(shape, name.len() as f32)).unwrap()
    };
    let (w, b) = (constant(&mut graph, "w", &[8, 1, 3, 3]), constant(&mut graph, "b", &[8]));
    let scale = graph.add_constant("scale", Tensor::from_f32(&[8], &[1.0; 8])).unwrap();
    let shift = constant(&mut graph, "shift", &[8]);
    let mean = constant(&mut graph, "mean", &[8]);
    let variance = graph.add_constant("variance", Tensor::from_f32(&[8], &[0.5; 8])).unwrap();
    let offset = constant(&mut graph, "offset", &[1, 1, 6, 6]);
    let (v, c) = (constant(&mut graph, "v", &[8, 64]), constant(&mut graph, "c", &[64]));
    let u = constant(&mut graph, "u", &[3, 64]);
    let spatial = Spatial { pads: vec![1; 4], ..Spatial::default() };
    let gemm = |trans_b| Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b });
    let mut add = |op: Op, inputs: &[_], output: &str| {
        graph.add_node(output, op, inputs, &[output]).unwrap()[0]
    };
    let a = add(Op::Conv(Conv { spatial, group: 1 }), &[x, w, b], "a");
    let norm = BatchNormalization { epsilon: 1e-5, momentum: 0.9 };
    let a = add(Op::BatchNormalization(norm), &[a, scale, shift, mean, variance], "n");
    let a = add(Op::Binary(Binary::Add), &[a, offset], "p");
    let a = add(Op::Unary(Unary::Relu), &[a], "r");
    let a = add(Op::GlobalPool(GlobalPool::Average), &[a], "g");
    let a = add(Op::Flatten(Flatten { axis: 1 }), &[a], "f");
    let a = add(gemm(false), &[a, v, c], "h");
    let a = add(Op::Unary(Unary::Relu), &[a], "i");
    let y = add(gemm(true), &[a, u], "y");
    graph.set_outputs(vec![y]);
    graph
}

/// Stripes: class 0 lies, class 1 stands, class 2 is a check; the phase varies.
pub(crate) struct Stripes(pub(crate) usize);

impl Samples for Stripes {
    fn len(&self) -> usize {
        self.0
    }

    fn read(&self, indices: &[usize], _: Option<&Augmentation>) -> Result<Batch, DataError> {
        let pixel = |index: usize, at: usize| {
            let (y, x) = (at / 6 + index / 3 % 2, at % 6 + index / 6 % 2);
            let bright = [y % 2, x % 2, (x + y) % 2][index % 3] as f32;
            bright - 0.5 + 0.05 * ((index * 31 + at * 17) % 13) as f32
        };
        let values = indices.iter().flat_map(|&i| (0..36).map(move |at| pixel(i, at))).collect();
        let inputs = vec![Array::f32(&[indices.len(), 1, 6, 6], values)];
        let labels = Some(indices.iter().map(|it| it % 3).collect());
        Ok(Batch { inputs, labels, targets: None })
    }
}
