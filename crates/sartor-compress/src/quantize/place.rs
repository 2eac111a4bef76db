//! Where quantization goes: which operators run on integers, which values become integers, and which of
//! them share a scale.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{
    Binary, Consumers, DType, GlobalPool, Graph, Node, NodeId, Op, Pad, PadMode, Pool, PoolKind,
    Reduce, ReduceKind, Unary, ValueId,
};

use super::{ActivationType, QUANTIZABLE, QuantizeStatic};

/// What a node does in the quantized graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `Conv`, `Gemm` or `MatMul` of an activation with constant weights.
    Weighted,
    /// `MatMul` of two activations.
    Product,
    /// Arithmetic on integers without weights: sums, products by element, averages.
    Light,
    /// Moves elements: its output has the scale of its input.
    Carrier,
    /// Limits elements (`Relu`, `Clip`): folded into the scale of what stands before it, or float.
    Limit,
    /// Computes on floats, and why.
    Float(&'static str),
    /// Computes on no floats.
    Other,
}

impl Role {
    fn is_heavy(self) -> bool {
        matches!(self, Role::Weighted | Role::Product)
    }
}

/// The decisions of [`place`].
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// By node index; `Other` for what is not there.
    pub(super) roles: Vec<Role>,
    /// Values that become integers, graph inputs first, then in the order in which they are made.
    pub(super) values: Vec<ValueId>,
    /// Those of them made by operators on integers: everyone reads the integers, so that operator and
    /// `QuantizeLinear` can be fused. Others are read as integers by operators on integers alone.
    pub(super) internal: BTreeSet<ValueId>,
    /// Values whose range must be observed.
    pub(super) watch: BTreeSet<ValueId>,
    /// Where the result of an operator on integers is quantized: behind a rectifier if one follows.
    pub(super) ends: BTreeMap<NodeId, ValueId>,
    /// Union of values that share a scale: parent pointers.
    parents: BTreeMap<ValueId, ValueId>,
}

impl Plan {
    /// The value that stands for all that share a scale with `value`.
    pub(super) fn class(&self, value: ValueId) -> ValueId {
        let mut at = value;
        while let Some(&up) = self.parents.get(&at) {
            at = up;
        }
        at
    }

    pub(super) fn role(&self, node: NodeId) -> Role {
        self.roles[node.index()]
    }

    fn unite(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.class(a), self.class(b));
        if a != b {
            self.parents.insert(a.max(b), a.min(b));
        }
    }
}

/// Name of a node, or of its first output where it has none.
pub(crate) fn label(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    let output = || node.outputs.iter().flatten().next().map(|it| graph.value(*it).name.clone());
    if node.name.is_empty() { output().unwrap_or_default() } else { node.name.clone() }
}

/// The inputs that are activations to quantize.
pub(super) fn activations(graph: &Graph, node: &Node, role: Role) -> Vec<(usize, ValueId)> {
    let count = match role {
        Role::Weighted | Role::Limit => 1,
        Role::Product => 2,
        Role::Carrier if !matches!(node.op, Op::Concat(_)) => 1,
        Role::Light | Role::Carrier => node.inputs.len(),
        Role::Float(_) | Role::Other => 0,
    };
    let given =
        node.inputs.iter().take(count).enumerate().filter_map(|(i, it)| it.map(|it| (i, it)));
    given.filter(|it| is_float(graph, it.1) && graph.constant(it.1).is_none()).collect()
}

/// Whether a value holds floats; behind an operator that nobody knows it may.
fn is_float(graph: &Graph, id: ValueId) -> bool {
    graph.value(id).ty.as_ref().is_none_or(|it| it.dtype == DType::F32)
}

