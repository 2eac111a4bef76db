//! `fit`: this machine's figures, from the times of generated micro-networks.
//!
//! The cost model says how much each unknown figure of the chip contributes to the latency of a network; what contributes how much is
//! read off by pricing the network with one figure set to one and all others to nothing. Non-negative least squares find the figures
//! that explain what was measured. The file holds them and nothing else: predictions are the ordinary cost model's.

mod fields;
mod measure;
mod micro;
mod net;
mod solve;

use std::collections::BTreeSet;

use sartor_chip::{Chip, library_bases};
use sartor_cost::{Model as CostModel, Options, Precision};
use sartor_ir::{Graph, Op};
use serde::Serialize;

use self::{
    fields::{Draft, Pair, Unknown, Values},
    micro::Micro,
    solve::Observation,
};
use crate::{Clock, Error, Session};

/// What the operating system says of a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Who makes it.
    pub vendor: String,
    /// Its clock. `None`: not known, cycles are then nanoseconds.
    pub clock_hz: Option<f64>,
    /// Threads that work.
    pub threads: usize,
    /// Caches from the second level on, near to far.
    pub caches: Vec<Cache>,
    /// The day, as it stands in the file.
    pub date: String,
}

/// A cache that all working threads fill together.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Its name, such as `l2`.
    pub name: String,
    /// What it holds, over all threads.
    pub bytes: u64,
}

/// What is fitted.
#[derive(Clone, Debug)]
pub struct FitRequest {
    /// Id of the chip.
    pub id: String,
    /// The machine.
    pub machine: Machine,
    /// The runtime, in words.
    pub toolchain: String,
    /// How the runtime is called, with `{model}`.
    pub command: String,
}

/// A runtime that is not ours.
pub trait Outside {
    /// Seconds of one run of each network, in the order of their files; `None` for those that the runtime does not run.
    ///
    /// # Errors
    /// A runtime that cannot be called, or that answers with something else.
    fn seconds(&mut self, files: &[std::path::PathBuf]) -> Result<Vec<Option<f64>>, Error>;
}

/// Where the networks run.
pub enum Bed<'a> {
    /// On Sartor's engine.
    Engine(&'a dyn Clock),
    /// Elsewhere, from files in a temporary folder.
    Outside(&'a mut dyn Outside),
}

/// The machine as it was found.
#[derive(Clone, Debug, Serialize)]
pub struct Fit {
    /// The chip file.
    #[serde(skip)]
    pub toml: String,
    /// Id of the chip.
    pub chip: String,
    /// Networks from which the figures were solved.
    pub fitted: usize,
    /// Networks that were only predicted.
    pub held_out: usize,
    /// Median of `|predicted / measured − 1|` over those from which the figures were solved.
    pub median_error: f64,
    /// The same over those that were only predicted.
    pub held_out_median_error: f64,
    /// Nine of ten of those that were only predicted are closer.
    pub held_out_p90_error: f64,
    /// The same by family and number type.
    pub families: Vec<Family>,
    /// Networks that the runtime does not run.
    pub not_run: Vec<String>,
    /// Every network that was measured.
    pub networks: Vec<Point>,
}

/// How well one family of networks is predicted.
#[derive(Clone, Debug, Serialize)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// `f32` or `int8`.
    pub numbers: &'static str,
    /// Networks from which the figures were solved.
    pub fitted: usize,
    /// Median of `|predicted / measured − 1|` over them.
    pub median_error: f64,
    /// Networks that were only predicted.
    pub held_out: usize,
    /// The median over them.
    pub held_out_median_error: Option<f64>,
}

/// One network.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// Its family.
    pub family: &'static str,
    /// Whether its products are quantized.
    pub integer: bool,
    /// Whether it was kept out of the solution.
    pub held_out: bool,
    /// Its fastest run.
    pub measured_s: f64,
    /// What the cost model says with the new file.
    pub predicted_s: f64,
}

/// Output channels that kernels may compute together.
const UNROLLS: [u64; 4] = [1, 4, 8, 16];

/// Figures that fewer networks support are of low confidence.
const FEW: usize = 3;

impl Session<'_> {
    /// Measures micro-networks and solves for the machine's figures.
    ///
    /// # Errors
    /// A runtime that does not answer as it should, and [`Error::Interrupted`].
    pub fn fit(&self, request: &FitRequest, bed: Bed<'_>) -> Result<Fit, Error> {
        let networks = micro::networks();
        let times = match bed {
            Bed::Engine(clock) => self.time_engine(&networks, clock)?,
            Bed::Outside(outside) => self.time_outside(&networks, outside)?,
        };
        self.progress.begin("solving", None);
        let fit = solve(request, &networks, &times);
        self.progress.end();
        fit
    }
}

