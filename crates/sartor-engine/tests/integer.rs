//! Integer kernels between quantizers against what the graph describes: each byte is the nearest to the real value, as
//! far as floats can tell.

use sartor_engine::{Arithmetic, Array, Options, Program, run_reference};
use sartor_ir::{
    Binary, Concat, Conv, DType, Flatten, Gemm, GlobalPool, Graph, Named, Op, Pad, PadMode, Pool,
    PoolKind, QuantizeLinear, Reduce, ReduceKind, Spatial, Tensor, TensorType, Transpose, Unary,
    ValueId, infer, verify,
};

/// Numbers in -1..1 from a linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// A grid of eight bits.
#[derive(Clone, Copy)]
struct Grid {
    dtype: DType,
    scale: f32,
    zero: i64,
}

const UNSIGNED: Grid = Grid { dtype: DType::U8, scale: 0.0173, zero: 117 };
const SIGNED: Grid = Grid { dtype: DType::I8, scale: 0.0151, zero: -9 };
const RESULT: Grid = Grid { dtype: DType::U8, scale: 0.0291, zero: 101 };

struct Builder {
    graph: Graph,
    numbers: Numbers,
    made: usize,
}

impl Builder {
    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_fresh_constant("c", tensor)
    }

    fn floats(&mut self, shape: &[usize], factor: f32) -> ValueId {
        let values: Vec<f32> =
            self.numbers.floats(shape.iter().product()).iter().map(|it| it * factor).collect();
        self.constant(Tensor::from_f32(shape, &values))
    }

    fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.made += 1;
        let name = format!("v{}", self.made);
        let made =
            self.graph.add_node(&format!("n{}", self.made), op, inputs, &[&name]).unwrap()[0];
        infer(&mut self.graph).unwrap();
        made
    }

    /// To a grid and back.
    fn rounded(&mut self, x: ValueId, grid: Grid) -> ValueId {
        let scale = self.constant(Tensor::from_f32(&[], &[grid.scale]));
        let zero = Tensor::from_integers(grid.dtype, &[], &[grid.zero]).unwrap();
        let zero = self.constant(zero);
        let it = QuantizeLinear::along(1);
        let q = self.node(Op::QuantizeLinear(it.clone()), &[x, scale, zero]);
        self.node(Op::DequantizeLinear(it), &[q, scale, zero])
    }

    /// Weights of 8 bits with a scale for each index of `axis`.
    fn weights(&mut self, shape: &[usize], axis: usize) -> ValueId {
        let count = shape.iter().product();
        let numbers: Vec<i64> =
            self.numbers.floats(count).iter().map(|it| (it * 127.0) as i64).collect();
        let q = self.constant(Tensor::from_integers(DType::I8, shape, &numbers).unwrap());
        let scales: Vec<f32> =
            self.numbers.floats(shape[axis]).iter().map(|it| 0.002 + it * 0.001).collect();
        let scale = self.constant(Tensor::from_f32(&[shape[axis]], &scales));
        self.node(Op::DequantizeLinear(QuantizeLinear::along(axis as i64)), &[q, scale])
    }
}

/// What stands between two dequantized values and a quantization.
type Build<'a> = dyn Fn(&mut Builder, ValueId, ValueId) -> ValueId + 'a;

/// A graph of inputs `x` and `x2` on grids, what `build` makes of them, and its rounded form.
fn graph(shape: &[usize], grids: (Grid, Grid), result: Grid, build: &Build<'_>) -> (Graph, Graph) {
    let make = |round: bool| {
        let mut it = Builder { graph: Graph::new("one"), numbers: Numbers(7), made: 0 };
        let [a, b] = ["x", "x2"]
            .map(|name| it.graph.add_input(name, TensorType::fixed(DType::F32, shape)).unwrap());
        let (a, b) = (it.rounded(a, grids.0), it.rounded(b, grids.1));
        let mut y = build(&mut it, a, b);
        if round {
            y = it.rounded(y, result);
        }
        it.graph.set_outputs(vec![y]);
        verify(&it.graph).unwrap();
        it.graph
    };
    (make(true), make(false))
}

