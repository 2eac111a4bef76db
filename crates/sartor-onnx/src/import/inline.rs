//! Model-local functions (<https://onnx.ai/onnx/repo-docs/IR.html#functions>): each call becomes the nodes of the
//! function.

use std::collections::{BTreeMap, BTreeSet};

use super::{domain, label};
use crate::{Diagnostic, opset, proto, scope};

/// A file may write much with few words: a function that calls another twice, and so on.
const MOST_NODES: usize = 1 << 17;

/// Calls within calls; a stack has an end.
const DEEPEST: usize = 64;

/// Domain, name and overload.
type Key = (String, String, String);

/// Replaces calls of model-local functions by their nodes, in the graph and in its subgraphs. A call that cannot be
/// replaced stays, and the functions that it needs with it.
pub(super) fn inline(model: &mut proto::Model) -> Vec<Diagnostic> {
    let Some(graph) = &mut model.graph else { return Vec::new() };
    if model.functions.is_empty() {
        return Vec::new();
    }
    let functions = model.functions.iter().map(|it| (key(&it.domain, &it.name, &it.overload), it));
    let mut inliner = Inliner {
        functions: functions.collect(),
        opsets: model
            .opset_import
            .iter()
            .map(|it| (domain(&it.domain).to_owned(), it.version))
            .collect(),
        added: Vec::new(),
        taken: names(graph),
        made: 0,
        notes: BTreeMap::new(),
    };
    graph.node = inliner.nodes(std::mem::take(&mut graph.node), &mut Vec::new());
    let Inliner { added, notes, .. } = inliner;
    model.opset_import.extend(added);
    let mut called = BTreeSet::new();
    graph.node.iter().for_each(|it| calls(it, &mut called));
    // What stays needs the functions that it calls, and those that they call.
    let mut count = 0;
    while count < called.len() {
        count = called.len();
        for it in &model.functions {
            if called.contains(&key(&it.domain, &it.name, &it.overload)) {
                it.node.iter().for_each(|node| calls(node, &mut called));
            }
        }
    }
    model.functions.retain(|it| called.contains(&key(&it.domain, &it.name, &it.overload)));
    notes.into_iter().map(|(key, message)| Diagnostic { subject: key.1, message }).collect()
}

fn key(of: &str, name: &str, overload: &str) -> Key {
    (domain(of).to_owned(), name.to_owned(), overload.to_owned())
}

/// What a node and its subgraphs may call.
fn calls(node: &proto::Node, called: &mut BTreeSet<Key>) {
    called.insert(key(&node.domain, &node.op_type, &node.overload));
    scope::walk(node, &mut |it| {
        called.insert(key(&it.domain, &it.op_type, &it.overload));
    });
}

/// Every name in a graph.
fn names(graph: &proto::Graph) -> BTreeSet<String> {
    let mut taken: BTreeSet<String> =
        graph.input.iter().chain(&graph.output).map(|it| it.name.clone()).collect();
    taken.extend(graph.initializer.iter().map(|it| it.name.clone()));
    for node in &graph.node {
        taken.extend(node.input.iter().chain(&node.output).cloned());
        scope::names(node, &mut taken);
    }
    taken
}

struct Inliner<'a> {
    functions: BTreeMap<Key, &'a proto::Function>,
    opsets: BTreeMap<String, i64>,
    /// Operator sets that only functions import.
    added: Vec<proto::OperatorSet>,
    taken: BTreeSet<String>,
    made: usize,
    /// What is said of each function, once.
    notes: BTreeMap<Key, String>,
}

