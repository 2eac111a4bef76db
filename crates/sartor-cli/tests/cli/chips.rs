//! `chips`: lists, sheets, comparisons, and wrong files that are refused with the line and the reason.

use super::{Workbench, each_has_keys, has_keys, json, stdout};
use serde_json::Value;

const SOUND: &str = include_str!("../../../sartor-chip/tests/files/sound.toml");
const CROSSBAR: &str = include_str!("../../../sartor-chip/tests/files/crossbar.toml");

/// A wrong file: the sound one in which a piece is replaced, the line that must be shown, and the reason that must be given.
struct Wrong {
    sound: &'static str,
    old: &'static str,
    new: &'static str,
    line: &'static str,
    reason: &'static str,
}

const fn wrong(
    old: &'static str,
    new: &'static str,
    line: &'static str,
    reason: &'static str,
) -> Wrong {
    Wrong { sound: SOUND, old, new, line, reason }
}

const fn wrong_crossbar(
    old: &'static str,
    new: &'static str,
    line: &'static str,
    reason: &'static str,
) -> Wrong {
    Wrong { sound: CROSSBAR, old, new, line, reason }
}

const MODE: &str = "weights = \"i8\"\nactivations = \"i8\"\nmacs";

const WRONG: &[Wrong] = &[
    // Not a chip file.
    wrong("cores = 2", "cores = ", "cores = ", "not valid TOML"),
    wrong("schema = 1", "schema = 2", "schema = 2", "expected version 1, found 2"),
    wrong("core_hz", "core_mhz", "core_mhz = 1e9", "did you mean `core_hz`?"),
    wrong("vendor = \"Nobody\"\n", "", "[chip]", "`chip.vendor`: missing key"),
    wrong("\"npu\"", "\"nnpu\"", "class = \"nnpu\"", "did you mean `npu`?"),
    wrong("cores = 2", "cores = \"two\"", "cores = \"two\"", "a whole number, found string"),
    wrong("cores = 2", "cores = 0", "cores = 0", "a whole number above zero, found 0"),
    // Figures of nobody, or of two.
    wrong("src = \"ds\"\n", "", "array = {", "no source for this figure"),
    wrong("core_hz = 1e9", "core_hz = { v = 1e9, src = \"dz\" }", "core_hz", "unknown source `dz`"),
    wrong("\"a guess\"", "\"a guess\", src = \"ds\"", "efficiency", "two origins for one figure"),
    wrong("\"a guess\"", "\"a guess\", conf = \"high\"", "efficiency", "in an assumption"),
    wrong("[core]\n", "other = \"a page\"\n[core]\n", "other = ", "no figure names this source"),
    // Contradictions.
    wrong("v = 0.5", "v = 1.5", "efficiency = { v = 1.5", "efficiency 1.5 is above 1"),
    wrong("bits = 24", "bits = 17", "accumulator_bits = 17", "which needs 18"),
    wrong("cycle = 128", "cycle = 100", "macs_per_cycle = 100", "but the array computes 128"),
    wrong("cycle = 16", "cycle = 500", "depthwise = {", "depthwise convolution is faster"),
    wrong("grain = 8", "grain = 6", "grain = 6", "not multiples of each other"),
    wrong(MODE, "weights = \"i4\"\nactivations = \"i8\"\nmacs", "\"i4\"", "no scheme quantizes"),
    wrong("speedup = 2.0", "speedup = 3.0", "speedup = 3.0", "speed-up 3 is above 4/2"),
    wrong(
        "[\"Conv\"]\nweights",
        "[\"Gemm\"]\nweights",
        "[\"Gemm\"]",
        "is not in core.operators.allow",
    ),
    wrong("holds = [\"weights\"]", "holds = []", "holds = []", "memory `flash` holds nothing"),
    wrong("_per_s = 1e9", "_per_s = 5e9", "_per_s = 5e9", "is faster than a nearer one"),
    wrong(
        "\"flash\"\nread_b",
        "\"sram\"\nread_b",
        "name = \"sram\"\nread_bytes_per_s = 1e9",
        "a second memory",
    ),
    wrong("[\"activations\"]", "[\"weights\"]", "[[system.memory]]", "no memory holds activations"),
    wrong("\"flash\"\nread_pj", "\"dram\"\nread_pj", "\"dram\"", "no memory is called `dram`"),
    wrong("stride_max = 3", "kernels = [5]\nkernel_max = 3", "kernels = [5]", "above the largest"),
    wrong("\"fixed\"", "\"pow2\"", "multiplier_bits", "but scales are pow2"),
    wrong("{model}", "", "command = ", "does not say where the file goes"),
    wrong("limit_w = 1", "limit_w = 1\nidle_w = 2", "idle_w = 2", "idle is above the limit"),
    wrong(
        "schema = 1",
        "schema = 1\nextends = \"z80\"",
        "extends = \"z80\"",
        "no chip `z80` to extend",
    ),
    wrong_crossbar(
        "rows_parallel = 128",
        "rows_parallel = 256",
        "rows_parallel",
        "256 rows at once of 128",
    ),
    wrong_crossbar(
        "adc_bits = 8",
        "adc_ns = 1",
        "adc_ns = 1",
        "a conversion time without a converter",
    ),
    wrong_crossbar(
        "weight_bits = 8",
        "weight_bits = 999",
        "weight_bits = 999",
        "one weight takes 500 columns",
    ),
];

