//! `sartor fit`: this machine's figures.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use sartor::{
    Bed, Column, Error, Fit, FitRequest, Interrupt, Outside, Session, Table, check_output, format,
    write_atomically,
};

use super::bench::System;
use crate::{args, machine, output::Output};

pub(super) fn run(
    args: &args::Fit,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<(), Error> {
    check_output(&args.output, force)?;
    let mut runtime =
        args.runtime_cmd.as_deref().map(|it| Runtime::new(it, session)).transpose()?;
    let toolchain = match (&args.runtime_name, &runtime) {
        (Some(name), _) => name.clone(),
        (None, Some(it)) => it.program.clone(),
        (None, None) => format!("Sartor {}", env!("CARGO_PKG_VERSION")),
    };
    let request = FitRequest {
        id: id(&args.output)?,
        machine: machine::this(rayon::current_num_threads()),
        toolchain,
        command: match &args.runtime_cmd {
            Some(command) => command.replace("{list}", "{model}"),
            None => "sartor run {model}".to_owned(),
        },
    };
    #[expect(clippy::disallowed_methods, reason = "the command line is where clocks are read")]
    let clock = System(Instant::now());
    let bed = match &mut runtime {
        Some(runtime) => Bed::Outside(runtime),
        None => Bed::Engine(&clock),
    };
    let fit = session.fit(&request, bed)?;
    write_atomically(&args.output, force, |it| it.write_all(fit.toml.as_bytes()))?;
    output.say(&format!("wrote {}", args.output.display()));
    output.result(&fit, || {
        format!("{}\n{}", output.render(&head(&fit)), output.render(&families(&fit)))
    })
}

/// The id of a chip in a file: the file's name, in the letters of ids.
fn id(path: &Path) -> Result<String, Error> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = |it: char| if it.is_ascii_alphanumeric() { it } else { '-' };
    let id: String = stem.chars().map(plain).collect();
    let toml = path.extension().is_some_and(|it| it == "toml");
    if !toml || id.trim_matches('-').is_empty() {
        return Err(Error::Usage(format!(
            "`{}` does not name a chip file, give a name that ends in .toml",
            path.display()
        )));
    }
    Ok(id.trim_matches('-').to_owned())
}

/// A runtime outside, called by a command.
struct Runtime {
    program: String,
    arguments: Vec<String>,
    interrupt: Interrupt,
}

/// Stands for the path of a network.
const MODEL: &str = "{model}";

/// Stands for the path of a text file with one network's path a line.
const LIST: &str = "{list}";

impl Runtime {
    fn new(command: &str, session: &Session<'_>) -> Result<Self, Error> {
        let wrong = |what: &str| {
            Error::Usage(format!(
                "the runtime's command `{command}` {what}, expected a program with either {MODEL} or {LIST} among its arguments"
            ))
        };
        let mut words =
            shlex::split(command).ok_or_else(|| wrong("has an open quotation"))?.into_iter();
        let program = words.next().ok_or_else(|| wrong("is empty"))?;
        let arguments: Vec<_> = words.collect();
        let has = |what: &str| arguments.iter().any(|it| it.contains(what));
        if has(MODEL) == has(LIST) {
            return Err(wrong("does not say where the network goes"));
        }
        Ok(Runtime { program, arguments, interrupt: session.interrupt.clone() })
    }

    /// What the command prints with `path` in the place of `what`: a time in milliseconds a line.
    fn call(&self, what: &str, path: &Path) -> Result<Vec<Option<f64>>, Error> {
        let path = path.to_string_lossy();
        let arguments = self.arguments.iter().map(|it| it.replace(what, &path));
        let result = Command::new(&self.program).args(arguments).stdin(Stdio::null()).output();
        self.interrupt.check()?;
        let result = result.map_err(|it| {
            Error::Invalid(format!(
                "the runtime's command `{}` cannot be started: {it}",
                self.program
            ))
        })?;
        let errors = String::from_utf8_lossy(&result.stderr);
        if !result.status.success() {
            let last: Vec<_> = errors.lines().rev().take(5).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(Error::Invalid(format!(
                "the runtime's command `{}` failed ({}) on `{path}`: {last}",
                self.program, result.status
            )));
        }
        let text = String::from_utf8_lossy(&result.stdout);
        text.lines().map(str::trim).filter(|it| !it.is_empty()).map(seconds).collect()
    }
}

/// A line of milliseconds, as seconds; `nan` for a network that the runtime does not run.
fn seconds(line: &str) -> Result<Option<f64>, Error> {
    let milliseconds =
        line.parse::<f64>().ok().filter(|it| it.is_nan() || (*it > 0.0 && it.is_finite()));
    let milliseconds = milliseconds.ok_or_else(|| {
        Error::Invalid(format!(
            "the runtime's command printed `{line}`, expected milliseconds, or nan for a network that it does not run"
        ))
    })?;
    Ok((!milliseconds.is_nan()).then_some(milliseconds * 1e-3))
}

