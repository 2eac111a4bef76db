//! The house rules that no lint can express.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use toml::{Table, Value};

/// Crates from the ground up. A crate may depend only on crates of lower floors.
const FLOORS: &[&[&str]] = &[
    &["sartor-ir", "sartor-report"],
    &["sartor-onnx", "sartor-engine", "sartor-chip", "sartor-data"],
    &["sartor-cost", "sartor-compress", "sartor-train"],
    &["sartor-plan"],
    &["sartor"],
    &["sartor-cli"],
];

/// Lines of a source file; longer ones hold more than one idea.
const MOST_LINES: usize = 800;

/// Bytes of a tracked file.
const MOST_BYTES: u64 = 1 << 20;

#[test]
fn dependencies_point_down() {
    for (floor, crates) in FLOORS.iter().enumerate() {
        let below: BTreeSet<&str> =
            FLOORS[..floor].iter().flat_map(|it| it.iter().copied()).collect();
        for krate in *crates {
            let manifest = manifest(&format!("crates/{krate}"));
            for name in dependencies(&manifest).filter(|it| is_ours(it)) {
                assert!(
                    below.contains(name),
                    "`{krate}` (floor {floor}) must not depend on `{name}`"
                );
            }
        }
    }
}

#[test]
fn every_crate_has_a_floor() {
    let declared: BTreeSet<String> =
        FLOORS.iter().flat_map(|it| it.iter()).map(|&it| it.to_owned()).collect();
    assert_eq!(declared, crates(), "FLOORS (left) and the folders of crates/ (right) differ");
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let mut workspace = lints(&manifest(".")["workspace"]);
    assert_eq!(workspace["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for krate in crates().into_iter().map(|it| format!("crates/{it}")).chain(["xtask".to_owned()]) {
        let manifest = manifest(&krate);
        if krate != "crates/sartor-engine" {
            let inherits = manifest["lints"].get("workspace").and_then(Value::as_bool);
            assert_eq!(
                inherits,
                Some(true),
                "{krate}/Cargo.toml must say `[lints] workspace = true`"
            );
            continue;
        }
        // A crate that changes one lint cannot inherit the others, so the engine repeats them.
        let rust = workspace["rust"].as_table_mut().expect("`rust` is a table");
        rust.insert("unsafe_code".to_owned(), Value::from("deny"));
        assert_eq!(
            lints(&Value::Table(manifest)),
            workspace,
            "the lints of sartor-engine (left) may differ from the workspace's (right) in `unsafe_code` alone"
        );
    }
}

#[test]
fn files_are_small() {
    for path in tracked() {
        let bytes = fs::metadata(root().join(&path)).map_or(0, |it| it.len());
        assert!(
            bytes <= MOST_BYTES,
            "{path} has {bytes} bytes, at most {MOST_BYTES} are kept in the repository"
        );
        if has_extension(&path, &["rs"]) {
            let lines = read(&path).lines().count();
            assert!(
                lines <= MOST_LINES,
                "{path} has {lines} lines, at most {MOST_LINES}: give a part its own file"
            );
        }
    }
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let places = ["home", "work", "root", "Users"].map(|it| format!("/{it}/"));
    for (path, text) in
        texts(&["rs", "md", "toml", "yml", "json", "snap", "css", "html", "svg", "run", "lock"])
    {
        for (number, line) in text.lines().enumerate() {
            let found = places.iter().find(|it| line.contains(it.as_str()));
            assert!(
                found.is_none(),
                "{path}:{}: absolute path with `{}`",
                number + 1,
                places.join("`, `")
            );
        }
    }
}

#[test]
fn exceptions_to_lints_are_expected_with_a_reason() {
    let forms = [concat!("#[", "allow("), concat!("#![", "allow(")];
    for (path, text) in texts(&["rs"]) {
        for (number, line) in text.lines().enumerate() {
            let found = forms.iter().any(|it| line.trim_start().starts_with(it));
            assert!(!found, "{path}:{}: write `#[expect(lint, reason = \"…\")]`", number + 1);
        }
    }
}

#[test]
fn every_crate_says_what_it_is() {
    for krate in crates() {
        let source = ["lib.rs", "main.rs"].map(|it| format!("crates/{krate}/src/{it}"));
        let path =
            source.iter().find(|it| root().join(it).exists()).expect("a crate has a root file");
        assert!(
            read(path).starts_with("//! "),
            "{path} must begin with a `//!` comment that says what it is"
        );
    }
}

#[test]
fn the_architecture_names_every_crate_on_its_floor() {
    let text = read("ARCHITECTURE.md");
    let found: BTreeMap<String, String> = rows(section(&text, "Floors and invariants"))
        .filter_map(|it| Some((code(&it[1])?.to_owned(), it[0].clone())))
        .collect();
    let floors = FLOORS.iter().enumerate();
    let declared: BTreeMap<String, String> = floors
        .flat_map(|(floor, crates)| {
            crates.iter().map(move |it| ((*it).to_owned(), floor.to_string()))
        })
        .collect();
    assert_eq!(found, declared, "the table of ARCHITECTURE.md (left) and FLOORS (right) differ");
}

#[test]
fn the_readme_lists_the_commands_and_exit_codes_of_the_help() {
    let (readme, args) = (read("README.md"), read("crates/sartor-cli/src/args.rs"));
    let listed: BTreeSet<String> = rows(section(&readme, "Commands"))
        .filter_map(|it| Some(code(&it[0])?.split(' ').next()?.to_owned()))
        .collect();
    let commands = variants(&args, "enum Command {");
    assert!(commands.len() > 5, "`enum Command` was not understood: {commands:?}");
    assert_eq!(listed, commands, "the commands of README.md (left) and of args.rs (right) differ");

    let codes = section(&args, "Exit codes:").split('"').next().unwrap_or_default();
    let number = |it: &str| it.split_whitespace().next().and_then(|it| it.parse::<u8>().ok());
    let codes: BTreeSet<u8> = codes.lines().filter_map(number).collect();
    let listed: BTreeSet<u8> =
        rows(section(&readme, "Exit codes")).filter_map(|it| number(&it[0])).collect();
    assert_eq!(listed, codes, "the exit codes of README.md (left) and of args.rs (right) differ");
}

#[test]
fn every_technique_has_a_section() {
    let text = read("docs/techniques.md");
    let sections: BTreeSet<&str> =
        text.lines().filter_map(|it| it.strip_prefix("## ")).filter_map(code).collect();
    let source = read("crates/sartor-compress/src/recipe.rs");
    let (_, table) = source.split_once("pub const TECHNIQUES").expect("recipe.rs has TECHNIQUES");
    let table = table.split("\n];").next().unwrap_or(table);
    let techniques: BTreeSet<&str> =
        table.split("id: \"").skip(1).filter_map(|it| it.split('"').next()).collect();
    assert!(techniques.len() > 3, "`TECHNIQUES` was not understood: {techniques:?}");
    assert_eq!(
        sections, techniques,
        "the sections of docs/techniques.md (left) and TECHNIQUES (right) differ"
    );
}

#[test]
fn links_between_pages_lead_somewhere() {
    for (path, text) in texts(&["md"]) {
        let folder = Path::new(&path).parent().expect("a file is in a folder").to_owned();
        for link in text.split("](").skip(1).filter_map(|it| it.split([')', '#']).next()) {
            let ours = !link.is_empty() && !link.contains("://");
            assert!(
                !ours || root().join(&folder).join(link).exists(),
                "{path}: `{link}` is not there"
            );
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is below the root").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn manifest(folder: &str) -> Table {
    read(&format!("{folder}/Cargo.toml"))
        .parse()
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
}

fn crates() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("crates")).expect("the folder crates/ can be listed");
    let names = entries.map(|it| it.expect("an entry can be read").file_name().into_string());
    names.map(|it| it.expect("the name of a crate is UTF-8")).collect()
}

/// What a crate needs to run, on some platform or on all.
fn dependencies(manifest: &Table) -> impl Iterator<Item = &str> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets =
        targets.into_iter().flat_map(Table::values).filter_map(|it| it.get("dependencies"));
    let tables =
        manifest.get("dependencies").into_iter().chain(targets).filter_map(Value::as_table);
    tables.flat_map(Table::keys).map(String::as_str)
}

