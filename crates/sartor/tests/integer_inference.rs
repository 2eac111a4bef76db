//! A quantized network in integers: what ONNX Runtime says to the same file, and what the graph describes in floats.

use std::path::PathBuf;

use sartor::{DataSpec, Interrupt, Model, Predictions, QuantizeStatic, Session, Silent};
use sartor_engine::{Arithmetic, Options, Program, batch_shapes};

/// Classes that ONNX Runtime 1.32 finds in the test images with ResNet-20 as `sartor quantize` writes it.
const PEER: &str = include_str!("resnet20_int8_in_onnx_runtime.txt");

fn shared() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    std::env::var_os("SARTOR_SHARED").map_or_else(beside, PathBuf::from)
}

fn classes(scores: &[f32], count: usize) -> Vec<usize> {
    let largest =
        |row: &[f32]| (0..count).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or_default();
    scores.chunks_exact(count).map(largest).collect()
}

fn agreement(a: &[usize], b: &[usize]) -> f64 {
    assert_eq!(a.len(), b.len());
    100.0 * a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

#[test]
#[expect(clippy::print_stdout, reason = "says that it was skipped")]
fn integers_say_what_the_peer_and_the_floats_say() {
    let file = shared().join("models/cifar10/resnet20.onnx");
    if !file.is_file() {
        println!("skipped: no shared data");
        return;
    }
    let session = Session { progress: &Silent, interrupt: Interrupt::default(), seed: 0 };
    let model = Model::load(&file).unwrap();
    let spec = DataSpec::load(&shared().join("data/cifar10-exact.toml")).unwrap();
    let (model, _) = session.quantize(&model, &QuantizeStatic::default(), &spec).unwrap();
    let graph = model.simplified().unwrap();
    let samples = session.samples(&graph, &spec, "test").unwrap();
    let found: Predictions = session.predictions("INT8", &graph, &samples).unwrap();
    let own = classes(&found.scores, found.classes);

    let peer: Vec<usize> =
        PEER.chars().filter_map(|it| it.to_digit(10)).map(|it| it as usize).collect();
    let right = |classes: &[usize]| {
        let labels = found.labels.as_deref().unwrap();
        classes.iter().zip(labels).filter(|(a, b)| a == b).count()
    };
    assert!(agreement(&own, &peer) >= 99.5, "{} % as ONNX Runtime", agreement(&own, &peer));
    assert!(right(&own).abs_diff(right(&peer)) <= 2, "{} and {}", right(&own), right(&peer));

    let simulated = Options { float_simulation: true, ..Options::default() };
    let mut scores = Vec::new();
    for item in samples.batches(113) {
        let (inputs, _) = item.unwrap();
        let shapes = batch_shapes(&graph, inputs[0].shape[0]).unwrap();
        let program = Program::prepare(&graph, &shapes, &simulated).unwrap();
        scores.extend_from_slice(program.run(&inputs).unwrap()[0].as_f32().unwrap());
        let integer = Program::prepare(&graph, &shapes, &Options::default()).unwrap();
        let native = integer.arithmetic().filter(|it| it.1 == Arithmetic::Native).count();
        assert_eq!(native, 1, "all but the first quantization is computed in integers");
    }
    let floats = classes(&scores, found.classes);
    assert!(agreement(&own, &floats) >= 99.5, "{} % as in floats", agreement(&own, &floats));
}
