//! The micro-networks on which a machine is measured: generated, the same for every machine, and none of them anybody's network.

use std::collections::BTreeMap;

use sartor_ir::{Attr, DType, Graph, Tensor};

use super::net::Net;

/// One micro-network.
pub(super) struct Micro {
    /// Its name, unlike all others.
    pub(super) name: String,
    /// What it is there to measure.
    pub(super) family: &'static str,
    /// Whether its products are quantized.
    pub(super) integer: bool,
    /// Whether it is only predicted.
    pub(super) held_out: bool,
    /// The network.
    pub(super) graph: Graph,
}

/// Of networks that differ in size alone, one of so many is only predicted.
const ONE_OF: usize = 5;

/// All micro-networks, in a fixed order.
pub(super) fn networks() -> Vec<Micro> {
    let mut all = Vec::new();
    // By what a network measures: how many there are so far.
    let mut counts = BTreeMap::<String, usize>::new();
    for integer in [false, true] {
        let mut add =
            |family: &'static str, name: String, build: &dyn Fn(&mut Net), shape: &[usize]| {
                let mut net = Net::new(shape, integer);
                build(&mut net);
                let kind = if integer { "int8" } else { "f32" };
                let held_out = if let Some((op, size)) = name.rsplit_once('-') {
                    // Of every second operator the size between the others.
                    let kinds = counts.len();
                    let first = counts.entry(format!("{family}-{op}")).or_insert(kinds);
                    size == "1" && first.is_multiple_of(2)
                } else {
                    let count = counts.entry(format!("{family} {kind}")).or_insert(0);
                    *count += 1;
                    count.is_multiple_of(ONE_OF)
                };
                let name = format!("{family}-{name}-{kind}");
                all.push(Micro { name, family, integer, held_out, graph: net.finish() });
            };
        convolutions(&mut add);
        separable(&mut add);
        other_convolutions(&mut add);
        matrices(&mut add);
        joints(&mut add);
        if !integer {
            unary(&mut add);
            binary(&mut add);
            reductions(&mut add);
            moves(&mut add);
            recurrent(&mut add);
        }
    }
    all
}

/// Takes a family, a name, what builds the network and the shape of its input.
type Add<'a> = dyn FnMut(&'static str, String, &dyn Fn(&mut Net), &[usize]) + 'a;

/// 3 × 3 convolutions, plain and in residual blocks, and what images begin with.
fn convolutions(add: &mut Add<'_>) {
    const SIZES: [(usize, usize); 17] = [
        (8, 32),
        (16, 16),
        (16, 32),
        (24, 24),
        (32, 8),
        (32, 16),
        (32, 32),
        (40, 20),
        (48, 12),
        (64, 4),
        (64, 8),
        (64, 16),
        (96, 10),
        (128, 4),
        (128, 8),
        (256, 4),
        (256, 7),
    ];
    for (i, (c, h)) in SIZES.into_iter().enumerate() {
        let layers = 1 + i % 3;
        let build = |net: &mut Net| {
            net.conv_relu(c, 1, 1, 1);
            (0..layers).for_each(|_| net.conv_relu(c, 3, 1, 1));
            net.classify();
        };
        add("conv3x3", format!("{c}x{h}x{layers}"), &build, &[1, 3, h, h]);
    }
    for (c, h) in [(16, 32), (32, 16), (64, 8), (24, 20), (64, 28)] {
        let build = |net: &mut Net| {
            net.conv_relu(c, 3, 1, 1);
            for _ in 0..2 {
                let shortcut = net.head();
                net.conv_relu(c, 3, 1, 1);
                net.conv(c, 3, 1, 1);
                net.settle();
                net.op("Add", &[], &[shortcut]);
                net.relu();
            }
            net.classify();
        };
        add("residual", format!("{c}x{h}"), &build, &[1, 3, h, h]);
    }
    for (c, h) in [(8, 32), (16, 32), (32, 16), (64, 16), (24, 48)] {
        let build = |net: &mut Net| {
            net.conv_relu(c, 3, 1, 1);
            net.conv_relu(2 * c, 3, 2, 1);
            net.conv_relu(2 * c, 3, 1, 1);
            net.conv_relu(4 * c, 3, 2, 1);
            net.classify();
        };
        add("strided", format!("{c}x{h}"), &build, &[1, 3, h, h]);
    }
    for (c, o, h, k, s) in [
        (3, 16, 32, 3, 1),
        (3, 32, 64, 3, 2),
        (1, 16, 40, 3, 1),
        (3, 64, 56, 7, 2),
        (1, 32, 49, 5, 2),
        (3, 8, 96, 3, 2),
    ] {
        let build = |net: &mut Net| {
            net.conv_relu(o, k, s, 1);
            net.classify();
        };
        add("first", format!("{c}x{o}x{h}x{k}x{s}"), &build, &[1, c, h, h]);
    }
}

