//! `sartor apply`: a recipe replayed.

use sartor::{
    DataSpec, Error, Model, OutputFolder, Recipe, Session, format, read_text, write_atomically,
};

use crate::{args::Apply, commands::compress::check_folder, output::Output};

pub(super) fn run(
    args: &Apply,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    check_folder(&args.output, force)?;
    let text = read_text(&args.recipe)?;
    let recipe = Recipe::parse(&text).map_err(|it| Error::Recipe {
        name: args.recipe.display().to_string(),
        text: text.clone(),
        message: it.message,
        span: it.span,
    })?;
    let model = Model::load(&args.model)?;
    let spec = args.data.as_deref().map(DataSpec::load).transpose()?;
    let result = session.apply(&model, &recipe, spec.as_ref())?;
    let folder = OutputFolder::begin(&args.output, force)?;
    let bytes = result.save(&folder.path().join("model.onnx"), true)?;
    write_atomically(&folder.path().join("recipe.toml"), true, |it| it.write_all(text.as_bytes()))?;
    folder.finish()?;
    output.say(&format!(
        "wrote {}: model.onnx ({}), recipe.toml",
        args.output.display(),
        format::bytes(bytes)
    ));
    Ok(())
}
