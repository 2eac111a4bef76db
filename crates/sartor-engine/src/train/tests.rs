//! Whole steps: graphs with several readers, statistics, dropout, and calls in the wrong order.

use sartor_ir::{
    BatchNormalization, Binary, Conv, DType, Gemm, GlobalPool, Graph, Op, Reshape, Spatial, Tensor,
    TensorType, Unary, ValueId,
};

use super::*;
use crate::Array;

fn wave(n: usize, by: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7 + by).sin()).collect()
}

/// Convolution, normalization and activation with a shortcut, a square and a shared weight, then a linear
/// classifier.
fn network() -> (Graph, Vec<ValueId>) {
    let mut graph = Graph::new("net");
    let x = graph.add_input("x", TensorType::fixed(DType::F32, &[3, 2, 5, 5])).unwrap();
    let constant = |graph: &mut Graph, name: &str, shape: &[usize], by: f32| {
        let values = wave(shape.iter().product(), by);
        graph.add_constant(name, Tensor::from_f32(shape, &values)).unwrap()
    };
    let w = constant(&mut graph, "w", &[4, 2, 3, 3], 0.1);
    let b = constant(&mut graph, "b", &[4], 0.2);
    let shared = constant(&mut graph, "shared", &[4, 4, 1, 1], 0.3);
    let scale = graph.add_constant("scale", Tensor::from_f32(&[4], &[1.0, 0.8, 1.3, 0.5])).unwrap();
    let shift = constant(&mut graph, "shift", &[4], 0.5);
    let mean = graph.add_constant("mean", Tensor::from_f32(&[4], &[0.1; 4])).unwrap();
    let var = graph.add_constant("var", Tensor::from_f32(&[4], &[2.0; 4])).unwrap();
    let head = constant(&mut graph, "head", &[3, 4], 0.6);
    let spatial = Spatial { pads: vec![1; 4], ..Spatial::default() };
    let conv = Op::Conv(Conv { spatial, group: 1 });
    let point = Op::Conv(Conv { spatial: Spatial::default(), group: 1 });
    let norm = Op::BatchNormalization(BatchNormalization { epsilon: 1e-3, momentum: 0.75 });
    let mut node = |op: Op, inputs: &[ValueId], name: &str| {
        graph.add_node(name, op, inputs, &[&format!("{name}_y")]).unwrap()[0]
    };
    let a = node(conv, &[x, w, b], "conv");
    let a = node(norm, &[a, scale, shift, mean, var], "norm");
    let a = node(Op::Unary(Unary::Softplus), &[a], "act");
    let c = node(point.clone(), &[a, shared], "first");
    let c = node(point, &[c, shared], "second");
    let c = node(Op::Binary(Binary::Add), &[c, a], "shortcut");
    let c = node(Op::Binary(Binary::Mul), &[c, c], "square");
    let c = node(Op::GlobalPool(GlobalPool::Average), &[c], "pool");
    let c = node(Op::Flatten(sartor_ir::Flatten { axis: 1 }), &[c], "flat");
    let y = node(
        Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }),
        &[c, head],
        "gemm",
    );
    graph.set_outputs(vec![y, a]);
    (graph, vec![w, b, shared, scale, shift, head])
}

/// The sum of all outputs, weighted.
fn loss(outputs: &[Array]) -> f64 {
    let weighted = |it: &Array| -> f64 {
        let pairs = it.to_f32().into_iter().zip(wave(it.len(), 0.9));
        pairs.map(|(y, w)| f64::from(y) * f64::from(w)).sum()
    };
    outputs.iter().map(weighted).sum()
}

fn check_differences(mode: BatchNormMode) {
    let (graph, ids) = network();
    let options =
        TapeOptions { parameters: ids.clone(), batch_norm: mode, ..TapeOptions::default() };
    let mut tape = Tape::prepare(&graph, &[vec![3, 2, 5, 5]], &options).unwrap();
    let mut parameters = Parameters::from_graph(&graph, &ids).unwrap();
    let x = [Array::f32(&[3, 2, 5, 5], wave(150, 0.0))];
    let outputs = tape.forward(&mut parameters, &x).unwrap();
    let given: Vec<_> =
        outputs.iter().map(|it| Some(Array::f32(&it.shape, wave(it.len(), 0.9)))).collect();
    let mut gradients = Gradients::new(&parameters);
    tape.backward(&parameters, &given, &mut gradients).unwrap();
    for i in 0..ids.len() {
        for at in (0..parameters.get(i).len()).step_by(5) {
            let mut moved = |by: f32| {
                parameters.get_mut(i)[at] += by;
                let made = loss(&tape.forward(&mut parameters, &x).unwrap());
                parameters.get_mut(i)[at] -= by;
                made
            };
            let expected = (moved(4e-3) - moved(-4e-3)) / 8e-3;
            let found = f64::from(gradients.get(i)[at]);
            assert!(
                (found - expected).abs() <= 2e-3 * (1.0 + expected.abs()),
                "{mode:?}: parameter {i} at {at}: {found} where differences give {expected}"
            );
        }
    }
}

