//! Blocks of small graphs, and what reconstruction makes of them.

use sartor_engine::Array;
use sartor_ir::{DType, Op, Tensor, ValueId, parse};

use super::*;
use crate::{InMemory, QuantizeStatic, RangeMethod, quantize};

fn wave(n: usize, by: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 1.7 + by).sin() + 0.4 * (i as f32 * 0.31 * by).cos()).collect()
}

fn numbers(n: usize, by: f32) -> String {
    wave(n, by).iter().map(|it| format!("{:.4}", it * 0.3)).collect::<Vec<_>>().join(", ")
}

/// A stem, a residual block with a change of width, one without, and a head.
fn network() -> Graph {
    let text = format!(
        r#"graph "g" {{
    opset "" 13
    input %x: f32[N,3,6,6]
    const %w0: f32[4,3,3,3] = [{}]
    const %b0: f32[4] = [0.1, -0.2, 0.05, 0.3]
    const %w1: f32[4,4,3,3] = [{}]
    const %b1: f32[4] = [0.2, 0.1, -0.1, 0]
    const %w2: f32[4,4,3,3] = [{}]
    const %w3: f32[4,4,1,1] = [{}]
    const %w4: f32[4,4,3,3] = [{}]
    const %w5: f32[4,4,3,3] = [{}]
    const %w6: f32[5,4] = [{}]
    const %b6: f32[5] = [0.1, 0.2, 0.3, 0.4, 0.5]
    node "stem" %a = Conv(%x, %w0, %b0) {{pads=ints[1, 1, 1, 1]}}
    node "stem_relu" %ar = Relu(%a)
    node "first" %c = Conv(%ar, %w1, %b1) {{pads=ints[1, 1, 1, 1]}}
    node "first_relu" %cr = Relu(%c)
    node "second" %d = Conv(%cr, %w2) {{pads=ints[1, 1, 1, 1]}}
    node "shortcut" %s = Conv(%ar, %w3)
    node "add" %e = Add(%d, %s)
    node "add_relu" %er = Relu(%e)
    node "third" %f = Conv(%er, %w4) {{pads=ints[1, 1, 1, 1]}}
    node "third_relu" %fr = Relu(%f)
    node "fourth" %h = Conv(%fr, %w5) {{pads=ints[1, 1, 1, 1]}}
    node "add2" %i = Add(%h, %er)
    node "add2_relu" %ir = Relu(%i)
    node "pool" %p = GlobalAveragePool(%ir)
    node "flat" %q = Flatten(%p)
    node "head" %y = Gemm(%q, %w6, %b6) {{transB=1}}
    output %y
}}"#,
        numbers(108, 0.3),
        numbers(144, 1.1),
        numbers(144, 2.3),
        numbers(16, 0.9),
        numbers(144, 4.1),
        numbers(144, 5.7),
        numbers(20, 3.3),
    );
    let mut graph = parse(&text).unwrap();
    infer(&mut graph).unwrap();
    graph
}

fn samples() -> InMemory {
    InMemory::new(vec![Array::f32(&[24, 3, 6, 6], wave(24 * 108, 0.77))]).unwrap()
}

/// Quantized, with weights rounded to nearest in `-most..=most`.
fn narrowed(float: &Graph, most: f32) -> Graph {
    let config = QuantizeStatic { ranges: RangeMethod::Mse, ..QuantizeStatic::default() };
    let mut graph = quantize(float, &config, &samples(), &mut |_, _| {}).unwrap().graph;
    let weights: Vec<(ValueId, ValueId)> = graph
        .nodes()
        .filter(|it| graph.constant_input(it.1, 0).is_some_and(|it| it.dtype() == DType::I8))
        .map(|it| (it.1.input(0).unwrap(), it.1.input(1).unwrap()))
        .collect();
    for (integers, scale) in weights {
        let (q, s) =
            (graph.constant(integers).unwrap().clone(), graph.constant(scale).unwrap().clone());
        let narrow = |it: &i64| (*it as f32 * most / 127.0).round_ties_even() as i64;
        let q8 = q.to_i64().unwrap().iter().map(narrow).collect::<Vec<_>>();
        graph.set_constant(integers, Tensor::from_integers(DType::I8, q.shape(), &q8).unwrap());
        let wide: Vec<f32> = s.to_f32().unwrap().iter().map(|it| it * 127.0 / most).collect();
        graph.set_constant(scale, Tensor::from_f32(s.shape(), &wide));
    }
    graph
}

fn quick() -> Reconstruct {
    Reconstruct { iterations: 150, batch: 8, rate: 0.05, ..Reconstruct::default() }
}

