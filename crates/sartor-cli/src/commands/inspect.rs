//! `sartor inspect`: what is in a file.

use sartor::{Column, Error, Inspection, Model, Table, format};

use crate::{args::Inspect, output::Output};

pub(super) fn run(args: &Inspect, output: &Output) -> Result<(), Error> {
    let model = Model::load(&args.model)?;
    let found = sartor::inspect(&model)?;
    output.result(&found, || text(&model, &found, output))
}

fn text(model: &Model, found: &Inspection, output: &Output) -> String {
    let mut table = Table::new([Column::text(""), Column::prose("")]);
    let ports = |list: &[sartor::Port]| {
        list.iter().map(|it| format!("{} {}", it.name, it.ty)).collect::<Vec<_>>().join("\n")
    };
    let counts = |list: &std::collections::BTreeMap<String, usize>| {
        let parts: Vec<_> = list.iter().map(|(name, n)| format!("{name} {n}")).collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    };
    let list = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join("\n") };
    let macs = found.macs.map_or_else(|| "not known: a shape is open".to_owned(), format::count);
    for (key, value) in [
        ("file", format!("{} ({})", model.path.display(), format::bytes(model.bytes))),
        ("opset", found.opset.to_string()),
        ("inputs", ports(&found.inputs)),
        ("outputs", ports(&found.outputs)),
        ("operators", counts(&found.operators)),
        ("parameters", format::count(found.parameters)),
        ("MACs a sample", macs),
        ("not known, carried through", counts(&found.opaque)),
        ("cannot be run", list(&found.not_run)),
        ("quantizable layers", found.quantizable.to_string()),
        (
            "channel groups",
            format!(
                "{} may be pruned, {} may not (see `sartor groups`)",
                found.prunable[0], found.prunable[1]
            ),
        ),
        ("remarks", list(&found.diagnostics)),
    ] {
        table.row([key.to_owned(), value]);
    }
    output.render(&table)
}
