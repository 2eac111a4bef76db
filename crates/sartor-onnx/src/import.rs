//! From a file to a graph.

mod body;
mod inline;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use sartor_ir::{Attr, Attrs, Fact, Graph, Named, Node, Op, Tensor, TensorType, ValueId, catalog};

use crate::{
    Diagnostic, Envelope, ImportError, attribute,
    envelope::{NodeNote, ValueNote},
    op::{Draft, Source, newest},
    opset, proto, scope,
    tensor::{self, ExternalData},
    types,
};

/// A model in memory.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The network; it satisfies [`sartor_ir::verify`].
    pub graph: Graph,
    /// What stands around it in the file.
    pub envelope: Envelope,
    /// What was carried unchanged or simplified, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Versions of ONNX's file format that are read.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 3..=13;

/// Reads an ONNX model. Large tensors share memory with `bytes` and with the files that `external` gives.
///
/// Older forms of the known operators are translated into the newest one; constants that they had as
/// attributes become graph constants, and so do `Constant` nodes and initializers. Calls of model-local functions are
/// replaced by their nodes.
///
/// # Errors
/// Bytes that are no ONNX model, versions that are not supported (opsets 7 to 24, IR versions 3 to 13 are),
/// tensors that cannot be read, and graphs that break an invariant of [`sartor_ir::verify`].
pub fn import(
    bytes: impl Into<Bytes>,
    external: &dyn ExternalData,
) -> Result<Imported, ImportError> {
    let mut model = proto::Model::decode(bytes.into())?;
    if model.graph.is_none() {
        return Err(ImportError::Missing("graph"));
    }
    if !IR_VERSIONS.contains(&model.ir_version) {
        return Err(ImportError::IrVersion(model.ir_version));
    }
    let inlined = inline::inline(&mut model);
    let opsets = opsets(&model.opset_import)?;
    let opset =
        *opsets.get("").ok_or(ImportError::Missing("`opset_import` of ONNX's operators"))?;
    if !(opset::OLDEST..=opset::NEWEST).contains(&opset) {
        return Err(ImportError::Opset(opset));
    }
    let file = model.graph.take().ok_or(ImportError::Missing("graph"))?;
    let mut importer = Importer::new(model, opsets, opset, external)?;
    importer.diagnostics = inlined;
    importer.read(file)?;
    let mut graph = importer.graph;
    graph.sort()?;
    sartor_ir::verify(&graph)?;
    Ok(Imported { graph, envelope: importer.envelope, diagnostics: importer.diagnostics })
}

/// ONNX's own domain has two spellings.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

fn opsets(imports: &[proto::OperatorSet]) -> Result<BTreeMap<String, i64>, ImportError> {
    let mut opsets = BTreeMap::new();
    for set in imports {
        let domain = domain(&set.domain);
        if let Some(first) = opsets.insert(domain.to_owned(), set.version)
            && first != set.version
        {
            return Err(ImportError::OpsetTwice {
                domain: domain.to_owned(),
                first,
                second: set.version,
            });
        }
    }
    Ok(opsets)
}

struct Importer<'a> {
    external: &'a dyn ExternalData,
    opset: i64,
    graph: Graph,
    envelope: Envelope,
    diagnostics: Vec<Diagnostic>,
    /// What is known of each value so far, by index: older forms depend on ranks and element types.
    facts: Vec<Option<Fact>>,
    /// Names within subgraphs, which new values must not take.
    taken: BTreeSet<String>,
}

impl<'a> Importer<'a> {
    fn new(
        model: proto::Model,
        opsets: BTreeMap<String, i64>,
        opset: i64,
        external: &'a dyn ExternalData,
    ) -> Result<Self, ImportError> {
        let mut graph = Graph::default();
        graph.opsets = opsets;
        graph.metadata = model.metadata_props.into_iter().map(|it| (it.key, it.value)).collect();
        let mut envelope = Envelope {
            producer_name: model.producer_name,
            producer_version: model.producer_version,
            domain: model.domain,
            model_version: model.model_version,
            doc: model.doc_string,
            ir_version: model.ir_version,
            functions: model.functions,
            training_info: model.training_info,
            configuration: model.configuration,
            ..Envelope::default()
        };
        for function in &mut envelope.functions {
            for node in &mut function.node {
                let error =
                    |problem| ImportError::Tensor { tensor: function.name.clone(), problem };
                scope::internalize_attributes(node, external).map_err(error)?;
            }
        }
        Ok(Importer {
            external,
            opset,
            graph,
            envelope,
            diagnostics: Vec::new(),
            facts: Vec::new(),
            taken: BTreeSet::new(),
        })
    }

