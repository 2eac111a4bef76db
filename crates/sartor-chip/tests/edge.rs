//! The arithmetic of microcontrollers, and crossbars against their own parameters and what is in print.

use sartor_chip::{
    Chip, EngineModel, Figure, Granularity, Joules, NumberType::*, Overflow, Rounding, ScaleKind,
    find,
};

/// What nobody publishes, or what documents contradict, is marked so.
#[test]
fn what_is_doubtful_is_marked() {
    for (id, keys) in [
        ("rockchip-rk3588", &["system.memories[1].read"][..]),
        ("hailo-8", &["system.memories[0].capacity", "system.clock"]),
        ("apple-ane-a14-m1", &["system.memories[0].read", "core.operators.limits[0].dilation_max"]),
        ("kendryte-k210", &["core.engines[0].modes[0].macs_per_cycle"]),
        ("espressif-esp32-s3", &["system.memories[1].read", "system.memories[0].capacity"]),
        ("st-stm32n6", &["core.engines[0].modes[0].macs_per_cycle"]),
        ("mythic-m1076", &["core.engines[0].model.adc_bits", "core.engines[0].model.dac_bits"]),
        ("neurram", &["core.engines[0].model.read"]),
        ("arm-cortex-m4", &["core.engines[0].modes[0].macs_per_cycle"]),
        ("arm-cortex-m55", &["core.engines[0].modes[0].macs_per_cycle"]),
    ] {
        let doubtful = find(id).unwrap().low_confidence();
        for key in keys {
            assert!(doubtful.iter().any(|it| it.0 == *key), "{id} {key}: {doubtful:?}");
        }
    }
}

/// ESP32-S3: 20-bit sums that saturate, one power-of-two scale a tensor; ESP32-P4: 32-bit sums, scales by channel.
#[test]
fn the_arithmetic_of_the_esp32_family() {
    let [s3, p4] = ["espressif-esp32-s3", "espressif-esp32-p4"].map(|id| find(id).unwrap());
    let sums = |chip: &Chip| {
        let accumulator = chip.mode(I8, I8).unwrap().accumulator.clone();
        (accumulator.bits.value, accumulator.overflow)
    };
    assert_eq!((sums(&s3), sums(&p4)), ((20, Overflow::Saturate), (32, Overflow::Unknown)));
    let rounding = |chip: &Chip| chip.core.arithmetic.rounding;
    assert_eq!((rounding(&s3), rounding(&p4)), (Rounding::HalfUp, Rounding::HalfEven));
    for chip in [&s3, &p4] {
        assert_eq!(chip.core.arithmetic.scale, ScaleKind::Pow2);
        assert_eq!(chip.scheme_for("MatMul", I8, I8).unwrap().granularity, [Granularity::Tensor]);
    }
    assert_eq!(s3.scheme_for("Conv", I8, I8).unwrap().granularity, [Granularity::Tensor]);
    assert_eq!(p4.scheme_for("Conv", I8, I8).unwrap().granularity[0], Granularity::Channel);
    assert!(p4.runtime.quirks.iter().all(|it| it.id != "sums-of-20-bits"));
}

/// A crossbar's rate follows from its own geometry and times: arrays × rows × weights a row, once in
/// slices × phases × max(read, columns a converter × conversion).
#[test]
fn crossbars_reach_their_rates_by_their_own_parameters() {
    for (id, adc_bits) in [
        ("mythic-m1076", 26),
        ("ibm-hermes", 20),
        ("ibm-hermes-1phase", 20),
        ("neurram", 11),
        ("isaac-ref", 8),
        ("cim-sram-ref", 8),
    ] {
        let chip = find(id).unwrap();
        let EngineModel::Crossbar(it) = &chip.engine().model else { panic!("{id} is a crossbar") };
        let weights = it.rows.value * (it.columns.value / it.columns_per_weight());
        let slices = it.input_bits.value.div_ceil(it.dac_bits.value);
        let phases = it.phases.as_ref().map_or(1, |it| it.value);
        let conversions = it.adc.as_ref().map_or(0.0, |it| it.value.0);
        let read = it.read.value.0.max(conversions * it.columns_per_adc.value as f64);
        let arrays = it.arrays.as_ref().map_or(1, |it| it.value);
        let rate = (arrays * weights) as f64 / ((slices * phases) as f64 * read);
        let stated = chip.peak(chip.best_mode()).0;
        assert!((rate / stated - 1.0).abs() < 0.01, "{id}: {rate:e} {stated:e}");
        assert_eq!(it.exact_adc_bits(), adc_bits, "{id}");
    }
}

/// Joules of a full product at the stated rates give the efficiencies in print; of ISAAC, the arrays' share of its 65.8 W.
#[test]
fn energies_of_crossbars_are_those_in_print() {
    for (id, tera_ops_per_watt) in [("ibm-hermes", 2.48), ("ibm-hermes-1phase", 9.76)] {
        let product = find(id).unwrap().energy.crossbar.unwrap().product.unwrap().value.0;
        let found = 2.0 * 65536.0 / product / 1e12;
        assert!((found / tera_ops_per_watt - 1.0).abs() < 0.02, "{id}: {found}");
    }
    let energy = find("isaac-ref").unwrap().energy.crossbar.unwrap();
    let of = |it: &Option<Figure<Joules>>| it.as_ref().unwrap().value.0;
    let slice = 128.0 * of(&energy.dac)
        + 128.0 * 128.0 * of(&energy.cell)
        + 128.0 * (of(&energy.adc) + of(&energy.sample_hold) + of(&energy.shift_add));
    let watts = 16128.0 * slice / 100e-9 + energy.static_power.as_ref().unwrap().value.0;
    assert!((watts / 65.8 - 1.0).abs() < 0.15, "{watts} W without buffers and routers");
    let conversion = |bits| energy.conversion(bits).unwrap().0 * 1e12;
    assert!((conversion(8) - 1.667).abs() < 1e-9 && (conversion(4) - 0.79).abs() < 1e-9);
    assert!((conversion(20) - 2.38).abs() < 1e-9, "the widest known");
}

#[test]
fn how_cells_deviate_is_kept() {
    let noise = |id: &str| {
        let chip = find(id).unwrap();
        let EngineModel::Crossbar(it) = &chip.engine().model else { panic!("{id} is a crossbar") };
        it.noise.clone().unwrap()
    };
    let hermes = noise("ibm-hermes");
    assert_eq!(hermes.programming.as_ref().unwrap().value.len(), 4);
    assert!((hermes.g_max.as_ref().unwrap().value - 20.7e-6).abs() < 1e-12);
    let drift = hermes.drift_mean.unwrap();
    assert!(
        (drift.slope.value + 0.0387).abs() < 1e-12 && drift.polynomial.unwrap().value.len() == 3
    );
    assert!((hermes.t0.unwrap().value.0 - 300.0).abs() < 1e-9 && hermes.compensates_drift);
    assert!((hermes.flicker.unwrap().window.value.0 - 512e-9).abs() < 1e-15);
    let neurram = noise("neurram");
    let later: Vec<f64> = neurram.relaxed.iter().map(|it| it.after.value.0).collect();
    assert_eq!(later, [86_400.0, 172_800.0]);
    assert!((neurram.relaxed[1].programming.value[0] - 0.782e-6).abs() < 1e-12);
}
