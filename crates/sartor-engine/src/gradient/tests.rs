//! Every rule against central differences of the reference's values, over random geometries.

mod named;
mod recurrent;

use sartor_ir::{
    AutoPad, BatchNormalization, Binary, Cast, Concat, Conv, DType, Flatten, Gather, Gemm,
    GlobalPool, Named, Op, Pad, PadMode, Pool, PoolKind, QuantizeLinear, Reduce, ReduceKind,
    Reshape, Softmax, Spatial, Split, Transpose, Unary, Variadic,
};

use super::{Context, backward, norm};
use crate::{Array, Data, reference::evaluate};

/// Step of the differences.
const STEP: f32 = 0.01;

/// Numbers from a linear congruential generator.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.next() * 0.5 + 0.5) * n as f32) as usize % n
    }

    /// Numbers around 0 that lie further apart, and further from 0, than a step: no kink is crossed.
    pub(super) fn apart(&mut self, shape: &[usize]) -> Array {
        let n: usize = shape.iter().product();
        let mut values: Vec<f32> =
            (0..n).map(|i| (i as f32 - (n / 2) as f32 + 0.37) * 0.03).collect();
        for i in (1..n).rev() {
            values.swap(i, self.below(i + 1));
        }
        Array::f32(shape, values)
    }

    /// Numbers in 0.5..2.
    pub(super) fn positive(&mut self, shape: &[usize]) -> Array {
        let n = shape.iter().product();
        Array::f32(shape, (0..n).map(|_| 1.25 + 0.75 * self.next()).collect())
    }
}

pub(super) fn integers(values: &[i64]) -> Array {
    Array { shape: vec![values.len()], data: Data::I64(values.to_vec()) }
}

/// Gradients from inputs, outputs and the gradients of the outputs.
type RuleUnderTest<'a> = dyn Fn(&[Array], &[Array], &[Array]) -> Vec<Option<Array>> + 'a;

/// Compares the gradients that `rule` gives of the sum of outputs weighted at random with central
/// differences of `value`, at some elements of each of the inputs `wanted`.
fn check(
    what: &str,
    inputs: &[Array],
    wanted: &[usize],
    value: &dyn Fn(&[Array]) -> Vec<Array>,
    rule: &RuleUnderTest<'_>,
) {
    let mut numbers = Numbers(7);
    let outputs = value(inputs);
    let weights: Vec<Array> = outputs
        .iter()
        .map(|it| Array::f32(&it.shape, (0..it.len()).map(|_| numbers.next()).collect()))
        .collect();
    let loss = |inputs: &[Array]| -> f64 {
        let pairs = value(inputs).into_iter().zip(&weights);
        let dot = |(y, w): (Array, &Array)| -> f64 {
            let terms = y.to_f32().into_iter().zip(w.to_f32());
            terms.map(|(y, w)| f64::from(y) * f64::from(w)).sum()
        };
        pairs.map(dot).sum()
    };
    let found = rule(inputs, &outputs, &weights);
    for &i in wanted {
        let gradient = found[i].as_ref().unwrap_or_else(|| panic!("{what}: no gradient of {i}"));
        assert_eq!(gradient.shape, inputs[i].shape, "{what}: shape of the gradient of {i}");
        let gradient = gradient.as_f32().unwrap();
        let largest = gradient.iter().fold(0.0f64, |a, &b| a.max(f64::from(b).abs()));
        for _ in 0..8.min(inputs[i].len()) {
            let at = numbers.below(inputs[i].len());
            let moved = |by: f32| {
                let mut moved = inputs.to_vec();
                if let Data::F32(values) = &mut moved[i].data {
                    values[at] += by;
                }
                loss(&moved)
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * f64::from(STEP));
            let error = (f64::from(gradient[at]) - expected).abs();
            assert!(
                error <= 3e-3 * (expected.abs() + 0.1 * largest + 0.05),
                "{what}: input {i} at {at}: {} where differences give {expected}",
                gradient[at]
            );
        }
    }
}

/// [`check`] of an operator with one kind of output.
pub(super) fn check_op(op: &Op, inputs: &[Array], wanted: &[usize], outputs: usize) {
    check_given(op, inputs, &vec![true; inputs.len()], wanted, outputs);
}

/// [`check_op`] of an operator by name, of whose inputs some are left out.
fn check_named(op: &Named, inputs: &[Option<Array>], wanted: &[usize], outputs: usize) {
    let given: Vec<bool> = inputs.iter().map(Option::is_some).collect();
    let filled: Vec<Array> =
        inputs.iter().map(|it| it.clone().unwrap_or_else(|| integers(&[]))).collect();
    check_given(&Op::Named(op.clone()), &filled, &given, wanted, outputs);
}

