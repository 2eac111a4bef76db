//! No test reads a clock: times are made from figures that the tests know.

use sartor_chip::{NumberType, ProductKind};

use super::*;

fn request() -> FitRequest {
    let cache = |name: &str, bytes| Cache { name: name.to_owned(), bytes };
    FitRequest {
        id: "test-machine".to_owned(),
        machine: Machine {
            processor: "A \"test\" machine".to_owned(),
            vendor: "Nobody".to_owned(),
            clock_hz: Some(2e9),
            threads: 1,
            caches: vec![cache("l2", 1 << 20), cache("l3", 1 << 25)],
            date: "2026-11-25".to_owned(),
        },
        toolchain: "a test".to_owned(),
        command: "test {model}".to_owned(),
    }
}

/// All networks, the times that known figures give, and the chip of those figures. `noise` is a share of the time.
fn made(noise: f64) -> (Vec<Micro>, Vec<Option<f64>>, Chip) {
    let networks = micro::networks();
    let request = request();
    let samples: Vec<_> = networks
        .iter()
        .map(|micro| Sample {
            micro,
            graph: sartor_compress::simplify(&micro.graph).expect("a sound network"),
            ops: BTreeSet::new(),
            measured: 1.0,
        })
        .collect();
    let ops = elementary(&samples);
    let draft = Draft {
        machine: &request.machine,
        id: "truth",
        toolchain: "a test",
        command: "test {model}",
        ops: &ops,
        unroll: [16, 8],
    };
    let unknowns = draft.unknowns();
    let seconds: Vec<f64> = unknowns.iter().enumerate().map(|(i, it)| truth(i, it)).collect();
    let origins = vec![Some("assumed = \"the truth\"".to_owned()); unknowns.len()];
    let text = draft.render(&Values { seconds: &seconds, origins: &origins });
    let chip = Chip::checked("truth", &text, &sartor_chip::library_bases).expect("a sound file");
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as f64 / f64::from(u32::MAX >> 1) - 0.5
    };
    let times = samples.iter().map(|it| {
        let time = predict(&it.graph, &chip).expect("a network that can be priced");
        Some(time * (1.0 + 2.0 * noise * random()))
    });
    let times = times.collect();
    drop(samples);
    (networks, times, chip)
}

/// Seconds of an unknown, unlike those of its neighbours.
fn truth(i: usize, unknown: &Unknown) -> f64 {
    let vary = 1.0 + (i % 5) as f64 / 4.0;
    match unknown {
        Unknown::Invoke => 5e-6,
        Unknown::Launch => 5e-7,
        Unknown::Start(_) => 7e-7 * vary,
        Unknown::Byte(_) => 5e-12,
        Unknown::Multiply(Pair::F32) => 1e-11,
        Unknown::Multiply(Pair::Int8) => 3e-12,
        Unknown::Slower(..) => 3e-12 * vary,
        Unknown::Output(..) => 4e-10 * vary,
        Unknown::Element(..) => 2e-10 * vary,
    }
}

/// The figures that can be compared, by name.
fn figures(chip: &Chip) -> Vec<(String, f64)> {
    let mut all = vec![("invoke".to_owned(), chip.invoke().0)];
    for pair in [(NumberType::F32, NumberType::F32), (NumberType::I8, NumberType::U8)] {
        let mode = chip.mode(pair.0, pair.1).expect("a mode");
        let name = format!("{} × {}", pair.0, pair.1);
        all.push((format!("{name} dense"), chip.rate(mode).0));
        for kind in [ProductKind::Conv3x3, ProductKind::Pointwise] {
            let kernel = mode.kernel(kind).and_then(|it| it.macs_per_cycle.as_ref());
            all.push((format!("{name} {kind}"), kernel.expect("a kernel").value));
        }
    }
    for op in ["Tanh", "Add", "Softmax", "Transpose"] {
        all.push((op.to_owned(), chip.cycles_per_element(op).map_or(0.0, |it| it.value.0)));
    }
    all
}

#[test]
fn known_figures_are_found_again() {
    for (noise, most) in [(0.0, 0.03), (0.03, 0.15)] {
        let (networks, times, truth) = made(noise);
        let fit = solve(&request(), &networks, &times).expect("a solution");
        let chip =
            Chip::checked("fit", &fit.toml, &sartor_chip::library_bases).expect("a sound file");
        for ((name, expected), (_, found)) in figures(&truth).into_iter().zip(figures(&chip)) {
            let error = (found / expected - 1.0).abs();
            assert!(error <= most, "noise {noise}: {name} is {expected}, found {found}");
        }
        assert!(fit.held_out_median_error <= 0.01 + noise, "{}", fit.held_out_median_error);
        assert!(fit.not_run.is_empty());
    }
}

#[test]
fn the_file_says_where_its_figures_come_from_and_predicts_by_itself() {
    let (networks, mut times, _) = made(0.0);
    // A runtime that knows no quantized networks.
    let integer = networks.iter().zip(&mut times).filter(|it| it.0.integer);
    integer.for_each(|it| *it.1 = None);
    let fit = solve(&request(), &networks, &times).expect("a solution");
    let chip = Chip::checked("fit", &fit.toml, &sartor_chip::library_bases).expect("a sound file");
    assert!(fit.toml.contains("micro-networks, median error"));
    assert!(chip.mode(NumberType::I8, NumberType::U8).is_none(), "nothing was seen of int8");
    assert_eq!(fit.not_run.len(), networks.iter().filter(|it| it.integer).count());
    for (point, micro) in fit.networks.iter().zip(networks.iter().filter(|it| !it.integer)) {
        let graph = sartor_compress::simplify(&micro.graph).expect("a sound network");
        let again = predict(&graph, &chip).expect("a price");
        assert!((again / point.predicted_s - 1.0).abs() < 1e-12, "{}", point.name);
    }
}

#[test]
fn a_runtime_that_runs_nothing_is_an_error() {
    let (networks, times, _) = made(0.0);
    let none = vec![None; times.len()];
    let error = solve(&request(), &networks, &none).expect_err("nothing to solve for");
    assert!(error.to_string().contains("ran none"), "{error}");
}
