//! What does not happen at run time: constants computed ahead, operators that melt into their neighbours.

use sartor_ir::{Binary, Consumers, Graph, Node, NodeId, Op, Unary, ValueId};

use crate::{layout::Layouts, shapes::Shapes};

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
#[derive(Clone)]
pub(crate) struct Folding {
    consumers: Consumers,
    roles: Vec<Role>,
    /// By node: whether it computes with integers.
    integer: Vec<bool>,
    /// By value: whether it is known before the network runs.
    fixed: Vec<bool>,
    /// By value: the value whose memory it shares.
    buffers: Vec<ValueId>,
}

impl Folding {
    /// `channels_last`: whether the runtime keeps channels on the last axis.
    /// `fusions`: chains of operators that run as one, where the chip states them.
    pub(crate) fn of(
        graph: &Graph,
        shapes: &Shapes,
        channels_last: bool,
        fusions: Option<&[Vec<String>]>,
    ) -> Self {
        let mut folding = Folding {
            consumers: graph.consumers(),
            roles: vec![Role::Runs; graph.node_slots()],
            integer: Vec::new(),
            fixed: graph
                .values()
                .map(|(id, value)| value.constant.is_some() || shapes.contents_known(id))
                .collect(),
            buffers: graph.values().map(|(id, _)| id).collect(),
        };
        for (id, node) in graph.nodes() {
            folding.roles[id.index()] = folding.plain_role(graph, shapes, node, fusions);
            if folding.roles[id.index()] == Role::Ahead {
                for output in node.outputs.iter().flatten() {
                    folding.fixed[output.index()] = true;
                }
            }
        }
        let layouts = Layouts { graph, consumers: &folding.consumers, channels_last };
        let free = layouts.free(|id| folding.roles[id.index()] == Role::Runs);
        for (id, why) in free {
            folding.roles[id.index()] = Role::Folded(why);
        }
        folding.absorb_quantization(graph);
        for (id, node) in graph.nodes() {
            if let (Role::Folded(_), Some(input)) = (folding.role(id), folding.passed(node)) {
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

    /// What is added to what makes `value` though it is a node of its own: a batch normalization or a bias.
    pub(crate) fn takes_bias(&self, graph: &Graph, value: ValueId) -> bool {
        self.consumers.of(value).iter().any(|&(id, _)| {
            matches!(graph.node(id).op, Op::BatchNormalization(_) | Op::Binary(Binary::Add))
                && self.role(id) != Role::Runs
        })
    }

    /// The input that a folded node hands on: its first that is not known ahead.
    fn passed(&self, node: &Node) -> Option<ValueId> {
        let given = || node.inputs.iter().flatten().copied();
        given().find(|&it| !self.is_fixed(it)).or(given().next())
    }

    /// The `DequantizeLinear` from which `value` comes, through operators that do not run.
    pub(crate) fn dequantizer<'g>(&self, graph: &'g Graph, value: ValueId) -> Option<&'g Node> {
        let node = graph.node(self.source(graph, value)?);
        matches!(node.op, Op::DequantizeLinear(_)).then_some(node)
    }

    /// The node that makes `value` in earnest: one that runs, or a quantizing one.
    fn source(&self, graph: &Graph, mut value: ValueId) -> Option<NodeId> {
        loop {
            let id = graph.producer(value)?;
            let node = graph.node(id);
            if self.role(id) == Role::Runs || is_quantizing(node) {
                return Some(id);
            }
            value = self.passed(node)?;
        }
    }

    /// The nodes that read `value` in earnest; `None` if it leaves the graph.
    fn sinks(&self, graph: &Graph, value: ValueId) -> Option<Vec<NodeId>> {
        let (mut open, mut sinks) = (vec![value], Vec::new());
        while let Some(value) = open.pop() {
            if graph.outputs().contains(&value) {
                return None;
            }
            for &(id, _) in self.consumers.of(value) {
                let node = graph.node(id);
                if self.role(id) == Role::Runs || is_quantizing(node) {
                    sinks.push(id);
                } else {
                    open.extend(node.outputs.iter().flatten());
                }
            }
        }
        Some(sinks)
    }

    fn plain_role(
        &self,
        graph: &Graph,
        shapes: &Shapes,
        node: &Node,
        fusions: Option<&[Vec<String>]>,
    ) -> Role {
        let melts = |takes: fn(&Node) -> bool| {
            self.maker(graph, node).is_some_and(|it| takes(it) && fuse(fusions, it, node))
        };
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
            Op::BatchNormalization(_) if melts(has_weights) => {
                Role::Folded("folded into the weights")
            }
            Op::Binary(Binary::Add) if self.is_bias(graph, shapes, node) => {
                Role::Folded("the bias of its producer")
            }
            op if is_activation(op) && melts(takes_activation) => {
                Role::Folded("fused into its producer")
            }
            _ => Role::Runs,
        }
    }

