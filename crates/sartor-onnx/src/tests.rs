//! Whole models through both doors.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use sartor_ir::{Attr, Graph, Op, Tensor};

use crate::{
    Envelope, ExportOptions, Exported, ImportError, Imported, NoExternalData, attribute, export,
    import, proto, tensor,
};

fn info(name: &str, shape: &[i64]) -> proto::ValueInfo {
    let dim = |&it: &i64| proto::Dimension { dim_value: Some(it), ..Default::default() };
    let shape = Some(proto::Shape { dim: shape.iter().map(dim).collect() });
    let tensor = Some(proto::TensorType { elem_type: 1, shape });
    let ty = Some(proto::Type { tensor, ..Default::default() });
    proto::ValueInfo { name: name.into(), ty, ..Default::default() }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attrs: &[(&str, Attr)]) -> proto::Node {
    let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
    proto::Node {
        op_type: op.into(),
        name: format!("the {op}"),
        input: list(inputs),
        output: list(outputs),
        attribute: attrs.iter().map(|(name, it)| attribute::write(name, it).unwrap()).collect(),
        ..Default::default()
    }
}

/// A model with input `x` [2,3,4,4] and output `y`.
fn model(opset: i64, nodes: Vec<proto::Node>, constants: &[(&str, Tensor)]) -> proto::Model {
    let graph = proto::Graph {
        name: "g".into(),
        node: nodes,
        input: vec![info("x", &[2, 3, 4, 4])],
        output: vec![proto::ValueInfo { name: "y".into(), ..Default::default() }],
        initializer: constants.iter().map(|(name, it)| tensor::write(name, it).unwrap()).collect(),
        ..Default::default()
    };
    proto::Model {
        ir_version: 7,
        graph: Some(graph),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: opset }],
        ..Default::default()
    }
}

fn read(model: &proto::Model) -> Result<Imported, ImportError> {
    import(model.encode_to_vec(), &NoExternalData)
}

fn write(imported: &Imported) -> Exported {
    export(&imported.graph, &imported.envelope, &ExportOptions::default()).unwrap()
}

/// A graph by names: independent of the order of its values.
fn by_name(graph: &Graph) -> Vec<String> {
    let name = |it: &Option<sartor_ir::ValueId>| {
        let constant = |id| graph.constant(id).map(|it| format!("{it:?} {:?}", it.data()));
        it.map(|id| (graph.value(id).name.clone(), constant(id)))
    };
    let row = |it: &sartor_ir::Node| {
        let inputs: Vec<_> = it.inputs.iter().map(name).collect();
        let outputs: Vec<_> = it.outputs.iter().map(name).collect();
        format!("{} {:?} {inputs:?} {outputs:?}", it.name, it.op)
    };
    graph.nodes().map(|(_, it)| row(it)).collect()
}

fn ints(list: &[i64]) -> Attr {
    Attr::Ints(list.to_vec())
}

fn vector(list: &[i64]) -> Tensor {
    Tensor::from_i64(&[list.len()], list)
}