#[test]
fn a_step_is_the_derivative_with_batch_statistics() {
    check_differences(BatchNormMode::Train);
}

#[test]
fn a_step_is_the_derivative_with_stored_statistics() {
    check_differences(BatchNormMode::Frozen);
}

#[test]
fn gradients_add_up_over_steps() {
    let (graph, ids) = network();
    let options = TapeOptions { parameters: ids.clone(), ..TapeOptions::default() };
    let mut tape = Tape::prepare(&graph, &[vec![3, 2, 5, 5]], &options).unwrap();
    let mut parameters = Parameters::from_graph(&graph, &ids).unwrap();
    let x = [Array::f32(&[3, 2, 5, 5], wave(150, 0.0))];
    let mut gradients = Gradients::new(&parameters);
    let mut once = Vec::new();
    for _ in 0..2 {
        let outputs = tape.forward(&mut parameters, &x).unwrap();
        let given = [Some(Array::f32(&outputs[0].shape, vec![1.0; outputs[0].len()])), None];
        tape.backward(&parameters, &given, &mut gradients).unwrap();
        once.push(gradients.get(0)[3]);
    }
    assert!((once[1] - 2.0 * once[0]).abs() <= 1e-5 * once[0].abs(), "{once:?}");
    gradients.zero();
    assert!((0..ids.len()).all(|i| gradients.get(i).iter().all(|it| *it == 0.0)));
}

/// Two images of one channel: 1, 3 and 5, 7 have mean 4, variance 5 and unbiased variance 20/3.
#[test]
fn running_statistics_move_towards_those_of_the_batch() {
    let mut graph = Graph::new("norm");
    let x = graph.add_input("x", TensorType::fixed(DType::F32, &[2, 1, 2])).unwrap();
    let one = |graph: &mut Graph, name: &str, value: f32| {
        graph.add_constant(name, Tensor::from_f32(&[1], &[value])).unwrap()
    };
    let inputs = [
        x,
        one(&mut graph, "scale", 1.0),
        one(&mut graph, "shift", 0.0),
        one(&mut graph, "mean", 0.0),
        one(&mut graph, "var", 1.0),
    ];
    let it = BatchNormalization { epsilon: 0.0, momentum: 0.75 };
    let y = graph.add_node("n", Op::BatchNormalization(it), &inputs, &["y"]).unwrap()[0];
    graph.set_outputs(vec![y]);
    let ids = trainable(&graph);
    assert_eq!(ids, inputs[1..3]);
    let mut parameters = Parameters::from_graph(&graph, &ids).unwrap();
    let options = TapeOptions { parameters: ids, ..TapeOptions::default() };
    let mut tape = Tape::prepare(&graph, &[vec![2, 1, 2]], &options).unwrap();
    let made = tape.forward(&mut parameters, &[Array::f32(&[2, 1, 2], vec![1., 3., 5., 7.])]);
    let expected = [-3.0, -1.0, 1.0, 3.0].map(|it: f32| it / 5f32.sqrt());
    for (found, expected) in made.unwrap()[0].to_f32().iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }
    assert!((parameters.statistic(0)[0] - 1.0).abs() < 1e-6);
    assert!((parameters.statistic(1)[0] - (0.75 + 0.25 * 20.0 / 3.0)).abs() < 1e-6);
    parameters.store(&mut graph);
    let stored = graph.constant(inputs[3]).unwrap().to_f32().unwrap();
    assert!((stored[0] - 1.0).abs() < 1e-6);
}

