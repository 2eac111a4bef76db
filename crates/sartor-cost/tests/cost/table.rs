//! Convolutions priced by hand, on one chip of each kind.

use crate::graphs::one_conv;
use sartor_chip::{NumberType, find};
use sartor_cost::{Estimate, Options, Precision, Resource, RunsOn, estimate};
use sartor_ir::{Graph, Op, Unary};

fn price(graph: &Graph, chip: &str) -> Estimate {
    estimate(graph, &find(chip).unwrap(), &Options { batch: 1, precision: Precision::AsIs })
        .unwrap()
}

fn int8(graph: &Graph, chip: &str) -> Estimate {
    let precision = Precision::As(NumberType::I8, NumberType::I8);
    estimate(graph, &find(chip).unwrap(), &Options { batch: 1, precision }).unwrap()
}

/// 3×3, 16 → 32 channels, 16 × 16 positions: 16 · 9 · 32 · 256 = 1 179 648 MACs.
#[test]
fn a_convolution_on_each_kind_of_chip() {
    let macs = 1_179_648.0;
    let rows = [
        // Channels × taps: 144 · 32 · 256, all multiples of 16 already; 1280 MACs a cycle, of which 70 %, on 40 cores that share
        // 512 vectors of outputs: 13 for the most loaded; nothing else has a known bandwidth; 2 µs to start.
        (
            "intel-xeon-icx",
            1_179_648,
            macs * (13.0 * 40.0 / 512.0) / (1280.0 * 0.7) / 2.3e9 + 2e-6,
            Resource::Overhead,
        ),
        // Four tiles of 64 × 64 on 108 cores, their 144 sums (three steps of 64) split into three; 64 MACs a cycle and core, of
        // which 80 %; 4 µs to start.
        (
            "nvidia-a100",
            1_179_648,
            64.0 * 64.0 * 64.0 / (64.0 * 0.8) / 1.41e9 + 4e-6,
            Resource::Overhead,
        ),
        // The same on 8 cores of 128: split into two parts, of which one has two steps: 8.19 µs, above the memory's 67 584 B, and
        // 2 · 4 · 8 · 64 · 64 of partial sums, at 68 GB/s: 4.8 µs; 8 µs to start.
        (
            "jetson-orin-nano",
            1_179_648,
            64.0 * 64.0 * 128.0 / (128.0 * 0.8) / 625e6 + 8e-6,
            Resource::Compute,
        ),
        // 16 channels and 32 outputs each fill one fold of 64: 9 taps · (256 + 64 + 64 − 2) cycles at 80 %.
        ("google-coral-edgetpu", 9_437_184, 9.0 * 382.0 / 0.8 / 480e6, Resource::Compute),
        // Half a MAC a cycle of which 75 %; then weights from flash, activations through SRAM, 5 µs to start: nothing overlaps.
        (
            "arm-cortex-m7",
            1_179_648,
            macs / 0.375 / 400e6 + 18_432.0 / 533e6 + 49_152.0 / 3.2e9 + 5e-6,
            Resource::Compute,
        ),
    ];
    for (chip, slots, seconds, bound) in rows {
        let found = price(&one_conv(16, 32, 3, 1), chip);
        assert_eq!(found.macs.0, 1_179_648, "{chip}");
        assert_eq!(found.mac_slots.0, slots, "{chip}");
        assert!(
            (found.latency.0 / seconds - 1.0).abs() < 1e-9,
            "{chip}: {} against {seconds} s",
            found.latency
        );
        assert_eq!(found.nodes[0].bound, bound, "{chip}");
        assert_eq!(found.parameters, 4608, "{chip}");
    }
}

