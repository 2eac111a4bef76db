//! `sartor quantize`: INT8 after training.

use sartor::{
    Column, DataSpec, Error, Model, QuantizeStatic, QuantizedNode, RangeMethod, Session, Table,
    format, quantization_scheme,
};
use serde::Serialize;

use crate::{
    args::{ActivationType, Quantize, Ranges, WeightType},
    output::Output,
};

#[derive(Serialize)]
struct Outcome<'a> {
    bytes: u64,
    nodes: &'a [QuantizedNode],
}

pub(super) fn run(
    args: &Quantize,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    sartor::check_output(&args.output, force)?;
    let config = configuration(args, session)?;
    let model = Model::load(&args.model)?;
    let spec = DataSpec::load(&args.data)?;
    let (quantized, found) = session.quantize(&model, &config, &spec)?;
    let bytes = quantized.save(&args.output, force)?;
    output.say(&format!(
        "wrote {} ({}, was {})",
        args.output.display(),
        format::bytes(bytes),
        format::bytes(model.bytes)
    ));
    output.result(&Outcome { bytes, nodes: &found.nodes }, || table(&found.nodes, output))
}

fn configuration(args: &Quantize, session: &Session<'_>) -> Result<QuantizeStatic, Error> {
    let WeightType::Int8 = args.weights;
    let mut config = match &args.chip {
        None => QuantizeStatic::default(),
        Some(id) => quantization_scheme(&session.chip(id)?).map_err(Error::Invalid)?.config,
    };
    let wanted = args.activations.map(|it| match it {
        ActivationType::Uint8 => sartor::ActivationType::Uint8,
        ActivationType::Int8 => sartor::ActivationType::Int8,
    });
    if let Some(wanted) = wanted {
        if let (Some(id), true) = (&args.chip, config.activations.dtype != wanted) {
            return Err(Error::Usage(format!(
                "{id} does not take these activations; leave --activations or --chip out"
            )));
        }
        config.activations.dtype = wanted;
    }
    config.ranges = match args.ranges {
        Ranges::MinMax => RangeMethod::MinMax,
        Ranges::Percentile => RangeMethod::Percentile(args.percentile),
        Ranges::Mse => RangeMethod::Mse,
    };
    config.skip.clone_from(&args.skip);
    Ok(config)
}

fn table(nodes: &[QuantizedNode], output: &Output) -> String {
    let mut table = Table::new([
        Column::text("node"),
        Column::text("operator"),
        Column::text("weights"),
        Column::text("activations"),
        Column::number("SQNR, dB"),
        Column::prose("left float because"),
    ]);
    for it in nodes {
        table.row([
            it.name.clone(),
            it.op.clone(),
            it.weights.clone().unwrap_or_default(),
            it.activations.clone().unwrap_or_default(),
            it.sqnr_db.map(|it| format!("{it:.1}")).unwrap_or_default(),
            it.left_float_because.clone().unwrap_or_default(),
        ]);
    }
    output.render(&table)
}