    fn read(&mut self, mut file: proto::Graph) -> Result<(), ImportError> {
        self.graph.name = std::mem::take(&mut file.name);
        self.graph.doc = std::mem::take(&mut file.doc_string);
        self.envelope.graph_metadata = std::mem::take(&mut file.metadata_props);
        self.envelope.annotations = std::mem::take(&mut file.quantization_annotation);
        let types = self.declarations(&file);
        let constants = self.constants(&file)?;
        self.inputs(&file, &types, &constants)?;
        for (name, tensor) in constants {
            self.graph.add_constant(&name, tensor)?;
        }
        for node in &file.node {
            scope::names(node, &mut self.taken);
            for name in node.output.iter().filter(|it| !it.is_empty()) {
                self.graph.add_value(name, types.get(name).cloned())?;
            }
        }
        self.first_facts();
        for node in file.node {
            self.node(node)?;
        }
        let outputs =
            file.output.iter().map(|it| self.value(&it.name)).collect::<Result<_, _>>()?;
        self.graph.set_outputs(outputs);
        Ok(())
    }

    /// Declared types by name; what has no place in a graph goes to the envelope.
    fn declarations(&mut self, file: &proto::Graph) -> BTreeMap<String, TensorType> {
        let mut types = BTreeMap::new();
        for info in file.value_info.iter().chain(&file.input).chain(&file.output) {
            let ty = info.ty.as_ref().and_then(types::read);
            // What the graph's own words say of the type need not be kept twice.
            let said = ty.as_ref().map(types::write);
            let rest = info.ty.clone().filter(|it| said.as_ref() != Some(it));
            let plain =
                rest.is_none() && info.doc_string.is_empty() && info.metadata_props.is_empty();
            if !plain {
                let metadata = info.metadata_props.clone();
                let note = ValueNote { doc: info.doc_string.clone(), metadata, ty: rest };
                self.envelope.values.insert(info.name.clone(), note);
            }
            if let Some(ty) = ty {
                types.insert(info.name.clone(), ty);
            }
        }
        types
    }

    fn constants(&mut self, file: &proto::Graph) -> Result<Vec<(String, Tensor)>, ImportError> {
        let mut constants = Vec::new();
        for message in &file.initializer {
            let error = |problem| ImportError::Tensor { tensor: message.name.clone(), problem };
            let tensor = tensor::read(message, self.external).map_err(error)?;
            constants.push((message.name.clone(), tensor));
            if !message.doc_string.is_empty() || !message.metadata_props.is_empty() {
                let note = self.envelope.values.entry(message.name.clone()).or_default();
                note.doc.clone_from(&message.doc_string);
                note.metadata.clone_from(&message.metadata_props);
            }
        }
        for sparse in &file.sparse_initializer {
            let name = sparse.values.as_ref().map_or_else(String::new, |it| it.name.clone());
            let error = |problem| ImportError::Tensor { tensor: name.clone(), problem };
            let tensor = tensor::densify(sparse, self.external).map_err(error)?;
            self.note(&name, "a sparse initializer, kept as a dense constant");
            constants.push((name, tensor));
        }
        Ok(constants)
    }

    fn inputs(
        &mut self,
        file: &proto::Graph,
        types: &BTreeMap<String, TensorType>,
        constants: &[(String, Tensor)],
    ) -> Result<(), ImportError> {
        let names: BTreeSet<&str> = constants.iter().map(|it| it.0.as_str()).collect();
        let mut inputs = Vec::new();
        let mut defaults = 0usize;
        for info in &file.input {
            if names.contains(info.name.as_str()) {
                defaults += 1;
                self.envelope.values.remove(&info.name);
            } else {
                inputs.push(self.graph.add_value(&info.name, types.get(&info.name).cloned())?);
            }
        }
        if defaults > 0 {
            let name = self.graph.name.clone();
            self.note(&name, &format!("{defaults} inputs with initializers became constants"));
        }
        self.graph.set_inputs(inputs);
        Ok(())
    }

    fn note(&mut self, subject: &str, message: &str) {
        self.diagnostics
            .push(Diagnostic { subject: subject.to_owned(), message: message.to_owned() });
    }

    /// The value of this name, made if nothing has defined it: `verify` then names its reader.
    fn value(&mut self, name: &str) -> Result<ValueId, ImportError> {
        match self.graph.find_value(name) {
            Some(id) => Ok(id),
            None => Ok(self.graph.add_value(name, None)?),
        }
    }

    fn values(&mut self, names: &[String]) -> Result<Vec<Option<ValueId>>, ImportError> {
        let one =
            |name: &String| if name.is_empty() { Ok(None) } else { self.value(name).map(Some) };
        names.iter().map(one).collect()
    }

