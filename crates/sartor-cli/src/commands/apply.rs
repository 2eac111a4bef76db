//! `sartor apply`: a recipe replayed.

use sartor::{
    CompressError, DataSpec, Error, Model, OutputFolder, Recipe, Session, Step, format, read_text,
    write_atomically,
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
    let fault = |message, span| Error::Recipe {
        name: args.recipe.display().to_string(),
        text: text.clone(),
        message,
        span,
    };
    let recipe = Recipe::parse(&text).map_err(|it| fault(it.message, it.span))?;
    let model = Model::load(&args.model)?;
    let spec = args.data.as_deref().map(DataSpec::load).transpose()?;
    let hungry = recipe.steps.iter().map(Step::technique).find(|it| it.needs_samples);
    if let (Some(it), None) = (hungry, &spec) {
        return Err(Error::Usage(format!(
            "`{}`: the step `{}` runs the network on samples; give a data spec with --data",
            args.recipe.display(),
            it.id
        )));
    }
    let result = session.apply(&model, &recipe, spec.as_ref()).map_err(|it| match it {
        Error::Compress(it @ CompressError::Config { .. }) => fault(it.to_string(), None),
        other => other,
    })?;
    let folder = OutputFolder::begin(&args.output, force)?;
    let bytes = folder.fill(|it| {
        let bytes = result.save(&it.join("model.onnx"), true)?;
        write_atomically(&it.join("recipe.toml"), true, |it| it.write_all(text.as_bytes()))?;
        Ok(bytes)
    })?;
    folder.finish()?;
    output.say(&format!(
        "wrote {}: model.onnx ({}), recipe.toml",
        args.output.display(),
        format::bytes(bytes)
    ));
    Ok(())
}
