//! Time on this machine, whole and by step. The clock is the caller's: a library reads none.

use std::time::Duration;

use sartor_engine::{Array, Data, Options, Probe, Program, StepSummary, batch_shapes, level};
use sartor_ir::{DType, Graph};
use serde::Serialize;

use crate::{Error, Model, Session, evaluate::check_runs};

/// What time it is.
pub trait Clock: Sync {
    /// Time on the wall since some moment.
    fn wall(&self) -> Duration;

    /// Time of all cores that this process has used since some moment; `None` where the system does not say.
    fn cpu(&self) -> Option<Duration>;
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchRequest {
    /// Samples that run at once, or the arrays to run on.
    pub inputs: BenchInputs,
    /// Runs that are measured, at least one; some more come first to warm up.
    pub rounds: usize,
}

/// What a network is timed on.
#[derive(Clone, Debug)]
pub enum BenchInputs {
    /// So many samples of numbers without meaning: the time does not depend on them.
    Batch(usize),
    /// Given arrays, in the order of the inputs.
    Arrays(Vec<Array>),
}

/// How long a network takes. All times are medians over the rounds, in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// Extent of axis 0 of the first input.
    pub batch: usize,
    /// Runs measured.
    pub rounds: usize,
    /// Threads that work.
    pub threads: usize,
    /// Set of instructions.
    pub simd: String,
    /// Time of one run on the wall.
    pub latency_s: f64,
    /// Time of the fastest run.
    pub latency_best_s: f64,
    /// Time of all cores together for one run, the mean over the rounds.
    pub cpu_s: Option<f64>,
    /// `batch / latency_s`.
    pub samples_per_s: f64,
    /// What this machine can do at best.
    pub peak: Peak,
    /// The steps of the run in their order.
    pub nodes: Vec<BenchNode>,
}

/// The fastest product of matrices in the same run: twice the multiply-accumulates of `m = n = k = 1024` over its time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peak {
    /// Of 32-bit floats.
    pub f32_flops_per_s: f64,
    /// Of bytes, where the network computes with them.
    pub int8_ops_per_s: Option<f64>,
}

/// A step of a run: a node of the network, with those that are computed along with it.
#[derive(Clone, Debug, Serialize)]
pub struct BenchNode {
    /// The node.
    pub name: String,
    /// Its operator, or what is done beside the network's nodes.
    pub op: String,
    /// Its time.
    pub latency_s: f64,
    /// Its multiply-accumulates, where it is made of them.
    pub macs: usize,
    /// Whether it works on bytes.
    pub integer: bool,
    /// Two operations, on floats or on bytes, for each multiply-accumulate, over the time.
    pub flops_per_s: Option<f64>,
    /// Share of the machine's peak in that arithmetic, 1 for all of it; more where the kernel gets by with fewer
    /// multiplications than the definition has (Winograd's for 3 × 3 convolutions).
    pub share_of_peak: Option<f64>,
}

/// Runs before the first that is measured: the second finds the memory that it needs.
const WARM_UP: usize = 2;

/// Measurements of the peak; more add nothing.
const PROBES: usize = 10;

impl Session<'_> {
    /// Times a network on this machine. Runs, traced runs and the probe of the peak take turns, so that a machine that
    /// slows down slows all of them.
    ///
    /// # Errors
    /// An unsupported operator, inputs that do not fit, and [`Error::Interrupted`].
    pub fn bench(
        &self,
        model: &Model,
        request: &BenchRequest,
        clock: &dyn Clock,
    ) -> Result<Bench, Error> {
        let graph = model.simplified()?;
        check_runs(&graph)?;
        let inputs = inputs(&graph, &request.inputs)?;
        let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
        let program = Program::prepare(&graph, &shapes, &Options::default())?;
        let steps = program.steps();
        let rounds = request.rounds.max(1);
        let mut times = Times::new(steps.len());
        let integer = steps.iter().any(|it| it.integer && it.macs > 0);
        let mut probes = [Some(Probe::f32()), integer.then(Probe::u8)];
        for _ in 0..WARM_UP {
            program.run(&inputs)?;
            probes.iter_mut().flatten().for_each(Probe::run);
        }
        self.progress.begin("measuring", Some(rounds as u64));
        for round in 0..rounds {
            self.interrupt.check()?;
            times.whole(clock, || program.run(&inputs))?;
            times.traced(clock, &program, &inputs)?;
            if round < PROBES {
                times.probe(clock, &mut probes);
            }
            self.progress.advance(1);
        }
        self.progress.end();
        let batch = shapes.first().and_then(|it| it.first().copied()).unwrap_or(1);
        Ok(times.result(batch, rounds, &steps))
    }
}

