//! ONNX's own tests of single operators, on each set of instructions: what the standard says an operator computes.
//!
//! The tests come with the `onnx` package (`onnx/backend/test/data/node`). They are looked for in the folder that
//! `SARTOR_ONNX_TESTS` names, or else in `target/onnx-node-tests`. Which of them do not pass, and why, is listed in
//! `onnx_node_tests_not_run.txt`; that list only shrinks: a test that fails must be in it, and one that passes must
//! not. With `SARTOR_UPDATE_LIST=1` those that pass are taken off the list.

#![expect(clippy::print_stdout, reason = "says that it was skipped, or how many pass")]

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use sartor::{
    Difference, Interrupt, Level, Model, Session, Side, Silent, Tolerance, force, level,
    read_arrays,
};

/// How many pass at least; it only grows.
const FLOOR: usize = 1499;

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onnx_node_tests_not_run.txt");

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/onnx-node-tests");
    std::env::var_os("SARTOR_ONNX_TESTS").map_or_else(own, PathBuf::from)
}

/// Names with their reasons, as listed.
fn not_run() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("onnx_node_tests_not_run.txt").lines();
    let lines = lines.filter(|it| !it.is_empty() && !it.starts_with('#'));
    let pair = |line: &'static str| {
        let (name, reason) = line.split_once(": ").expect("a line is `name: reason`");
        assert!(!reason.trim().is_empty(), "{name} has no reason");
        (name, reason)
    };
    let pairs: Vec<_> = lines.map(pair).collect();
    let listed: BTreeMap<_, _> = pairs.iter().copied().collect();
    assert_eq!(listed.len(), pairs.len(), "a test is listed twice");
    listed
}

/// Takes names off the list.
fn shrink(done: &[&str]) {
    let keep = |line: &&str| line.split_once(": ").is_none_or(|it| !done.contains(&it.0));
    let text: String = include_str!("onnx_node_tests_not_run.txt")
        .lines()
        .filter(keep)
        .flat_map(|it| [it, "\n"])
        .collect();
    sartor::write_atomically(Path::new(LIST), true, |it| it.write_all(text.as_bytes())).unwrap();
}

/// What is wrong with one test, if anything.
fn fault(test: &Path) -> Option<String> {
    let work = AssertUnwindSafe(|| run(test));
    catch_unwind(work).unwrap_or_else(|_| Err("a panic".to_owned())).err()
}

fn run(test: &Path) -> Result<(), String> {
    let model = Model::load(&test.join("model.onnx")).map_err(|it| it.to_string())?;
    let graph = model.simplified().map_err(|it| it.to_string())?;
    let arrays = |side| {
        read_arrays(&test.join("test_data_set_0"), &graph, side).map_err(|it| it.to_string())
    };
    let (inputs, expected) = (arrays(Side::Inputs)?, arrays(Side::Outputs)?);
    let session = Session { progress: &Silent, interrupt: Interrupt::default(), seed: 0 };
    let found = session.run(&graph, &inputs).map_err(|it| it.to_string())?;
    for ((&id, found), expected) in graph.outputs().iter().zip(&found).zip(&expected) {
        let name = &graph.value(id).name;
        let it = Difference::of(name, found, expected, Tolerance::default());
        if !it.holds() {
            let form = it.form.unwrap_or_else(|| {
                format!("{} elements are off, the worst by {}", it.beyond, it.absolute)
            });
            return Err(format!("output `{name}`: {form}"));
        }
    }
    Ok(())
}

#[test]
fn onnx_node_tests_pass() {
    let folder = folder();
    if !folder.is_dir() {
        println!("skipped: no ONNX node tests");
        return;
    }
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    let listed = not_run();
    let mut faults: Vec<String> = listed
        .keys()
        .filter(|it| names.binary_search(&(**it).to_owned()).is_err())
        .map(|it| format!("{it} is listed as not run, and no test"))
        .collect();
    // A panic counts as a fault; its words would only hide the list of them.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut passed, mut done) = (0, Vec::new());
    for name in &names {
        let at_level = |&it: &Level| {
            force(it);
            fault(&folder.join(name)).map(|fault| format!("{fault} ({:?})", level()))
        };
        match (LEVELS.iter().find_map(at_level), listed.get(name.as_str())) {
            (None, None) => passed += 1,
            (None, Some(_)) => done.push(name.as_str()),
            (Some(fault), None) => faults.push(format!("{name}: {fault}")),
            (Some(_), Some(_)) => {}
        }
    }
    let _ = std::panic::take_hook();
    println!("{} of {} pass", passed + done.len(), names.len());
    if std::env::var_os("SARTOR_UPDATE_LIST").is_some() {
        shrink(&done);
    } else {
        faults.extend(done.iter().map(|it| format!("{it} passes: take it off the list")));
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    assert!(passed >= FLOOR, "{passed} tests pass, at least {FLOOR} did before");
}
