//! The fast path against the reference on the shared networks.

use std::path::PathBuf;

use sartor_engine::{Array, Options, Program, batch_shapes, run_reference};

/// Networks of known operators and one open batch, with the batch that the reference can bear.
const NETWORKS: &[(&str, usize)] = &[
    ("cifar10/resnet20.onnx", 2),
    ("cifar10/resnet20_bn.onnx", 1),
    ("cifar10/resnet20_dynamo.onnx", 1),
    ("cifar10/resnet56.onnx", 1),
    ("cifar10/resnet56_bn.onnx", 1),
    ("mlperf-tiny/resnet8.onnx", 3),
    ("mlperf-tiny/dscnn_kws.onnx", 3),
    ("mlperf-tiny/mobilenetv1_vww.onnx", 1),
    ("mlperf-tiny/autoencoder_ad.onnx", 7),
    ("mlperf-tiny/streaming_wakeword.onnx", 1),
    ("zoo/ultraface-RFB-320.onnx", 1),
    ("zoo/kwt1.onnx", 1),
];

fn shared() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    std::env::var_os("SARTOR_SHARED").map_or_else(beside, PathBuf::from).join("models")
}

#[test]
#[expect(clippy::print_stdout, reason = "says that it was skipped")]
fn fast_is_reference_on_shared_networks() {
    if !shared().is_dir() {
        println!("skipped: no shared data");
        return;
    }
    for &(name, batch) in NETWORKS {
        let bytes = std::fs::read(shared().join(name)).unwrap();
        let graph = sartor_onnx::import(bytes, &sartor_onnx::NoExternalData).unwrap().graph;
        let shapes = batch_shapes(&graph, batch).unwrap();
        let wave = |i: usize| (i as f32 * 0.37).sin();
        let images =
            |shape: &Vec<usize>| Array::f32(shape, (0..shape.iter().product()).map(wave).collect());
        let inputs: Vec<_> = shapes.iter().map(images).collect();
        let program = Program::prepare(&graph, &shapes, &Options::default()).unwrap();
        let (found, expected) =
            (program.run(&inputs).unwrap(), run_reference(&graph, &inputs).unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            let (a, b) = (found.as_f32().unwrap(), expected.as_f32().unwrap());
            let largest = b.iter().fold(0f32, |m, x| m.max(x.abs()));
            let worst = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(
                a.len() == b.len() && worst <= 1e-4 * largest,
                "{name}: off by {worst}, largest {largest}"
            );
        }
    }
}
