//! `sartor run`: a network on given arrays.

use std::path::Path;

use sartor::{
    Array, Column, DataError, Difference, Error, Graph, Kind, Model, NamedArray, Session, Side,
    Table, Tolerance, format, from_array, read_arrays, write_atomically, write_npz,
};
use serde::Serialize;

use crate::{args::Run, exit_code, output::Output};

#[derive(Serialize)]
struct Comparison {
    ok: bool,
    outputs: Vec<Difference>,
}

pub(super) fn run(
    args: &Run,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<u8, Error> {
    if let Some(path) = &args.output {
        sartor::check_output(path, force)?;
    }
    let graph = Model::load(&args.model)?.simplified()?;
    let inputs = read_arrays(&args.inputs, &graph, Side::Inputs)?;
    let results = session.run(&graph, &inputs).map_err(|it| match it.kind() {
        Kind::Input => Error::Invalid(format!("`{}`: {it}", args.inputs.display())),
        _ => it,
    })?;
    if let Some(path) = &args.output {
        write(path, &graph, &results, force)?;
        output.say(&format!("wrote {} arrays to {}", results.len(), path.display()));
    }
    let Some(expected) = &args.expect else { return Ok(exit_code::DONE) };
    let expected = read_arrays(expected, &graph, Side::Outputs)?;
    compare(args, output, &graph, &results, &expected)
}

fn write(path: &Path, graph: &Graph, results: &[Array], force: bool) -> Result<(), Error> {
    let named = graph.outputs().iter().zip(results);
    let named: Vec<NamedArray> =
        named.map(|(&id, it)| from_array(&graph.value(id).name, it)).collect();
    write_atomically(path, force, |sink| {
        write_npz(sink, &named).map_err(|it| match it {
            DataError::Write(it) => it,
            other => std::io::Error::other(other.to_string()),
        })
    })
}

fn compare(
    args: &Run,
    output: &Output,
    graph: &Graph,
    results: &[Array],
    expected: &[Array],
) -> Result<u8, Error> {
    let tolerance = Tolerance { relative: args.rtol, absolute: args.atol };
    let pairs = graph.outputs().iter().zip(results.iter().zip(expected));
    let outputs: Vec<_> =
        pairs.map(|(&id, (a, b))| Difference::of(&graph.value(id).name, a, b, tolerance)).collect();
    let found = Comparison { ok: outputs.iter().all(Difference::holds), outputs };
    output.result(&found, || output.render(&table(&found)))?;
    Ok(if found.ok { exit_code::DONE } else { exit_code::MISSED })
}

fn table(found: &Comparison) -> Table {
    let mut table = Table::new([
        Column::text("output"),
        Column::text("shape"),
        Column::number("worst difference"),
        Column::number("relative"),
        Column::prose("as expected"),
    ]);
    for it in &found.outputs {
        let verdict = match &it.form {
            _ if it.holds() => "yes".to_owned(),
            Some(form) => format!("no: it is {form}"),
            None if it.beyond == 1 => "no: 1 element is beyond the tolerance".to_owned(),
            None => format!("no: {} elements are beyond the tolerance", it.beyond),
        };
        table.row([
            it.name.clone(),
            format!("{:?}", it.shape),
            format::significant(it.absolute),
            format::significant(it.relative),
            verdict,
        ]);
    }
    table
}