    fn first_facts(&mut self) {
        let fact = |ty: &TensorType, constant: Option<&Tensor>| {
            constant.map_or_else(|| Fact::of(ty.clone()), Fact::constant)
        };
        let known = self
            .graph
            .values()
            .map(|(_, it)| it.ty.as_ref().map(|ty| fact(ty, it.constant.as_ref())));
        self.facts = known.collect();
    }

    fn node(&mut self, mut node: proto::Node) -> Result<(), ImportError> {
        let label = label(&node);
        let own = domain(&node.domain).to_owned();
        if !self.graph.opsets.contains_key(&own) {
            return Err(ImportError::Domain { node: label, op: node.op_type, domain: own });
        }
        let is_function =
            self.envelope.functions().any(|(d, name)| domain(d) == own && name == node.op_type);
        if own.is_empty() && node.op_type == "Constant" && !is_function {
            return self.constant_node(&node, &label);
        }
        let captured = scope::captures(&node);
        if !captured.is_empty() || scope::subgraphs(&node).next().is_some() {
            let error = |problem| ImportError::Tensor { tensor: label.clone(), problem };
            scope::internalize_attributes(&mut node, self.external).map_err(error)?;
        }
        let mut captures = Vec::new();
        for name in &captured {
            let missing = || ImportError::Capture { node: label.clone(), value: name.clone() };
            captures.push(self.graph.find_value(name).ok_or_else(missing)?);
        }
        let inputs = self.values(&node.input)?;
        let outputs = self.values(&node.output)?;
        let mut attrs = self.attributes(&node, &label)?;
        if own.is_empty() && !is_function {
            self.read_bodies(&node, &label, &captures, &mut attrs);
        }
        let (op, inputs) = if own.is_empty() && !is_function {
            self.translate(&node, &label, attrs, inputs)
        } else {
            let version = self.graph.opsets.get(&own).copied().unwrap_or(1);
            let name = node.op_type.clone();
            let named = Named { domain: own, name, version, attributes: attrs };
            if is_function || !catalog::knows(&named) {
                self.note(
                    &label,
                    &format!("operator {} is not known, carried unchanged", named.full_name()),
                );
            }
            (Op::Named(named), inputs)
        };
        self.keep_note(&mut node);
        let node = Node { name: node.name, doc: node.doc_string, op, inputs, outputs, captures };
        self.infer(&node);
        self.graph.push_node(node)?;
        Ok(())
    }

    fn attributes(&self, node: &proto::Node, label: &str) -> Result<Attrs, ImportError> {
        let mut attrs = Attrs::new();
        for attribute in &node.attribute {
            let error = |problem: String| ImportError::Attribute {
                node: label.to_owned(),
                op: node.op_type.clone(),
                attribute: attribute.name.clone(),
                problem,
            };
            if attrs.get(&attribute.name).is_some() {
                return Err(error("is given twice".to_owned()));
            }
            attrs.set(&attribute.name, attribute::read(attribute, self.external).map_err(error)?);
        }
        Ok(attrs)
    }

    /// The operator in its newest form with the inputs that it then has, or as it was.
    fn translate(
        &mut self,
        node: &proto::Node,
        label: &str,
        attrs: Attrs,
        inputs: Vec<Option<ValueId>>,
    ) -> (Op, Vec<Option<ValueId>>) {
        let mut draft = Draft {
            name: node.op_type.clone(),
            attrs: attrs.clone(),
            inputs: inputs.clone(),
            n_outputs: node.output.iter().rposition(|it| !it.is_empty()).map_or(0, |it| it + 1),
            constants: BTreeMap::new(),
        };
        let source = Source { opset: self.opset, graph: &self.graph, facts: &self.facts };
        match newest(&mut draft, &source) {
            Ok(op) => {
                for (at, (word, tensor)) in draft.constants {
                    if draft.inputs.len() <= at {
                        draft.inputs.resize(at + 1, None);
                    }
                    let stem =
                        node.output.iter().find(|it| !it.is_empty()).map_or("node", String::as_str);
                    draft.inputs[at] = Some(self.fresh_constant(&format!("{stem}_{word}"), tensor));
                }
                (op, draft.inputs)
            }
            Err(reason) => {
                let named = Named {
                    domain: String::new(),
                    name: node.op_type.clone(),
                    version: self.opset,
                    attributes: attrs,
                };
                if !catalog::knows(&named) {
                    self.note(label, &format!("{}: {reason}; carried unchanged", node.op_type));
                }
                (Op::Named(named), inputs)
            }
        }
    }

