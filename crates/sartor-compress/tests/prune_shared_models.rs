//! Pruning real networks: the smaller network computes what the silenced one computes.

use std::path::{Path, PathBuf};

use sartor_compress::prune::{Criterion, Group, Keep, PruneChannels, groups, masked, prune};
use sartor_engine::{Array, Data, ReferenceEvaluator, run_reference};
use sartor_ir::{
    DType, Dim, Graph, Op,
    passes::{DeadCode, FoldConstants, RemoveIdentity},
    run_passes,
};
use sartor_onnx::{NoExternalData, import};

#[expect(clippy::disallowed_methods, reason = "the tests' data lies outside the repository")]
fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var("SARTOR_SHARED").map_or_else(|_| beside(), PathBuf::from);
    folder.is_dir().then_some(folder)
}

fn load(path: &Path) -> Graph {
    let graph = import(std::fs::read(path).unwrap(), &NoExternalData).unwrap().graph;
    let constants = FoldConstants { evaluate: Some(&ReferenceEvaluator), largest: 1 << 20 };
    run_passes(&graph, &[&constants, &RemoveIdentity, &DeadCode]).unwrap().0
}

/// Waves of different lengths, one sample where the batch is free.
fn inputs(graph: &Graph) -> Vec<Array> {
    let one = |&id: &sartor_ir::ValueId| {
        let ty = graph.value(id).ty.as_ref().unwrap();
        let shape: Vec<usize> =
            ty.shape.iter().flatten().map(|it| it.known().unwrap_or(1)).collect();
        let count: usize = shape.iter().product();
        match ty.dtype {
            DType::F32 => Array::f32(
                &shape,
                (0..count).map(|i| (i as f32 * 0.37).sin() + (i as f32 * 0.011).cos()).collect(),
            ),
            _ => {
                Array { shape, data: Data::I32((0..count).map(|i| (i * 7 % 250) as i32).collect()) }
            }
        }
    };
    graph.inputs().iter().map(one).collect()
}

fn check(graph: &Graph, share: f64, what: &str) -> Graph {
    let step = PruneChannels { criterion: Criterion::L1, grain: 8, keep: Keep::Share(share) };
    let pruned = prune(graph, &step).unwrap();
    assert!(!pruned.removed.is_empty(), "{what}: something goes");
    let silent = masked(graph, &pruned.groups, &pruned.removed);
    let inputs = inputs(graph);
    let (small, wide) =
        (run_reference(&pruned.graph, &inputs).unwrap(), run_reference(&silent, &inputs).unwrap());
    for (a, b) in small.iter().zip(&wide) {
        assert_eq!(a.shape, b.shape, "{what}");
        let (Some(a), Some(b)) = (a.as_f32(), b.as_f32()) else { continue };
        let most = b.iter().fold(1e-6f32, |most, it| most.max(it.abs()));
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= 1e-4 * most, "{what} at {share}: {far} of {most} apart");
    }
    pruned.graph
}

/// Output channels of every convolution.
fn widths(graph: &Graph) -> Vec<usize> {
    let convolutions = graph.nodes().filter(|(_, node)| matches!(node.op, Op::Conv(_)));
    convolutions.map(|(_, node)| graph.constant_input(node, 1).unwrap().shape()[0]).collect()
}

#[test]
fn convolutional_networks_shrink_and_agree() {
    let Some(shared) = shared() else { return skipped() };
    for name in [
        "cifar10/resnet20",
        "cifar10/resnet20_bn",
        "cifar10/resnet20_dynamo",
        "cifar10/resnet56",
        "mlperf-tiny/resnet8",
        "mlperf-tiny/dscnn_kws",
        "mlperf-tiny/mobilenetv1_vww",
        "mlperf-tiny/autoencoder_ad",
        "mlperf-tiny/streaming_wakeword",
        "zoo/ultraface-RFB-320",
    ] {
        let graph = load(&shared.join(format!("models/{name}.onnx")));
        for share in [0.75, 0.5] {
            let small = check(&graph, share, name);
            let batch = |graph: &Graph| {
                graph.value(graph.inputs()[0]).ty.as_ref().unwrap().shape.as_ref().unwrap()[0]
                    .clone()
            };
            assert_eq!(batch(&graph), batch(&small));
            if name.starts_with("cifar10") {
                assert!(
                    widths(&small).iter().all(|it| it % 8 == 0),
                    "{name}: {:?}",
                    widths(&small)
                );
                assert!(matches!(batch(&small), Dim::Symbol(_)), "{name}");
            }
        }
    }
}

#[test]
fn a_residual_stream_of_three_stages_has_three_strata() {
    let Some(shared) = shared() else { return skipped() };
    let graph = load(&shared.join("models/cifar10/resnet56.onnx"));
    let found = groups(&graph).unwrap();
    let sizes: Vec<usize> = found.prunable().map(Group::size).collect();
    assert_eq!(
        sizes.len(),
        27 + 3,
        "one group inside each block, three strata of the stream: {sizes:?}"
    );
    let streams: Vec<usize> =
        found.prunable().filter(|it| it.producers.len() > 1).map(Group::size).collect();
    assert_eq!(streams, [16, 16, 32]);
}

#[test]
fn networks_beyond_convolution_are_refused_where_they_must() {
    let Some(shared) = shared() else { return skipped() };
    for name in
        ["kwt1", "silero_vad_16k_op15", "dtln_1", "tract_byte_bidi_lstm", "magika_standard_v3_3"]
    {
        let graph = load(&shared.join(format!("models/zoo/{name}.onnx")));
        let found = groups(&graph).unwrap();
        assert!(found.frozen().all(|(_, reason)| !reason.is_empty()), "{name}");
        if name == "kwt1" {
            check(&graph, 0.5, name);
        } else {
            let step = PruneChannels { criterion: Criterion::L2, grain: 8, keep: Keep::Share(0.5) };
            prune(&graph, &step).unwrap();
        }
    }
}

#[expect(clippy::print_stderr, reason = "says why a test did nothing")]
fn skipped() {
    eprintln!("skipped: no shared data");
}
