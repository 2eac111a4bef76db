//! Headline figures of two published chips from their own parameters, and the plan of arrays.

use sartor_chip::Chip;

use super::{Headline, Plan, Use, headline};
use crate::op::Product;

/// A chip with one crossbar; `engine` and `energy` are its tables.
fn chip(engine: &str, energy: &str) -> Chip {
    let text = format!(
        r#"
schema = 1
src = "paper"
[chip]
id = "crossbar"
name = "A crossbar"
vendor = "test"
class = "cim"
[sources]
paper = "its paper"
[system]
core_hz = 1e9
[[system.memory]]
name = "buffer"
read_bytes_per_s = 1e12
write_bytes_per_s = 1e12
holds = ["weights", "activations"]
[core]
[core.arithmetic]
scale = "float"
rounding = "half_even"
bias_bits = 32
[[core.arithmetic.scheme]]
ops = ["Conv"]
weights = "i8"
activations = "i8"
granularity = ["channel"]
[[core.engine]]
name = "arrays"
model = "crossbar"
cores = 1
efficiency = 1.0
[[core.engine.mode]]
weights = "i8"
activations = "i8"
macs_per_cycle = 1000
accumulator_bits = 32
overflow = "saturate"
unroll = {{ k = 1, n = 1 }}
grain = 1
[core.engine.crossbar]
{engine}
[core.operators]
fallback = "split"
[runtime]
toolchain = "none"
accepts = ["onnx"]
command = "none {{model}}"
[energy.crossbar]
{energy}
"#
    );
    Chip::parse("crossbar", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn isaac() -> Chip {
    let engine = "rows = 128\ncolumns = 128\narrays = 16128\ncell = \"rram\"\ncell_bits = 2\nweight_bits = 16\n\
                  sign = \"offset\"\npair_in_cell = false\ncolumns_per_adc = 128\ninput_bits = 16\ndac_bits = 1\nadc_bits = 8\n\
                  encoding_saves_bit = true\nread_ns = 100\nadc_ns = 0.78125";
    let energy = "cell_pj = 0.00183\ndac_pj = 0.39\nadc_pj = 1.667\nsample_hold_pj = 0.001\nshift_add_pj = 0.021\n\
                  buffer_pj_per_byte = 2.68\nstatic_w = 10.4";
    chip(engine, energy)
}

fn hermes(phases: u64, product_pj: f64) -> Chip {
    let engine = format!(
        "rows = 256\ncolumns = 256\narrays = 64\ncell = \"pcm\"\ncell_bits = 4\nweight_bits = 4\nsign = \"differential\"\n\
         pair_in_cell = true\ncolumns_per_adc = 1\ninput_bits = 8\ndac_bits = 8\nadc_bits = 12\nread_ns = 133\nphases = {phases}"
    );
    chip(&engine, &format!("product_pj = {product_pj}"))
}

fn near(found: f64, expected: f64, share: f64) {
    assert!((found / expected - 1.0).abs() < share, "{found} against {expected}");
}

#[test]
fn isaac_reaches_its_headline_by_its_own_parameters() {
    let Headline { weights, latency, energy, peak, joules_per_mac, exact_adc_bits, lost_adc_bits } =
        headline(&isaac()).unwrap();
    // 16128 arrays of 128 rows × 128 / 8 weights (16 bits in cells of 2).
    assert_eq!(weights, 16_128 * 128 * 16);
    // 16 slices of one bit, 100 ns each: 128 conversions at 1.28 GS/s take as long.
    near(latency.0, 1.6e-6, 1e-9);
    // Two operations to a MAC: 41.3 TOPS; the paper's 40.9.
    near(2.0 * peak.0, 2.0 * f64::from(16_128 * 128 * 16) / 1.6e-6, 1e-9);
    near(2.0 * peak.0, 40.9e12, 0.15);
    // One array: 16 slices of 128 rows driven (0.39 pJ), 16384 cells (1.83 fJ), 128 columns held, converted and added
    // (0.001 + 1.667 + 0.021 pJ), and 2 · (128 + 16) bytes buffered (2.68 pJ).
    let array = 16.0 * (128.0 * 0.39 + 16_384.0 * 0.001_83 + 128.0 * 1.689) + 288.0 * 2.68;
    let whole = 16_128.0 * array * 1e-12 + 10.4 * 1.6e-6;
    near(energy.unwrap().0, whole, 1e-9);
    // 65.8 W, 627.5 GOPS/W.
    near(energy.unwrap().0 / latency.0, 65.8, 0.15);
    near(2e-9 / joules_per_mac.unwrap().0, 627.5, 0.15);
    // log2(128) + 1 + 2 − 1 = 9 bits, one less by the encoding: the 8 bits of its converters lose nothing.
    assert_eq!((exact_adc_bits, lost_adc_bits), (8, 0));
}

#[test]
fn hermes_reaches_its_headline_in_one_phase_and_in_four() {
    for (phases, product_pj, nanoseconds, tops, tops_per_watt, microjoules) in
        [(1, 13_400.0, 133.0, 63.1, 9.76, 0.86), (4, 52_800.0, 520.0, 16.1, 2.48, 3.38)]
    {
        let found = headline(&hermes(phases, product_pj)).unwrap();
        // One weight to a unit cell: 64 · 256 · 256.
        assert_eq!(found.weights, 4_194_304);
        near(found.latency.0 * 1e9, nanoseconds, 0.15);
        near(2e-12 * found.peak.0, tops, 0.15);
        near(2e-12 / found.joules_per_mac.unwrap().0, tops_per_watt, 0.15);
        near(found.energy.unwrap().0 * 1e6, microjoules, 0.15);
        // Sums of 256 8-bit inputs on 4-bit cells would need 20 bits; the converters have 12.
        assert_eq!((found.exact_adc_bits, found.lost_adc_bits), (20, 8));
    }
}

#[test]
fn a_layer_takes_whole_tiles_and_small_groups_share_an_array() {
    let chip = isaac();
    let crossbar = super::of(&chip).unwrap();
    let arrays = |groups, positions, channels, outputs| {
        Use::of(crossbar, &Product::matrix(groups, positions, channels, outputs), true).arrays
    };
    // 128 rows and 16 outputs to an array.
    assert_eq!(arrays(1, 1, 128, 16), 1);
    assert_eq!(arrays(1, 1, 129, 16), 2);
    assert_eq!(arrays(1, 1, 129, 17), 4);
    // Depthwise, 9 taps: 128 / 9 = 14 groups by rows, 128 / 8 = 16 by columns.
    assert_eq!(arrays(14, 1, 9, 1), 1);
    assert_eq!(arrays(15, 1, 9, 1), 2);
}

#[test]
fn copies_go_to_the_slow_layers_and_what_does_not_fit_is_written_anew() {
    let chip = isaac();
    let mut crossbar = super::of(&chip).unwrap().clone();
    let layer = |positions| Use::of(&crossbar, &Product::matrix(1, positions, 128, 16), true);
    let uses = [layer(1024), layer(64)];
    let figure = |value: u64| sartor_chip::Figure { value, ..crossbar.rows.clone() };
    let (ten, one) = (figure(10), figure(1));
    crossbar.arrays = Some(ten);
    let plan = Plan::of(&crossbar, &uses);
    // √(1024 / 64) = 4 times as many copies of the first: 8 and 2.
    assert_eq!((plan.needed, plan.fits, plan.replicas.as_slice()), (2, true, [8, 2].as_slice()));
    near(plan.time(0, &uses[0]).0, 128.0 * 1.6e-6, 1e-9);
    crossbar.arrays = Some(one);
    let write = sartor_chip::Figure { value: sartor_chip::Seconds(1e-6), ..crossbar.read.clone() };
    crossbar.write_row = Some(write);
    let plan = Plan::of(&crossbar, &uses);
    assert!(!plan.fits);
    near(plan.time(1, &uses[1]).0, 64.0 * 1.6e-6 + 128e-6, 1e-9);
}

#[test]
fn the_librarys_crossbars_reach_their_headlines() {
    for (id, nanoseconds, tops, tops_per_watt) in [
        ("isaac-ref", 1600.0, 40.9, 0.6275),
        ("ibm-hermes-1phase", 133.0, 63.1, 9.76),
        ("ibm-hermes", 520.0, 16.1, 2.48),
    ] {
        let found = headline(&sartor_chip::find(id).unwrap()).unwrap();
        near(found.latency.0 * 1e9, nanoseconds, 0.15);
        near(2e-12 * found.peak.0, tops, 0.15);
        near(2e-12 / found.joules_per_mac.unwrap().0, tops_per_watt, 0.15);
    }
}
