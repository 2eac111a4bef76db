//! The quick price of changes is that of a network that was really changed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sartor_chip::{Chip, NumberType, find, library};
use sartor_cost::{Change, Model, Options, Precision, Price};
use sartor_ir::{Graph, Tensor, ValueId, infer_facts};

use crate::{graphs::one_conv, networks::resnet_of};

const AS_IS: Options = Options { batch: 1, precision: Precision::AsIs };

fn base(graph: &Graph, chip: &Chip, options: &Options) -> Price {
    Model::new(graph, chip, options).unwrap().base().unwrap()
}

/// The extents in which `after`, a graph of the same structure, differs.
fn difference(before: &Graph, after: &Graph) -> Vec<Change> {
    let [before, after] =
        [before, after].map(|it| infer_facts(it, &BTreeMap::new()).expect("shapes fit"));
    let dims = |facts: &[Option<sartor_ir::Fact>], value: usize| {
        facts[value].as_ref().and_then(|it| it.ty.shape.clone()).unwrap_or_default()
    };
    let mut changes = Vec::new();
    for index in 0..before.len() {
        let (old, new) = (dims(&before, index), dims(&after, index));
        for (axis, (old, new)) in old.iter().zip(&new).enumerate() {
            if let (true, Some(extent)) = (old != new, new.known()) {
                changes.push(Change::Extent { value: ValueId::from_index(index), axis, extent });
            }
        }
    }
    changes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn fewer_channels_cost_what_a_narrower_network_costs(
        widths in prop::array::uniform3(1usize..70), batch in 1usize..3,
    ) {
        let (wide, narrow) = (resnet_of(2, [16, 32, 64]), resnet_of(2, widths));
        let changes = difference(&wide, &narrow);
        for entry in library() {
            let chip = entry.chip().unwrap();
            let most = chip.core.operators.batch_max.as_ref().map_or(u64::MAX, |it| it.value);
            let options = Options { batch: batch.min(most as usize), ..AS_IS };
            let model = Model::new(&wide, &chip, &options).unwrap();
            let quick = model.price(&changes).unwrap();
            let real = base(&narrow, &chip, &options);
            if entry.id.starts_with("arm-ethos-u") {
                // How many bytes weights take follows from their values, which a change does not tell.
                let error = (quick.latency / real.latency - 1.0).abs();
                prop_assert!(error < 0.25, "{} {:?}: {error}", entry.id, widths);
                prop_assert_eq!((quick.macs, quick.arena), (real.macs, real.arena));
                continue;
            }
            prop_assert_eq!(quick, real, "{} {:?}", entry.id, widths);
        }
    }
}

#[test]
fn a_full_estimate_and_a_quick_price_agree() {
    let graph = resnet_of(3, [16, 32, 64]);
    for entry in library() {
        let chip = entry.chip().unwrap();
        let model = Model::new(&graph, &chip, &AS_IS).unwrap();
        let (estimate, price) = (model.estimate(), model.base().unwrap());
        assert_eq!(estimate.latency, price.latency, "{}", entry.id);
        assert_eq!(estimate.energy.joules, price.energy, "{}", entry.id);
        assert_eq!(
            (estimate.macs, estimate.weight_bytes, estimate.peak_memory, estimate.arena.size),
            (price.macs, price.weight_bytes, price.peak_memory, price.arena),
            "{}",
            entry.id
        );
    }
}

#[test]
fn types_of_all_products_cost_what_the_precision_costs() {
    let graph = resnet_of(2, [16, 32, 64]);
    for entry in library() {
        let chip = entry.chip().unwrap();
        let mode = chip.best_mode();
        let (weights, activations) = (mode.weights, mode.activations);
        let model = Model::new(&graph, &chip, &AS_IS).unwrap();
        let nodes = graph.nodes().filter(|it| it.1.op.name() == "Conv");
        let changes: Vec<Change> =
            nodes.map(|it| Change::Types { node: it.0, weights, activations }).collect();
        let options = Options { batch: 1, precision: Precision::As(weights, activations) };
        let quick = model.price(&changes).unwrap();
        assert_eq!(quick, base(&graph, &chip, &options), "{}", entry.id);
    }
}