impl Inliner<'_> {
    fn nodes(&mut self, nodes: Vec<proto::Node>, callers: &mut Vec<Key>) -> Vec<proto::Node> {
        let mut all = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for graph in
                node.attribute.iter_mut().flat_map(|it| it.g.iter_mut().chain(&mut it.graphs))
            {
                graph.node = self.nodes(std::mem::take(&mut graph.node), callers);
            }
            let key = key(&node.domain, &node.op_type, &node.overload);
            let Some(&function) = self.functions.get(&key) else {
                all.push(node);
                continue;
            };
            if let Err(reason) = self.admit(function, &key, callers) {
                self.notes.insert(key, format!("a model-local function, not inlined: {reason}"));
                all.push(node);
                continue;
            }
            self.notes
                .entry(key.clone())
                .or_insert_with(|| "a model-local function, inlined where it is called".to_owned());
            let body = self.expand(function, &node);
            callers.push(key);
            all.extend(self.nodes(body, callers));
            callers.pop();
        }
        all
    }

    /// Whether a call can be replaced; if so, the operator sets that the function needs are imported.
    fn admit(
        &mut self,
        function: &proto::Function,
        key: &Key,
        callers: &[Key],
    ) -> Result<(), String> {
        if callers.contains(key) {
            return Err("it calls itself".to_owned());
        }
        if callers.len() >= DEEPEST || self.made + function.node.len() > MOST_NODES {
            return Err(format!(
                "calls are followed {DEEPEST} deep and until there are {MOST_NODES} nodes"
            ));
        }
        for set in &function.opset_import {
            let own = domain(&set.domain);
            let Some(&have) = self.opsets.get(own) else {
                self.opsets.insert(own.to_owned(), set.version);
                self.added.push(set.clone());
                continue;
            };
            let (from, to) = (have.min(set.version), have.max(set.version));
            let mut changed = None;
            let mut check = |node: &proto::Node| {
                let same = own.is_empty() && opset::means_the_same(&node.op_type, from, to);
                if domain(&node.domain) == own && !same {
                    changed.get_or_insert_with(|| node.op_type.clone());
                }
            };
            if from != to {
                for node in &function.node {
                    check(node);
                    scope::walk(node, &mut |it| check(it));
                }
            }
            if let Some(name) = changed {
                return Err(format!(
                    "it uses opset {} and the model {have}, in which `{name}` may mean something else",
                    set.version
                ));
            }
        }
        self.made += function.node.len();
        Ok(())
    }

    /// The nodes of one call.
    fn expand(&mut self, function: &proto::Function, call: &proto::Node) -> Vec<proto::Node> {
        let stem = label(call);
        let actual = |list: &[String], i: usize| list.get(i).cloned().unwrap_or_default();
        let mut names = BTreeMap::new();
        for (i, formal) in function.input.iter().enumerate() {
            names.insert(formal.clone(), actual(&call.input, i));
        }
        let mut copies = Vec::new();
        for (i, formal) in function.output.iter().enumerate() {
            let wanted = actual(&call.output, i);
            match names.get(formal) {
                // An input, or an output listed before, that is handed out as it is.
                Some(given) if !wanted.is_empty() => copies.push(proto::Node {
                    op_type: "Identity".to_owned(),
                    input: vec![given.clone()],
                    output: vec![wanted],
                    ..Default::default()
                }),
                Some(_) => {}
                None => {
                    let name = if wanted.is_empty() { self.fresh(&stem, formal) } else { wanted };
                    names.insert(formal.clone(), name);
                }
            }
        }
        for name in function.node.iter().flat_map(|it| it.input.iter().chain(&it.output)) {
            if !name.is_empty() && !names.contains_key(name) {
                let fresh = self.fresh(&stem, name);
                names.insert(name.clone(), fresh);
            }
        }
        let call = Call { function, node: call, stem };
        let mut nodes: Vec<_> =
            function.node.iter().map(|it| self.instance(it, &call, &names)).collect();
        nodes.extend(copies);
        nodes
    }

    /// A node of a function as one call has it.
    fn instance(
        &mut self,
        node: &proto::Node,
        call: &Call<'_>,
        names: &BTreeMap<String, String>,
    ) -> proto::Node {
        let mut node = node.clone();
        if !node.name.is_empty() {
            node.name = format!("{}/{}", call.stem, node.name);
        }
        for name in node.input.iter_mut().chain(&mut node.output) {
            if let Some(actual) = names.get(name) {
                name.clone_from(actual);
            }
        }
        node.attribute = node.attribute.into_iter().filter_map(|it| call.attribute(it)).collect();
        for attribute in &mut node.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.subgraph(graph, call, names);
            }
        }
        node
    }

    /// A subgraph of a function: its own values get fresh names too, lest they hide what the call hands in.
    fn subgraph(
        &mut self,
        graph: &mut proto::Graph,
        call: &Call<'_>,
        outer: &BTreeMap<String, String>,
    ) {
        let mut names = outer.clone();
        let own = graph.input.iter().map(|it| &it.name);
        let own = own.chain(graph.initializer.iter().map(|it| &it.name));
        for name in own.chain(graph.node.iter().flat_map(|it| &it.output)) {
            if !name.is_empty() {
                let fresh = self.fresh(&call.stem, name);
                names.insert(name.clone(), fresh);
            }
        }
        let rename = |name: &mut String| {
            if let Some(actual) = names.get(name) {
                name.clone_from(actual);
            }
        };
        let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        infos.for_each(|it| rename(&mut it.name));
        graph.initializer.iter_mut().for_each(|it| rename(&mut it.name));
        graph.node = graph.node.iter().map(|it| self.instance(it, call, &names)).collect();
    }

    fn fresh(&mut self, stem: &str, name: &str) -> String {
        let mut fresh = format!("{stem}/{name}");
        while !self.taken.insert(fresh.clone()) {
            fresh.push('_');
        }
        fresh
    }
}

