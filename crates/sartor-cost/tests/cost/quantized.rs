//! Quantized graphs, fallbacks, residence and sparsity.

use sartor_chip::{Chip, NumberType, find};
use sartor_cost::{CostError, Estimate, Options, Precision, Resource, RunsOn, estimate};
use sartor_ir::{Binary, DType, Graph, Op, Tensor, TensorType, Unary};

use crate::graphs::{conv, image, int8_weights, one_conv, quantized};

const AS_IS: Options = Options { batch: 1, precision: Precision::AsIs };

fn price(graph: &Graph, chip: &str) -> Estimate {
    estimate(graph, &find(chip).unwrap(), &AS_IS).unwrap()
}

/// `x → Q → DQ → Conv (int8) → Relu → Q → DQ → y`, activations of the type of `zero`.
fn qdq(zero: &Tensor) -> Graph {
    let mut graph = Graph::new("qdq");
    let x = image(&mut graph, 16, 16);
    let x = quantized(&mut graph, x, zero.clone(), "in");
    let w = int8_weights(&mut graph, &[32, 16, 3, 3], "w");
    let y = conv(&mut graph, x, w, 3, 1, "conv");
    let y = graph.add_node("relu", Op::Unary(Unary::Relu), &[y], &["relu.y"]).unwrap()[0];
    let y = quantized(&mut graph, y, zero.clone(), "out");
    graph.set_outputs(vec![y]);
    graph
}

#[test]
fn quantizing_nodes_melt_into_integer_neighbours_and_cost_traffic_elsewhere() {
    let found = price(&qdq(&Tensor::from_u8(&[], &[0])), "intel-xeon-icx");
    assert_eq!(found.precision, "i8 weights with u8 activations, the file's own (1 operators)");
    let by = |name: &str| found.nodes.iter().find(|it| it.name == name).unwrap();
    for (name, runs, bytes) in [
        ("in.q", RunsOn::Chip, 4096 * 4 + 4096),
        ("in.dq", RunsOn::Nowhere, 0),
        ("w.dq", RunsOn::Nowhere, 0),
        ("conv", RunsOn::Chip, 4096 + 8192),
        ("relu", RunsOn::Nowhere, 0),
        ("out.q", RunsOn::Nowhere, 0),
        ("out.dq", RunsOn::Chip, 8192 + 8192 * 4),
    ] {
        assert_eq!((by(name).runs_on, by(name).activation_bytes.0), (runs, bytes), "{name}");
    }
    assert_eq!(
        found.weight_bytes.0,
        4608 + 5 + 5,
        "int8 weights, and scale and zero point of the two that run"
    );
    assert_eq!(found.peak_memory.0, 8192 + 32_768);
}

#[test]
fn signed_activations_run_at_the_speed_that_was_measured_for_them() {
    let signed = price(&qdq(&Tensor::from_i8(&[], &[0])), "intel-xeon-icx");
    assert!(signed.precision.contains("0.6 of the speed of f32"), "{}", signed.precision);
    let conv = signed.nodes.iter().find(|it| it.op == "Conv").unwrap();
    let float = 1_179_648.0 * (13.0 * 40.0 / 512.0) / (1280.0 * 0.7) / 2.3e9;
    assert!((conv.times[0].1.0 / (float / 0.6) - 1.0).abs() < 1e-9);
}

#[test]
fn totals_are_the_sums_of_the_nodes() {
    for entry in sartor_chip::library() {
        let chip = entry.chip().unwrap();
        let found = estimate(&qdq(&Tensor::from_u8(&[], &[0])), &chip, &AS_IS).unwrap();
        let nodes: f64 = found.nodes.iter().map(|it| it.latency.0).sum();
        let sum = nodes + chip.invoke().0;
        let shares: f64 = found.shares.iter().map(|it| it.1.0).sum();
        assert!((sum - found.latency.0).abs() < 1e-15, "{}", entry.id);
        assert!((shares - found.latency.0).abs() < 1e-12, "{}", entry.id);
        assert_eq!(found.macs.0, found.nodes.iter().map(|it| it.macs.0).sum::<u64>());
        assert!(found.nodes.iter().all(|it| (0.0..=1.0).contains(&it.utilisation)), "{}", entry.id);
    }
}