type Case = (i64, &'static str, Vec<(&'static str, Attr)>, Vec<(&'static str, Tensor)>, usize);

/// Opset, operator, attributes, constant inputs, and the number of inputs in the newest form.
fn translated() -> Vec<Case> {
    let float = Attr::Float;
    let scalar = |it: f32| Tensor::from_f32(&[], &[it]);
    let channels = |_: usize| Tensor::from_f32(&[3], &[1.0, 2.0, 3.0]);
    vec![
        (7, "Clip", vec![("min", float(0.0)), ("max", float(6.0))], vec![], 3),
        (7, "Clip", vec![("max", float(6.0))], vec![], 3),
        (19, "Cast", vec![("saturate", Attr::Int(0)), ("to", Attr::Int(17))], vec![], 1),
        (11, "Clip", vec![], vec![("low", scalar(0.0))], 2),
        (
            7,
            "Slice",
            vec![("starts", ints(&[1])), ("ends", ints(&[9])), ("axes", ints(&[2]))],
            vec![],
            4,
        ),
        (9, "Slice", vec![("starts", ints(&[1])), ("ends", ints(&[-1]))], vec![], 3),
        (
            10,
            "Slice",
            vec![],
            vec![("s", vector(&[0])), ("e", vector(&[2])), ("a", vector(&[-1]))],
            4,
        ),
        (
            9,
            "Pad",
            vec![("pads", ints(&[0, 0, 1, 1, 0, 0, 2, 2])), ("value", float(0.5))],
            vec![],
            3,
        ),
        (9, "Pad", vec![("pads", ints(&[0; 8])), ("mode", Attr::Str("edge".into()))], vec![], 2),
        (11, "Squeeze", vec![], vec![], 1),
        (9, "Unsqueeze", vec![("axes", ints(&[0, 3]))], vec![], 2),
        (13, "Unsqueeze", vec![], vec![("axes", vector(&[-1]))], 2),
        (9, "ReduceMean", vec![("axes", ints(&[2, 3])), ("keepdims", Attr::Int(0))], vec![], 2),
        (17, "ReduceMax", vec![("axes", ints(&[-1]))], vec![], 2),
        (18, "ReduceMax", vec![], vec![("axes", vector(&[-1]))], 2),
        (12, "ReduceSum", vec![("axes", ints(&[1]))], vec![], 2),
        (13, "ReduceSum", vec![], vec![("axes", vector(&[1]))], 2),
        (9, "Softmax", vec![("axis", Attr::Int(3))], vec![], 1),
        (12, "LogSoftmax", vec![("axis", Attr::Int(-1))], vec![], 1),
        (13, "Softmax", vec![("axis", Attr::Int(1))], vec![], 1),
        (9, "Dropout", vec![("ratio", float(0.25))], vec![], 2),
        (12, "Dropout", vec![], vec![("ratio", scalar(0.25))], 2),
        (9, "Cast", vec![("to", Attr::Int(7))], vec![], 1),
        (19, "Cast", vec![("to", Attr::Int(10))], vec![], 1),
        (
            8,
            "BatchNormalization",
            vec![],
            (0..4).zip(["s", "b", "m", "v"]).map(|(i, n)| (n, channels(i))).collect(),
            5,
        ),
        (20, "Gelu", vec![("approximate", Attr::Str("tanh".into()))], vec![], 1),
        (
            10,
            "QuantizeLinear",
            vec![],
            vec![("scale", scalar(0.1)), ("zero", Tensor::from_i8(&[], &[3]))],
            3,
        ),
        (
            13,
            "QuantizeLinear",
            vec![],
            vec![("scale", channels(0)), ("zero", Tensor::from_i8(&[3], &[0, 1, 2]))],
            3,
        ),
        (21, "QuantizeLinear", vec![("output_dtype", Attr::Int(5))], vec![("s", scalar(0.1))], 2),
        (9, "Flatten", vec![], vec![], 1),
        (18, "Split", vec![("num_outputs", Attr::Int(1))], vec![], 1),
        (11, "Split", vec![("split", ints(&[2]))], vec![], 2),
        (15, "Shape", vec![("start", Attr::Int(1))], vec![], 1),
        (9, "AveragePool", vec![("kernel_shape", ints(&[2, 2]))], vec![], 1),
    ]
}

#[test]
fn older_forms_go_in_and_come_out() {
    for (opset, op, attrs, constants, n_inputs) in translated() {
        let mut inputs = vec!["x"];
        inputs.extend(constants.iter().map(|it| it.0));
        let file = model(opset, vec![node(op, &inputs, &["y"], &attrs)], &constants);
        let first = read(&file).unwrap_or_else(|it| panic!("{op} {opset}: {it}"));
        assert_eq!(first.diagnostics, [], "{op} {opset}");
        let (_, only) = first.graph.nodes().next().unwrap();
        assert_eq!(only.inputs.len(), n_inputs, "{op} {opset}");
        let written = write(&first);
        let again = proto::Model::decode(written.model.clone()).unwrap();
        assert_eq!(again.opset_import, file.opset_import, "{op}");
        let sorted = |node: &proto::Node| {
            let mut node = node.clone();
            node.attribute.sort_by(|a, b| a.name.cmp(&b.name));
            node
        };
        let node = sorted(&again.graph.as_ref().unwrap().node[0]);
        assert_eq!(node, sorted(&file.graph.as_ref().unwrap().node[0]), "{op} {opset}");
        let second = import(written.model.clone(), &NoExternalData).unwrap();
        assert_eq!(by_name(&second.graph), by_name(&first.graph), "{op} {opset}");
        assert_eq!(write(&second), written, "{op} {opset}");
    }
}

#[test]
fn what_cannot_be_translated_is_carried() {
    for (opset, op, attrs, outputs) in [
        (9, "Softmax", vec![("axis", Attr::Int(1))], vec!["y"]),
        (9, "Softmax", vec![], vec!["y"]),
        (8, "BatchNormalization", vec![("spatial", Attr::Int(0))], vec!["y"]),
        (7, "Dropout", vec![], vec!["y", "mask"]),
        (10, "Mod", vec![("fmod", Attr::Int(1))], vec!["y"]),
        (
            24,
            "Cast",
            vec![("round_mode", Attr::Str("down".into())), ("to", Attr::Int(24))],
            vec!["y"],
        ),
        (13, "Nobody", vec![("strange", Attr::Strs(vec!["a".into()]))], vec!["y", "z"]),
    ] {
        let file = model(opset, vec![node(op, &["x"], &outputs, &attrs)], &[]);
        let imported = read(&file).unwrap();
        let Op::Named(carried) = &imported.graph.nodes().next().unwrap().1.op else {
            panic!("{op} was translated");
        };
        let known = sartor_ir::catalog::knows(carried);
        assert_eq!(imported.diagnostics.is_empty(), known, "{op}");
        let again = proto::Model::decode(write(&imported).model).unwrap();
        assert_eq!(again.graph.unwrap().node, file.graph.unwrap().node, "{op}");
    }
}

#[test]
fn a_newer_operator_raises_the_opset_unless_one_is_bound() {
    let gelu = node("Gelu", &["x"], &["y"], &[]);
    for (other, expected) in [("ArgMax", Ok(20)), ("Resize", Err("`the Gelu` needs opset 20"))] {
        let file = model(
            17,
            vec![node(other, &["x"], &["t"], &[]), node("Relu", &["x"], &["y"], &[])],
            &[],
        );
        let mut imported = read(&file).unwrap();
        let relu = imported.graph.find_node("the Relu").unwrap();
        imported.graph.node_mut(relu).op = Op::Unary(sartor_ir::Unary::Gelu { tanh: false });
        imported.graph.node_mut(relu).name.clone_from(&gelu.name);
        match (export(&imported.graph, &imported.envelope, &ExportOptions::default()), expected) {
            (Ok(written), Ok(opset)) => {
                let again = proto::Model::decode(written.model).unwrap();
                assert_eq!((again.opset_import[0].version, again.ir_version), (opset, 9));
            }
            (Err(error), Err(words)) => {
                let text = error.to_string();
                assert!(text.contains(words) && text.contains("`the Resize`"), "{text}");
            }
            (found, _) => panic!("{other}: {found:?}"),
        }
    }
}

#[test]
fn subgraphs_capture_and_travel() {
    let body = proto::Graph {
        node: vec![node("Add", &["x", "w"], &["inner"], &[])],
        output: vec![info("inner", &[2, 3, 4, 4])],
        ..Default::default()
    };
    let mut branch = node("If", &["c"], &["y"], &[]);
    branch.attribute.push(proto::Attribute {
        name: "then_branch".into(),
        kind: proto::kind::GRAPH,
        g: Some(body),
        ..Default::default()
    });
    let truth = Tensor::new(sartor_ir::DType::Bool, vec![], vec![1u8]).unwrap();
    let constants = [("c", truth), ("w", Tensor::from_f32(&[], &[1.0]))];
    let mut file = model(13, vec![branch], &constants);
    let imported = read(&file).unwrap();
    let (_, node) = imported.graph.nodes().next().unwrap();
    let captured: Vec<_> =
        node.captures.iter().map(|&it| imported.graph.value(it).name.as_str()).collect();
    assert_eq!(captured, ["x", "w"]);
    let again = import(write(&imported).model, &NoExternalData).unwrap();
    assert_eq!(again.graph, imported.graph);
    file.graph.as_mut().unwrap().initializer.pop();
    assert!(read(&file).unwrap_err().to_string().contains("reads `w`, which is defined nowhere"));
}

#[test]
fn large_tensors_go_to_a_file_and_come_back() {
    struct File(Bytes);
    impl crate::ExternalData for File {
        fn open(&self, _: &str) -> std::io::Result<Bytes> {
            Ok(self.0.clone())
        }
    }
    let constants = [
        ("a", Tensor::from_f32(&[4], &[1.0, 2.0, 3.0, 4.0])),
        ("b", Tensor::from_f32(&[1], &[5.0])),
        ("c", Tensor::from_f32(&[1, 4], &[6.0, 7.0, 8.0, 9.0])),
    ];
    let nodes = vec![
        node("Add", &["x", "a"], &["t"], &[]),
        node("Mul", &["t", "b"], &["u"], &[]),
        node("Mul", &["u", "c"], &["y"], &[]),
    ];
    let imported = read(&model(17, nodes, &constants)).unwrap();
    let options = ExportOptions { external_above: Some(16), external_name: "w.data".into() };
    let written = export(&imported.graph, &imported.envelope, &options).unwrap();
    let external = written.external.unwrap();
    assert_eq!(external.chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [16, 4080, 16]);
    assert!(
        import(written.model.clone(), &NoExternalData)
            .unwrap_err()
            .to_string()
            .contains("`w.data`")
    );
    let again = import(written.model, &File(external.chunks.concat().into())).unwrap();
    assert_eq!(again.graph, imported.graph);
}

#[test]
fn big_tensors_share_the_file() {
    let imported = {
        let weight = Tensor::from_f32(&[1 << 16], &vec![0.5; 1 << 16]);
        let nodes = vec![node("Relu", &["x"], &["y"], &[]), node("Relu", &["w"], &["z"], &[])];
        model(17, nodes, &[("w", weight)]).encode_to_vec()
    };
    let bytes = Bytes::from(imported);
    let graph = import(bytes.clone(), &NoExternalData).unwrap().graph;
    let data = graph.constant(graph.find_value("w").unwrap()).unwrap().data();
    assert!(bytes.as_ptr_range().contains(&data.as_ptr()), "the tensor was copied");
}

fn graph(file: &mut proto::Model) -> &mut proto::Graph {
    file.graph.as_mut().unwrap()
}

#[test]
fn malformed_models_are_refused_by_name() {
    let relu = || vec![node("Relu", &["x"], &["y"], &[])];
    let with = |change: &dyn Fn(&mut proto::Model)| {
        let mut file = model(17, relu(), &[]);
        change(&mut file);
        file
    };
    for (file, expected) in [
        (with(&|it| it.graph = None), "no graph"),
        (with(&|it| it.ir_version = 99), "IR version 99, supported are 3 to 13"),
        (
            with(&|it| it.opset_import[0].version = 6),
            "opset 6 of ONNX's operators, supported are 7 to 24",
        ),
        (with(&|it| it.opset_import[0].version = 25), "opset 25"),
        (with(&|it| it.opset_import.clear()), "no `opset_import`"),
        (
            with(&|it| graph(it).node[0].domain = "mine".into()),
            "`mine`, which the file does not import",
        ),
        (with(&|it| graph(it).node[0].input[0] = "q".into()), "reads `q`, which no node makes"),
        (with(&|it| graph(it).node[0].input[0] = "y".into()), "a cycle through `the Relu`"),
        (with(&|it| graph(it).node.extend(relu())), "two values are named `y`"),
        (with(&|it| graph(it).output[0].name = "q".into()), "graph output `q` is made by no node"),
        (with(&|it| graph(it).output[0] = info("y", &[7])), "the file declares f32[7]"),
        (with(&|it| graph(it).node[0].input.clear()), "has 0 inputs, expected 1"),
        (
            with(&|it| {
                let broken = proto::Tensor {
                    name: "w".into(),
                    data_type: 1,
                    dims: vec![3],
                    ..Default::default()
                };
                graph(it).initializer.push(broken);
            }),
            "tensor `w`: f32 tensor of shape [3] needs 12 bytes, found 0",
        ),
        (
            with(&|it| {
                let complex =
                    proto::Tensor { name: "w".into(), data_type: 14, ..Default::default() };
                graph(it).initializer.push(complex);
            }),
            "tensor `w`: element type 14 is not supported",
        ),
        (
            with(&|it| {
                let twice = attribute::write("a", &Attr::Int(1)).unwrap();
                graph(it).node[0].attribute = vec![twice.clone(), twice];
            }),
            "attribute `a`: is given twice",
        ),
    ] {
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains(expected), "expected `{expected}`, found `{error}`");
    }
    assert!(matches!(import(&b"\xff\xff"[..], &NoExternalData), Err(ImportError::Protobuf(_))));
}

