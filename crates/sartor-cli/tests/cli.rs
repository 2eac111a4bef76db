//! What the command prints: results on standard output with the keys that are promised, talk on standard
//! error, and files that are the same whenever the request is.

#[path = "cli/chips.rs"]
mod chips;
#[path = "support/digits.rs"]
mod digits;
#[path = "cli/expect.rs"]
mod expect;
#[path = "cli/instructions.rs"]
mod instructions;
#[path = "cli/shared_data.rs"]
mod shared_data;
#[path = "cli/training.rs"]
mod training;
#[path = "support/workbench.rs"]
mod workbench;

use serde_json::Value;
use workbench::Workbench;

fn bench() -> Workbench {
    let bench = Workbench::new();
    digits::unpack(&bench);
    bench.write("digits.onnx", digits::NETWORK);
    bench
}

/// Standard output of a run that must succeed.
fn stdout(bench: &Workbench, args: &str) -> String {
    let found = bench.run(args);
    assert_eq!(found.code, Some(0), "sartor {args}: {}", found.stderr);
    found.stdout
}

fn json(bench: &Workbench, args: &str) -> Value {
    let text = stdout(bench, &format!("{args} --format json"));
    serde_json::from_str(&text).unwrap_or_else(|it| panic!("sartor {args}: {it}\n{text}"))
}

/// Every promised key is there; more may be.
fn has_keys(value: &Value, keys: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for key in keys {
        assert!(
            object.contains_key(*key),
            "no key `{key}` among {:?}",
            object.keys().collect::<Vec<_>>()
        );
    }
}

/// The same of every object in a list.
fn each_has_keys(list: &Value, keys: &[&str]) {
    for it in list.as_array().unwrap_or_else(|| panic!("no list: {list}")) {
        has_keys(it, keys);
    }
}

#[test]
fn help() {
    let bench = Workbench::new();
    insta::assert_snapshot!("help", stdout(&bench, "--help"));
    insta::assert_snapshot!("help_run", stdout(&bench, "run --help"));
    insta::assert_snapshot!("help_bench", stdout(&bench, "bench --help"));
    insta::assert_snapshot!("help_compress", stdout(&bench, "compress --help"));
    insta::assert_snapshot!("help_quantize", stdout(&bench, "quantize --help"));
    insta::assert_snapshot!("help_prune", stdout(&bench, "prune --help"));
    insta::assert_snapshot!("help_finetune", stdout(&bench, "finetune --help"));
}

#[test]
fn every_shell_gets_completions() {
    let bench = Workbench::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(stdout(&bench, &format!("completions {shell}")).contains("compress"), "{shell}");
    }
}

#[test]
fn chips_as_json() {
    let bench = Workbench::new();
    let list = json(&bench, "chips");
    let ids: Vec<_> =
        list.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    for id in ids.iter().copied().chain(["arm-cortex-m7"]) {
        has_keys(&json(&bench, &format!("chips {id}")), &["id", "name"]);
    }
    each_has_keys(&list, &["id", "name", "kind"]);
    let known = [
        "intel-xeon-icx",
        "nvidia-a100",
        "jetson-orin-nano",
        "arm-ethos-u55-128",
        "google-coral-edgetpu",
        "arm-cortex-m7",
    ];
    assert!(known.iter().all(|id| ids.contains(id)), "{ids:?}");
    bench.write("chip.toml", include_str!("../../sartor-chip/chips/arm-cortex-m7.toml"));
    assert!(stdout(&bench, "chips check chip.toml").contains("arm-cortex-m7 is a valid chip file"));
}

#[test]
fn inspect_as_json() {
    let found = json(&bench(), "inspect digits.onnx");
    has_keys(&found, &["opset", "inputs", "outputs", "operators", "parameters", "macs", "opaque"]);
    assert_eq!((&found["opset"], &found["parameters"]), (&Value::from(17), &Value::from(49_738)));
    assert_eq!(
        (&found["macs"], &found["operators"]["Conv"]),
        (&Value::from(652_928), &Value::from(9))
    );
    assert_eq!(found["inputs"][0]["name"], "input");
}

