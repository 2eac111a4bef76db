//! Broken inputs and unwritable outputs: one clear error each, the documented exit code, and nothing written.

#![expect(clippy::print_stdout, reason = "`--nocapture` shows what a person would read")]

#[path = "support/digits.rs"]
mod digits;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/onnx.rs"]
mod onnx;
#[path = "broken_inputs/outputs.rs"]
mod outputs;
#[path = "broken_inputs/training.rs"]
mod training;
#[path = "support/workbench.rs"]
mod workbench;

use digits::idx;
use listing::listing;
use onnx::{Message, Network, external, node, tensor, value, weights};
use sartor::NamedArray;
use sartor_data::Values;
use workbench::{Outcome, Workbench};

/// Words of a command line, the exit code, and what the message must hold.
type Case = (&'static str, i32, &'static [&'static str]);

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const UNSUPPORTED: i32 = 4;
const OUTPUT: i32 = 5;

/// Runs every case; `--nocapture` shows what a person would read.
fn check(bench: &Workbench, cases: &[Case]) {
    let before = listing(&bench.path("."));
    let mut faults = Vec::new();
    for (args, code, says) in cases {
        let found = bench.run(args);
        println!("sartor {args}\n  exit {:?}\n{}", found.code, found.stderr);
        faults.extend(
            fault(&found, *code, says).map(|it| format!("sartor {args}: {it}\n{}", found.stderr)),
        );
        let after = listing(&bench.path("."));
        if after != before {
            let names: Vec<_> = after.symmetric_difference(&before).collect();
            faults.push(format!("sartor {args}: changed {names:?}"));
        }
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

fn fault(found: &Outcome, code: i32, says: &[&str]) -> Option<String> {
    if found.code != Some(code) {
        return Some(format!("exit code {:?}, expected {code}", found.code));
    }
    if !found.stdout.is_empty() {
        return Some(format!("results on standard output: {}", found.stdout));
    }
    let errors = found.stderr.lines().filter(|it| it.starts_with("error:")).count();
    if errors != 1 || !found.stderr.starts_with("error:") || found.stderr.contains("panicked") {
        return Some(format!("{errors} errors, expected one"));
    }
    // A long path may break the lines of a message anywhere between words.
    let flat = found.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    says.iter().find(|it| !flat.contains(**it)).map(|it| format!("does not say `{it}`"))
}

/// A good network with good data, beside which everything broken lies.
fn bench() -> Workbench {
    let bench = Workbench::new();
    digits::unpack(&bench);
    bench.write("good.onnx", Network::small().file());
    bench
}

#[test]
fn the_good_files_are_good() {
    let bench = bench();
    for args in ["inspect good.onnx", "evaluate good.onnx --data digits.toml", "groups good.onnx"] {
        let found = bench.run(args);
        assert_eq!(found.code, Some(0), "{args}: {}", found.stderr);
    }
}

#[test]
fn files_that_are_no_networks() {
    let bench = bench();
    let good = Network::small().file();
    bench.write("empty.onnx", "");
    bench.write("text.onnx", "this is a shopping list: bread, milk, eggs\n");
    bench.write("picture.onnx", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x06\0\0\0");
    bench.write("folder.onnx/file", "");
    bench.write("half.onnx", &good[..good.len() / 2]);
    bench.write("cut.onnx", &good[..good.len() - 1]);
    bench.write(
        "no-graph.onnx",
        Message::default().int(1, 8).bytes(8, Message::default().int(2, 17)),
    );
    bench.write(
        "no-opset.onnx",
        Message::default().int(1, 8).bytes(7, Message::default().bytes(2, "g")),
    );
    bench.write("zeros.onnx", [0; 4096]);
    check(
        &bench,
        &[
            ("inspect absent.onnx", INPUT, &["absent.onnx", "No such file"]),
            ("inspect empty.onnx", INPUT, &["empty.onnx", "empty"]),
            ("inspect text.onnx", INPUT, &["text.onnx", "not an ONNX model"]),
            ("inspect picture.onnx", INPUT, &["picture.onnx", "not an ONNX model"]),
            ("inspect folder.onnx", INPUT, &["folder.onnx", "it is a folder, expected a file"]),
            ("inspect half.onnx", INPUT, &["half.onnx", "not an ONNX model"]),
            ("inspect cut.onnx", INPUT, &["cut.onnx", "not an ONNX model"]),
            ("inspect zeros.onnx", INPUT, &["zeros.onnx", "not an ONNX model"]),
            ("inspect no-graph.onnx", INPUT, &["no-graph.onnx", "has no graph"]),
            ("inspect no-opset.onnx", INPUT, &["no-opset.onnx", "opset"]),
            ("convert half.onnx out.onnx", INPUT, &["half.onnx"]),
            ("evaluate half.onnx --data digits.toml", INPUT, &["half.onnx"]),
            ("evaluate good.onnx --data digits.toml --against half.onnx", INPUT, &["half.onnx"]),
            ("groups half.onnx", INPUT, &["half.onnx"]),
            ("analyze half.onnx --chip arm-ethos-u55-128", INPUT, &["half.onnx"]),
            ("quantize half.onnx --data digits.toml -o out.onnx", INPUT, &["half.onnx"]),
            ("prune half.onnx --macs 0.5 --grain 4 -o out.onnx", INPUT, &["half.onnx"]),
            (
                "compress half.onnx --chip arm-ethos-u55-128 --data digits.toml -o out",
                INPUT,
                &["half.onnx"],
            ),
        ],
    );
}

/// Networks that say two things at once, and what is said of them.
const CONTRADICTIONS: &[Case] = &[
    ("inspect opset5.onnx", INPUT, &["opset5.onnx", "opset 5 ", "7 to 24", "version converter"]),
    ("inspect opset99.onnx", INPUT, &["opset99.onnx", "opset 99", "7 to 24"]),
    ("inspect circle.onnx", INPUT, &["circle.onnx", "cycle", "`one`", "`two`"]),
    ("inspect external.onnx", INPUT, &["external.onnx", "`w2`", "weights.bin"]),
    ("inspect short.onnx", INPUT, &["short.onnx", "`w2`", "100", "9216"]),
    ("inspect outside.onnx", INPUT, &["outside.onnx", "`w2`", "../../etc/passwd"]),
    ("inspect bytes.onnx", INPUT, &["bytes.onnx", "`w2`", "[16, 16, 3, 3]", "9216", "8000"]),
    ("inspect huge.onnx", INPUT, &["huge.onnx", "`w2`"]),
    ("inspect minus.onnx", INPUT, &["minus.onnx", "`w2`", "-16"]),
    ("inspect channels.onnx", INPUT, &["channels.onnx", "`second` (Conv)", "16", "32"]),
    ("evaluate channels.onnx --data digits.toml", INPUT, &["channels.onnx", "`second` (Conv)"]),
    ("inspect input.onnx", INPUT, &["input.onnx", "`first` (Conv)"]),
    ("inspect inner.onnx", INPUT, &["inner.onnx", "`last` (Gemm)"]),
    ("inspect twice.onnx", INPUT, &["twice.onnx", "`b`"]),
    ("inspect constants.onnx", INPUT, &["constants.onnx", "`w1`"]),
    ("inspect undefined.onnx", INPUT, &["undefined.onnx", "`nowhere`", "`relu1`"]),
    ("inspect no-output.onnx", INPUT, &["no-output.onnx", "`nothing`"]),
    ("inspect arity.onnx", INPUT, &["arity.onnx", "`first` (Conv)"]),
    ("evaluate nan.onnx --data digits.toml", INPUT, &["nan.onnx", "NaN", "`w2`", "`second`"]),
    ("quantize nan.onnx --data digits.toml -o out.onnx", INPUT, &["nan.onnx", "NaN", "`w2`"]),
    ("prune nan.onnx --macs 0.5 --grain 4 -o out.onnx", INPUT, &["nan.onnx", "NaN", "`w2`"]),
    (
        "compress nan.onnx --chip arm-ethos-u55-128 --data digits.toml -o out",
        INPUT,
        &["nan.onnx", "NaN"],
    ),
];

#[test]
fn networks_that_contradict_themselves() {
    let bench = bench();
    let small = Network::small();
    bench.write("opset5.onnx", small.with(|it| it.opset = 5));
    bench.write("opset99.onnx", small.with(|it| it.opset = 99));
    let circle = small.with(|it| {
        it.nodes.insert(1, node("Add", "one", &["a", "z"], "y"));
        it.nodes.insert(2, node("Relu", "two", &["y"], "z"));
    });
    bench.write("circle.onnx", circle);
    bench.write(
        "external.onnx",
        small.with(|it| it.constants[1] = external("w2", &[16, 16, 3, 3], "weights.bin")),
    );
    bench.write("short.bin", [0; 100]);
    bench.write(
        "short.onnx",
        small.with(|it| it.constants[1] = external("w2", &[16, 16, 3, 3], "short.bin")),
    );
    bench.write(
        "outside.onnx",
        small.with(|it| it.constants[1] = external("w2", &[16, 16, 3, 3], "../../etc/passwd")),
    );
    bench.write(
        "bytes.onnx",
        small.with(|it| it.constants[1] = tensor("w2", &[16, 16, 3, 3], &weights(2000))),
    );
    bench.write(
        "huge.onnx",
        small.with(|it| it.constants[1] = tensor("w2", &[1 << 40, 1 << 40, 3, 3], &weights(9))),
    );
    bench.write(
        "minus.onnx",
        small.with(|it| it.constants[1] = tensor("w2", &[16, -16, 3, 3], &weights(2304))),
    );
    bench.write(
        "channels.onnx",
        small.with(|it| it.constants[1] = tensor("w2", &[16, 32, 3, 3], &weights(4608))),
    );
    bench.write("input.onnx", small.with(|it| it.inputs = vec![value("image", &[3, 8, 8])]));
    bench.write(
        "inner.onnx",
        small.with(|it| it.constants[2] = tensor("w3", &[17, 10], &weights(170))),
    );
    bench.write("twice.onnx", small.with(|it| it.nodes[3] = node("Relu", "relu2", &["c"], "b")));
    bench.write("constants.onnx", small.with(|it| it.constants.push(tensor("w1", &[1], &[0.0]))));
    bench.write(
        "undefined.onnx",
        small.with(|it| it.nodes[1] = node("Relu", "relu1", &["nowhere"], "b")),
    );
    bench.write("no-output.onnx", small.with(|it| it.output = "nothing"));
    bench
        .write("arity.onnx", small.with(|it| it.nodes[0] = node("Conv", "first", &["image"], "a")));
    let nan = small.with(|it| {
        it.constants[1] =
            tensor("w2", &[16, 16, 3, 3], &[&weights(2303)[..], &[f32::NAN]].concat());
    });
    bench.write("nan.onnx", nan);
    check(&bench, CONTRADICTIONS);
}

#[test]
fn operators_that_nobody_knows() {
    let bench = bench();
    bench.write(
        "strange.onnx",
        Network::small().with(|it| it.nodes[1] = node("Frobnicate", "odd", &["a"], "b")),
    );
    check(
        &bench,
        &[
            (
                "evaluate strange.onnx --data digits.toml",
                UNSUPPORTED,
                &["`odd`", "Frobnicate", "hint: `sartor inspect`"],
            ),
            (
                "quantize strange.onnx --data digits.toml -o out.onnx",
                UNSUPPORTED,
                &["`odd`", "Frobnicate"],
            ),
            (
                "compress strange.onnx --chip arm-ethos-u55-128 --data digits.toml -o out",
                UNSUPPORTED,
                &["Frobnicate"],
            ),
            (
                "analyze strange.onnx --chip arm-ethos-u55-128",
                UNSUPPORTED,
                &["`odd`", "Frobnicate"],
            ),
        ],
    );
    let inspected = bench.run("inspect strange.onnx");
    assert_eq!(inspected.code, Some(0), "{}", inspected.stderr);
    assert!(inspected.stdout.contains("Frobnicate"), "{}", inspected.stdout);
    let converted = bench.run("convert strange.onnx out.onnx");
    assert_eq!(converted.code, Some(0), "{}", converted.stderr);
}

/// `digits.toml` with words replaced.
fn spec(bench: &Workbench, name: &str, from: &str, to: &str) {
    assert!(digits::SPEC.contains(from), "{from}");
    bench.write(name, digits::SPEC.replace(from, to));
}

#[test]
fn data_that_cannot_be_read() {
    let bench = bench();
    spec(&bench, "typo.toml", "layout", "layuot");
    spec(&bench, "syntax.toml", "[splits.test]", "[splits.test");
    spec(&bench, "format.toml", "\"idx\"", "\"jpeg\"");
    spec(&bench, "divide.toml", "16.0", "0.0");
    spec(&bench, "gone.toml", "test-images.idx", "gone.idx");
    spec(&bench, "short.toml", "test-images.idx", "short.idx");
    bench.write("short.idx", &idx(&[400, 8, 8], &[0; 6400])[..]);
    spec(&bench, "unlabelled.toml", "labels = \"test-labels.idx\"\n", "");
    spec(&bench, "range.toml", "test-labels.idx", "range.idx");
    bench.write("range.idx", idx(&[400], &[200; 400]));
    spec(&bench, "count.toml", "test-labels.idx", "count.idx");
    bench.write("count.idx", idx(&[399], &[0; 399]));
    spec(&bench, "size.toml", "test-images.idx", "size.idx");
    bench.write("size.idx", idx(&[400, 16, 16], &vec![0; 400 * 256]));
    bench.write("none.idx", idx(&[0, 8, 8], &[]));
    bench.write("no-labels.idx", idx(&[0], &[]));
    let nothing = digits::SPEC.replace("test-images.idx", "none.idx");
    bench.write("none.toml", nothing.replace("test-labels.idx", "no-labels.idx"));
    std::fs::create_dir(bench.path("nothing")).unwrap();
    bench.write("folder.toml", "[input]\nchannels = \"gray\"\n[splits.test]\nformat = \"image-folder\"\npath = \"nothing\"\n");
    bench.write("classes/cat/1.png", "this is no picture");
    bench.write("picture.toml", "[input]\nchannels = \"gray\"\n[splits.test]\nformat = \"image-folder\"\npath = \"classes\"\n");
    check(
        &bench,
        &[
            ("evaluate good.onnx --data absent.toml", INPUT, &["absent.toml", "No such file"]),
            ("evaluate good.onnx --data good.onnx", INPUT, &["good.onnx"]),
            (
                "evaluate good.onnx --data typo.toml",
                INPUT,
                &["typo.toml", "layuot", "`layout`", "here"],
            ),
            (
                "evaluate good.onnx --data syntax.toml",
                INPUT,
                &["syntax.toml", "[splits.test", "here"],
            ),
            (
                "evaluate good.onnx --data format.toml",
                INPUT,
                &["format.toml", "jpeg", "image-folder"],
            ),
            ("evaluate good.onnx --data divide.toml", INPUT, &["divide.toml", "divide"]),
            (
                "evaluate good.onnx --data digits.toml --split exam",
                INPUT,
                &["digits.toml", "exam", "test"],
            ),
            ("evaluate good.onnx --data gone.toml", INPUT, &["gone.idx", "No such file"]),
            ("evaluate good.onnx --data short.toml", INPUT, &["short.idx", "400"]),
            ("evaluate good.onnx --data unlabelled.toml", INPUT, &["labels"]),
            ("evaluate good.onnx --data range.toml", INPUT, &["sample 0", "200", "10 classes"]),
            ("evaluate good.onnx --data count.toml", INPUT, &["count.idx", "399", "400"]),
            ("evaluate good.onnx --data size.toml", INPUT, &["image", "8", "16"]),
            (
                "evaluate good.onnx --data none.toml",
                INPUT,
                &["none.toml", "`none.idx`", "no samples"],
            ),
            ("evaluate good.onnx --data folder.toml", INPUT, &["nothing", "class"]),
            ("evaluate good.onnx --data picture.toml", INPUT, &["cat/1.png", "not a readable"]),
            (
                "quantize good.onnx --data folder.toml -o out.onnx",
                INPUT,
                &["folder.toml", "calibration"],
            ),
            (
                "compress good.onnx --chip arm-ethos-u55-128 --data gone.toml -o out",
                INPUT,
                &["gone.idx"],
            ),
            (
                "compress good.onnx --chip arm-ethos-u55-128 --data size.toml -o out",
                INPUT,
                &["image"],
            ),
        ],
    );
}

fn npz(bench: &Workbench, file: &str, name: &str, shape: &[usize], values: Values) {
    let array = NamedArray { name: Some(name.to_owned()), shape: shape.to_vec(), values };
    let write = |it: &mut dyn std::io::Write| {
        sartor::write_npz(it, &[array]).map_err(std::io::Error::other)
    };
    sartor::write_atomically(&bench.path(file), true, write).unwrap();
}

#[test]
fn arrays_that_do_not_fit() {
    let bench = bench();
    npz(&bench, "good.npz", "image", &[2, 1, 8, 8], Values::F32(vec![0.5; 128]));
    npz(&bench, "name.npz", "picture", &[2, 1, 8, 8], Values::F32(vec![0.5; 128]));
    npz(&bench, "shape.npz", "image", &[2, 3, 8, 8], Values::F32(vec![0.5; 384]));
    npz(&bench, "rank.npz", "image", &[128], Values::F32(vec![0.5; 128]));
    npz(&bench, "type.npz", "image", &[2, 1, 8, 8], Values::I64(vec![1; 128]));
    bench.write("text.npz", "no archive");
    bench.write("empty/readme", "no tensor");
    bench.write("cut/input_0.pb", &tensor("image", &[2, 1, 8, 8], &[0.5; 128]).as_ref()[..40]);
    bench.write("set/input_0.pb", tensor("image", &[2, 1, 8, 8], &[0.5; 128]));
    bench.write("more/input_0.pb", tensor("image", &[2, 1, 8, 8], &[0.5; 128]));
    bench.write("more/input_1.pb", tensor("image", &[2, 1, 8, 8], &[0.5; 128]));
    for name in ["good", "shape"] {
        bench.write(
            &format!("{name}.toml"),
            format!("[splits.test]\nformat = \"npz\"\npath = \"{name}.npz\"\n"),
        );
    }
    check(
        &bench,
        &[
            ("run good.onnx --inputs absent.npz -o out.npz", INPUT, &["absent.npz"]),
            (
                "run good.onnx --inputs text.npz -o out.npz",
                INPUT,
                &["text.npz", "not an NPZ archive"],
            ),
            (
                "run good.onnx --inputs name.npz -o out.npz",
                INPUT,
                &["name.npz", "`image`", "picture"],
            ),
            (
                "run good.onnx --inputs shape.npz -o out.npz",
                INPUT,
                &["shape.npz", "`image`", "3, 8, 8"],
            ),
            ("run good.onnx --inputs rank.npz -o out.npz", INPUT, &["rank.npz", "`image`", "128"]),
            (
                "run good.onnx --inputs type.npz -o out.npz",
                INPUT,
                &["type.npz", "`image`", "i64", "f32"],
            ),
            ("run good.onnx --inputs empty -o out.npz", INPUT, &["`empty`", "input_0.pb", "1"]),
            ("run good.onnx --inputs more -o out.npz", INPUT, &["`more`", "more files"]),
            ("run good.onnx --inputs cut -o out.npz", INPUT, &["cut/input_0.pb"]),
            ("run good.onnx --inputs set --expect set", INPUT, &["`set`", "output_0.pb"]),
            ("run good.onnx --inputs set", USAGE, &["--output"]),
            ("run good.onnx --inputs set -o out.npz --rtol 1", USAGE, &["--expect"]),
            ("run good.onnx --inputs set --expect set --atol -1", USAGE, &["not below 0"]),
            ("evaluate good.onnx --data good.toml", INPUT, &["labels"]),
            ("evaluate good.onnx --data shape.toml", INPUT, &["image", "3"]),
        ],
    );
}

const RECIPE: &str = "version = 1\nseed = 0\n\n[[step]]\ntechnique = \"simplify\"\n\n[[step]]\n\
    technique = \"prune-channels\"\ncriterion = \"l2\"\ngrain = 4\n\n[step.keep.widths]\nfirst = 8\n";

#[test]
fn recipes_that_cannot_be_replayed() {
    let bench = bench();
    bench.write("good.toml", RECIPE);
    bench.write("technique.toml", RECIPE.replace("simplify", "simplyfy"));
    bench.write("version.toml", RECIPE.replace("version = 1", "version = 9"));
    bench.write("key.toml", RECIPE.replace("criterion", "critereon"));
    bench.write("group.toml", RECIPE.replace("first = 8", "frist = 8"));
    bench.write("wide.toml", RECIPE.replace("first = 8", "first = 99"));
    bench.write("zero.toml", RECIPE.replace("first = 8", "first = 0"));
    bench.write("samples.toml", "version = 1\n[[step]]\ntechnique = \"quantize-static\"\n");
    bench.write("order.toml", "version = 1\n[[step]]\ntechnique = \"restore-statistics\"\n");
    check(
        &bench,
        &[
            ("apply good.onnx absent.toml -o out", INPUT, &["absent.toml", "No such file"]),
            ("apply good.onnx good.onnx -o out", INPUT, &["good.onnx"]),
            (
                "apply good.onnx technique.toml -o out",
                INPUT,
                &["technique.toml", "simplyfy", "quantize-static", "here"],
            ),
            (
                "apply good.onnx version.toml -o out",
                INPUT,
                &["version.toml", "version 9", "expected 1", "here"],
            ),
            (
                "apply good.onnx key.toml -o out",
                INPUT,
                &["key.toml", "critereon", "criterion", "9 │ critereon ="],
            ),
            ("apply good.onnx group.toml -o out", INPUT, &["group.toml", "frist", "first"]),
            ("apply good.onnx wide.toml -o out", INPUT, &["wide.toml", "first", "99", "16"]),
            ("apply good.onnx zero.toml -o out", INPUT, &["zero.toml", "first", "0"]),
            (
                "apply good.onnx samples.toml -o out",
                USAGE,
                &["samples.toml", "quantize-static", "--data"],
            ),
            (
                "apply good.onnx order.toml --data digits.toml -o out",
                INPUT,
                &["order.toml", "restore-statistics", "prune-channels"],
            ),
            ("apply absent.onnx good.toml -o out", INPUT, &["absent.onnx"]),
        ],
    );
}

#[test]
fn chips_that_are_not() {
    let bench = bench();
    let chip = include_str!("../../sartor-chip/chips/arm-ethos-u55-128.toml");
    let changed = |name: &str, from: &str, to: &str| {
        assert!(chip.contains(from), "{from}");
        bench.write(name, chip.replacen(from, to, 1));
    };
    changed("fast.toml", "macs_per_cycle = 16,", "macs_per_cycle = 1600,");
    changed("key.toml", "core_hz", "core_herz");
    changed("unit.toml", "accumulator_bits = 32", "accumulator_bits = \"many\"");
    changed("syntax.toml", "cores = 1", "cores = ");
    changed("source.toml", "src = \"horowitz\"", "src = \"hearsay\"");
    check(
        &bench,
        &[
            (
                "chips arm-ethos-u55-129",
                INPUT,
                &["arm-ethos-u55-129", "not in the library", "`arm-ethos-u55-128`"],
            ),
            ("chips toaster", INPUT, &["toaster", "the library holds", "nvidia-a100"]),
            ("analyze good.onnx --chip toaster", INPUT, &["toaster"]),
            ("analyze good.onnx --chip arm-ethos-u55-128,toaster", INPUT, &["toaster"]),
            ("analyze good.onnx --chip arm-ethos-u55-128 --as float64x", USAGE, &["float64x"]),
            (
                "analyze good.onnx --chip arm-ethos-u55-128 --as float32",
                USAGE,
                &["arm-ethos-u55-128", "f32 weights", "--as may be i8"],
            ),
            ("compress good.onnx --chip toaster --data digits.toml -o out", INPUT, &["toaster"]),
            ("chips check absent.toml", INPUT, &["absent.toml", "No such file"]),
            (
                "chips check fast.toml",
                INPUT,
                &["fast.toml", "depthwise convolution is faster than the array", "hint: ", "here"],
            ),
            ("chips check key.toml", INPUT, &["key.toml", "core_herz", "unknown key", "here"]),
            ("chips check unit.toml", INPUT, &["unit.toml", "accumulator_bits", "many"]),
            ("chips check syntax.toml", INPUT, &["syntax.toml", "not valid TOML"]),
            ("chips check source.toml", INPUT, &["source.toml", "hearsay"]),
            ("analyze good.onnx --chip fast.toml", INPUT, &["fast.toml", "depthwise"]),
            (
                "compress good.onnx --chip fast.toml --data digits.toml -o out",
                INPUT,
                &["fast.toml"],
            ),
        ],
    );
}

/// Command lines that nothing can be done with.
const NONSENSE: &[Case] = &[
    ("frobnicate", USAGE, &["frobnicate"]),
    ("inspect", USAGE, &["MODEL"]),
    ("inspect good.onnx --frob", USAGE, &["--frob"]),
    ("inspect good.onnx --threads 0", USAGE, &["--threads", "0"]),
    ("inspect good.onnx --threads many", USAGE, &["--threads", "many"]),
    ("inspect good.onnx --seed -1", USAGE, &["-1"]),
    ("inspect good.onnx --format yaml", USAGE, &["yaml", "json"]),
    ("completions teletype", USAGE, &["teletype", "bash"]),
    ("analyze good.onnx", USAGE, &["--chip"]),
    ("analyze good.onnx --chip arm-ethos-u55-128 --batch 0", USAGE, &["--batch"]),
    ("quantize good.onnx --data digits.toml", USAGE, &["--output"]),
    ("quantize good.onnx --data digits.toml --skip nobody -o out.onnx", INPUT, &["nobody"]),
    (
        "quantize good.onnx --data digits.toml --ranges percentile --percentile 0 -o out.onnx",
        USAGE,
        &["--percentile", "'0'", "above 50"],
    ),
    (
        "quantize good.onnx --data digits.toml --ranges percentile --percentile NaN -o out.onnx",
        USAGE,
        &["--percentile", "NaN", "above 50"],
    ),
    (
        "quantize good.onnx --data digits.toml --chip arm-cortex-m7 --activations uint8 -o out.onnx",
        USAGE,
        &["arm-cortex-m7"],
    ),
    ("prune good.onnx --grain 4 -o out.onnx", USAGE, &["--macs"]),
    ("prune good.onnx --macs 0.5 -o out.onnx", USAGE, &["--grain"]),
    ("prune good.onnx --macs 0.5 --slots 0.5 --grain 4 -o out.onnx", USAGE, &["--macs", "--slots"]),
    ("prune good.onnx --macs 0 --grain 4 -o out.onnx", USAGE, &["0", "above 0 and at most 1"]),
    ("prune good.onnx --macs 2 --grain 4 -o out.onnx", USAGE, &["2", "above 0 and at most 1"]),
    ("prune good.onnx --macs NaN --grain 4 -o out.onnx", USAGE, &["NaN", "above 0 and at most 1"]),
    ("prune good.onnx --macs -1 --grain 4 -o out.onnx", USAGE, &["-1"]),
    (
        "prune good.onnx --macs 0.0001 --grain 4 -o out.onnx",
        UNSUPPORTED,
        &["keep 7.4 % of the MACs, asked were 0.01 %"],
    ),
    ("prune good.onnx --macs 0.5 --grain 0 -o out.onnx", USAGE, &["--grain"]),
    (
        "compress good.onnx --chip arm-ethos-u55-128 --data digits.toml --max-drop -1 -o out",
        USAGE,
        &["--max-drop", "'-1'", "0 to 100"],
    ),
    (
        "compress good.onnx --chip arm-ethos-u55-128 --data digits.toml --max-drop NaN -o out",
        USAGE,
        &["--max-drop", "NaN", "0 to 100"],
    ),
    (
        "compress good.onnx --chip arm-ethos-u55-128 --data digits.toml --min-accuracy 101 -o out",
        USAGE,
        &["--min-accuracy", "101"],
    ),
    (
        "compress good.onnx --chip arm-ethos-u55-128 --data digits.toml --max-latency NaN -o out",
        USAGE,
        &["--max-latency", "NaN", "above 0"],
    ),
    (
        "compress good.onnx --chip arm-ethos-u55-128 --data digits.toml --max-size -5 -o out",
        USAGE,
        &["--max-size", "'-5'"],
    ),
];

#[test]
fn requests_that_make_no_sense() {
    check(&bench(), NONSENSE);
}
