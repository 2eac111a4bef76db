//! Which field binds, and what would gain.

use sartor_chip::{Chip, find, library};
use sartor_cost::{Kind, Model, Options, Precision};
use sartor_ir::Graph;

use crate::{graphs::one_conv, networks::resnet_of};

const AS_IS: Options = Options { batch: 1, precision: Precision::AsIs };

fn model<'a>(graph: &'a Graph, chip: &'a Chip) -> Model<'a> {
    Model::new(graph, chip, &AS_IS).unwrap()
}

#[test]
fn the_field_that_binds_comes_first_and_scales_by_hand() {
    // 1 179 648 MACs in floats on a Cortex-M7: nearly all of the time is the array's.
    let (graph, chip) = (one_conv(16, 32, 3, 1), find("arm-cortex-m7").unwrap());
    let model = model(&graph, &chip);
    let found = model.sensitivity(10.0).unwrap();
    let estimate = model.estimate();
    let compute = estimate.nodes[0].times[0].1;
    let expected = compute / estimate.latency * (1.0 / 1.1 - 1.0);
    let clock = found.iter().find(|it| it.field == "system.core_hz").unwrap();
    assert!(clock.latency_change <= expected + 1e-9, "{clock:?} against {expected}");
    let rate = found.iter().find(|it| it.field.ends_with("f32 × f32 macs_per_cycle")).unwrap();
    assert!((rate.latency_change - expected).abs() < 1e-9, "{rate:?} against {expected}");
    assert!(found.is_sorted_by(|a, b| a.latency_change.abs() >= b.latency_change.abs()));
    assert!(found.iter().any(|it| it.field == "runtime.launch_us" && it.latency_change > 0.0));
}

#[test]
fn on_every_chip_more_of_everything_is_never_slower() {
    let graph = resnet_of(1, [16, 32, 64]);
    for entry in library() {
        let chip = entry.chip().unwrap();
        for it in model(&graph, &chip).sensitivity(10.0).unwrap() {
            let costs =
                ["launch_us", "invoke_us", "drain_cycles", "per_element", "_ns", "adc_bits"];
            let dearer = costs.iter().any(|cost| it.field.ends_with(cost));
            assert!(dearer || it.latency_change <= 1e-12, "{}: {it:?}", entry.id);
        }
    }
}

#[test]
fn opportunities_are_worth_what_they_say() {
    let graph = resnet_of(2, [17, 33, 65]);
    for entry in library() {
        let chip = entry.chip().unwrap();
        let model = model(&graph, &chip);
        let before = model.base().unwrap().latency;
        let found = model.opportunities(10).unwrap();
        assert!(found.len() <= 10 && found.is_sorted_by(|a, b| a.gain >= b.gain), "{}", entry.id);
        for it in found {
            assert!(it.share >= 0.001 && !it.reason.is_empty(), "{}: {it:?}", entry.id);
            if it.changes.is_empty() {
                continue;
            }
            let after = model.price(&it.changes).unwrap().latency;
            assert!((before.0 - after.0 - it.gain.0).abs() < 1e-15, "{}: {it:?}", entry.id);
        }
    }
}

#[test]
fn the_next_step_of_the_staircase_a_pattern_and_narrower_types_are_found() {
    let graph = resnet_of(1, [17, 33, 65]);
    let found = |id: &str| {
        let chip = find(id).unwrap();
        model(&graph, &chip).opportunities(100).unwrap()
    };
    let ethos = found("arm-ethos-u55-128");
    let step = ethos.iter().find(|it| it.kind == Kind::Channels).unwrap();
    assert!(step.change.ends_with("output channels"), "{step:?}");
    assert!(step.reason.contains("other axes shrink with them"), "{step:?}");
    let gpu = found("nvidia-a100");
    assert!(gpu.iter().any(|it| it.kind == Kind::Types), "{gpu:?}");
    assert!(gpu.iter().any(|it| it.kind == Kind::Batch), "{gpu:?}");
    let all = gpu.iter().find(|it| it.kind == Kind::Types && it.layer == "network").unwrap();
    assert!(gpu.iter().all(|it| it.kind != Kind::Types || it.gain <= all.gain), "{gpu:?}");
}