/// Convolutions of one tap, and depthwise ones alone and between them.
fn separable(add: &mut Add<'_>) {
    for (c, o, h) in [
        (16, 96, 16),
        (24, 144, 14),
        (32, 64, 24),
        (64, 64, 6),
        (64, 128, 12),
        (128, 256, 3),
        (96, 24, 20),
        (128, 128, 8),
        (256, 256, 4),
        (32, 192, 10),
        (320, 64, 7),
        (8, 16, 40),
    ] {
        let build = |net: &mut Net| {
            net.conv_relu(c, 1, 1, 1);
            net.conv_relu(o, 1, 1, 1);
            net.conv_relu(c, 1, 1, 1);
            net.conv_relu(o, 1, 1, 1);
            net.classify();
        };
        add("pointwise", format!("{c}x{o}x{h}"), &build, &[1, 3, h, h]);
    }
    for (c, h) in
        [(8, 48), (16, 24), (32, 12), (64, 25), (64, 6), (128, 6), (256, 3), (96, 16), (48, 40)]
    {
        let build = |net: &mut Net| {
            net.conv_relu(c, 3, 1, 1);
            net.conv_relu(c, 3, 1, c);
            net.conv_relu(2 * c, 1, 1, 1);
            net.conv_relu(2 * c, 3, 2, 2 * c);
            net.conv_relu(2 * c, 1, 1, 1);
            net.classify();
        };
        add("separable", format!("{c}x{h}"), &build, &[1, 3, h, h]);
    }
    for (c, h, k) in [(32, 32, 3), (64, 16, 5), (128, 10, 3), (16, 64, 3), (96, 20, 7)] {
        let build = |net: &mut Net| {
            net.conv_relu(c, 1, 1, 1);
            (0..3).for_each(|_| net.conv_relu(c, k, 1, c));
            net.classify();
        };
        add("depthwise", format!("{c}x{h}x{k}"), &build, &[1, 3, h, h]);
    }
}

/// Other kernels, one spatial axis, groups.
fn other_convolutions(add: &mut Add<'_>) {
    for (c, h, k) in [(16, 24, 5), (32, 12, 7), (32, 14, 5), (64, 10, 5)] {
        let build = |net: &mut Net| {
            net.conv_relu(c, 1, 1, 1);
            (0..2).for_each(|_| net.conv_relu(c, k, 1, 1));
            net.classify();
        };
        add("kernel", format!("{c}x{h}x{k}"), &build, &[1, 3, h, h]);
    }
    for (c, o, h, k) in
        [(40, 64, 100, 5), (64, 64, 30, 3), (128, 256, 64, 5), (256, 256, 128, 3), (32, 64, 400, 9)]
    {
        let build = |net: &mut Net| {
            (0..2).for_each(|_| net.conv_relu(o, k, 1, 1));
            net.classify();
        };
        add("line", format!("{c}x{o}x{h}x{k}"), &build, &[1, c, h]);
    }
    for (c, h, group) in
        [(32, 16, 4), (64, 10, 8), (128, 14, 4), (16, 32, 2), (64, 20, 4), (256, 7, 2)]
    {
        let build = |net: &mut Net| {
            net.conv_relu(c, 1, 1, 1);
            (0..2).for_each(|_| net.conv_relu(c, 3, 1, group));
            net.classify();
        };
        add("grouped", format!("{c}x{h}x{group}"), &build, &[1, 3, h, h]);
    }
}

