//! How long micro-networks take, on Sartor's engine or on another runtime.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sartor_engine::{Options, Program};
use sartor_ir::Graph;
use sartor_onnx::{Envelope, ExportOptions};

use super::{Outside, micro::Micro};
use crate::{
    Clock, Error, Session, bench::made_inputs, evaluate::check_runs, file::write_atomically,
};

/// Each network is measured so often, with all others in between: what slows the machine down for a while slows one pass.
const PASSES: usize = 3;

/// How long one network runs in one pass.
const PASS: Duration = Duration::from_millis(25);

/// Runs of one pass, at least and at most.
const RUNS: (usize, usize) = (4, 400);

/// Networks that an outside runtime gets at once.
const CHUNK: usize = 24;

impl Session<'_> {
    /// Seconds of each network's fastest run on Sartor's engine; `None` where it is not run.
    pub(super) fn time_engine(
        &self,
        networks: &[Micro],
        clock: &dyn Clock,
    ) -> Result<Vec<Option<f64>>, Error> {
        let graphs =
            networks.iter().map(|it| simplified(&it.graph)).collect::<Result<Vec<_>, _>>()?;
        let mut best = vec![None; networks.len()];
        self.progress.begin("measuring", Some((PASSES * networks.len()) as u64));
        for _ in 0..PASSES {
            for (graph, best) in graphs.iter().zip(&mut best) {
                self.interrupt.check()?;
                let took = fastest(graph, clock)?;
                *best = Some(best.map_or(took, |it: f64| it.min(took)));
                self.progress.advance(1);
            }
        }
        self.progress.end();
        Ok(best)
    }

    /// The same on a runtime outside, which reads the networks from files in a temporary folder.
    pub(super) fn time_outside(
        &self,
        networks: &[Micro],
        outside: &mut dyn Outside,
    ) -> Result<Vec<Option<f64>>, Error> {
        let folder = tempfile::tempdir()
            .map_err(|source| Error::Write { path: "a temporary folder".into(), source })?;
        let files =
            networks.iter().map(|it| written(it, folder.path())).collect::<Result<Vec<_>, _>>()?;
        let mut best = vec![None; networks.len()];
        self.progress.begin("measuring", Some((PASSES * networks.len()) as u64));
        for _ in 0..PASSES {
            for (files, best) in files.chunks(CHUNK).zip(best.chunks_mut(CHUNK)) {
                self.interrupt.check()?;
                let took = outside.seconds(files)?;
                if took.len() != files.len() {
                    return Err(Error::Invalid(format!(
                        "the runtime's command printed {} times for {} networks, expected one line for each, in their order",
                        took.len(),
                        files.len()
                    )));
                }
                for (best, took) in best.iter_mut().zip(took) {
                    *best = best.map_or(took, |it: f64| Some(took.map_or(it, |took| took.min(it))));
                }
                self.progress.advance(files.len() as u64);
            }
        }
        self.progress.end();
        Ok(best)
    }
}

fn simplified(graph: &Graph) -> Result<Graph, Error> {
    sartor_compress::simplify(graph).map_err(|it| Error::Bug(it.to_string()))
}

/// Seconds of the fastest run of a while.
fn fastest(graph: &Graph, clock: &dyn Clock) -> Result<f64, Error> {
    check_runs(graph)?;
    let inputs = made_inputs(graph, 1)?;
    let shapes: Vec<_> = inputs.iter().map(|it| it.shape.clone()).collect();
    let program = Program::prepare(graph, &shapes, &Options::default())?;
    for _ in 0..2 {
        program.run(&inputs)?;
    }
    let (mut best, begin) = (f64::INFINITY, clock.wall());
    for run in 0..RUNS.1 {
        let before = clock.wall();
        program.run(&inputs)?;
        let after = clock.wall();
        best = best.min(after.saturating_sub(before).as_secs_f64());
        if run + 1 >= RUNS.0 && after.saturating_sub(begin) >= PASS {
            break;
        }
    }
    Ok(best.max(1e-9))
}

/// The file of a network.
fn written(it: &Micro, folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(format!("{}.onnx", it.name));
    let exported = sartor_onnx::export(&it.graph, &Envelope::default(), &ExportOptions::default())
        .map_err(|source| Error::Export { path: path.clone(), source: Box::new(source) })?;
    write_atomically(&path, true, |file| file.write_all(&exported.model))?;
    Ok(path)
}
