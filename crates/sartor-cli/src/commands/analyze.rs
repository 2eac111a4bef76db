//! `sartor analyze`: what a network costs on chips.

use sartor::{
    Chip, Error, Model, Precision, Session, analysis_to_html, analysis_to_terminal, check_output,
    write_atomically,
};

use crate::{args::Analyze, output::Output};

pub(super) fn run(
    args: &Analyze,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    if let Some(page) = &args.html {
        check_output(page, force)?;
    }
    let model = Model::load(&args.model)?;
    let mut found = Vec::new();
    for id in &args.chip {
        let chip = session.chip(id)?;
        let precision = precision(&chip, args.assume.as_deref())?;
        found.push(session.analyze(&model, &chip, args.batch as usize, precision)?);
    }
    if let Some(page) = &args.html {
        write_atomically(page, force, |file| file.write_all(analysis_to_html(&found).as_bytes()))?;
    }
    let text = || analysis_to_terminal(&found, output.terminal());
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
        known.sort();
        known.dedup();
        Error::Usage(format!(
            "{} has no arithmetic for {weights} weights; --as may be {}",
            chip.id,
            known.join(", ")
        ))
    })?;
    Ok(Precision::As(mode.weights, mode.activations))
}
