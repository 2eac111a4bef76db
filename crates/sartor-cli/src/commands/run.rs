//! `sartor run`: a network on given arrays.

use sartor::{
    DataError, Error, Kind, Model, NamedArray, Session, fitted, from_array, read_npz, to_array,
    write_atomically, write_npz,
};

use crate::{args::Run, output::Output};

pub(super) fn run(
    args: &Run,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    sartor::check_output(&args.output, force)?;
    let model = Model::load(&args.model)?;
    let graph = model.simplified()?;
    let mut arrays = read_npz(&args.inputs)?;
    let mut inputs = Vec::new();
    for &id in graph.inputs() {
        let name = &graph.value(id).name;
        let at = arrays.iter().position(|it| it.name.as_deref() == Some(name.as_str()));
        let Some(at) = at else { return Err(missing(&args.inputs, name, &arrays)) };
        let array = to_array(arrays.swap_remove(at));
        let declared = graph.value(id).ty.as_ref().map(|it| it.dtype);
        inputs.push(match declared {
            Some(dtype) => fitted(array, dtype),
            None => array,
        });
    }
    let results = session.run(&graph, &inputs).map_err(|it| match it.kind() {
        Kind::Input => Error::Invalid(format!("`{}`: {it}", args.inputs.display())),
        _ => it,
    })?;
    let named = graph.outputs().iter().zip(&results);
    let named: Vec<NamedArray> =
        named.map(|(&id, it)| from_array(&graph.value(id).name, it)).collect();
    write_atomically(&args.output, force, |sink| {
        write_npz(sink, &named).map_err(|it| match it {
            DataError::Write(it) => it,
            other => std::io::Error::other(other.to_string()),
        })
    })?;
    output.say(&format!("wrote {} arrays to {}", named.len(), args.output.display()));
    Ok(())
}

fn missing(path: &std::path::Path, name: &str, arrays: &[NamedArray]) -> Error {
    let given: Vec<_> = arrays.iter().filter_map(|it| it.name.as_deref()).collect();
    Error::Invalid(format!(
        "`{}` has no array `{name}` for the network's input; it has {given:?}",
        path.display()
    ))
}
