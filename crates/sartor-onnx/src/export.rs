//! From a graph to a file.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use sartor_ir::{Attr, Graph, Node, Op, Value, ValueId};

use crate::{
    Envelope, ExportError, attribute,
    op::{Need, older},
    opset, proto, scope, tensor, types,
};

/// How to store the large tensors of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Constants of at least this many bytes go into an external file. `None`: only if the model would
    /// otherwise be above protobuf's limit of 2 GiB.
    pub external_above: Option<usize>,
    /// Name of the external file, beside the model.
    pub external_name: String,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions { external_above: None, external_name: "model.onnx.data".to_owned() }
    }
}

/// A model to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The `.onnx` file.
    pub model: Bytes,
    /// The file of large tensors, if there is one.
    pub external: Option<ExternalFile>,
}

/// The external file of a model: its chunks, to be written one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalFile {
    /// Name, beside the model.
    pub name: String,
    /// Contents; chunks share memory with the graph's constants.
    pub chunks: Vec<Bytes>,
}

/// Protobuf counts in 32 bits with a sign.
const LARGEST_MODEL: usize = 0x7fff_ffff;
/// What goes out of a model that is too large.
const SMALLEST_EXTERNAL: usize = 1024;
/// External tensors start at a multiple of a page, so that they can be mapped.
const PAGE: usize = 4096;

/// Writes `graph` as an ONNX model, in the opset of `graph.opsets[""]` or, where a node needs it, the lowest
/// newer one that has all nodes. The same graph gives the same bytes. Constants that nothing reads are left
/// out.
///
/// # Errors
/// A node that no opset up to 24 can express, or one that is carried in an old form and stands in the way of a
/// newer opset that another node needs.
pub fn export(
    graph: &Graph,
    envelope: &Envelope,
    options: &ExportOptions,
) -> Result<Exported, ExportError> {
    // Older forms depend on ranks and element types, which the graph itself need not hold.
    let mut typed = graph.clone();
    let typed = if sartor_ir::infer(&mut typed).is_ok() { &typed } else { graph };
    let opset = target_opset(typed, envelope)?;
    let exporter = Exporter { graph, typed, envelope, opset };
    let mut file = proto::Graph {
        name: if graph.name.is_empty() { "graph".to_owned() } else { graph.name.clone() },
        doc_string: graph.doc.clone(),
        metadata_props: envelope.graph_metadata.clone(),
        ..Default::default()
    };
    let nodes: Vec<_> = graph.nodes().map(|(_, it)| exporter.node(it)).collect::<Result<_, _>>()?;
    let read = exporter.read_names(&nodes);
    let constants =
        graph.values().filter(|(_, it)| it.constant.is_some() && read.contains(it.name.as_str()));
    let constants: Vec<_> = constants.map(|(_, it)| it).collect();
    exporter.values(&mut file, &read);
    let size: usize =
        constants.iter().filter_map(|it| Some(it.constant.as_ref()?.data().len())).sum();
    let crowded = size > LARGEST_MODEL - LARGEST_MODEL / 8;
    let threshold = options.external_above.or(crowded.then_some(SMALLEST_EXTERNAL));
    let mut external = ExternalFile { name: options.external_name.clone(), chunks: Vec::new() };
    let mut offset = 0;
    for value in constants {
        file.initializer.push(exporter.initializer(
            value,
            threshold,
            &mut external,
            &mut offset,
        )?);
    }
    file.node = nodes;
    let model = exporter.model(file);
    let length = model.encoded_len();
    if length > LARGEST_MODEL {
        return Err(ExportError::TooLarge(length));
    }
    let external = (!external.chunks.is_empty()).then_some(external);
    Ok(Exported { model: Bytes::from(model.encode_to_vec()), external })
}

/// The lowest opset, from the graph's own on, in which all nodes can be written.
fn target_opset(graph: &Graph, envelope: &Envelope) -> Result<i64, ExportError> {
    let from = *graph.opsets.get("").ok_or(ExportError::NoOpset)?;
    if !(opset::OLDEST..=opset::NEWEST).contains(&from) {
        return Err(ExportError::NoOpset);
    }
    let mut to = from;
    let mut raiser = String::new();
    for (_, node) in graph.nodes() {
        let refuse = |problem| ExportError::Node {
            node: label(graph, node),
            op: node.op.name().to_owned(),
            problem,
        };
        while let Err(need) = older(graph, node, to) {
            match need {
                Need::Opset(needed) if needed > to && needed <= opset::NEWEST => {
                    to = needed;
                    raiser = label(graph, node);
                }
                Need::Opset(needed) => return Err(refuse(format!("it needs opset {needed}"))),
                Need::Never(problem) => return Err(refuse(problem)),
            }
        }
    }
    match first_bound(graph, envelope, from, to) {
        None => Ok(to),
        Some((bound, op)) => Err(ExportError::Bound { raiser, from, to, bound, op }),
    }
}