fn is_ours(name: &str) -> bool {
    name == "sartor" || name.starts_with("sartor-")
}

fn lints(of: &Value) -> Table {
    of["lints"].as_table().expect("`lints` is a table").clone()
}

/// Files that git keeps and that are there.
fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let output = output.expect("git lists the files of the repository");
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let names: Vec<String> =
        names.split('\0').filter(|it| !it.is_empty()).map(str::to_owned).collect();
    assert!(names.iter().any(|it| it == "Cargo.toml"), "the repository begins elsewhere");
    names.into_iter().filter(|it| root().join(it).exists()).collect()
}

fn texts(extensions: &'static [&'static str]) -> impl Iterator<Item = (String, String)> {
    let paths = tracked().into_iter().filter(|it| has_extension(it, extensions));
    paths.map(|path| (path.clone(), read(&path)))
}

/// Whether a name ends so; a name without a dot counts as a whole.
fn has_extension(path: &str, extensions: &[&str]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    extensions.contains(&name.rsplit('.').next().unwrap_or(name))
}

/// What stands after the first line that ends with `title`, up to the next heading.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let (_, after) =
        text.split_once(&format!("{title}\n")).unwrap_or_else(|| panic!("no section `{title}`"));
    after.split("\n#").next().unwrap_or(after)
}

/// The cells of each row of the tables in `text`, heads and rules included.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    let rows = text.lines().filter_map(|it| it.trim().strip_prefix('|')?.strip_suffix('|'));
    rows.map(|it| it.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The first thing in backticks.
fn code(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// The variants of an enum in source text, as clap names them.
fn variants(source: &str, head: &str) -> BTreeSet<String> {
    let (_, body) = source.split_once(head).unwrap_or_else(|| panic!("no `{head}`"));
    let body = body.split("\n}").next().unwrap_or(body);
    let starts_upper = |it: &&str| it.starts_with(|first: char| first.is_ascii_uppercase());
    let names = body
        .lines()
        .map(str::trim)
        .filter(starts_upper)
        .filter_map(|it| it.split(['(', ',', ' ', '{']).next());
    names.map(kebab_case).collect()
}

fn kebab_case(name: &str) -> String {
    let mut kebab = String::new();
    for (i, letter) in name.char_indices() {
        if i > 0 && letter.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(letter.to_ascii_lowercase());
    }
    kebab
}