#[test]
fn dropout_zeroes_its_share_and_passes_the_same_mask_back() {
    let mut graph = Graph::new("drop");
    let x = graph.add_input("x", TensorType::fixed(DType::F32, &[4000])).unwrap();
    let w = graph.add_constant("w", Tensor::from_f32(&[1], &[1.0])).unwrap();
    let ratio = graph.add_constant("ratio", Tensor::from_f32(&[], &[0.25])).unwrap();
    let a = graph.add_node("a", Op::Binary(Binary::Mul), &[x, w], &["a"]).unwrap()[0];
    let y = graph.add_node("d", Op::Dropout, &[a, ratio], &["y"]).unwrap()[0];
    graph.set_outputs(vec![y]);
    let mut parameters = Parameters::from_graph(&graph, &[w]).unwrap();
    let options =
        TapeOptions { parameters: vec![w], watch: vec![a], seed: 3, ..TapeOptions::default() };
    let step = |tape: &mut Tape, parameters: &mut Parameters| {
        let made = tape.forward(parameters, &[Array::f32(&[4000], vec![1.0; 4000])]).unwrap();
        let ones = Some(Array::f32(&[4000], vec![1.0; 4000]));
        let mut gradients = Gradients::new(parameters);
        tape.backward(parameters, &[ones], &mut gradients).unwrap();
        assert_eq!(tape.value_gradient(a).unwrap(), &made[0], "the mask is the derivative");
        made[0].to_f32()
    };
    let mut tape = Tape::prepare(&graph, &[vec![4000]], &options).unwrap();
    let (first, second) = (step(&mut tape, &mut parameters), step(&mut tape, &mut parameters));
    assert_ne!(first, second, "each run draws its own mask");
    let kept = first.iter().filter(|it| **it > 0.0).count();
    assert!((2880..3120).contains(&kept), "{kept} of 4000 stay where 3000 should");
    assert!(first.iter().all(|&it| it == 0.0 || (it - 4.0 / 3.0).abs() < 1e-6));
    let mut again = Tape::prepare(&graph, &[vec![4000]], &options).unwrap();
    assert_eq!(step(&mut again, &mut parameters), first, "one seed, one mask");
    again.seek(0);
    assert_eq!(step(&mut again, &mut parameters), first, "one pass, one mask");
}

/// `x` rounded to a scale that learns, 4 bits, times a weight by element.
fn rounded() -> (Graph, ValueId, ValueId) {
    let mut graph = Graph::new("rounded");
    let x = graph.add_input("x", TensorType::fixed(DType::F32, &[2, 3000])).unwrap();
    let scale = graph.add_constant("scale", Tensor::from_f32(&[], &[0.2])).unwrap();
    let zero = Tensor::from_integers(DType::U4, &[], &[5]).unwrap();
    let zero = graph.add_constant("zero", zero).unwrap();
    let w = graph.add_constant("w", Tensor::from_f32(&[3000], &wave(3000, 0.4))).unwrap();
    let op = sartor_ir::QuantizeLinear::along(1);
    let q = Op::QuantizeLinear(op.clone());
    let q = graph.add_node("quantize", q, &[x, scale, zero], &["q"]).unwrap()[0];
    let back = Op::DequantizeLinear(op);
    let y = graph.add_node("dequantize", back, &[q, scale, zero], &["y"]).unwrap()[0];
    let z = graph.add_node("weigh", Op::Binary(Binary::Mul), &[y, w], &["z"]).unwrap()[0];
    graph.set_outputs(vec![z]);
    (graph, x, scale)
}

#[test]
fn a_scale_learns_in_one_step_as_it_does_by_the_readable_rules() {
    let (graph, x, scale) = rounded();
    let options = TapeOptions { parameters: vec![scale], watch: vec![x], ..TapeOptions::default() };
    let input = Array::f32(&[2, 3000], wave(6000, 0.1).iter().map(|it| it * 2.5).collect());
    let run = |mut tape: Tape| {
        let mut parameters = Parameters::from_graph(&graph, &[scale]).unwrap();
        let made = tape.forward(&mut parameters, std::slice::from_ref(&input)).unwrap();
        let mut gradients = Gradients::new(&parameters);
        let given = Some(Array::f32(&[2, 3000], wave(6000, 0.8)));
        tape.backward(&parameters, &[given], &mut gradients).unwrap();
        let of_input = tape.value_gradient(x).unwrap().to_f32();
        (made[0].to_f32(), of_input, f64::from(gradients.get(0)[0]), tape.steps()[0].fast)
    };
    let shapes = [vec![2, 3000]];
    let fast = run(Tape::prepare(&graph, &shapes, &options).unwrap());
    let plain = run(Tape::prepare_readable(&graph, &shapes, &options).unwrap());
    assert!(fast.3 && !plain.3, "the pair is one fast step");
    assert_eq!(fast.0, plain.0);
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs();
    assert!(fast.1.iter().zip(&plain.1).all(close));
    assert!((fast.2 - plain.2).abs() < 1e-3 * plain.2.abs().max(1.0), "{} {}", fast.2, plain.2);
}

