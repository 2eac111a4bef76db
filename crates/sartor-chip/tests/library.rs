//! The chips of the library, against the figures that their vendors print.

use std::collections::BTreeSet;

use sartor_chip::{
    Axis, Bytes, Chip, Class, Content, EngineModel, Fallback, Granularity, Mode, NumberType::*,
    OpFacts, Overflow, Provenance, find, library, lint,
};

#[test]
fn every_chip_parses_lints_clean_and_bears_its_id() {
    let ids: BTreeSet<&str> = library().iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), library().len(), "an id twice");
    for entry in library() {
        let chip = entry.chip().unwrap_or_else(|error| panic!("{error} at {:?}", error.place));
        assert_eq!(lint(&chip), [], "{}", entry.id);
        assert_eq!(chip.id, entry.id);
        assert_eq!(chip.runtime.command_for("m.onnx").matches("m.onnx").count(), 1);
        assert!(chip.sources.values().all(|citation| citation.len() > 20));
        assert!(serde_json::to_string(&chip).unwrap().contains(entry.id));
        for scheme in &chip.core.arithmetic.schemes {
            for op in &scheme.ops {
                assert!(chip.scheme_for(op, scheme.weights, scheme.activations).is_some());
            }
        }
    }
}

#[test]
fn peaks_are_those_in_print() {
    let tera = 1e12;
    for (id, weights, activations, ops_per_second) in [
        ("nvidia-a100", I8, I8, 624.0 * tera),
        ("nvidia-a100", F16, F16, 312.0 * tera),
        ("nvidia-a100", Bf16, Bf16, 312.0 * tera),
        ("nvidia-a100", Tf32, Tf32, 156.0 * tera),
        ("nvidia-a100", F32, F32, 19.5 * tera),
        ("nvidia-h100", I8, I8, 1978.9 * tera),
        ("nvidia-h100", F8E4M3, F8E4M3, 1978.9 * tera),
        ("nvidia-h100", F16, F16, 989.4 * tera),
        ("nvidia-h100", Tf32, Tf32, 494.7 * tera),
        ("nvidia-h100", F32, F32, 66.9 * tera),
        ("nvidia-h200", I8, I8, 1978.9 * tera),
        ("nvidia-l4", I8, I8, 242.5 * tera),
        ("nvidia-l4", F8E4M3, F8E4M3, 242.5 * tera),
        ("nvidia-l4", Bf16, Bf16, 121.0 * tera),
        ("nvidia-l4", Tf32, Tf32, 60.0 * tera),
        ("nvidia-l4", F32, F32, 30.3 * tera),
        ("nvidia-t4", I8, I8, 130.0 * tera),
        ("nvidia-t4", F16, F16, 65.0 * tera),
        ("nvidia-t4", F32, F32, 8.1 * tera),
        ("jetson-nano", F16, F16, 0.472 * tera),
        ("jetson-nano", F32, F32, 0.236 * tera),
        ("jetson-xavier-nx", I8, I8, 12.3 * tera),
        ("jetson-xavier-nx", F16, F16, 6.8 * tera),
        ("jetson-orin-nano", I8, I8, 20.5 * tera),
        ("jetson-orin-nano", F16, F16, 10.25 * tera),
        ("jetson-orin-nano-super", I8, I8, 33.4 * tera),
        ("jetson-orin-nx", I8, I8, 30.1 * tera),
        ("jetson-agx-orin", I8, I8, 85.0 * tera),
        ("intel-xeon-icx", I8, U8, 23.6 * tera),
        ("intel-xeon-icx", F32, F32, 5.9 * tera),
        ("intel-xeon-spr", I8, U8, 229.0 * tera),
        ("intel-xeon-spr", Bf16, Bf16, 115.0 * tera),
        ("intel-myriad-x", F16, F16, 1.0 * tera),
        ("intel-npu-3720", I8, U8, 11.5 * tera),
        ("intel-npu-3720", F16, F16, 5.75 * tera),
        ("intel-npu-4000", I8, U8, 48.0 * tera),
        ("google-coral-edgetpu", I8, I8, 4.0 * tera),
        ("google-tpu-v4", Bf16, Bf16, 275.0 * tera),
        ("google-tpu-v4", I8, I8, 275.0 * tera),
        ("google-tpu-v5e", Bf16, Bf16, 197.0 * tera),
        ("google-tpu-v5e", I8, I8, 393.0 * tera),
        ("arm-ethos-u55-128", I8, I8, 0.128 * tera),
        ("arm-ethos-u55-128", I8, I16, 0.064 * tera),
        ("arm-ethos-u55-256", I8, I8, 0.256 * tera),
        ("arm-ethos-u65-512", I8, I8, 1.024 * tera),
        ("arm-ethos-u85-2048", I8, I8, 4.096 * tera),
        ("arm-cortex-m7", I8, I8, 1.6e9),
        ("arm-cortex-m4", I8, I8, 0.24e9),
        ("arm-cortex-a76", I8, I8, 614e9),
        ("arm-cortex-a76", F32, F32, 153.6e9),
        ("arm-neoverse-n1", I8, I8, 10.24 * tera),
        ("qualcomm-htp-v73", I8, U8, 26.0 * tera),
        ("qualcomm-htp-v75", I8, U8, 45.0 * tera),
        ("arm-cortex-m55", I8, I8, 6.4e9),
        ("arm-cortex-m55", F16, F16, 3.2e9),
        ("rockchip-rk3588", I8, I8, 6.1 * tera),
        ("rockchip-rk3588", F16, F16, 3.1 * tera),
        ("rockchip-rk3588", Tf32, Tf32, 1.54 * tera),
        ("hailo-8", I8, I8, 26.0 * tera),
        ("apple-ane-a14-m1", F16, F16, 11.0 * tera),
        ("kendryte-k210", U8, U8, 0.46 * tera),
        ("espressif-esp32-s3", I8, I8, 2.0 * 7.7e9),
        ("espressif-esp32-p4", I8, I8, 2.0 * 12.8e9),
        ("st-stm32n6", I8, I8, 0.576 * tera),
        ("mythic-m1076", I8, I8, 25.0 * tera),
        ("ibm-hermes", I4, I8, 16.1 * tera),
        ("ibm-hermes-1phase", I4, I8, 63.1 * tera),
        ("isaac-ref", I16, I16, 40.9 * tera),
    ] {
        let chip = find(id).unwrap();
        let found = chip.peak(chip.mode(weights, activations).unwrap()).ops_per_second();
        assert!(
            (found / ops_per_second - 1.0).abs() < 0.02,
            "{id} {weights} {activations}: {found:e}"
        );
    }
}

