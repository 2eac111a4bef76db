//! MACs of operators that multiply, counted by hand, and what recurrence, control flow and the host do to time.

use sartor_chip::{Chip, find};
use sartor_cost::{Estimate, Options, Precision, Resource, RunsOn, estimate, macs};
use sartor_ir::{Attr, Attrs, DType, Graph, Named, Node, Op, Tensor, TensorType, Transpose};

use crate::graphs::one_conv;

const AS_IS: Options = Options { batch: 1, precision: Precision::AsIs };

/// What an operand is: activations or a constant.
enum Operand {
    Moving(DType, &'static [usize]),
    Fixed(DType, &'static [usize]),
}
use Operand::{Fixed, Moving};

/// One operator by name.
fn one(domain: &str, name: &str, attributes: Attrs, operands: &[Operand], outputs: usize) -> Graph {
    let mut graph = Graph::new(name);
    let mut inputs = Vec::new();
    for (i, operand) in operands.iter().enumerate() {
        inputs.push(match operand {
            Moving(dtype, shape) => {
                Some(graph.add_input(&format!("x{i}"), TensorType::fixed(*dtype, shape)).unwrap())
            }
            Fixed(dtype, shape) => {
                let bytes = dtype.bytes_for(shape.iter().product()).unwrap();
                let tensor = Tensor::new(*dtype, shape.to_vec(), vec![1u8; bytes]).unwrap();
                Some(graph.add_constant(&format!("w{i}"), tensor).unwrap())
            }
        });
    }
    let made: Vec<_> =
        (0..outputs).map(|i| graph.add_value(&format!("y{i}"), None).unwrap()).collect();
    let op = Named { domain: domain.to_owned(), name: name.to_owned(), version: 1, attributes };
    let node = Node {
        name: name.to_owned(),
        doc: String::new(),
        op: Op::Named(op),
        inputs,
        outputs: made.iter().copied().map(Some).collect(),
        captures: Vec::new(),
    };
    graph.push_node(node).unwrap();
    graph.set_outputs(made);
    graph
}

fn ints(pairs: &[(&str, i64)]) -> Attrs {
    pairs.iter().fold(Attrs::new(), |attrs, (name, value)| attrs.with(name, Attr::Int(*value)))
}

/// The MACs of graphs, by themselves and on a chip.
fn check(rows: Vec<(Graph, u64)>) {
    for (graph, expected) in rows {
        assert_eq!(macs(&graph, 1).unwrap().0, expected, "{}", graph.name);
        let found = estimate(&graph, &find("nvidia-a100").unwrap(), &AS_IS).unwrap();
        assert_eq!(found.macs.0, expected, "{}", graph.name);
    }
}

const MS: &str = "com.microsoft";

#[test]
fn macs_of_recurrence_attention_and_sums_by_name() {
    use DType::F32;
    let hidden = || ints(&[("hidden_size", 8), ("layout", 1)]);
    let both = || hidden().with("direction", Attr::Str("bidirectional".to_owned()));
    let equation = |text: &str| Attrs::new().with("equation", Attr::Str(text.to_owned()));
    check(vec![
        // 5 steps, batch 1: inputs 5 · 3 · 32, states 5 · 8 · 32.
        (
            one(
                "",
                "LSTM",
                hidden(),
                &[Moving(F32, &[1, 5, 3]), Fixed(F32, &[1, 32, 3]), Fixed(F32, &[1, 32, 8])],
                1,
            ),
            5 * 3 * 32 + 5 * 8 * 32,
        ),
        // Two directions of three gates.
        (
            one(
                "",
                "GRU",
                both(),
                &[Moving(F32, &[1, 5, 3]), Fixed(F32, &[2, 24, 3]), Fixed(F32, &[2, 24, 8])],
                1,
            ),
            2 * (5 * 3 * 24 + 5 * 8 * 24),
        ),
        // 2 heads of 4: scores 6 · 7 · 4, values 6 · 7 · 5, each twice.
        (
            one(
                "",
                "Attention",
                Attrs::new(),
                &[
                    Moving(F32, &[1, 2, 6, 4]),
                    Moving(F32, &[1, 2, 7, 4]),
                    Moving(F32, &[1, 2, 7, 5]),
                ],
                1,
            ),
            2 * 6 * 7 * (4 + 5),
        ),
        (
            one(
                MS,
                "MultiHeadAttention",
                ints(&[("num_heads", 2)]),
                &[Moving(F32, &[1, 6, 8]), Moving(F32, &[1, 7, 8]), Moving(F32, &[1, 7, 8])],
                1,
            ),
            2 * 6 * 7 * (4 + 4),
        ),
        // 4 × 6 sums of 5.
        (
            one(
                "",
                "Einsum",
                equation("bij,bjk->bik"),
                &[Moving(F32, &[1, 4, 5]), Moving(F32, &[1, 5, 6])],
                1,
            ),
            4 * 5 * 6,
        ),
        (
            one(
                "",
                "Einsum",
                equation("ij,kj->ki"),
                &[Moving(F32, &[1, 5]), Fixed(F32, &[6, 5])],
                1,
            ),
            5 * 6,
        ),
        // 3 × 3 positions, 2 → 4 channels, 2 × 2 taps.
        (
            one(
                "",
                "ConvTranspose",
                Attrs::new(),
                &[Moving(F32, &[1, 2, 3, 3]), Fixed(F32, &[2, 4, 2, 2])],
                1,
            ),
            9 * 2 * 4 * 4,
        ),
    ]);
}

#[test]
fn macs_of_integer_and_packed_products() {
    use DType::{F32, I8, U8};
    check(vec![
        (
            one(
                "",
                "ConvInteger",
                Attrs::new(),
                &[Moving(U8, &[1, 2, 3, 3]), Fixed(I8, &[4, 2, 2, 2])],
                1,
            ),
            4 * 2 * 4 * 4,
        ),
        (
            one("", "MatMulInteger", Attrs::new(), &[Moving(U8, &[1, 6]), Fixed(I8, &[6, 7])], 1),
            6 * 7,
        ),
        (
            one(
                MS,
                "MatMulNBits",
                ints(&[("K", 32), ("N", 5), ("bits", 4), ("block_size", 16)]),
                &[Moving(F32, &[1, 3, 32]), Fixed(U8, &[5, 2, 8]), Fixed(F32, &[10])],
                1,
            ),
            3 * 32 * 5,
        ),
    ]);
}

#[test]
fn macs_of_operators_that_are_made_of_others() {
    use DType::{F32, U8};
    let scale = || Fixed(F32, &[1]);
    let zero = || Fixed(U8, &[1]);
    check(vec![
        (
            one(
                MS,
                "FusedMatMul",
                ints(&[("transB", 1)]),
                &[Moving(F32, &[1, 6]), Fixed(F32, &[7, 6])],
                1,
            ),
            6 * 7,
        ),
        (
            one(
                MS,
                "FusedConv",
                Attrs::new().with("activation", Attr::Str("Relu".to_owned())),
                &[Moving(F32, &[1, 2, 3, 3]), Fixed(F32, &[4, 2, 2, 2])],
                1,
            ),
            4 * 2 * 4 * 4,
        ),
        (
            one(
                "",
                "QLinearConv",
                Attrs::new(),
                &[
                    Moving(U8, &[1, 2, 3, 3]),
                    scale(),
                    zero(),
                    Fixed(U8, &[4, 2, 2, 2]),
                    scale(),
                    zero(),
                    scale(),
                    zero(),
                ],
                1,
            ),
            4 * 2 * 4 * 4,
        ),
        (
            one(
                "",
                "QLinearMatMul",
                Attrs::new(),
                &[
                    Moving(U8, &[1, 6]),
                    scale(),
                    zero(),
                    Fixed(U8, &[6, 7]),
                    scale(),
                    zero(),
                    scale(),
                    zero(),
                ],
                1,
            ),
            6 * 7,
        ),
    ]);
}

#[test]
fn the_recurrent_product_runs_step_by_step() {
    // One row of outputs a step: each step takes a whole tile of the GPU, the projection of all 64 steps takes one.
    let lstm = |steps: &'static [usize]| {
        let operands = [
            Moving(DType::F32, steps),
            Fixed(DType::F32, &[1, 512, 128]),
            Fixed(DType::F32, &[1, 512, 128]),
        ];
        one("", "LSTM", ints(&[("hidden_size", 128), ("layout", 1)]), &operands, 1)
    };
    let chip = find("nvidia-a100").unwrap();
    let compute = |graph: &Graph| estimate(graph, &chip, &AS_IS).unwrap().nodes[0].times[0].1.0;
    let [short, long] = [compute(&lstm(&[1, 1, 128])), compute(&lstm(&[1, 64, 128]))];
    assert!(long > 32.0 * short, "{short} then {long}");
}

#[test]
fn packed_weights_take_the_bytes_of_their_bits() {
    let attributes = ints(&[("K", 32), ("N", 5), ("bits", 4), ("block_size", 16)]);
    let operands =
        [Moving(DType::F32, &[1, 3, 32]), Fixed(DType::U8, &[5, 2, 8]), Fixed(DType::F32, &[10])];
    let graph = one("com.microsoft", "MatMulNBits", attributes, &operands, 1);
    let found = estimate(&graph, &find("intel-xeon-icx").unwrap(), &AS_IS).unwrap();
    // 160 weights of 4 bits, 10 scales.
    assert_eq!(found.weight_bytes.0, 80 + 40);
}

#[test]
fn a_layout_at_the_edge_is_absorbed_where_channels_are_last() {
    // Channels last outside, first inside: as exporters of TensorFlow write it.
    let mut graph = Graph::new("edge");
    let x = graph.add_input("x", TensorType::fixed(DType::F32, &[1, 16, 16, 16])).unwrap();
    let perm = Op::Transpose(Transpose { perm: vec![0, 3, 1, 2] });
    let x = graph.add_node("in", perm, &[x], &["x.t"]).unwrap()[0];
    let w = graph.add_constant("w", Tensor::from_f32(&[32, 16, 3, 3], &vec![0.5; 4608])).unwrap();
    let y = crate::graphs::conv(&mut graph, x, w, 3, 1, "conv");
    let perm = Op::Transpose(Transpose { perm: vec![0, 2, 3, 1] });
    let y = graph.add_node("out", perm, &[y], &["y"]).unwrap()[0];
    graph.set_outputs(vec![y]);
    let runs = |chip: &str| {
        let found = estimate(&graph, &find(chip).unwrap(), &AS_IS).unwrap();
        found.nodes.iter().map(|it| it.runs_on).collect::<Vec<_>>()
    };
    assert_eq!(runs("google-coral-edgetpu"), [RunsOn::Nowhere, RunsOn::Chip, RunsOn::Nowhere]);
    assert_eq!(runs("nvidia-a100"), [RunsOn::Chip; 3]);
}

/// `base` with another id and more keys.
fn extended(base: &str, more: &str) -> Chip {
    let text = format!(
        "schema = 1\nextends = \"{base}\"\nsrc = \"test\"\n[chip]\nid = \"more\"\n[sources]\ntest = \"a test\"\n{more}"
    );
    Chip::parse("more", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn price(graph: &Graph, chip: &Chip) -> Estimate {
    estimate(graph, chip, &AS_IS).unwrap()
}

#[test]
fn the_hosts_time_is_counted_where_the_chip_describes_its_host() {
    let host = "[[core.engine]]\nname = \"host\"\nhost = true\nmodel = \"simd\"\ncores = 1\nefficiency = 1.0\ncore_hz = 1e9\n\
                [[core.engine.mode]]\nweights = \"f32\"\nactivations = \"f32\"\nmacs_per_cycle = 2\naccumulator_bits = 32\n\
                overflow = \"float\"\nunroll = { k = 1, n = 1 }\ngrain = 1\n\
                [core.operators]\nallow = [\"Relu\"]\n";
    let chip = extended("google-coral-edgetpu", host);
    let found = price(&one_conv(16, 32, 3, 1), &chip);
    let conv = &found.nodes[0];
    assert_eq!((conv.runs_on, &conv.bound), (RunsOn::Host, &Resource::Host));
    // 1 179 648 MACs at 2 a nanosecond, and the 4096 values of the input over USB.
    let expected = 1_179_648.0 / 2e9 + 4096.0 / 0.3e9;
    assert!((found.latency.0 / expected - 1.0).abs() < 1e-9, "{} {expected}", found.latency);
    assert!(
        found.fallbacks[0].ends_with("the host's own time is counted"),
        "{:?}",
        found.fallbacks
    );
}

#[test]
fn limits_send_large_operators_away() {
    let chip = extended(
        "arm-ethos-u55-128",
        "[[core.operators.limit]]\nops = [\"Conv\"]\nkernel_max = 3\n",
    );
    let runs = |kernel| price(&one_conv(16, 32, kernel, 1), &chip).nodes.remove(0);
    assert_eq!(runs(3).runs_on, RunsOn::Chip);
    let large = runs(5);
    assert_eq!(large.runs_on, RunsOn::Host);
    assert!(large.note.contains("kernel extent 5 above 3"), "{}", large.note);
}

#[test]
fn activations_that_do_not_fit_spill_and_large_layers_are_tiled() {
    // 16 kB of input, 32 kB of output, 18 kB of weights in floats; 20 kB near, the rest in flash and a far memory.
    let memory = |bytes: u64| {
        format!(
            "[[system.memory]]\nname = \"near\"\ncapacity_bytes = {bytes}\nread_bytes_per_s = 1e12\nwrite_bytes_per_s = 1e12\n\
             holds = [\"activations\"]\n[[system.memory]]\nname = \"far\"\nread_bytes_per_s = 1e9\nwrite_bytes_per_s = 1e9\n\
             holds = [\"weights\", \"activations\"]\n"
        )
    };
    let moved = |bytes: u64| {
        let text = memory(bytes);
        let text = format!(
            "schema = 1\nsrc = \"test\"\n[chip]\nid = \"tiled\"\nname = \"tiled\"\nvendor = \"test\"\nclass = \"npu\"\n\
             [sources]\ntest = \"a test\"\n[system]\ncore_hz = 1e9\n{text}\
             [core]\n[core.arithmetic]\nscale = \"float\"\nrounding = \"half_even\"\nbias_bits = 32\n\
             [[core.engine]]\nname = \"array\"\nmodel = \"roofline\"\ncores = 1\nefficiency = 1.0\n\
             [[core.engine.mode]]\nweights = \"f32\"\nactivations = \"f32\"\nmacs_per_cycle = 1000\naccumulator_bits = 32\n\
             overflow = \"float\"\nunroll = {{ k = 1, n = 1 }}\ngrain = 1\n\
             [core.operators]\nfallback = \"split\"\n\
             [runtime]\ntoolchain = \"none\"\naccepts = [\"onnx\"]\ncommand = \"none {{model}}\"\n"
        );
        let chip = Chip::parse("tiled", &text).unwrap_or_else(|error| panic!("{error}"));
        let found = price(&one_conv(16, 32, 3, 1), &chip);
        let far = found.nodes[0].moved.iter().find(|it| it.0 == "far").map_or(0, |it| it.1.0);
        (far, found.activations.spilled.0, found.activations.memory)
    };
    let (input, output, weights) = (16_384, 32_768, 18_432);
    // All activations fit: weights alone come from far.
    assert_eq!(moved(49_152), (weights, 0, "near".to_owned()));
    // They do not: all three are far, and half of 20 kB takes the weights in two parts, the input in two: the input is read twice.
    assert_eq!(moved(20_000), (weights + output + 2 * input, input + output, "far".to_owned()));
}
