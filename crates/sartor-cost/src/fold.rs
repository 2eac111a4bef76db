//! What does not happen at run time: constants computed ahead, operators that melt into their neighbours.

use sartor_ir::{Consumers, Graph, Node, NodeId, Op, Unary, ValueId};

use crate::shapes::Shapes;

/// What becomes of a node on the way to the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It runs.
    Runs,
    /// It is computed before the network runs.
    Ahead,
    /// It costs nothing, and why; its output lies where its input lies.
    Folded(&'static str),
}

/// The roles of all nodes.
pub(crate) struct Folding<'g> {
    graph: &'g Graph,
    consumers: Consumers,
    roles: Vec<Role>,
    /// By value: whether it is known before the network runs.
    fixed: Vec<bool>,
    /// By value: the value whose memory it shares.
    buffers: Vec<ValueId>,
}

impl<'g> Folding<'g> {
    pub(crate) fn of(graph: &'g Graph, shapes: &Shapes) -> Self {
        let mut folding = Folding {
            graph,
            consumers: graph.consumers(),
            roles: vec![Role::Runs; graph.node_slots()],
            fixed: graph
                .values()
                .map(|(id, value)| value.constant.is_some() || shapes.contents_known(id))
                .collect(),
            buffers: graph.values().map(|(id, _)| id).collect(),
        };
        for (id, node) in graph.nodes() {
            folding.roles[id.index()] = folding.plain_role(node);
            if folding.roles[id.index()] == Role::Ahead {
                for output in node.outputs.iter().flatten() {
                    folding.fixed[output.index()] = true;
                }
            }
        }
        folding.absorb_quantization();
        for (id, node) in graph.nodes() {
            if let (Role::Folded(_), Some(input)) = (folding.role(id), node.input(0)) {
                folding.buffers[node.output().index()] = folding.buffers[input.index()];
            }
        }
        folding
    }

    pub(crate) fn role(&self, node: NodeId) -> Role {
        self.roles[node.index()]
    }

    /// Whether a value is known before the network runs.
    pub(crate) fn is_fixed(&self, value: ValueId) -> bool {
        self.fixed[value.index()]
    }

    /// The value whose memory `value` shares.
    pub(crate) fn buffer(&self, value: ValueId) -> ValueId {
        self.buffers[value.index()]
    }

    /// Whether a batch normalization was folded into what makes `value`.
    pub(crate) fn takes_batch_norm(&self, value: ValueId) -> bool {
        self.consumers.of(value).iter().any(|&(id, _)| {
            matches!(self.graph.node(id).op, Op::BatchNormalization(_))
                && self.role(id) != Role::Runs
        })
    }