/// [`check_op`] where only the inputs `given` are there.
fn check_given(op: &Op, inputs: &[Array], given: &[bool], wanted: &[usize], outputs: usize) {
    fn some<'a>(inputs: &'a [Array], given: &[bool]) -> Vec<Option<&'a Array>> {
        inputs.iter().zip(given).map(|(it, &given)| given.then_some(it)).collect()
    }
    let dtypes = vec![DType::F32; outputs];
    let value =
        |inputs: &[Array]| -> Vec<Array> { evaluate(op, &some(inputs, given), &dtypes).unwrap() };
    let rule = |inputs: &[Array], outputs: &[Array], gradients: &[Array]| {
        let flags: Vec<bool> = (0..inputs.len()).map(|it| wanted.contains(&it)).collect();
        let outputs: Vec<_> = outputs.iter().map(Some).collect();
        let gradients: Vec<_> = gradients.iter().map(Some).collect();
        let context = Context {
            inputs: &some(inputs, given),
            outputs: &outputs,
            gradients: &gradients,
            wanted: &flags,
        };
        backward(op, &context).unwrap()
    };
    check(&format!("{op:?}"), inputs, wanted, &value, &rule);
}

#[test]
fn unary_operators() {
    let mut numbers = Numbers(1);
    let anywhere = [
        Unary::Relu,
        Unary::LeakyRelu { alpha: 0.1 },
        Unary::Elu { alpha: 0.7 },
        Unary::Selu { alpha: 1.6, gamma: 1.05 },
        Unary::Gelu { tanh: false },
        Unary::Gelu { tanh: true },
        Unary::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Unary::HardSwish,
        Unary::Mish,
        Unary::Sigmoid,
        Unary::Softplus,
        Unary::Softsign,
        Unary::Tanh,
        Unary::Celu { alpha: 0.7 },
        Unary::ThresholdedRelu { alpha: 0.3061 },
        Unary::Shrink { bias: 0.1, lambd: 0.3061 },
        Unary::Swish { alpha: 1.5 },
        Unary::Asinh,
        Unary::Atan,
        Unary::Cosh,
        Unary::Sinh,
        Unary::Abs,
        Unary::Cos,
        Unary::Erf,
        Unary::Exp,
        Unary::Neg,
        Unary::Sin,
    ];
    for op in anywhere {
        check_op(&Op::Unary(op), &[numbers.apart(&[3, 70])], &[0], 1);
    }
    for op in [Unary::Log, Unary::Reciprocal, Unary::Sqrt] {
        check_op(&Op::Unary(op), &[numbers.positive(&[3, 7])], &[0], 1);
    }
    for op in [Unary::Acos, Unary::Asin, Unary::Atanh, Unary::Tan] {
        check_op(&Op::Unary(op), &[numbers.apart(&[21])], &[0], 1);
    }
    let above_one = Array::f32(&[3], vec![1.5, 2.0, 3.0]);
    check_op(&Op::Unary(Unary::Acosh), &[above_one], &[0], 1);
}

#[test]
fn the_gradient_of_relu_at_zero_is_zero() {
    assert!(super::elementwise::slope(Unary::Relu, 0.0, 0.0).abs() < f32::EPSILON);
    assert!(super::elementwise::slope(Unary::Relu, -0.0, 0.0).abs() < f32::EPSILON);
}

#[test]
fn binary_operators_sum_over_what_was_broadcast() {
    let mut numbers = Numbers(2);
    let shapes: [(&[usize], &[usize]); 5] = [
        (&[2, 3, 4], &[2, 3, 4]),
        (&[2, 3, 4], &[3, 1]),
        (&[4], &[2, 3, 4]),
        (&[2, 1, 4], &[3, 1]),
        (&[2, 3], &[]),
    ];
    for (a, b) in shapes {
        for op in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Pow] {
            let inputs = [numbers.positive(a), numbers.positive(b)];
            check_op(&Op::Binary(op), &inputs, &[0, 1], 1);
        }
    }
    let integer = Array::scalar(Data::F32(vec![2.0]));
    check_op(&Op::Binary(Binary::Pow), &[numbers.apart(&[9]), integer], &[0], 1);
}