/// The arrays to run on.
fn inputs(graph: &Graph, given: &BenchInputs) -> Result<Vec<Array>, Error> {
    let batch = match given {
        BenchInputs::Arrays(arrays) => return Ok(arrays.clone()),
        BenchInputs::Batch(batch) => *batch,
    };
    let made = made_inputs(graph, batch)?;
    let bound = made.first().and_then(|it| it.shape.first().copied()).unwrap_or(batch);
    if bound != batch {
        return Err(Error::Invalid(format!(
            "the network is bound to a batch of {bound}, {batch} samples were asked for; use --batch {bound}"
        )));
    }
    Ok(made)
}

/// Arrays of numbers without meaning, as the network takes them; `batch` samples where it takes any number.
pub(crate) fn made_inputs(graph: &Graph, batch: usize) -> Result<Vec<Array>, Error> {
    let shapes = batch_shapes(graph, batch)?;
    let made = graph.inputs().iter().zip(&shapes).map(|(&id, shape)| {
        let dtype = graph.value(id).ty.as_ref().map_or(DType::F32, |it| it.dtype);
        let wave = |i: usize| (i as f32 * 0.37).sin();
        let count = shape.iter().product();
        let floats = Array::f32(shape, (0..count).map(wave).collect());
        // Zeros are an index of everything.
        let zeros = Array { shape: shape.clone(), data: Data::I64(vec![0; count]) };
        let it = if dtype.is_float() { floats } else { zeros };
        it.cast(dtype)
            .ok_or_else(|| Error::Invalid(format!("an input holds {dtype}, which is not run")))
    });
    made.collect()
}

/// What the clock said, in seconds.
struct Times {
    whole: Vec<f64>,
    cpu: Option<f64>,
    /// Operations per second, of floats and of bytes.
    peaks: [f64; 2],
    /// For each step, its time in each round, and how often it ran in one.
    steps: Vec<Vec<f64>>,
    calls: Vec<usize>,
}

impl Times {
    fn new(steps: usize) -> Self {
        Times {
            whole: Vec::new(),
            cpu: Some(0.0),
            peaks: [0.0; 2],
            steps: vec![Vec::new(); steps],
            calls: vec![0; steps],
        }
    }

    fn whole<T, E>(
        &mut self,
        clock: &dyn Clock,
        run: impl FnOnce() -> Result<T, E>,
    ) -> Result<(), E> {
        let (cpu, wall) = (clock.cpu(), clock.wall());
        run()?;
        self.whole.push(seconds(clock.wall().saturating_sub(wall)));
        let spent =
            clock.cpu().zip(cpu).map(|(after, before)| seconds(after.saturating_sub(before)));
        self.cpu = self.cpu.zip(spent).map(|(sum, it)| sum + it);
        Ok(())
    }

    fn traced(
        &mut self,
        clock: &dyn Clock,
        program: &Program,
        inputs: &[Array],
    ) -> Result<(), Error> {
        let mut spent = vec![0.0; self.steps.len()];
        let mut calls = vec![0; self.steps.len()];
        let mut last = clock.wall();
        program.run_traced(inputs, &mut |step| {
            let now = clock.wall();
            spent[step] += seconds(now.saturating_sub(last));
            calls[step] += 1;
            last = now;
        })?;
        self.steps.iter_mut().zip(spent).for_each(|(all, it)| all.push(it));
        self.calls = calls;
        Ok(())
    }