/// A network that was measured.
struct Sample<'a> {
    micro: &'a Micro,
    graph: Graph,
    ops: BTreeSet<String>,
    measured: f64,
}

/// The figures that explain the times best.
fn solve(request: &FitRequest, networks: &[Micro], times: &[Option<f64>]) -> Result<Fit, Error> {
    let mut samples = Vec::new();
    let mut not_run = Vec::new();
    for (micro, time) in networks.iter().zip(times) {
        let Some(measured) = *time else {
            not_run.push(micro.name.clone());
            continue;
        };
        let graph =
            sartor_compress::simplify(&micro.graph).map_err(|it| Error::Bug(it.to_string()))?;
        let ops = graph.nodes().map(|(_, node)| node.op.name().to_owned()).collect();
        samples.push(Sample { micro, graph, ops, measured });
    }
    if samples.iter().all(|it| it.micro.held_out) {
        return Err(Error::Invalid(
            "the runtime ran none of the networks; run its command by hand on one".to_owned(),
        ));
    }
    let ops = elementary(&samples);
    let mut draft = Draft {
        machine: &request.machine,
        id: &request.id,
        toolchain: &request.toolchain,
        command: &request.command,
        ops: &ops,
        unroll: [1, 1],
    };
    let best = best_solution(&mut draft, &samples)?;
    let toml = draft
        .render(&Values { seconds: &best.seconds, origins: &origins(&best, &request.machine) });
    let chip = Chip::checked(&request.id, &toml, &library_bases)
        .map_err(|it| Error::Bug(format!("the fitted chip file is not sound: {it}")))?;
    report(request, &chip, &samples, toml, not_run)
}

/// Operators without products in the samples, each once for floats and, where quantized networks have it, once for integers.
fn elementary(samples: &[Sample<'_>]) -> Vec<(String, bool)> {
    let mut ops = BTreeSet::new();
    for sample in samples {
        for (_, node) in sample.graph.nodes() {
            let product = matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul)
                || matches!(&node.op, Op::Named(it) if matches!(it.name.as_str(), "LSTM" | "GRU" | "RNN"));
            let view = matches!(
                node.op,
                Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze | Op::Identity
            );
            let quantizing = matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_));
            if !product && !view {
                ops.insert((node.op.name().to_owned(), sample.micro.integer && !quantizing));
            }
        }
    }
    ops.into_iter().collect()
}

/// One solution.
struct Solution {
    seconds: Vec<f64>,
    observations: Vec<Observation>,
    /// Sum of the relative errors.
    loss: f64,
}

/// The solution with the layout that explains the times best; the draft has that layout then.
fn best_solution(draft: &mut Draft<'_>, samples: &[Sample<'_>]) -> Result<Solution, Error> {
    let fitted: Vec<_> = samples.iter().filter(|it| !it.micro.held_out).collect();
    let unknowns = draft.unknowns();
    let columns: Vec<usize> = (0..unknowns.len()).collect();
    let mut observations: Vec<_> = fitted
        .iter()
        .map(|it| Observation { terms: vec![0.0; unknowns.len()], measured: it.measured })
        .collect();
    fill(draft, &fitted, &columns, &mut observations)?;
    let mut best = Solution::of(observations, unknowns.len());
    for (index, pair) in Pair::ALL.into_iter().enumerate() {
        let touched: Vec<usize> =
            columns.iter().copied().filter(|&i| unknowns[i].depends_on_layout(pair)).collect();
        for unroll in UNROLLS {
            let before = std::mem::replace(&mut draft.unroll[index], unroll);
            let mut observations = best.observations.clone();
            fill(draft, &fitted, &touched, &mut observations)?;
            let found = Solution::of(observations, unknowns.len());
            if found.loss < best.loss {
                best = found;
            } else {
                draft.unroll[index] = before;
            }
        }
    }
    Ok(best)
}

impl Solution {
    fn of(observations: Vec<Observation>, unknowns: usize) -> Self {
        let seconds = solve::fit(&observations, unknowns);
        let loss = observations.iter().map(|it| it.error(&seconds).abs()).sum();
        Solution { seconds, observations, loss }
    }
}