/// The first node carried in its form of opset `from` that means something else in opset `to`.
fn first_bound(graph: &Graph, envelope: &Envelope, from: i64, to: i64) -> Option<(String, String)> {
    if from == to {
        return None;
    }
    let functions: BTreeSet<_> = envelope.functions().collect();
    let fixed = |node: &proto::Node| {
        let own = matches!(node.domain.as_str(), "" | "ai.onnx");
        own && !functions.contains(&(node.domain.as_str(), node.op_type.as_str()))
            && !opset::means_the_same(&node.op_type, from, to)
    };
    let mut found = None;
    let mut check = |holder: &str, node: &proto::Node| {
        let mut visit = |inner: &proto::Node| {
            if found.is_none() && fixed(inner) {
                found = Some((holder.to_owned(), inner.op_type.clone()));
            }
        };
        visit(node);
        scope::walk(node, &mut |inner| visit(inner));
    };
    for (_, node) in graph.nodes() {
        if let Op::Named(opaque) = &node.op {
            let attribute = opaque.attributes.iter().filter_map(|(name, it)| match it {
                Attr::Graph(_) | Attr::Foreign(_) => attribute::write(name, it),
                _ => None,
            });
            let (op_type, domain) = (opaque.name.clone(), opaque.domain.clone());
            let message = proto::Node {
                op_type,
                domain,
                attribute: attribute.collect(),
                ..Default::default()
            };
            check(&label(graph, node), &message);
        }
    }
    for function in &envelope.functions {
        for node in &function.node {
            check(&function.name, node);
        }
    }
    found
}

/// How errors call a node: by its name, or by what it makes.
fn label(graph: &Graph, node: &Node) -> String {
    let output = || node.outputs.iter().flatten().next().map(|&it| graph.value(it).name.clone());
    if node.name.is_empty() { output().unwrap_or_default() } else { node.name.clone() }
}

struct Exporter<'a> {
    graph: &'a Graph,
    /// The same graph with all types that follow from its inputs.
    typed: &'a Graph,
    envelope: &'a Envelope,
    opset: i64,
}