#[test]
fn analyze_as_json() {
    let bench = bench();
    let one = json(&bench, "analyze digits.onnx --chip arm-ethos-u55-128");
    let keys =
        ["chip", "latency_s", "cycles", "energy_j", "peak_memory_bytes", "weight_bytes", "nodes"];
    has_keys(&one, &keys);
    let nodes = one["nodes"].as_array().unwrap();
    each_has_keys(
        &one["nodes"],
        &["name", "op", "macs", "mac_slots", "bytes", "latency_s", "bound"],
    );
    let total: f64 = nodes.iter().map(|it| it["latency_s"].as_f64().unwrap()).sum();
    assert!(total > 0.0 && one["macs"] == 652_928);
    let many = json(&bench, "analyze digits.onnx --chip nvidia-a100,arm-cortex-m7");
    let ids: Vec<_> = many.as_array().unwrap().iter().map(|it| &it["chip"]).collect();
    assert_eq!(ids, ["nvidia-a100", "arm-cortex-m7"]);
    each_has_keys(&many, &keys);
    each_has_keys(&one["opportunities"], &["where", "what", "why", "gain_s"]);
    let gains: Vec<f64> = one["opportunities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["gain_s"].as_f64().unwrap())
        .collect();
    assert!(
        !gains.is_empty() && gains.is_sorted_by(|a, b| a >= b) && gains[0] < total,
        "{gains:?}"
    );
    let clock =
        one["sensitivity"].as_array().unwrap().iter().find(|it| it["field"] == "system.core_hz");
    let change = clock.unwrap()["latency_change_percent"].as_f64().unwrap();
    assert!((-10.0..0.0).contains(&change), "{change}");
}

#[test]
fn analyze_writes_one_page_for_all_chips() {
    let bench = bench();
    let command = "analyze digits.onnx --chip arm-ethos-u55-128,nvidia-a100 --html page.html";
    let found = bench.run(command);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let page = std::fs::read_to_string(bench.path("page.html")).unwrap();
    assert!(
        page.contains("NVIDIA A100") && page.contains("Ethos-U55") && page.ends_with("</html>")
    );
    let again = bench.run(command);
    assert_eq!(again.code, Some(5), "{}", again.stderr);
    assert_eq!(bench.run(&format!("{command} --force")).code, Some(0));
}

#[test]
fn number_formats_and_chips_that_lack_them() {
    let bench = bench();
    let line = |options: &str| {
        format!("quantize digits.onnx --data digits.toml -o few.onnx --force {options}")
    };
    for (options, words, least) in [
        ("--weights int4", "int4 per channel", 90.0),
        ("--weights uint4 --block 16 --activations int8", "uint4", 90.0),
        ("--weights int4 --storage bytes --scales pow2 --symmetric", "int4 per channel", 80.0),
        ("--weights int8 --per-tensor --activations int16", "int8 per tensor", 97.0),
        ("--weights int4 --activations float32", "int4 per channel", 90.0),
        ("--chip arm-cortex-m7 --weights int4", "int4 per channel", 90.0),
        ("--weights int4 --recover fast --ranges auto", "int4 per channel", 90.0),
        ("--ranges entropy", "int8 per channel", 90.0),
        ("--ranges analytic", "int8 per channel", 90.0),
        ("--ranges moving-average", "int8 per channel", 90.0),
    ] {
        let written = json(&bench, &line(options));
        let named = |it: &Value| it["weights"].as_str().is_some_and(|it| it.starts_with(words));
        assert!(written["nodes"].as_array().unwrap().iter().any(named), "{options}: {written}");
        let found = json(&bench, "evaluate few.onnx --against digits.onnx --data digits.toml");
        assert!(found["agreement"].as_f64() >= Some(least), "{options}: {found}");
    }
    let refused = bench.run(&line("--chip arm-ethos-u55-128 --weights int4"));
    assert!(
        refused.stderr.contains("int4 weights, packed")
            && refused.stderr.contains("i8 weights per"),
        "{refused:?}"
    );
}

#[test]
fn evaluate_and_quantize_as_json() {
    let bench = bench();
    let written = json(&bench, "quantize digits.onnx --data digits.toml -o int8.onnx");
    has_keys(&written, &["bytes", "nodes"]);
    assert_eq!(
        written["bytes"],
        Value::from(std::fs::metadata(bench.path("int8.onnx")).unwrap().len())
    );
    let nodes = written["nodes"].as_array().unwrap();
    each_has_keys(&written["nodes"], &["name", "weights", "activations", "sqnr_db"]);
    assert_eq!(nodes.iter().filter(|it| it["weights"] == "int8 per channel").count(), 10);
    let found = json(&bench, "evaluate int8.onnx --against digits.onnx --data digits.toml");
    has_keys(&found, &["top1", "top1_low", "top1_high", "top5", "samples", "agreement"]);
    let percent = |key: &str| found[key].as_f64().unwrap();
    assert!(
        percent("top1_low") < percent("top1") && percent("top1") < percent("top1_high"),
        "{found}"
    );
    assert!(
        percent("agreement") > 98.0
            && percent("top5") >= percent("top1")
            && found["samples"] == 400,
        "{found}"
    );
    let alone = json(&bench, "evaluate digits.onnx --data digits.toml --split calibration");
    assert!(alone["agreement"].is_null() && alone["samples"] == 200, "{alone}");
}

#[test]
fn what_quantize_recovers_a_recipe_replays() {
    let bench = bench();
    let recipe = "version = 1\nseed = 3\n[[step]]\ntechnique = \"simplify\"\n[[step]]\ntechnique = \"quantize-static\"\n\
                  [[step]]\ntechnique = \"reconstruct\"\niterations = 3\nseed = 3\n";
    bench.write("recipe.toml", recipe);
    let command = "quantize digits.onnx --data digits.toml --recover best --recover-steps 3 --seed 3 -o best.onnx";
    let written = json(&bench, command);
    each_has_keys(&written["blocks"], &["layers", "error_before", "error_after"]);
    let error = |key: &str| {
        let blocks = written["blocks"].as_array().unwrap().iter();
        blocks.map(|it| it[key].as_f64().unwrap()).sum::<f64>()
    };
    assert!(error("error_after") <= error("error_before"), "{written}");
    stdout(&bench, "quantize digits.onnx --data digits.toml -o none.onnx");
    stdout(&bench, "apply digits.onnx recipe.toml --data digits.toml -o replayed");
    let bytes = |name: &str| std::fs::read(bench.path(name)).unwrap();
    assert_ne!(bytes("best.onnx"), bytes("none.onnx"));
    assert_eq!(bytes("best.onnx"), bytes("replayed/model.onnx"));
}

/// Keys and sums; how long anything takes is this machine's business.
#[test]
fn bench_as_json() {
    let bench = bench();
    stdout(&bench, "quantize digits.onnx --data digits.toml -o int8.onnx");
    for (model, int8) in [("digits.onnx", false), ("int8.onnx", true)] {
        let found = json(&bench, &format!("bench {model} --batch 3 --rounds 2"));
        has_keys(&found, &["latency_s", "cpu_s", "samples_per_s", "peak", "nodes"]);
        each_has_keys(&found["nodes"], &["name", "op", "latency_s", "flops_per_s"]);
        let nodes = found["nodes"].as_array().unwrap();
        let macs: u64 = nodes.iter().map(|it| it["macs"].as_u64().unwrap()).sum();
        assert_eq!(macs, 3 * 652_928, "{model}: {found}");
        assert_eq!(found["peak"]["int8_ops_per_s"].is_null(), !int8, "{found}");
        let rate = nodes.iter().any(|it| it["flops_per_s"].as_f64().is_some_and(|it| it > 0.0));
        assert!(rate && found["latency_s"].as_f64() > Some(0.0), "{found}");
    }
    let text = stdout(&bench, "bench digits.onnx --rounds 1");
    assert!(text.contains("peak of this machine") && text.contains("Conv"), "{text}");
}

#[test]
fn prune_and_groups_as_json() {
    let bench = bench();
    let found =
        json(&bench, "prune digits.onnx --macs 0.5 --grain 4 --data digits.toml -o half.onnx");
    has_keys(&found, &["macs", "mac_slots", "parameters", "groups"]);
    let share = found["macs"].as_f64().unwrap() / 652_928.0;
    assert!((0.3..=0.5).contains(&share), "{share}");
    assert_eq!(json(&bench, "inspect half.onnx")["macs"], found["macs"]);
    let groups = json(&bench, "groups digits.onnx");
    each_has_keys(&groups, &["name", "channels", "producers", "consumers"]);
    assert_eq!(groups.as_array().unwrap().iter().filter(|it| it["frozen"].is_null()).count(), 6);
}

#[test]
fn run_writes_the_outputs_by_name() {
    let bench = bench();
    let input = sartor::NamedArray {
        name: Some("input".to_owned()),
        shape: vec![3, 1, 8, 8],
        values: sartor_data::Values::F32((0..192).map(|it| it as f32 / 192.0).collect()),
    };
    let fill = |it: &mut dyn std::io::Write| {
        sartor::write_npz(it, &[input]).map_err(std::io::Error::other)
    };
    sartor::write_atomically(&bench.path("in.npz"), false, fill).unwrap();
    stdout(&bench, "convert digits.onnx again.onnx");
    for model in ["digits", "again"] {
        stdout(&bench, &format!("run {model}.onnx --inputs in.npz -o {model}.npz"));
    }
    let read = |name: &str| sartor::read_npz(&bench.path(name)).unwrap();
    let outputs = read("digits.npz");
    assert_eq!(
        (outputs.len(), outputs[0].name.as_deref(), &outputs[0].shape[..]),
        (1, Some("logits"), &[3, 10][..])
    );
    assert_eq!(outputs, read("again.npz"));
}

#[test]
fn results_and_talk_are_apart() {
    let bench = bench();
    let loud = bench.run("convert digits.onnx loud.onnx");
    assert!(loud.stdout.is_empty() && loud.stderr.starts_with("wrote loud.onnx"), "{loud:?}");
    let quiet = bench.run("convert digits.onnx quiet.onnx --quiet");
    assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (Some(0), "", ""));
    let loud = bench.run("quantize digits.onnx --data digits.toml -o a.onnx --format json");
    assert!(
        loud.stderr.contains("wrote a.onnx") && serde_json::from_str::<Value>(&loud.stdout).is_ok(),
        "{loud:?}"
    );
    let error = bench.run("inspect absent.onnx --quiet");
    assert!(error.stdout.is_empty() && error.stderr.contains("absent.onnx"), "{error:?}");
}

