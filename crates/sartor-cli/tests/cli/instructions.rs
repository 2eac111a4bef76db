//! `SARTOR_SIMD`: every set of instructions that this processor has gives the same answers.

use super::{Workbench, bench};
use sartor::{Difference, Level, Tolerance, level, read_npz, to_array};

const NAMES: [(&str, Level); 3] =
    [("portable", Level::Portable), ("avx2", Level::Avx2), ("avx512", Level::Avx512)];

fn run(bench: &Workbench, simd: &str) -> (Option<i32>, String) {
    let mut command =
        bench.command(&format!("run digits.onnx --inputs in.npz -o {simd}.npz --force"));
    let output = command.env("SARTOR_SIMD", simd).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn each_set_of_instructions_gives_the_same() {
    let bench = bench();
    let input = sartor::NamedArray {
        name: Some("input".to_owned()),
        shape: vec![5, 1, 8, 8],
        values: sartor_data::Values::F32((0..320).map(|it| (it as f32).sin()).collect()),
    };
    let fill = |it: &mut dyn std::io::Write| {
        sartor::write_npz(it, &[input]).map_err(std::io::Error::other)
    };
    sartor::write_atomically(&bench.path("in.npz"), false, fill).unwrap();
    let best = level();
    let array = |name: &str| {
        to_array(read_npz(&bench.path(&format!("{name}.npz"))).unwrap().swap_remove(0))
    };
    for (name, level) in NAMES {
        let (code, said) = run(&bench, name);
        if level > best {
            assert_eq!(code, Some(2), "{name}: {said}");
            assert!(said.contains("this processor has at best"), "{said}");
            continue;
        }
        assert_eq!(code, Some(0), "{name}: {said}");
        let tolerance = Tolerance { relative: 1e-4, absolute: 1e-4 };
        let it = Difference::of("logits", &array(name), &array("portable"), tolerance);
        assert!(it.holds(), "{name}: {it:?}");
    }
    // Other sums of products give other last digits: the variable did something.
    assert!(best == Level::Portable || array("avx2") != array("portable"));
}

#[test]
fn another_word_is_wrong_usage() {
    let bench = bench();
    for word in ["sse", "AVX2", "avx512,avx2"] {
        let output = bench.command("chips").env("SARTOR_SIMD", word).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{word}: {said}");
        assert!(said.contains(word) && said.contains("avx512, avx2, portable"), "{said}");
    }
    assert!(bench.command("chips").env("SARTOR_SIMD", "").output().unwrap().status.success());
}