/// One call of a function.
struct Call<'a> {
    function: &'a proto::Function,
    node: &'a proto::Node,
    /// What the names of its values begin with.
    stem: String,
}

impl Call<'_> {
    /// An attribute of the function's body with the value that the call or the function's default gives it; `None` where
    /// neither does.
    fn attribute(&self, own: proto::Attribute) -> Option<proto::Attribute> {
        if own.ref_attr_name.is_empty() {
            return Some(own);
        }
        let mut given = self.node.attribute.iter().chain(&self.function.attribute_proto);
        let given = given.find(|it| it.name == own.ref_attr_name)?;
        Some(proto::Attribute { name: own.name, ..given.clone() })
    }
}

#[cfg(test)]
mod tests {
    use sartor_ir::{Graph, Op};

    use super::*;
    use crate::{NoExternalData, import, types};
    use prost::Message;

    fn node(op: &str, of: &str, inputs: &[&str], outputs: &[&str]) -> proto::Node {
        let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        proto::Node {
            op_type: op.to_owned(),
            domain: of.to_owned(),
            input: list(inputs),
            output: list(outputs),
            ..Default::default()
        }
    }

    fn function(
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        nodes: Vec<proto::Node>,
    ) -> proto::Function {
        let call = node(name, "mine", inputs, outputs);
        proto::Function {
            name: call.op_type,
            domain: call.domain,
            input: call.input,
            output: call.output,
            node: nodes,
            opset_import: sets(&[("", 17), ("mine", 1)]),
            ..Default::default()
        }
    }

    fn sets(list: &[(&str, i64)]) -> Vec<proto::OperatorSet> {
        let set = |&(name, version): &(&str, i64)| proto::OperatorSet {
            domain: name.to_owned(),
            version,
        };
        list.iter().map(set).collect()
    }

    fn model(nodes: Vec<proto::Node>, functions: Vec<proto::Function>) -> proto::Model {
        let ty = sartor_ir::TensorType::fixed(sartor_ir::DType::F32, &[2, 3]);
        let info = |name: &str| proto::ValueInfo {
            name: name.to_owned(),
            ty: Some(types::write(&ty)),
            ..Default::default()
        };
        let graph = proto::Graph {
            name: "g".to_owned(),
            node: nodes,
            input: vec![info("x")],
            output: vec![info("y")],
            ..Default::default()
        };
        proto::Model {
            ir_version: 8,
            graph: Some(graph),
            functions,
            opset_import: sets(&[("", 17), ("mine", 1)]),
            ..Default::default()
        }
    }

    fn read(model: &proto::Model) -> (Graph, Vec<String>) {
        let imported = import(model.encode_to_vec(), &NoExternalData).unwrap();
        let said = imported.diagnostics.iter().map(ToString::to_string).collect();
        (imported.graph, said)
    }

    fn ops(graph: &Graph) -> Vec<&str> {
        graph.nodes().map(|it| it.1.op.name()).collect()
    }

