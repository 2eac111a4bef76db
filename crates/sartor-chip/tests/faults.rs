//! Wrong chip files: each is refused with its key, and with a span inside the line that is wrong.

use sartor_chip::{Chip, ChipError, lint};

/// A sound file, in which each case changes one thing.
const SOUND: &str = r#"
schema = 1
src = "ds"
[chip]
id = "test-chip"
name = "Test chip"
vendor = "Nobody"
class = "npu"
[sources]
ds = "an imagined data sheet"
[clock]
core_hz = 1e9
[compute]
model = "systolic"
cores = 2
peak_efficiency = { v = 0.5, assumed = "a guess" }
array = { rows = 8, columns = 8 }
[[compute.mode]]
weights = "i8"
activations = "i8"
macs_per_cycle = 128
accumulator_bits = 24
overflow = "wrap"
align = { k = 8, n = 8 }
depthwise = { macs_per_cycle = 16, align = { n = 8 } }
grain = 8
[quantization]
scale = "fixed"
rounding = "half_up"
bias_bits = 32
[[quantization.scheme]]
ops = ["Conv"]
weights = "i8"
activations = "i8"
granularity = ["channel"]
[[sparsity]]
n = 2
m = 4
axis = "k"
weights = ["i8"]
speedup = 2.0
min_k = 32
[weight_store]
codec = "ethos_mlw"
bytes_per_weight = [[0.0, 1.0], [0.5, 0.6]]
bytes_per_channel = 10
[[memory]]
name = "sram"
capacity_bytes = 65536
read_bytes_per_s = 4e9
holds = ["activations"]
[[memory]]
name = "flash"
read_bytes_per_s = 1e9
holds = ["weights"]
[overhead]
overlaps = true
[power]
limit_w = 1
[operators]
fallback = "reject"
allow = ["Conv"]
[deploy]
runtime = "imagined"
accepts = ["onnx"]
command = "imagine {model}"
"#;

/// (what is replaced, by what, the key to be named, a piece of the line to be underlined, a piece of message or help)
const WRONG: &[(&str, &str, &str, &str, &str)] = &[
    ("schema = 1", "schema = 2", "schema", "schema = 2", "schema 1"),
    ("core_hz", "core_mhz", "clock.core_mhz", "core_mhz", "did you mean `core_hz`?"),
    ("[overhead]", "[overheads]", "overheads", "[overheads]", "did you mean `overhead`?"),
    ("vendor = \"Nobody\"\n", "", "chip.vendor", "[chip]", "missing key"),
    ("class = \"npu\"", "class = \"nnpu\"", "chip.class", "class", "did you mean `npu`?"),
    ("cores = 2", "cores = \"two\"", "compute.cores", "cores", "a whole number, found string"),
    ("cores = 2", "cores = 0", "compute.cores", "cores", "above zero, found 0"),
    ("cores = 2", "cores = -2", "compute.cores", "cores", "above zero, found -2"),
    ("core_hz = 1e9", "core_hz = inf", "clock.core_hz", "core_hz", "finite number above zero"),
    (
        "core_hz = 1e9",
        "core_hz = { v = 1e9, conf = \"sure\" }",
        "clock.core_hz",
        "core_hz",
        "low, med, high",
    ),
    ("core_hz = 1e9", "core_hz = { src = \"ds\" }", "clock.core_hz.v", "core_hz", "missing key"),
    (
        "core_hz = 1e9",
        "core_hz = { v = 1, src = \"dz\" }",
        "clock.core_hz",
        "core_hz",
        "did you mean `ds`?",
    ),
    (
        "v = 0.5, assumed = \"a guess\"",
        "v = 0.5, assumed = \"a guess\", src = \"ds\"",
        "compute.peak_efficiency",
        "peak_efficiency",
        "two origins",
    ),
    (
        "\"a guess\"",
        "\"a guess\", conf = \"high\"",
        "compute.peak_efficiency",
        "peak_efficiency",
        "in an assumption",
    ),
    ("src = \"ds\"\n", "", "clock.core_hz", "core_hz", "no source"),
    ("rows = 8, ", "", "compute.array.rows", "array = ", "missing key"),
    ("model = \"systolic\"", "model = \"quantum\"", "compute.model", "model", "roofline, simd"),
    (
        "holds = [\"weights\"]",
        "holds = [\"weihgts\"]",
        "memory[1].holds",
        "weihgts",
        "did you mean `weights`?",
    ),
    (
        "read_bytes_per_s = 1e9",
        "read_bytes_per_s = 0",
        "memory[1].read_bytes_per_s",
        "_s = 0",
        "above zero",
    ),
    ("[0.5, 0.6]", "[0.0, 0.6]", "weight_store.bytes_per_weight", "bytes_per_weight", "ascending"),
    (
        "[0.5, 0.6]",
        "[0.5]",
        "weight_store.bytes_per_weight",
        "bytes_per_weight",
        "a pair of numbers",
    ),
    ("overlaps = true", "overlaps = 1", "overhead.overlaps", "overlaps", "true or false"),
    (
        "[\"Conv\"]\nweights",
        "[7]\nweights",
        "quantization.scheme[0].ops",
        "ops = [7]",
        "expected a string",
    ),
    ("ds = \"an", "ds = 7 # \"an", "sources.ds", "ds = 7", "a citation"),
    // Contradictions.
    ("v = 0.5", "v = 1.5", "compute.peak_efficiency", "peak_efficiency", "above 1"),
    (
        "accumulator_bits = 24",
        "accumulator_bits = 17",
        "compute.mode[0].accumulator_bits",
        "= 17",
        "needs 18",
    ),
    (
        "macs_per_cycle = 128",
        "macs_per_cycle = 100",
        "compute.mode[0].macs_per_cycle",
        "= 100",
        "computes 128",
    ),
    (
        "macs_per_cycle = 16",
        "macs_per_cycle = 500",
        "compute.mode[0].depthwise.macs_per_cycle",
        "= 500",
        "faster",
    ),
    ("grain = 8", "grain = 6", "compute.mode[0].grain", "grain = 6", "multiples of each other"),
    (
        "activations = \"i8\"\nmacs",
        "activations = \"f16\"\nmacs",
        "compute.mode[0].activations",
        "f16",
        "do not multiply",
    ),
    (
        "weights = \"i8\"\nactivations = \"i8\"\nmacs",
        "weights = \"i4\"\nactivations = \"i8\"\nmacs",
        "compute.mode[0].weights",
        "i4",
        "no scheme",
    ),
    ("speedup = 2.0", "speedup = 3.0", "sparsity[0].speedup", "speedup", "above 4/2"),
    ("n = 2\n", "n = 4\n", "sparsity[0].n", "n = 4", "keeps everything"),
    (
        "ops = [\"Conv\"]\n",
        "ops = [\"Gemm\"]\n",
        "quantization.scheme[0].ops",
        "Gemm",
        "not in operators.allow",
    ),
    ("name = \"flash\"", "name = \"sram\"", "memory[1].name", "name = \"sram\"", "a second memory"),
    (
        "read_bytes_per_s = 1e9",
        "read_bytes_per_s = 5e9",
        "memory[1].read_bytes_per_s",
        "5e9",
        "near to far",
    ),
    ("read_bytes_per_s = 1e9\n", "", "memory[1].read_bytes_per_s", "[[memory]]", "not stated"),
    ("[\"activations\"]", "[\"weights\"]", "memory", "[[memory]]", "no memory holds activations"),
    ("{model}", "", "deploy.command", "command", "write `{model}` there"),
    ("id = \"test-chip\"", "id = \"Test Chip\"", "chip.id", "id = ", "plain id"),
    ("[clock]", "spare = \"never named\"\n[clock]", "sources.spare", "spare", "no figure names"),
];

