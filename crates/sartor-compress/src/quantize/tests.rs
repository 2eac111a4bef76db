//! Placement on small graphs, as text.

use sartor_ir::{Graph, parse, verify};

use super::*;
use crate::InMemory;

/// Quantizes as [`quantize`] does, with -1 to 4 observed for whatever is watched.
fn quantized(text: &str, config: &QuantizeStatic) -> Result<Quantized, CompressError> {
    let mut graph = parse(text).unwrap();
    infer(&mut graph)?;
    check(&graph, config)?;
    let graph = lower::lower(&graph)?;
    let plan = place::place(&graph, config);
    let mut observer = Observer::new(true);
    observer.see(&[-1.0, 4.0]).unwrap();
    let observers: BTreeMap<_, _> = plan.watch.iter().map(|&it| (it, observer.clone())).collect();
    let scales = scale::activation_scales(&scale::by_class(&plan, &observers), config);
    rewrite::rewrite(&graph, &plan, &scales, config)
}

/// One line per node: `output = Op(inputs)`, dequantization of constants left out.
fn lines(graph: &Graph) -> Vec<String> {
    let name = |it: &Option<sartor_ir::ValueId>| {
        it.map_or("_".to_owned(), |it| graph.value(it).name.clone())
    };
    let shown = graph.nodes().filter(|(_, it)| {
        let constant = graph.constant_input(it, 0).is_some();
        !(constant && it.op.name() == "DequantizeLinear")
    });
    let line = shown.map(|(_, it)| {
        let inputs: Vec<_> = it.inputs.iter().map(name).collect();
        format!("{} = {}({})", name(&it.outputs[0]), it.op.name(), inputs.join(", "))
    });
    line.collect()
}

fn expect(text: &str, expected: &str) -> Quantized {
    let result = quantized(text, &QuantizeStatic::default()).unwrap();
    verify(&result.graph).unwrap();
    let mut found = lines(&result.graph);
    let mut wanted: Vec<String> = expected.trim().lines().map(|it| it.trim().to_owned()).collect();
    // Independent nodes may stand in any order; `verify` has checked the order that matters.
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "\n{}", sartor_ir::print(&result.graph));
    result
}

/// The scale constant that the `QuantizeLinear` making `value` reads.
fn scale_of(graph: &Graph, value: &str) -> String {
    let maker = graph.producer(graph.find_value(value).unwrap()).unwrap();
    graph.value(graph.node(maker).input(1).unwrap()).name.clone()
}

const RESIDUAL: &str = r#"graph "g" {
    opset "" 11
    input %x: f32[N,1,4,4]
    const %w: f32[1,1,1,1] = [2]
    const %b: f32[1] = [1]
    node "c1" %a = Conv(%x, %w, %b)
    node "r1" %r = Relu(%a)
    node "c2" %c = Conv(%r, %w)
    node "add" %s = Add(%c, %r)
    node "r2" %t = Relu(%s)
    node "c3" %y = Conv(%t, %w)
    output %y
}"#;

#[test]
fn a_residual_block_quantizes_behind_its_rectifiers() {
    let result = expect(
        RESIDUAL,
        "x_quantized = QuantizeLinear(x, x_scale, x_zero_point)
        x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point)
        a = Conv(x_dequantized, w_dequantized, b_dequantized)
        r = Relu(a)
        r_quantized = QuantizeLinear(r, r_scale, r_zero_point)
        r_dequantized = DequantizeLinear(r_quantized, r_scale, r_zero_point)
        c = Conv(r_dequantized, w_dequantized_1)
        c_quantized = QuantizeLinear(c, c_scale, c_zero_point)
        c_dequantized = DequantizeLinear(c_quantized, c_scale, c_zero_point)
        s = Add(c_dequantized, r_dequantized)
        t = Relu(s)
        t_quantized = QuantizeLinear(t, t_scale, t_zero_point)
        t_dequantized = DequantizeLinear(t_quantized, t_scale, t_zero_point)
        y_float = Conv(t_dequantized, w_dequantized_2)
        y_quantized = QuantizeLinear(y_float, y_scale, y_zero_point)
        y = DequantizeLinear(y_quantized, y_scale, y_zero_point)",
    );
    assert_eq!(result.graph.opsets[""], 13);
    assert_eq!(
        result.nodes.iter().map(|it| it.op.as_str()).collect::<Vec<_>>(),
        ["Conv", "Conv", "Add", "Conv"]
    );
    assert!(result.nodes.iter().all(|it| it.left_float_because.is_none()));
    assert_eq!(result.nodes[0].output, "r");
    assert_eq!(result.graph.value(result.graph.outputs()[0]).name, "y");
}