/// Operators between convolutions that quantized networks keep in integers.
fn joints(add: &mut Add<'_>) {
    let pool = |kernel: i64, stride: i64| {
        let list = |it: i64, n: usize| Attr::Ints(vec![it; n]);
        [
            ("kernel_shape", list(kernel, 2)),
            ("strides", list(stride, 2)),
            ("pads", list(kernel / 3, 4)),
        ]
    };
    for (c, h) in [(16, 32), (32, 16), (64, 28), (24, 48)] {
        let pools = |net: &mut Net| {
            for (name, kernel, stride) in
                [("MaxPool", 3, 1), ("AveragePool", 2, 2), ("MaxPool", 2, 2)]
            {
                net.conv_relu(c, 1, 1, 1);
                net.op(name, &pool(kernel, stride), &[]);
                net.keep();
            }
            net.conv_relu(c, 1, 1, 1);
            net.classify();
        };
        add("joint", format!("pools {c}x{h}"), &pools, &[1, 3, h, h]);
        let branches = |net: &mut Net| {
            net.conv_relu(c, 1, 1, 1);
            let first = net.head();
            net.conv_relu(c, 1, 1, 1);
            let second = net.head();
            net.go(first);
            net.op("Concat", &[("axis", Attr::Int(1))], &[second]);
            net.shape[1] = 2 * c;
            net.keep();
            net.conv_relu(c, 1, 1, 1);
            net.op("Transpose", &[("perm", Attr::Ints(vec![0, 1, 3, 2]))], &[]);
            net.keep();
            net.conv_relu(c, 1, 1, 1);
            net.classify();
        };
        add("joint", format!("branches {c}x{h}"), &branches, &[1, 3, h, h]);
        let shortcut = |net: &mut Net| {
            net.conv_relu(c, 1, 1, 1);
            let [start, end, axes, step] =
                [[0, 0], [h as i64, h as i64], [2, 3], [2, 2]].map(|it| net.integers(&it));
            net.op("Slice", &[], &[start, end, axes, step]);
            net.keep();
            let pads = net.integers(&[0, c as i64 / 2, 0, 0, 0, c as i64 / 2, 0, 0]);
            net.op("Pad", &[], &[pads]);
            net.shape = vec![1, 2 * c, h / 2, h / 2];
            net.keep();
            net.conv_relu(c, 1, 1, 1);
            net.classify();
        };
        add("joint", format!("shortcut {c}x{h}"), &shortcut, &[1, 3, h, h]);
    }
}

/// Products of matrices: with weights from one row on, and of two activations.
fn matrices(add: &mut Add<'_>) {
    const SIZES: [(usize, usize, usize); 13] = [
        (1, 64, 64),
        (1, 128, 128),
        (1, 640, 128),
        (1, 256, 256),
        (1, 512, 512),
        (1, 1024, 256),
        (1, 1024, 1024),
        (1, 4096, 1024),
        (4, 128, 128),
        (16, 256, 256),
        (64, 64, 128),
        (100, 192, 192),
        (128, 256, 256),
    ];
    for (m, k, n) in SIZES {
        let build = |net: &mut Net| {
            for outputs in [n, k, n] {
                net.gemm(outputs);
                net.relu();
            }
        };
        add("gemm", format!("{m}x{k}x{n}"), &build, &[m, k]);
    }
    for (m, k, n) in [(49, 64, 256), (100, 192, 64), (1, 128, 256), (64, 128, 128), (1024, 64, 128)]
    {
        let build = |net: &mut Net| [n, k, n].into_iter().for_each(|outputs| net.matmul(outputs));
        add("matmul", format!("{m}x{k}x{n}"), &build, &[1, m, k]);
    }
    for (heads, m, d) in [(3, 99, 64), (1, 50, 64), (4, 32, 32), (8, 16, 16), (1, 160, 32)] {
        let build = |net: &mut Net| {
            let rows = net.head();
            net.op("Transpose", &[("perm", Attr::Ints(vec![0, 2, 1]))], &[]);
            let columns = net.keep();
            net.go(rows);
            net.op("MatMul", &[], &[columns]);
            net.op("Softmax", &[("axis", Attr::Int(-1))], &[]);
            net.settle();
            net.op("MatMul", &[], &[rows]);
        };
        add("attention", format!("{heads}x{m}x{d}"), &build, &[heads, m, d]);
    }
}

