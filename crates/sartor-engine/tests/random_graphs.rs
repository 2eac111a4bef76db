//! The fast path against the reference over random small graphs, batches, threads and watched values.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use sartor_engine::{
    Array, Level, Options, Program, force, reference::run_reference_observed, run_reference,
};
use sartor_ir::{
    AutoPad, BatchNormalization, Binary, Concat, Conv, DType, Dim, Gemm, GlobalPool, Graph, Op,
    Pool, PoolKind, QuantizeLinear, Spatial, Tensor, TensorType, Transpose, Unary, ValueId, infer,
    verify,
};

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

/// Held while a test sets the level or compares bits: the level is that of the process.
static LEVEL: Mutex<()> = Mutex::new(());

fn hold_level() -> MutexGuard<'static, ()> {
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers in -1..1 from a linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() * 0.5 + 0.5) * n as f32) as usize % n
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.next()).collect();
        Tensor::from_f32(shape, &values)
    }
}

struct Builder {
    graph: Graph,
    numbers: Numbers,
    made: usize,
}

impl Builder {
    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_fresh_constant("c", tensor)
    }

    fn weights(&mut self, shape: &[usize]) -> ValueId {
        let tensor = self.numbers.tensor(shape);
        self.constant(tensor)
    }

    fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.made += 1;
        let name = format!("v{}", self.made);
        let made =
            self.graph.add_node(&format!("n{}", self.made), op, inputs, &[&name]).unwrap()[0];
        infer(&mut self.graph).unwrap();
        made
    }

    fn dims(&self, value: ValueId) -> Vec<usize> {
        let shape = self.graph.value(value).ty.as_ref().unwrap().shape.as_ref().unwrap();
        shape[1..].iter().map(|it| it.known().unwrap()).collect()
    }

    fn conv(&mut self, x: ValueId, kind: usize) -> ValueId {
        let channels = self.dims(x)[0];
        let (group, filters) = match kind {
            0 => (channels, channels),
            1 if channels.is_multiple_of(2) => (2, 2 * (1 + self.numbers.below(3))),
            _ => (1, 1 + self.numbers.below(18)),
        };
        let (kernel, dilation) = (1 + self.numbers.below(3), 1 + self.numbers.below(2));
        let reach = (kernel - 1) * dilation;
        let spatial = Spatial {
            kernel: vec![kernel; 2],
            strides: vec![1 + self.numbers.below(2), 1 + self.numbers.below(2)],
            dilations: vec![dilation; 2],
            pads: if self.numbers.below(4) == 0 { Vec::new() } else { vec![reach; 4] },
            auto_pad: if self.numbers.below(4) == 0 { AutoPad::SameUpper } else { AutoPad::NotSet },
        };
        let spatial = if spatial.auto_pad == AutoPad::NotSet {
            Spatial { pads: vec![reach; 4], ..spatial }
        } else {
            Spatial { pads: Vec::new(), ..spatial }
        };
        let w = self.weights(&[filters, channels / group, kernel, kernel]);
        let mut inputs = vec![x, w];
        if self.numbers.below(2) == 0 {
            inputs.push(self.weights(&[filters]));
        }
        self.node(Op::Conv(Conv { spatial, group }), &inputs)
    }

    fn pool(&mut self, x: ValueId) -> ValueId {
        let kind = if self.numbers.below(2) == 0 { PoolKind::Max } else { PoolKind::Average };
        let spatial = Spatial {
            kernel: vec![2, 3],
            strides: vec![1, 2],
            pads: vec![1, 1, 0, 2],
            ..Spatial::default()
        };
        let average = kind == PoolKind::Average;
        let pool = Pool {
            kind,
            spatial,
            ceil_mode: self.numbers.below(2) == 0,
            count_include_pad: average && self.numbers.below(2) == 0,
            column_major: false,
        };
        self.node(Op::Pool(pool), &[x])
    }

    fn batch_norm(&mut self, x: ValueId) -> ValueId {
        let n = self.dims(x)[0];
        let mut inputs = vec![x];
        inputs.extend((0..3).map(|_| self.weights(&[n])).collect::<Vec<_>>());
        let var: Vec<f32> = (0..n).map(|_| self.numbers.next().abs() + 0.5).collect();
        inputs.push(self.constant(Tensor::from_f32(&[n], &var)));
        self.node(
            Op::BatchNormalization(BatchNormalization { epsilon: 1e-3, momentum: 0.9 }),
            &inputs,
        )
    }

    /// Rounds to a grid and back.
    fn fake_quantize(&mut self, x: ValueId) -> ValueId {
        let scale = self.constant(Tensor::from_f32(&[], &[0.03]));
        let zero = self.constant(Tensor::from_u8(&[], &[117]));
        let it = QuantizeLinear::along(1);
        let q = self.node(Op::QuantizeLinear(it.clone()), &[x, scale, zero]);
        self.node(Op::DequantizeLinear(it), &[q, scale, zero])
    }

    fn grow(&mut self, values: &mut Vec<ValueId>) {
        let x = values[values.len() - 1 - self.numbers.below(values.len().min(2))];
        let dims = self.dims(x);
        let twin = values.iter().copied().rev().find(|&it| it != x && self.dims(it) == dims);
        let y = match self.numbers.below(11) {
            kind @ 0..=2 => self.conv(x, kind),
            3 => self.pool(x),
            4 => self.batch_norm(x),
            5 => self.node(Op::Unary(Unary::Relu), &[x]),
            6 => {
                let (low, high) = (
                    self.constant(Tensor::from_f32(&[], &[-0.5])),
                    self.constant(Tensor::from_f32(&[], &[1.5])),
                );
                self.node(Op::Clip, &[x, low, high])
            }
            7 => {
                let other = twin.unwrap_or(x);
                self.node(
                    Op::Binary([Binary::Add, Binary::Sub, Binary::Mul][self.made % 3]),
                    &[x, other],
                )
            }
            8 => self.node(Op::Concat(Concat { axis: 1 }), &[x, twin.unwrap_or(x)]),
            9 => {
                let turned = self.node(Op::Transpose(Transpose { perm: vec![0, 1, 3, 2] }), &[x]);
                self.node(Op::Unary(Unary::HardSwish), &[turned])
            }
            _ => {
                let sums = self.weights(&[dims[0], 1, 1]);
                self.node(Op::Binary(Binary::Mul), &[sums, x])
            }
        };
        values.push(y);
    }
}

