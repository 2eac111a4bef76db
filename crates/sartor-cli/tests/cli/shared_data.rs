//! Reference networks and data, where they are at hand: counts that others measured, and what INT8 keeps.

use std::path::{Path, PathBuf};

use crate::{json, workbench::Workbench};

/// The folder with `models` and `data`; `None` where it is not.
#[expect(clippy::print_stdout, reason = "a test says that it was skipped")]
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment where the shared data are"
)]
fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var("SARTOR_SHARED").map_or_else(|_| beside(), PathBuf::from);
    let folder =
        folder.canonicalize().ok().filter(|it| it.join("models/cifar10/resnet20.onnx").is_file());
    if folder.is_none() {
        println!("skipped: no shared data");
    }
    folder
}

/// Exact counts of the 1,017 test images, as ONNX Runtime has them.
#[test]
fn accuracy_is_that_of_the_reference() {
    let Some(shared) = shared() else { return };
    let (bench, shared) = (Workbench::new(), shared.display());
    for (name, correct, percent) in
        [("resnet20", 932, 91.64), ("resnet32", 944, 92.82), ("resnet56", 943, 92.72)]
    {
        let args = format!(
            "evaluate {shared}/models/cifar10/{name}.onnx --data {shared}/data/cifar10-exact.toml"
        );
        let found = json(&bench, &args);
        let top1 = found["top1"].as_f64().unwrap();
        assert_eq!(found["samples"], 1017, "{name}");
        assert!((top1 * 10.17 - f64::from(correct)).abs() < 1e-6, "{name}: {} right", top1 * 10.17);
        assert!((top1 - percent).abs() < 0.005, "{name}: {top1}");
    }
}

/// The written INT8 file is small, accurate, and says the same as the float network.
#[test]
fn int8_keeps_what_it_should() {
    let Some(shared) = shared() else { return };
    let (bench, shared) = (Workbench::new(), shared.display());
    let (float, spec) = (
        format!("{shared}/models/cifar10/resnet20.onnx"),
        format!("{shared}/data/cifar10-exact.toml"),
    );
    json(&bench, &format!("quantize {float} --data {spec} -o int8.onnx"));
    let bytes = std::fs::metadata(bench.path("int8.onnx")).unwrap().len();
    assert!(bytes <= 340_000, "{bytes} bytes");
    let found = json(&bench, &format!("evaluate int8.onnx --data {spec} --against {float}"));
    assert!(found["top1"].as_f64().unwrap() >= 91.3, "{found}");
    assert!(found["agreement"].as_f64().unwrap() >= 98.5, "{found}");
}