impl Outside for Runtime {
    fn seconds(&mut self, files: &[PathBuf]) -> Result<Vec<Option<f64>>, Error> {
        if self.arguments.iter().any(|it| it.contains(LIST)) {
            let mut list = tempfile::NamedTempFile::new()
                .map_err(|source| Error::Write { path: "a temporary file".into(), source })?;
            for file in files {
                use std::io::Write as _;
                writeln!(list, "{}", file.display())
                    .map_err(|source| Error::Write { path: list.path().to_owned(), source })?;
            }
            return self.call(LIST, list.path());
        }
        let mut all = Vec::with_capacity(files.len());
        for file in files {
            let times = self.call(MODEL, file)?;
            let [time] = times[..] else {
                return Err(Error::Invalid(format!(
                    "the runtime's command printed {} lines for one network, expected one",
                    times.len()
                )));
            };
            all.push(time);
        }
        Ok(all)
    }
}

fn head(fit: &Fit) -> Table {
    let mut table = Table::new([Column::text(""), Column::text("")]);
    let percent = |it: f64| format::percent(100.0 * it);
    let mut row = |name: &str, value: String| {
        table.row([name.to_owned(), value]);
    };
    row("chip", fit.chip.clone());
    row("micro-networks", format!("{} solved for, {} held out", fit.fitted, fit.held_out));
    row("median error", percent(fit.median_error));
    row(
        "held out",
        format!(
            "{} at the median, nine of ten below {}",
            percent(fit.held_out_median_error),
            percent(fit.held_out_p90_error)
        ),
    );
    if !fit.not_run.is_empty() {
        row("not run", fit.not_run.join(", "));
    }
    table
}

fn families(fit: &Fit) -> Table {
    let mut table = Table::new([
        Column::text("micro-networks"),
        Column::text("numbers"),
        Column::number("solved for"),
        Column::number("median error"),
        Column::number("held out"),
        Column::number("median error"),
    ]);
    for it in &fit.families {
        table.row([
            it.name.clone(),
            it.numbers.to_owned(),
            it.fitted.to_string(),
            format::percent(100.0 * it.median_error),
            it.held_out.to_string(),
            it.held_out_median_error.map_or_else(String::new, |it| format::percent(100.0 * it)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use sartor::Silent;

    use super::*;

    fn session() -> Session<'static> {
        Session { progress: &Silent, interrupt: Interrupt::default(), seed: 0 }
    }

    #[test]
    fn ids_come_from_file_names() {
        for (path, id_of) in
            [("out/My Chip.toml", Some("my-chip")), ("a.json", None), (".toml", None)]
        {
            assert_eq!(id(Path::new(path)).ok().as_deref(), id_of, "{path}");
        }
    }

    #[test]
    fn commands_say_where_the_network_goes() {
        for (command, good) in [
            ("run {model}", true),
            ("python3 'a b.py' --list={list}", true),
            ("run", false),
            ("run {model} {list}", false),
            ("run '{model}", false),
            ("", false),
        ] {
            assert_eq!(Runtime::new(command, &session()).is_ok(), good, "{command}");
        }
    }

    #[test]
    fn lines_are_milliseconds() {
        assert_eq!(seconds("1.5").unwrap(), Some(0.0015));
        assert_eq!(seconds("nan").unwrap(), None);
        for line in ["fast", "-1", "0", "inf"] {
            assert!(seconds(line).unwrap_err().to_string().contains("milliseconds"), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_command_is_called_for_each_network_or_once() {
        let files = [PathBuf::from("/a b/1.onnx"), PathBuf::from("/a b/2.onnx")];
        for (command, expected) in [
            ("sh -c 'echo $0 | tr -cd 0-9' {model}", vec![Some(1e-3), Some(2e-3)]),
            ("sh -c 'tr -cd \"0-9\\n\" < $0' {list}", vec![Some(1e-3), Some(2e-3)]),
        ] {
            let mut runtime = Runtime::new(command, &session()).unwrap();
            assert_eq!(runtime.seconds(&files).unwrap(), expected, "{command}");
        }
        let mut failing =
            Runtime::new("sh -c 'echo no such thing >&2; exit 3' {model}", &session()).unwrap();
        assert!(failing.seconds(&files).unwrap_err().to_string().contains("no such thing"));
        let mut absent = Runtime::new("/no/such/program {model}", &session()).unwrap();
        assert!(absent.seconds(&files).unwrap_err().to_string().contains("cannot be started"));
    }
}