#[test]
fn an_option_a_shortcut_keeps_one_scale() {
    let result = expect(
        r#"graph "g" {
        input %x: f32[N,1,4,4]
        const %w: f32[2,1,1,1] = [2, 3]
        const %v: f32[1,2,1,1] = [1, 1]
        const %starts: i64[1] = [0]
        const %ends: i64[1] = [4]
        const %axes: i64[1] = [2]
        const %steps: i64[1] = [2]
        const %pads: i64[8] = [0, 1, 0, 0, 0, 0, 0, 0]
        node "c" %a = Conv(%x, %w) {strides=ints[2, 1]}
        node "slice" %s = Slice(%x, %starts, %ends, %axes, %steps)
        node "pad" %p = Pad(%s, %pads)
        node "add" %t = Add(%a, %p)
        node "c2" %y = Conv(%t, %v)
        output %y
    }"#,
        "x_quantized = QuantizeLinear(x, x_scale, x_zero_point)
        x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point)
        a = Conv(x_dequantized, w_dequantized)
        a_quantized = QuantizeLinear(a, a_scale, a_zero_point)
        a_dequantized = DequantizeLinear(a_quantized, a_scale, a_zero_point)
        s = Slice(x_dequantized, starts, ends, axes, steps)
        s_quantized = QuantizeLinear(s, x_scale, x_zero_point)
        s_dequantized = DequantizeLinear(s_quantized, x_scale, x_zero_point)
        p = Pad(s_dequantized, pads)
        p_quantized = QuantizeLinear(p, x_scale, x_zero_point)
        p_dequantized = DequantizeLinear(p_quantized, x_scale, x_zero_point)
        t = Add(a_dequantized, p_dequantized)
        t_quantized = QuantizeLinear(t, t_scale, t_zero_point)
        t_dequantized = DequantizeLinear(t_quantized, t_scale, t_zero_point)
        y_float = Conv(t_dequantized, v_dequantized)
        y_quantized = QuantizeLinear(y_float, y_scale, y_zero_point)
        y = DequantizeLinear(y_quantized, y_scale, y_zero_point)",
    );
    assert_eq!(scale_of(&result.graph, "p_quantized"), scale_of(&result.graph, "x_quantized"));
}