fn line_of(text: &str, position: usize) -> &str {
    let start = text[..position].rfind('\n').map_or(0, |at| at + 1);
    let end = text[position..].find('\n').map_or(text.len(), |at| position + at);
    &text[start..end]
}

#[test]
fn the_file_that_the_cases_change_is_sound() {
    let chip = Chip::checked("sound", SOUND).unwrap();
    assert_eq!(lint(&chip), []);
    assert_eq!(chip.span("clock.core_hz").map(|span| &SOUND[span]), Some("1e9"));
}

#[test]
fn every_wrong_file_is_refused_at_the_right_line() {
    let mut failures = Vec::new();
    for &(old, new, key, line, message) in WRONG {
        assert!(SOUND.contains(old), "the case replaces nothing: {old}");
        let text = SOUND.replacen(old, new, 1);
        match Chip::checked("wrong", &text) {
            Ok(_) => failures.push(format!("{new}: accepted")),
            Err(error) => {
                let place = error.span.clone().map_or("", |span| line_of(&text, span.start));
                let said = format!("{error} {}", error.help.as_deref().unwrap_or(""));
                if error.key.as_deref() != Some(key)
                    || !place.contains(line)
                    || !said.contains(message)
                {
                    failures.push(format!("{new}: line `{place}`: {said}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn bad_toml_is_refused_with_its_place() {
    for (text, line) in
        [("schema = \n", "schema"), ("a = 1\n[b\n", "[b"), ("a = 1\na = 2\n", "a = 2")]
    {
        let ChipError { span, fault, key, .. } = Chip::parse("bad", text).unwrap_err();
        assert!(line_of(text, span.unwrap().start).contains(line), "{text}");
        assert!(key.is_none() && fault.to_string().starts_with("not valid TOML"), "{fault}");
    }
    assert_eq!(Chip::parse("empty", "").unwrap_err().key.as_deref(), Some("schema"));
}

/// No cut of a sound file, and no cut with rubbish behind it, makes the reader panic.
#[test]
fn cut_files_are_refused_without_panic() {
    for end in 0..SOUND.len() {
        for rubbish in ["", "=", "[[", "\"", "é"] {
            let text = format!("{}{rubbish}", &SOUND[..end]);
            if let Ok(chip) = Chip::parse("cut", &text) {
                lint(&chip);
            }
        }
    }
}
