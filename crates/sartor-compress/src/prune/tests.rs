//! Hand-made graphs: what hangs together, and that taking out computes what silencing computes.

use std::collections::BTreeMap;

use sartor_engine::Array;
use sartor_ir::{Dim, Graph, Op, Tensor, ValueId};

use super::*;

/// A deterministic number in -1..1.
fn noise(seed: usize) -> f32 {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed >> 40) as f32 / (1 << 23) as f32) - 1.0
}

/// The graph of `body` in the text form; inputs whose names begin with `p` become random parameters, those
/// with `pv` positive ones (variances).
pub(super) fn graph(body: &str) -> Graph {
    let mut graph =
        sartor_ir::parse(&format!("graph \"g\" {{\n opset \"\" 17\n{body}\n}}")).unwrap();
    let is_parameter = |graph: &Graph, id: ValueId| graph.value(id).name.starts_with('p');
    let (parameters, inputs): (Vec<_>, Vec<_>) =
        graph.inputs().to_vec().into_iter().partition(|&id| is_parameter(&graph, id));
    for (seed, id) in parameters.into_iter().enumerate() {
        let shape = graph.value(id).ty.as_ref().unwrap().dims().unwrap();
        let positive = graph.value(id).name.starts_with("pv");
        let value = |i: usize| noise(seed * 7919 + i);
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|i| if positive { 0.5 + value(i).abs() } else { value(i) })
            .collect();
        graph.set_constant(id, Tensor::from_f32(&shape, &values));
    }
    graph.set_inputs(inputs);
    infer(&mut graph).unwrap();
    graph
}

/// Outputs for noise, with two samples where the batch is free.
fn outputs(graph: &Graph) -> Vec<Array> {
    let one = |(seed, &id): (usize, &ValueId)| {
        let shape: Vec<usize> = graph
            .value(id)
            .ty
            .as_ref()
            .unwrap()
            .shape
            .iter()
            .flatten()
            .map(|it| it.known().unwrap_or(2))
            .collect();
        Array::f32(&shape, (0..shape.iter().product()).map(|i| noise(31 * seed + i)).collect())
    };
    let inputs: Vec<Array> = graph.inputs().iter().enumerate().map(one).collect();
    sartor_engine::run_reference(graph, &inputs).unwrap()
}

/// Prunes to `share` at `grain` and checks that the result computes what the silenced network computes and
/// that every pruned width is a multiple of the grain.
fn check(graph: &Graph, share: f64, grain: usize) -> Pruned {
    let config = PruneChannels { criterion: Criterion::L1, grain, keep: Keep::Share(share) };
    let pruned = prune(graph, &config).unwrap();
    let silent = masked(graph, &pruned.groups, &pruned.removed);
    for (a, b) in outputs(&pruned.graph).iter().zip(&outputs(&silent)) {
        assert_eq!(a.shape, b.shape);
        let (a, b) = (a.as_f32().unwrap(), b.as_f32().unwrap());
        let most = b.iter().fold(1e-6f32, |most, it| most.max(it.abs()));
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= 1e-4 * most, "{far} of {most} apart");
        assert!(a.iter().any(|it| *it != 0.0), "the outputs say something");
    }
    for group in pruned.groups.all() {
        let gone = pruned.removed.get(&group.name).map_or(0, Vec::len);
        assert!(gone == 0 || (group.size() - gone).is_multiple_of(grain), "{}", group.name);
    }
    pruned
}

/// Sizes of the groups by name, frozen ones marked with a minus.
fn sizes(graph: &Graph) -> BTreeMap<String, i64> {
    let found = groups(graph).unwrap();
    let one = |it: &Group| {
        let size = it.size() as i64;
        (it.name.clone(), if it.frozen.is_some() { -size } else { size })
    };
    found.all().iter().map(one).collect()
}

fn shape(graph: &Graph, name: &str) -> String {
    graph.value(graph.find_value(name).unwrap()).ty.as_ref().unwrap().to_string()
}

fn expect(graph: &Graph, expected: &[(&str, i64)]) {
    let expected: BTreeMap<String, i64> =
        expected.iter().map(|&(name, size)| (name.to_owned(), size)).collect();
    assert_eq!(sizes(graph), expected);
}

