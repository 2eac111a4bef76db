//! The reference networks, where they are there.

use std::path::PathBuf;

use sartor_chip::library;
use sartor_cost::{Options, Precision, estimate};

/// The folder of reference networks.
pub(crate) fn models() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a test finds its data by the environment")]
    let shared = std::env::var("SARTOR_SHARED").map(PathBuf::from);
    let shared = shared
        .unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let models = shared.join("models");
    if models.is_dir() {
        return Some(models);
    }
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    {
        eprintln!("skipped: no shared data");
    }
    None
}

#[test]
fn reference_networks_have_the_macs_that_others_count_and_a_price_on_every_chip() {
    let Some(models) = models() else { return };
    for (file, macs) in [
        ("mlperf-tiny/resnet8.onnx", 12.51e6),
        ("mlperf-tiny/mobilenetv1_vww.onnx", 7.49e6),
        ("mlperf-tiny/dscnn_kws.onnx", 2.66e6),
        ("mlperf-tiny/autoencoder_ad.onnx", 0.264e6),
        ("cifar10/resnet20.onnx", 40.8e6),
    ] {
        let path = models.join(file);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let graph = sartor_onnx::import(bytes, &sartor_onnx::NoExternalData).unwrap().graph;
        for entry in library() {
            let options = Options { batch: 1, precision: Precision::AsIs };
            let found = estimate(&graph, &entry.chip().unwrap(), &options);
            let found = found.unwrap_or_else(|error| panic!("{file} on {}: {error}", entry.id));
            assert!((found.macs.0 as f64 / macs - 1.0).abs() < 0.01, "{file}: {}", found.macs);
            assert!(found.latency.0 > 0.0, "{file} on {}", entry.id);
        }
    }
}

/// All networks, by path, largest files last.
fn networks(models: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["cifar10", "mlperf-tiny", "zoo"] {
        let Ok(entries) = std::fs::read_dir(models.join(folder)) else { continue };
        let files = entries.flatten().map(|it| it.path());
        found.extend(files.filter(|it| it.extension().is_some_and(|it| it == "onnx")));
    }
    found.sort();
    found
}

#[test]
fn every_network_has_a_price_on_every_chip() {
    let Some(models) = models() else { return };
    let chips: Vec<_> = library().iter().map(|it| it.chip().unwrap()).collect();
    for path in networks(&models) {
        let bytes = std::fs::read(&path).unwrap();
        let graph = sartor_onnx::import(bytes, &sartor_onnx::NoExternalData).unwrap().graph;
        for chip in &chips {
            let options = Options { batch: 1, precision: Precision::AsIs };
            let found = estimate(&graph, chip, &options);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let found = found.unwrap_or_else(|error| panic!("{name} on {}: {error}", chip.id));
            assert!(found.latency.0 > 0.0 && found.latency.0.is_finite(), "{name} on {}", chip.id);
            assert!(found.macs.0 > 1000, "{name} on {}: {}", chip.id, found.macs);
            assert!(found.arena.size >= found.peak_memory, "{name} on {}", chip.id);
        }
    }
}
