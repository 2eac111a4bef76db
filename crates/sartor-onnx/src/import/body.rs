//! Bodies of control-flow operators as graphs that can be run.

use std::{collections::BTreeSet, sync::Arc};

use sartor_ir::{Attr, Attrs, Graph, Subgraph, ValueId};

use super::Importer;
use crate::{Envelope, ImportError, proto, types};

/// ONNX's operators whose subgraphs the engine runs.
const CONTROL_FLOW: &[&str] = &["If", "Loop", "Scan"];

impl Importer<'_> {
    /// Makes graphs of the bodies of a control-flow node. One that cannot be read stays in its encoding,
    /// with a diagnostic.
    pub(super) fn read_bodies(
        &mut self,
        node: &proto::Node,
        label: &str,
        captures: &[ValueId],
        attrs: &mut Attrs,
    ) {
        if !CONTROL_FLOW.contains(&node.op_type.as_str()) {
            return;
        }
        for attribute in &node.attribute {
            let (Some(body), Some(Attr::Foreign(source))) =
                (&attribute.g, attrs.get(&attribute.name))
            else {
                continue;
            };
            let source = source.clone();
            match self.body(body.clone(), captures) {
                Ok(graph) => {
                    let captures = captures.len();
                    let subgraph = Subgraph { graph: Arc::new(graph), captures, source };
                    attrs.set(&attribute.name, Attr::Graph(subgraph));
                }
                Err(error) => {
                    self.note(label, &format!("`{}` cannot be run: {error}", attribute.name));
                }
            }
        }
    }

    /// The graph of a body: its own inputs, then the captured values.
    fn body(&self, mut file: proto::Graph, captures: &[ValueId]) -> Result<Graph, ImportError> {
        let own = defined(&file);
        for &id in captures {
            let value = self.graph.value(id);
            let known = self.facts.get(id.index()).cloned().flatten().map(|it| it.ty);
            let ty = known.or_else(|| value.ty.clone());
            // A name that this body defines itself is read by the other body of an `If`.
            let mut name = value.name.clone();
            while own.contains(&name) {
                name.push_str(" outside");
            }
            let ty = ty.as_ref().map(types::write);
            file.input.push(proto::ValueInfo { name, ty, ..Default::default() });
        }
        separate_outputs(&mut file);
        let mut graph = Graph::default();
        graph.opsets = self.graph.opsets.clone();
        let envelope =
            Envelope { functions: self.envelope.functions.clone(), ..Envelope::default() };
        let mut inner = Importer {
            external: self.external,
            opset: self.opset,
            graph,
            envelope,
            diagnostics: Vec::new(),
            facts: Vec::new(),
            taken: BTreeSet::new(),
        };
        inner.read(file)?;
        let mut graph = inner.graph;
        graph.sort()?;
        sartor_ir::verify(&graph)?;
        Ok(graph)
    }
}

/// The names that a body defines.
fn defined(file: &proto::Graph) -> BTreeSet<String> {
    let inputs = file.input.iter().map(|it| &it.name);
    let constants = file.initializer.iter().map(|it| &it.name);
    let made = file.node.iter().flat_map(|it| &it.output);
    inputs.chain(constants).chain(made).cloned().collect()
}

/// Gives an output that is listed twice a name of its own: a graph lists each value once.
fn separate_outputs(file: &mut proto::Graph) {
    let mut seen = defined(file);
    let mut listed = BTreeSet::new();
    for output in &mut file.output {
        if listed.insert(output.name.clone()) {
            continue;
        }
        let mut copy = format!("{} again", output.name);
        while !seen.insert(copy.clone()) {
            copy.push('_');
        }
        file.node.push(proto::Node {
            op_type: "Identity".to_owned(),
            input: vec![output.name.clone()],
            output: vec![copy.clone()],
            ..Default::default()
        });
        output.name = copy;
    }
}
