//! `sartor compress`: the whole way.

use sartor::{Compressed, DataSpec, Error, Limits, Model, Session, to_terminal};

use crate::{
    args::{Compress, LimitArgs},
    exit_code,
    output::Output,
};

pub(super) fn run(
    args: &Compress,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<u8, Error> {
    check_folder(&args.output, force)?;
    let limits = limits(&args.limits);
    let model = Model::load(&args.model)?;
    let chip = session.chip(&args.chip)?;
    let spec = DataSpec::load(&args.data)?;
    let result = session.compress(&model, &chip, &spec, &limits)?;
    session.write(&result, &args.output, force)?;
    show(&result, output)?;
    output.say(&format!(
        "wrote {}: model.onnx, recipe.toml, report.json, report.html",
        args.output.display()
    ));
    Ok(code(&result))
}

/// The exit code of a finished run.
pub(super) fn code(result: &Compressed) -> u8 {
    if result.record.verdict.met { exit_code::DONE } else { exit_code::MISSED }
}

/// Prints the record.
pub(super) fn show(result: &Compressed, output: &Output) -> Result<(), Error> {
    output.result(&result.record, || to_terminal(&result.record, output.terminal()))
}

fn limits(args: &LimitArgs) -> Limits {
    Limits {
        max_drop: Some(args.max_drop),
        min_accuracy: args.min_accuracy,
        max_latency: args.max_latency.map(|it| it / 1e3),
        max_size: args.max_size,
        max_ram: args.max_ram,
    }
}

/// Asked before long work: a folder with something in it is not overwritten by surprise.
pub(super) fn check_folder(path: &std::path::Path, force: bool) -> Result<(), Error> {
    sartor::OutputFolder::begin(path, force).map(drop)
}
