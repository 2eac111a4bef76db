//! From a graph to the steps of a tape.

use std::collections::BTreeSet;

use sartor_ir::{
    DType, Fact, Graph, Node, NodeId, Op, QuantizeLinear, TensorType, ValueId, infer_facts,
};

use super::{
    BatchNormMode, TapeOptions,
    fuse::{Values, fuse},
    parameters::statistics,
    pool::Pool,
    retention::Retention,
    tape::{Input, Kept, Role, Source, Step, Tape},
};
use crate::{
    Array, EngineError, Unsupported, array::storage, error::node_name, reference, support,
};

pub(super) fn prepare(
    graph: &Graph,
    shapes: &[Vec<usize>],
    options: &TapeOptions,
    fast: bool,
) -> Result<Tape, EngineError> {
    let types = support::input_types(graph, shapes)?;
    let facts = infer_facts(graph, &types)?;
    let mut it = Preparation {
        graph,
        options,
        facts,
        statistics: statistics(graph),
        sources: Vec::new(),
        active: vec![false; graph.value_count()],
        steps: Vec::new(),
    };
    it.find_sources();
    for id in it.live_nodes() {
        it.add(graph.node(id))?;
    }
    it.finish(shapes, fast)
}

struct Preparation<'a> {
    graph: &'a Graph,
    options: &'a TapeOptions,
    facts: Vec<Option<Fact>>,
    statistics: Vec<ValueId>,
    sources: Vec<Source>,
    /// Values that get a gradient.
    active: Vec<bool>,
    steps: Vec<Step>,
}