impl Exporter<'_> {
    fn names(&self, list: &[Option<ValueId>]) -> Vec<String> {
        let name = |it: &Option<ValueId>| {
            it.map_or_else(String::new, |id| self.graph.value(id).name.clone())
        };
        list.iter().map(name).collect()
    }

    fn node(&self, node: &Node) -> Result<proto::Node, ExportError> {
        let refuse = |problem: String| ExportError::Node {
            node: label(self.graph, node),
            op: node.op.name().to_owned(),
            problem,
        };
        let form = older(self.typed, node, self.opset).map_err(|it| refuse(format!("{it:?}")))?;
        let mut attributes = Vec::new();
        for (name, value) in form.attrs.iter() {
            let written = attribute::write(name, value);
            attributes.push(
                written.ok_or_else(|| {
                    refuse(format!("attribute `{name}` is not in ONNX's encoding"))
                })?,
            );
        }
        let output = self.names(&node.outputs);
        let note =
            output.iter().find(|it| !it.is_empty()).and_then(|it| self.envelope.nodes.get(it));
        let note = note.cloned().unwrap_or_default();
        let domain = if let Op::Named(it) = &node.op { it.domain.clone() } else { String::new() };
        Ok(proto::Node {
            input: self.names(&form.inputs),
            output,
            name: node.name.clone(),
            op_type: node.op.name().to_owned(),
            attribute: attributes,
            doc_string: node.doc.clone(),
            domain,
            overload: note.overload,
            metadata_props: note.metadata,
            device_configurations: note.device_configurations,
        })
    }

    /// Every name that the written nodes read, that a subgraph reads, or that is an output.
    fn read_names<'n>(&'n self, nodes: &'n [proto::Node]) -> BTreeSet<&'n str> {
        let name = |id: ValueId| self.graph.value(id).name.as_str();
        let captures =
            self.graph.nodes().flat_map(|(_, node)| node.captures.iter().map(|&it| name(it)));
        let inputs = nodes.iter().flat_map(|it| it.input.iter().map(String::as_str));
        inputs.chain(captures).chain(self.graph.outputs().iter().map(|&it| name(it))).collect()
    }

    /// Declarations of inputs, outputs and everything between.
    fn values(&self, file: &mut proto::Graph, read: &BTreeSet<&str>) {
        let declare = |&id: &ValueId| self.declaration(self.graph.value(id));
        file.input = self.graph.inputs().iter().map(declare).collect();
        file.output = self.graph.outputs().iter().map(declare).collect();
        let outer: BTreeSet<_> =
            self.graph.inputs().iter().chain(self.graph.outputs()).copied().collect();
        for (id, value) in self.graph.values() {
            let made = self.graph.producer(id).is_some();
            let noted = value.ty.is_some() || self.envelope.values.contains_key(&value.name);
            if made && noted && !outer.contains(&id) {
                file.value_info.push(self.declaration(value));
            }
        }
        let known = |name: &str| read.contains(name) && self.graph.find_value(name).is_some();
        let kept = self.envelope.annotations.iter().filter(|it| {
            known(&it.tensor_name)
                && it.quant_parameter_tensor_names.iter().all(|pair| known(&pair.value))
        });
        file.quantization_annotation = kept.cloned().collect();
    }

    fn declaration(&self, value: &Value) -> proto::ValueInfo {
        let note = self.envelope.values.get(&value.name).cloned().unwrap_or_default();
        // The file's own words are kept as long as they say the same, of others the denotation.
        let (same, other) = match note.ty {
            Some(kept) if types::read(&kept) == value.ty => (Some(kept), None),
            kept => (None, kept),
        };
        let denotation = other.map_or_else(String::new, |it| it.denotation);
        let ty =
            same.or_else(|| Some(proto::Type { denotation, ..types::write(value.ty.as_ref()?) }));
        proto::ValueInfo {
            name: value.name.clone(),
            ty,
            doc_string: note.doc,
            metadata_props: note.metadata,
        }
    }

    fn initializer(
        &self,
        value: &Value,
        threshold: Option<usize>,
        external: &mut ExternalFile,
        offset: &mut usize,
    ) -> Result<proto::Tensor, ExportError> {
        let broken = || ExportError::Text(value.name.clone());
        let tensor = value.constant.as_ref().ok_or_else(broken)?;
        let mut message = tensor::write(&value.name, tensor).ok_or_else(broken)?;
        if let Some(note) = self.envelope.values.get(&value.name) {
            message.doc_string.clone_from(&note.doc);
            message.metadata_props.clone_from(&note.metadata);
        }
        let large = |it: &Bytes| !it.is_empty() && threshold.is_some_and(|least| it.len() >= least);
        if let Some(data) = message.raw_data.take_if(|it| large(it)) {
            let start = offset.next_multiple_of(PAGE);
            if start > *offset {
                external.chunks.push(Bytes::from(vec![0; start - *offset]));
            }
            let entry =
                |key: &str, value: String| proto::StringString { key: key.to_owned(), value };
            message.external_data = vec![
                entry("location", external.name.clone()),
                entry("offset", start.to_string()),
                entry("length", data.len().to_string()),
            ];
            message.data_location = proto::EXTERNAL;
            *offset = start + data.len();
            external.chunks.push(data);
        }
        Ok(message)
    }

    fn model(&self, file: proto::Graph) -> proto::Model {
        let envelope = self.envelope;
        let mut opsets: BTreeMap<&str, i64> =
            self.graph.opsets.iter().map(|it| (it.0.as_str(), *it.1)).collect();
        opsets.insert("", self.opset);
        let set = |(domain, version): (&str, i64)| proto::OperatorSet {
            domain: domain.to_owned(),
            version,
        };
        let pair = |(key, value): &(String, String)| proto::StringString {
            key: key.clone(),
            value: value.clone(),
        };
        proto::Model {
            ir_version: envelope.ir_version.max(opset::ir_version(self.opset)),
            producer_name: envelope.producer_name.clone(),
            producer_version: envelope.producer_version.clone(),
            domain: envelope.domain.clone(),
            model_version: envelope.model_version,
            doc_string: envelope.doc.clone(),
            graph: Some(file),
            opset_import: opsets.into_iter().map(set).collect(),
            metadata_props: self.graph.metadata.iter().map(pair).collect(),
            training_info: envelope.training_info.clone(),
            functions: envelope.functions.clone(),
            configuration: envelope.configuration.clone(),
        }
    }
}