/// Decides for every node and value of a graph with inferred types.
pub(super) fn place(graph: &Graph, config: &QuantizeStatic) -> Plan {
    let consumers = graph.consumers();
    let mut roles = vec![Role::Other; graph.node_slots()];
    for (id, node) in graph.nodes() {
        roles[id.index()] = first_role(graph, id, node, config);
    }
    settle(graph, &mut roles);
    let mut plan = Plan {
        roles,
        values: Vec::new(),
        internal: BTreeSet::new(),
        watch: BTreeSet::new(),
        ends: BTreeMap::new(),
        parents: BTreeMap::new(),
    };
    if config.activations.dtype == ActivationType::Float32 {
        return plan;
    }
    let demanded = demand(graph, &plan.roles);
    let mut chosen: BTreeSet<ValueId> = BTreeSet::new();
    for (id, node) in graph.nodes() {
        let role = plan.role(id);
        let inputs = activations(graph, node, role);
        match role {
            Role::Weighted | Role::Product | Role::Light => {
                chosen.extend(inputs.iter().map(|it| it.1));
                let end = end(graph, &consumers, id);
                // Runtimes fuse a float-out matrix product, but not a float-out convolution.
                if demanded.contains(&end) || !matches!(node.op, Op::Gemm(_) | Op::MatMul) {
                    chosen.insert(end);
                    plan.internal.insert(end);
                    plan.ends.insert(id, end);
                }
            }
            Role::Carrier => {
                chosen.extend(inputs.iter().map(|it| it.1));
                for &output in node.outputs.iter().flatten().filter(|it| demanded.contains(it)) {
                    chosen.insert(output);
                    plan.internal.insert(output);
                    for input in &inputs {
                        plan.unite(input.1, output);
                    }
                }
            }
            Role::Limit | Role::Float(_) | Role::Other => {}
        }
    }
    let made = graph.nodes().flat_map(|(_, it)| it.outputs.iter().flatten().copied());
    plan.values =
        graph.inputs().iter().copied().chain(made).filter(|it| chosen.contains(it)).collect();
    let carried = |id: ValueId| graph.producer(id).is_some_and(|it| plan.role(it) == Role::Carrier);
    plan.watch = plan.values.iter().copied().filter(|it| !carried(*it)).collect();
    plan
}

/// What a node could do, looking at it alone.
fn first_role(graph: &Graph, id: NodeId, node: &Node, config: &QuantizeStatic) -> Role {
    if !node.outputs.iter().flatten().any(|it| is_float(graph, *it)) {
        let known = !matches!(node.op, Op::Named(_));
        return if known { Role::Other } else { Role::Float("nobody here knows the operator") };
    }
    let mut role = by_operator(graph, node);
    if config.activations.dtype == ActivationType::Float32 {
        role = match role {
            Role::Product | Role::Light => Role::Float("only weights are quantized"),
            Role::Carrier | Role::Limit => Role::Other,
            _ => role,
        };
    }
    let named = QUANTIZABLE.contains(&node.op.name());
    match role {
        Role::Weighted | Role::Product | Role::Light | Role::Carrier
            if config.skip.contains(&label(graph, id)) =>
        {
            Role::Float("the step skips it")
        }
        Role::Weighted | Role::Product | Role::Light
            if named
                && !config.ops.is_empty()
                && !config.ops.iter().any(|it| it == node.op.name()) =>
        {
            Role::Float("the step quantizes other operators")
        }
        _ => role,
    }
}

fn by_operator(graph: &Graph, node: &Node) -> Role {
    let float = |i: usize| node.input(i).is_some_and(|it| is_float(graph, it));
    let constant = |i: usize| graph.constant_input(node, i).is_some();
    match &node.op {
        Op::Conv(_) | Op::Gemm(_) | Op::MatMul if !float(0) || !float(1) => {
            Role::Float("its operands are not float32")
        }
        Op::Conv(_) | Op::Gemm(_) | Op::MatMul if constant(0) => {
            Role::Float("its first operand is a constant")
        }
        Op::Conv(_) | Op::Gemm(_) | Op::MatMul if constant(1) => Role::Weighted,
        Op::MatMul => Role::Product,
        Op::Conv(_) | Op::Gemm(_) => Role::Float("its weight is not a constant"),
        Op::Binary(Binary::Add | Binary::Mul)
            if float(0) && float(1) && !constant(0) && !constant(1) =>
        {
            Role::Light
        }
        Op::Pool(Pool { kind: PoolKind::Average, .. })
        | Op::GlobalPool(GlobalPool::Average)
        | Op::Reduce(Reduce { kind: ReduceKind::Mean, .. }) => Role::Light,
        Op::Unary(Unary::Relu) => Role::Limit,
        Op::Clip if (1..3).all(|i| node.input(i).is_none() || constant(i)) => Role::Limit,
        Op::Pool(_) | Op::Dropout if node.outputs.iter().flatten().count() > 1 => {
            Role::Float("its second output is not an integer form of the first")
        }
        Op::Pad(Pad { mode: PadMode::Constant }) if !pads_zero(graph, node) => {
            Role::Float("it pads with another number than 0")
        }
        Op::Concat(_) if (0..node.inputs.len()).any(constant) => {
            Role::Float("one of its inputs is a constant")
        }
        Op::Pool(_)
        | Op::GlobalPool(_)
        | Op::Dropout
        | Op::Identity
        | Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Transpose(_)
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Slice
        | Op::Split(_)
        | Op::Expand
        | Op::Pad(_)
        | Op::Concat(_)
            if !constant(0) =>
        {
            Role::Carrier
        }
        Op::Named(_) => Role::Float("nobody here knows the operator"),
        Op::QuantizeLinear(_) | Op::DequantizeLinear(_) => Role::Float("it is quantized already"),
        _ => Role::Float("no integer form is used for the operator"),
    }
}

