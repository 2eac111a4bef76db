//! Which indices of which axes live and die together: union-find over single indices.
//!
//! A *cell* is one index of one axis of one value. Every [`AxisLink`] of every operator ties cells; the
//! classes that remain are the channels of `DepGraph` (Fang et al. 2023, <https://arxiv.org/abs/2301.12900>),
//! found for single indices rather than for whole layers, so that concatenations, blocks and padded
//! shortcuts need no case of their own. An axis on which some operator has no link, or which a graph input
//! or output shows, is *frozen*: its classes may not be removed.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{
    AxisLink, Consumers, Dim, Fact, Graph, IndexMap, InferError, Node, NodeId, Op, Pool, PoolKind,
    Port, Reshape, TensorType, ValueId, infer_facts,
};

/// Why an axis may lose no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Freeze {
    /// A graph input shows it.
    Input(ValueId),
    /// A graph output shows it.
    Output(ValueId),
    /// A subgraph reads the value by name.
    Captured(ValueId),
    /// The operator says so.
    Node(NodeId, &'static str),
}

impl Freeze {
    /// For a person, naming the node or value.
    pub(super) fn reason(self, graph: &Graph) -> String {
        let name = |id: ValueId| &graph.value(id).name;
        match self {
            Freeze::Input(id) => format!("`{}` is a graph input", name(id)),
            Freeze::Output(id) => format!("`{}` is a graph output", name(id)),
            Freeze::Captured(id) => format!("a subgraph reads `{}`", name(id)),
            Freeze::Node(id, why) => {
                let node = graph.node(id);
                format!("node `{}` ({}): {why}", node_name(graph, node), node.op.name())
            }
        }
    }
}

/// The node's name, or its first output's where it has none.
pub(crate) fn node_name<'a>(graph: &'a Graph, node: &'a Node) -> &'a str {
    match node.outputs.iter().flatten().next() {
        Some(&output) if node.name.is_empty() => &graph.value(output).name,
        _ => &node.name,
    }
}

/// An axis of a value and its run of cells.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "an axis is what the number is called everywhere else"
)]
pub(super) struct Axis {
    /// The value.
    pub(super) value: ValueId,
    /// Axis of the value.
    pub(super) axis: usize,
    /// Number of cells; 0 where the extent is not known.
    pub(super) extent: usize,
    /// First cell.
    pub(super) start: usize,
    /// Why it may lose no index, if so.
    pub(super) frozen: Option<Freeze>,
}

/// All axes of all values that nodes touch, with their ties.
pub(super) struct Ties {
    pub(super) axes: Vec<Axis>,
    /// Position in `axes` of axis 0, and the rank, by value.
    first: Vec<Option<(usize, usize)>>,
    parents: Vec<usize>,
}

impl Ties {
    /// The ties of a graph.
    pub(super) fn of(graph: &Graph) -> Result<(Ties, Vec<Option<Fact>>), InferError> {
        let facts = infer_facts(graph, &BTreeMap::new())?;
        let mut ties =
            Ties { axes: Vec::new(), first: vec![None; graph.value_count()], parents: Vec::new() };
        for (id, _) in graph.values() {
            if let Some(shape) = facts[id.index()].as_ref().and_then(|it| it.ty.shape.as_ref()) {
                ties.add(id, shape);
            }
        }
        for (list, freeze) in [
            (graph.inputs(), Freeze::Input as fn(ValueId) -> Freeze),
            (graph.outputs(), Freeze::Output),
        ] {
            for &id in list {
                ties.freeze_value(id, freeze(id));
            }
        }
        let consumers = graph.consumers();
        for (id, node) in graph.nodes() {
            ties.add_node(graph, &consumers, &facts, id, node);
        }
        Ok((ties, facts))
    }

    fn add(&mut self, value: ValueId, shape: &[Dim]) {
        self.first[value.index()] = Some((self.axes.len(), shape.len()));
        for (axis, dim) in shape.iter().enumerate() {
            let extent = dim.known().unwrap_or(0);
            let start = self.parents.len();
            self.parents.extend(start..start + extent);
            self.axes.push(Axis { value, axis, extent, start, frozen: None });
        }
    }

    /// Position in `axes`.
    pub(super) fn position(&self, value: ValueId, axis: usize) -> Option<usize> {
        let (first, rank) = self.first[value.index()]?;
        (axis < rank).then_some(first + axis)
    }

    /// The representative of a cell's class.
    pub(super) fn root(&mut self, mut cell: usize) -> usize {
        while self.parents[cell] != cell {
            self.parents[cell] = self.parents[self.parents[cell]];
            cell = self.parents[cell];
        }
        cell
    }