#[test]
fn a_chain_keeps_its_ends() {
    let chain = graph(
        "input %x: f32[N,3,6,6]\n input %p1: f32[8,3,3,3]\n input %p2: f32[8]\n input %p3: f32[4,8,1,1]
         node \"a\" %a = Conv(%x, %p1, %p2) {pads=ints[1,1,1,1]}
         node \"r\" %r = Relu(%a)
         node \"b\" %b = Conv(%r, %p3)
         output %b",
    );
    // The input's three channels and the output's four are listed, but stay.
    expect(&chain, &[("x", -3), ("a", 8), ("b", -4)]);
    let found = groups(&chain).unwrap();
    let reasons: Vec<_> = found.frozen().map(|it| it.1).collect();
    assert_eq!(reasons, ["`x` is a graph input", "`b` is a graph output"]);
    let group = found.find("a").unwrap();
    let names = |list: &[sartor_ir::NodeId]| {
        list.iter().map(|&it| chain.node(it).name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&group.producers), names(&group.consumers)),
        (vec!["a".into()], vec!["b".into()])
    );
    let pruned = check(&chain, 0.5, 2);
    assert_eq!(shape(&pruned.graph, "r"), "f32[N,4,6,6]");
    assert_eq!(shape(&pruned.graph, "p1"), "f32[4,3,3,3]");
    assert_eq!(shape(&pruned.graph, "p2"), "f32[4]");
    assert_eq!(shape(&pruned.graph, "p3"), "f32[4,4,1,1]");
}

#[test]
fn a_residual_sum_ties_its_branches() {
    let residual = graph(
        "input %x: f32[N,3,6,6]\n input %p1: f32[8,3,3,3]\n input %p2: f32[6,8,3,3]\n input %p3: f32[8,6,3,3]
         input %p4: f32[4,8,6,6]
         node \"stem\" %s = Conv(%x, %p1) {pads=ints[1,1,1,1]}
         node \"a\" %a = Conv(%s, %p2) {pads=ints[1,1,1,1]}
         node \"ra\" %ra = Relu(%a)
         node \"b\" %b = Conv(%ra, %p3) {pads=ints[1,1,1,1]}
         node \"add\" %c = Add(%b, %s)
         node \"head\" %y = Conv(%c, %p4)
         output %y",
    );
    expect(&residual, &[("x", -3), ("stem", 8), ("a", 6), ("head", -4)]);
    let pruned = check(&residual, 0.5, 1);
    assert_eq!(shape(&pruned.graph, "c"), "f32[N,4,6,6]");
    assert_eq!(shape(&pruned.graph, "a"), "f32[N,3,6,6]");
}

#[test]
fn concatenation_keeps_parts_apart() {
    let joined = graph(
        "input %x: f32[N,3,4,4]\n input %p1: f32[4,3,1,1]\n input %p2: f32[8,3,1,1]\n input %p3: f32[5,12,1,1]
         node \"a\" %a = Conv(%x, %p1)
         node \"b\" %b = Conv(%x, %p2)
         node \"cat\" %c = Concat(%a, %b) {axis=1}
         node \"y\" %y = Conv(%c, %p3)
         output %y",
    );
    expect(&joined, &[("x", -3), ("a", 4), ("b", 8), ("y", -5)]);
    let pruned = check(&joined, 0.5, 2);
    assert_eq!(shape(&pruned.graph, "c"), "f32[N,6,4,4]");
    assert_eq!(shape(&pruned.graph, "p3"), "f32[5,6,1,1]");
}

#[test]
fn depthwise_filters_follow_their_channels() {
    let depthwise = graph(
        "input %x: f32[N,3,5,5]\n input %p1: f32[8,3,1,1]\n input %p2: f32[16,1,3,3]\n input %p3: f32[16]
         input %p4: f32[4,16,1,1]
         node \"a\" %a = Conv(%x, %p1)
         node \"dw\" %d = Conv(%a, %p2, %p3) {group=8}
         node \"y\" %y = Conv(%d, %p4)
         output %y",
    );
    expect(&depthwise, &[("x", -3), ("a", 8), ("y", -4)]);
    let pruned = check(&depthwise, 0.25, 1);
    assert_eq!(shape(&pruned.graph, "d"), "f32[N,4,3,3]");
    let Op::Conv(conv) = &pruned.graph.node(pruned.graph.find_node("dw").unwrap()).op else {
        panic!()
    };
    assert_eq!(conv.group, 2);
}