#[test]
fn a_join_has_one_scale_and_what_follows_the_last_product_is_float() {
    let result = quantized(
        r#"graph "g" {
        input %x: f32[N,1,4,4]
        const %w: f32[1,1,1,1] = [2]
        const %d: f32[2,1,1,1] = [2, -1]
        const %f: f32[3,2] = [1, 2, 3, 4, 5, 6]
        const %g: f32[3] = [1, 2, 3]
        node "c1" %a = Conv(%x, %w)
        node "c2" %b = Conv(%x, %w)
        node "join" %j = Concat(%a, %b) {axis=1}
        node "depthwise" %k = Conv(%j, %d) {group=2}
        node "pool" %p = GlobalAveragePool(%k)
        node "flat" %q = Flatten(%p)
        node "fc" %l = Gemm(%q, %f, %g) {transB=1}
        node "soft" %y = Softmax(%l)
        output %y
    }"#,
        &QuantizeStatic::default(),
    );
    let result = result.unwrap();
    let graph = &result.graph;
    let scales: Vec<_> =
        ["a_quantized", "b_quantized", "j_quantized"].map(|it| scale_of(graph, it)).into();
    assert!(scales.iter().all(|it| *it == scales[0]), "{scales:?}");
    assert_eq!(scale_of(graph, "q_quantized"), scale_of(graph, "p_quantized"));
    assert_ne!(scale_of(graph, "p_quantized"), scale_of(graph, "k_quantized"));
    // The product feeds only float operators, so it gives floats.
    assert!(graph.find_value("l_quantized").is_none());
    let depthwise = graph.node(graph.find_node("depthwise").unwrap());
    let weight = graph.node(graph.producer(depthwise.input(1).unwrap()).unwrap());
    assert_eq!(graph.constant_input(weight, 0).unwrap().to_i64().unwrap(), [127, -127]);
    assert_eq!(graph.constant_input(weight, 1).unwrap().shape(), [2]);
    let last = result.nodes.last().unwrap();
    assert_eq!((last.op.as_str(), last.left_float_because.is_some()), ("Softmax", true));
}

#[test]
fn skipped_and_unknown_nodes_stay_float_and_are_said() {
    let config = QuantizeStatic { skip: vec!["c2".to_owned()], ..QuantizeStatic::default() };
    let result = quantized(RESIDUAL, &config).unwrap();
    let reasons: Vec<_> = result.nodes.iter().map(|it| it.left_float_because.as_deref()).collect();
    assert_eq!(
        reasons,
        [None, Some("the step skips it"), Some("one of its inputs is float"), None]
    );
    let config = QuantizeStatic { skip: vec!["nobody".to_owned()], ..QuantizeStatic::default() };
    assert_eq!(quantized(RESIDUAL, &config), Err(CompressError::NoSuchNode("nobody".to_owned())));
    let config = QuantizeStatic { ops: vec!["Conv".to_owned()], ..QuantizeStatic::default() };
    let result = quantized(RESIDUAL, &config).unwrap();
    assert_eq!(
        result.nodes[2].left_float_because.as_deref(),
        Some("the step quantizes other operators")
    );
}

#[test]
fn configurations_that_cannot_be_meant_are_refused() {
    for (toml, key) in [
        ("weights = { block = 8 }", "weights.block"),
        ("weights = { dtype = 'uint4', storage = 'bytes' }", "weights.storage"),
        ("weights-by-node = { c1 = { block = 300 } }", "weights.block"),
        ("ranges = { percentile = 40.0 }", "ranges.percentile"),
        ("ranges = { percentile = nan }", "ranges.percentile"),
        ("ops = ['Softmax']", "ops"),
    ] {
        let config: QuantizeStatic = toml::from_str(toml).unwrap();
        let error = quantized(RESIDUAL, &config).unwrap_err();
        assert!(
            matches!(&error, CompressError::Config { key: found, .. } if found == key),
            "{toml}: {error}"
        );
    }
    assert!(toml::from_str::<QuantizeStatic>("wieghts = {}").is_err());
}

#[test]
fn steps_read_back_as_written() {
    for ranges in [
        RangeMethod::MinMax,
        RangeMethod::MovingAverage,
        RangeMethod::Percentile(99.99),
        RangeMethod::Entropy,
        RangeMethod::Mse,
        RangeMethod::Analytic,
        RangeMethod::Auto,
    ] {
        let activations = ActivationFormat { dtype: ActivationType::Int8, symmetric: true };
        let step = QuantizeStatic { activations, ranges, ..QuantizeStatic::default() };
        let text = toml::to_string(&step).unwrap();
        assert_eq!(toml::from_str::<QuantizeStatic>(&text).unwrap(), step, "{text}");
    }
}

