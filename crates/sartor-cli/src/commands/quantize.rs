//! `sartor quantize`: integers after training.

use sartor::{
    ActivationFormat, ActivationType, Column, DataSpec, Equalize, Error, Model, QuantizeStatic,
    QuantizedNode, RangeMethod, Reconstruct, ReconstructedBlock, ScaleKind, Session, Storage,
    Table, WantedScheme, WeightFormat, WeightType, format, quantization_scheme, wanted_scheme,
};
use serde::Serialize;

use crate::{
    args::{ActivationArg, Quantize, Ranges, Recover, ScaleArg, StorageArg, WeightArg},
    output::Output,
};

#[derive(Serialize)]
struct Outcome<'a> {
    bytes: u64,
    nodes: &'a [QuantizedNode],
    /// What was reconstructed, if anything.
    blocks: &'a [ReconstructedBlock],
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
    let bytes_before = model.bytes;
    let model = match args.recover {
        Recover::None | Recover::Best => model,
        Recover::Fast => session.equalize(&model, &Equalize::default(), &spec)?,
    };
    let (mut quantized, mut found) = session.quantize(&model, &config, &spec)?;
    let mut blocks = Vec::new();
    if args.recover == Recover::Best {
        let config = Reconstruct {
            iterations: args.recover_steps,
            seed: session.seed,
            ..Reconstruct::default()
        };
        (quantized, blocks) = session.reconstruct(&model, &mut found, &config, &spec)?;
    }
    let bytes = quantized.save(&args.output, force)?;
    output.say(&format!(
        "wrote {} ({}, was {})",
        args.output.display(),
        format::bytes(bytes),
        format::bytes(bytes_before)
    ));
    output.result(&Outcome { bytes, nodes: &found.nodes, blocks: &blocks }, || {
        let mut text = table(&found.nodes, output);
        if !blocks.is_empty() {
            text.push('\n');
            text.push_str(&block_table(&blocks, output));
        }
        text
    })
}

fn configuration(args: &Quantize, session: &Session<'_>) -> Result<QuantizeStatic, Error> {
    let wanted = wanted(args);
    let mut config = match &args.chip {
        None => free(&wanted),
        Some(id) if wanted.is_empty() => {
            quantization_scheme(&session.chip(id)?).map_err(Error::Invalid)?.config
        }
        Some(id) => wanted_scheme(&session.chip(id)?, &wanted).map_err(Error::Usage)?,
    };
    config.ranges = match args.ranges {
        Ranges::MinMax => RangeMethod::MinMax,
        Ranges::Percentile => RangeMethod::Percentile(args.percentile),
        Ranges::Mse => RangeMethod::Mse,
        Ranges::MovingAverage => RangeMethod::MovingAverage,
        Ranges::Entropy => RangeMethod::Entropy,
        Ranges::Analytic => RangeMethod::Analytic,
        Ranges::Auto => RangeMethod::Auto,
    };
    config.correct_bias = args.recover == Recover::Fast;
    config.skip.clone_from(&args.skip);
    Ok(config)
}

/// What is asked for without a chip.
fn free(wanted: &WantedScheme) -> QuantizeStatic {
    QuantizeStatic {
        weights: WeightFormat {
            dtype: wanted.weights.unwrap_or_default(),
            storage: wanted.storage.unwrap_or_default(),
            block: wanted.block.unwrap_or(0),
            per_channel: !wanted.per_tensor,
        },
        activations: ActivationFormat {
            dtype: wanted.activations.unwrap_or_default(),
            symmetric: wanted.symmetric,
        },
        scales: wanted.scales.unwrap_or_default(),
        ..QuantizeStatic::default()
    }
}

fn wanted(args: &Quantize) -> WantedScheme {
    WantedScheme {
        weights: args.weights.map(|it| match it {
            WeightArg::Int16 => WeightType::Int16,
            WeightArg::Int8 => WeightType::Int8,
            WeightArg::Int7 => WeightType::Int7,
            WeightArg::Uint8 => WeightType::Uint8,
            WeightArg::Int4 => WeightType::Int4,
            WeightArg::Uint4 => WeightType::Uint4,
            WeightArg::Int2 => WeightType::Int2,
            WeightArg::Ternary => WeightType::Ternary,
            WeightArg::Binary => WeightType::Binary,
        }),
        storage: args.storage.map(|it| match it {
            StorageArg::Packed => Storage::Packed,
            StorageArg::Bytes => Storage::Bytes,
        }),
        activations: args.activations.map(|it| match it {
            ActivationArg::Uint8 => ActivationType::Uint8,
            ActivationArg::Int8 => ActivationType::Int8,
            ActivationArg::Uint16 => ActivationType::Uint16,
            ActivationArg::Int16 => ActivationType::Int16,
            ActivationArg::Uint4 => ActivationType::Uint4,
            ActivationArg::Int4 => ActivationType::Int4,
            ActivationArg::Float32 => ActivationType::Float32,
        }),
        block: args.block.map(usize::from),
        scales: args.scales.map(|it| match it {
            ScaleArg::Float => ScaleKind::Float,
            ScaleArg::Pow2 => ScaleKind::PowerOfTwo,
        }),
        per_tensor: args.per_tensor,
        symmetric: args.symmetric,
    }
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

fn block_table(blocks: &[ReconstructedBlock], output: &Output) -> String {
    let mut table = Table::new([
        Column::prose("block"),
        Column::number("error, rounded to nearest"),
        Column::number("error, reconstructed"),
    ]);
    for it in blocks {
        let error = |it: f64| format!("{:.3} %", 100.0 * it);
        table.row([it.layers.join(" "), error(it.error_before), error(it.error_after)]);
    }
    output.render(&table)
}
