//! How long estimates take: `cargo run --release -p sartor-cost --example speed -- resnet56.onnx [chip …]`.
//!
//! Prints, for each chip, the time of one full estimate from the graph, of one from a prepared model, and of 10,000 prices of changed
//! widths and types: each the least of several rounds.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench prints times")]

use std::time::{Duration, Instant};

use sartor_chip::{NumberType, find, library};
use sartor_cost::{Change, Model, Options, Precision, estimate};
use sartor_ir::Graph;

const CANDIDATES: usize = 10_000;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("give the path of a network")?;
    let graph = sartor_onnx::import(std::fs::read(path)?, &sartor_onnx::NoExternalData)?.graph;
    let given: Vec<String> = args.collect();
    let all = || library().iter().map(|it| it.id.to_owned()).collect();
    let chips: Vec<String> = if given.is_empty() { all() } else { given };
    println!("{:24} {:>14} {:>14} {:>18}", "chip", "estimate", "prepared", "10,000 candidates");
    for id in chips {
        let chip = find(&id)?;
        let options = Options { batch: 1, precision: Precision::AsIs };
        let whole = least(|| estimate(&graph, &chip, &options).map(|it| it.latency.0))?;
        let model = Model::new(&graph, &chip, &options)?;
        let prepared = least(|| Ok::<_, sartor_cost::CostError>(model.estimate().latency.0))?;
        let mode = chip.best_mode();
        let candidates = candidates(&graph, &model, (mode.weights, mode.activations));
        let many = least(|| {
            candidates.iter().try_fold(0.0, |sum, it| Ok(sum + model.price(it)?.latency.0))
                as Result<f64, sartor_cost::CostError>
        })?;
        println!("{id:24} {whole:>14?} {prepared:>14?} {many:>18?}");
    }
    Ok(())
}

/// The least time of several rounds.
fn least<E>(mut work: impl FnMut() -> Result<f64, E>) -> Result<Duration, E> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        assert!(work()?.is_finite());
        best = best.min(begin.elapsed());
    }
    Ok(best)
}

/// Each candidate narrows the channels between one to four pairs of convolutions, by a pseudorandom number, and gives one
/// convolution the chip's fastest types.
fn candidates(
    graph: &Graph,
    model: &Model<'_>,
    (weights, activations): (NumberType, NumberType),
) -> Vec<Vec<Change>> {
    let groups = model.channel_groups();
    let convs: Vec<_> =
        graph.nodes().filter(|it| it.1.op.name() == "Conv").map(|it| it.0).collect();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let one = |_| {
        let mut changes = Vec::new();
        for _ in 0..=random(4) {
            let Some(group) = groups.get(random(groups.len())) else { continue };
            changes.extend(group.narrowed(1 + random(group.width)));
        }
        if let Some(&node) = convs.get(random(convs.len())) {
            changes.push(Change::Types { node, weights, activations });
        }
        changes
    };
    (0..CANDIDATES).map(one).collect()
}