/// Runs the rounded graph in integers and holds each result against the real value before rounding.
fn check(what: &str, shape: &[usize], grids: (Grid, Grid), result: Grid, build: &Build<'_>) {
    let (rounded, real) = graph(shape, grids, result, build);
    let mut numbers = Numbers(11);
    let inputs: Vec<Array> = (0..2)
        .map(|_| {
            let values = numbers.floats(shape.iter().product());
            Array::f32(shape, values.iter().map(|it| it * 2.0).collect())
        })
        .collect();
    let shapes = vec![shape.to_vec(); 2];
    let program = Program::prepare(&rounded, &shapes, &Options::default()).unwrap();
    let integer = program.arithmetic().filter(|it| it.1 == Arithmetic::Integer).count();
    assert!(integer > 0, "{what}: nothing is computed in integers");
    let real = run_reference(&real, &inputs).unwrap();
    let (low, high) = if result.dtype == DType::U8 { (0, 255) } else { (-128, 127) };
    let bound = |it: i64| (it - result.zero) as f32;
    for _ in 0..2 {
        let found = program.run(&inputs).unwrap();
        assert_eq!(found[0].shape, real[0].shape, "{what}");
        let pairs = found[0].as_f32().unwrap().iter().zip(real[0].as_f32().unwrap());
        for (i, (found, real)) in pairs.enumerate() {
            let steps = (real / result.scale).clamp(bound(low), bound(high));
            let off = (found / result.scale - steps).abs();
            assert!(off <= 0.502, "{what}[{i}]: {found} for {real}, {off} steps off");
        }
    }
}

fn conv(kernel: usize, stride: usize, pad: usize, group: usize) -> Op {
    let spatial = Spatial {
        kernel: vec![kernel; 2],
        strides: vec![stride; 2],
        pads: vec![pad; 4],
        ..Spatial::default()
    };
    Op::Conv(Conv { spatial, group })
}

#[test]
fn convolutions() {
    for (filters, group, kernel, stride, pad) in
        [(19, 1, 3, 1, 1), (24, 1, 3, 2, 1), (8, 8, 3, 1, 1), (16, 2, 5, 1, 2), (33, 1, 1, 1, 0)]
    {
        for grids in [(UNSIGNED, SIGNED), (SIGNED, UNSIGNED)] {
            for result in [RESULT, SIGNED] {
                check("convolution", &[2, 8, 9, 7], grids, result, &|it, x, _| {
                    let w = it.weights(&[filters, 8 / group, kernel, kernel], 0);
                    let bias = it.floats(&[filters], 0.5);
                    let y = it.node(conv(kernel, stride, pad, group), &[x, w, bias]);
                    it.node(Op::Unary(Unary::Relu), &[y])
                });
            }
        }
    }
}

#[test]
fn convolutions_of_one_axis_and_of_clipped_results() {
    check("1-D", &[3, 6, 50], (UNSIGNED, SIGNED), RESULT, &|it, x, _| {
        let w = it.weights(&[5, 6, 4], 0);
        let spatial = Spatial { kernel: vec![4], pads: vec![2, 1], ..Spatial::default() };
        let y = it.node(Op::Conv(Conv { spatial, group: 1 }), &[x, w]);
        let low = it.constant(Tensor::from_f32(&[], &[-0.3]));
        let high = it.constant(Tensor::from_f32(&[], &[0.7]));
        it.node(Op::Clip, &[y, low, high])
    });
}

#[test]
fn products() {
    for trans_b in [false, true] {
        check("Gemm", &[5, 30], (UNSIGNED, SIGNED), RESULT, &|it, x, _| {
            let (shape, axis) = if trans_b { ([17, 30], 0) } else { ([30, 17], 1) };
            let (w, bias) = (it.weights(&shape, axis), it.floats(&[17], 1.0));
            let gemm = Gemm { alpha: 1.0, beta: 0.5, trans_a: false, trans_b };
            it.node(Op::Gemm(gemm), &[x, w, bias])
        });
    }
    check("MatMul", &[2, 7, 13], (SIGNED, UNSIGNED), RESULT, &|it, x, _| {
        let (w, bias) = (it.weights(&[13, 9], 1), it.floats(&[9], 1.0));
        let y = it.node(Op::MatMul, &[x, w]);
        it.node(Op::Binary(Binary::Add), &[bias, y])
    });
}