#[test]
fn the_envelope_goes_round() {
    let mut file = model(21, vec![node("Relu", &["x"], &["y"], &[])], &[]);
    let pair = |key: &str| vec![proto::StringString { key: key.into(), value: "v".into() }];
    file.ir_version = 10;
    file.producer_name = "hand".into();
    file.model_version = 3;
    file.metadata_props = pair("model");
    file.training_info = vec![Bytes::from_static(b"\x0a\x00")];
    let graph = file.graph.as_mut().unwrap();
    graph.metadata_props = pair("graph");
    graph.node[0].metadata_props = pair("node");
    graph.node[0].doc_string = "text".into();
    graph.input[0].doc_string = "text".into();
    graph.output[0] = info("y", &[2, 3, 4, 4]);
    graph.output[0].ty.as_mut().unwrap().denotation = "IMAGE".into();
    let written = proto::Model::decode(write(&read(&file).unwrap()).model).unwrap();
    assert_eq!(written, file);
    let bare = export(&read(&file).unwrap().graph, &Envelope::default(), &ExportOptions::default())
        .unwrap();
    assert_eq!(proto::Model::decode(bare.model).unwrap().ir_version, 10);
}

#[test]
fn enormous_numbers_do_not_panic() {
    let huge = i64::MAX;
    let mut panics = Vec::new();
    for (op, attrs, constants) in [
        (
            "MaxPool",
            vec![("kernel_shape", ints(&[huge, huge])), ("dilations", ints(&[huge, 2]))],
            vec![],
        ),
        ("MaxPool", vec![("kernel_shape", ints(&[1, 1])), ("pads", ints(&[huge; 4]))], vec![]),
        (
            "MaxPool",
            vec![
                ("kernel_shape", ints(&[2, 2])),
                ("strides", ints(&[huge, huge])),
                ("ceil_mode", Attr::Int(1)),
                ("auto_pad", Attr::Str("SAME_UPPER".into())),
            ],
            vec![],
        ),
        (
            "Conv",
            vec![("group", Attr::Int(huge))],
            vec![("w", Tensor::from_f32(&[1, 1, 1, 1], &[1.0]))],
        ),
        ("Transpose", vec![("perm", ints(&[huge, 0, 1, 2]))], vec![]),
        ("Softmax", vec![("axis", Attr::Int(i64::MIN))], vec![]),
        ("Concat", vec![("axis", Attr::Int(huge))], vec![]),
        ("Reshape", vec![], vec![("s", vector(&[huge, huge, -1]))]),
        ("Expand", vec![], vec![("s", vector(&[huge, huge, 1, 1]))]),
        ("ConstantOfShape", vec![], vec![]),
        (
            "Slice",
            vec![],
            vec![
                ("s", vector(&[i64::MIN])),
                ("e", vector(&[huge])),
                ("a", vector(&[3])),
                ("st", vector(&[i64::MIN])),
            ],
        ),
        ("Pad", vec![], vec![("p", vector(&[huge; 8]))]),
        ("Split", vec![], vec![("p", vector(&[huge]))]),
        ("Unsqueeze", vec![], vec![("p", vector(&[huge, i64::MIN]))]),
        ("Shape", vec![("start", Attr::Int(i64::MIN)), ("end", Attr::Int(huge))], vec![]),
    ] {
        for extents in [[2, 3, 4, 4], [huge, huge, huge, huge], [1 << 40, 1 << 40, 1, 0]] {
            let mut inputs = vec!["x"];
            inputs.extend(constants.iter().map(|it| it.0));
            let nodes =
                vec![node(op, &inputs, &["t"], &attrs), node("Flatten", &["t"], &["y"], &[])];
            let mut file = model(17, nodes, &constants);
            graph(&mut file).input = vec![info("x", &extents)];
            let caught = std::panic::catch_unwind(|| {
                if let Ok(imported) = read(&file) {
                    let _ = export(&imported.graph, &imported.envelope, &ExportOptions::default());
                }
            });
            if caught.is_err() {
                panics.push(format!("{op} {attrs:?} on {extents:?}"));
            }
        }
    }
    assert_eq!(panics, [] as [String; 0]);
}