#[test]
fn variadic_operators() {
    let mut numbers = Numbers(3);
    for op in [Variadic::Max, Variadic::Min, Variadic::Sum, Variadic::Mean] {
        let all = numbers.apart(&[3, 2, 3, 5]).to_f32();
        let part = |i: usize| Array::f32(&[2, 3, 5], all[i * 30..(i + 1) * 30].to_vec());
        let row = Array::f32(&[5], vec![0.115, -0.215, 0.355, 0.0151, -0.345]);
        check_op(&Op::Variadic(op), &[part(0), part(1), part(2)], &[0, 1, 2], 1);
        check_op(&Op::Variadic(op), &[part(0), row], &[0], 1);
    }
}

#[test]
fn clip_prelu_where_and_cast() {
    let mut numbers = Numbers(4);
    let limit = |it: f32| Array::f32(&[], vec![it]);
    let inputs = [numbers.apart(&[60]), limit(-0.4839), limit(0.5061)];
    check_op(&Op::Clip, &inputs, &[0, 1, 2], 1);
    check_op(&Op::Clip, &inputs[..1], &[0], 1);
    check_op(&Op::PRelu, &[numbers.apart(&[2, 3, 4]), numbers.positive(&[3, 1])], &[0, 1], 1);
    check_op(&Op::PRelu, &[numbers.apart(&[2, 3, 4]), numbers.positive(&[1])], &[0, 1], 1);
    let first = (0..12).map(|i| i % 3 == 0).collect();
    let condition = Array { shape: vec![3, 4], data: Data::Bool(first) };
    let inputs = [condition, numbers.apart(&[2, 3, 4]), numbers.apart(&[4])];
    check_op(&Op::Where, &inputs, &[1, 2], 1);
    check_op(&Op::Cast(Cast { to: DType::F32, saturate: true }), &[numbers.apart(&[5])], &[0], 1);
}

/// Draws a window: kernel, strides, dilations, pads and extents of `rank` axes.
fn spatial(numbers: &mut Numbers, rank: usize) -> (Spatial, Vec<usize>) {
    let mut draw = |low: usize, n: usize| -> Vec<usize> {
        (0..rank).map(|_| low + numbers.below(n)).collect()
    };
    let (kernel, strides, dilations) = (draw(1, 3), draw(1, 2), draw(1, 2));
    let mut pads = draw(0, 2);
    pads.extend(draw(0, 3));
    let extents = (0..rank).map(|i| (kernel[i] - 1) * dilations[i] + 2 + i).collect();
    (Spatial { kernel, strides, dilations, pads, auto_pad: AutoPad::NotSet }, extents)
}

#[test]
fn convolutions_of_any_rank_and_grouping() {
    let mut numbers = Numbers(5);
    for round in 0..30 {
        let rank = 1 + round % 3;
        let (spatial, extents) = spatial(&mut numbers, rank);
        let group = [1, 2, 3][numbers.below(3)];
        let (channels, filters) = (1 + numbers.below(2), 1 + numbers.below(2));
        let x = [&[2, group * channels], extents.as_slice()].concat();
        let w = [&[group * filters, channels], spatial.kernel.as_slice()].concat();
        let mut inputs = vec![numbers.apart(&x), numbers.apart(&w)];
        let mut wanted = vec![0, 1];
        if round % 2 == 0 {
            inputs.push(numbers.apart(&[group * filters]));
            wanted.push(2);
        }
        check_op(&Op::Conv(Conv { spatial, group }), &inputs, &wanted, 1);
    }
}

#[test]
fn matrix_products() {
    let mut numbers = Numbers(6);
    for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let it = Gemm { alpha: 0.7, beta: -1.3, trans_a, trans_b };
        let a = if trans_a { [4, 3] } else { [3, 4] };
        let b = if trans_b { [5, 4] } else { [4, 5] };
        let inputs = [numbers.apart(&a), numbers.apart(&b), numbers.apart(&[5])];
        check_op(&Op::Gemm(it.clone()), &inputs, &[0, 1, 2], 1);
        check_op(&Op::Gemm(it), &inputs[..2], &[0, 1], 1);
    }
    let shapes: [(&[usize], &[usize]); 7] = [
        (&[3, 4], &[4, 5]),
        (&[2, 3, 4], &[4, 5]),
        (&[2, 3, 4], &[2, 4, 5]),
        (&[2, 1, 3, 4], &[3, 4, 2]),
        (&[3, 4], &[2, 4, 5]),
        (&[4], &[2, 4, 3]),
        (&[2, 3, 4], &[4]),
    ];
    for (a, b) in shapes {
        check_op(&Op::MatMul, &[numbers.apart(a), numbers.apart(b)], &[0, 1], 1);
    }
}

