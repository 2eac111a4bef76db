//! Arm Ethos-U against the estimates of Arm's own compiler.

use sartor_chip::find;
use sartor_cost::{Options, Precision, estimate};

use crate::models::models;

/// Cycles that Vela 5.2.0 (`ethos-u-vela`, its C++ core) gives in all for the four networks of `MLPerf` Tiny in int8 (`resnet8`,
/// `mobilenetv1_vww`, `dscnn_kws`, `autoencoder_ad`), on the board that it takes when none is named.
fn vela() -> [(&'static str, [u32; 4]); 11] {
    [
        ("arm-ethos-u55-32", [705_368, 700_729, 266_947, 201_104]),
        ("arm-ethos-u55-64", [358_129, 359_674, 140_093, 201_184]),
        ("arm-ethos-u55-128", [201_747, 220_870, 89_900, 201_184]),
        ("arm-ethos-u55-256", [141_933, 161_459, 58_340, 201_184]),
        ("arm-ethos-u65-256", [104_235, 152_904, 55_411, 43_118]),
        ("arm-ethos-u65-512", [56_910, 106_145, 30_704, 26_595]),
        ("arm-ethos-u85-128", [165_891, 321_884, 72_088, 63_478]),
        ("arm-ethos-u85-256", [99_010, 212_034, 54_311, 62_705]),
        ("arm-ethos-u85-512", [57_176, 190_612, 35_195, 48_111]),
        ("arm-ethos-u85-1024", [34_710, 131_615, 32_588, 44_765]),
        ("arm-ethos-u85-2048", [30_856, 124_011, 20_239, 45_543]),
    ]
}

const NETWORKS: [&str; 4] = ["resnet8", "mobilenetv1_vww", "dscnn_kws", "autoencoder_ad"];

#[test]
fn totals_of_the_reference_networks_are_those_of_the_compiler() {
    let Some(models) = models() else { return };
    let options = Options { batch: 1, precision: Precision::AsIs };
    let mut errors = Vec::new();
    for (at, network) in NETWORKS.iter().enumerate() {
        let path = models.join("mlperf-tiny").join(network).with_extension("onnx");
        let Ok(bytes) = std::fs::read(path) else { continue };
        let graph = sartor_onnx::import(bytes, &sartor_onnx::NoExternalData).unwrap().graph;
        for (chip, cycles) in vela() {
            let found = estimate(&graph, &find(chip).unwrap(), &options).unwrap();
            let asked = f64::from(cycles[at]);
            let error = (found.cycles.0 / asked - 1.0).abs();
            assert!(error < 0.06, "{network} on {chip}: {} and {asked}", found.cycles.0);
            errors.push(error);
        }
    }
    errors.sort_by(f64::total_cmp);
    if let Some(median) = errors.get(errors.len() / 2) {
        assert!(*median < 0.01, "median {median}");
    }
}

#[test]
fn stored_weights_of_the_reference_networks_are_as_large_as_the_compilers() {
    let Some(models) = models() else { return };
    let options = Options { batch: 1, precision: Precision::AsIs };
    // Weights as Vela 5.2.0 stores them for the U55-128, and 10 bytes for each output channel, in whole 16.
    for (network, weights, channels) in [
        ("resnet8", 74_592, [16, 16, 16, 32, 32, 32, 64, 64, 64, 10].as_slice()),
        ("autoencoder_ad", 184_464, &[128, 128, 128, 128, 8, 128, 128, 128, 128, 640]),
    ] {
        let path = models.join("mlperf-tiny").join(network).with_extension("onnx");
        let Ok(bytes) = std::fs::read(path) else { continue };
        let graph = sartor_onnx::import(bytes, &sartor_onnx::NoExternalData).unwrap().graph;
        let found = estimate(&graph, &find("arm-ethos-u55-128").unwrap(), &options).unwrap();
        let scales: u64 = channels.iter().map(|it: &u64| (10 * it).next_multiple_of(16)).sum();
        let error = found.weight_bytes.0 as f64 / (weights + scales) as f64 - 1.0;
        assert!(error.abs() < 0.05, "{network}: {} and {}", found.weight_bytes, weights + scales);
    }
}