    fn fresh_constant(&mut self, stem: &str, tensor: Tensor) -> ValueId {
        let mut name = self.graph.fresh_name(stem);
        while self.taken.contains(&name) {
            name.push('_');
            name = self.graph.fresh_name(&name);
        }
        self.graph.add_fresh_constant(&name, tensor)
    }

    /// Types of what `node` makes, as far as they are needed for the nodes behind it; faults are `verify`'s.
    fn infer(&mut self, node: &Node) {
        self.facts.resize(self.graph.value_count(), None);
        for &id in node.inputs.iter().flatten() {
            if let Some(tensor) = self.graph.constant(id) {
                self.facts[id.index()] = Some(Fact::constant(tensor));
            }
        }
        let captured = node.captures.iter().map(|it| self.facts[it.index()].as_ref());
        let given: Vec<_> = node
            .inputs
            .iter()
            .map(|it| self.facts[(*it)?.index()].as_ref())
            .chain(captured)
            .collect();
        let required = node.op.arity().inputs.0;
        if given.len() < required || node.outputs.is_empty() {
            return;
        }
        let Ok(made) = node.op.infer(&given, node.outputs.len()) else { return };
        for (output, fact) in node.outputs.iter().zip(made) {
            if let (Some(id), Some(fact)) = (output, fact)
                && self.facts[id.index()].as_ref().is_none_or(|it| it.ty.shape.is_none())
            {
                self.facts[id.index()] = Some(fact);
            }
        }
    }

    fn constant_node(&mut self, node: &proto::Node, label: &str) -> Result<(), ImportError> {
        let error = |attribute: &str, problem: String| ImportError::Attribute {
            node: label.to_owned(),
            op: node.op_type.clone(),
            attribute: attribute.to_owned(),
            problem,
        };
        let [attribute] = node.attribute.as_slice() else {
            return Err(error(
                "value",
                format!("expected one attribute, found {}", node.attribute.len()),
            ));
        };
        let name = attribute.name.as_str();
        let tensor = match &attribute.sparse_tensor {
            Some(sparse) => tensor::densify(sparse, self.external),
            None => attribute::read(attribute, self.external).and_then(|it| constant_value(&it)),
        };
        let tensor = tensor.map_err(|it| error(name, it))?;
        let [output] = node.output.as_slice() else {
            return Err(error(name, format!("expected one output, found {}", node.output.len())));
        };
        let id = self.value(output)?;
        if let Some(declared) = &self.graph.value(id).ty
            && !declared.compatible(&tensor.ty())
        {
            return Err(error(
                name,
                format!("it is {}, the file declares {declared}", tensor.ty()),
            ));
        }
        self.facts.resize(self.graph.value_count(), None);
        self.facts[id.index()] = Some(Fact::constant(&tensor));
        self.graph.set_constant(id, tensor);
        Ok(())
    }

    fn keep_note(&mut self, node: &mut proto::Node) {
        let note = NodeNote {
            overload: std::mem::take(&mut node.overload),
            metadata: std::mem::take(&mut node.metadata_props),
            device_configurations: std::mem::take(&mut node.device_configurations),
        };
        if note != NodeNote::default()
            && let Some(output) = node.output.iter().find(|it| !it.is_empty())
        {
            self.envelope.nodes.insert(output.clone(), note);
        }
    }
}

/// How errors call a node: by its name, or by what it makes.
fn label(node: &proto::Node) -> String {
    let output = || node.output.iter().find(|it| !it.is_empty()).cloned();
    if node.name.is_empty() { output().unwrap_or_default() } else { node.name.clone() }
}

/// The tensor that an attribute of a `Constant` node stands for.
fn constant_value(value: &Attr) -> Result<Tensor, String> {
    let text = |list: &[String], shape: Vec<usize>| {
        let mut data = Vec::new();
        for it in list {
            let length = u32::try_from(it.len()).map_err(|_| "a text is above 4 GiB".to_owned())?;
            data.extend(length.to_le_bytes());
            data.extend(it.as_bytes());
        }
        Tensor::new(sartor_ir::DType::Str, shape, data).map_err(|it| it.to_string())
    };
    Ok(match value {
        Attr::Tensor(it) => it.clone(),
        Attr::Int(it) => Tensor::from_i64(&[], &[*it]),
        Attr::Ints(it) => Tensor::from_i64(&[it.len()], it),
        Attr::Float(it) => Tensor::from_f32(&[], &[*it]),
        Attr::Floats(it) => Tensor::from_f32(&[it.len()], it),
        Attr::Str(it) => text(std::slice::from_ref(it), Vec::new())?,
        Attr::Strs(it) => text(it, vec![it.len()])?,
        Attr::Graph(_) | Attr::Foreign(_) => {
            return Err("holds what no constant can hold".to_owned());
        }
    })
}