/// `one_conv` whose weights repeat `pattern` along the channels.
fn patterned(pattern: &[f32]) -> Graph {
    let mut graph = one_conv(64, 128, 1, 1);
    let values: Vec<f32> = pattern.iter().copied().cycle().take(64 * 128).collect();
    let w = graph.find_value("w").unwrap();
    graph.set_constant(w, Tensor::from_f32(&[128, 64, 1, 1], &values));
    graph
}

#[test]
fn zeros_and_patterns_cost_what_real_ones_cost() {
    let (dense, sparse) = (patterned(&[1.0]), patterned(&[1.0, 0.0, 0.0, 1.0]));
    let node = dense.nodes().next().unwrap().0;
    let changes =
        [Change::Pattern { node, pattern: Some((2, 4)) }, Change::Zeros { node, fraction: 0.5 }];
    for id in ["nvidia-a100", "jetson-orin-nano"] {
        let chip = find(id).unwrap();
        let precision = Precision::As(NumberType::I8, NumberType::I8);
        let options = Options { batch: 1, precision };
        let quick = Model::new(&dense, &chip, &options).unwrap().price(&changes).unwrap();
        assert_eq!(quick, base(&sparse, &chip, &options), "{id}");
        assert_ne!(quick, base(&dense, &chip, &options), "{id}");
        // And back.
        let none = [Change::Pattern { node, pattern: None }, Change::Zeros { node, fraction: 0.0 }];
        let quick = Model::new(&sparse, &chip, &options).unwrap().price(&none).unwrap();
        assert_eq!(quick, base(&dense, &chip, &options), "{id}");
    }
}

/// On an Ethos-U the code of the weights follows from their values, so a told fraction of zeros is a guess; a pattern is exact.
#[test]
fn told_zeros_store_fewer_bytes_on_an_ethos_u() {
    let graph = patterned(&[0.3, 1.0, -0.7, 0.9, -0.2, 0.5, -0.1]);
    let node = graph.nodes().next().unwrap().0;
    let price = |id: &str, changes: &[Change]| {
        let chip = find(id).unwrap();
        Model::new(&graph, &chip, &AS_IS).unwrap().price(changes).unwrap()
    };
    let zeros = |fraction| price("arm-ethos-u55-128", &[Change::Zeros { node, fraction }]);
    assert!(zeros(0.9).weight_bytes < zeros(0.5).weight_bytes);
    assert!(zeros(0.5).weight_bytes < zeros(0.0).weight_bytes);
    let (graph, chip) = (one_conv(64, 64, 3, 1), find("arm-ethos-u85-128").unwrap());
    let node = graph.nodes().next().unwrap().0;
    let model = Model::new(&graph, &chip, &AS_IS).unwrap();
    let sparse = model.price(&[Change::Pattern { node, pattern: Some((2, 4)) }]).unwrap();
    let dense = model.price(&[Change::Pattern { node, pattern: None }]).unwrap();
    assert!(sparse.weight_bytes < dense.weight_bytes && sparse.latency <= dense.latency);
}

#[test]
fn changes_of_what_is_not_there_are_refused() {
    let (graph, chip) = (one_conv(4, 4, 1, 1), find("nvidia-a100").unwrap());
    let model = Model::new(&graph, &chip, &AS_IS).unwrap();
    let w = graph.find_value("w").unwrap();
    let node = graph.nodes().next().unwrap().0;
    let (weights, activations) = (NumberType::I4, NumberType::I16);
    for (change, says) in [
        (Change::Extent { value: w, axis: 4, extent: 2 }, "no axis 4"),
        (Change::Extent { value: ValueId::from_index(999), axis: 0, extent: 2 }, "no axis 0"),
        (Change::Types { node, weights, activations }, "does not multiply i4"),
    ] {
        let error = model.price(&[change]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