/// A convolution over 32 channels with its rectifier, and a matrix product.
fn wide() -> String {
    let list = |n: usize| {
        let number = |i: usize| format!("{:.3}", (i as f32 * 0.37).sin());
        (0..n).map(number).collect::<Vec<_>>().join(", ")
    };
    format!(
        r#"graph "g" {{
    input %x: f32[N,32,2,2]
    const %w: f32[4,32,1,1] = [{}]
    const %b: f32[4] = [1, 2, -3, 0.5]
    const %f: f32[4,2] = [{}]
    node "conv" %a = Conv(%x, %w, %b)
    node "relu" %r = Relu(%a)
    node "pool" %p = GlobalAveragePool(%r)
    node "flat" %q = Flatten(%p)
    node "fc" %y = MatMul(%q, %f)
    output %y
}}"#,
        list(128),
        list(8)
    )
}

#[test]
fn formats_are_written_as_asked() {
    for (toml, stored, scales, opset, words, bias) in [
        ("", "i8", vec![4], 13, "int8 per channel", true),
        (
            "weights = { dtype = 'int7', per-channel = false }",
            "i8",
            vec![],
            13,
            "int7 per tensor",
            true,
        ),
        ("weights = { dtype = 'int16' }", "i16", vec![4], 21, "int16 per channel", false),
        ("weights = { dtype = 'uint8' }", "u8", vec![4], 13, "uint8 per channel", true),
        ("weights = { dtype = 'int4' }", "i4", vec![4], 21, "int4 per channel", true),
        (
            "weights = { dtype = 'int4', storage = 'bytes' }",
            "i8",
            vec![4],
            13,
            "int4 per channel",
            true,
        ),
        (
            "weights = { dtype = 'uint4', block = 16 }",
            "u4",
            vec![4, 2, 1, 1],
            21,
            "uint4 in blocks of 16",
            false,
        ),
        ("weights = { dtype = 'int8', block = 64 }", "i8", vec![4], 21, "int8 per channel", true),
        ("weights = { dtype = 'int2' }", "i8", vec![4], 13, "int2 per channel", true),
        ("weights = { dtype = 'ternary' }", "i8", vec![4], 13, "ternary per channel", true),
        (
            "weights-by-node = { conv = { dtype = 'binary' } }",
            "i8",
            vec![4],
            13,
            "binary per channel",
            true,
        ),
        (
            "weights = { dtype = 'int4' }\nactivations = { dtype = 'float32' }",
            "i4",
            vec![4],
            21,
            "int4 per channel",
            false,
        ),
        (
            "activations = { dtype = 'int16', symmetric = true }",
            "i8",
            vec![4],
            21,
            "int8 per channel",
            true,
        ),
        ("activations = { dtype = 'uint4' }", "i8", vec![4], 21, "int8 per channel", true),
        ("scales = 'power-of-two'", "i8", vec![4], 13, "int8 per channel", true),
    ] {
        let config: QuantizeStatic = toml::from_str(toml).unwrap();
        let result = quantized(&wide(), &config).unwrap();
        verify(&result.graph).unwrap();
        let graph = &result.graph;
        let conv = graph.node(graph.find_node("conv").unwrap());
        let back = graph.node(graph.producer(conv.input(1).unwrap()).unwrap());
        let weight = graph.constant_input(back, 0).unwrap();
        assert_eq!(weight.dtype().name(), stored, "{toml}");
        assert_eq!(graph.constant_input(back, 1).unwrap().shape(), scales, "{toml}");
        assert_eq!(graph.opsets[""], opset, "{toml}");
        assert_eq!(result.nodes[0].weights.as_deref(), Some(words), "{toml}");
        assert_eq!(graph.producer(conv.input(2).unwrap()).is_some(), bias, "{toml}");
        let floats = config.activations.dtype == ActivationType::Float32;
        assert_eq!(graph.find_value("x_quantized").is_none(), floats, "{toml}");
        assert_eq!(result.nodes[0].activations.is_none(), floats, "{toml}");
    }
}