#[test]
fn memories_and_power_are_those_in_print() {
    for (id, memory, capacity, read) in [
        ("nvidia-a100", "hbm", Some(80_000_000_000), Some(2.039e12)),
        ("nvidia-a100", "l2", Some(40 << 20), None),
        ("nvidia-h100", "hbm", Some(80_000_000_000), Some(3.35e12)),
        ("nvidia-h200", "hbm", Some(141_000_000_000), Some(4.8e12)),
        ("nvidia-l4", "gddr6", Some(24_000_000_000), Some(300e9)),
        ("nvidia-t4", "gddr6", Some(16_000_000_000), Some(320e9)),
        ("jetson-nano", "lpddr4", Some(4_000_000_000), Some(25.6e9)),
        ("jetson-xavier-nx", "lpddr4x", Some(8_000_000_000), Some(59.7e9)),
        ("jetson-orin-nano", "lpddr5", Some(8_000_000_000), Some(68e9)),
        ("jetson-orin-nano-super", "lpddr5", Some(8_000_000_000), Some(102e9)),
        ("jetson-orin-nx", "lpddr5", Some(16_000_000_000), Some(102.4e9)),
        ("jetson-agx-orin", "lpddr5", Some(64_000_000_000), Some(204.8e9)),
        ("intel-xeon-icx", "l3", Some(60 << 20), None),
        ("intel-xeon-icx", "ddr4", None, Some(204.8e9)),
        ("arm-ethos-u55-128", "sram", Some(2 << 20), Some(4e9)),
        ("arm-ethos-u55-128", "flash", Some(8 << 20), Some(0.5e9)),
        ("intel-xeon-spr", "l3", Some(105 << 20), None),
        ("intel-xeon-spr", "ddr5", None, Some(307e9)),
        ("intel-myriad-x", "cmx", Some(5 << 19), None),
        ("intel-npu-3720", "cmx", Some(4 << 20), None),
        ("intel-npu-4000", "cmx", None, None),
        ("google-coral-edgetpu", "sram", Some(8 << 20), None),
        ("google-tpu-v4", "hbm", Some(32 << 30), Some(1.2e12)),
        ("google-tpu-v4", "cmem", Some(128 << 20), None),
        ("google-tpu-v5e", "hbm", Some(16_000_000_000), Some(819e9)),
        ("google-tpu-v5e", "vmem", Some(128 << 20), None),
        ("qualcomm-htp-v73", "vtcm", Some(8 << 20), None),
        ("qualcomm-htp-v73", "lpddr5x", None, Some(67e9)),
        ("qualcomm-htp-v75", "lpddr5x", None, Some(77e9)),
        ("rockchip-rk3588", "cbuf", Some(3 * (384 << 10)), None),
        ("rockchip-rk3588", "lpddr", None, Some(34e9)),
        ("apple-ane-a14-m1", "unified", None, Some(68e9)),
        ("kendryte-k210", "kpu-ram", Some(2 << 20), None),
        ("kendryte-k210", "sram", Some(6 << 20), Some(3.2e9)),
        ("espressif-esp32-s3", "sram", Some(512 << 10), Some(3.84e9)),
        ("espressif-esp32-p4", "sram", Some(768 << 10), Some(6.4e9)),
        ("st-stm32n6", "sram", Some(4_200_000), None),
        ("st-stm32n6", "flash", None, Some(0.4e9)),
        ("mythic-m1076", "cells", Some(80_000_000), None),
        ("ibm-hermes", "cells", Some(64 * 256 * 256 / 2), None),
        ("isaac-ref", "cells", Some(16128 * 128 * 128 / 4), None),
    ] {
        let chip = find(id).unwrap();
        let found = chip.system.memories.iter().find(|found| found.name == memory).unwrap();
        assert_eq!(found.capacity.as_ref().map(|figure| figure.value.0), capacity, "{id} {memory}");
        assert_eq!(found.read.as_ref().map(|figure| figure.value.0), read, "{id} {memory}");
    }
    for (id, watts) in [
        ("nvidia-a100", 400.0),
        ("nvidia-h100", 700.0),
        ("nvidia-h200", 700.0),
        ("nvidia-l4", 72.0),
        ("nvidia-t4", 70.0),
        ("jetson-nano", 10.0),
        ("jetson-xavier-nx", 20.0),
        ("jetson-orin-nano", 15.0),
        ("jetson-orin-nano-super", 25.0),
        ("jetson-orin-nx", 25.0),
        ("jetson-agx-orin", 60.0),
        ("google-coral-edgetpu", 2.0),
        ("google-tpu-v4", 192.0),
        ("intel-myriad-x", 1.5),
        ("intel-xeon-spr", 350.0),
        ("intel-xeon-icx", 270.0),
        ("hailo-8", 2.5),
        ("kendryte-k210", 0.3),
        ("mythic-m1076", 4.0),
        ("isaac-ref", 65.8),
    ] {
        assert!((find(id).unwrap().energy.limit.unwrap().value.0 - watts).abs() < 1e-9, "{id}");
    }
}

