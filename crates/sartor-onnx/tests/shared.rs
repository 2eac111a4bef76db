//! Real models, where the shared folder is there.

use std::{fs, path::PathBuf};

use sartor_ir::Op;
use sartor_onnx::{ExportOptions, NoExternalData, export, import};

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment where the shared data are"
)]
fn models() -> Vec<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var("SARTOR_SHARED").map_or_else(|_| beside(), PathBuf::from);
    let entries =
        |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|it| it.path());
    let mut files: Vec<_> = entries(shared.join("models")).flat_map(entries).collect();
    files.retain(|it| it.extension().is_some_and(|it| it == "onnx"));
    files.sort();
    files
}

#[test]
#[expect(clippy::print_stdout, reason = "a test says that it was skipped")]
fn shared_models_go_round() {
    let files = models();
    if files.is_empty() {
        println!("skipped: no shared data");
    }
    for path in files {
        let shown = path.display();
        let first = import(fs::read(&path).unwrap(), &NoExternalData)
            .unwrap_or_else(|it| panic!("{shown}: {it}"));
        let options = ExportOptions::default();
        let written = export(&first.graph, &first.envelope, &options)
            .unwrap_or_else(|it| panic!("{shown}: {it}"));
        let second = import(written.model.clone(), &NoExternalData).unwrap();
        assert_eq!(second.envelope, first.envelope, "{shown}");
        assert_eq!(second.graph.node_count(), first.graph.node_count(), "{shown}");
        for ((_, a), (_, b)) in first.graph.nodes().zip(second.graph.nodes()) {
            assert_eq!((&a.name, &a.op), (&b.name, &b.op), "{shown}");
        }
        let third = import(
            export(&second.graph, &second.envelope, &options).unwrap().model,
            &NoExternalData,
        );
        assert_eq!(third.unwrap().graph, second.graph, "{shown}");
        let mut graph = first.graph;
        sartor_ir::infer(&mut graph).unwrap();
        let opaque = graph.nodes().any(|(_, it)| matches!(it.op, Op::Named(_)));
        let unknown = graph.values().find(|(_, it)| it.ty.is_none());
        assert!(opaque || unknown.is_none(), "{shown}: {unknown:?}");
    }
}
