//! From a graph to drafts of steps: what is constant, what is dead, what moves nothing, what fuses.

mod constants;
mod fuse;
mod integer;
mod open;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sartor_ir::{DType, Fact, Graph, Node, NodeId, Op, ValueId, catalog, infer_facts};

use super::{Action, Options, Program, memory};
use crate::{
    Array, EngineError,
    array::storage,
    error::node_name,
    kernel::{self, Site},
    stage::Stage,
    support,
};

/// A step whose values have no place yet.
pub(super) struct Draft {
    pub(super) node: String,
    pub(super) action: Action,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) outputs: Vec<Option<ValueId>>,
    pub(super) stages: Vec<Stage>,
}

/// The graph under way.
pub(super) struct Lowering<'g> {
    pub(super) graph: &'g Graph,
    pub(super) facts: Vec<Option<Fact>>,
    /// Values that must be there as such: watched ones and outputs.
    pub(super) wanted: BTreeSet<ValueId>,
    pub(super) watched: BTreeSet<ValueId>,
    /// What follows from constants, by value.
    pub(super) constants: Vec<Option<Arc<Array>>>,
    integers: integer::Integers,
    /// Quantized values that only matching dequantizations read: kept as floats.
    fake: BTreeSet<ValueId>,
    /// The value whose memory a value shares.
    pub(super) root: Vec<ValueId>,
    /// How often nodes read the memory of a root.
    reads: BTreeMap<ValueId, usize>,
    /// Roots that must be there as such.
    pinned: BTreeSet<ValueId>,
    pub(super) drafts: Vec<Draft>,
    /// The draft that makes a root.
    pub(super) maker: BTreeMap<ValueId, usize>,
}

pub(super) fn lower(
    graph: &Graph,
    shapes: &[Vec<usize>],
    options: &Options,
) -> Result<Program, EngineError> {
    let types = support::input_types(graph, shapes)?;
    let facts = infer_facts(graph, &types)?;
    let watched: BTreeSet<_> = options.watch.iter().copied().collect();
    let wanted: BTreeSet<_> = watched.iter().chain(graph.outputs()).copied().collect();
    if !options.float_simulation
        && let Some(opened) = open::opened(graph, &facts, &wanted)
    {
        return lower(&opened, shapes, options);
    }
    // What is not opened, for integer kernels, is run as its parts.
    let apart = catalog::expanded(graph, &types)?;
    let (graph, facts) = match &apart {
        Some(apart) => (apart, infer_facts(apart, &types)?),
        None => (graph, facts),
    };
    let mut it = Lowering {
        graph,
        facts,
        wanted,
        watched,
        constants: vec![None; graph.value_count()],
        integers: integer::Integers::default(),
        fake: BTreeSet::new(),
        root: graph.values().map(|(id, _)| id).collect(),
        reads: BTreeMap::new(),
        pinned: BTreeSet::new(),
        drafts: Vec::new(),
        maker: BTreeMap::new(),
    };
    let live = it.fold_constants()?;
    if !options.float_simulation {
        it.find_integers(&live);
    }
    it.find_fake_quantization(&live);
    it.find_shared_memory(&live);
    for &id in &live {
        let node = graph.node(id);
        if it.root[node.output().index()] == node.output() && !it.add_integer(id) {
            it.add_step(node);
        }
    }
    memory::place(it, shapes)
}

