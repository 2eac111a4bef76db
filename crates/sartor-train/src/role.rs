//! What a parameter is to its network: by this it is initialized and decayed.

use std::collections::BTreeMap;

use sartor_ir::{
    Binary, Consumers, Dim, Fact, Graph, Node, NodeId, Op, Unary, ValueId, infer_facts,
};

/// What a parameter does, with what its initialization depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// The filters of a convolution; how many outputs each input reaches.
    Filter { fan_out: usize },
    /// A matrix; how many inputs each output sums, and whether a rectifier follows.
    Matrix { fan_in: usize, rectified: bool },
    /// Matrices of a recurrent layer.
    Recurrent { hidden: usize },
    /// A table of vectors.
    Embedding,
    /// Added by channel.
    Bias,
    /// A factor by channel.
    Scale,
    /// The slope of a rectifier.
    Slope,
    /// Added, and not by channel: a table of positions.
    Offset,
}

impl Role {
    /// Whether weight decay is meant for it: biases and the parameters of normalizations only set a level.
    pub(crate) fn decays(self) -> bool {
        !matches!(self, Role::Bias | Role::Scale | Role::Slope)
    }
}

/// The role of each parameter, from its first use as one.
pub(crate) fn roles(graph: &Graph, ids: &[ValueId]) -> Vec<Role> {
    let facts =
        infer_facts(graph, &BTreeMap::new()).unwrap_or_else(|_| vec![None; graph.value_count()]);
    let it = Finder { graph, consumers: graph.consumers(), facts };
    ids.iter().map(|&id| it.find(id).unwrap_or_else(|| it.addend(id))).collect()
}

struct Finder<'a> {
    graph: &'a Graph,
    consumers: Consumers,
    facts: Vec<Option<Fact>>,
}

impl Finder<'_> {
    /// The role of a constant, or of what operators made of it that only move numbers.
    fn find(&self, at: ValueId) -> Option<Role> {
        self.consumers.of(at).iter().find_map(|&(user, slot)| {
            let node = self.graph.node(user);
            if slot == 0 && moves(&node.op) {
                return self.find(node.output());
            }
            self.direct(user, slot, at).or_else(|| self.named(node, slot, at))
        })
    }

    /// What input `slot` of an operator of the closed set is.
    fn direct(&self, user: NodeId, slot: usize, at: ValueId) -> Option<Role> {
        let shape = self.shape(at);
        let from_end = |i: usize| shape.len().checked_sub(i).and_then(|i| shape.get(i)).copied();
        let matrix = |inner: usize| Role::Matrix {
            fan_in: from_end(inner).unwrap_or(1),
            rectified: self.feeds_rectifier(user),
        };
        Some(match (&self.graph.node(user).op, slot) {
            (Op::Conv(it), 1) => {
                let taps: usize = shape.iter().skip(2).product();
                let outputs = shape.first().copied().unwrap_or(1) / it.group.max(1);
                Role::Filter { fan_out: outputs * taps }
            }
            // A is [m, k] and B is [k, n], unless they are stored transposed.
            (Op::Gemm(it), 0) => matrix(if it.trans_a { 2 } else { 1 }),
            (Op::Gemm(it), 1) => matrix(if it.trans_b { 1 } else { 2 }),
            (Op::MatMul, 0 | 1) => matrix(slot + 1),
            (Op::Conv(_) | Op::Gemm(_) | Op::BatchNormalization(_), 2) => Role::Bias,
            (Op::BatchNormalization(_) | Op::Binary(Binary::Mul | Binary::Div), _) => Role::Scale,
            (Op::PRelu, 1) => Role::Slope,
            (Op::Gather(_), 0) => Role::Embedding,
            (Op::Binary(_) | Op::Variadic(_), _) => self.addend(at),
            _ => return None,
        })
    }

    /// What input `slot` of an operator outside the closed set is.
    fn named(&self, node: &Node, slot: usize, at: ValueId) -> Option<Role> {
        let Op::Named(it) = &node.op else { return None };
        let shape = self.shape(at);
        let extent = |i: usize| shape.get(i).copied().unwrap_or(1);
        let taps = || shape.iter().skip(2).product::<usize>();
        Some(match (it.name.as_str(), slot) {
            ("ConvTranspose", 1) => Role::Filter { fan_out: extent(1) * taps() },
            ("FusedConv", 1) => Role::Filter { fan_out: extent(0) * taps() },
            ("FusedMatMul" | "Attention", 1) | ("Einsum", _) => {
                Role::Matrix { fan_in: extent(0), rectified: false }
            }
            // The weights of the recurrence are [directions, gates x hidden, hidden].
            ("LSTM" | "GRU" | "RNN", 1 | 2) => {
                let hidden = node.input(2).and_then(|it| self.shape(it).last().copied());
                Role::Recurrent { hidden: hidden.unwrap_or(1) }
            }
            ("SkipLayerNormalization", 2) => Role::Scale,
            (name, 1) if name.ends_with("Normalization") => Role::Scale,
            _ => Role::Bias,
        })
    }

    /// A bias has one extent above 1 at most.
    fn addend(&self, at: ValueId) -> Role {
        let wide = self.shape(at).iter().filter(|it| **it > 1).count() > 1;
        if wide { Role::Offset } else { Role::Bias }
    }

    fn shape(&self, id: ValueId) -> Vec<usize> {
        if let Some(tensor) = self.graph.constant(id) {
            return tensor.shape().to_vec();
        }
        let dims = self.facts[id.index()].as_ref().and_then(|it| it.ty.shape.as_ref());
        dims.map(|it| it.iter().map(|it| Dim::known(it).unwrap_or(1)).collect()).unwrap_or_default()
    }

    /// Whether what a node makes goes, perhaps after a bias, into an activation that cuts one half off.
    fn feeds_rectifier(&self, node: NodeId) -> bool {
        let next =
            |node: NodeId| Some(self.consumers.of(self.graph.node(node).output()).first()?.0);
        let op = |node: NodeId| &self.graph.node(node).op;
        let after = next(node);
        let after = match after {
            Some(it) if matches!(op(it), Op::Binary(Binary::Add)) => next(it),
            it => it,
        };
        after.is_some_and(|it| rectifies(op(it)))
    }
}

/// Whether an operator only moves or rounds the numbers of its first input.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Identity
            | Op::Cast(_)
            | Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Squeeze
            | Op::Unsqueeze
            | Op::QuantizeLinear(_)
            | Op::DequantizeLinear(_)
    )
}

fn rectifies(op: &Op) -> bool {
    let smooth = |it: &Unary| {
        matches!(
            it,
            Unary::Relu | Unary::LeakyRelu { .. } | Unary::Elu { .. } | Unary::Swish { .. }
        )
    };
    matches!(op, Op::Clip | Op::PRelu) || matches!(op, Op::Unary(it) if smooth(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn roles_by_use() {
        let graph = fixture::network();
        let cases = [
            ("w", Role::Filter { fan_out: 72 }),
            ("b", Role::Bias),
            ("scale", Role::Scale),
            ("shift", Role::Bias),
            ("v", Role::Matrix { fan_in: 8, rectified: true }),
            ("c", Role::Bias),
            ("u", Role::Matrix { fan_in: 64, rectified: false }),
            ("offset", Role::Offset),
        ];
        for (name, expected) in cases {
            let id = graph.find_value(name).unwrap();
            assert_eq!(roles(&graph, &[id]), [expected], "{name}");
        }
        assert!(cases[0].1.decays() && cases[4].1.decays() && !cases[2].1.decays());
    }
}
