//! Wrong chip files: each is refused with its key, and with a span inside the line that is wrong.

use sartor_chip::{Chip, ChipError, library_bases, lint};

/// A sound file, in which each case changes one thing.
const SOUND: &str = include_str!("files/sound.toml");

/// A sound crossbar, for cases that begin with `cim:`.
const CROSSBAR: &str = include_str!("files/crossbar.toml");

/// (what is replaced, by what, the key to be named, a piece of the line to be underlined, a piece of message or help)
const WRONG: &[(&str, &str, &str, &str, &str)] = &[
    ("schema = 1", "schema = 2", "schema", "schema = 2", "version 1"),
    ("core_hz", "core_mhz", "system.core_mhz", "core_mhz", "did you mean `core_hz`?"),
    ("[energy]", "[energie]", "energie", "[energie]", "did you mean `energy`?"),
    ("vendor = \"Nobody\"\n", "", "chip.vendor", "[chip]", "missing key"),
    ("class = \"npu\"", "class = \"nnpu\"", "chip.class", "class", "did you mean `npu`?"),
    (
        "cores = 2",
        "cores = \"two\"",
        "core.engine[0].cores",
        "cores",
        "a whole number, found string",
    ),
    ("cores = 2", "cores = 0", "core.engine[0].cores", "cores", "above zero, found 0"),
    ("cores = 2", "cores = -2", "core.engine[0].cores", "cores", "above zero, found -2"),
    ("core_hz = 1e9", "core_hz = inf", "system.core_hz", "core_hz", "finite number above zero"),
    (
        "core_hz = 1e9",
        "core_hz = { v = 1e9, conf = \"sure\" }",
        "system.core_hz",
        "core_hz",
        "low, med, high",
    ),
    ("core_hz = 1e9", "core_hz = { src = \"ds\" }", "system.core_hz.v", "core_hz", "missing key"),
    (
        "core_hz = 1e9",
        "core_hz = { v = 1, src = \"dz\" }",
        "system.core_hz",
        "core_hz",
        "did you mean `ds`?",
    ),
    (
        "v = 0.5, assumed = \"a guess\"",
        "v = 0.5, assumed = \"a guess\", src = \"ds\"",
        "core.engine[0].efficiency",
        "efficiency",
        "two origins",
    ),
    (
        "\"a guess\"",
        "\"a guess\", conf = \"high\"",
        "core.engine[0].efficiency",
        "efficiency",
        "in an assumption",
    ),
    (
        "src = \"ds\"
",
        "",
        "core.engine[0].array",
        "array = ",
        "no source",
    ),
    ("rows = 8, ", "", "core.engine[0].array.rows", "array = ", "missing key"),
    (
        "model = \"systolic\"",
        "model = \"quantum\"",
        "core.engine[0].model",
        "model",
        "roofline, simd",
    ),
    (
        "holds = [\"weights\"]",
        "holds = [\"weihgts\"]",
        "system.memory[1].holds",
        "weihgts",
        "did you mean `weights`?",
    ),
    (
        "read_bytes_per_s = 1e9",
        "read_bytes_per_s = 0",
        "system.memory[1].read_bytes_per_s",
        "_s = 0",
        "above zero",
    ),
    (
        "[0.5, 0.6]",
        "[0.0, 0.6]",
        "core.weight_store.bytes_per_weight",
        "bytes_per_weight",
        "ascending",
    ),
    (
        "[0.5, 0.6]",
        "[0.5]",
        "core.weight_store.bytes_per_weight",
        "bytes_per_weight",
        "a pair of numbers",
    ),
    ("overlaps = true", "overlaps = 1", "core.overlaps", "overlaps", "true or false"),
    (
        "[\"Conv\"]\nweights",
        "[7]\nweights",
        "core.arithmetic.scheme[0].ops",
        "ops = [7]",
        "expected a string",
    ),
    ("ds = \"an", "ds = 7 # \"an", "sources.ds", "ds = 7", "a citation"),
    // Contradictions.
    ("v = 0.5", "v = 1.5", "core.engine[0].efficiency", "efficiency", "above 1"),
    (
        "accumulator_bits = 24",
        "accumulator_bits = 17",
        "core.engine[0].mode[0].accumulator_bits",
        "= 17",
        "needs 18",
    ),
    (
        "macs_per_cycle = 128",
        "macs_per_cycle = 100",
        "core.engine[0].mode[0].macs_per_cycle",
        "= 100",
        "computes 128",
    ),
    (
        "macs_per_cycle = 16",
        "macs_per_cycle = 500",
        "core.engine[0].mode[0].depthwise.macs_per_cycle",
        "= 500",
        "faster",
    ),
    (
        "grain = 8",
        "grain = 6",
        "core.engine[0].mode[0].grain",
        "grain = 6",
        "multiples of each other",
    ),
    (
        "grain = 8",
        "grain = 8\n[[core.engine.mode.kernel]]\nproduct = \"matrix\"\ncycles_per_output = 1\n\
         [[core.engine.mode.kernel]]\nproduct = 'matrix'\nmacs_per_cycle = 9",
        "core.engine[0].mode[0].kernel[1].product",
        "'matrix'",
        "second kernel",
    ),
    (
        "grain = 8",
        "grain = 8\n[[core.engine.mode.kernel]]\nproduct = \"matrix\"",
        "core.engine[0].mode[0].kernel[0]",
        "kernel",
        "nothing is said",
    ),
    (
        "grain = 8",
        "grain = 8\n[[core.engine.op]]\nops = [\"Add\"]",
        "core.engine[0].op[0]",
        "engine.op",
        "without a figure",
    ),
    (
        "activations = \"i8\"\nmacs",
        "activations = \"f16\"\nmacs",
        "core.engine[0].mode[0].activations",
        "f16",
        "do not multiply",
    ),
    (
        "weights = \"i8\"\nactivations = \"i8\"\nmacs",
        "weights = \"i4\"\nactivations = \"i8\"\nmacs",
        "core.engine[0].mode[0].weights",
        "i4",
        "no scheme",
    ),
    ("speedup = 2.0", "speedup = 3.0", "core.sparsity[0].speedup", "speedup", "above 4/2"),
    ("n = 2\n", "n = 4\n", "core.sparsity[0].n", "n = 4", "keeps everything"),
    (
        "ops = [\"Conv\"]\n",
        "ops = [\"Gemm\"]\n",
        "core.arithmetic.scheme[0].ops",
        "Gemm",
        "not in core.operators.allow",
    ),
    (
        "name = \"flash\"",
        "name = \"sram\"",
        "system.memory[1].name",
        "name = \"sram\"",
        "a second memory",
    ),
    (
        "read_bytes_per_s = 1e9",
        "read_bytes_per_s = 5e9",
        "system.memory[1].read_bytes_per_s",
        "5e9",
        "near to far",
    ),
    (
        "read_bytes_per_s = 1e9\n",
        "",
        "system.memory[1].read_bytes_per_s",
        "[[system.memory]]",
        "not stated",
    ),
    (
        "[\"activations\"]",
        "[\"weights\"]",
        "system.memory",
        "[[system.memory]]",
        "no memory holds activations",
    ),
    ("{model}", "", "runtime.command", "command", "write `{model}` there"),
    ("version = 1\ncore_hz", "version = 2\ncore_hz", "system.version", "version = 2", "version 1"),
    (
        "array = { rows",
        "tile = { m = 1, n = 1, k = 1 }\narray = { rows",
        "core.engine[0].tile",
        "tile",
        "belongs to model \"dot_tile\"",
    ),
    (
        "stride_max = 3",
        "stride_max = 0",
        "core.operators.limit[0].stride_max",
        "stride_max",
        "above zero",
    ),
    (
        "stride_max = 3",
        "kernels = [5]\nkernel_max = 3",
        "core.operators.limit[0].kernels",
        "kernels",
        "above the largest",
    ),
    (
        "scale = \"fixed\"",
        "scale = \"pow2\"",
        "core.arithmetic.multiplier_bits",
        "multiplier",
        "scales are pow2",
    ),
    (
        "name = \"flash\"\nread_pj",
        "name = \"dram\"\nread_pj",
        "energy.memory[0].name",
        "dram",
        "no memory is called `dram`",
    ),
    ("limit_w = 1", "limit_w = 1\nidle_w = 2", "energy.idle_w", "idle_w", "above the limit"),
    (
        "limit_w = 1",
        "limit_w = 1\nprocess_scale = 0.3",
        "energy.process_scale",
        "process_scale",
        "without the table",
    ),
    (
        "accepts = [\"onnx\"]",
        "accepts = [\"onnx\"]\nopset_min = 18\nopset_max = 13",
        "runtime.opset_min",
        "opset_min",
        "above the highest",
    ),
    (
        "fallback = \"reject\"",
        "fallback = \"reject\"\ndeny = [\"Conv\"]",
        "core.arithmetic.scheme[0].ops",
        "Conv",
        "denied",
    ),
    (
        "overlaps = true",
        "overlaps = true\nextends = \"nobody\"",
        "extends",
        "nobody",
        "no chip `nobody`",
    ),
    ("schema = 1", "schema = 1\nextends = 7", "extends", "extends = 7", "the id of a chip"),
    (
        "[\"channel\"]",
        "[\"block\"]",
        "core.arithmetic.scheme[0].blocks",
        "[[core.arithmetic.scheme]]",
        "without their lengths",
    ),
    (
        "cim:rows_parallel = 128",
        "rows_parallel = 256",
        "core.engine[0].crossbar.rows_parallel",
        "256",
        "256 rows at once of 128",
    ),
    (
        "cim:columns_per_adc = 8",
        "columns_per_adc = 256",
        "core.engine[0].crossbar.columns_per_adc",
        "256",
        "share a converter",
    ),
    (
        "cim:dac_bits = 1",
        "dac_bits = 9",
        "core.engine[0].crossbar.dac_bits",
        "9",
        "for 8-bit inputs",
    ),
    (
        "cim:adc_bits = 8",
        "adc_ns = 1",
        "core.engine[0].crossbar.adc_ns",
        "adc_ns",
        "without a converter",
    ),
    (
        "cim:cell_bits = 2",
        "cell_bits = 0",
        "core.engine[0].crossbar.cell_bits",
        "cell_bits",
        "above zero",
    ),
    (
        "cim:read_ns = 100",
        "read_ns = 100\nnoise = { drift_mean = { slope = 0, offset = 0, min = 0.2, max = 0.1 } }",
        "core.engine[0].crossbar.noise.drift_mean.min",
        "0.2",
        "0.2 is above 0.1",
    ),
    (
        "cim:read_ns = 100",
        "read_ns = 100\nnoise = { programming_us = [1.0] }",
        "core.engine[0].crossbar.noise.programming_us",
        "programming_us",
        "without the largest conductance",
    ),
    (
        "cim:read_ns = 100",
        "read_ns = 100\nnoise = { g_max_us = 1, relaxed = [{ after_s = 9, programming_us = [1] }, { after_s = 3, programming_us = [1] }] }",
        "core.engine[0].crossbar.noise.relaxed[1].after_s",
        "after_s = 3",
        "ascending",
    ),
    (
        "cim:read_ns = 100",
        "read_ns = 100\nnoise = { stuck_rate = 2 }",
        "core.engine[0].crossbar.noise.stuck_rate",
        "stuck_rate",
        "0 to 1",
    ),
    ("id = \"test-chip\"", "id = \"Test Chip\"", "chip.id", "id = ", "plain id"),
    ("[core]\n", "spare = \"never named\"\n[core]\n", "sources.spare", "spare", "no figure names"),
];