    #[test]
    fn calls_become_nodes_with_their_attributes() {
        let mut leaky = node("LeakyRelu", "", &["a"], &["t"]);
        leaky.attribute.push(proto::Attribute {
            name: "alpha".into(),
            ref_attr_name: "slope".into(),
            kind: proto::kind::FLOAT,
            ..Default::default()
        });
        let slope = |value: f32| proto::Attribute {
            name: "slope".into(),
            kind: proto::kind::FLOAT,
            f: Some(value),
            ..Default::default()
        };
        let mut inner = function("Inner", &["a"], &["t"], vec![leaky]);
        inner.attribute_proto.push(slope(0.5));
        // `t` is a name of both functions, and of the graph.
        let outer = function(
            "Outer",
            &["a", "b"],
            &["t", "a"],
            vec![node("Inner", "mine", &["a"], &["u"]), node("Add", "", &["u", "a"], &["t"])],
        );
        let mut call = node("Inner", "mine", &["t"], &["s"]);
        call.attribute.push(slope(0.25));
        let nodes = vec![
            node("Outer", "mine", &["x"], &["t", "same"]),
            call,
            node("Mul", "", &["s", "same"], &["y"]),
        ];
        let (graph, said) = read(&model(nodes, vec![outer, inner]));
        assert_eq!(ops(&graph), ["LeakyRelu", "Add", "Identity", "LeakyRelu", "Mul"]);
        let slopes: Vec<_> = graph
            .nodes()
            .filter(|it| it.1.op.name() == "LeakyRelu")
            .map(|it| it.1.op.attributes().float("alpha", 0.0).unwrap())
            .collect();
        assert_eq!(slopes, [0.5, 0.25]);
        assert_eq!(said.len(), 2, "{said:?}");
    }

    #[test]
    fn subgraphs_of_functions_see_what_the_call_hands_in() {
        let branch = |op: &str| proto::Attribute {
            name: format!("{op}_branch"),
            kind: proto::kind::GRAPH,
            g: Some(proto::Graph {
                // A local name that the caller uses for its own value.
                node: vec![node("Neg", "", &["a"], &["x"])],
                output: vec![proto::ValueInfo { name: "x".into(), ..Default::default() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut choice = node("If", "", &["c"], &["r"]);
        choice.attribute = vec![branch("then"), branch("else")];
        let truth = || {
            let mut it = node("ReduceMax", "", &["a"], &["m"]);
            it.attribute.push(proto::Attribute {
                name: "keepdims".into(),
                kind: proto::kind::INT,
                i: Some(0),
                ..Default::default()
            });
            it
        };
        let body = vec![truth(), node("Equal", "", &["m", "m"], &["c"]), choice];
        let (graph, _) = read(&model(
            vec![node("F", "mine", &["x"], &["y"])],
            vec![function("F", &["a"], &["r"], body)],
        ));
        assert_eq!(ops(&graph), ["ReduceMax", "Equal", "If"]);
        let (_, node) = graph.nodes().last().unwrap();
        assert_eq!(node.captures, graph.inputs());
    }

    #[test]
    fn what_cannot_be_inlined_stays() {
        let itself = function("F", &["a"], &["b"], vec![node("F", "mine", &["a"], &["b"])]);
        let (graph, said) = read(&model(vec![node("F", "mine", &["x"], &["y"])], vec![itself]));
        assert!(matches!(graph.nodes().next().unwrap().1.op, Op::Named(_)));
        assert!(said.iter().any(|it| it.contains("it calls itself")), "{said:?}");
        let mut old = function("F", &["a"], &["b"], vec![node("Softmax", "", &["a"], &["b"])]);
        old.opset_import[0].version = 11;
        let (_, said) = read(&model(vec![node("F", "mine", &["x"], &["y"])], vec![old]));
        assert!(said.iter().any(|it| it.contains("opset 11 and the model 17")), "{said:?}");
        // 2 to the power of 40 nodes.
        let calls = |k: usize| {
            let next = format!("F{}", k + 1);
            vec![node(&next, "mine", &["a"], &["t"]), node(&next, "mine", &["t"], &["b"])]
        };
        let mut chain: Vec<_> =
            (0..40).map(|k| function(&format!("F{k}"), &["a"], &["b"], calls(k))).collect();
        chain.push(function("F40", &["a"], &["b"], vec![node("Relu", "", &["a"], &["b"])]));
        let mut bomb = model(vec![node("F0", "mine", &["x"], &["y"])], chain);
        let said = inline(&mut bomb);
        assert!(bomb.graph.unwrap().node.len() <= MOST_NODES && said.len() > 1);
    }
}