fn run(config: &Reconstruct, most: f32) -> Reconstructed {
    let float = network();
    reconstruct(&float, &narrowed(&float, most), config, &samples(), &mut |_, _| {}).unwrap()
}

/// Mean squared difference of the outputs.
fn distance(a: &Graph, b: &Graph) -> f64 {
    let outputs = |graph: &Graph| {
        let options = sartor_engine::Options::default();
        let program =
            sartor_engine::Program::prepare(graph, &[vec![24, 3, 6, 6]], &options).unwrap();
        program.run(&[Array::f32(&[24, 3, 6, 6], wave(24 * 108, 0.77))]).unwrap()[0].to_f32()
    };
    let (a, b) = (outputs(a), outputs(b));
    a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64
}

#[test]
fn a_residual_block_is_one_block_and_a_layer_is_one_layer() {
    let float = network();
    let graph = narrowed(&float, 7.0);
    let layers = Layers::find(&float, &graph).unwrap();
    let names = |unit: Granularity| -> Vec<Vec<String>> {
        let members = |it: &segments::Segment| {
            let inside = layers.weights.iter().filter(|l| it.nodes.contains(&l.consumer));
            inside.map(|it| it.name.clone()).collect()
        };
        segments::cut(&graph, &layers, unit).iter().map(members).collect()
    };
    let expected: [&[&str]; 4] =
        [&["stem"], &["first", "second", "shortcut"], &["third", "fourth"], &["head"]];
    assert_eq!(names(Granularity::Block), expected);
    let single: [&[&str]; 7] =
        [&["stem"], &["first"], &["second"], &["shortcut"], &["third"], &["fourth"], &["head"]];
    assert_eq!(names(Granularity::Layer), single);
}

#[test]
fn segments_hold_every_node_once_and_read_what_is_there() {
    let float = network();
    let graph = narrowed(&float, 7.0);
    let layers = Layers::find(&float, &graph).unwrap();
    for unit in [Granularity::Block, Granularity::Layer] {
        let cut = segments::cut(&graph, &layers, unit);
        let nodes: usize = cut.iter().map(|it| it.nodes.len()).sum();
        assert_eq!(nodes + layers.constant_nodes.len(), graph.node_count());
        let mut there: BTreeSet<ValueId> = graph.inputs().iter().copied().collect();
        for segment in cut {
            assert!(segment.inputs.iter().all(|it| there.contains(it)));
            there.extend(&segment.outputs);
            there.retain(|it| segment.alive.contains(it));
            assert_eq!(there, segment.alive);
        }
    }
}

#[test]
fn it_comes_closer_to_the_float_network_than_rounding_to_nearest() {
    let float = network();
    for (granularity, fit_scales, bias_rate, factor) in [
        (Granularity::Block, true, 0.001, 0.5),
        (Granularity::Layer, true, 0.0, 0.6),
        (Granularity::Layer, false, 0.0, 0.8),
    ] {
        let config = Reconstruct { granularity, bias_rate, fit_scales, ..quick() };
        let nearest = narrowed(&float, 3.0);
        let done = reconstruct(&float, &nearest, &config, &samples(), &mut |_, _| {}).unwrap();
        let (before, after) = (distance(&float, &nearest), distance(&float, &done.graph));
        assert!(after < factor * before, "{granularity:?} {fit_scales}: {before} {after}");
        assert!(
            done.blocks.iter().all(|it| it.error_after <= it.error_before * 1.5),
            "{:?}",
            done.blocks
        );
        assert_eq!(done.samples, 24);
    }
}

#[test]
fn rounding_of_a_convolution_beats_nearest_and_stays_on_its_grid() {
    let config = Reconstruct {
        fit_scales: false,
        scale_rate: 0.0,
        bias_rate: 0.0,
        unrounded: 0.0,
        iterations: 300,
        fisher: false,
        ..quick()
    };
    let float = network();
    let nearest = narrowed(&float, 3.0);
    let done = reconstruct(&float, &nearest, &config, &samples(), &mut |_, _| {}).unwrap();
    assert!(done.blocks[0].error_after < 0.8 * done.blocks[0].error_before, "{:?}", done.blocks);
    let layers = Layers::find(&float, &nearest).unwrap();
    let after = Layers::find(&float, &done.graph).unwrap();
    for (before, after) in layers.weights.iter().zip(&after.weights) {
        assert_eq!(before.grid.scales, after.grid.scales);
        for (q, w) in
            after.rounded.iter().zip(before.grid.floats(&after.rounded).iter().zip(&before.float))
        {
            assert!(
                q.abs() <= 3.0
                    && (w.0 - w.1).abs()
                        <= before.grid.scales.iter().fold(0.0, |a, b| f32::max(a, *b))
            );
        }
    }
}