impl Lowering<'_> {
    /// The extents of a value, if they are known.
    pub(super) fn shape(&self, id: ValueId) -> Option<Vec<usize>> {
        match &self.constants[id.index()] {
            Some(array) => Some(array.shape.clone()),
            None => self.facts[id.index()].as_ref()?.ty.dims(),
        }
    }

    /// Whether a value is kept as floats of a known shape.
    pub(super) fn is_float(&self, id: ValueId) -> bool {
        let dtype = match &self.constants[id.index()] {
            Some(array) => Some(array.dtype()),
            None => self.facts[id.index()].as_ref().and_then(|it| storage(it.ty.dtype)),
        };
        (self.fake.contains(&id) || dtype == Some(DType::F32)) && self.shape(id).is_some()
    }

    pub(super) fn constant(&self, node: &Node, i: usize) -> Option<&Arc<Array>> {
        self.constants[node.input(i)?.index()].as_ref()
    }

    fn site<'n>(&self, node: &'n Node, output: usize) -> Option<Site<'n>> {
        Some(Site {
            node,
            shapes: node.inputs.iter().map(|it| it.and_then(|it| self.shape(it))).collect(),
            constants: (0..node.inputs.len()).map(|i| self.constant(node, i).cloned()).collect(),
            shape: self.shape(node.outputs.get(output).copied().flatten()?)?,
            output,
        })
    }

    /// Finds the values that share their input's memory, and counts who reads what.
    fn find_shared_memory(&mut self, live: &[NodeId]) {
        for &id in live {
            if self.integers.takes(id) {
                continue;
            }
            let node = self.graph.node(id);
            if self.moves_nothing(node)
                && let Some(input) = node.input(0)
            {
                self.root[node.output().index()] = self.root[input.index()];
                continue;
            }
            for input in node.reads() {
                *self.reads.entry(self.root[input.index()]).or_default() += 1;
            }
        }
        self.pinned = self.wanted.iter().map(|it| self.root[it.index()]).collect();
    }

    /// Whether the first output has the elements of input 0 in the same order.
    fn moves_nothing(&self, node: &Node) -> bool {
        let (Some(input), output) = (node.input(0), node.output()) else { return false };
        let (Some(from), Some(_)) = (self.shape(input), self.shape(output)) else { return false };
        let dtypes =
            [input, output].map(|it| self.facts[it.index()].as_ref().map(|it| it.ty.dtype));
        match &node.op {
            Op::Identity | Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze => true,
            Op::Dropout => node.outputs.get(1).copied().flatten().is_none(),
            Op::Cast(_) => dtypes[0].is_some() && dtypes[0] == dtypes[1],
            Op::DequantizeLinear(_) => self.fake.contains(&input),
            Op::Transpose(_) | Op::Slice | Op::Expand => self
                .site(node, 0)
                .and_then(|it| kernel::view(&it))
                .is_some_and(|it| it.is_identity(from.iter().product())),
            _ => false,
        }
    }

    fn add_step(&mut self, node: &Node) {
        if self.add_stage(node) || self.add_fast(node) {
            self.round_outputs(node);
            return;
        }
        let dtype = |it: &Option<ValueId>| {
            it.and_then(|it| self.facts[it.index()].as_ref()).map_or(DType::F32, |it| it.ty.dtype)
        };
        let dtypes = node.outputs.iter().map(dtype).collect();
        let action = Action::Reference { op: node.op.clone(), dtypes };
        // What a body captures follows the inputs.
        let captured = node.captures.iter().map(|&it| Some(it));
        let inputs = node.inputs.iter().copied().chain(captured).collect();
        self.push(node, action, inputs, node.outputs.clone());
    }

    /// Narrow floats are computed in `f32`; what a node makes is rounded to its type.
    fn round_outputs(&mut self, node: &Node) {
        for output in node.outputs.iter().flatten() {
            let dtype = self.facts[output.index()].as_ref().map(|it| it.ty.dtype);
            if let Some(dtype) = dtype
                && dtype.is_narrow_float()
                && let Some(&at) = self.maker.get(output)
            {
                self.drafts[at].stages.push(Stage::Round(dtype));
            }
        }
    }

    /// One fast kernel for each output, if there is one for all of them.
    fn add_fast(&mut self, node: &Node) -> bool {
        let mut made = Vec::new();
        for (i, output) in node.outputs.iter().enumerate() {
            let Some(output) = *output else { continue };
            if !self.is_float(output) {
                return false;
            }
            let Some(prepared) = self.site(node, i).and_then(|it| kernel::prepare(&it)) else {
                return false;
            };
            let inputs: Vec<_> = prepared.inputs.iter().map(|&it| node.input(it)).collect();
            if !inputs.iter().all(|it| it.is_some_and(|it| self.is_float(it))) {
                return false;
            }
            made.push((prepared.kernel, inputs, output));
        }
        for (kernel, inputs, output) in made {
            self.push(node, Action::Fast(kernel), inputs, vec![Some(output)]);
        }
        true
    }

    fn push(
        &mut self,
        node: &Node,
        action: Action,
        inputs: Vec<Option<ValueId>>,
        outputs: Vec<Option<ValueId>>,
    ) {
        for &output in outputs.iter().flatten() {
            self.maker.insert(output, self.drafts.len());
        }
        let node = node_name(self.graph, node);
        self.drafts.push(Draft { node, action, inputs, outputs, stages: Vec::new() });
    }
}
