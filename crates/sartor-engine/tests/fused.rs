//! Operators that are made of others: the prepared program, which takes them apart, gives what the reference
//! gives, which does not; and the numbers of the definitions.

use sartor_engine::{Array, Data, Options, Program, run_reference};
use sartor_ir::{Attr, Attrs, Graph, Named, Op, TensorType};

/// Numbers that repeat on each run, of every sign, from -2 to 2.
fn floats(shape: &[usize], seed: u32) -> Array {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    let count = shape.iter().product();
    Array::f32(shape, (0..count).map(|_| next()).collect())
}

fn bytes(shape: &[usize], seed: u32) -> Array {
    let numbers = floats(shape, seed).to_f32();
    let one = |it: f32| ((it + 2.0) * 63.9) as u8;
    Array { shape: shape.to_vec(), data: Data::U8(numbers.into_iter().map(one).collect()) }
}

fn scale(value: f32) -> Array {
    Array::f32(&[], vec![value])
}

fn zero(value: u8) -> Array {
    Array::scalar(Data::U8(vec![value]))
}

/// A graph of one operator with these inputs.
fn graph(domain: &str, name: &str, attributes: Attrs, inputs: &[Option<Array>], n: usize) -> Graph {
    let mut graph = Graph::new(name);
    let mut given = Vec::new();
    for (i, array) in inputs.iter().enumerate() {
        given.push(array.as_ref().map(|it| {
            let ty = TensorType::fixed(it.dtype(), &it.shape);
            graph.add_input(&format!("x{i}"), ty).unwrap()
        }));
    }
    let op = Op::Named(Named { domain: domain.into(), name: name.into(), version: 1, attributes });
    let outputs: Vec<_> =
        (0..n).map(|i| graph.add_value(&format!("y{i}"), None).unwrap()).collect();
    let node = sartor_ir::Node {
        name: name.into(),
        doc: String::new(),
        op,
        inputs: given,
        outputs: outputs.iter().copied().map(Some).collect(),
        captures: Vec::new(),
    };
    graph.push_node(node).unwrap();
    graph.set_outputs(outputs);
    graph
}

/// Runs the operator both ways, compares, and gives the outputs.
fn both_ways(name: &str, attributes: Attrs, inputs: Vec<Option<Array>>, n: usize) -> Vec<Array> {
    let graph = graph("com.microsoft", name, attributes, &inputs, n);
    let arrays: Vec<_> = inputs.into_iter().flatten().collect();
    let shapes: Vec<_> = arrays.iter().map(|it| it.shape.clone()).collect();
    let expected = run_reference(&graph, &arrays).unwrap_or_else(|it| panic!("{name}: {it}"));
    let program = Program::prepare(&graph, &shapes, &Options::default())
        .unwrap_or_else(|it| panic!("{name}: {it}"));
    let found = program.run(&arrays).unwrap_or_else(|it| panic!("{name}: {it}"));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found.shape, found.dtype()), (&expected.shape, expected.dtype()), "{name}");
        for (a, b) in found.to_f64().into_iter().zip(expected.to_f64()) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{name}: {a}, not {b}");
        }
    }
    expected
}

fn text(value: &str) -> Attr {
    Attr::Str(value.into())
}

#[test]
fn activations_are_fused_by_name() {
    let conv = |attrs: Attrs, z: bool| {
        let z = z.then(|| floats(&[2, 6, 7, 7], 4));
        let inputs = vec![
            Some(floats(&[2, 4, 7, 7], 1)),
            Some(floats(&[6, 2, 3, 3], 2)),
            Some(floats(&[6], 3)),
            z,
        ];
        let attrs = attrs.with("group", Attr::Int(2)).with("pads", Attr::Ints(vec![1; 4]));
        both_ways("FusedConv", attrs, inputs, 1)
    };
    let plain = conv(Attrs::new(), false)[0].to_f32();
    let check = |attrs: Attrs, f: &dyn Fn(f32) -> f32| {
        let made = conv(attrs, false)[0].to_f32();
        assert!(made.iter().zip(&plain).all(|(a, &b)| (a - f(b)).abs() < 1e-5));
    };
    let with = |name: &str, list: &[f32]| {
        Attrs::new()
            .with("activation", text(name))
            .with("activation_params", Attr::Floats(list.to_vec()))
    };
    check(Attrs::new().with("activation", text("Relu")), &|it| it.max(0.0));
    check(with("LeakyRelu", &[0.1]), &|it| if it < 0.0 { 0.1 * it } else { it });
    check(with("Clip", &[-0.5, 1.0]), &|it| it.clamp(-0.5, 1.0));
    check(with("HardSigmoid", &[0.3, 0.4]), &|it| (0.3 * it + 0.4).clamp(0.0, 1.0));
    conv(Attrs::new().with("activation", text("Relu")), true);
    for name in ["Conv", "Nonsense"] {
        let attrs = Attrs::new().with("activation", text(name));
        let inputs = [Some(floats(&[1, 1, 1], 1)), Some(floats(&[1, 1, 1], 2))];
        let graph = graph("com.microsoft", "FusedConv", attrs, &inputs, 1);
        assert!(Program::prepare(&graph, &[vec![1; 3], vec![1; 3]], &Options::default()).is_err());
    }
}