#[test]
fn the_structure_stays_and_numbers_of_threads_do_not_matter() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let config = Reconstruct { iterations: 20, ..quick() };
        pool.install(|| run(&config, 7.0))
    };
    let (one, three) = (with(1), with(3));
    assert_eq!(one, three);
    let nearest = narrowed(&network(), 7.0);
    let ops = |it: &Graph| it.nodes().map(|it| it.1.op.clone()).collect::<Vec<Op>>();
    assert_eq!(ops(&one.graph), ops(&nearest));
    assert_ne!(one.graph, nearest);
}

#[test]
fn little_memory_takes_fewer_samples_and_a_stop_is_heeded() {
    struct Stopped(InMemory);
    impl Samples for Stopped {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn interrupted(&self) -> bool {
            true
        }
        fn for_each(
            &self,
            batch: usize,
            visit: &mut dyn FnMut(&[Array]) -> Result<(), CompressError>,
        ) -> Result<(), CompressError> {
            self.0.for_each(batch, visit)
        }
    }
    let float = network();
    let nearest = narrowed(&float, 7.0);
    let stopped = reconstruct(&float, &nearest, &quick(), &Stopped(samples()), &mut |_, _| {});
    assert_eq!(stopped, Err(CompressError::Interrupted));
    let many = InMemory::new(vec![Array::f32(&[1024, 3, 6, 6], wave(1024 * 108, 0.77))]).unwrap();
    let config = Reconstruct { memory_mib: 1, samples: 1024, iterations: 1, ..quick() };
    let done = reconstruct(&float, &nearest, &config, &many, &mut |_, _| {}).unwrap();
    // Four maps of 6 × 6 go in and out of a block, in two networks: 2,304 bytes a sample.
    assert_eq!(done.samples, (1 << 20) / 2304 / 8 * 8);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let float = network();
    let nearest = narrowed(&float, 7.0);
    for (config, key) in [
        (Reconstruct { iterations: 0, ..quick() }, "iterations"),
        (Reconstruct { batch: 0, ..quick() }, "batch"),
        (Reconstruct { rate: f32::NAN, ..quick() }, "rate"),
        (Reconstruct { unrounded: 1.5, ..quick() }, "unrounded"),
        (Reconstruct { warmup: -0.1, ..quick() }, "warmup"),
    ] {
        let error = reconstruct(&float, &nearest, &config, &samples(), &mut |_, _| {}).unwrap_err();
        assert!(
            matches!(&error, CompressError::Config { key: found, .. } if found == key),
            "{key}: {error}"
        );
    }
    let error = reconstruct(&float, &float, &quick(), &samples(), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("quantize-static"), "{error}");
    let other = parse("graph \"o\" {\n input %x: f32[N,3,6,6]\n output %x\n}").unwrap();
    let error = reconstruct(&other, &nearest, &quick(), &samples(), &mut |_, _| {}).unwrap_err();
    assert_eq!(error, CompressError::NoSuchNode("stem".to_owned()));
    assert!(toml::from_str::<Reconstruct>("iteration = 3").is_err());
}

#[test]
fn powers_of_two_stay() {
    let float = network();
    let mut nearest = narrowed(&float, 7.0);
    // The scale of a bias is the product of two others.
    let bias = |it: &sartor_ir::Node| {
        nearest.constant_input(it, 0).is_some_and(|it| it.dtype() == DType::I32)
    };
    let back = nearest.nodes().map(|it| it.1).filter(|it| matches!(it.op, Op::DequantizeLinear(_)));
    let scales: Vec<ValueId> = back.filter(|it| !bias(it)).filter_map(|it| it.input(1)).collect();
    for &id in &scales {
        let tensor = nearest.constant(id).unwrap().clone();
        let rounded: Vec<f32> =
            tensor.to_f32().unwrap().iter().map(|it| it.log2().ceil().exp2()).collect();
        nearest.set_constant(id, Tensor::from_f32(tensor.shape(), &rounded));
    }
    let config = Reconstruct { iterations: 5, ..quick() };
    let done = reconstruct(&float, &nearest, &config, &samples(), &mut |_, _| {}).unwrap();
    for id in scales {
        assert_eq!(done.graph.constant(id), nearest.constant(id));
    }
    assert_ne!(done.graph, nearest);
}