#[test]
fn arithmetic_of_two_tensors() {
    for op in [Binary::Add, Binary::Sub, Binary::Mul] {
        for grids in [(UNSIGNED, UNSIGNED), (UNSIGNED, SIGNED), (SIGNED, SIGNED)] {
            check("arithmetic", &[2, 5, 4, 3], grids, RESULT, &|it, a, b| {
                let y = it.node(Op::Binary(op), &[a, b]);
                it.node(Op::Unary(Unary::Relu), &[y])
            });
        }
    }
}

/// One number for each channel of each image, as squeeze-and-excitation blocks have it.
#[test]
fn arithmetic_by_channel() {
    for (op, first) in [(Binary::Mul, true), (Binary::Mul, false), (Binary::Add, true)] {
        check("by channel", &[3, 8, 4, 5], (UNSIGNED, SIGNED), RESULT, &|it, x, _| {
            let w = it.weights(&[8, 8, 1, 1], 0);
            let y = it.node(conv(1, 1, 0, 1), &[x, w]);
            let y = it.rounded(y, UNSIGNED);
            let mean = it.node(Op::GlobalPool(GlobalPool::Average), &[y]);
            let mean = it.rounded(mean, SIGNED);
            let operands = if first { [y, mean] } else { [mean, y] };
            it.node(Op::Binary(op), &operands)
        });
    }
}

/// A convolution whose result is not quantized sums in integers and gives floats.
#[test]
fn convolutions_into_floats() {
    for group in [1, 8] {
        let (_, graph) = graph(&[2, 8, 9, 7], (UNSIGNED, SIGNED), RESULT, &|it, x, _| {
            let w = it.weights(&[24, 8 / group, 3, 3], 0);
            let bias = it.floats(&[24], 0.5);
            let y = it.node(conv(3, 1, 1, group), &[x, w, bias]);
            it.node(Op::Unary(Unary::Tanh), &[y])
        });
        let inputs: Vec<Array> =
            (3..5).map(|seed| Array::f32(&[2, 8, 9, 7], Numbers(seed).floats(1008))).collect();
        let shapes = vec![vec![2, 8, 9, 7]; 2];
        let program = Program::prepare(&graph, &shapes, &Options::default()).unwrap();
        assert_eq!(program.arithmetic().filter(|it| it.1 == Arithmetic::Integer).count(), 1);
        let (found, expected) =
            (program.run(&inputs).unwrap(), run_reference(&graph, &inputs).unwrap());
        let pairs = found[0].as_f32().unwrap().iter().zip(expected[0].as_f32().unwrap());
        for (found, expected) in pairs {
            assert!((found - expected).abs() <= 1e-5, "{found} for {expected}");
        }
    }
}

