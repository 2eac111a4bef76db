//! Transpositions that move nothing: pairs that cancel, and changes between channels first and channels last that the runtime's own
//! layout makes unnecessary.

use sartor_ir::{Consumers, Graph, Node, NodeId, Op, ValueId};

/// A graph and the layout of the runtime.
pub(crate) struct Layouts<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) consumers: &'a Consumers,
    /// Whether the runtime keeps channels on the last axis.
    pub(crate) channels_last: bool,
}

impl Layouts<'_> {
    /// The transpositions that cost nothing, and why.
    pub(crate) fn free(&self, runs: impl Fn(NodeId) -> bool) -> Vec<(NodeId, &'static str)> {
        let mut free = Vec::new();
        for (id, node) in self.graph.nodes() {
            let Op::Transpose(op) = &node.op else { continue };
            if !runs(id) || free.iter().any(|&(it, _)| it == id) {
                continue;
            }
            if let Some(first) = self.undone(node, &op.perm) {
                free.extend([(first, "undone by the next"), (id, "undoes the last")]);
            } else if self.channels_last && self.changes_layout(node, &op.perm) {
                free.push((id, "absorbed: the runtime keeps channels last"));
            }
        }
        free
    }

    /// The transposition before `node` whose inverse it is, if nobody else reads that one's output.
    fn undone(&self, node: &Node, perm: &[usize]) -> Option<NodeId> {
        let input = node.input(0)?;
        let id = self.graph.producer(input)?;
        let Op::Transpose(first) = &self.graph.node(id).op else { return None };
        let inverse = first.perm.len() == perm.len()
            && perm.iter().enumerate().all(|(i, &at)| first.perm.get(at) == Some(&i));
        let alone = self.consumers.of(input).len() == 1 && !self.graph.outputs().contains(&input);
        (inverse && alone).then_some(id)
    }

    /// Whether a transposition only moves channels between the second and the last axis, at the edge of the graph or of operators with
    /// windows.
    fn changes_layout(&self, node: &Node, perm: &[usize]) -> bool {
        let n = perm.len();
        if n < 3 {
            return false;
        }
        let to_first: Vec<usize> = [0, n - 1].into_iter().chain(1..n - 1).collect();
        let to_last: Vec<usize> = [0].into_iter().chain(2..n).chain([1]).collect();
        let before = || node.input(0).is_some_and(|it| self.comes_from_window(it));
        let after = || self.goes_to_window(node.output());
        (perm == to_first && (self.is_input(node) || after()))
            || (perm == to_last && (before() || self.leaves(node.output())))
    }

    fn is_input(&self, node: &Node) -> bool {
        node.input(0).is_some_and(|it| self.graph.inputs().contains(&it))
    }

    fn leaves(&self, value: ValueId) -> bool {
        self.graph.outputs().contains(&value)
    }

    /// Whether `value` comes from an operator with windows, through elementwise ones.
    fn comes_from_window(&self, mut value: ValueId) -> bool {
        while let Some(id) = self.graph.producer(value) {
            let node = self.graph.node(id);
            if has_window(node) {
                return true;
            }
            match node.input(0) {
                Some(input) if is_elementwise(node) => value = input,
                _ => return false,
            }
        }
        false
    }

    /// Whether an operator with windows reads `value`, through elementwise ones.
    fn goes_to_window(&self, value: ValueId) -> bool {
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            for &(id, _) in self.consumers.of(value) {
                let node = self.graph.node(id);
                if has_window(node) {
                    return true;
                }
                if is_elementwise(node) {
                    open.push(node.output());
                }
            }
        }
        false
    }
}

fn has_window(node: &Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Pool(_) | Op::GlobalPool(_))
        || matches!(&node.op, Op::Named(it) if matches!(it.name.as_str(), "ConvTranspose" | "Resize" | "Upsample"))
}

fn is_elementwise(node: &Node) -> bool {
    matches!(
        node.op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Clip
            | Op::PRelu
            | Op::Pad(_)
            | Op::BatchNormalization(_)
            | Op::QuantizeLinear(_)
            | Op::DequantizeLinear(_)
            | Op::Identity
    )
}
