//! `sartor groups`: channels that live and die together.

use sartor::{Column, Error, Model, Table};
use serde::Serialize;

use crate::{args::GroupsArgs, output::Output};

#[derive(Serialize)]
struct Line {
    name: String,
    channels: usize,
    producers: Vec<String>,
    consumers: Vec<String>,
    /// Why no channel may go.
    frozen: Option<String>,
}

pub(super) fn run(args: &GroupsArgs, output: &Output) -> Result<(), Error> {
    let model = Model::load(&args.model)?;
    let graph = model.simplified()?;
    let found = sartor::groups(&graph)?;
    let names =
        |ids: &[sartor::NodeId]| ids.iter().map(|&it| graph.node(it).name.clone()).collect();
    let line = |it: &sartor::Group| Line {
        name: it.name.clone(),
        channels: it.size(),
        producers: names(&it.producers),
        consumers: names(&it.consumers),
        frozen: it.frozen.clone(),
    };
    let lines: Vec<Line> = found.all().iter().map(line).collect();
    output.result(&lines, || {
        let mut table = Table::new([
            Column::text("group"),
            Column::number("channels"),
            Column::number("makers"),
            Column::number("readers"),
            Column::prose("may not be pruned because"),
        ]);
        for it in &lines {
            table.row([
                it.name.clone(),
                it.channels.to_string(),
                it.producers.len().to_string(),
                it.consumers.len().to_string(),
                it.frozen.clone().unwrap_or_default(),
            ]);
        }
        output.render(&table)
    })
}
