//! Cost is a staircase of the channels.

use crate::graphs::one_conv;
use proptest::prelude::*;
use sartor_chip::{Chip, find, library};
use sartor_cost::{Options, Precision, estimate};

fn latency(chip: &Chip, channels: usize, filters: usize, kernel: usize) -> f64 {
    let options = Options { batch: 1, precision: Precision::AsIs };
    estimate(&one_conv(channels, filters, kernel, 1), chip, &options).unwrap().latency.0
}

#[test]
fn one_channel_more_than_the_grain_costs_a_step() {
    for (id, full) in [("arm-ethos-u55-128", 64), ("google-coral-edgetpu", 64)] {
        let chip = find(id).unwrap();
        let [below, at, above] = [full - 1, full, full + 1].map(|it| latency(&chip, it, 32, 1));
        assert!((at / below - 1.0).abs() < 1e-9, "{id}: {below} then {at}");
        assert!(above / at > 1.3, "{id}: {at} then {above}");
    }
    let chip = find("intel-xeon-icx").unwrap();
    let compute = |filters| latency(&chip, 512, filters, 3) - 2e-6;
    assert!((compute(16) / compute(1) - 1.0).abs() < 1e-6);
    // 256 and 512 vectors of outputs on 40 cores: 7 and 13 for the most loaded.
    assert!((compute(17) / compute(16) - 13.0 / 7.0).abs() < 1e-6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_channel_more_is_never_cheaper(
        which in 0..library().len(), channels in 1usize..140, filters in 1usize..140, kernel in prop::sample::select(vec![1usize, 3, 5]),
    ) {
        let chip = library()[which].chip().unwrap();
        // Ethos-U changes blocks and orders with the sizes: 17 inputs of 3 × 3 take longer than 32.
        prop_assume!(!chip.id.starts_with("arm-ethos-u"));
        let now = latency(&chip, channels, filters, kernel);
        prop_assert!(latency(&chip, channels + 1, filters, kernel) >= now);
        prop_assert!(latency(&chip, channels, filters + 1, kernel) >= now);
    }
}