/// `Relu`, then `Erf` that no NPU of the library runs, then `Relu`.
fn with_erf() -> Graph {
    let mut graph = Graph::new("erf");
    let mut value = image(&mut graph, 16, 16);
    for (name, op) in [("a", Unary::Abs), ("b", Unary::Erf), ("c", Unary::Relu)] {
        value = graph.add_node(name, Op::Unary(op), &[value], &[&format!("{name}.y")]).unwrap()[0];
    }
    graph.set_outputs(vec![value]);
    graph
}

#[test]
fn what_the_chip_does_not_run_is_named_and_its_transfers_are_counted() {
    // The host takes 4096 int8 values and gives them back, through 4 GB/s of SRAM.
    let ethos = price(&with_erf(), "arm-ethos-u55-128");
    let runs: Vec<_> = ethos.nodes.iter().map(|it| it.runs_on).collect();
    assert_eq!(runs, [RunsOn::Chip, RunsOn::Host, RunsOn::Chip]);
    assert!((ethos.nodes[1].latency.0 - 8192.0 / 4e9).abs() < 1e-15);
    assert!(
        ethos.fallbacks[0].starts_with("`b`: arm-ethos-u55-128 does not run Erf"),
        "{:?}",
        ethos.fallbacks
    );
    // Abs is the first that the Edge TPU does not run: everything is on the host, the 4096 values of the input cross USB.
    let edge = price(&with_erf(), "google-coral-edgetpu");
    assert!(edge.nodes.iter().all(|it| it.runs_on == RunsOn::Host));
    assert_eq!((edge.fallbacks.len(), &edge.bound), (1, &Resource::Fallback));
    assert!((edge.latency.0 - 4096.0 / 0.3e9).abs() < 1e-12, "{}", edge.latency);
    assert!(price(&with_erf(), "nvidia-a100").fallbacks.is_empty());
}

#[test]
fn a_chip_may_refuse() {
    let text = include_str!("../../../sartor-chip/chips/arm-ethos-u55-128.toml");
    let chip = Chip::parse("strict", &text.replace("\"cpu_per_op\"", "\"reject\"")).unwrap();
    let error = estimate(&with_erf(), &chip, &AS_IS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "chip `arm-ethos-u55-128` refuses the network for node `b` (Erf): replace the operator"
    );
}

#[test]
fn a_pattern_of_zeros_pays_only_where_it_holds() {
    let graph = |pattern: [f32; 4]| {
        let mut graph = one_conv(64, 128, 1, 1);
        let values: Vec<f32> = pattern.into_iter().cycle().take(64 * 128).collect();
        let w = graph.find_value("w").unwrap();
        graph.set_constant(w, Tensor::from_f32(&[128, 64, 1, 1], &values));
        graph
    };
    let options = Options { batch: 1, precision: Precision::As(NumberType::I8, NumberType::I8) };
    let chip = find("nvidia-a100").unwrap();
    let cost = |pattern| estimate(&graph(pattern), &chip, &options).unwrap().nodes.remove(0);
    let (dense, sparse) = (cost([1.0; 4]), cost([1.0, 0.0, -0.0, 1.0]));
    assert!((dense.times[0].1 / sparse.times[0].1 - 2.0).abs() < 1e-9);
    // 4 of 8 bytes, and 2 bits of position for each.
    assert_eq!((dense.weight_bytes.0, sparse.weight_bytes.0), (8192, 5120));
    assert_eq!(cost([1.0, 0.0, 1.0, 1.0]).times, dense.times);
    // On an Ethos-U55 zeros shrink what is stored, and no cycle; a U85 skips them.
    let ethos = |pattern| price(&graph(pattern), "arm-ethos-u55-128").nodes.remove(0);
    assert!(ethos([1.0, 0.0, 1.0, 0.0]).weight_bytes < ethos([0.9, 0.1, 0.7, 0.3]).weight_bytes);
    assert_eq!(ethos([1.0, 0.0, 1.0, 0.0]).times[0], ethos([1.0; 4]).times[0]);
    let u85 = |pattern| price(&graph(pattern), "arm-ethos-u85-256").nodes.remove(0);
    assert_eq!(u85([1.0, 0.0, 1.0, 0.0]).note, "the array skips 2:4 zeros");
    assert_eq!(u85([1.0; 4]).note, "");
}

