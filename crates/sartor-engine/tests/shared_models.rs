//! The fast path against the reference on the shared networks, on each set of instructions and at odd batches.

use std::path::PathBuf;

use sartor_engine::{Array, Data, Level, Options, Program, force, run_reference};
use sartor_ir::{DType, Graph};

/// What goes into an input.
#[derive(Clone, Copy)]
enum Fill {
    /// Floats between -1 and 1 of this shape.
    Wave(&'static [usize]),
    /// Numbers from 0 to 255 of this shape.
    Bytes(&'static [usize]),
    /// A number.
    Number(i64),
}
use Fill::{Bytes, Number, Wave};

const CIFAR: Fill = Wave(&[1, 3, 32, 32]);

/// Networks with the inputs of a run; batches that the reference can bear.
const RUNS: &[(&str, &[Fill])] = &[
    ("cifar10/resnet20.onnx", &[Wave(&[3, 3, 32, 32])]),
    ("cifar10/resnet20_bn.onnx", &[CIFAR]),
    ("cifar10/resnet20_dynamo.onnx", &[CIFAR]),
    ("cifar10/resnet20_jpeg.onnx", &[CIFAR]),
    ("cifar10/resnet32.onnx", &[CIFAR]),
    ("cifar10/resnet56.onnx", &[CIFAR]),
    ("cifar10/resnet56_bn.onnx", &[CIFAR]),
    ("cifar10/resnet56_jpeg.onnx", &[CIFAR]),
    ("mlperf-tiny/resnet8.onnx", &[Wave(&[3, 32, 32, 3])]),
    ("mlperf-tiny/dscnn_kws.onnx", &[Wave(&[5, 49, 10, 1])]),
    ("mlperf-tiny/mobilenetv1_vww.onnx", &[Wave(&[3, 96, 96, 3])]),
    ("mlperf-tiny/autoencoder_ad.onnx", &[Wave(&[7, 640])]),
    ("mlperf-tiny/streaming_wakeword.onnx", &[Wave(&[3, 30, 1, 40])]),
    ("zoo/dtln_1.onnx", &[Wave(&[1, 1, 257]), Wave(&[1, 2, 128, 2])]),
    ("zoo/kwt1.onnx", &[Wave(&[1, 16000])]),
    ("zoo/magika_standard_v3_3.onnx", &[Bytes(&[1, 2048])]),
    ("zoo/silero_vad_16k_op15.onnx", &[Wave(&[1, 512]), Wave(&[2, 1, 128]), Number(16000)]),
    ("zoo/silero_vad_16k_op15.onnx", &[Wave(&[3, 512]), Wave(&[2, 3, 128]), Number(16000)]),
    ("zoo/tract_byte_bidi_lstm.onnx", &[Bytes(&[1, 9])]),
    ("zoo/tract_byte_bidi_lstm.onnx", &[Bytes(&[3, 17])]),
    ("zoo/ultraface-RFB-320.onnx", &[Wave(&[1, 3, 240, 320])]),
];

fn shared() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    std::env::var_os("SARTOR_SHARED").map_or_else(beside, PathBuf::from).join("models")
}

fn filled(fill: Fill, dtype: DType) -> Array {
    let made = match fill {
        Wave(shape) => {
            let count = shape.iter().product();
            Array::f32(shape, (0..count).map(|i: usize| (i as f32 * 0.37).sin()).collect())
        }
        Bytes(shape) => {
            let bytes = (0..shape.iter().product::<usize>()).map(|i| i as i64 * 37 % 256);
            Array { shape: shape.to_vec(), data: Data::I64(bytes.collect()) }
        }
        Number(it) => Array::scalar(Data::I64(vec![it])),
    };
    made.cast(dtype).unwrap()
}

fn inputs(graph: &Graph, fills: &[Fill]) -> Vec<Array> {
    assert_eq!(graph.inputs().len(), fills.len());
    let dtype = |it: &sartor_ir::ValueId| graph.value(*it).ty.as_ref().unwrap().dtype;
    graph.inputs().iter().zip(fills).map(|(id, &fill)| filled(fill, dtype(id))).collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "says that it was skipped")]
fn fast_is_reference_on_shared_networks() {
    if !shared().is_dir() {
        println!("skipped: no shared data");
        return;
    }
    for &(name, fills) in RUNS {
        let bytes = std::fs::read(shared().join(name)).unwrap();
        let graph = sartor_onnx::import(bytes, &sartor_onnx::NoExternalData).unwrap().graph;
        let inputs = inputs(&graph, fills);
        let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
        let expected = run_reference(&graph, &inputs).unwrap_or_else(|it| panic!("{name}: {it}"));
        for level in [Level::Portable, Level::Avx2, Level::Avx512] {
            force(level);
            let program = Program::prepare(&graph, &shapes, &Options::default())
                .unwrap_or_else(|it| panic!("{name}: {it}"));
            let found = program.run(&inputs).unwrap_or_else(|it| panic!("{name}: {it}"));
            for (found, expected) in found.iter().zip(&expected) {
                let (a, b) = (found.as_f32().unwrap(), expected.as_f32().unwrap());
                let largest = b.iter().fold(0f32, |m, x| m.max(x.abs()));
                let worst = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(
                    found.shape == expected.shape && worst <= 1e-4 * largest,
                    "{name} at {level:?}: off by {worst}, largest {largest}"
                );
            }
        }
    }
}