#[test]
fn colour_is_as_asked() {
    let bench = bench();
    for (args, no_color, colored) in [
        ("chips --color always", None, true),
        ("chips --color always", Some("1"), true),
        ("chips --color never", None, false),
        ("chips", None, false),
        ("chips", Some("1"), false),
    ] {
        let mut command = bench.command(args);
        if let Some(it) = no_color {
            command.env("NO_COLOR", it);
        }
        let output = command.output().unwrap();
        assert_eq!(output.stdout.contains(&0x1b), colored, "{args} with NO_COLOR {no_color:?}");
    }
    let error = bench.run("evaluate digits.onnx --data digits.onnx");
    assert!(!error.stderr.contains('\u{1b}'), "{}", error.stderr);
}

/// The demo's files, what its report says, and its recipe replayed with one thread and with two.
#[test]
fn the_demo_and_its_recipe() {
    let bench = bench();
    let report = json(&bench, "demo -o out --quiet");
    for name in ["model.onnx", "recipe.toml", "report.json", "report.html"] {
        assert!(bench.path("out").join(name).is_file(), "{name}");
    }
    assert_eq!(std::fs::read_dir(bench.path("out")).unwrap().count(), 4);
    let written: Value = serde_json::from_str(&read(&bench, "out/report.json")).unwrap();
    assert_eq!(written, report);
    has_keys(
        &report,
        &["before", "after", "steps", "refused", "chip", "recipe", "seed", "version"],
    );
    for side in ["before", "after"] {
        let keys = [
            "top1",
            "top1_low",
            "top1_high",
            "latency_s",
            "energy_j",
            "bytes",
            "macs",
            "mac_slots",
        ];
        has_keys(&report[side], &keys);
    }
    let number = |side: &str, key: &str| report[side][key].as_f64().unwrap();
    assert!(number("after", "latency_s") < number("before", "latency_s"), "{report}");
    assert!(number("after", "top1") >= number("before", "top1") - 1.0, "{report}");
    let model = std::fs::read(bench.path("out/model.onnx")).unwrap();
    assert_eq!(number("after", "bytes") as usize, model.len());
    assert_eq!(report["recipe"], Value::from(read(&bench, "out/recipe.toml")));
    for threads in [1, 2] {
        let to = format!("again{threads}");
        let args = format!(
            "apply digits.onnx out/recipe.toml --data digits.toml -o {to} --threads {threads}"
        );
        stdout(&bench, &args);
        assert!(
            std::fs::read(bench.path(&to).join("model.onnx")).unwrap() == model,
            "other bytes with {threads} threads"
        );
        assert_eq!(read(&bench, &format!("{to}/recipe.toml")), read(&bench, "out/recipe.toml"));
    }
}

fn read(bench: &Workbench, name: &str) -> String {
    std::fs::read_to_string(bench.path(name)).unwrap()
}

/// A limit that nothing can hold: the best that was found is written, and the exit code says so.
#[test]
fn a_limit_that_cannot_be_met() {
    let bench = bench();
    let found = bench.run(
        "compress digits.onnx --chip arm-ethos-u55-128 --data digits.toml --max-size 10 -o out --format json",
    );
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(report["verdict"]["met"], Value::from(false));
    assert!(bench.path("out/model.onnx").is_file() && bench.path("out/report.html").is_file());
}

/// A reader that goes away, as `head` does, is no error.
#[cfg(unix)]
#[test]
fn a_broken_pipe_is_no_error() {
    let bench = bench();
    for args in ["chips", "completions bash", "inspect digits.onnx --format json"] {
        let mut command = bench.command(args);
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args}");
        assert!(output.stderr.is_empty(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
