//! From a graph to drafts of steps: what is constant, what is dead, what moves nothing, what fuses.

mod blocked;
mod constants;
mod fuse;
mod integer;
mod open;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sartor_ir::{DType, Fact, Graph, Node, NodeId, Op, Value, ValueId, catalog, infer_facts};

use super::{Action, Options, Program, memory, parts::Parts};
use crate::{
    Array, EngineError,
    array::storage,
    error::node_name,
    kernel::{self, Site},
    reference::named::control::Bodies,
    simd::{self, Level},
    stage::Stage,
    support,
};

/// A step whose values have no place yet.
pub(super) struct Draft {
    pub(super) node: String,
    pub(super) kind: String,
    pub(super) action: Action,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) outputs: Vec<Option<ValueId>>,
    pub(super) stages: Vec<Stage>,
}

impl Draft {
    /// Makes a stage part of the kernel, if nothing stands between and it can.
    fn absorb(&mut self, stage: &Stage) -> bool {
        match &mut self.action {
            Action::Fast(kernel) => self.stages.is_empty() && kernel.absorb(stage),
            _ => false,
        }
    }
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
    /// The instruction set of the kernels whose layout depends on it.
    level: Level,
    /// The values that there are, behind the graph's own, in blocked channels.
    twins: BTreeMap<ValueId, ValueId>,
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
    if !options.float_simulation {
        let facts = infer_facts(graph, &types)?;
        let wanted = options.watch.iter().chain(graph.outputs()).copied().collect();
        if let Some(opened) = open::opened(graph, &facts, &wanted) {
            return lower(&opened, shapes, options);
        }
    }
    // What is not opened, for integer kernels, is run as its parts.
    let apart = catalog::expanded(graph, &types)?;
    let graph = apart.as_ref().unwrap_or(graph);
    let (whole, live) = Lowering::begin(graph, shapes, options, None)?;
    if options.watch.is_empty()
        && let Some(parts) = Parts::plan(graph, &whole.facts, shapes)
        && let cut = parts.shapes(shapes)
        && let Ok((part, live)) = Lowering::begin(graph, &cut, options, Some(&whole))
        && parts.separate(&live, &whole, &part)
        && let Some(program) = memory::place(part.finish(&live), &cut)?.of_parts(parts)
    {
        return Ok(program);
    }
    memory::place(whole.finish(&live), shapes)
}

impl<'g> Lowering<'g> {
    /// Shapes, constants and what shares memory; also the nodes that are left to run, in order. Constants of the graph
    /// are those of `known`, where given.
    fn begin(
        graph: &'g Graph,
        shapes: &[Vec<usize>],
        options: &Options,
        known: Option<&Self>,
    ) -> Result<(Self, Vec<NodeId>), EngineError> {
        let facts = infer_facts(graph, &support::input_types(graph, shapes)?)?;
        let watched: BTreeSet<_> = options.watch.iter().copied().collect();
        let wanted = watched.iter().chain(graph.outputs()).copied().collect();
        let constant = |(id, value): (ValueId, &Value)| {
            value.constant.as_ref().and(known).and_then(|it| it.constants[id.index()].clone())
        };
        let mut it = Lowering {
            graph,
            facts,
            wanted,
            watched,
            constants: graph.values().map(constant).collect(),
            integers: integer::Integers::default(),
            fake: BTreeSet::new(),
            level: simd::level(),
            twins: BTreeMap::new(),
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
        Ok((it, live))
    }

    /// Adds all steps.
    fn finish(mut self, live: &[NodeId]) -> Self {
        for &id in live {
            let node = self.graph.node(id);
            if self.root[node.output().index()] == node.output() {
                if !self.add_integer(id) {
                    self.add_step(node);
                }
                self.show_outputs(node);
            }
        }
        self
    }
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

    /// Whether a constant is the same in another lowering of the same graph.
    pub(super) fn same_constant(&self, other: &Self, id: ValueId) -> bool {
        let arrays = [self, other].map(|it| it.constants[id.index()].as_ref());
        let [Some(a), Some(b)] = arrays else { return false };
        Arc::ptr_eq(a, b) || (a.shape == b.shape && a.data == b.data)
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
        if self.add_blocked(node) || self.add_stage(node) || self.add_fast(node) {
            self.round_outputs(node);
            return;
        }
        node.reads().for_each(|it| self.need_plain(it));
        let dtype = |it: &Option<ValueId>| {
            it.and_then(|it| self.facts[it.index()].as_ref()).map_or(DType::F32, |it| it.ty.dtype)
        };
        let dtypes = node.outputs.iter().map(dtype).collect();
        let action = Action::Reference { op: node.op.clone(), dtypes, bodies: Bodies::default() };
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
                && let Some(&at) = self.maker.get(self.twins.get(output).unwrap_or(output))
            {
                self.drafts[at].stages.push(Stage::Round(dtype));
            }
        }
    }

    /// Makes what others than nodes want to see.
    fn show_outputs(&mut self, node: &Node) {
        for &output in node.outputs.iter().flatten() {
            if self.pinned.contains(&output) {
                self.need_plain(output);
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
            inputs.iter().flatten().for_each(|&it| self.need_plain(it));
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
        let names = (node_name(self.graph, node), node.op.name().to_owned());
        self.push_draft(names, action, inputs, outputs);
    }
}
