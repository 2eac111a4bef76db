//! Channels and the groups that they form.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{Fact, Graph, Node, NodeId, Op, ValueId};

use super::ties::{Axis, Freeze, Ties, node_name, reduced_axis};
use crate::CompressError;

/// One index of one axis of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The value.
    pub value: ValueId,
    /// Axis of the value.
    pub axis: usize,
    /// Index along the axis.
    pub index: usize,
}

/// Cells that live and die together, in order of value, axis and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel(pub Vec<Cell>);

/// Interchangeable channels: they touch the same axes of the same values equally often, so that any number
/// of them may go and the rest still fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name of the first node that makes the channels, with `#2`, `#3`, … where one node makes channels of
    /// several groups.
    pub name: String,
    /// The channels, in order of their first cell.
    pub channels: Vec<Channel>,
    /// The axes that the channels lie on.
    pub axes: Vec<(ValueId, usize)>,
    /// `Conv`, `Gemm` and `MatMul` nodes whose output has the channels, in topological order.
    pub producers: Vec<NodeId>,
    /// `Conv`, `Gemm` and `MatMul` nodes that sum over the channels, in topological order.
    pub consumers: Vec<NodeId>,
    /// Why no channel may go, if so.
    pub frozen: Option<String>,
}

impl Group {
    /// Number of channels.
    pub fn size(&self) -> usize {
        self.channels.len()
    }

    /// The widths that the group may have, ascending: the multiples of `grain` below its size, and its size.
    /// Never 0; a frozen group, or one that is no larger than a grain, stays whole.
    pub fn widths(&self, grain: usize) -> Vec<usize> {
        let size = self.size();
        let grain = grain.max(1);
        let below = if self.frozen.is_some() { 0 } else { size.saturating_sub(1) / grain };
        (1..=below).map(|i| i * grain).chain([size]).collect()
    }
}

/// The groups of a graph, in the order of the nodes that make them (those that none makes come first); the
/// ids are those of that graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups(Vec<Group>);

impl Groups {
    /// All groups that hold parameters, frozen ones included.
    pub fn all(&self) -> &[Group] {
        &self.0
    }

    /// The groups that may lose channels.
    pub fn prunable(&self) -> impl Iterator<Item = &Group> {
        self.0.iter().filter(|it| it.frozen.is_none())
    }

    /// The groups that may not, each with the reason.
    pub fn frozen(&self) -> impl Iterator<Item = (&Group, &str)> {
        self.0.iter().filter_map(|it| it.frozen.as_deref().map(|reason| (it, reason)))
    }

    /// The group of this name.
    pub fn find(&self, name: &str) -> Option<&Group> {
        self.0.iter().find(|it| it.name == name)
    }
}

/// Finds the groups of `graph`. Channels without a parameter (a float constant), groups of a single channel,
/// and axes that hang together with no other (a filter's height) are left out.
///
/// # Errors
/// Shapes that do not fit.
pub fn groups(graph: &Graph) -> Result<Groups, CompressError> {
    let (mut ties, facts) = Ties::of(graph)?;
    let mut groups: Vec<Group> = Vec::new();
    let classes = classes(&mut ties);
    let holds_parameter = |&(at, _): &(usize, usize)| is_parameter(graph, ties.axes[at].value);
    let mut by_signature: BTreeMap<Vec<(usize, usize)>, Vec<usize>> = BTreeMap::new();
    for (i, class) in classes.iter().enumerate() {
        let signature = signature(class);
        if signature.len() > 1 && signature.iter().any(holds_parameter) {
            by_signature.entry(signature).or_default().push(i);
        }
    }
    by_signature.retain(|_, members| members.len() > 1);
    let products: Vec<_> = graph.nodes().filter(|(_, node)| is_product(node)).collect();
    for (signature, members) in by_signature {
        let axes: Vec<&Axis> = signature.iter().map(|&(at, _)| &ties.axes[at]).collect();
        let cell = |&(at, index): &(usize, usize)| {
            let Axis { value, axis, .. } = ties.axes[at];
            Cell { value, axis, index }
        };
        let mut group = Group {
            name: String::new(),
            channels: members
                .iter()
                .map(|&i| Channel(classes[i].iter().map(cell).collect()))
                .collect(),
            axes: axes.iter().map(|it| (it.value, it.axis)).collect(),
            producers: Vec::new(),
            consumers: Vec::new(),
            frozen: reason(graph, &axes),
        };
        let on: BTreeSet<(ValueId, usize)> = group.axes.iter().copied().collect();
        let made: BTreeSet<ValueId> = group.axes.iter().map(|it| it.0).collect();
        for &(id, node) in &products {
            if made.contains(&node.output()) {
                group.producers.push(id);
            }
            if sums_over(node, &facts, &on) {
                group.consumers.push(id);
            }
        }
        groups.push(group);
    }
    let position =
        |group: &Group| products.iter().position(|it| group.producers.first() == Some(&it.0));
    groups.sort_by_cached_key(|group| (position(group), group.channels[0].0[0]));
    let mut names = BTreeSet::new();
    for group in &mut groups {
        group.name = fresh(&mut names, first_name(graph, group));
    }
    Ok(Groups(groups))
}

/// The classes of cells as (position of the axis, index), in the order of their first cells.
fn classes(ties: &mut Ties) -> Vec<Vec<(usize, usize)>> {
    let mut classes: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut class_of: Vec<Option<usize>> = Vec::new();
    for at in 0..ties.axes.len() {
        let Axis { start, extent, .. } = ties.axes[at];
        class_of.resize(start + extent, None);
        for index in 0..extent {
            let root = ties.root(start + index);
            let class = *class_of[root].get_or_insert_with(|| {
                classes.push(Vec::new());
                classes.len() - 1
            });
            classes[class].push((at, index));
        }
    }
    classes
}

/// The axes that a class touches, each with the number of its cells there.
fn signature(class: &[(usize, usize)]) -> Vec<(usize, usize)> {
    class.chunk_by(|a, b| a.0 == b.0).map(|run| (run[0].0, run.len())).collect()
}

/// One reason of several: that the axis is shown or captured goes before what an operator says.
fn reason(graph: &Graph, axes: &[&Axis]) -> Option<String> {
    axes.iter().filter_map(|it| it.frozen).min().map(|it: Freeze| it.reason(graph))
}

fn is_parameter(graph: &Graph, value: ValueId) -> bool {
    graph.constant(value).is_some_and(|it| it.dtype().is_float())
}

fn is_product(node: &Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul)
}

fn sums_over(node: &Node, facts: &[Option<Fact>], on: &BTreeSet<(ValueId, usize)>) -> bool {
    let operand = |i: usize| Some((node.input(i)?, reduced_axis(&node.op, i, facts, node)?));
    (0..2).any(|i| operand(i).is_some_and(|it| on.contains(&it)))
        && !matches!(&node.op, Op::Conv(it) if it.group > 1 && on.contains(&(node.output(), 1)))
}

fn first_name<'a>(graph: &'a Graph, group: &Group) -> &'a str {
    match group.producers.first() {
        Some(&id) => node_name(graph, graph.node(id)),
        None => &graph.value(group.axes[0].0).name,
    }
}

/// `name`, or `name#2` and so on where it is taken.
fn fresh(names: &mut BTreeSet<String>, name: &str) -> String {
    let mut candidate = name.to_owned();
    let mut n = 2usize;
    while !names.insert(candidate.clone()) {
        candidate = format!("{name}#{n}");
        n += 1;
    }
    candidate
}