/// Reads off the cost model what some of the unknowns contribute to each network: its latency where the unknown is one second and all
/// others are nothing.
fn fill(
    draft: &Draft<'_>,
    samples: &[&Sample<'_>],
    unknowns: &[usize],
    observations: &mut [Observation],
) -> Result<(), Error> {
    let all = draft.unknowns();
    let origins = vec![Some("assumed = \"a unit\"".to_owned()); all.len()];
    let chip = |one: Option<usize>| {
        let mut seconds = vec![0.0; all.len()];
        if let Some(one) = one {
            seconds[one] = 1.0;
        }
        let text = draft.render(&Values { seconds: &seconds, origins: &origins });
        Chip::parse(draft.id, &text)
    };
    let nothing = chip(None)?;
    let models = samples
        .iter()
        .map(|it| CostModel::new(&it.graph, &nothing, &options(&it.graph)))
        .collect::<Result<Vec<_>, _>>()?;
    for &i in unknowns {
        let chip = chip(Some(i))?;
        for ((sample, model), observation) in samples.iter().zip(&models).zip(&mut *observations) {
            let absent = matches!(&all[i], Unknown::Element(op, _) if !sample.ops.contains(op));
            let term = if absent { 0.0 } else { model.on(&chip)?.base()?.latency.0 };
            // Less than a nanosecond for each second is what is left of figures that should take no time.
            observation.terms[i] = if term < 1e-9 { 0.0 } else { term };
        }
    }
    Ok(())
}

/// The ordinary estimate.
fn predict(graph: &Graph, chip: &Chip) -> Result<f64, Error> {
    Ok(CostModel::new(graph, chip, &options(graph))?.base()?.latency.0)
}

fn options(graph: &Graph) -> Options {
    let batch = crate::model::fixed_batch(graph).unwrap_or(1);
    Options { batch, precision: Precision::AsIs }
}

/// By unknown: what it rests on; `None` if no network has anything to do with it.
fn origins(solution: &Solution, machine: &Machine) -> Vec<Option<String>> {
    let unknowns = solution.seconds.len();
    let one = |i: usize| {
        let with = solution.observations.iter().filter(|it| it.terms[i] > 0.0);
        let mut errors: Vec<_> = with.map(|it| it.error(&solution.seconds).abs()).collect();
        if errors.is_empty() {
            return None;
        }
        let (count, error) = (errors.len(), 100.0 * quantile(&mut errors, 0.5));
        let how = format!(
            "{}, {}: {count} micro-networks, median error {error:.1} %",
            machine.date, machine.processor
        );
        let conf = if count < FEW { ", conf = \"low\"" } else { "" };
        Some(format!("measured = {}{conf}", fields::quoted(&how)))
    };
    (0..unknowns).map(one).collect()
}

/// How well the file predicts what was measured.
fn report(
    request: &FitRequest,
    chip: &Chip,
    samples: &[Sample<'_>],
    toml: String,
    not_run: Vec<String>,
) -> Result<Fit, Error> {
    let mut networks = Vec::with_capacity(samples.len());
    for it in samples {
        networks.push(Point {
            name: it.micro.name.clone(),
            family: it.micro.family,
            integer: it.micro.integer,
            held_out: it.micro.held_out,
            measured_s: it.measured,
            predicted_s: predict(&it.graph, chip)?,
        });
    }
    let errors = |keep: &dyn Fn(&Point) -> bool| -> Vec<f64> {
        networks.iter().filter(|it| keep(it)).map(Point::error).collect()
    };
    let names: BTreeSet<(bool, &str)> = networks.iter().map(|it| (it.integer, it.family)).collect();
    let families = names.into_iter().map(|(integer, name)| {
        let own = |it: &Point| it.integer == integer && it.family == name;
        let mut fitted = errors(&|it| own(it) && !it.held_out);
        let mut held_out = errors(&|it| own(it) && it.held_out);
        Family {
            name: name.to_owned(),
            numbers: if integer { "int8" } else { "f32" },
            fitted: fitted.len(),
            median_error: quantile(&mut fitted, 0.5),
            held_out: held_out.len(),
            held_out_median_error: (!held_out.is_empty()).then(|| quantile(&mut held_out, 0.5)),
        }
    });
    let families = families.collect();
    let (mut fitted, mut held_out) = (errors(&|it| !it.held_out), errors(&|it| it.held_out));
    Ok(Fit {
        toml,
        chip: request.id.clone(),
        fitted: fitted.len(),
        held_out: held_out.len(),
        median_error: quantile(&mut fitted, 0.5),
        held_out_median_error: quantile(&mut held_out, 0.5),
        held_out_p90_error: quantile(&mut held_out, 0.9),
        families,
        not_run,
        networks,
    })
}

impl Point {
    /// `|predicted / measured − 1|`.
    fn error(&self) -> f64 {
        (self.predicted_s / self.measured_s - 1.0).abs()
    }
}

/// The value below which a share of the list lies; 0 of an empty list.
fn quantile(list: &mut [f64], share: f64) -> f64 {
    list.sort_unstable_by(f64::total_cmp);
    let at = (share * list.len().saturating_sub(1) as f64).round() as usize;
    list.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests;
