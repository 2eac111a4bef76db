//! `run` on tensors of their own files, and the comparison of its outputs.

use super::{bench, has_keys, json, stdout};
use serde_json::Value;

#[path = "../support/onnx.rs"]
#[expect(dead_code, reason = "only single tensors are needed here")]
mod onnx;

/// Three images as `input_0.pb`, and the outputs in `first.npz`.
fn prepared() -> super::Workbench {
    let bench = bench();
    let pixels: Vec<f32> = (0..192).map(|it| it as f32 / 192.0).collect();
    bench.write("set/input_0.pb", onnx::tensor("any name", &[3, 1, 8, 8], &pixels));
    stdout(&bench, "run digits.onnx --inputs set -o first.npz");
    bench
}

#[test]
fn outputs_are_compared_with_an_archive() {
    let bench = prepared();
    let found = json(&bench, "run digits.onnx --inputs set --expect first.npz --rtol 0 --atol 0");
    assert_eq!(found["ok"], Value::from(true));
    has_keys(&found["outputs"][0], &["name", "shape", "absolute", "relative", "beyond", "form"]);
    assert_eq!(found["outputs"][0]["absolute"], Value::from(0.0));
    let text = stdout(&bench, "run digits.onnx --inputs set --expect first.npz");
    assert!(text.contains("logits") && text.contains("yes"), "{text}");
}

#[test]
fn outputs_are_compared_with_tensors() {
    let bench = prepared();
    let logits = sartor::read_npz(&bench.path("first.npz")).unwrap().remove(0);
    let sartor_data::Values::F32(mut values) = logits.values else { panic!("logits are floats") };
    let text = |values: &[f32], shape: &[i64], options: &str| {
        bench.write("set/output_0.pb", onnx::tensor("logits", shape, values));
        let found = bench.run(&format!("run digits.onnx --inputs set --expect set {options}"));
        assert!(found.stderr.is_empty(), "{}", found.stderr);
        (found.code, found.stdout)
    };
    assert_eq!(text(&values, &[3, 10], "").0, Some(0));
    let (code, said) = text(&values, &[10, 3], "");
    assert_eq!(code, Some(1));
    assert!(said.contains("no: it is f32 [3, 10], expected f32 [10, 3]"), "{said}");
    values[7] += 0.25;
    let (code, said) = text(&values, &[3, 10], "");
    assert_eq!(code, Some(1));
    assert!(said.contains("0.250") && said.contains("no: 1 element"), "{said}");
    assert_eq!(text(&values, &[3, 10], "--atol 0.3").0, Some(0));
}
