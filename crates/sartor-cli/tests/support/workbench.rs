//! A folder with files of the test's own making, and the command run inside it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The program under test.
pub(crate) const SARTOR: &str = env!("CARGO_BIN_EXE_sartor");

/// A folder that is gone with the test.
pub(crate) struct Workbench(tempfile::TempDir);

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Workbench {
    pub(crate) fn new() -> Self {
        Workbench(tempfile::tempdir().unwrap())
    }

    /// Writes a file, with the folders that lead to it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        sartor::write_atomically(&path, true, |it| it.write_all(content.as_ref())).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command in this folder, deaf to the environment that the tests happen to run in.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(SARTOR);
        command.args(args.split_whitespace()).current_dir(self.0.path());
        command
            .env_remove("NO_COLOR")
            .env_remove("SARTOR_SIMD")
            .env("TMPDIR", self.0.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `sartor` with these words.
    pub(crate) fn run(&self, args: &str) -> Outcome {
        let output = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}