#[test]
fn products() {
    let gemm = Attrs::new().with("activation", text("Tanh")).with("transB", Attr::Int(1));
    let inputs = vec![Some(floats(&[3, 5], 1)), Some(floats(&[4, 5], 2)), Some(floats(&[4], 3))];
    both_ways("FusedGemm", gemm.with("alpha", Attr::Float(0.5)), inputs, 1);
    let flags = ["transA", "transB", "transBatchB"];
    let attrs = flags.iter().fold(Attrs::new(), |attrs, it| attrs.with(it, Attr::Int(1)));
    let inputs = vec![Some(floats(&[2, 3, 5, 4], 1)), Some(floats(&[6, 2, 3, 5], 2))];
    let made = both_ways("FusedMatMul", attrs.with("alpha", Attr::Float(2.0)), inputs, 1);
    assert_eq!(made[0].shape, [2, 3, 4, 6]);
    let inputs = vec![
        Some(bytes(&[3, 5], 1)),
        Some(scale(0.05)),
        Some(zero(120)),
        Some(bytes(&[5, 4], 2)),
        Some(Array::f32(&[4], vec![0.01, 0.02, 0.03, 0.04])),
        Some(zero(90)),
        None,
        Some(scale(0.5)),
        Some(zero(100)),
    ];
    both_ways("QGemm", Attrs::new(), inputs.clone(), 1);
    both_ways("QGemm", Attrs::new(), inputs[..6].to_vec(), 1);
    let inputs =
        vec![Some(floats(&[3, 5], 1)), Some(bytes(&[5, 4], 2)), Some(scale(0.1)), Some(zero(9))];
    both_ways("DynamicQuantizeMatMul", Attrs::new(), inputs, 1);
}

/// Weights of four bits: `(q - 8) / 2`, or with a zero point of a block.
#[test]
fn weights_of_few_bits() {
    let sizes = [("N", 1), ("K", 3), ("block_size", 2), ("bits", 4)];
    let attrs = sizes.iter().fold(Attrs::new(), |attrs, it| attrs.with(it.0, Attr::Int(it.1)));
    let packed = Array { shape: vec![1, 2, 1], data: Data::U8(vec![0x4a, 0x0c]) };
    let inputs = vec![
        Some(Array::f32(&[2, 3], vec![1., 0., 0., 1., 1., 1.])),
        Some(packed),
        Some(Array::f32(&[1, 2], vec![0.5, 2.0])),
    ];
    let made = both_ways("MatMulNBits", attrs.clone(), inputs.clone(), 1);
    // 0xa - 8 = 2, 4 - 8 = -4, 0xc - 8 = 4.
    assert_eq!(made[0], Array::f32(&[2, 1], vec![1.0, 7.0]));
    let zeros = Array { shape: vec![1, 1], data: Data::U8(vec![0x2a]) };
    let made = both_ways("MatMulNBits", attrs, [inputs, vec![Some(zeros)]].concat(), 1);
    // 0xa - 0xa = 0, 4 - 0xa = -6, 0xc - 2 = 10.
    assert_eq!(made[0], Array::f32(&[2, 1], vec![0.0, 17.0]));
}

