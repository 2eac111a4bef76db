//! Times a network: `infer MODEL BATCH [profile]`. Each line on standard input is a number of runs; the answer is the
//! mean wall and processor time of one, in milliseconds (over all threads; Linux only). With `profile`: per step.
#![expect(clippy::print_stdout, reason = "its only output")]
#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::io::BufRead;
use std::time::Instant;

use sartor_engine::{Array, Options, Program, batch_shapes};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, batch, rest @ ..] = arguments.as_slice() else {
        return Err("usage: infer MODEL BATCH [profile]".into());
    };
    let graph = sartor_onnx::import(std::fs::read(model)?, &sartor_onnx::NoExternalData)?.graph;
    let shapes = batch_shapes(&graph, batch.parse()?)?;
    let wave = |i: usize| (i as f32 * 0.37).sin();
    let inputs: Vec<_> = shapes
        .iter()
        .map(|shape| Array::f32(shape, (0..shape.iter().product()).map(wave).collect()))
        .collect();
    let program = Program::prepare(&graph, &shapes, &Options::default())?;
    program.run(&inputs)?;
    if rest.first().is_some_and(|it| it == "profile") {
        return profile(&program, &inputs);
    }
    println!("ready {} KiB", program.peak_memory_bytes() >> 10);
    for line in std::io::stdin().lock().lines() {
        let runs: u32 = line?.trim().parse()?;
        let (wall, cpu) = (Instant::now(), processor_ns());
        for _ in 0..runs {
            program.run(&inputs)?;
        }
        let each = 1e-6 / f64::from(runs);
        let wall = wall.elapsed().as_nanos() as f64 * each;
        println!("{wall:.4} {:.4}", (processor_ns() - cpu) as f64 * each);
    }
    Ok(())
}

/// The shortest of some runs for each step, with the rate of those that multiply.
fn profile(program: &Program, inputs: &[Array]) -> Result<(), Box<dyn std::error::Error>> {
    let steps = program.steps();
    let mut shortest = vec![f64::INFINITY; steps.len()];
    for _ in 0..20 {
        let mut last = Instant::now();
        program.run_traced(inputs, &mut |step| {
            let now = Instant::now();
            shortest[step] = shortest[step].min((now - last).as_secs_f64());
            last = now;
        })?;
    }
    for (step, time) in steps.iter().zip(&shortest) {
        let rate = 2e-9 * step.macs as f64 / time;
        println!(
            "{:9.1} us {rate:7.1} GFLOP/s  {:12} {:?} {}",
            time * 1e6,
            step.kind,
            step.shape,
            step.node
        );
    }
    println!("{:9.1} us in all", shortest.iter().sum::<f64>() * 1e6);
    Ok(())
}

/// Processor time of all threads.
fn processor_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(spent).sum()
}