    fn freeze(&mut self, at: usize, freeze: Freeze) {
        self.axes[at].frozen.get_or_insert(freeze);
    }

    fn freeze_value(&mut self, value: ValueId, freeze: Freeze) {
        if let Some((first, rank)) = self.first[value.index()] {
            (first..first + rank).for_each(|at| self.freeze(at, freeze));
        }
    }

    fn add_node(
        &mut self,
        graph: &Graph,
        consumers: &Consumers,
        facts: &[Option<Fact>],
        id: NodeId,
        node: &Node,
    ) {
        let fact = |it: &Option<ValueId>| it.and_then(|it| facts[it.index()].as_ref());
        let inputs: Vec<Option<&Fact>> = node.inputs.iter().map(fact).collect();
        let outputs: Vec<Option<&TensorType>> =
            node.outputs.iter().map(|it| fact(it).map(|it| &it.ty)).collect();
        let mut linked = BTreeSet::new();
        for link in node.op.axes(&inputs, &outputs) {
            match link {
                AxisLink::Tied { a, b, map } => {
                    linked.extend([a, b]);
                    self.tie(self.at(node, a), self.at(node, b), map, id);
                }
                AxisLink::Free { at } => drop(linked.insert(at)),
                AxisLink::Fixed { at, reason } => {
                    linked.insert(at);
                    if let Some(at) = self.at(node, at) {
                        self.freeze(at, Freeze::Node(id, reason));
                    }
                }
            }
        }
        let ports = ports(node);
        for &(port, value) in &ports {
            let Some((first, rank)) = self.first[value.index()] else { continue };
            for axis in (0..rank).filter(|&axis| !linked.contains(&(port, axis))) {
                self.freeze(
                    first + axis,
                    Freeze::Node(id, "this operator does not pass the axis on index by index"),
                );
            }
        }
        for (port, axis, why) in limits(graph, consumers, facts, id) {
            let values = ports.iter().filter(|it| it.0 == port);
            for &(_, value) in values {
                match axis {
                    None => self.freeze_value(value, Freeze::Node(id, why)),
                    Some(axis) => self.position(value, axis).into_iter().for_each(|at| {
                        self.freeze(at, Freeze::Node(id, why));
                    }),
                }
            }
        }
        node.captures.iter().for_each(|&it| self.freeze_value(it, Freeze::Captured(it)));
    }

    fn at(&self, node: &Node, (port, axis): (Port, usize)) -> Option<usize> {
        self.position(value_at(node, port)?, axis)
    }

    /// Ties two axes; where the extents do not allow it, both are frozen.
    fn tie(&mut self, a: Option<usize>, b: Option<usize>, map: IndexMap, node: NodeId) {
        let (Some(a), Some(b)) = (a, b) else {
            let freeze = Freeze::Node(node, "the axis is tied to one of unknown rank");
            a.into_iter().chain(b).for_each(|at| self.freeze(at, freeze));
            return;
        };
        let (of_a, of_b) = (self.axes[a].clone(), self.axes[b].clone());
        let why = match map {
            IndexMap::Strided { step, .. } if step != 1 => {
                Some("a window with a step cannot lose single indices")
            }
            _ if of_a.extent == 0 || of_b.extent == 0 => {
                Some("the axis is tied to one of unknown extent")
            }
            _ if (0..of_a.extent).any(|i| map.targets(i).any(|j| j >= of_b.extent)) => {
                Some("the axis is tied to one that is shorter")
            }
            _ => None,
        };
        if let Some(why) = why {
            self.freeze(a, Freeze::Node(node, why));
            self.freeze(b, Freeze::Node(node, why));
            return;
        }
        for i in 0..of_a.extent {
            for j in map.targets(i) {
                let (x, y) = (self.root(of_a.start + i), self.root(of_b.start + j));
                self.parents[x.max(y)] = x.min(y);
            }
        }
    }
}

fn value_at(node: &Node, port: Port) -> Option<ValueId> {
    match port {
        Port::Input(i) => node.input(i),
        Port::Output(i) => node.outputs.get(i).copied().flatten(),
    }
}

fn ports(node: &Node) -> Vec<(Port, ValueId)> {
    let list = |ids: &[Option<ValueId>], port: fn(usize) -> Port| -> Vec<_> {
        ids.iter().enumerate().filter_map(|(i, id)| id.map(|id| (port(i), id))).collect()
    };
    [list(&node.inputs, Port::Input), list(&node.outputs, Port::Output)].concat()
}