#[test]
fn quantized_operators_go_through_floats() {
    let a = Array { shape: vec![4], data: Data::U8(vec![0, 10, 20, 255]) };
    let b = Array { shape: vec![1], data: Data::U8(vec![30]) };
    let operand =
        |array: &Array, s: f32, z: u8| vec![Some(array.clone()), Some(scale(s)), Some(zero(z))];
    let result = vec![Some(scale(0.5)), Some(zero(5))];
    let inputs = [operand(&a, 0.25, 10), operand(&b, 0.5, 20), result.clone()].concat();
    // a is -2.5, 0, 2.5 and 61.25, b is 5.
    let add = both_ways("QLinearAdd", Attrs::new(), inputs.clone(), 1);
    // 132.5 is halfway; with the zero point, 137.5, its even neighbour is above.
    assert_eq!(add[0].data, Data::U8(vec![10, 15, 20, 138]));
    let mul = both_ways("QLinearMul", Attrs::new(), inputs, 1);
    assert_eq!(mul[0].data, Data::U8(vec![0, 5, 30, 255]));
    let leaky = Attrs::new().with("alpha", Attr::Float(0.4));
    let inputs = [operand(&a, 0.25, 10), result.clone()].concat();
    let made = both_ways("QLinearLeakyRelu", leaky, inputs, 1);
    assert_eq!(made[0].data, Data::U8(vec![3, 5, 10, 127]));
    let inputs = [result.clone(), operand(&a, 0.25, 10), operand(&b, 0.5, 20)].concat();
    let made = both_ways("QLinearConcat", Attrs::new().with("axis", Attr::Int(0)), inputs, 1);
    assert_eq!(made[0].data, Data::U8(vec![0, 5, 10, 127, 15]));
    let image = |shape: &[usize]| [operand(&bytes(shape, 3), 0.25, 10), result.clone()].concat();
    let last = Attrs::new().with("channels_last", Attr::Int(1));
    let made = both_ways("QLinearGlobalAveragePool", last.clone(), image(&[2, 3, 5, 4]), 1);
    assert_eq!(made[0].shape, [2, 1, 1, 4]);
    let pool = last.with("kernel_shape", Attr::Ints(vec![2, 2]));
    let made = both_ways("QLinearAveragePool", pool, image(&[2, 3, 5, 4]), 1);
    assert_eq!(made[0].shape, [2, 2, 4, 4]);
    let old = Attrs::new().with("opset", Attr::Int(11)).with("axis", Attr::Int(1));
    both_ways("QLinearSoftmax", old, image(&[2, 3, 4]), 1);
}

#[test]
fn convolution_of_bytes() {
    let x = Array { shape: vec![1, 1, 1, 3], data: Data::U8(vec![12, 10, 8]) };
    let w = Array { shape: vec![2, 1, 1, 2], data: Data::I8(vec![1, 2, -3, 4]) };
    let bias = Array { shape: vec![2], data: Data::I32(vec![0, 10]) };
    let per_filter = Array::f32(&[2], vec![0.5, 0.25]);
    let zeros = Array { shape: vec![2], data: Data::I8(vec![0, 1]) };
    let inputs = vec![
        Some(x),
        Some(scale(1.0)),
        Some(zero(10)),
        Some(w),
        Some(per_filter),
        Some(zeros),
        Some(scale(1.0)),
        Some(zero(100)),
        Some(bias),
    ];
    let attrs = Attrs::new().with("pads", Attr::Ints(vec![0, 0, 0, 1]));
    let made = both_ways("QLinearConv", attrs, inputs, 1);
    // x is 2, 0, -2 and a pad of 0; the filters are [1, 2] and [-4, 3].
    // Sums: 2, -4, -2 and 10 - 8, 10 - 6, 10 + 8; halves and quarters go to the even neighbour.
    assert_eq!(made[0].data, Data::U8(vec![101, 98, 99, 100, 101, 104]));
}

#[test]
fn transformers() {
    let x = floats(&[2, 3, 8], 1);
    let gamma = Some(floats(&[8], 3));
    both_ways(
        "SkipSimplifiedLayerNormalization",
        Attrs::new(),
        vec![Some(x.clone()), Some(x.clone()), gamma],
        4,
    );
    let weights = Some(floats(&[8, 24], 5));
    let bias = Some(floats(&[24], 6));
    let mask = Some(Array { shape: vec![2], data: Data::I32(vec![2, 3]) });
    let heads = Attrs::new().with("num_heads", Attr::Int(2));
    let made = both_ways("Attention", heads.clone(), vec![Some(x.clone()), weights, bias, mask], 2);
    assert_eq!(made[1].shape, [2, 2, 2, 3, 4]);
    // One key only: each value comes back.
    let (q, k, v) = (floats(&[1, 3, 4], 1), floats(&[1, 1, 4], 2), floats(&[1, 1, 4], 3));
    let made = both_ways("MultiHeadAttention", heads, vec![Some(q), Some(k), Some(v.clone())], 1);
    let expected = [v.to_f32(), v.to_f32(), v.to_f32()].concat();
    assert!(made[0].to_f32().iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));
}