#[test]
fn the_best_mode_the_float_mode_and_the_grain() {
    for (id, best, float, grain, class) in [
        ("intel-xeon-icx", (I8, U8), Some(F32), 16, Class::Cpu),
        ("nvidia-a100", (I8, I8), Some(F32), 32, Class::Gpu),
        ("nvidia-h100", (I8, I8), Some(F32), 32, Class::Gpu),
        ("nvidia-l4", (I8, I8), Some(F32), 32, Class::Gpu),
        ("nvidia-t4", (I8, I8), Some(F32), 32, Class::Gpu),
        ("jetson-nano", (F16, F16), Some(F32), 8, Class::Gpu),
        ("jetson-xavier-nx", (I8, I8), Some(F32), 32, Class::Gpu),
        ("jetson-orin-nano", (I8, I8), Some(F32), 32, Class::Gpu),
        ("jetson-agx-orin", (I8, I8), Some(F32), 32, Class::Gpu),
        ("arm-ethos-u55-128", (I8, I8), None, 16, Class::Npu),
        ("intel-xeon-spr", (I8, U8), Some(F32), 16, Class::Cpu),
        ("intel-myriad-x", (F16, F16), Some(F16), 16, Class::Npu),
        ("intel-npu-3720", (I8, U8), Some(F16), 16, Class::Npu),
        ("intel-npu-4000", (I8, U8), Some(F16), 16, Class::Npu),
        ("google-coral-edgetpu", (I8, I8), None, 64, Class::Npu),
        ("google-tpu-v4", (Bf16, Bf16), Some(Bf16), 128, Class::Npu),
        ("google-tpu-v5e", (I8, I8), Some(Bf16), 128, Class::Npu),
        ("arm-cortex-m7", (I8, I8), Some(F32), 4, Class::Mcu),
        ("arm-cortex-a76", (I8, I8), Some(F32), 8, Class::Cpu),
        ("arm-neoverse-n1", (I8, I8), Some(F32), 8, Class::Cpu),
        ("qualcomm-htp-v73", (I8, U8), Some(F16), 32, Class::Npu),
        ("qualcomm-htp-v75", (I8, U8), Some(F16), 32, Class::Npu),
    ] {
        let chip = find(id).unwrap();
        let mode = chip.best_mode();
        assert_eq!((mode.weights, mode.activations), best, "{id}");
        assert_eq!(chip.float_mode().map(|mode| mode.weights), float, "{id}");
        assert_eq!((chip.grain(), chip.class), (grain, class), "{id}");
        assert!(chip.mode(I4, F16).is_none());
    }
}

