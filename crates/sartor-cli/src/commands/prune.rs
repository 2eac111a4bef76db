//! `sartor prune`: whole channels, down to a share of the cost.

use std::collections::BTreeMap;

use sartor::{
    Column, Criterion, DataSpec, Error, Model, PruneRequest, Session, Table, Unit, format,
};
use serde::Serialize;

use crate::{
    args::{CriterionArg, Prune},
    output::Output,
};

/// Channels of a group.
#[derive(Serialize)]
struct Width {
    before: usize,
    after: usize,
}

#[derive(Serialize)]
struct Outcome {
    bytes: u64,
    macs: u64,
    macs_before: u64,
    mac_slots: u64,
    mac_slots_before: u64,
    parameters: u64,
    groups: BTreeMap<String, Width>,
}

pub(super) fn run(
    args: &Prune,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    sartor::check_output(&args.output, force)?;
    let request = request(args, session)?;
    let model = Model::load(&args.model)?;
    let spec = args.data.as_deref().map(DataSpec::load).transpose()?;
    let result = session.prune(&model, &request, spec.as_ref())?;
    let bytes = result.model.save(&args.output, force)?;
    let before = sartor::groups(&model.simplified()?)?;
    let groups = before.prunable().map(|it| {
        let gone = result.removed.get(&it.name).map_or(0, Vec::len);
        (it.name.clone(), Width { before: it.size(), after: it.size() - gone })
    });
    let outcome = Outcome {
        bytes,
        macs: result.macs[1],
        macs_before: result.macs[0],
        mac_slots: result.slots[1],
        mac_slots_before: result.slots[0],
        parameters: sartor::inspect(&result.model)?.parameters,
        groups: groups.collect(),
    };
    output.say(&format!("wrote {} ({})", args.output.display(), format::bytes(bytes)));
    output.result(&outcome, || text(&outcome, output))
}

fn request(args: &Prune, session: &Session<'_>) -> Result<PruneRequest, Error> {
    let chip = args.chip.as_deref().map(|it| session.chip(it)).transpose()?;
    let grain = match (&chip, args.grain) {
        (Some(chip), _) => usize::try_from(chip.grain()).unwrap_or(1),
        (None, grain) => grain.unwrap_or(1) as usize,
    };
    let unit = if args.macs.is_some() { Unit::Macs } else { Unit::Slots };
    let criterion = match args.criterion {
        CriterionArg::L1 => Criterion::L1,
        CriterionArg::L2 => Criterion::L2,
    };
    let share = args.macs.or(args.slots).unwrap_or(1.0);
    Ok(PruneRequest { unit, share, grain, chip: chip.map(Box::new), criterion })
}

fn text(outcome: &Outcome, output: &Output) -> String {
    let mut table =
        Table::new([Column::text("group"), Column::number("channels"), Column::number("kept")]);
    for (name, width) in outcome.groups.iter().filter(|it| it.1.after < it.1.before) {
        table.row([name.clone(), width.before.to_string(), width.after.to_string()]);
    }
    let share =
        |after: u64, before: u64| format::percent(100.0 * after as f64 / before.max(1) as f64);
    format!(
        "{}\nMACs {} ({} of before), MAC slots {} ({} of before), parameters {}\n",
        output.render(&table),
        format::count(outcome.macs),
        share(outcome.macs, outcome.macs_before),
        format::count(outcome.mac_slots),
        share(outcome.mac_slots, outcome.mac_slots_before),
        format::count(outcome.parameters)
    )
}