#[test]
fn a_share_of_the_elements_stays_unrounded() {
    let (graph, x, scale) = rounded();
    let options = TapeOptions {
        parameters: vec![scale],
        watch: vec![graph.find_value("y").unwrap(), x],
        seed: 9,
        unrounded: 0.25,
        ..TapeOptions::default()
    };
    let input = Array::f32(&[2, 3000], wave(6000, 0.1));
    let mut parameters = Parameters::from_graph(&graph, &[scale]).unwrap();
    let mut run = |tape: &mut Tape| {
        tape.forward(&mut parameters, std::slice::from_ref(&input)).unwrap();
        tape.value(options.watch[0]).unwrap().to_f32()
    };
    let mut tape = Tape::prepare(&graph, &[vec![2, 3000]], &options).unwrap();
    let (first, second) = (run(&mut tape), run(&mut tape));
    assert_ne!(first, second, "each run draws anew");
    let same = first
        .iter()
        .zip(input.as_f32().unwrap())
        .filter(|(y, x)| y.to_bits() == x.to_bits())
        .count();
    assert!((1350..1650).contains(&same), "{same} of 6000 stay where 1500 should");
    tape.seek(0);
    assert_eq!(run(&mut tape), first, "one seed and pass, one choice");
    let readable = Tape::prepare_readable(&graph, &[vec![2, 3000]], &options).unwrap_err();
    assert!(readable.to_string().contains("node `quantize`"), "{readable}");
    let wrong = TapeOptions { unrounded: 1.5, ..options };
    assert!(Tape::prepare(&graph, &[vec![2, 3000]], &wrong).is_err());
}

#[test]
fn calls_in_the_wrong_order_are_refused() {
    let (graph, ids) = network();
    let options = TapeOptions { parameters: ids.clone(), ..TapeOptions::default() };
    let mut tape = Tape::prepare(&graph, &[vec![3, 2, 5, 5]], &options).unwrap();
    let mut parameters = Parameters::from_graph(&graph, &ids).unwrap();
    let mut gradients = Gradients::new(&parameters);
    let early = tape.backward(&parameters, &[None, None], &mut gradients);
    assert!(early.unwrap_err().to_string().contains("needs a forward pass"));
    tape.forward(&mut parameters, &[Array::f32(&[3, 2, 5, 5], wave(150, 0.0))]).unwrap();
    let wrong = [Some(Array::f32(&[2], vec![0.0; 2])), None];
    let wrong = tape.backward(&parameters, &wrong, &mut gradients);
    assert!(wrong.unwrap_err().to_string().contains("output 0 must be f32 [3, 3]"));
    let mut others = Parameters::from_graph(&graph, &ids[1..]).unwrap();
    assert!(tape.forward(&mut others, &[]).is_err());
    let twice = Parameters::from_graph(&graph, &[ids[0], ids[0]]);
    assert!(twice.unwrap_err().to_string().contains("given twice"));
}

#[test]
fn what_learns_is_found_by_role() {
    let (mut graph, ids) = network();
    assert_eq!(trainable(&graph), ids);
    // A weight behind a reshape learns; a mask and what meets the input directly do not.
    let weight = graph.add_constant("v", Tensor::from_f32(&[9], &wave(9, 0.0))).unwrap();
    let shape = graph.add_constant("s", Tensor::from_i64(&[2], &[3, 3])).unwrap();
    let mask = graph.add_constant("mask", Tensor::from_f32(&[2], &[0.0, -1e9])).unwrap();
    let mean = graph.add_constant("mu", Tensor::from_f32(&[2, 1, 1], &[0.4, 0.5])).unwrap();
    let v =
        graph.add_node("r", Op::Reshape(Reshape::default()), &[weight, shape], &["r"]).unwrap()[0];
    let m = graph.add_node("m", Op::MatMul, &[v, v], &["m"]).unwrap()[0];
    graph.add_node("a", Op::Binary(Binary::Add), &[m, mask], &["a"]).unwrap();
    let x = graph.inputs()[0];
    graph.add_node("z", Op::Binary(Binary::Sub), &[x, mean], &["z"]).unwrap();
    assert_eq!(trainable(&graph), [ids.as_slice(), &[weight]].concat());
}