    /// Whether `node` adds a known vector, one element for each output channel, to a product that has no bias of its own.
    fn is_bias(&self, graph: &Graph, shapes: &Shapes, node: &Node) -> bool {
        let inputs = || node.inputs.iter().flatten().copied();
        let (Some(bias), Some(sum)) =
            (inputs().find(|&it| self.is_fixed(it)), inputs().find(|&it| !self.is_fixed(it)))
        else {
            return false;
        };
        let channels = match self.maker_of(graph, sum).map(|it| &it.op) {
            Some(Op::MatMul) => shapes.dims(sum).and_then(|it| it.last().copied()),
            Some(Op::Conv(_)) => shapes.dims(sum).and_then(|it| it.get(1).copied()),
            _ => None,
        };
        let bare = self.maker_of(graph, sum).is_some_and(|it| it.input(2).is_none());
        let ranks = (shapes.dims(bias).map(<[usize]>::len), shapes.dims(sum).map(<[usize]>::len));
        bare && ranks.0 <= ranks.1
            && channels.is_some_and(|it| shapes.elements(bias) == Some(it as u64))
    }

    /// The node that makes the first input of `node` that is not known ahead, if nobody else reads it.
    fn maker<'g>(&self, graph: &'g Graph, node: &Node) -> Option<&'g Node> {
        self.maker_of(graph, self.passed(node)?)
    }

    /// The node that makes `value`, if only one node reads it.
    fn maker_of<'g>(&self, graph: &'g Graph, value: ValueId) -> Option<&'g Node> {
        let alone = self.consumers.of(value).len() == 1 && !graph.outputs().contains(&value);
        let id = graph.producer(value).filter(|_| alone)?;
        let maker = graph.node(id);
        // An activation may follow a batch normalization or a bias that melts into the same product.
        match self.role(id) {
            Role::Runs => Some(maker),
            Role::Folded(_)
                if matches!(maker.op, Op::BatchNormalization(_) | Op::Binary(Binary::Add)) =>
            {
                self.maker(graph, maker)
            }
            Role::Folded(_) | Role::Ahead => None,
        }
    }

    /// Quantizing nodes melt into neighbours that compute with integers.
    fn absorb_quantization(&mut self, graph: &Graph) {
        let mut integer = vec![false; self.roles.len()];
        for (id, node) in graph.nodes() {
            integer[id.index()] = self.computes_integers(graph, id, node);
        }
        for (id, node) in graph.nodes() {
            let absorbed = self.role(id) == Role::Runs
                && match node.op {
                    Op::DequantizeLinear(_) => {
                        self.sinks(graph, node.output()).is_some_and(|sinks| {
                            let quantizes =
                                |it: &NodeId| matches!(graph.node(*it).op, Op::QuantizeLinear(_));
                            !sinks.is_empty()
                                && sinks.iter().all(|it| integer[it.index()] || quantizes(it))
                        })
                    }
                    Op::QuantizeLinear(_) => node.input(0).is_some_and(|input| {
                        let alone = self.consumers.of(input).len() == 1
                            && !graph.outputs().contains(&input);
                        alone && self.source(graph, input).is_some_and(|it| integer[it.index()])
                    }),
                    _ => false,
                };
            if absorbed {
                self.roles[id.index()] = Role::Folded("absorbed by its integer neighbours");
            }
        }
        self.integer = integer;
    }

    /// Whether a node computes with integers.
    pub(crate) fn is_integer(&self, node: NodeId) -> bool {
        self.integer[node.index()]
    }

    /// Whether all that a running node reads was dequantized just before and, unless it multiplies (and may hand out its sums),
    /// all that it makes is quantized at once.
    fn computes_integers(&self, graph: &Graph, id: NodeId, node: &Node) -> bool {
        if self.role(id) != Role::Runs || is_quantizing(node) {
            return false;
        }
        let dequantized = |it: ValueId| self.dequantizer(graph, it).is_some();
        let reads = node.reads().any(dequantized)
            && node.reads().all(|it| self.is_fixed(it) || dequantized(it));
        if has_weights(node) {
            return reads && node.input(1).is_some_and(dequantized);
        }
        let quantizes = |it: NodeId| matches!(graph.node(it).op, Op::QuantizeLinear(_));
        reads
            && self
                .sinks(graph, node.output())
                .is_some_and(|it| !it.is_empty() && it.into_iter().all(quantizes))
    }
}

fn is_quantizing(node: &Node) -> bool {
    matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_))
}

fn has_weights(node: &Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul)
        || matches!(&node.op, Op::Named(it) if it.name == "ConvTranspose")
}

/// Whether the chip runs `node` as one with its `maker`: everywhere, or where a chain that it states has one after the other.
fn fuse(fusions: Option<&[Vec<String>]>, maker: &Node, node: &Node) -> bool {
    let place = |chain: &[String], node: &Node| chain.iter().position(|it| it == node.op.name());
    let follows = |chain: &Vec<String>| match (place(chain, maker), place(chain, node)) {
        (Some(first), Some(second)) => first < second,
        _ => false,
    };
    fusions.is_none_or(|chains| chains.iter().any(follows))
}

fn takes_activation(node: &Node) -> bool {
    has_weights(node)
        || matches!(node.op, Op::Binary(_) | Op::Variadic(_) | Op::BatchNormalization(_))
}

/// Whether an operator is an activation that melts into its producer.
pub(crate) fn is_activation(op: &Op) -> bool {
    use Unary::{HardSigmoid, HardSwish, LeakyRelu, Relu, Sigmoid, Tanh};
    let unary = |it: &Unary| {
        matches!(it, Relu | LeakyRelu { .. } | HardSigmoid { .. } | HardSwish | Sigmoid | Tanh)
    };
    matches!(op, Op::Clip) || matches!(op, Op::Unary(it) if unary(it))
}