/// Operators on quantized tensors run as what they stand for.
#[test]
fn operators_on_quantized_tensors() {
    let named = |domain: &str, name: &str, version| {
        let attributes = sartor_ir::Attrs::new();
        Op::Named(Named { domain: domain.into(), name: name.into(), version, attributes })
    };
    let (scale, result) = (0.0173, 0.0291);
    let mut it = Builder { graph: Graph::new("operators"), numbers: Numbers(5), made: 0 };
    let shape = [2, 8, 6, 5];
    let x = it.graph.add_input("x", TensorType::fixed(DType::F32, &shape)).unwrap();
    let float = |it: &mut Builder, value| it.constant(Tensor::from_f32(&[], &[value]));
    let (sx, sy) = (float(&mut it, scale), float(&mut it, result));
    let zx = it.constant(Tensor::from_u8(&[], &[117]));
    let zy = it.constant(Tensor::from_u8(&[], &[101]));
    let q = it.node(Op::QuantizeLinear(QuantizeLinear::along(1)), &[x, sx, zx]);
    let weights: Vec<i64> = it.numbers.floats(64).iter().map(|it| (it * 127.0) as i64).collect();
    let w = it.constant(Tensor::from_integers(DType::I8, &[8, 8, 1, 1], &weights).unwrap());
    let sw: Vec<f32> = it.numbers.floats(8).iter().map(|it| 0.002 + it * 0.001).collect();
    let sw = it.constant(Tensor::from_f32(&[8], &sw));
    let zw = it.constant(Tensor::from_integers(DType::I8, &[8], &[0; 8]).unwrap());
    let bias = Tensor::from_integers(DType::I32, &[8], &[900, -700, 0, 3, 5000, -1, 20, 77]);
    let bias = it.constant(bias.unwrap());
    let conv = named("", "QLinearConv", 10);
    let y = it.node(conv, &[q, sx, zx, w, sw, zw, sy, zy, bias]);
    let sum = named("com.microsoft", "QLinearAdd", 1);
    let y = it.node(sum, &[q, sx, zx, y, sy, zy, sy, zy]);
    let y = it.node(Op::DequantizeLinear(QuantizeLinear::along(1)), &[y, sy, zy]);
    it.graph.set_outputs(vec![y]);
    verify(&it.graph).unwrap();
    let inputs = [Array::f32(&shape, Numbers(9).floats(480))];
    let program = Program::prepare(&it.graph, &[shape.to_vec()], &Options::default()).unwrap();
    let integer: Vec<_> = program.arithmetic().filter(|it| it.1 == Arithmetic::Integer).collect();
    assert_eq!(integer.len(), 2, "{integer:?}");
    let (found, expected) =
        (program.run(&inputs).unwrap(), run_reference(&it.graph, &inputs).unwrap());
    assert_eq!(found, expected);
}

#[test]
fn pools() {
    let window = |kind, count_include_pad| {
        let spatial = Spatial {
            kernel: vec![2, 3],
            strides: vec![1, 2],
            pads: vec![1, 1, 0, 2],
            ..Spatial::default()
        };
        Op::Pool(Pool { kind, spatial, ceil_mode: false, count_include_pad, column_major: false })
    };
    let shape = [2, 5, 7, 9];
    let grids = (UNSIGNED, SIGNED);
    for (op, result) in [
        (window(PoolKind::Max, false), UNSIGNED),
        (window(PoolKind::Average, false), RESULT),
        (window(PoolKind::Average, true), RESULT),
        (Op::GlobalPool(GlobalPool::Average), RESULT),
        (Op::GlobalPool(GlobalPool::Max), UNSIGNED),
    ] {
        check(op.name(), &shape, grids, result, &|it, x, _| it.node(op.clone(), &[x]));
    }
    check("ReduceMean", &shape, grids, RESULT, &|it, x, _| {
        let axes = it.constant(Tensor::from_i64(&[2], &[2, 3]));
        let mean = Reduce { kind: ReduceKind::Mean, keepdims: false, noop_with_empty_axes: false };
        it.node(Op::Reduce(mean), &[x, axes])
    });
}