/// A valid model of `newest` with all translated operators of the opsets from `oldest` to it.
fn rich((oldest, newest): (i64, i64)) -> Vec<u8> {
    let mut nodes = Vec::new();
    let mut constants = Vec::new();
    for (i, (opset, op, attrs, given, _)) in translated().into_iter().enumerate() {
        if !(oldest..=newest).contains(&opset) {
            continue;
        }
        let names: Vec<String> = given.iter().map(|it| format!("{}{i}", it.0)).collect();
        constants.extend(names.iter().cloned().zip(given.into_iter().map(|it| it.1)));
        let mut inputs = vec!["x"];
        inputs.extend(names.iter().map(String::as_str));
        nodes.push(node(op, &inputs, &[&format!("y{i}")], &attrs));
    }
    nodes.push(node("Relu", &["x"], &["y"], &[]));
    let constants: Vec<_> = constants.iter().map(|it| (it.0.as_str(), it.1.clone())).collect();
    model(newest, nodes, &constants).encode_to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = import(bytes, &NoExternalData);
    }

    #[test]
    fn damaged_models_do_not_panic(
        era in proptest::sample::select(vec![(7, 9), (10, 12), (13, 15), (18, 21)]),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = rich(era);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(imported) = import(bytes, &NoExternalData) {
            let _ = export(&imported.graph, &imported.envelope, &ExportOptions::default());
        }
    }
}