/// Shapes of elementwise work: in the nearest cache, beyond it, far beyond.
const IMAGES: [[usize; 4]; 3] = [[1, 16, 16, 16], [1, 64, 24, 24], [1, 64, 56, 56]];

/// Operators of one input.
fn unary(add: &mut Add<'_>) {
    const PLAIN: [&str; 14] = [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Exp",
        "Neg",
        "Abs",
        "Erf",
        "LeakyRelu",
        "HardSigmoid",
        "HardSwish",
        "Softplus",
        "Elu",
        "Floor",
        "Sin",
    ];
    for (i, shape) in IMAGES.into_iter().enumerate() {
        for name in PLAIN {
            add(
                "elementwise",
                format!("{name}-{i}"),
                &|net| {
                    (0..3).for_each(|_| {
                        net.op(name, &[], &[]);
                    });
                },
                &shape,
            );
        }
        // Of numbers above zero.
        for name in ["Log", "Sqrt", "Reciprocal"] {
            let build = |net: &mut Net| {
                for _ in 0..2 {
                    net.op("Abs", &[], &[]);
                    net.op(name, &[], &[]);
                }
            };
            add("elementwise", format!("{name}-{i}"), &build, &shape);
        }
        let clip = |net: &mut Net| {
            let [low, high] = [-0.5, 0.5].map(|it| net.constant(Tensor::from_f32(&[], &[it])));
            net.op("Neg", &[], &[]);
            (0..2).for_each(|_| {
                net.op("Clip", &[], &[low, high]);
            });
        };
        add("elementwise", format!("Clip-{i}"), &clip, &shape);
        let cast = |net: &mut Net| {
            for to in [DType::I32, DType::F32, DType::I32, DType::F32] {
                net.op("Cast", &[("to", Attr::Str(to.name().to_owned()))], &[]);
            }
        };
        add("elementwise", format!("Cast-{i}"), &cast, &shape);
        let norm = |net: &mut Net| {
            for _ in 0..2 {
                net.op("Sigmoid", &[], &[]);
                let [scale, bias, mean] = [0; 3].map(|_| net.floats(&[shape[1]]));
                let variance = net.constant(Tensor::from_f32(&[shape[1]], &vec![1.0; shape[1]]));
                net.op("BatchNormalization", &[], &[scale, bias, mean, variance]);
            }
        };
        add("elementwise", format!("BatchNormalization-{i}"), &norm, &shape);
    }
}

/// Operators of two inputs: of like shape, with a number for each channel or for each column, with one number.
fn binary(add: &mut Add<'_>) {
    for (i, shape) in IMAGES.into_iter().enumerate() {
        for name in ["Add", "Sub", "Mul", "Div", "Max", "Min"] {
            let build = |net: &mut Net| {
                let first = net.head();
                let channels = net.floats(&[shape[1], 1, 1]);
                let columns = net.floats(&[shape[3]]);
                let one = net.floats(&[]);
                for other in [channels, first, columns, one, first] {
                    net.op(name, &[], &[other]);
                }
            };
            add("elementwise", format!("{name}-{i}"), &build, &shape);
        }
        let power = |net: &mut Net| {
            for exponent in [2.0, 3.0, 2.0] {
                let exponent = net.constant(Tensor::from_f32(&[], &[exponent]));
                net.op("Pow", &[], &[exponent]);
            }
        };
        add("elementwise", format!("Pow-{i}"), &power, &shape);
        for name in ["Equal", "Greater", "Less"] {
            let build = |net: &mut Net| {
                let first = net.head();
                let zero = net.constant(Tensor::from_f32(&[], &[0.0]));
                net.op(name, &[], &[zero]);
                let which = net.head();
                net.go(which);
                net.op("Where", &[], &[first, zero]);
            };
            add("elementwise", format!("{name}-{i}"), &build, &shape);
        }
    }
}

