//! `sartor bench`: time on this machine.

use std::time::{Duration, Instant};

use sartor::{
    Bench, BenchInputs, BenchRequest, Clock, Column, Error, Model, Session, Side, Table, format,
    read_arrays,
};

use crate::{args, output::Output};

/// The clocks of the system.
pub(super) struct System(pub(super) Instant);

impl Clock for System {
    fn wall(&self) -> Duration {
        self.0.elapsed()
    }

    #[cfg(unix)]
    fn cpu(&self) -> Option<Duration> {
        rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().ok()
    }

    #[cfg(not(unix))]
    fn cpu(&self) -> Option<Duration> {
        None
    }
}

pub(super) fn run(args: &args::Bench, session: &Session<'_>, output: &Output) -> Result<(), Error> {
    let model = Model::load(&args.model)?;
    let inputs = match &args.inputs {
        Some(path) => BenchInputs::Arrays(read_arrays(path, &model.graph, Side::Inputs)?),
        None => BenchInputs::Batch(args.batch as usize),
    };
    let request = BenchRequest { inputs, rounds: args.rounds as usize };
    #[expect(clippy::disallowed_methods, reason = "the command line is where clocks are read")]
    let clock = System(Instant::now());
    let found = session.bench(&model, &request, &clock)?;
    output.result(&found, || {
        format!("{}\n{}", output.render(&head(&found)), output.render(&nodes(&found)))
    })
}

fn head(found: &Bench) -> Table {
    let mut table = Table::new([Column::text(""), Column::text("")]);
    let best = format::seconds(found.latency_best_s);
    let mut peak =
        format!("{} in float32 products", format::si(found.peak.f32_flops_per_s, "FLOP/s"));
    if let Some(it) = found.peak.int8_ops_per_s {
        peak = format!("{peak}, {} in int8", format::si(it, "OP/s"));
    }
    let conditions = format!(
        "batch {}, {} threads, {}, {} rounds",
        found.batch, found.threads, found.simd, found.rounds
    );
    for (name, value) in [
        ("measured with", conditions),
        ("latency", format!("{} (fastest {best})", format::seconds(found.latency_s))),
        ("processor time", found.cpu_s.map_or_else(|| "not known".to_owned(), format::seconds)),
        ("throughput", format!("{} samples/s", format::significant(found.samples_per_s))),
        ("peak of this machine", peak),
    ] {
        table.row([name.to_owned(), value]);
    }
    table
}

fn nodes(found: &Bench) -> Table {
    let mut table = Table::new([
        Column::text("step"),
        Column::text("operator"),
        Column::number("latency"),
        Column::number("share"),
        Column::number("rate"),
        Column::number("of the peak"),
    ]);
    let rate = |it: &sartor::BenchNode| {
        let unit = if it.integer { "OP/s" } else { "FLOP/s" };
        it.flops_per_s.map_or_else(String::new, |it| format::si(it, unit))
    };
    let total: f64 = found.nodes.iter().map(|it| it.latency_s).sum();
    for it in &found.nodes {
        table.row([
            it.name.clone(),
            it.op.clone(),
            format::seconds(it.latency_s),
            format::percent(100.0 * it.latency_s / total),
            rate(it),
            it.share_of_peak.map_or_else(String::new, |it| format::percent(100.0 * it)),
        ]);
    }
    table
}
