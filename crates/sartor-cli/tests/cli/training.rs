//! Training from the command line: it learns, says what it did, can be paused, and gives the same bytes again.

use std::process::Stdio;

use serde_json::Value;

use crate::{bench, has_keys, json, read, stdout, workbench::Workbench};

/// A training of a second.
const SHORT: &str = "finetune digits.onnx --data digits.toml --epochs 2 --rate 0.02 --crop 1";

fn file(bench: &Workbench, name: &str) -> Vec<u8> {
    std::fs::read(bench.path(name)).unwrap()
}

/// From random numbers to digits that are read.
#[test]
fn the_digits_are_learnt_from_random_numbers() {
    let bench = bench();
    let found = json(
        &bench,
        "train digits.onnx --data digits.toml --epochs 6 --batch 32 --validation 0.1 --seed 1 --log log.jsonl \
         --log-every 10 -o trained.onnx",
    );
    let keys = [
        "epochs",
        "iterations",
        "samples",
        "kept",
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
        "before",
        "after",
        "bytes",
        "seconds",
        "samples_per_s",
    ];
    has_keys(&found, &keys);
    let percent = |it: &Value| it.as_f64().unwrap();
    assert!(percent(&found["before"]["top1"]) < 30.0, "{found}");
    assert!(percent(&found["after"]["top1"]) > 95.0, "{found}");
    assert_eq!((&found["samples"], &found["iterations"]), (&1077.into(), &204.into()));
    let again = json(&bench, "evaluate trained.onnx --data digits.toml");
    assert_eq!(again["top1"], found["after"]["top1"]);
    let lines: Vec<Value> =
        read(&bench, "log.jsonl").lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|it| it["kind"] == kind).count();
    assert_eq!((of("iteration"), of("epoch")), (20, 7));
    // What the architecture holds by name is there still.
    let inspect = |name: &str| {
        let mut it = json(&bench, &format!("inspect {name}"));
        it.as_object_mut().unwrap().remove("file");
        it
    };
    assert_eq!(inspect("trained.onnx"), inspect("digits.onnx"));
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let bench = bench();
    for threads in 1..=3 {
        stdout(&bench, &format!("{SHORT} -o {threads}.onnx --threads {threads} --quiet"));
    }
    assert_eq!(file(&bench, "2.onnx"), file(&bench, "1.onnx"));
    assert_eq!(file(&bench, "3.onnx"), file(&bench, "1.onnx"));
    stdout(&bench, &format!("{SHORT} -o other.onnx --seed 1 --quiet"));
    assert_ne!(file(&bench, "other.onnx"), file(&bench, "1.onnx"));
}

/// A teacher is enough: no labels are in the spec that the student learns from.
#[test]
fn a_student_learns_from_its_teacher() {
    let bench = bench();
    let unlabelled = crate::digits::SPEC.replace("labels = \"train-labels.idx\"\n", "");
    bench.write("unlabelled.toml", unlabelled);
    let found = json(
        &bench,
        "train digits.onnx --data unlabelled.toml --teacher digits.onnx --mix 1 --temperature 2 --epochs 4 \
         --batch 32 -o student.onnx",
    );
    assert!(found["after"]["top1"].as_f64().unwrap() > 80.0, "{found}");
    assert!(found["accuracy"].is_null() && found["loss"].as_f64().unwrap() > 0.0, "{found}");
}

/// Ten numbers for each sample instead of a label.
#[test]
fn numbers_are_learnt_from_an_array() {
    let bench = bench();
    let floats = |name: &str, shape: &[usize]| sartor::NamedArray {
        name: Some(name.to_owned()),
        shape: shape.to_vec(),
        values: sartor_data::Values::F32(
            (0..shape.iter().product()).map(|it: usize| (it * 7 % 11) as f32 / 11.0).collect(),
        ),
    };
    let arrays = [floats("input", &[64, 1, 8, 8]), floats("answers", &[64, 10])];
    let fill =
        |it: &mut dyn std::io::Write| sartor::write_npz(it, &arrays).map_err(std::io::Error::other);
    sartor::write_atomically(&bench.path("data.npz"), false, fill).unwrap();
    let split =
        "[splits.train]\nformat = \"npz\"\npath = \"data.npz\"\narrays = { input = \"input\" }\n";
    bench.write("data.toml", format!("{split}targets = \"answers\"\n"));
    let run = "finetune digits.onnx --data data.toml --loss mse --batch 16 --epochs";
    let first = json(&bench, &format!("{run} 1 --rate 1e-9 -o a.onnx"));
    let last = json(&bench, &format!("{run} 5 -o b.onnx"));
    let loss = |it: &Value| it["loss"].as_f64().unwrap();
    assert!(loss(&last) < 0.2 * loss(&first), "{first} {last}");
    assert!(last["after"].is_null() && last["accuracy"].is_null(), "{last}");
}

/// Runs, and interrupts as Ctrl-C does once there is a line in the log.
#[cfg(unix)]
fn interrupted(bench: &Workbench, args: &str) -> (Option<i32>, String) {
    let mut child = bench.command(args).stderr(Stdio::piped()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() && !bench.path("log.jsonl").exists() {
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    std::process::Command::new("kill").args(["-INT", &id]).stderr(Stdio::null()).status().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[cfg(unix)]
#[test]
fn an_interruption_keeps_what_was_done() {
    let bench = bench();
    let endless =
        "finetune digits.onnx --data digits.toml --epochs 100000 --log log.jsonl -o out.onnx";
    let (code, says) = interrupted(&bench, &format!("{endless} --checkpoint run"));
    assert_eq!(code, Some(130), "{says}");
    assert!(says.contains("run/checkpoint.safetensors") && says.contains("--resume"), "{says}");
    assert!(bench.path("run/checkpoint.safetensors").is_file());
    assert!(!bench.path("out.onnx").exists());
    std::fs::remove_file(bench.path("log.jsonl")).unwrap();
    let (code, says) = interrupted(&bench, endless);
    assert_eq!((code, says.contains("nothing was written")), (Some(130), true), "{says}");
}

#[cfg(unix)]
#[test]
fn a_paused_training_writes_the_same_bytes() {
    let bench = bench();
    stdout(&bench, &format!("{SHORT} -o whole.onnx --quiet"));
    let args = format!("{SHORT} -o rest.onnx --checkpoint run --log log.jsonl --log-every 1");
    // On a fast machine it may have ended before it was interrupted; the checkpoint is then that of the end.
    let (code, says) = interrupted(&bench, &args);
    assert!([Some(130), Some(0)].contains(&code), "{says}");
    stdout(&bench, &format!("{args} --resume --force --threads 1"));
    assert_eq!(file(&bench, "rest.onnx"), file(&bench, "whole.onnx"));
    let lines = read(&bench, "log.jsonl");
    let count = |kind: &str| lines.lines().filter(|it| it.contains(kind)).count();
    assert_eq!((count("\"iteration\",\"epoch\""), count("\"kind\":\"epoch\"")), (20, 3));
}