/// The same in int8.
#[test]
fn a_convolution_in_int8() {
    for (chip, slots, cycles, overhead) in [
        // A wave of four tiles of 64 × 64 (256 positions × 32 outputs; larger tiles take longer), each over 144: three steps of
        // 64, on 108 cores split into three parts (on 8, whose partial sums go through the memory, not); 2048 MACs a cycle and core, of which 80 %.
        ("nvidia-a100", 1_179_648, 64.0 * 64.0 * 64.0 / (2048.0 * 0.8), 4e-6),
        ("jetson-orin-nano", 1_179_648, 64.0 * 64.0 * 192.0 / (2048.0 * 0.8), 8e-6),
    ] {
        let found = int8(&one_conv(16, 32, 3, 1), chip);
        let chip_clock = find(chip).unwrap().system.clock.value.0;
        assert_eq!(found.mac_slots.0, slots, "{chip}");
        let expected = cycles / chip_clock + overhead;
        assert!((found.latency.0 / expected - 1.0).abs() < 1e-9, "{chip}: {}", found.latency);
        // One byte to a weight, and 4 to each missing bias: none.
        assert_eq!((found.weight_bytes.0, found.peak_memory.0), (4608, 48 * 256), "{chip}");
    }
    // 2 MACs a cycle of which 75 %, then 4608 B from flash at 533 MB/s and 12 288 B through SRAM at 3.2 GB/s, 5 µs.
    let found = int8(&one_conv(16, 32, 3, 1), "arm-cortex-m7");
    let expected = 1_179_648.0 / 1.5 / 400e6 + 4608.0 / 533e6 + 12_288.0 / 3.2e9 + 5e-6;
    assert!((found.latency.0 / expected - 1.0).abs() < 1e-9, "{}", found.latency);
    assert!(found.precision.contains("as asked"));
}

#[test]
fn energy_is_unknown_rather_than_guessed() {
    let graph = one_conv(16, 32, 3, 1);
    let ethos = price(&graph, "arm-ethos-u55-128").energy;
    assert_eq!((ethos.joules, ethos.at_most), (None, None));
    assert_eq!(ethos.missing, ["energy.memory of flash"]);
    let jetson = price(&graph, "jetson-orin-nano");
    assert_eq!(jetson.energy.joules, None);
    assert!((jetson.energy.at_most.unwrap().0 - 15.0 * jetson.latency.0).abs() < 1e-12);
}

#[test]
fn energy_is_the_sum_of_macs_and_bytes_where_both_are_known() {
    let text = "schema = 1\nextends = \"arm-ethos-u55-128\"\nsrc = \"test\"\n[chip]\nid = \"known\"\n\
                [sources]\ntest = \"an assumed flash\"\n\
                [[energy.memory]]\nname = \"flash\"\nread_pj_per_byte = 100.0\n";
    let chip = sartor_chip::Chip::parse("with flash energy", text).unwrap();
    let options = Options { batch: 1, precision: Precision::AsIs };
    let found = estimate(&one_conv(16, 32, 3, 1), &chip, &options).unwrap();
    // 0.3 pJ a MAC, 12.5 pJ a byte of SRAM, 100 pJ a byte of flash.
    let moved = |name| found.nodes[0].moved.iter().find(|it| it.0 == name).unwrap().1.0 as f64;
    assert!(moved("sram") > 12_288.0 && moved("flash") > 320.0);
    let expected = 1_179_648.0 * 0.3e-12 + moved("sram") * 12.5e-12 + moved("flash") * 100e-12;
    assert!((found.energy.joules.unwrap().0 / expected - 1.0).abs() < 1e-9);
}

#[test]
fn figures_of_low_confidence_are_named() {
    let found = price(&one_conv(16, 32, 3, 1), "google-coral-edgetpu").low_confidence;
    assert!(found.iter().any(|it| it.starts_with("system.core_hz (derived")), "{found:?}");
}

#[test]
fn what_melts_follows_the_fusions_that_the_chip_states() {
    let with = |fusions: &str| {
        let text = format!(
            "schema = 1\nextends = \"intel-xeon-icx\"\n[chip]\nid = \"fusing\"\n[core.operators]\n{fusions}"
        );
        sartor_chip::Chip::parse("fusing", &text).unwrap()
    };
    for (fusions, function, runs_on) in [
        ("", Unary::Relu, RunsOn::Nowhere),
        ("", Unary::Sigmoid, RunsOn::Nowhere),
        ("fusions = [[\"Conv\", \"BatchNormalization\", \"Relu\"]]", Unary::Relu, RunsOn::Nowhere),
        ("fusions = [[\"Conv\", \"BatchNormalization\", \"Relu\"]]", Unary::Sigmoid, RunsOn::Chip),
        ("fusions = []", Unary::Relu, RunsOn::Chip),
    ] {
        let mut graph = one_conv(16, 32, 3, 1);
        let made = graph.outputs()[0];
        let out = graph.add_node("function", Op::Unary(function), &[made], &["f"]).unwrap();
        graph.set_outputs(out);
        let chip = with(fusions);
        let options = Options { batch: 1, precision: Precision::AsIs };
        let nodes = estimate(&graph, &chip, &options).unwrap().nodes;
        let found = nodes.iter().find(|it| it.name == "function").unwrap();
        assert_eq!(found.runs_on, runs_on, "{fusions} {}", found.op);
    }
}
