//! What is in a file.

use std::collections::BTreeMap;

use sartor_engine::check_support;
use sartor_ir::{Graph, Op, TensorType, ValueId, catalog, infer};
use serde::Serialize;

use crate::{Error, Model};

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type, as `f32[N,3,32,32]`.
    #[serde(rename = "type")]
    pub ty: String,
}

/// What is in a file and what can be done with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Operator set of ONNX's own domain.
    pub opset: i64,
    /// What the network takes.
    pub inputs: Vec<Port>,
    /// What the network gives.
    pub outputs: Vec<Port>,
    /// How often each operator occurs.
    pub operators: BTreeMap<String, usize>,
    /// Trained values: elements of constants that operators with weights read.
    pub parameters: u64,
    /// Multiply-accumulates of one sample; `None` where a shape is not known.
    pub macs: Option<u64>,
    /// Operators that nobody here knows, with how often they occur; they travel through untouched.
    pub opaque: BTreeMap<String, usize>,
    /// What the engine cannot run, node by node.
    pub not_run: Vec<String>,
    /// Nodes with weights that quantization can store as integers.
    pub quantizable: usize,
    /// Groups of channels that may be pruned, and those that may not.
    pub prunable: [usize; 2],
    /// What the reader remarked.
    pub diagnostics: Vec<String>,
}

/// Looks at a network without running it.
///
/// # Errors
/// A pass that broke the graph, or shapes that do not fit.
pub fn inspect(model: &Model) -> Result<Inspection, Error> {
    let mut typed = model.graph.clone();
    infer(&mut typed).map_err(|it| Error::Invalid(it.to_string()))?;
    let clean = model.simplified()?;
    let groups = sartor_compress::prune::groups(&clean)?;
    let (mut operators, mut opaque) = (BTreeMap::new(), BTreeMap::new());
    for (_, node) in model.graph.nodes() {
        *operators.entry(node.op.name().to_owned()).or_default() += 1;
        if let Op::Named(it) = &node.op
            && !catalog::knows(it)
        {
            *opaque.entry(it.full_name()).or_default() += 1;
        }
    }
    Ok(Inspection {
        opset: model.graph.opsets.get("").copied().unwrap_or_default(),
        inputs: ports(&typed, typed.inputs()),
        outputs: ports(&typed, typed.outputs()),
        operators,
        parameters: parameters(&clean),
        macs: sartor_cost::macs(&clean, 1).ok().map(|it| it.0),
        opaque,
        not_run: check_support(&clean).iter().map(ToString::to_string).collect(),
        quantizable: clean.nodes().filter(|(_, it)| has_weight(&clean, it)).count(),
        prunable: [groups.prunable().count(), groups.frozen().count()],
        diagnostics: remarks(model),
    })
}

fn remarks(model: &Model) -> Vec<String> {
    let damage = model.check_numbers().err().map(|it| it.to_string());
    model.diagnostics.iter().map(ToString::to_string).chain(damage).collect()
}

/// Inputs or outputs with their types.
pub(crate) fn ports(graph: &Graph, ids: &[ValueId]) -> Vec<Port> {
    let one = |id: &ValueId| {
        let value = graph.value(*id);
        let ty = value.ty.as_ref().map_or_else(|| "?".to_owned(), TensorType::to_string);
        Port { name: value.name.clone(), ty }
    };
    ids.iter().map(one).collect()
}

fn has_weight(graph: &Graph, node: &sartor_ir::Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul)
        && graph.constant_input(node, 1).is_some()
}

/// Elements of the constants that weighted operators read, behind `DequantizeLinear` too, each once.
pub(crate) fn parameters(graph: &Graph) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    for (_, node) in graph.nodes() {
        let weighted = matches!(
            node.op,
            Op::Conv(_)
                | Op::Gemm(_)
                | Op::MatMul
                | Op::BatchNormalization(_)
                | Op::PRelu
                | Op::Named(_)
        );
        for id in node.reads().filter(|_| weighted) {
            let behind = graph
                .producer(id)
                .map(|it| graph.node(it))
                .filter(|it| matches!(it.op, Op::DequantizeLinear(_)));
            seen.insert(behind.and_then(|it| it.input(0)).unwrap_or(id));
        }
    }
    seen.iter().filter_map(|id| graph.constant(*id)).map(|it| it.len() as u64).sum()
}
