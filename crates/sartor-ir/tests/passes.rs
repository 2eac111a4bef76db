//! Passes, verifier and inference on graphs in the text form.

use sartor_ir::passes::{DeadCode, FoldBatchNorm, FoldConstants, RemoveIdentity};
use sartor_ir::{Graph, Pass, infer, parse, print, run_passes, verify};

/// A graph from its inner lines, with types inferred and verified.
fn graph(lines: &str) -> Graph {
    let text = format!("graph \"g\" {{ opset \"\" 17 {lines} }}");
    let mut graph = parse(&text).unwrap_or_else(|it| panic!("{it}\n{text}"));
    infer(&mut graph).unwrap_or_else(|it| panic!("{it}\n{text}"));
    verify(&graph).unwrap_or_else(|it| panic!("{it}\n{text}"));
    graph
}

/// Runs `pass` alone and compares the nodes and constants that are left.
fn check(pass: &dyn Pass, lines: &str, expected: &str) {
    let (result, _) = run_passes(&graph(lines), &[pass]).unwrap();
    let text = print(&result);
    let lines =
        text.lines().map(str::trim).filter(|it| it.starts_with("node") || it.starts_with("const"));
    let found: Vec<_> = lines.collect();
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn dead_code() {
    check(
        &DeadCode,
        r#"input %x: f32[2]
        node "a" %y = Relu(%x)
        node "b" %z = Exp(%y)
        node "c" %u = Log(%z)
        output %y"#,
        r#"node "a" %y: f32[2] = Relu(%x)"#,
    );
}

#[test]
fn identities() {
    check(
        &RemoveIdentity,
        r#"input %x: f32[N,2]
        const %same: i64[2] = [-1, 2]
        node "a" %a = Identity(%x)
        node "b" %b = Dropout(%a)
        node "c" %c = Cast(%b) {to="f32"}
        node "d" %d = Reshape(%c, %same)
        node "e" %e = Transpose(%d) {perm=ints[0, 1]}
        node "f" %f = Relu(%e)
        node "g" %out = Identity(%f)
        output %out"#,
        r#"node "f" %out: f32[N,2] = Relu(%x)"#,
    );
}

#[test]
fn a_captured_value_keeps_its_maker() {
    check(
        &RemoveIdentity,
        r#"input %x: f32[2]
        node "a" %a = Identity(%x)
        node "if" %out: f32[2] = named "" "If" 16(%x) captures %a
        output %out"#,
        r#"node "a" %a: f32[2] = Identity(%x)
        node "if" %out: f32[2] = named "" "If" 16(%x) captures %a"#,
    );
}

#[test]
fn shape_arithmetic_keeps_the_batch_dynamic() {
    let lines = r#"input %x: f32[N,8,4,4]
        const %zero: i64[] = [0]
        const %axis: i64[1] = [0]
        const %rest: i64[1] = [-1]
        node "shape" %s = Shape(%x)
        node "batch" %n = Gather(%s, %zero)
        node "row" %row = Unsqueeze(%n, %axis)
        node "target" %t = Concat(%row, %rest) {axis=0}
        node "view" %out = Reshape(%x, %t)
        output %out"#;
    let out = graph(lines);
    let ty = out.value(out.outputs()[0]).ty.as_ref().unwrap();
    assert_eq!(ty.to_string(), "f32[N,128]");
}

#[test]
fn integer_constants_fold_without_kernels() {
    check(
        &FoldConstants { evaluate: None, largest: 1000 },
        r#"input %x: f32[1,4,2,2]
        const %a: i64[4] = [0, 0, 0, 0]
        const %b: i64[4] = [2, 2, 0, 0]
        const %order: i64[2] = [-1, 2]
        const %from: i64[1] = [-1]
        const %to: i64[1] = [-9223372036854775807]
        const %axis: i64[1] = [0]
        const %flat: i64[1] = [-1]
        node "join" %c = Concat(%b, %a) {axis=0}
        node "pairs" %d = Reshape(%c, %order)
        node "flip" %e = Slice(%d, %from, %to, %axis, %from)
        node "turn" %f = Transpose(%e) {perm=ints[1, 0]}
        node "list" %g = Reshape(%f, %flat)
        node "pad" %y = Pad(%x, %g)
        output %y"#,
        r#"const %g: i64[8] = [0, 0, 0, 2, 0, 0, 0, 2]
        node "pad" %y: f32[1,4,2,6] = Pad(%x, %g)"#,
    );
}

#[test]
fn batch_norm_folds_into_convolution() {
    // g = scale / sqrt(var + eps) = [2 / 2, 3 / 1] with var + eps = [4, 1].
    check(
        &FoldBatchNorm,
        r#"input %x: f32[N,1,2,2]
        const %w: f32[2,1,1,1] = [1.0, 2.0]
        const %scale: f32[2] = [2.0, 3.0]
        const %shift: f32[2] = [0.5, 1.0]
        const %mean: f32[2] = [1.0, -1.0]
        const %var: f32[2] = [3.75, 0.75]
        node "conv" %y = Conv(%x, %w)
        node "bn" %z = BatchNormalization(%y, %scale, %shift, %mean, %var) {epsilon=0.25f}
        output %z"#,
        r#"const %w_folded: f32[2,1,1,1] = [1.0, 6.0]
        const %w_bias_folded: f32[2] = [-0.5, 4.0]
        node "conv" %z: f32[N,2,2,2] = Conv(%x, %w_folded, %w_bias_folded)"#,
    );
}

#[test]
fn batch_norm_stays_where_the_convolution_is_read_twice() {
    let lines = r#"input %x: f32[N,1,2,2]
        const %w: f32[1,1,1,1] = [1.0]
        const %one: f32[1] = [1.0]
        node "conv" %y = Conv(%x, %w)
        node "bn" %z = BatchNormalization(%y, %one, %one, %one, %one)
        node "sum" %s = Add(%y, %z)
        output %s"#;
    let (result, runs) = run_passes(&graph(lines), &[&FoldBatchNorm]).unwrap();
    assert_eq!((result.node_count(), runs[0].changes), (3, 0));
}

#[test]
fn the_verifier_names_what_is_broken() {
    for (lines, expected) in [
        (
            r#"input %x: f32[2] node "a" %y = Relu(%ghost) output %y"#,
            "node `a` reads `ghost`, which no node makes and which is neither an input nor a constant",
        ),
        (
            "input %x: f32[2] output %ghost",
            "graph output `ghost` is made by no node and is neither an input nor a constant",
        ),
        (
            r#"input %x: f32[2] node "a" %y = Relu(%x, %x) output %y"#,
            "node `a` (Relu) has 2 inputs, expected 1",
        ),
        (
            r#"input %x: f32[2] node "a" %y = Add(%x, _) output %y"#,
            "node `a` (Add) leaves out its required input 1",
        ),
        ("input %x: f32[2] output %x output %x", "graph output `x` is listed twice"),
        (
            r#"input %x: f32[2,3] node "a" %y: f32[2,4] = Relu(%x) output %y"#,
            "node `a` (Relu): the output is f32[2,3], the file declares f32[2,4]",
        ),
        (
            r#"input %x: f32[1,3,8,8] const %w: f32[2,4,1,1] = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
            node "a" %y = Conv(%x, %w) output %y"#,
            "node `a` (Conv): input [1,3,8,8] has 3 channels, weight [2,4,1,1] with 1 group(s) expects 4",
        ),
        (
            r#"input %x: f32[2,3] input %y: f32[4,5] node "a" %z = MatMul(%x, %y) output %z"#,
            "node `a` (MatMul): operands [2,3] and [4,5] disagree on the reduced extent, 3 and 4",
        ),
    ] {
        let graph = parse(&format!("graph \"g\" {{ opset \"\" 17 {lines} }}")).unwrap();
        assert_eq!(verify(&graph).unwrap_err().to_string(), expected);
    }
}

#[test]
fn windows_and_pads() {
    for (attributes, expected) in [
        ("", "f32[N,2,6,6]"),
        ("pads=ints[1, 1, 1, 1]", "f32[N,2,8,8]"),
        ("pads=ints[1, 1, 1, 1], strides=ints[2, 2]", "f32[N,2,4,4]"),
        ("auto_pad=\"SAME_UPPER\", strides=ints[3, 3]", "f32[N,2,3,3]"),
        ("dilations=ints[2, 3]", "f32[N,2,4,2]"),
        ("pads=ints[0, 1, 2, 3]", "f32[N,2,8,10]"),
    ] {
        let zeros = "0".repeat(2 * 3 * 3 * 8);
        let lines = format!(
            "input %x: f32[N,1,8,8] const %w: f32[2,1,3,3] = hex \"{zeros}\" node \"c\" %y = Conv(%x, %w) {{{attributes}}} output %y"
        );
        let graph = graph(&lines);
        assert_eq!(
            graph.value(graph.outputs()[0]).ty.as_ref().unwrap().to_string(),
            expected,
            "{attributes}"
        );
    }
}
