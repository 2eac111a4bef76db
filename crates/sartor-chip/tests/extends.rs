//! Files that extend others.

use sartor_chip::{Chip, NumberType::*, Provenance, find, library_bases};

/// A board with another clock and flash: what `docs/adding-a-chip.md` shows.
const BOARD: &str = r#"
schema = 1
extends = "arm-ethos-u55-128"
src = "board"
[chip]
id = "my-board"
name = "My board"
[sources]
board = "data sheet of an imagined board, table 3"
[system]
core_hz = 400e6
[[system.memory]]
name = "flash"
read_bytes_per_s = 0.2e9
"#;

#[test]
fn a_board_states_only_what_differs() {
    let base = find("arm-ethos-u55-128").unwrap();
    let chip = Chip::checked("board.toml", BOARD, &library_bases).unwrap();
    assert_eq!((chip.id.as_str(), chip.vendor.as_str()), ("my-board", "Arm"));
    assert!((chip.system.clock.value.0 - 400e6).abs() < 1.0);
    assert_eq!(chip.core, base.core);
    let [sram, flash] = chip.system.memories.as_slice() else { panic!("two memories") };
    assert_eq!(sram, &base.system.memories[0]);
    let read = flash.read.as_ref().unwrap();
    assert!((read.value.0 - 0.2e9).abs() < 1.0);
    assert_eq!(read.provenance, Provenance::Datasheet("board".to_owned()));
    assert_eq!(flash.capacity, base.system.memories[1].capacity);
    assert!(chip.sources.contains_key("vela") && chip.sources.contains_key("board"));
}

#[test]
fn a_layer_may_come_from_another_chip() {
    let text = BOARD.replace(
        "[system]\ncore_hz = 400e6",
        "[runtime]\nextends = \"intel-xeon-icx\"\n[system]\ncore_hz = 400e6",
    );
    let chip = Chip::parse("board.toml", &text).unwrap();
    assert_eq!(chip.runtime, find("intel-xeon-icx").unwrap().runtime);
    assert_eq!(chip.core, find("arm-ethos-u55-128").unwrap().core);
}

#[test]
fn absent_takes_away_and_named_items_merge() {
    let more = "[[core.engine]]\nname = \"npu\"\n[[core.engine.mode]]\nweights = \"i8\"\nactivations = \"i16\"\nabsent = true\n[[core.engine.mode]]\nweights = \"i8\"\nactivations = \"i8\"\ngrain = 32\n[core.weight_store]\nabsent = true\n";
    let chip = Chip::parse("board.toml", &format!("{BOARD}{more}")).unwrap();
    assert!(chip.mode(I8, I16).is_none() && chip.core.weight_store.is_none());
    assert_eq!((chip.grain(), chip.core.engines.len()), (32, 1));
}

#[test]
fn faults_of_bases_are_shown_in_the_bases() {
    let bases = |_: &str, wanted: &str| {
        let text = match wanted {
            "broken" => BOARD.replace("400e6", "-1"),
            "circle" => "schema = 1\nextends = \"circle\"\n".to_owned(),
            "clash" => BOARD.replace("table 3", "table 4"),
            _ => return library_bases("", wanted),
        };
        Some((wanted.to_owned(), text))
    };
    let derived = |base: &str| format!("schema = 1\nextends = \"{base}\"\n[chip]\nid = \"a\"\n");
    let error = Chip::checked("a.toml", &derived("broken"), &bases).unwrap_err();
    let place = error.place.as_ref().unwrap();
    assert_eq!((error.chip.as_str(), &place.document.text[place.span.clone()]), ("broken", "-1"));
    let error = Chip::checked("a.toml", &derived("circle"), &bases).unwrap_err();
    assert!(error.to_string().contains("a.toml < circle < circle"), "{error}");
    let clash = format!("{}[sources]\nboard = \"another\"\n", derived("clash"));
    let error = Chip::checked("a.toml", &clash, &bases).unwrap_err();
    assert_eq!(error.key.as_deref(), Some("sources.board"));
    let error = Chip::checked("a.toml", &derived("nobody"), &bases).unwrap_err();
    assert!(error.to_string().contains("no chip `nobody`"), "{error}");
}