/// Whether the number that a constant `Pad` writes is 0, which every scale represents exactly.
fn pads_zero(graph: &Graph, node: &Node) -> bool {
    node.input(2).is_none()
        || graph.constant_input(node, 2).is_some_and(|it| it.to_f32() == Ok(vec![0.0]))
}

/// Values that some operator with a large amount of arithmetic reads, perhaps behind light operators,
/// carriers and rectifiers.
fn demand(graph: &Graph, roles: &[Role]) -> BTreeSet<ValueId> {
    let mut demanded = BTreeSet::new();
    for (id, node) in graph.nodes().rev() {
        let role = roles[id.index()];
        let passes = matches!(role, Role::Light | Role::Carrier | Role::Limit)
            && node.outputs.iter().flatten().any(|it| demanded.contains(it));
        if role.is_heavy() || passes || demanded_affine(graph, node, role, &demanded) {
            let read = if matches!(role, Role::Float(_)) {
                node.inputs.iter().flatten().copied().collect()
            } else {
                activations(graph, node, role).into_iter().map(|it| it.1).collect::<Vec<_>>()
            };
            demanded.extend(read);
        }
    }
    demanded
}

/// Whether a product or sum with a constant lies before a demanded value.
fn demanded_affine(graph: &Graph, node: &Node, role: Role, demanded: &BTreeSet<ValueId>) -> bool {
    matches!(role, Role::Float(_))
        && affine_input(graph, node).is_some()
        && demanded.contains(&node.output())
}

/// The activation of a sum or product with a constant.
fn affine_input(graph: &Graph, node: &Node) -> Option<ValueId> {
    let Op::Binary(Binary::Add | Binary::Mul | Binary::Sub) = node.op else { return None };
    let (a, b) = (node.input(0)?, node.input(1)?);
    match (graph.constant(a), graph.constant(b)) {
        (None, Some(_)) => Some(a),
        (Some(_), None) => Some(b),
        _ => None,
    }
}

/// Keeps light operators and carriers only where integers come in and integers are wanted.
fn settle(graph: &Graph, roles: &mut [Role]) {
    // Giving up one operator may take the integers from the next, so the walk repeats until nothing changes;
    // each round gives up at least one.
    loop {
        let demanded = demand(graph, roles);
        let mut integers: BTreeSet<ValueId> =
            graph.inputs().iter().copied().filter(|it| is_float(graph, *it)).collect();
        let mut changed = false;
        for (id, node) in graph.nodes() {
            let role = roles[id.index()];
            let inputs = activations(graph, node, role);
            let fed = !inputs.is_empty() && inputs.iter().all(|it| integers.contains(&it.1));
            let wanted = node.outputs.iter().flatten().any(|it| demanded.contains(it));
            let refusal = match role {
                Role::Light | Role::Carrier if !fed => Some("one of its inputs is float"),
                Role::Light | Role::Carrier if !wanted => Some("no operator on integers reads it"),
                _ => None,
            };
            if let Some(reason) = refusal {
                let carrier = role == Role::Carrier;
                // A carrier computes nothing: it is float or not as its surroundings are.
                roles[id.index()] = if carrier { Role::Other } else { Role::Float(reason) };
                changed = true;
            } else if role.is_heavy()
                || role == Role::Light
                || role == Role::Carrier
                || (role == Role::Limit && fed)
            {
                integers.extend(node.outputs.iter().flatten());
            } else if affine_input(graph, node).is_some_and(|it| integers.contains(&it)) {
                integers.insert(node.output());
            }
        }
        if !changed {
            return;
        }
    }
}

/// The value behind which `QuantizeLinear` goes: the output of `id`, or of the rectifier that alone reads it,
/// since the quantizer's own limits then do the rectifier's work. A `MatMul` has its bias in between.
fn end(graph: &Graph, consumers: &Consumers, id: NodeId) -> ValueId {
    let matmul = matches!(graph.node(id).op, Op::MatMul);
    let mut at = graph.node(id).output();
    loop {
        let ([(next, _)], false) = (consumers.of(at), graph.outputs().contains(&at)) else {
            return at;
        };
        let node = graph.node(*next);
        match &node.op {
            Op::Unary(Unary::Relu) => return node.output(),
            Op::Clip
                if (1..3).all(|i| node.input(i).is_none_or(|it| graph.constant(it).is_some())) =>
            {
                return node.output();
            }
            _ if matmul && affine_input(graph, node).is_some() => at = node.output(),
            _ => return at,
        }
    }
}