    fn probe(&mut self, clock: &dyn Clock, probes: &mut [Option<Probe>; 2]) {
        for (peak, probe) in self.peaks.iter_mut().zip(probes) {
            let Some(probe) = probe else { continue };
            let before = clock.wall();
            probe.run();
            *peak = peak.max(probe.operations() / seconds(clock.wall().saturating_sub(before)));
        }
    }

    fn result(mut self, batch: usize, rounds: usize, steps: &[StepSummary]) -> Bench {
        let peaks = self.peaks;
        let node = |((step, times), calls): ((&StepSummary, &mut Vec<f64>), &usize)| {
            let latency = median(times);
            let macs = step.macs * calls;
            let rate = (macs > 0 && latency > 0.0).then(|| 2.0 * macs as f64 / latency);
            BenchNode {
                name: step.node.clone(),
                op: step.kind.clone(),
                latency_s: latency,
                macs,
                integer: step.integer,
                flops_per_s: rate,
                share_of_peak: rate.map(|it| it / peaks[usize::from(step.integer)]),
            }
        };
        let nodes = steps.iter().zip(&mut self.steps).zip(&self.calls).map(node).collect();
        let latency = median(&mut self.whole);
        Bench {
            batch,
            rounds,
            threads: rayon::current_num_threads(),
            simd: format!("{:?}", level()).to_lowercase(),
            latency_s: latency,
            latency_best_s: self.whole.first().copied().unwrap_or(latency),
            cpu_s: self.cpu.map(|it| it / rounds as f64),
            samples_per_s: batch as f64 / latency,
            peak: Peak {
                f32_flops_per_s: peaks[0],
                int8_ops_per_s: (peaks[1] > 0.0).then_some(peaks[1]),
            },
            nodes,
        }
    }
}

fn seconds(it: Duration) -> f64 {
    it.as_secs_f64()
}

/// The middle of the list, 0 if it is empty.
fn median(list: &mut [f64]) -> f64 {
    list.sort_unstable_by(f64::total_cmp);
    match list.len() {
        0 => 0.0,
        n if n % 2 == 1 => list[n / 2],
        n => f64::midpoint(list[n / 2 - 1], list[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (list, expected) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![5.0, 1.0, 3.0], 3.0), (vec![4.0, 1.0], 2.5)]
        {
            assert!((median(&mut list.clone()) - expected).abs() < 1e-12, "{list:?}");
        }
    }

    #[test]
    fn rates_follow_from_times() {
        let mut times = Times::new(2);
        times.whole = vec![0.5, 0.25, 0.25];
        times.cpu = Some(1.5);
        times.peaks = [2e11, 0.0];
        times.steps = vec![vec![0.2, 0.1, 0.2], vec![0.05; 3]];
        times.calls = vec![2, 1];
        let step = |node: &str, macs| StepSummary {
            node: node.to_owned(),
            kind: "Conv".to_owned(),
            shape: vec![],
            macs,
            integer: false,
        };
        let it = times.result(8, 3, &[step("a", 1_000_000), step("b", 0)]);
        assert_eq!((it.latency_s, it.latency_best_s, it.samples_per_s), (0.25, 0.25, 32.0));
        assert!((it.cpu_s.unwrap() - 0.5).abs() < 1e-12);
        assert!((it.peak.f32_flops_per_s - 2e11).abs() < 1.0);
        assert!((it.nodes[0].flops_per_s.unwrap() - 2e7).abs() < 1e-3);
        assert!((it.nodes[0].share_of_peak.unwrap() - 1e-4).abs() < 1e-12);
        assert_eq!(it.nodes[1].flops_per_s, None);
    }
}