#[test]
fn normalizations() {
    let mut numbers = Numbers(8);
    let it = BatchNormalization { epsilon: 1e-3, momentum: 0.9 };
    let inputs = [
        numbers.apart(&[2, 3, 4]),
        numbers.positive(&[3]),
        numbers.apart(&[3]),
        numbers.apart(&[3]),
        numbers.positive(&[3]),
    ];
    check_op(&Op::BatchNormalization(it.clone()), &inputs, &[0, 1, 2, 3, 4], 1);
    let value = |inputs: &[Array]| {
        let list = |i: usize| inputs[i].to_f32();
        vec![norm::batch_norm_train(&it, &inputs[0], &list(1), &list(2)).0]
    };
    let rule = |inputs: &[Array], _: &[Array], gradients: &[Array]| {
        let list = |i: usize| inputs[i].to_f32();
        let (_, kept) = norm::batch_norm_train(&it, &inputs[0], &list(1), &list(2));
        let made = norm::batch_norm_train_backward(&inputs[0], &list(1), &kept, &gradients[0]);
        made.into_iter().map(Some).collect()
    };
    check("batch statistics", &inputs[..3], &[0, 1, 2], &value, &rule);
    for axis in [-1, 0, 1] {
        let x = [numbers.apart(&[3, 4, 5])];
        check_op(&Op::Softmax(Softmax { axis }), &x, &[0], 1);
        check_op(&Op::LogSoftmax(Softmax { axis }), &x, &[0], 1);
    }
}

#[test]
fn pooling() {
    let mut numbers = Numbers(9);
    for round in 0..40 {
        let kind = if round % 2 == 0 { PoolKind::Max } else { PoolKind::Average };
        let rank = 1 + round % 3;
        let (mut spatial, extents) = spatial(&mut numbers, rank);
        for (i, pad) in spatial.pads.iter_mut().enumerate() {
            *pad = (*pad).min(spatial.kernel[i % rank] - 1);
        }
        let it = Pool {
            kind,
            spatial,
            ceil_mode: numbers.below(2) == 0,
            count_include_pad: kind == PoolKind::Average && numbers.below(2) == 0,
            column_major: false,
        };
        let x = [&[1, 2], extents.as_slice()].concat();
        check_op(&Op::Pool(it), &[numbers.apart(&x)], &[0], 1);
    }
    for it in [GlobalPool::Max, GlobalPool::Average] {
        check_op(&Op::GlobalPool(it), &[numbers.apart(&[2, 3, 4, 5])], &[0], 1);
    }
}

#[test]
fn the_first_maximum_gets_the_whole_gradient() {
    let spatial = Spatial { kernel: vec![2], strides: vec![2], ..Spatial::default() };
    let it = Pool {
        kind: PoolKind::Max,
        spatial,
        ceil_mode: false,
        count_include_pad: false,
        column_major: false,
    };
    let x = Array::f32(&[1, 1, 4], vec![3.0, 3.0, 1.0, 2.0]);
    let g = Array::f32(&[1, 1, 2], vec![5.0, 7.0]);
    let context =
        Context { inputs: &[Some(&x)], outputs: &[None], gradients: &[Some(&g)], wanted: &[true] };
    let made = backward(&Op::Pool(it), &context).unwrap();
    assert_eq!(made[0].as_ref().unwrap().as_f32().unwrap(), [5.0, 0.0, 0.0, 7.0]);
}

#[test]
fn reductions() {
    let mut numbers = Numbers(10);
    let kinds = [
        ReduceKind::Mean,
        ReduceKind::Sum,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::Prod,
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::SumSquare,
        ReduceKind::LogSum,
        ReduceKind::LogSumExp,
    ];
    for kind in kinds {
        for (axes, keepdims) in [(vec![1], true), (vec![0, -1], false), (vec![], true)] {
            let positive = matches!(kind, ReduceKind::LogSum | ReduceKind::Prod);
            let mut x =
                if positive { numbers.positive(&[2, 3, 4]) } else { numbers.apart(&[2, 3, 4]) };
            if let (ReduceKind::L1, Data::F32(values)) = (kind, &mut x.data) {
                for it in values {
                    *it += 0.0001;
                }
            }
            let op = Op::Reduce(Reduce { kind, keepdims, noop_with_empty_axes: false });
            check_op(&op, &[x, integers(&axes)], &[0], 1);
        }
    }
}

