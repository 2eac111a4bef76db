//! The command `sartor`: arguments in, results out, errors shown, an exit code.

mod args;
mod commands;
mod exit_code;
mod failure;
mod machine;
mod number;
mod output;
mod progress;
mod simd;

use std::{
    any::Any,
    io::Write,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use clap::Parser;
use sartor::{Error, Interrupt, Session};

use crate::{args::Cli, output::Output, progress::Bars};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(&cli.global);
    match guarded(|| run(&cli, &output)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            failure::show(&error, output.terminal().width, output.terminal().color);
            ExitCode::from(exit_code::of(error.kind()))
        }
    }
}

/// A panic is a fault of ours, and is told as one; temporary files still go, by unwinding.
fn guarded(work: impl FnOnce() -> Result<u8, Error>) -> Result<u8, Error> {
    panic::set_hook(Box::new(|it| {
        if let Some(place) = it.location() {
            let _ = writeln!(std::io::stderr().lock(), "at {}:{}", place.file(), place.line());
        }
    }));
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|it| Err(Error::Bug(message(it.as_ref()))))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|it| (*it).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

fn run(cli: &Cli, output: &Output) -> Result<u8, Error> {
    simd::limit()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_fault_of_ours() {
        let absent = "x".parse::<u8>().ok();
        let error = guarded(|| Ok(absent.expect("a number"))).unwrap_err();
        assert_eq!(exit_code::of(error.kind()), exit_code::BUG);
        assert_eq!(error.to_string(), "a number; this is a fault of Sartor, please report it");
    }
}