#[test]
fn weights_beyond_the_chips_memory_are_streamed() {
    let text = include_str!("../../../sartor-chip/chips/google-coral-edgetpu.toml");
    let small = Chip::parse("small", &text.replace("v = 8_388_608", "v = 13_000")).unwrap();
    let graph = one_conv(16, 32, 3, 1);
    let large = price(&graph, "google-coral-edgetpu");
    assert_eq!((large.weights.memory.as_str(), large.weights.fits), ("sram", true));
    // 12 288 bytes of activations leave 712 for 4608 bytes of weights.
    let small = estimate(&graph, &small, &AS_IS).unwrap();
    assert_eq!(small.weights.memory, "usb");
    assert_eq!(small.nodes[0].bound, Resource::Memory("usb".to_owned()));
    assert!(
        (small.nodes[0].latency.0 - (9.0 * 382.0 / 0.8 / 480e6 + 4608.0 / 0.3e9)).abs() < 1e-12
    );
}

#[test]
fn residual_additions_are_traffic_and_their_activation_melts() {
    let mut graph = Graph::new("residual");
    let x = image(&mut graph, 16, 16);
    let w = graph.add_constant("w", Tensor::from_f32(&[16, 16, 3, 3], &[0.5; 2304])).unwrap();
    let y = conv(&mut graph, x, w, 3, 1, "conv");
    let y = graph.add_node("add", Op::Binary(Binary::Add), &[y, x], &["add.y"]).unwrap()[0];
    let y = graph.add_node("relu", Op::Unary(Unary::Relu), &[y], &["y"]).unwrap()[0];
    graph.set_outputs(vec![y]);
    let found = price(&graph, "arm-ethos-u55-128");
    assert_eq!(found.nodes[1].activation_bytes.0, 3 * 4096);
    assert!((found.nodes[1].times[0].1.0 - 1.5 * 4096.0 / 500e6).abs() < 1e-15);
    assert_eq!(found.nodes[2].runs_on, RunsOn::Nowhere);
    assert_eq!(found.peak_memory.0, 3 * 4096);
}

#[test]
fn what_cannot_be_priced_says_why() {
    let chip = find("arm-ethos-u55-128").unwrap();
    let error = estimate(&one_conv(4, 4, 1, 1), &chip, &Options { batch: 2, ..AS_IS }).unwrap_err();
    assert_eq!(error.to_string(), "chip `arm-ethos-u55-128` takes batches of 1 to 1, found 2");
    let mut graph = Graph::new("open");
    let dims = ["N", "C", "H"].map(sartor_ir::Dim::symbol).to_vec();
    let x = graph.add_input("x", TensorType::new(DType::F32, dims)).unwrap();
    graph.set_outputs(vec![x]);
    let found = estimate(&graph, &chip, &AS_IS).unwrap();
    assert_eq!(
        found.assumptions.len(),
        2,
        "both open extents are assumed: {:?}",
        found.assumptions
    );
    assert!(found.assumptions[0].contains("`C` of input `x` is taken as 512"));
    let graph = Graph::new("shapeless");
    let error = estimate(&shapeless(graph), &chip, &AS_IS).unwrap_err();
    assert!(matches!(error, CostError::UnknownShape { .. }), "{error}");
}

/// A graph whose input has no shape.
fn shapeless(mut graph: Graph) -> Graph {
    let x = graph.add_input("x", TensorType { dtype: DType::F32, shape: None }).unwrap();
    graph.set_outputs(vec![x]);
    graph
}