/// A convolutional graph of about `length` nodes, and all its computed values.
fn random_graph(seed: u64, length: usize, quantized: bool) -> (Graph, Vec<ValueId>) {
    let mut it = Builder { graph: Graph::new("random"), numbers: Numbers(seed), made: 0 };
    let shape = vec![Dim::symbol("N"), Dim::Known(3), Dim::Known(7), Dim::Known(9)];
    let x = it.graph.add_input("x", TensorType::new(DType::F32, shape)).unwrap();
    let mut values = vec![x];
    for _ in 0..length {
        it.grow(&mut values);
        if quantized {
            let rounded = it.fake_quantize(values[values.len() - 1]);
            values.push(rounded);
        }
    }
    let last = values[values.len() - 1];
    let pooled = it.node(Op::GlobalPool(GlobalPool::Average), &[last]);
    let flat = it.node(Op::Flatten(sartor_ir::Flatten { axis: 1 }), &[pooled]);
    let n = it.dims(flat)[0];
    let (w, b) = (it.weights(&[5, n]), it.weights(&[5]));
    let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true };
    let logits = it.node(Op::Gemm(gemm), &[flat, w, b]);
    let softmax = it.node(Op::Softmax(sartor_ir::Softmax { axis: -1 }), &[logits]);
    it.graph.set_outputs(vec![softmax, last]);
    verify(&it.graph).unwrap();
    values.extend([pooled, flat, logits, softmax]);
    (it.graph, values)
}

fn images(seed: u64, batch: usize) -> Array {
    let tensor = Numbers(seed ^ 0x5eed).tensor(&[batch, 3, 7, 9]);
    Array::from_tensor(&tensor).unwrap()
}