/// What the axis links allow but a removal could not carry out, or could not carry out faithfully: ports with
/// an axis (`None`: all axes) and the reason.
fn limits(
    graph: &Graph,
    consumers: &Consumers,
    facts: &[Option<Fact>],
    id: NodeId,
) -> Vec<(Port, Option<usize>, &'static str)> {
    let node = graph.node(id);
    let second_output =
        node.outputs.get(1).copied().flatten().is_some_and(|it| graph.is_used(it, consumers));
    match &node.op {
        Op::Conv(_) | Op::Gemm(_) | Op::MatMul => {
            let weight =
                |i: usize| graph.constant_input(node, i).is_some_and(|it| it.dtype().is_float());
            if weight(1) || (node.op == Op::MatMul && weight(0)) {
                return Vec::new();
            }
            let why = "a product without a constant float weight sums over the axis";
            vec![
                (Port::Input(0), reduced_axis(&node.op, 0, facts, node), why),
                (Port::Input(1), None, why),
            ]
        }
        Op::Squeeze if node.input(1).is_none() => {
            let why = "it removes whatever axis has extent 1";
            vec![(Port::Input(0), None, why), (Port::Output(0), None, why)]
        }
        Op::Reshape(it) if !expressible(it, facts, node) => {
            let why = "the target shape is computed and cannot be written as a constant";
            vec![(Port::Input(0), None, why), (Port::Output(0), None, why)]
        }
        Op::Dropout if second_output => vec![(Port::Input(0), None, "its mask is used")],
        Op::Pool(Pool { kind: PoolKind::Max, .. }) if second_output => {
            vec![(Port::Input(0), Some(1), "its indices are used and count channels")]
        }
        Op::Shape(_) | Op::Size if extent_is_computed_with(graph, consumers, id) => {
            vec![(Port::Input(0), None, "the extent is used as a number")]
        }
        _ => Vec::new(),
    }
}

/// The axis of operand `i` of a product that the sum runs along.
pub(super) fn reduced_axis(
    op: &Op,
    i: usize,
    facts: &[Option<Fact>],
    node: &Node,
) -> Option<usize> {
    let rank = || facts[node.input(i)?.index()].as_ref()?.ty.shape.as_ref().map(Vec::len);
    match (op, i) {
        (Op::Conv(_), _) => Some(1),
        (Op::Gemm(it), 0) => Some(usize::from(!it.trans_a)),
        (Op::Gemm(it), 1) => Some(usize::from(it.trans_b)),
        (Op::MatMul, 0) => rank()?.checked_sub(1),
        (Op::MatMul, 1) => rank()?.checked_sub(2),
        _ => None,
    }
}

/// Whether the target shape can be written as a constant after a removal: at most one extent is neither
/// known nor copied from the same axis of the input.
fn expressible(op: &Reshape, facts: &[Option<Fact>], node: &Node) -> bool {
    let shape = |id: Option<ValueId>| facts[id?.index()].as_ref()?.ty.shape.as_ref();
    let (Some(from), Some(to)) = (shape(node.input(0)), shape(node.outputs[0])) else {
        return false;
    };
    let open = to.iter().enumerate().filter(|(i, dim)| {
        let copied = !op.allow_zero && matches!(dim, Dim::Symbol(_)) && from.get(*i) == Some(dim);
        dim.known().is_none() && !copied
    });
    open.count() <= 1
}

/// Whether what `id` (`Shape`, `Size`) says ends in float arithmetic, an unknown operator or an output, so
/// that another extent would give another result.
fn extent_is_computed_with(graph: &Graph, consumers: &Consumers, id: NodeId) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![graph.node(id).output()];
    while let Some(value) = open.pop() {
        if graph.outputs().contains(&value) {
            return true;
        }
        for &(reader, _) in consumers.of(value) {
            let node = graph.node(reader);
            match &node.op {
                Op::Named(_) => return true,
                Op::Cast(it) if it.to.is_float() => return true,
                Op::Cast(_)
                | Op::Binary(_)
                | Op::Variadic(_)
                | Op::Gather(_)
                | Op::Concat(_)
                | Op::Unsqueeze
                | Op::Squeeze
                | Op::Identity
                | Op::Where
                | Op::Unary(_)
                | Op::Split(_)
                | Op::Transpose(_)
                | Op::Reduce(_)
                | Op::Range => {
                    open.extend(node.outputs.iter().flatten().filter(|it| seen.insert(**it)));
                }
                // As data these pass numbers on; as a shape they are answered for by their own links.
                Op::Reshape(_) | Op::Slice | Op::Pad(_) | Op::Expand
                    if node.input(0) == Some(value) =>
                {
                    open.extend(node.outputs.iter().flatten().filter(|it| seen.insert(**it)));
                }
                _ => {}
            }
        }
    }
    false
}