#[test]
fn grouped_convolution_stays_balanced() {
    let grouped = graph(
        "input %x: f32[N,3,4,4]\n input %p1: f32[8,3,1,1]\n input %p2: f32[6,4,1,1]\n input %p3: f32[4,6,1,1]
         node \"a\" %a = Conv(%x, %p1)
         node \"g\" %g = Conv(%a, %p2) {group=2}
         node \"y\" %y = Conv(%g, %p3)
         output %y",
    );
    expect(&grouped, &[("x", -3), ("a", 4), ("g", 3), ("y", -4)]);
    let pruned = check(&grouped, 0.5, 1);
    assert_eq!(shape(&pruned.graph, "a"), "f32[N,4,4,4]");
    assert_eq!(shape(&pruned.graph, "p2"), "f32[4,2,1,1]");
}

#[test]
fn flattening_turns_channels_into_blocks() {
    for flatten in [
        "node \"f\" %f = Flatten(%r)",
        "const %t: i64[2] = [0, -1]\n node \"f\" %f = Reshape(%r, %t)",
        "const %t: i64[2] = [-1, 32]\n node \"f\" %f = Reshape(%r, %t)",
    ] {
        let dense = graph(&format!(
            "input %x: f32[N,3,2,2]\n input %p1: f32[8,3,1,1]\n input %p2: f32[5,32]\n input %p3: f32[5]
             node \"a\" %a = Conv(%x, %p1)
             node \"r\" %r = Relu(%a)
             {flatten}
             node \"y\" %y = Gemm(%f, %p2, %p3) {{transB=1}}
             output %y"
        ));
        expect(&dense, &[("x", -3), ("a", 8), ("y", -5)]);
        let pruned = check(&dense, 0.5, 2);
        assert_eq!(shape(&pruned.graph, "f"), "f32[N,16]", "{flatten}");
        assert_eq!(shape(&pruned.graph, "p2"), "f32[5,16]");
    }
}

#[test]
fn split_parts_are_groups_of_one_producer() {
    for (split, first, second) in [
        ("const %n: i64[2] = [4, 8]\n node \"s\" %b, %c = Split(%a, %n) {axis=1}", 4, 8),
        ("node \"s\" %b, %c = Split(%a) {axis=1}", 6, 6),
    ] {
        let cut = graph(&format!(
            "input %x: f32[N,3,4,4]\n input %p1: f32[12,3,1,1]\n input %p2: f32[3,{first},1,1]
             input %p3: f32[3,{second},1,1]
             node \"a\" %a = Conv(%x, %p1)
             {split}
             node \"y\" %y = Conv(%b, %p2)
             node \"z\" %z = Conv(%c, %p3)
             output %y\n output %z"
        ));
        expect(&cut, &[("x", -3), ("a", first), ("a#2", second), ("y", -3), ("z", -3)]);
        check(&cut, 0.5, 2);
        let uneven = Keep::Widths(BTreeMap::from([("a".to_owned(), 2)]));
        let step = PruneChannels { criterion: Criterion::L1, grain: 1, keep: uneven };
        let pruned = prune(&cut, &step).unwrap();
        assert_eq!(shape(&pruned.graph, "b"), "f32[N,2,4,4]");
        assert_eq!(shape(&pruned.graph, "c"), format!("f32[N,{second},4,4]"));
    }
}

/// A stage of 8 channels, a strided slice and a pad on the channel axis as shortcut, a stage of 16.
pub(super) const OPTION_A: &str = "input %x: f32[N,3,8,8]\n input %p1: f32[8,3,3,3]\n input %p2: f32[16,8,3,3]
     input %p3: f32[16,16,3,3]\n input %p4: f32[10,16]\n input %p5: f32[10]
     const %starts: i64[2] = [0, 0]\n const %ends: i64[2] = [9223372036854775807, 9223372036854775807]
     const %axes: i64[2] = [2, 3]\n const %steps: i64[2] = [2, 2]
     const %pads: i64[8] = [0, 4, 0, 0, 0, 4, 0, 0]
     node \"stem\" %s = Conv(%x, %p1) {pads=ints[1,1,1,1]}
     node \"r\" %r = Relu(%s)
     node \"a\" %a = Conv(%r, %p2) {pads=ints[1,1,1,1], strides=ints[2,2]}
     node \"ra\" %ra = Relu(%a)
     node \"b\" %b = Conv(%ra, %p3) {pads=ints[1,1,1,1]}
     node \"cut\" %cut = Slice(%r, %starts, %ends, %axes, %steps)
     node \"pad\" %pad = Pad(%cut, %pads)
     node \"sum\" %sum = Add(%b, %pad)
     node \"pool\" %pool = GlobalAveragePool(%sum)
     node \"flat\" %flat = Flatten(%pool)
     node \"y\" %y = Gemm(%flat, %p4, %p5) {transB=1}
     output %y";