    /// The `DequantizeLinear` from which `value` comes, through operators that do not run.
    pub(crate) fn dequantizer(&self, value: ValueId) -> Option<&'g Node> {
        let node = self.graph.node(self.source(value)?);
        matches!(node.op, Op::DequantizeLinear(_)).then_some(node)
    }

    /// The node that makes `value` in earnest: one that runs, or a quantizing one.
    fn source(&self, mut value: ValueId) -> Option<NodeId> {
        loop {
            let id = self.graph.producer(value)?;
            let node = self.graph.node(id);
            if self.role(id) == Role::Runs || is_quantizing(node) {
                return Some(id);
            }
            value = node.input(0)?;
        }
    }

    /// The nodes that read `value` in earnest; `None` if it leaves the graph.
    fn sinks(&self, value: ValueId) -> Option<Vec<NodeId>> {
        let (mut open, mut sinks) = (vec![value], Vec::new());
        while let Some(value) = open.pop() {
            if self.graph.outputs().contains(&value) {
                return None;
            }
            for &(id, _) in self.consumers.of(value) {
                let node = self.graph.node(id);
                if self.role(id) == Role::Runs || is_quantizing(node) {
                    sinks.push(id);
                } else {
                    open.extend(node.outputs.iter().flatten());
                }
            }
        }
        Some(sinks)
    }

    fn plain_role(&self, node: &Node) -> Role {
        let ahead = !node.inputs.is_empty()
            && !matches!(node.op, Op::Named(_))
            && (node.reads().all(|it| self.is_fixed(it))
                || node.outputs.iter().flatten().all(|&it| self.is_fixed(it)));
        if ahead {
            return Role::Ahead;
        }
        match &node.op {
            Op::Identity | Op::Dropout => Role::Folded("passes its input on"),
            Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze => {
                Role::Folded("moves nothing")
            }
            Op::BatchNormalization(_) if self.maker(node).is_some_and(has_weights) => {
                Role::Folded("folded into the weights")
            }
            op if is_activation(op) && self.maker(node).is_some_and(takes_activation) => {
                Role::Folded("fused into its producer")
            }
            _ => Role::Runs,
        }
    }

    /// The node that makes the first input of `node`, if nobody else reads it.
    fn maker(&self, node: &Node) -> Option<&'g Node> {
        let input = node.input(0)?;
        let alone = self.consumers.of(input).len() == 1 && !self.graph.outputs().contains(&input);
        let id = self.graph.producer(input).filter(|_| alone)?;
        let maker = self.graph.node(id);
        // An activation may follow a batch normalization that melts into the same convolution.
        match self.role(id) {
            Role::Runs => Some(maker),
            Role::Folded(_) if matches!(maker.op, Op::BatchNormalization(_)) => self.maker(maker),
            Role::Folded(_) | Role::Ahead => None,
        }
    }

    /// Quantizing nodes melt into neighbours that compute with integers.
    fn absorb_quantization(&mut self) {
        let mut integer = vec![false; self.roles.len()];
        for (id, node) in self.graph.nodes() {
            integer[id.index()] = self.computes_integers(id, node);
        }
        for (id, node) in self.graph.nodes() {
            let absorbed = self.role(id) == Role::Runs
                && match node.op {
                    Op::DequantizeLinear(_) => self.sinks(node.output()).is_some_and(|sinks| {
                        let quantizes =
                            |it: &NodeId| matches!(self.graph.node(*it).op, Op::QuantizeLinear(_));
                        !sinks.is_empty()
                            && sinks.iter().all(|it| integer[it.index()] || quantizes(it))
                    }),
                    Op::QuantizeLinear(_) => node.input(0).is_some_and(|input| {
                        let alone = self.consumers.of(input).len() == 1
                            && !self.graph.outputs().contains(&input);
                        alone && self.source(input).is_some_and(|it| integer[it.index()])
                    }),
                    _ => false,
                };
            if absorbed {
                self.roles[id.index()] = Role::Folded("absorbed by its integer neighbours");
            }
        }
    }

    /// Whether all that a running node reads was dequantized just before and, unless it multiplies (and may hand out its sums),
    /// all that it makes is quantized at once.
    fn computes_integers(&self, id: NodeId, node: &Node) -> bool {
        if self.role(id) != Role::Runs || is_quantizing(node) {
            return false;
        }
        let dequantized = |it: ValueId| self.dequantizer(it).is_some();
        let reads = node.reads().any(dequantized)
            && node.reads().all(|it| self.is_fixed(it) || dequantized(it));
        if has_weights(node) {
            return reads && node.input(1).is_some_and(dequantized);
        }
        let quantizes = |it: NodeId| matches!(self.graph.node(it).op, Op::QuantizeLinear(_));
        reads
            && self
                .sinks(node.output())
                .is_some_and(|it| !it.is_empty() && it.into_iter().all(quantizes))
    }
}

fn is_quantizing(node: &Node) -> bool {
    matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_))
}

fn has_weights(node: &Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul)
}

fn takes_activation(node: &Node) -> bool {
    has_weights(node)
        || matches!(node.op, Op::Binary(_) | Op::Variadic(_) | Op::BatchNormalization(_))
}

fn is_activation(op: &Op) -> bool {
    use Unary::{HardSigmoid, HardSwish, LeakyRelu, Relu, Sigmoid, Tanh};
    let unary = |it: &Unary| {
        matches!(it, Relu | LeakyRelu { .. } | HardSigmoid { .. } | HardSwish | Sigmoid | Tanh)
    };
    matches!(op, Op::Clip) || matches!(op, Op::Unary(it) if unary(it))
}