#[test]
fn the_xeon_says_what_the_runtime_does_with_signed_activations() {
    let chip = find("intel-xeon-icx").unwrap();
    let scheme = chip.preferred_scheme("Conv").unwrap();
    assert_eq!((scheme.weights, scheme.activations), (I8, U8));
    assert!(scheme.weights_symmetric && !scheme.activations_symmetric);
    assert_eq!(scheme.granularity[0], Granularity::Channel);
    let slow = chip.quirks_of(I8, I8).find(|quirk| quirk.id == "signed-activations-slow").unwrap();
    let speed = slow.speed_over_float.as_ref().unwrap();
    assert!(speed.value < 1.0 && matches!(speed.provenance, Provenance::Measured(_)));
    assert!(chip.quirks_of(I8, U8).all(|quirk| quirk.id != "signed-activations-slow"));
    assert_eq!(chip.best_mode().accumulator.overflow, Overflow::Wrap);
}

/// The compiler's own cycles for 1×1 convolutions over 16×16 positions (law 1) and for 3×3 ones.
#[test]
fn the_ethos_u_family_is_complete() {
    for (family, macs, system) in [
        ("u55", &[32, 64, 128, 256][..], ("flash", 0.5e9)),
        ("u65", &[256, 512], ("dram", 12e9)),
        ("u85", &[128, 256, 512, 1024, 2048], ("dram", 12e9)),
    ] {
        for macs in macs {
            let chip = find(&format!("arm-ethos-{family}-{macs}")).unwrap();
            let EngineModel::EthosU(tables) = &chip.engine().model else { panic!("{}", chip.id) };
            assert_eq!(tables.macs() * chip.engine().cores.value, *macs, "{}", chip.id);
            assert!((chip.best_mode().macs_per_cycle.value - *macs as f64).abs() < 1e-9);
            let far = chip.far_memory();
            assert_eq!((far.name.as_str(), far.read.as_ref().unwrap().value.0), system);
            assert_eq!(chip.core.sparsity.len(), usize::from(family == "u85"), "{}", chip.id);
            let command = chip.runtime.command_for("m.tflite");
            assert!(command.contains(&format!("ethos-{family}-{macs} ")), "{command}");
        }
    }
}

#[test]
fn encoded_weights_follow_the_compilers_table() {
    let chip = find("arm-ethos-u55-128").unwrap();
    for (zeros, bytes) in [
        (0.0, 36_864),
        (0.5, 22_856),
        (0.625, 17_880),
        (0.75, 12_903),
        (1.0, 5_899),
        (-1.0, 36_864),
    ] {
        assert_eq!(chip.weight_bytes_encoded(Bytes(36_864), zeros).0, bytes, "{zeros}");
    }
    assert_eq!(find("nvidia-a100").unwrap().weight_bytes_encoded(Bytes(10), 0.9), Bytes(10));
}

