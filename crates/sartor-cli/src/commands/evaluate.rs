//! `sartor evaluate`: accuracy with its uncertainty.

use sartor::{Column, DataSpec, Error, Evaluation, Model, Session, Table, format};

use crate::{args::Evaluate, output::Output};

pub(super) fn run(args: &Evaluate, session: &Session<'_>, output: &Output) -> Result<(), Error> {
    let model = Model::load(&args.model)?;
    let against = args.against.as_deref().map(Model::load).transpose()?;
    let spec = DataSpec::load(&args.data)?;
    let found = session.evaluate(&model, against.as_ref(), &spec, &args.split)?;
    output.result(&found, || output.render(&table(&found)))
}

fn table(found: &Evaluation) -> Table {
    let mut table = Table::new([Column::text(""), Column::text("")]);
    let interval =
        format!("{} to {}", format::percent(found.top1_low), format::percent(found.top1_high));
    table.row([
        "top-1".to_owned(),
        format!("{} (95 % interval {interval})", format::percent(found.top1)),
    ]);
    if let Some(top5) = found.top5 {
        table.row(["top-5".to_owned(), format::percent(top5)]);
    }
    table.row(["samples".to_owned(), format::count(found.samples as u64)]);
    if let Some(agreement) = found.agreement {
        table.row(["same class as the other network".to_owned(), format::percent(agreement)]);
    }
    if let Some([gained, lost]) = found.paired {
        table.row(["right here, wrong there".to_owned(), gained.to_string()]);
        table.row(["wrong here, right there".to_owned(), lost.to_string()]);
    }
    table
}
