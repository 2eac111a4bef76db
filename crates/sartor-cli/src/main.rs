//! The command `sartor`: arguments in, results out, errors shown, an exit code.

mod args;
mod commands;
mod exit_code;
mod failure;
mod output;
mod progress;

use std::process::ExitCode;

use clap::Parser;
use sartor::{Error, Interrupt, Session};

use crate::{args::Cli, output::Output, progress::Bars};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(&cli.global);
    match run(&cli, &output) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            failure::show(&error, output.terminal().width, output.terminal().color);
            ExitCode::from(exit_code::of(error.kind()))
        }
    }
}

fn run(cli: &Cli, output: &Output) -> Result<u8, Error> {
    if let Some(threads) = cli.global.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(threads)).build_global();
        pool.map_err(|it| Error::Usage(format!("cannot use {threads} threads: {it}")))?;
    }
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    // Without a handler Ctrl-C still ends the process; only the tidy end is lost.
    let handled = ctrlc::set_handler(move || {
        if flag.is_raised() {
            #[expect(clippy::exit, reason = "a second Ctrl-C ends the process at once")]
            std::process::exit(i32::from(exit_code::INTERRUPTED));
        }
        flag.raise();
    });
    if handled.is_err() {
        output.say("note: Ctrl-C will end the run at once");
    }
    let bars = Bars::new(cli.global.quiet);
    let session = Session { progress: &bars, interrupt, seed: cli.global.seed };
    commands::run(&cli.command, &session, output, cli.global.force)
}