#[test]
fn sparsity_storage_counts_the_positions() {
    let chip = find("nvidia-a100").unwrap();
    let pattern = &chip.core.sparsity[0];
    assert_eq!((pattern.n, pattern.m, pattern.axis), (2, 4, Axis::K));
    assert!((pattern.storage_ratio(F16) - 0.5625).abs() < 1e-12);
    assert!((pattern.storage_ratio(I8) - 0.625).abs() < 1e-12);
}

#[test]
fn where_things_live_and_what_runs() {
    let ethos = find("arm-ethos-u55-128").unwrap();
    assert_eq!(ethos.home_of(Content::Weights).unwrap().name, "flash");
    assert_eq!(ethos.home_of(Content::Activations).unwrap().name, "sram");
    assert_eq!(
        (ethos.near_memory().name.as_str(), ethos.far_memory().name.as_str()),
        ("sram", "flash")
    );
    assert!(ethos.runs("Conv") && !ethos.runs("TopK"));
    let coral = find("google-coral-edgetpu").unwrap();
    assert_eq!(coral.core.operators.fallback, Fallback::CpuSuffix);
    assert!(coral.near_memory().keeps_weights && !coral.runs("Gather"));
    assert!(find("nvidia-a100").unwrap().runs("TopK"));
}

/// What vendors print for a whole chip with two kinds of engines: the sum.
#[test]
fn accelerators_beside_the_graphics_processor_add_to_what_is_advertised() {
    for (id, tera_ops) in
        [("jetson-xavier-nx", 21.0), ("jetson-orin-nx", 50.0), ("jetson-agx-orin", 137.5)]
    {
        let chip = find(id).unwrap();
        let engines: Vec<_> = chip.engines().map(|engine| engine.name.as_str()).collect();
        assert_eq!(engines, ["gpu", "dla"], "{id}");
        let modes = chip.modes().filter(|mode| (mode.weights, mode.activations) == (I8, I8));
        let sum: f64 = modes.map(|mode| chip.peak(mode).ops_per_second()).sum();
        assert!((sum / tera_ops / 1e12 - 1.0).abs() < 0.02, "{id}: {sum:e}");
    }
    assert_eq!(find("jetson-orin-nano-super").unwrap().engines().count(), 1);
    assert!(find("jetson-xavier-nx").unwrap().core.sparsity.is_empty());
    assert!(find("nvidia-t4").unwrap().core.sparsity.is_empty());
}

/// Tiles need 16 rows; below, the same types run on the vector units.
#[test]
fn a_processor_with_tiles_has_two_engines_for_the_same_types() {
    let chip = find("intel-xeon-spr").unwrap();
    let names: Vec<_> = chip.engines().map(|engine| engine.name.as_str()).collect();
    assert_eq!(names, ["amx", "avx512"]);
    let [amx, avx] = [0, 1].map(|at| &chip.core.engines[at].modes[0]);
    assert_eq!((amx.weights, amx.activations), (avx.weights, avx.activations));
    assert!((amx.macs_per_cycle.value / avx.macs_per_cycle.value - 8.0).abs() < 1e-9);
    assert_eq!(
        (chip.engine_of(avx).name.as_str(), chip.engine_of(amx).name.as_str()),
        ("avx512", "amx")
    );
    let time = |mode: &Mode, positions| {
        mode.unroll.value.mac_slots(1024, 1, 1024, positions).0 as f64 / chip.rate(mode).0
    };
    assert!(time(avx, 1) < time(amx, 1) && time(amx, 16) < time(avx, 16));
}

/// The compiler takes tensors of three dimensions above 1, and one-dimensional softmax of at most 16 000.
#[test]
fn the_edge_tpu_refuses_what_its_compiler_does() {
    let chip = find("google-coral-edgetpu").unwrap();
    for (op, shape, runs) in [
        ("Conv", vec![1, 64, 32, 32], true),
        ("Conv", vec![2, 64, 32, 32], false),
        ("Softmax", vec![1, 1000], true),
        ("Softmax", vec![1, 16_001], false),
        ("Softmax", vec![12, 49], false),
        ("Gather", vec![8], false),
    ] {
        let shapes = [shape];
        let facts = OpFacts { op, shapes: &shapes, ..OpFacts::default() };
        assert_eq!(chip.refuses(&facts).is_none(), runs, "{op} {shapes:?}");
    }
}

