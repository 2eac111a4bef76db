//! The price of widths is that of a network that was really pruned to them.

use std::{collections::BTreeMap, path::PathBuf};

use sartor_chip::library;
use sartor_compress::{
    prune::{Criterion, groups, importance, least_important, remove_channels},
    simplify,
};
use sartor_cost::{Model, Options, Precision};
use sartor_ir::Graph;
use sartor_plan::WidthChanges;

/// A reference network, where it is there.
fn network(path: &str) -> Option<Graph> {
    #[expect(clippy::disallowed_methods, reason = "a test finds its data by the environment")]
    let shared = std::env::var("SARTOR_SHARED").map(PathBuf::from);
    let shared = shared
        .unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let Ok(bytes) = std::fs::read(shared.join("models").join(path)) else {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: no shared data");
        }
        return None;
    };
    let graph = sartor_onnx::import(bytes, &sartor_onnx::NoExternalData).unwrap().graph;
    Some(simplify(&graph).unwrap())
}

#[test]
fn widths_cost_what_the_pruned_network_costs() {
    for path in
        ["cifar10/resnet20.onnx", "mlperf-tiny/mobilenetv1_vww.onnx", "mlperf-tiny/dscnn_kws.onnx"]
    {
        let Some(graph) = network(path) else { continue };
        let all = groups(&graph).unwrap();
        let weights = importance(&graph, &all, Criterion::L2);
        let changes = WidthChanges::of(&graph, &all).unwrap();
        for seed in 0..3 {
            let width = |(i, group): (usize, &sartor_compress::prune::Group)| {
                let size = group.size();
                (group.name.clone(), 1 + (7 * i + 13 * seed + 5) % size)
            };
            let widths: BTreeMap<String, usize> = all.prunable().enumerate().map(width).collect();
            let removed = least_important(&all, &weights, &widths).unwrap();
            let pruned = remove_channels(&graph, all.clone(), removed).unwrap().graph;
            for entry in library() {
                let chip = entry.chip().unwrap();
                // Codecs look at the zeros of the weights, which pruning changes: those chips are compared elsewhere.
                if chip.core.weight_store.is_some() {
                    continue;
                }
                let options = Options { batch: 1, precision: Precision::AsIs };
                let quick = Model::new(&graph, &chip, &options).unwrap();
                let quick = quick.price(&changes.changes(&widths)).unwrap();
                let real = Model::new(&pruned, &chip, &options).unwrap().base().unwrap();
                assert_eq!(quick, real, "{path} on {} with {widths:?}", entry.id);
            }
        }
    }
}
