//! Whole networks: speed of an estimate, and MACs against measured totals.

use sartor_chip::find;
use sartor_cost::{Options, Precision, estimate};
use sartor_ir::{Binary, Conv, Graph, Op, Spatial, Tensor, Unary, ValueId};

use crate::graphs::image;

/// A CIFAR residual network of `6 n + 2` layers with projections by 1×1 convolutions.
fn resnet(n: usize) -> Graph {
    resnet_of(n, [16, 32, 64])
}

/// The same with other widths of its stages.
pub(crate) fn resnet_of(n: usize, widths: [usize; 3]) -> Graph {
    let mut graph = Graph::new("resnet");
    let x = image(&mut graph, 3, 32);
    let mut x = layer(&mut graph, x, [widths[0], 3, 3], 1, "stem");
    x = relu(&mut graph, x, "stem.relu");
    let mut width = widths[0];
    for (stage, &wide) in widths.iter().enumerate() {
        for block in 0..n {
            let name = format!("s{stage}b{block}");
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = layer(&mut graph, x, [wide, width, 3], stride, &format!("{name}.a"));
            let y = relu(&mut graph, y, &format!("{name}.a.relu"));
            let y = layer(&mut graph, y, [wide, wide, 3], 1, &format!("{name}.b"));
            if stride == 2 {
                x = layer(&mut graph, x, [wide, width, 1], 2, &format!("{name}.p"));
            }
            let sum = graph.add_node(&name, Op::Binary(Binary::Add), &[y, x], &[&name]).unwrap()[0];
            x = relu(&mut graph, sum, &format!("{name}.relu"));
            width = wide;
        }
    }
    graph.set_outputs(vec![x]);
    graph
}

fn layer(
    graph: &mut Graph,
    x: ValueId,
    [filters, channels, kernel]: [usize; 3],
    stride: usize,
    name: &str,
) -> ValueId {
    let values = vec![0.5; filters * channels * kernel * kernel];
    let w = Tensor::from_f32(&[filters, channels, kernel, kernel], &values);
    let w = graph.add_constant(&format!("{name}.w"), w).unwrap();
    let spatial =
        Spatial { strides: vec![stride; 2], pads: vec![kernel / 2; 4], ..Spatial::default() };
    graph.add_node(name, Op::Conv(Conv { spatial, group: 1 }), &[x, w], &[name]).unwrap()[0]
}

fn relu(graph: &mut Graph, x: ValueId, name: &str) -> ValueId {
    graph.add_node(name, Op::Unary(Unary::Relu), &[x], &[name]).unwrap()[0]
}

#[test]
fn macs_of_resnet_20_and_56() {
    let chip = find("arm-ethos-u55-128").unwrap();
    for (n, macs) in [
        // The stem, 18 convolutions of 2.36 M (the two that halve the sides: 1.18 M), two projections of 0.13 M.
        (3, 442_368 + 16 * 2_359_296 + 2 * 1_179_648 + 2 * 131_072),
        (9, 442_368 + 52 * 2_359_296 + 2 * 1_179_648 + 2 * 131_072),
    ] {
        let found =
            estimate(&resnet(n), &chip, &Options { batch: 1, precision: Precision::AsIs }).unwrap();
        assert_eq!(found.macs.0, macs);
        // The widest moment: both operands of an addition and its sum, 3 · 16 · 32 · 32 int8 values.
        assert_eq!(found.peak_memory.0, 3 * 16_384);
        assert!(found.activations.fits && found.weights.fits);
    }
}

#[test]
fn a_batch_multiplies_the_macs() {
    let chip = find("nvidia-a100").unwrap();
    let macs = |batch| {
        estimate(&resnet(3), &chip, &Options { batch, precision: Precision::AsIs }).unwrap().macs.0
    };
    assert_eq!(macs(64), 64 * macs(1));
}