fn assert_close(found: &Array, expected: &Array, tolerance: f32, what: &str) {
    assert_eq!(found.shape, expected.shape, "shape of {what}");
    let (a, b) = (found.as_f32().unwrap(), expected.as_f32().unwrap());
    let largest = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}[{i}]: {a}, expected {b}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fast_is_reference(seed in any::<u64>(), length in 1usize..9, batch in prop::sample::select(vec![1usize, 2, 3, 7])) {
        let (graph, _) = random_graph(seed, length, false);
        let x = images(seed, batch);
        let expected = run_reference(&graph, std::slice::from_ref(&x)).unwrap();
        let _held = hold_level();
        for level in LEVELS {
            force(level);
            let program = Program::prepare(&graph, std::slice::from_ref(&x.shape), &Options::default()).unwrap();
            // The second run works on the memory of the first.
            for _ in 0..2 {
                for (found, expected) in program.run(std::slice::from_ref(&x)).unwrap().iter().zip(&expected) {
                    assert_close(found, expected, 1e-4, "an output");
                }
            }
        }
    }

    #[test]
    fn observers_see_reference_values(seed in any::<u64>(), length in 1usize..7) {
        let (graph, values) = random_graph(seed, length, false);
        let x = images(seed, 2);
        let mut expected = std::collections::BTreeMap::new();
        run_reference_observed(&graph, std::slice::from_ref(&x), &mut |id, it| { expected.insert(id, it.clone()); }).unwrap();
        let program = Program::prepare(&graph, std::slice::from_ref(&x.shape), &Options { watch: values.clone(), ..Options::default() }).unwrap();
        let mut seen = Vec::new();
        program.run_observed(&[x], &mut |id, it| {
            assert_close(it, &expected[&id], 1e-4, &graph.value(id).name);
            seen.push(id);
        }).unwrap();
        prop_assert_eq!(seen, values);
    }

    #[test]
    fn rounding_pairs_follow_the_reference(seed in any::<u64>(), length in 1usize..4) {
        let (graph, _) = random_graph(seed, length, true);
        let x = images(seed, 3);
        // Integer kernels have tests of their own: on these grids exact ties are frequent, which floats break by chance.
        let options = Options { float_simulation: true, ..Options::default() };
        let program = Program::prepare(&graph, std::slice::from_ref(&x.shape), &options).unwrap();
        let (found, expected) = (program.run(std::slice::from_ref(&x)).unwrap(), run_reference(&graph, &[x]).unwrap());
        // A sum near the middle of two grid points may round either way: few, and by one or two steps.
        let (a, b) = (found[1].as_f32().unwrap(), expected[1].as_f32().unwrap());
        let far = a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
        prop_assert!(far * 50 <= a.len(), "{} of {} elements differ", far, a.len());
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let _held = hold_level();
    for seed in 0..36 {
        force(LEVELS[seed as usize % 3]);
        let (graph, _) = random_graph(seed, 6, seed % 2 == 1);
        let x = images(seed, 7);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let program =
                    Program::prepare(&graph, std::slice::from_ref(&x.shape), &Options::default())
                        .unwrap();
                program.run(std::slice::from_ref(&x)).unwrap()
            })
        };
        let bits = |it: Vec<Array>| {
            it.iter()
                .flat_map(|it| it.as_f32().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        let one = bits(run(1));
        assert_eq!(one, bits(run(2)), "seed {seed}");
        assert_eq!(one, bits(run(3)), "seed {seed}");
    }
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let (graph, _) = random_graph(1, 2, false);
    let program = Program::prepare(&graph, &[vec![2, 3, 7, 9]], &Options::default()).unwrap();
    let error = program.run(&[images(1, 3)]).unwrap_err().to_string();
    assert_eq!(error, "input `x` has shape [3, 3, 7, 9], expected [2, 3, 7, 9]");
    assert_eq!(program.run(&[]).unwrap_err().to_string(), "the graph has 1 inputs, found 0");
    let error =
        Program::prepare(&graph, &[vec![2, 4, 7, 9]], &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "input `x` has shape [2, 4, 7, 9], expected f32[N,3,7,9]");
}

#[test]
fn memory_is_shared_by_values_that_do_not_meet() {
    let mut it = Builder { graph: Graph::new("chain"), numbers: Numbers(3), made: 0 };
    let shape = vec![Dim::symbol("N"), Dim::Known(4), Dim::Known(8), Dim::Known(8)];
    let mut x = it.graph.add_input("x", TensorType::new(DType::F32, shape)).unwrap();
    for _ in 0..10 {
        let w = it.weights(&[4, 4, 1, 1]);
        x = it.node(Op::Conv(Conv { spatial: Spatial::default(), group: 1 }), &[x, w]);
        x = it.node(Op::Unary(Unary::Tanh), &[x]);
    }
    it.graph.set_outputs(vec![x]);
    let program = Program::prepare(&it.graph, &[vec![1, 4, 8, 8]], &Options::default()).unwrap();
    assert_eq!(program.peak_memory_bytes(), 2 * 4 * 64 * 4);
}