#[test]
fn moves_between_convolutions() {
    let moves: [(&str, &Build<'_>); 5] = [
        ("Slice", &|it, x, _| {
            let of =
                |it: &mut Builder, n: i64, m: i64| it.constant(Tensor::from_i64(&[2], &[n, m]));
            let (starts, ends) = (of(it, 1, 0), of(it, 6, 9));
            let (axes, steps) = (of(it, 1, 3), of(it, 1, 2));
            it.node(Op::Slice, &[x, starts, ends, axes, steps])
        }),
        ("Pad", &|it, x, _| {
            let pads = it.constant(Tensor::from_i64(&[8], &[0, 3, 1, 0, 0, 2, 0, 1]));
            it.node(Op::Pad(Pad { mode: PadMode::Constant }), &[x, pads])
        }),
        ("Concat", &|it, x, y| it.node(Op::Concat(Concat { axis: 1 }), &[x, y])),
        ("Transpose", &|it, x, _| {
            it.node(Op::Transpose(Transpose { perm: vec![0, 1, 3, 2] }), &[x])
        }),
        ("Flatten", &|it, x, _| it.node(Op::Flatten(Flatten { axis: 1 }), &[x])),
    ];
    for (what, build) in moves {
        check(what, &[2, 8, 6, 9], (UNSIGNED, UNSIGNED), RESULT, &|it, a, b| {
            let w = it.weights(&[8, 8, 1, 1], 0);
            let [a, b] = [a, b].map(|it_is| {
                let y = it.node(conv(1, 1, 0, 1), &[it_is, w]);
                it.rounded(y, SIGNED)
            });
            let moved = build(it, a, b);
            let moved = it.rounded(moved, SIGNED);
            if what == "Flatten" {
                let w = it.weights(&[432, 10], 1);
                return it.node(Op::MatMul, &[moved, w]);
            }
            let channels = it.graph.value(moved).ty.as_ref().unwrap().dims().unwrap()[1];
            let w = it.weights(&[4, channels, 3, 3], 0);
            it.node(conv(3, 1, 1, 1), &[moved, w])
        });
    }
}

#[test]
fn functions_of_one_element() {
    check("functions", &[2, 5, 4, 3], (UNSIGNED, SIGNED), RESULT, &|it, x, _| {
        let half = it.constant(Tensor::from_f32(&[1, 1], &[0.5]));
        let y = it.node(Op::Unary(Unary::HardSwish), &[x]);
        let y = it.node(Op::Binary(Binary::Sub), &[half, y]);
        it.node(Op::Unary(Unary::Sigmoid), &[y])
    });
    check("other grid", &[2, 5, 4, 3], (UNSIGNED, SIGNED), RESULT, &|_, x, _| x);
}

/// A network of which a value between two quantizers is watched, and whose last product stays in floats.
#[test]
fn watched_values_and_floats_stay_what_they_are() {
    let (graph, _) = graph(&[2, 8, 5, 5], (UNSIGNED, SIGNED), RESULT, &|it, x, _| {
        let (w, w2) = (it.weights(&[8, 8, 3, 3], 0), it.weights(&[200, 6], 1));
        let y = it.node(conv(3, 1, 1, 1), &[x, w]);
        let y = it.rounded(y, RESULT);
        let y = it.node(Op::Flatten(Flatten { axis: 1 }), &[y]);
        let y = it.rounded(y, RESULT);
        let y = it.node(Op::MatMul, &[y, w2]);
        it.node(Op::Unary(Unary::Tanh), &[y])
    });
    let inputs: Vec<Array> =
        (3..5).map(|seed| Array::f32(&[2, 8, 5, 5], Numbers(seed).floats(400))).collect();
    let shapes = vec![vec![2, 8, 5, 5]; 2];
    let simulated = Options { float_simulation: true, ..Options::default() };
    let simulated = Program::prepare(&graph, &shapes, &simulated).unwrap();
    assert!(simulated.arithmetic().all(|it| it.1 == Arithmetic::Native));
    let expected = simulated.run(&inputs).unwrap();
    let fast = Program::prepare(&graph, &shapes, &Options::default()).unwrap();
    let in_integers =
        |program: &Program| program.arithmetic().filter(|it| it.1 == Arithmetic::Integer).count();
    assert_eq!(in_integers(&fast), 3, "convolution, flattening and product");
    let convolved = graph.find_node("n7").map(|it| graph.node(it).output()).unwrap();
    let options = Options { watch: vec![convolved], ..Options::default() };
    let watching = Program::prepare(&graph, &shapes, &options).unwrap();
    assert_eq!(in_integers(&watching), 3, "the watched convolution gives floats");
    let mut seen = 0;
    let watched = watching
        .run_observed(&inputs, &mut |id, array| {
            assert_eq!((id, array.dtype()), (convolved, DType::F32));
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 1);
    for found in [fast.run(&inputs).unwrap(), watched] {
        let pairs = found[0].as_f32().unwrap().iter().zip(expected[0].as_f32().unwrap());
        for (found, expected) in pairs {
            assert!((found - expected).abs() <= 1.5 * RESULT.scale, "{found} for {expected}");
        }
    }
}
