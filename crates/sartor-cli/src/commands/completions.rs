//! `sartor completions`: for a shell.

use clap::CommandFactory;
use sartor::Error;

use crate::{
    args::{Cli, Completions},
    output::Output,
};

pub(super) fn run(args: &Completions, output: &Output) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sartor", &mut script);
    output.print(&String::from_utf8_lossy(&script))
}