#[test]
fn moving_elements() {
    let mut numbers = Numbers(11);
    let mut x = |shape: &[usize]| numbers.apart(shape);
    check_op(&Op::Identity, &[x(&[3])], &[0], 1);
    check_op(&Op::Flatten(Flatten { axis: 1 }), &[x(&[2, 3, 4])], &[0], 1);
    check_op(&Op::Reshape(Reshape::default()), &[x(&[2, 6]), integers(&[3, -1])], &[0], 1);
    check_op(&Op::Squeeze, &[x(&[2, 1, 3]), integers(&[1])], &[0], 1);
    check_op(&Op::Unsqueeze, &[x(&[2, 3]), integers(&[1])], &[0], 1);
    check_op(&Op::Transpose(Transpose { perm: vec![2, 0, 1] }), &[x(&[2, 3, 4])], &[0], 1);
    let parts = [x(&[2, 3]), x(&[2, 1]), x(&[2, 2])];
    check_op(&Op::Concat(Concat { axis: 1 }), &parts, &[0, 1, 2], 1);
    check_op(&Op::Split(Split { axis: -1 }), &[x(&[2, 5]), integers(&[2, 3])], &[0], 2);
    check_op(&Op::Split(Split { axis: 1 }), &[x(&[2, 5, 2])], &[0], 3);
    let slice =
        [x(&[4, 6]), integers(&[3, 1]), integers(&[-5, 6]), integers(&[0, 1]), integers(&[-1, 2])];
    check_op(&Op::Slice, &slice, &[0], 1);
    check_op(&Op::Expand, &[x(&[3, 1]), integers(&[2, 3, 4])], &[0], 1);
    let picks = Array { shape: vec![2, 2], data: Data::I64(vec![0, -1, 1, 0]) };
    check_op(&Op::Gather(Gather { axis: 1 }), &[x(&[2, 3, 2]), picks], &[0], 1);
    for mode in [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
        let op = Op::Pad(Pad { mode });
        check_op(&op, &[x(&[2, 3, 4]), integers(&[0, 2, 1, 0, 1, 2])], &[0], 1);
    }
    let fill = Array::f32(&[], vec![0.3]);
    let inputs = [x(&[2, 3]), integers(&[1, 0, 0, -1]), fill];
    check_op(&Op::Pad(Pad { mode: PadMode::Constant }), &inputs, &[0, 2], 1);
}

/// Esser et al. 2020, equations 3 and 5.
#[test]
fn quantization_learns_as_lsq_does() {
    let x = Array::f32(&[7], vec![-3.0, -0.6, 0.1, 0.4, 9.0, 1.8, 1.75]);
    let zero = Array { shape: vec![], data: Data::I8(vec![0]) };
    let it = QuantizeLinear { output_dtype: Some(DType::I4), ..QuantizeLinear::along(0) };
    // On the grid of i4, -8..=7, the first lies below, the fifth and the sixth (7.2) lie above, the last on
    // the limit.
    let scale = Array::f32(&[], vec![0.25]);
    let ops = [Op::QuantizeLinear(it.clone()), Op::DequantizeLinear(it)];
    let inputs = [Some(&x), Some(&scale), Some(&zero)];
    let q = evaluate(&ops[0], &inputs, &[DType::I4]).unwrap().remove(0);
    let y = evaluate(&ops[1], &[Some(&q), Some(&scale), Some(&zero)], &[DType::F32]).unwrap();
    let g = Array::f32(&[7], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let wanted = [true, true, false];
    let given = [Some(&q), Some(&scale), Some(&zero)];
    let back = Context {
        inputs: &given,
        outputs: &[Some(&y[0])],
        gradients: &[Some(&g)],
        wanted: &wanted,
    };
    let from_y = backward(&ops[1], &back).unwrap();
    let there = Context {
        inputs: &inputs,
        outputs: &[Some(&q)],
        gradients: &[from_y[0].as_ref()],
        wanted: &wanted,
    };
    let from_q = backward(&ops[0], &there).unwrap();
    let passed = [0.0, 2.0, 3.0, 4.0, 0.0, 0.0, 7.0];
    assert_eq!(from_q[0].as_ref().unwrap().as_f32().unwrap(), passed);
    let of_scale: f32 =
        [&from_y[1], &from_q[1]].map(|it| it.as_ref().unwrap().to_f32()[0]).iter().sum();
    let steps: [f32; 7] = [-8.0, -2.0 + 2.4, 0.0 - 0.4, 2.0 - 1.6, 7.0, 7.0, 0.0];
    let expected: f32 = steps.iter().zip(g.to_f32()).map(|(a, b)| a * b).sum();
    assert!((of_scale - expected).abs() < 1e-4, "{of_scale}, not {expected}");
}