#[test]
fn a_padded_shortcut_makes_strata() {
    let option_a = graph(OPTION_A);
    expect(&option_a, &[("x", -3), ("stem", 8), ("a", 16), ("b", 8), ("y", -10)]);
    let pruned = check(&option_a, 0.5, 4);
    assert_eq!(shape(&pruned.graph, "s"), "f32[N,4,8,8]");
    assert_eq!(shape(&pruned.graph, "sum"), "f32[N,8,4,4]");
    // Only the padding goes: the amounts follow.
    let only = Keep::Widths(BTreeMap::from([("b".to_owned(), 4)]));
    let pruned =
        prune(&option_a, &PruneChannels { criterion: Criterion::L2, grain: 4, keep: only })
            .unwrap();
    assert_eq!(shape(&pruned.graph, "s"), "f32[N,8,8,8]");
    assert_eq!(shape(&pruned.graph, "sum"), "f32[N,12,4,4]");
}

#[test]
fn a_slice_of_channels_moves_with_them() {
    let window = graph(
        "input %x: f32[N,3,4,4]\n input %p1: f32[12,3,1,1]\n input %p2: f32[3,4,1,1]\n input %p3: f32[3,12,1,1]
         const %starts: i64[1] = [-8]\n const %ends: i64[1] = [-4]\n const %axes: i64[1] = [1]
         node \"a\" %a = Conv(%x, %p1)
         node \"s\" %s = Slice(%a, %starts, %ends, %axes)
         node \"y\" %y = Conv(%s, %p2)
         node \"z\" %z = Conv(%a, %p3)
         node \"sum\" %sum = Add(%y, %z)
         output %sum",
    );
    expect(&window, &[("x", -3), ("a", 8), ("a#2", 4), ("y", -3)]);
    assert_eq!(shape(&check(&window, 0.5, 2).graph, "s"), "f32[N,2,4,4]");
}

#[test]
fn parameters_of_every_kind_go_along() {
    let normal = graph(
        "input %x: f32[N,3,4,4]\n input %p1: f32[8,3,1,1]\n input %p2: f32[8]\n input %p3: f32[8]\n input %p4: f32[8]
         input %pv5: f32[8]\n input %p6: f32[8,1,1]\n input %pv7: f32[1,8,1,1]\n input %p8: f32[3,8,1,1]
         node \"a\" %a = Conv(%x, %p1)
         node \"bn\" %n = BatchNormalization(%a, %p2, %p3, %p4, %pv5)
         node \"pr\" %r = PRelu(%n, %p6)
         node \"div\" %d = Div(%r, %pv7)
         node \"sig\" %g = Sigmoid(%d)
         node \"y\" %y = Conv(%g, %p8)
         output %y",
    );
    expect(&normal, &[("x", -3), ("a", 8), ("y", -3)]);
    let pruned = check(&normal, 0.5, 4);
    for name in ["p2", "p3", "p4", "pv5"] {
        assert_eq!(shape(&pruned.graph, name), "f32[4]");
    }
    assert_eq!(shape(&pruned.graph, "p6"), "f32[4,1,1]");
}

#[test]
fn a_shared_weight_ties_its_users() {
    let shared = graph(
        "input %x: f32[N,6,4,4]\n input %p0: f32[6,6,1,1]\n input %p1: f32[6,6,1,1]\n input %p2: f32[3,6,1,1]
         node \"a\" %a = Conv(%x, %p0)
         node \"b\" %b = Conv(%a, %p1)
         node \"c\" %c = Conv(%b, %p1)
         node \"y\" %y = Conv(%c, %p2)
         output %y",
    );
    expect(&shared, &[("x", -6), ("a", 6), ("y", -3)]);
    assert_eq!(shape(&check(&shared, 0.5, 1).graph, "p1"), "f32[3,3,1,1]");
}