/// Figures that are recalled, disputed or inferred bear low confidence, so that every report that uses them says so.
#[test]
fn what_is_uncertain_says_so() {
    for (id, keys) in [
        ("nvidia-a100", &["system.memories[0].capacity", "core.sparsity[0].min_k"][..]),
        ("nvidia-h100", &["core.sparsity[0].min_k"]),
        ("nvidia-h200", &["system.memories[1].read", "energy.limit"]),
        ("nvidia-l4", &["core.engines[0].modes[0].macs_per_cycle", "system.clock"]),
        ("nvidia-t4", &["system.memories[0].capacity"]),
        ("jetson-nano", &["system.memories[0].capacity", "runtime.quirks[0].speed_over_float"]),
        ("jetson-xavier-nx", &["core.engines[1].modes[0].macs_per_cycle", "system.clock"]),
        ("jetson-orin-nano", &["core.sparsity[0].speedup"]),
        ("jetson-orin-nx", &["core.engines[1].modes[0].macs_per_cycle", "system.clock"]),
        ("jetson-agx-orin", &["core.engines[1].modes[0].macs_per_cycle", "system.clock"]),
        ("intel-xeon-icx", &["system.memories[2].read", "energy.limit"]),
        ("intel-xeon-spr", &["system.memories[2].read", "energy.limit", "core.engines[0].cores"]),
        (
            "intel-myriad-x",
            &["core.engines[0].modes[0].unroll", "core.operators.limits[0].stride_max"],
        ),
        ("intel-npu-3720", &["core.engines[0].cores", "system.memories[0].capacity"]),
        ("intel-npu-4000", &["core.engines[0].cores"]),
        ("google-coral-edgetpu", &["core.engines[0].model.array", "system.clock"]),
        ("google-tpu-v4", &["core.engines[0].modes[0].unroll", "system.memories[1].capacity"]),
        ("google-tpu-v5e", &["system.memories[0].capacity"]),
        ("arm-cortex-a76", &["core.engines[0].modes[0].macs_per_cycle"]),
        ("arm-neoverse-n1", &["core.engines[0].modes[0].macs_per_cycle", "system.clock"]),
        ("qualcomm-htp-v73", &["core.engines[0].modes[0].macs_per_cycle", "system.clock"]),
        (
            "qualcomm-htp-v75",
            &["core.engines[0].modes[0].macs_per_cycle", "system.memories[1].read"],
        ),
    ] {
        let doubtful = find(id).unwrap().low_confidence();
        for key in keys {
            assert!(doubtful.iter().any(|(found, _)| found == key), "{id} {key}: {doubtful:?}");
        }
    }
}

#[test]
fn a_cell_of_a_systolic_array_may_do_several_small_products() {
    let coral = library().iter().find(|entry| entry.id == "google-coral-edgetpu").unwrap();
    for (rate, findings) in [("8192", 0), ("6000", 1), ("2048", 1)] {
        let text = coral.toml.replace("{ v = 4096, derived", &format!("{{ v = {rate}, derived"));
        let found = lint(&Chip::parse("coral.toml", &text).unwrap());
        assert_eq!(found.len(), findings, "{rate}: {found:?}");
    }
}

/// A citation that nobody opened cannot bear more than low confidence.
#[test]
fn what_is_recalled_is_of_low_confidence() {
    fn walk(tree: &serde_json::Value, path: &str, see: &mut impl FnMut(&str, &serde_json::Value)) {
        see(path, tree);
        match tree {
            serde_json::Value::Object(map) => {
                map.iter().for_each(|(key, value)| walk(value, &format!("{path}.{key}"), see));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, path, see)),
            _ => {}
        }
    }
    for entry in library() {
        let chip = entry.chip().unwrap();
        walk(&serde_json::to_value(&chip).unwrap(), entry.id, &mut |path, figure| {
            let Some(source) = figure["provenance"]["datasheet"].as_str() else { return };
            if chip.sources[source].contains("recalled") {
                assert_eq!(figure["confidence"], "low", "{path} from {source}");
            }
        });
    }
}
