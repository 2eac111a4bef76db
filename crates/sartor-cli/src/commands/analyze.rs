//! `sartor analyze`: what a network costs on a chip.

use sartor::{Chip, Column, Error, Estimate, Model, Precision, Session, Table, format};
use serde::Serialize;

use crate::{args::Analyze, output::Output};

/// The JSON of an analysis.
#[derive(Serialize)]
struct Analysis {
    chip: String,
    batch: usize,
    precision: String,
    latency_s: f64,
    cycles: f64,
    energy_j: Option<f64>,
    energy_missing: Vec<String>,
    macs: u64,
    mac_slots: u64,
    parameters: u64,
    weight_bytes: u64,
    peak_memory_bytes: u64,
    weights_fit: bool,
    activations_fit: bool,
    bound: String,
    low_confidence: Vec<String>,
    fallbacks: Vec<String>,
    nodes: Vec<NodeLine>,
}

#[derive(Serialize)]
struct NodeLine {
    name: String,
    op: String,
    macs: u64,
    mac_slots: u64,
    bytes: u64,
    latency_s: f64,
    energy_j: Option<f64>,
    bound: String,
    margin: Option<f64>,
    utilisation: f64,
    note: String,
}

pub(super) fn run(args: &Analyze, session: &Session<'_>, output: &Output) -> Result<(), Error> {
    let model = Model::load(&args.model)?;
    let mut found = Vec::new();
    for id in &args.chip {
        let chip = session.chip(id)?;
        let precision = precision(&chip, args.assume.as_deref())?;
        found.push(analysis(&session.analyze(&model, &chip, args.batch as usize, precision)?));
    }
    let text = || {
        if let [one] = found.as_slice() {
            detailed(one, output)
        } else {
            side_by_side(&found, output)
        }
    };
    match found.as_slice() {
        [one] => output.result(one, text),
        many => output.result(&many, text),
    }
}

/// The arithmetic that `--as` asks for: the chip's mode with weights of that type.
fn precision(chip: &Chip, assume: Option<&str>) -> Result<Precision, Error> {
    let Some(text) = assume else { return Ok(Precision::AsIs) };
    let weights: sartor::NumberType = text.parse().map_err(Error::Usage)?;
    let mode = chip.modes().find(|it| it.weights == weights);
    let mode = mode.ok_or_else(|| {
        let mut known: Vec<_> = chip.modes().map(|it| it.weights.to_string()).collect();
        known.dedup();
        Error::Usage(format!(
            "{} has no arithmetic for {weights} weights; --as may be {}",
            chip.id,
            known.join(", ")
        ))
    })?;
    Ok(Precision::As(mode.weights, mode.activations))
}

fn analysis(it: &Estimate) -> Analysis {
    let node = |it: &sartor::NodeCost| NodeLine {
        name: it.name.clone(),
        op: it.op.clone(),
        macs: it.macs.0,
        mac_slots: it.mac_slots.0,
        bytes: it.moved.iter().map(|it| it.1.0).sum(),
        latency_s: it.latency.0,
        energy_j: it.energy.map(|it| it.0),
        bound: it.bound.to_string(),
        margin: it.margin,
        utilisation: it.utilisation,
        note: it.note.clone(),
    };
    Analysis {
        chip: it.chip.clone(),
        batch: it.batch,
        precision: it.precision.clone(),
        latency_s: it.latency.0,
        cycles: it.cycles.0,
        energy_j: it.energy.joules.map(|it| it.0),
        energy_missing: it.energy.missing.clone(),
        macs: it.macs.0,
        mac_slots: it.mac_slots.0,
        parameters: it.parameters,
        weight_bytes: it.weight_bytes.0,
        peak_memory_bytes: it.peak_memory.0,
        weights_fit: it.weights.fits,
        activations_fit: it.activations.fits,
        bound: it.bound.to_string(),
        low_confidence: it.low_confidence.clone(),
        fallbacks: it.fallbacks.clone(),
        nodes: it.nodes.iter().map(node).collect(),
    }
}

fn summary(table: &mut Table, it: &[&Analysis]) {
    let mut line = |name: &str, value: &dyn Fn(&Analysis) -> String| {
        let mut cells = vec![name.to_owned()];
        cells.extend(it.iter().map(|it| value(it)));
        table.row(cells);
    };
    let fits = |fits: bool| if fits { "yes" } else { "no" }.to_owned();
    line("latency (estimate)", &|it| format::seconds(it.latency_s));
    line("bound by", &|it| it.bound.clone());
    line("energy (estimate)", &|it| {
        it.energy_j.map_or_else(|| "not known".to_owned(), format::joules)
    });
    line("MACs", &|it| format::count(it.macs));
    line("MAC slots", &|it| format::count(it.mac_slots));
    line("weights", &|it| format::bytes(it.weight_bytes));
    line("peak activations", &|it| format::bytes(it.peak_memory_bytes));
    line("weights fit", &|it| fits(it.weights_fit));
    line("activations fit", &|it| fits(it.activations_fit));
    line("arithmetic", &|it| it.precision.clone());
}

fn side_by_side(found: &[Analysis], output: &Output) -> String {
    let columns =
        std::iter::once(Column::text("")).chain(found.iter().map(|it| Column::prose(&it.chip)));
    let mut table = Table::new(columns);
    summary(&mut table, &found.iter().collect::<Vec<_>>());
    output.render(&table)
}

fn detailed(found: &Analysis, output: &Output) -> String {
    let mut head = Table::new([Column::text(""), Column::prose("")]);
    summary(&mut head, &[found]);
    let mut nodes = Table::new([
        Column::text("node"),
        Column::text("operator"),
        Column::number("MACs"),
        Column::number("slots"),
        Column::number("bytes moved"),
        Column::number("latency"),
        Column::number("array used"),
        Column::text("bound by"),
    ]);
    for it in found.nodes.iter().filter(|it| it.latency_s > 0.0) {
        nodes.row([
            it.name.clone(),
            it.op.clone(),
            format::count(it.macs),
            format::count(it.mac_slots),
            format::bytes(it.bytes),
            format::seconds(it.latency_s),
            format::percent(100.0 * it.utilisation),
            it.bound.clone(),
        ]);
    }
    let mut text = format!("{}\n\n{}\n{}", found.chip, output.render(&head), output.render(&nodes));
    for (title, list) in [
        ("runs elsewhere", &found.fallbacks),
        ("rests on low-confidence figures", &found.low_confidence),
    ] {
        if !list.is_empty() {
            text = format!("{text}\n{title}:\n  {}\n", list.join("\n  "));
        }
    }
    text
}