/// Each wrong file by itself: exit code 3, the line in the frame's head, the reason, and nothing on standard output.
#[test]
fn wrong_files_are_refused_with_the_line_and_the_reason() {
    assert!(WRONG.len() >= 20);
    let bench = Workbench::new();
    let mut failures = Vec::new();
    for (index, it) in WRONG.iter().enumerate() {
        assert!(it.sound.contains(it.old), "the case replaces nothing: {}", it.old);
        let text = it.sound.replacen(it.old, it.new, 1);
        let at = text.find(it.line).unwrap_or_else(|| panic!("no line `{}`", it.line));
        let line = text[..at].matches('\n').count() + 1;
        let name = format!("wrong-{index}.toml");
        bench.write(&name, &text);
        let found = bench.run(&format!("chips check {name}"));
        let place = format!("[{name}:{line}:");
        let refused = found.code == Some(3) && found.stdout.is_empty();
        if !refused || !found.stderr.contains(&place) || !found.stderr.contains(it.reason) {
            failures.push(format!("{place} {}: {:?}\n{}", it.reason, found.code, found.stderr));
        }
    }
    assert!(failures.is_empty(), "{} of them\n{}", failures.len(), failures.join("\n"));
}

/// One command for several files: sound ones are named, of faulty ones every fault is shown, also in JSON, and also in a base.
#[test]
fn several_files_are_checked_at_once() {
    let bench = Workbench::new();
    bench.write("good.toml", SOUND);
    bench.write("two.toml", SOUND.replace("grain = 8", "grain = 6").replace("v = 0.5", "v = 2.5"));
    bench.write("base.toml", SOUND.replace("speedup = 2.0", "speedup = 9"));
    bench.write("board.toml", "schema = 1\nextends = \"./base.toml\"\n[chip]\nid = \"my-board\"\n");
    let found = bench.run("chips check good.toml two.toml board.toml absent.toml");
    assert_eq!(found.code, Some(3));
    assert_eq!(found.stdout, "good.toml: test-chip is a valid chip file\n");
    assert_eq!(found.stderr.matches("error: ").count(), 4, "{}", found.stderr);
    for piece in ["[two.toml:", "efficiency 2.5", "grain 6", "base.toml:", "absent.toml"] {
        assert!(found.stderr.contains(piece), "{piece}: {}", found.stderr);
    }
    let list = bench.run("chips check good.toml two.toml board.toml --format json");
    assert_eq!(list.code, Some(3));
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    each_has_keys(&list, &["file", "ok", "chip", "faults"]);
    assert_eq!((&list[0]["ok"], &list[1]["ok"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(list[0]["chip"]["id"], "test-chip");
    each_has_keys(&list[1]["faults"], &["message", "file", "line", "column", "key", "hint"]);
    let line = SOUND[..SOUND.find("grain = 8").unwrap()].matches('\n').count() + 1;
    let grain = &list[1]["faults"][1];
    assert_eq!(
        (grain["line"].as_u64(), &grain["key"]),
        (Some(line as u64), &Value::from("core.engine[0].mode[0].grain"))
    );
    assert!(list[2]["faults"][0]["file"].as_str().unwrap().ends_with("base.toml"));
}

#[test]
fn the_list_is_filtered() {
    let bench = Workbench::new();
    let ids = |args: &str| -> Vec<String> {
        let list = json(&bench, &format!("chips {args}"));
        list.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = ids("");
    for (args, has, lacks) in [
        ("--class mcu", "arm-cortex-m55", "nvidia-a100"),
        ("--class cim", "isaac-ref", "hailo-8"),
        ("--vendor intel", "intel-xeon-icx", "nvidia-a100"),
        ("--type int8 --class gpu", "nvidia-a100", "jetson-nano"),
        ("--type f16", "apple-ane-a14-m1", "hailo-8"),
        ("--sparsity", "nvidia-a100", "rockchip-rk3588"),
        ("--search saturate", "espressif-esp32-s3", "nvidia-a100"),
    ] {
        let found = ids(args);
        assert!(found.iter().any(|it| it == has), "{args}: {found:?}");
        assert!(found.iter().all(|it| it != lacks), "{args}: {found:?}");
        assert!(found.len() < all.len() && found.iter().all(|it| all.contains(it)));
    }
    assert!(ids("--search perpetuum").is_empty());
    assert!(bench.run("chips --search perpetuum").stderr.contains("none of the"));
    assert_eq!(bench.run("chips --class toaster").code, Some(2));
    assert_eq!(bench.run("chips --class npu hailo-8").code, Some(2));
}

#[test]
fn a_sheet_shows_every_key_with_unit_origin_and_default() {
    let bench = Workbench::new();
    let text = stdout(&bench, "chips arm-cortex-m4");
    for piece in [
        "arm-cortex-m4: Arm Cortex-M4",
        "engine[cpu].mode[i8 i8]",
        "120 MHz",
        "low    [m4]",
        "(from arm-cortex-m7)",
        "absent",
        "so: unknown, counted as none",
        "[cmsis] Arm CMSIS-NN",
        "figures are of low confidence",
    ] {
        assert!(text.contains(piece), "{piece}\n{text}");
    }
    let sheet = json(&bench, "chips arm-cortex-m4");
    has_keys(
        &sheet,
        &["id", "name", "kind", "vendor", "core", "system", "runtime", "energy", "sources", "keys"],
    );
    each_has_keys(&sheet["keys"], &["key", "value", "provenance", "confidence", "file", "default"]);
    let keys = sheet["keys"].as_array().unwrap();
    let clock = keys.iter().find(|it| it["key"] == "system.core_hz").unwrap();
    assert_eq!(clock["value"].as_f64(), Some(120e6));
    bench.write("sound.toml", SOUND);
    assert!(stdout(&bench, "chips ./sound.toml").contains("test-chip: Test chip"));
}

#[test]
fn two_chips_are_compared() {
    let bench = Workbench::new();
    let text = stdout(&bench, "chips diff ibm-hermes ibm-hermes-1phase");
    for piece in [
        "core.engine[cores]",
        "crossbar.phases",
        "absent: 1",
        "product_pj",
        "13.4 nJ (med)",
        "0.254×",
    ] {
        assert!(text.contains(piece), "{piece}\n{text}");
    }
    bench.write("sound.toml", SOUND);
    bench.write("wide.toml", SOUND.replace("capacity_bytes = 65536", "capacity_bytes = 131072"));
    let found = json(&bench, "chips diff ./sound.toml wide.toml");
    assert_eq!(found["differences"].as_array().unwrap().len(), 1, "{found}");
    let one = &found["differences"][0];
    assert_eq!(
        (&one["key"], one["ratio"].as_f64()),
        (&Value::from("system.memory[sram].capacity_bytes"), Some(2.0))
    );
    assert_eq!(
        (&one["a"]["value"], &one["b"]["confidence"]),
        (&Value::from(65536), &Value::from("high"))
    );
    assert!(stdout(&bench, "chips diff sound.toml sound.toml").contains("differ in nothing"));
    assert_eq!(bench.run("chips diff sound.toml toaster").code, Some(3));
}