impl Preparation<'_> {
    /// Where each value comes from, before any node has run.
    fn find_sources(&mut self) {
        for (id, value) in self.graph.values() {
            let position = |list: &[ValueId]| list.iter().position(|it| *it == id);
            let source = if let Some(i) = position(&self.options.parameters) {
                self.active[id.index()] = true;
                Source::Parameter(i)
            } else if let Some(i) = position(&self.statistics) {
                Source::Statistic(i)
            } else if let Some(i) = position(self.graph.inputs()) {
                Source::Input(i)
            } else if let Some(tensor) = &value.constant {
                Array::from_tensor(tensor).map_or(Source::None, Source::Constant)
            } else {
                self.follows_from_shapes(id).map_or(Source::None, Source::Constant)
            };
            self.sources.push(source);
        }
        for &id in &self.options.watch {
            self.active[id.index()] |= self.dtype(id).is_none_or(DType::is_float);
        }
    }

    /// Contents that follow from shapes alone.
    fn follows_from_shapes(&self, id: ValueId) -> Option<Array> {
        self.graph.producer(id)?;
        let fact = self.facts[id.index()].as_ref()?;
        Array::from_tensor(&fact.value.as_ref()?.to_tensor(fact.ty.dtype)?)
    }

    fn dtype(&self, id: ValueId) -> Option<DType> {
        self.facts[id.index()].as_ref().map(|it| it.ty.dtype)
    }

    fn is_constant(&self, id: ValueId) -> bool {
        matches!(self.sources[id.index()], Source::Constant(_))
    }

    /// The nodes on which an output or a watched value depends, in order.
    fn live_nodes(&self) -> Vec<NodeId> {
        let wanted = self.graph.outputs().iter().chain(&self.options.watch);
        let mut needed: BTreeSet<ValueId> = wanted.copied().collect();
        let mut live = Vec::new();
        for (id, node) in self.graph.nodes().rev() {
            let asked = |it: &ValueId| needed.contains(it) && !self.is_constant(*it);
            if node.outputs.iter().flatten().any(asked) {
                needed.extend(node.reads());
                live.push(id);
            }
        }
        live.reverse();
        live
    }

    /// Makes a step of a node, or computes it now if it depends on constants alone.
    fn add(&mut self, node: &Node) -> Result<(), EngineError> {
        self.check(node)?;
        let fixed = node.reads().all(|it| self.is_constant(it)) && !node.inputs.is_empty();
        if fixed && !matches!(node.op, Op::Dropout) {
            return self.evaluate(node);
        }
        let reads: Vec<Option<usize>> = inputs_of(node).map(|it| it.map(ValueId::index)).collect();
        let wanted: Vec<bool> =
            reads.iter().map(|it| it.is_some_and(|it| self.active[it])).collect();
        let carries = wanted.iter().any(|it| *it);
        for &output in node.outputs.iter().flatten() {
            let float = self.dtype(output).is_none_or(DType::is_float);
            let through = matches!(node.op, Op::QuantizeLinear(_));
            self.active[output.index()] |= carries && (float || through);
            self.sources[output.index()] = Source::Made;
        }
        self.steps.push(Step {
            node: node_name(self.graph, node),
            role: self.role(node),
            op: self.typed(node),
            inputs: reads,
            outputs: node.outputs.iter().map(|it| it.map(ValueId::index)).collect(),
            dtypes: self.dtypes(node),
            wanted,
            fast: None,
        });
        Ok(())
    }

    /// The operator; one that quantizes says to which type, which its arrays alone do not (4-bit integers
    /// are held as bytes).
    fn typed(&self, node: &Node) -> Op {
        match &node.op {
            Op::QuantizeLinear(it) => {
                let output_dtype = self.dtype(node.output()).or(it.output_dtype);
                Op::QuantizeLinear(QuantizeLinear { output_dtype, ..it.clone() })
            }
            op => op.clone(),
        }
    }

    /// What training makes of a node.
    fn role(&self, node: &Node) -> Role {
        let statistic = |i: usize| match self.sources[node.input(i)?.index()] {
            Source::Statistic(at) => Some(at),
            _ => None,
        };
        match (&node.op, self.options.batch_norm) {
            (Op::Dropout, _) => Role::Dropout,
            (Op::BatchNormalization(it), BatchNormMode::Train) => {
                match (statistic(3), statistic(4)) {
                    (Some(mean), Some(var)) => Role::BatchNorm { it: it.clone(), mean, var },
                    _ => Role::Plain,
                }
            }
            _ => Role::Plain,
        }
    }

    fn dtypes(&self, node: &Node) -> Vec<DType> {
        let dtype = |it: &Option<ValueId>| it.and_then(|it| self.dtype(it)).unwrap_or(DType::F32);
        node.outputs.iter().map(dtype).collect()
    }

    fn check(&self, node: &Node) -> Result<(), EngineError> {
        let dtype = |it: &Option<ValueId>| it.and_then(|it| self.dtype(it));
        let inputs: Vec<_> = node.inputs.iter().map(dtype).collect();
        let outputs: Vec<_> = node.outputs.iter().filter_map(dtype).collect();
        let refuse = |reason| {
            let (node, op) = (node_name(self.graph, node), node.op.name().to_owned());
            Err(EngineError::Unsupported(Unsupported { node, op, reason }))
        };
        support::unsupported(&node.op, &inputs, &outputs).map_or(Ok(()), refuse)
    }

    fn evaluate(&mut self, node: &Node) -> Result<(), EngineError> {
        let constant = |it: Option<ValueId>| match &self.sources[it?.index()] {
            Source::Constant(array) => Some(array),
            _ => None,
        };
        let given: Vec<_> = inputs_of(node).map(constant).collect();
        let made =
            reference::evaluate(&node.op, &given, &self.dtypes(node)).map_err(|problem| {
                EngineError::Kernel {
                    node: node_name(self.graph, node),
                    op: node.op.name().to_owned(),
                    shapes: reference::shapes_of(&given),
                    problem,
                }
            })?;
        for (output, array) in node.outputs.iter().zip(made) {
            if let Some(output) = output {
                self.sources[output.index()] = Source::Constant(array);
            }
        }
        Ok(())
    }

    fn finish(mut self, shapes: &[Vec<usize>], fast: bool) -> Result<Tape, EngineError> {
        for step in &self.steps {
            for &read in step.inputs.iter().flatten() {
                self.defined(read)?;
            }
        }
        for id in self.graph.outputs() {
            self.defined(id.index())?;
        }
        let inputs = self.inputs(shapes)?;
        let marks = |lists: &[&[ValueId]]| {
            let mut marks = vec![false; self.sources.len()];
            lists.iter().copied().flatten().for_each(|it| marks[it.index()] = true);
            marks
        };
        let watched = marks(&[&self.options.watch]);
        let pinned = marks(&[&self.options.watch, self.graph.outputs()]);
        let types = || self.facts.iter().map(|it| it.as_ref().map(|it| &it.ty));
        let extents: Vec<_> = types().map(|it| it.and_then(TensorType::dims)).collect();
        let mut steps = std::mem::take(&mut self.steps);
        if fast {
            let dtypes: Vec<_> = types().map(|it| it.map(|it| it.dtype)).collect();
            steps = fuse(
                steps,
                &Values {
                    shapes: &extents,
                    dtypes: &dtypes,
                    sources: &self.sources,
                    pinned: &pinned,
                    watched: &watched,
                    unrounded: self.options.unrounded,
                },
            );
        }
        self.check_unrounded(&steps)?;
        let retention = Retention::new(&steps, &pinned, &watched);
        let none: Vec<Option<Array>> = vec![None; self.sources.len()];
        Ok(Tape {
            inputs,
            outputs: self.graph.outputs().iter().map(|it| it.index()).collect(),
            active: self.active,
            parameters: self.options.parameters.clone(),
            statistics: self.statistics,
            shapes: extents,
            watched,
            retention,
            seed: self.options.seed,
            runs: 0,
            ready: false,
            given: Vec::new(),
            values: none.clone(),
            gradients: none,
            kept: steps.iter().map(|_| Kept::Nothing).collect(),
            sources: self.sources,
            steps,
            pool: Pool::default(),
            held: 0,
            peak: 0,
        })
    }

    /// Refuses a share of unrounded elements where a quantizer cannot leave them so.
    fn check_unrounded(&self, steps: &[Step]) -> Result<(), EngineError> {
        let share = self.options.unrounded;
        if !(0.0..=1.0).contains(&share) {
            let problem = format!("the share of unrounded elements is {share}, expected 0 to 1");
            return Err(EngineError::Training(problem));
        }
        let rounds = |it: &&Step| matches!(it.op, Op::QuantizeLinear(_)) && it.fast.is_none();
        match steps.iter().find(rounds) {
            Some(step) if share > 0.0 => Err(EngineError::Training(format!(
                "node `{}`: unrounded elements need a `QuantizeLinear` and a `DequantizeLinear` behind it that share \
                 one scale, and the fast kernels",
                step.node
            ))),
            _ => Ok(()),
        }
    }

    fn inputs(&self, shapes: &[Vec<usize>]) -> Result<Vec<Input>, EngineError> {
        let mut inputs = Vec::with_capacity(shapes.len());
        for (&id, shape) in self.graph.inputs().iter().zip(shapes) {
            let value = self.graph.value(id);
            let dtype = value.ty.as_ref().map_or(DType::F32, |it| it.dtype);
            let name = value.name.clone();
            let Some(dtype) = storage(dtype) else {
                return Err(EngineError::ConstantType { name, dtype });
            };
            inputs.push(Input { name, dtype, shape: shape.clone() });
        }
        Ok(inputs)
    }

    fn defined(&self, index: usize) -> Result<(), EngineError> {
        match self.sources[index] {
            Source::None => {
                let mut values = self.graph.values();
                let name = values.nth(index).map(|it| it.1.name.clone()).unwrap_or_default();
                Err(EngineError::Undefined(name))
            }
            _ => Ok(()),
        }
    }
}

/// The inputs of a node, then the values that its subgraphs capture.
fn inputs_of(node: &Node) -> impl Iterator<Item = Option<ValueId>> {
    node.inputs.iter().copied().chain(node.captures.iter().copied().map(Some))
}