#[test]
fn what_nobody_can_vouch_for_is_frozen() {
    let cases = [
        ("node \"o\" %h = named \"com.x\" \"Odd\" 1(%a)", "node `o` (Odd): this operator does not pass the axis on index by index"),
        ("node \"o\" %h = Softmax(%a) {axis=1}", "node `o` (Softmax): Softmax normalizes along this axis"),
        (
            "const %k: i64[1] = [1]\n node \"o\" %h = ReduceMean(%a, %k)",
            "node `o` (ReduceMean): a reduction runs along this axis",
        ),
        (
            "const %i: i64[2] = [0, 3]\n node \"o\" %h = Gather(%a, %i) {axis=1}",
            "node `o` (Gather): this operator does not pass the axis on index by index",
        ),
        (
            "const %s: i64[1] = [0]\n const %e: i64[1] = [8]\n const %k: i64[1] = [1]\n const %d: i64[1] = [2]
             node \"o\" %h = Slice(%a, %s, %e, %k, %d)",
            "node `o` (Slice): a window with a step cannot lose single indices",
        ),
        (
            "node \"t\" %t = Transpose(%a) {perm=ints[0,2,3,1]}\n node \"u\" %u = Transpose(%a) {perm=ints[0,2,1,3]}
             node \"o\" %h = MatMul(%t, %u)",
            "node `o` (MatMul): a product without a constant float weight sums over the axis",
        ),
    ];
    for (node, expected) in cases {
        let frozen = graph(&format!(
            "opset \"com.x\" 1\n input %x: f32[N,3,4,4]\n input %p1: f32[8,3,1,1]
             node \"a\" %a = Conv(%x, %p1)\n {node}\n output %h"
        ));
        let found = groups(&frozen).unwrap();
        assert_eq!(found.find("a").unwrap().frozen.as_deref(), Some(expected), "{node}");
        assert_eq!(found.prunable().count(), 0);
    }
}

#[test]
fn importance_speaks_for_both_sides() {
    let mut chain = graph(
        "input %x: f32[N,1]\n input %p1: f32[1,4]\n input %p2: f32[4,1]
         node \"a\" %a = MatMul(%x, %p1)
         node \"y\" %y = MatMul(%a, %p2)
         output %y",
    );
    let set = |graph: &mut Graph, name: &str, shape: &[usize], values: &[f32]| {
        let id = graph.find_value(name).unwrap();
        graph.set_constant(id, Tensor::from_f32(shape, values));
    };
    set(&mut chain, "p1", &[1, 4], &[1.0, -3.0, 2.0, 2.0]);
    set(&mut chain, "p2", &[4, 1], &[100.0, 100.0, -100.0, 500.0]);
    let found = groups(&chain).unwrap();
    let at = found.all().iter().position(|it| it.name == "a").unwrap();
    assert_eq!(importance(&chain, &found, Criterion::L1)[at], [0.5, 1.0, 0.75, 1.75]);
    let widths = BTreeMap::from([("a".to_owned(), 2)]);
    let removed =
        least_important(&found, &importance(&chain, &found, Criterion::L2), &widths).unwrap();
    assert_eq!(removed, Removed::from([("a".to_owned(), vec![0, 2])]));
}

#[test]
fn widths_and_faulty_steps() {
    let chain = graph(
        "input %x: f32[N,3]\n input %p1: f32[3,20]\n input %p2: f32[20,2]
         node \"a\" %a = MatMul(%x, %p1)\n node \"y\" %y = MatMul(%a, %p2)\n output %y",
    );
    let found = groups(&chain).unwrap();
    let group = found.find("a").unwrap();
    assert_eq!(
        (group.widths(8), group.widths(32), group.widths(1).len()),
        (vec![8, 16, 20], vec![20], 20)
    );
    for (share, expected) in [(0.01, 8), (0.5, 8), (0.6, 16), (0.9, 20), (1.0, 20)] {
        assert_eq!(uniform_widths(&found, share, 8).unwrap()["a"], expected, "{share}");
    }
    for (step, expected) in [
        ("keep = { share = 0.0 }", "keep.share is 0, expected a number above 0 and at most 1"),
        ("grain = 0\nkeep = { share = 0.5 }", "grain is 0, expected a positive number of channels"),
        (
            "grain = 8\nkeep = { widths = { a = 9 } }",
            "keep.widths.\"a\" is 9, expected one of [8, 16, 20]",
        ),
        ("keep = { widths = { b = 9 } }", "keep.widths is `b`, expected one of the groups [\"a\"]"),
        (
            "keep = { widths = { y = 1 } }",
            "keep.widths.\"y\" is 1, expected one of [2] (it is frozen: `y` is a graph output)",
        ),
    ] {
        let step: PruneChannels = toml::from_str(step).unwrap();
        assert_eq!(prune(&chain, &step).unwrap_err().to_string(), expected);
    }
    assert!(toml::from_str::<PruneChannels>("keep = { share = 0.5 }\ngrian = 8").is_err());
}

