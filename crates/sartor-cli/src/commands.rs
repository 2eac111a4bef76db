//! The commands, one file each.

mod analyze;
mod apply;
mod bench;
mod chips;
mod completions;
mod compress;
mod convert;
mod demo;
mod evaluate;
mod fit;
mod groups;
mod inspect;
mod prune;
mod quantize;
mod run;
mod train;

use sartor::{Error, Session};

use crate::{args::Command, exit_code, output::Output};

/// Runs a command and returns the exit code.
pub(crate) fn run(
    command: &Command,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<u8, Error> {
    match command {
        Command::Inspect(args) => inspect::run(args, output),
        Command::Convert(args) => convert::run(args, output, force),
        Command::Run(args) => return run::run(args, session, output, force),
        Command::Evaluate(args) => evaluate::run(args, session, output),
        Command::Bench(args) => bench::run(args, session, output),
        Command::Fit(args) => fit::run(args, session, output, force),
        Command::Chips(args) => return chips::run(args, session, output),
        Command::Analyze(args) => analyze::run(args, session, output, force),
        Command::Groups(args) => groups::run(args, output),
        Command::Quantize(args) => quantize::run(args, session, output, force),
        Command::Prune(args) => prune::run(args, session, output, force),
        Command::Finetune(args) => train::finetune(args, session, output, force),
        Command::Train(args) => train::train(args, session, output, force),
        Command::Compress(args) => return compress::run(args, session, output, force),
        Command::Apply(args) => apply::run(args, session, output, force),
        Command::Demo(args) => return demo::run(args, session, output, force),
        Command::Completions(args) => completions::run(args, output),
    }?;
    Ok(exit_code::DONE)
}