fn line_of(text: &str, position: usize) -> &str {
    let start = text[..position].rfind('\n').map_or(0, |at| at + 1);
    let end = text[position..].find('\n').map_or(text.len(), |at| position + at);
    &text[start..end]
}

#[test]
fn the_file_that_the_cases_change_is_sound() {
    for sound in [SOUND, CROSSBAR] {
        assert_eq!(lint(&Chip::checked("sound", sound, &library_bases).unwrap()), []);
    }
    let chip = Chip::parse("sound", SOUND).unwrap();
    let text = |key| chip.place(key).map(|it| &SOUND[it.span.clone()]);
    assert_eq!(text("system.core_hz"), Some("1e9"));
}

#[test]
fn every_wrong_file_is_refused_at_the_right_line() {
    let mut failures = Vec::new();
    for &(old, new, key, line, message) in WRONG {
        let (sound, old) = match old.strip_prefix("cim:") {
            Some(old) => (CROSSBAR, old),
            None => (SOUND, old),
        };
        assert!(sound.contains(old), "the case replaces nothing: {old}");
        let text = sound.replacen(old, new, 1);
        match Chip::checked("wrong", &text, &library_bases) {
            Ok(_) => failures.push(format!("{new}: accepted")),
            Err(error) => {
                let place = error.place.as_ref().map_or("", |it| line_of(&text, it.span.start));
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
        let ChipError { place, fault, key, .. } = Chip::parse("bad", text).unwrap_err();
        assert!(line_of(text, place.unwrap().span.start).contains(line), "{text}");
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