#[test]
fn names_and_the_free_batch_stay() {
    let option_a = graph(OPTION_A);
    let pruned = check(&option_a, 0.5, 4).graph;
    assert_eq!(
        pruned.value(pruned.inputs()[0]).ty.as_ref().unwrap().shape.as_ref().unwrap()[0],
        Dim::symbol("N")
    );
    let names = |graph: &Graph| graph.nodes().map(|(_, it)| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&pruned), names(&option_a));
}

/// A network of random blocks after a stem, all with biases: plain, residual, concatenated, depthwise and
/// padded-shortcut blocks in any order, ended by pooling and a dense layer.
fn random_graph(stem: usize, blocks: &[(u8, usize)]) -> Graph {
    use std::fmt::Write as _;
    let mut body = String::from("input %x: f32[N,3,6,6]\n const %t: i64[2] = [0, -1]\n");
    let mut parameters = 0;
    let mut nodes = String::new();
    let mut conv = |nodes: &mut String,
                    name: &str,
                    from: &str,
                    [filters, depth, size]: [usize; 3],
                    group: usize| {
        let (p, pad) = (parameters, size / 2);
        parameters += 2;
        let _ = write!(
            body,
            " input %p{p}: f32[{filters},{depth},{size},{size}]\n input %p{}: f32[{filters}]\n",
            p + 1
        );
        let _ = write!(
            nodes,
            " node \"{name}\" %{name}_c = Conv(%{from}, %p{p}, %p{}) {{group={group}, pads=ints[{pad},{pad},{pad},{pad}]}}
             node \"\" %{name} = LeakyRelu(%{name}_c)\n",
            p + 1
        );
    };
    conv(&mut nodes, "s", "x", [stem, 3, 3], 1);
    let (mut at, mut width) = ("s".to_owned(), stem);
    for (i, &(kind, n)) in blocks.iter().enumerate() {
        let name = format!("b{i}");
        match kind {
            0 => {
                conv(&mut nodes, &name, &at, [n, width, 1], 1);
                width = n;
            }
            1 => {
                conv(&mut nodes, &format!("{name}_in"), &at, [n, width, 3], 1);
                conv(&mut nodes, &format!("{name}_out"), &format!("{name}_in"), [width, n, 1], 1);
                let _ = writeln!(nodes, " node \"\" %{name} = Add(%{name}_out, %{at})");
            }
            2 => {
                conv(&mut nodes, &format!("{name}_side"), &at, [n, width, 1], 1);
                let _ =
                    writeln!(nodes, " node \"\" %{name} = Concat(%{at}, %{name}_side) {{axis=1}}");
                width += n;
            }
            3 => {
                conv(&mut nodes, &name, &at, [2 * width, 1, 3], width);
                width *= 2;
            }
            _ => {
                let (before, wide) = (n / 2, width + n);
                conv(&mut nodes, &format!("{name}_main"), &at, [wide, width, 1], 1);
                let _ = write!(
                    nodes,
                    " const %{name}_pads: i64[8] = [0, {before}, 0, 0, 0, {}, 0, 0]
                     node \"\" %{name}_pad = Pad(%{at}, %{name}_pads)
                     node \"\" %{name} = Sum(%{name}_main, %{name}_pad)\n",
                    n - before
                );
                width = wide;
            }
        }
        at = name;
    }
    let flat = width * 36;
    let _ = writeln!(
        nodes,
        " input %pw: f32[{flat},4]\n node \"flat\" %flat = Reshape(%{at}, %t)\n node \"y\" %y = Gemm(%flat, %pw)\n output %y"
    );
    graph(&(body + &nodes))
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn taking_out_is_silencing(
        stem in 2usize..9, share in 0.1f64..1.0, grain in 1usize..5,
        blocks in proptest::collection::vec((0u8..5, 1usize..9), 0..5),
    ) {
        check(&random_graph(stem, &blocks), share, grain);
    }
}
