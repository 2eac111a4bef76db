//! Times training steps (forward, backward, SGD) of an ONNX network.
//!
//! usage: `train_step MODEL BATCH ROUNDS [nodes]`; `RAYON_NUM_THREADS` sets the threads.

use std::{env, error::Error, time::Instant};

use sartor_engine::{
    Array, Sgd, sgd_step,
    train::{Gradients, Parameters, Tape, TapeOptions, trainable},
};

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that times")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, batch, rounds, rest @ ..] = arguments.as_slice() else {
        return Err("usage: train_step MODEL BATCH ROUNDS [nodes]".into());
    };
    let (batch, rounds): (usize, usize) = (batch.parse()?, rounds.parse()?);
    let graph = sartor_onnx::import(std::fs::read(path)?, &sartor_onnx::NoExternalData)?.graph;
    let input = graph.value(graph.inputs()[0]).ty.clone().and_then(|it| it.shape);
    let mut shape = vec![batch];
    for dim in input.iter().flatten().skip(1) {
        shape.push(dim.known().ok_or("the input has more than one free extent")?);
    }
    let ids = trainable(&graph);
    let options = TapeOptions { parameters: ids.clone(), ..TapeOptions::default() };
    let mut tape = Tape::prepare(&graph, std::slice::from_ref(&shape), &options)?;
    let mut parameters = Parameters::from_graph(&graph, &ids)?;
    let mut gradients = Gradients::new(&parameters);
    let mut momenta: Vec<Vec<f32>> =
        (0..ids.len()).map(|i| vec![0.0; parameters.get(i).len()]).collect();
    let noise = (0..shape.iter().product()).map(|i: usize| (i as f32 * 12.9898).sin()).collect();
    let x = [Array::f32(&shape, noise)];
    let it = Sgd { rate: 0.01, momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
    let (mut best, mut best_cpu) = (f64::INFINITY, f64::INFINITY);
    let mut times = vec![[0.0; 2]; tape.steps().len()];
    for _ in 0..rounds {
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        let mut last = start;
        let mut spent = || {
            let now = Instant::now();
            (now - std::mem::replace(&mut last, now)).as_secs_f64() * 1e3 / rounds as f64
        };
        let outputs =
            tape.forward_observed(&mut parameters, &x, &mut |at| times[at][0] += spent())?;
        let loss = softmax_gradient(&outputs[0]);
        gradients.zero();
        spent();
        tape.backward_observed(&parameters, &[Some(loss)], &mut gradients, &mut |at| {
            times[at][1] += spent();
        })?;
        for (i, momentum) in momenta.iter_mut().enumerate() {
            sgd_step(it, parameters.get_mut(i), gradients.get(i), momentum);
        }
        best = best.min(start.elapsed().as_secs_f64());
        best_cpu = best_cpu.min(cpu_seconds()? - cpu);
    }
    if !rest.is_empty() {
        for (it, [forward, backward]) in tape.steps().iter().zip(&times) {
            let kind = if it.fast { "" } else { "(rule)" };
            println!("{forward:8.2} {backward:8.2} ms  {:20} {} {kind}", it.op, it.node);
        }
    }
    let peak = tape.peak_memory_bytes() as f64 / 1e6;
    println!(
        "{path} batch {batch}: wall {:.0} ms, cpu {:.0} ms, tape {peak:.0} MB, process {:.0} MB",
        best * 1e3,
        best_cpu * 1e3,
        status("VmHWM:")? / 1e3
    );
    Ok(())
}

/// The gradient of the mean cross-entropy, the target of row i being class i mod n.
fn softmax_gradient(logits: &Array) -> Array {
    let n = *logits.shape.last().unwrap_or(&1);
    let rows = logits.len() / n;
    let mut values = logits.to_f32();
    for (i, row) in values.chunks_exact_mut(n).enumerate() {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|it| (it - largest).exp()).sum();
        for it in &mut *row {
            *it = (*it - largest).exp() / sum / rows as f32;
        }
        row[i % n] -= 1.0 / rows as f32;
    }
    Array::f32(&logits.shape, values)
}

/// Seconds that the process has computed, over all threads, in steps of 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let own: f64 = text.split(' ').next().ok_or("no time")?.parse()?;
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().ok_or("no time")?.parse::<f64>()?;
    }
    Ok(total.max(own) / 1e9)
}

/// A line of the process's status, in kB.
fn status(name: &str) -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|it| it.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}
