//! Outputs that cannot be written, and runs that are stopped: nothing is left behind.

use sartor_data::Values;

use super::{
    OUTPUT, bench, check, digits, fault,
    listing::listing,
    npz, workbench,
    workbench::{Outcome, Workbench},
};

#[test]
fn outputs_that_cannot_be_written() {
    let bench = bench();
    bench.write("there.onnx", "kept");
    bench.write("there/file", "kept");
    npz(&bench, "in.npz", "image", &[1, 1, 8, 8], Values::F32(vec![0.5; 64]));
    bench.write("recipe.toml", "version = 1\n");
    check(
        &bench,
        &[
            ("convert good.onnx there.onnx", OUTPUT, &["there.onnx", "exists already", "--force"]),
            ("convert good.onnx there", OUTPUT, &["there", "folder"]),
            ("convert good.onnx there --force", OUTPUT, &["there", "folder"]),
            (
                "convert good.onnx away/out.onnx",
                OUTPUT,
                &["away/out.onnx", "`away` does not exist"],
            ),
            ("convert good.onnx good.onnx/out.onnx", OUTPUT, &["good.onnx/out.onnx"]),
            ("run good.onnx --inputs in.npz -o away/out.npz", OUTPUT, &["away/out.npz"]),
            ("run good.onnx --inputs in.npz -o there.onnx", OUTPUT, &["there.onnx", "--force"]),
            (
                "quantize good.onnx --data digits.toml -o there.onnx",
                OUTPUT,
                &["there.onnx", "--force"],
            ),
            (
                "quantize good.onnx --data digits.toml -o there --force",
                OUTPUT,
                &["there", "folder"],
            ),
            (
                "prune good.onnx --macs 0.5 --grain 4 -o there.onnx",
                OUTPUT,
                &["there.onnx", "--force"],
            ),
            ("apply good.onnx recipe.toml -o there", OUTPUT, &["there", "--force"]),
            (
                "apply good.onnx recipe.toml -o there.onnx",
                OUTPUT,
                &["there.onnx", "it is a file, expected a folder"],
            ),
            ("apply good.onnx recipe.toml -o good.onnx/out", OUTPUT, &["good.onnx/out"]),
            (
                "compress good.onnx --chip arm-ethos-u55-128 --data digits.toml -o there",
                OUTPUT,
                &["there", "--force"],
            ),
            (
                "compress good.onnx --chip arm-ethos-u55-128 --data digits.toml -o there.onnx",
                OUTPUT,
                &["there.onnx"],
            ),
            ("demo -o there", OUTPUT, &["there", "--force"]),
        ],
    );
}

/// Runs a command through the shell, in the bench's folder; `$SARTOR` is the program.
#[cfg(unix)]
fn shell(bench: &Workbench, line: &str) -> Outcome {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line]).current_dir(bench.path(".")).env("SARTOR", workbench::SARTOR);
    let output = command.env("TMPDIR", bench.path(".")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A device is neither written to nor replaced, and standard output can be full.
#[cfg(target_os = "linux")]
#[test]
fn devices_and_standard_output() {
    let bench = bench();
    check(
        &bench,
        &[
            ("convert good.onnx /dev/full --force", OUTPUT, &["/dev/full", "device"]),
            (
                "quantize good.onnx --data digits.toml -o /dev/null",
                OUTPUT,
                &["/dev/null", "device"],
            ),
            (
                "convert good.onnx /proc/out.onnx",
                OUTPUT,
                &["cannot write `/proc/out.onnx`: No such file"],
            ),
            (
                "apply good.onnx digits.toml -o /proc/out",
                OUTPUT,
                &["cannot write `/proc/out`: No such file"],
            ),
            ("demo -o /dev/full", OUTPUT, &["/dev/full", "expected a folder"]),
        ],
    );
    for args in ["completions bash", "chips", "inspect good.onnx --format json"] {
        let found = shell(&bench, &format!("\"$SARTOR\" {args} > /dev/full"));
        println!("sartor {args} > /dev/full\n  exit {:?}\n{}", found.code, found.stderr);
        let says = ["cannot write `standard output`", "No space left"];
        assert_eq!(fault(&found, OUTPUT, &says), None, "{args}: {}", found.stderr);
    }
}

/// Commands that write more than the eight kilobytes that the two tests below leave room for.
#[cfg(unix)]
const WRITERS: [&str; 5] = [
    "convert digits.onnx out.onnx",
    "run digits.onnx --inputs many.npz -o out.npz",
    "quantize digits.onnx --data digits.toml -o out.onnx",
    "prune digits.onnx --macs 0.9 --grain 4 -o out.onnx",
    "apply digits.onnx recipe.toml -o out",
];

#[cfg(unix)]
fn writers_bench() -> Workbench {
    let bench = bench();
    bench.write("digits.onnx", digits::NETWORK);
    bench.write("recipe.toml", "version = 1\n");
    npz(&bench, "many.npz", "input", &[1000, 1, 8, 8], Values::F32(vec![0.5; 64_000]));
    bench
}

/// A file that may not grow as large as it must fails in the middle of the writing.
#[cfg(unix)]
#[test]
fn files_that_may_not_grow() {
    let bench = writers_bench();
    let before = listing(&bench.path("."));
    for args in WRITERS {
        let found = shell(&bench, &format!("trap '' XFSZ; ulimit -f 16; exec \"$SARTOR\" {args}"));
        println!("ulimit -f 16; sartor {args}\n  exit {:?}\n{}", found.code, found.stderr);
        assert_eq!(
            fault(&found, OUTPUT, &["cannot write `out", "File too large"]),
            None,
            "{args}: {}",
            found.stderr
        );
        assert_eq!(listing(&bench.path(".")), before, "{args}");
    }
}

/// A file system of sixteen kilobytes; gone with the value.
#[cfg(target_os = "linux")]
struct SmallDisk(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(folder: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir(&folder).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16k", "none"]).arg(&folder);
        mount.output().is_ok_and(|it| it.status.success()).then_some(SmallDisk(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).output();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn disks_that_are_full() {
    let bench = writers_bench();
    let Some(_disk) = SmallDisk::mount(bench.path("disk")) else {
        println!("skipped: no right to mount a small file system");
        return;
    };
    let before = listing(&bench.path("."));
    for args in WRITERS {
        let found = bench.run(&args.replace(" out", " disk/out"));
        println!("sartor {args} (disk full)\n  exit {:?}\n{}", found.code, found.stderr);
        let says = ["cannot write `disk/out", "No space left"];
        assert_eq!(fault(&found, OUTPUT, &says), None, "{args}: {}", found.stderr);
        assert_eq!(listing(&bench.path(".")), before, "{args}");
    }
}

/// Ctrl-C in the middle of the work ends it soon, with its own exit code, and leaves nothing.
#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    use std::io::{BufRead, BufReader, Read};
    let bench = bench();
    let before = listing(&bench.path("."));
    let mut command = bench.command("demo -o out");
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut talk = String::new();
    // Two lines are said before the search begins, and Ctrl-C is watched since before them.
    stderr.read_line(&mut talk).unwrap();
    stderr.read_line(&mut talk).unwrap();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    println!("sartor demo -o out, interrupted\n  exit {code:?}\n{rest}");
    assert_eq!(code, Some(130), "{talk}{rest}");
    assert_eq!(rest, "error: interrupted; nothing was written\n");
    assert_eq!(listing(&bench.path(".")), before);
}