/// Operators that read more than they write, and those that normalize.
fn reductions(add: &mut Add<'_>) {
    for (i, shape) in IMAGES.into_iter().enumerate() {
        for name in ["ReduceMean", "ReduceSum", "ReduceMax"] {
            for (which, axes) in [("rows", vec![3]), ("channels", vec![1])] {
                let build = |net: &mut Net| {
                    let first = net.head();
                    let axes = net.integers(&axes);
                    net.op(name, &[("keepdims", Attr::Int(1))], &[axes]);
                    let mean = net.head();
                    net.go(first);
                    net.op("Sub", &[], &[mean]);
                };
                add("reduction", format!("{name}-{which}-{i}"), &build, &shape);
            }
        }
        for name in ["GlobalAveragePool", "GlobalMaxPool"] {
            let build = |net: &mut Net| {
                net.op("Neg", &[], &[]);
                net.op(name, &[], &[]);
            };
            add("reduction", format!("{name}-{i}"), &build, &shape);
        }
        for name in ["Softmax", "LogSoftmax"] {
            add(
                "reduction",
                format!("{name}-{i}"),
                &|net| {
                    net.op(name, &[("axis", Attr::Int(-1))], &[]);
                },
                &shape,
            );
        }
        let norm = |net: &mut Net| {
            for _ in 0..2 {
                let [scale, bias] = [0; 2].map(|_| net.floats(&[shape[3]]));
                net.op("LayerNormalization", &[("axis", Attr::Int(-1))], &[scale, bias]);
            }
        };
        add("reduction", format!("LayerNormalization-{i}"), &norm, &shape);
        for (name, kernel, stride) in
            [("MaxPool", 3, 1), ("MaxPool", 2, 2), ("AveragePool", 2, 2), ("AveragePool", 3, 1)]
        {
            let list = |it: i64, n: usize| Attr::Ints(vec![it; n]);
            let attributes = [
                ("kernel_shape", list(kernel, 2)),
                ("strides", list(stride, 2)),
                ("pads", list(kernel / 3, 4)),
            ];
            add(
                "pool",
                format!("{name}-{kernel}-{i}"),
                &|net| {
                    (0..2).for_each(|_| {
                        net.op(name, &attributes, &[]);
                    });
                },
                &shape,
            );
        }
    }
}

