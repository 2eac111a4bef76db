//! `sartor convert`: import and export.

use sartor::{Error, Model, format};

use crate::{args::Convert, output::Output};

pub(super) fn run(args: &Convert, output: &Output, force: bool) -> Result<(), Error> {
    sartor::check_output(&args.output, force)?;
    let model = Model::load(&args.input)?;
    for remark in &model.diagnostics {
        output.say(&format!("note: {remark}"));
    }
    let bytes = model.save(&args.output, force)?;
    output.say(&format!("wrote {} ({})", args.output.display(), format::bytes(bytes)));
    Ok(())
}