#[test]
fn every_format_computes_what_its_numbers_say() {
    use sartor_engine::{Array, Options, Program, run_reference};
    use std::slice::from_ref;
    let x: Vec<f32> = (0..256u16).map(|i| (f32::from(i) * 0.11).sin() + 0.5).collect();
    let x = Array::f32(&[2, 32, 2, 2], x);
    let float = parse(&wide()).unwrap();
    let exact = run_reference(&float, from_ref(&x)).unwrap()[0].to_f64();
    for (weights, activations, worst) in [
        ("int8", "uint8", 0.05),
        ("int16", "int16", 0.001),
        ("int16", "uint16", 0.001),
        ("int4", "int8", 0.5),
        ("uint4", "uint8", 0.5),
        ("int4", "float32", 0.5),
        ("int8", "int4", 1.0),
        ("int8", "uint4", 1.0),
        ("ternary", "uint8", 2.0),
    ] {
        let toml = format!(
            "weights = {{ dtype = '{weights}' }}\nactivations = {{ dtype = '{activations}' }}"
        );
        let config: QuantizeStatic = toml::from_str(&toml).unwrap();
        let samples = InMemory::new(vec![x.clone()]).unwrap();
        let graph = quantize(&float, &config, &samples, &mut |_, _| {}).unwrap().graph;
        let slow = run_reference(&graph, from_ref(&x)).unwrap()[0].to_f64();
        let program = Program::prepare(&graph, from_ref(&x.shape), &Options::default()).unwrap();
        let fast = program.run(from_ref(&x)).unwrap()[0].to_f64();
        for ((a, b), c) in exact.iter().zip(&slow).zip(&fast) {
            assert!((a - b).abs() <= worst, "{weights} {activations}: {b} for {a}");
            assert!((b - c).abs() <= worst * 0.2, "{weights} {activations}: {c} for {b}");
        }
    }
}

#[test]
fn ranges_by_trial_are_no_worse_than_those_of_one_method() {
    use sartor_engine::{Array, run_reference};
    let mut x: Vec<f32> = (0..8192u16).map(|i| (f32::from(i) * 0.37).sin()).collect();
    // One element in 128 is far out, in a channel that counts for little.
    x.iter_mut().step_by(128).for_each(|it| *it *= 6.0);
    let samples = InMemory::new(vec![Array::f32(&[64, 32, 2, 2], x.clone())]).unwrap();
    let float = parse(&wide()).unwrap();
    let x = Array::f32(&[64, 32, 2, 2], x);
    let exact = run_reference(&float, std::slice::from_ref(&x)).unwrap()[0].to_f64();
    let error = |ranges: &str| {
        let toml = format!("ranges = '{ranges}'\nactivations = {{ dtype = 'uint4' }}");
        let config: QuantizeStatic = toml::from_str(&toml).unwrap();
        let graph = quantize(&float, &config, &samples, &mut |_, _| {}).unwrap().graph;
        let found = run_reference(&graph, std::slice::from_ref(&x)).unwrap()[0].to_f64();
        exact.iter().zip(found).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
    };
    let (auto, min_max) = (error("auto"), error("min-max"));
    assert!(auto < min_max, "{auto} against {min_max}");
}

#[test]
fn a_damaged_weight_is_named() {
    let text = RESIDUAL.replace("const %b: f32[1] = [1]", "const %b: f32[1] = [NaN]");
    let error = quantized(&text, &QuantizeStatic::default()).unwrap_err().to_string();
    assert!(error.contains("node `c1`: tensor `b` holds NaN"), "{error}");
}

#[test]
fn the_same_graph_gives_the_same_graph() {
    let config = QuantizeStatic { ranges: RangeMethod::Mse, ..QuantizeStatic::default() };
    assert_eq!(quantized(RESIDUAL, &config), quantized(RESIDUAL, &config));
}