/// Operators that move numbers, and those that only give them another shape.
fn moves(add: &mut Add<'_>) {
    for (i, shape) in IMAGES.into_iter().enumerate() {
        let [_, c, h, w] = shape.map(|it| it as i64);
        for perm in [vec![0, 2, 3, 1], vec![0, 1, 3, 2]] {
            let name = format!("Transpose-{}-{i}", perm[1]);
            add(
                "move",
                name,
                &|net| {
                    (0..2).for_each(|_| {
                        net.op("Transpose", &[("perm", Attr::Ints(perm.clone()))], &[]);
                    });
                },
                &shape,
            );
        }
        let join = |net: &mut Net| {
            let first = net.head();
            let second = net.op("Neg", &[], &[]);
            net.go(first);
            net.op("Concat", &[("axis", Attr::Int(1))], &[second]);
        };
        add("move", format!("Concat-{i}"), &join, &shape);
        for (which, axis, end, step) in
            [("half", 1, c / 2, 1), ("rows", 2, h / 2, 1), ("every", 3, w, 2)]
        {
            let build = |net: &mut Net| {
                net.op("Neg", &[], &[]);
                let [start, end, axis, step] = [0, end, axis, step].map(|it| net.integers(&[it]));
                net.op("Slice", &[], &[start, end, axis, step]);
            };
            add("move", format!("Slice-{which}-{i}"), &build, &shape);
        }
        let split = |net: &mut Net| {
            let sizes = net.integers(&[c / 2, c / 2]);
            let halves = net.outputs("Split", &[("axis", Attr::Int(1))], &[net.head(), sizes], 2);
            net.go(halves[0]);
            net.op("Add", &[], &[halves[1]]);
        };
        add("move", format!("Split-{i}"), &split, &shape);
        for (which, pads) in
            [("border", [0, 0, 1, 1, 0, 0, 1, 1]), ("channels", [0, 4, 0, 0, 0, 4, 0, 0])]
        {
            let build = |net: &mut Net| {
                net.op("Neg", &[], &[]);
                let pads = net.integers(&pads);
                net.op("Pad", &[], &[pads]);
            };
            add("move", format!("Pad-{which}-{i}"), &build, &shape);
        }
        let gather = |net: &mut Net| {
            net.op("Neg", &[], &[]);
            let rows: Vec<i64> = (0..c).map(|it| it * 7 % c).collect();
            let rows = net.integers(&rows);
            net.op("Gather", &[("axis", Attr::Int(1))], &[rows]);
        };
        add("move", format!("Gather-{i}"), &gather, &shape);
        let expand = |net: &mut Net| {
            let target = net.integers(&[c, c, h, w]);
            net.op("Expand", &[], &[target]);
        };
        add("move", format!("Expand-{i}"), &expand, &[1, 1, shape[2], shape[3]]);
        let views = |net: &mut Net| {
            let [flat, back] = [vec![1, -1], vec![1, c, h, w]].map(|it| net.integers(&it));
            let axis = net.integers(&[0]);
            for _ in 0..3 {
                net.op("Neg", &[], &[]);
                net.op("Reshape", &[], &[flat]);
                net.op("Unsqueeze", &[], &[axis]);
                net.op("Squeeze", &[], &[axis]);
                net.op("Reshape", &[], &[back]);
            }
            net.op("Neg", &[], &[]);
        };
        add("move", format!("Reshape-{i}"), &views, &shape);
    }
}

/// Recurrent layers over short and longer sequences.
fn recurrent(add: &mut Add<'_>) {
    for (name, gates) in [("LSTM", 4), ("GRU", 3)] {
        for (hidden, inputs, steps) in
            [(32, 32, 8), (64, 40, 16), (128, 128, 1), (128, 257, 4), (256, 128, 12), (64, 64, 48)]
        {
            let build = |net: &mut Net| {
                let w = net.floats(&[1, gates * hidden, inputs]);
                let r = net.floats(&[1, gates * hidden, hidden]);
                let b = net.floats(&[1, 2 * gates * hidden]);
                net.op(name, &[("hidden_size", Attr::Int(hidden as i64))], &[w, r, b]);
                let axis = net.integers(&[1]);
                net.op("Squeeze", &[], &[axis]);
            };
            add(
                "recurrent",
                format!("{name}-{hidden}x{inputs}x{steps}"),
                &build,
                &[steps, 1, inputs],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_network_runs_and_can_be_written() {
        let all = networks();
        let names: BTreeSet<_> = all.iter().map(|it| &it.name).collect();
        assert_eq!(names.len(), all.len(), "names differ");
        for it in &all {
            let graph = sartor_compress::simplify(&it.graph).expect("a sound network");
            assert!(crate::evaluate::check_runs(&graph).is_ok(), "{}", it.name);
            sartor_onnx::export(
                &it.graph,
                &sartor_onnx::Envelope::default(),
                &sartor_onnx::ExportOptions::default(),
            )
            .unwrap_or_else(|error| panic!("{}: {error}", it.name));
        }
    }
}
