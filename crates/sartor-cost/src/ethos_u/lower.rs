//! A graph as the operators that the array runs.
//!
//! The compiler's network has channels last and zero points in its conversions, so reshapes, transposes between the two layouts,
//! joins, cuts and (de)quantization move nothing; constants that follow a product go into its weights, activations into the
//! operator before. Source of what melts into what: Vela 5.2.0, its graph optimiser.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use sartor_ir::{
    Binary, Consumers, GlobalPool, Graph, Node, NodeId, Op, Pool, PoolKind, ReduceKind, Spatial,
    Transpose, Unary, ValueId, Variadic,
};

use super::{
    machine::{Machine, Volume},
    product::Floats,
    softmax,
    task::{Activation, Chained, Elementwise, Home, Kernel, Map, Task, Weights, Work},
};
use crate::{
    fold::{Folding, Role},
    shapes::Shapes,
};

/// The operators of a graph.
pub(crate) struct Lowered {
    /// In the order in which they run, each with the node to which it belongs.
    pub(crate) tasks: Vec<(NodeId, Task)>,
    /// Nodes that need none, and why.
    pub(crate) melted: BTreeMap<NodeId, &'static str>,
}

/// A feature map of an operator that is not placed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The value; none for one that exists only inside an operator.
    pub(super) value: Option<ValueId>,
    pub(super) map: Map,
}

/// An operator that may still take up what follows it.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) node: NodeId,
    pub(super) work: Work,
    pub(super) input: Place,
    pub(super) operand: Option<Place>,
    pub(super) output: Place,
    pub(super) kernel: Kernel,
    pub(super) weights: Option<Floats>,
    pub(super) activation: Activation,
    pub(super) chain: Vec<(Elementwise, Option<Place>, Place)>,
}

impl Draft {
    fn last(&self) -> &Place {
        self.chain.last().map_or(&self.output, |it| &it.2)
    }

    fn last_mut(&mut self) -> &mut Place {
        self.chain.last_mut().map_or(&mut self.output, |it| &mut it.2)
    }

    /// Its maps with the values that they hold.
    fn places_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        let links = self.chain.iter_mut().flat_map(|it| it.1.iter_mut().chain([&mut it.2]));
        [&mut self.input]
            .into_iter()
            .chain(&mut self.operand)
            .chain([&mut self.output])
            .chain(links)
    }
}

/// The most operators in a chain, and the most operands that it takes from memory.
const CHAIN: usize = 4;
const CHAIN_OPERANDS: usize = 3;

/// A graph on its way to operators.
pub(super) struct Lowering<'a> {
    pub(super) graph: &'a Graph,
    pub(super) folding: &'a Folding,
    pub(super) shapes: &'a Shapes,
    consumers: Consumers,
    u85: bool,
    pub(super) assumed: &'a Assumed<'a>,
    /// By value: the value whose elements it has.
    heads: Vec<ValueId>,
    /// By value: the operator that made it last.
    makers: FxHashMap<ValueId, usize>,
    drafts: Vec<Draft>,
    melted: BTreeMap<NodeId, &'static str>,
}

/// What is assumed of a network beyond its graph.
pub(crate) struct Assumed<'a> {
    /// Bits of activations.
    pub(crate) bits: u64,
    /// Stored bytes for each weight that is not known.
    pub(crate) ratio: f64,
    /// The same for single nodes, whose weights are then not looked at.
    pub(crate) ratios: BTreeMap<NodeId, f64>,
    /// Whether the weights of single nodes are two of four.
    pub(crate) patterns: BTreeMap<NodeId, bool>,
    /// Quantized weights of a graph that was lowered before; others are not known.
    pub(crate) known: Option<&'a BTreeMap<NodeId, Vec<Weights>>>,
    /// Stored bytes for each weight in that graph.
    pub(crate) before: Option<&'a BTreeMap<NodeId, f64>>,
}

impl Default for Assumed<'_> {
    fn default() -> Self {
        let (ratios, patterns) = (BTreeMap::new(), BTreeMap::new());
        Assumed { bits: 8, ratio: 1.0, ratios, patterns, known: None, before: None }
    }
}

/// The operators of `graph`, apart from nodes that are `elsewhere`; `None` where a shape is not known.
pub(crate) fn lower(
    machine: &Machine,
    graph: &Graph,
    folding: &Folding,
    shapes: &Shapes,
    assumed: &Assumed<'_>,
    elsewhere: &BTreeSet<NodeId>,
) -> Option<Lowered> {
    let mut lowering = Lowering {
        graph,
        folding,
        shapes,
        consumers: graph.consumers(),
        u85: machine.is_u85(),
        assumed,
        heads: graph.values().map(|(id, _)| id).collect(),
        makers: FxHashMap::default(),
        drafts: Vec::new(),
        melted: BTreeMap::new(),
    };
    for (id, node) in graph.nodes() {
        if folding.role(id) != Role::Ahead && !elsewhere.contains(&id) {
            lowering.node(id, node)?;
        }
    }
    Some(lowering.finish(machine))
}

impl Lowering<'_> {
    fn node(&mut self, id: NodeId, node: &Node) -> Option<()> {
        if let Some(why) = self.free(id, node) {
            let input = node.input(0)?;
            for &output in node.outputs.iter().flatten() {
                // Parts of a value are read in place; where they are is no matter, how large they are is.
                let same = self.shapes.elements(output) == self.shapes.elements(input);
                if same {
                    self.heads[output.index()] = self.heads[input.index()];
                }
            }
            self.melted.insert(id, why);
            return Some(());
        }
        match &node.op {
            Op::Conv(it) => self.conv(id, node, &it.spatial, it.group),
            Op::Gemm(it) => self.matrix(id, node, it.trans_b),
            Op::MatMul => self.matrix(id, node, false),
            Op::BatchNormalization(_) => self.constant_after(id, node, 1),
            Op::Binary(it) => self.binary(id, node, *it),
            Op::Variadic(it) => self.variadic(id, node, *it),
            Op::Unary(it) => self.activation(id, node, activation(it)),
            Op::Clip => self.activation(id, node, Activation::Clamp),
            Op::PRelu => self.elementwise(id, node, Elementwise::Other, 0, Some(1)),
            Op::Softmax(_) | Op::LogSoftmax(_) => softmax::lower(self, id, node),
            Op::Pool(it) => self.pool(id, node, it),
            Op::GlobalPool(it) => self.window(id, node, matches!(it, GlobalPool::Max)),
            Op::Reduce(it) => match it.kind {
                ReduceKind::Max | ReduceKind::Min => self.window(id, node, true),
                _ => self.window(id, node, false),
            },
            Op::Named(it) if it.name == "ConvTranspose" => self.transposed(id, node),
            _ => self.copy(id, node),
        }
    }

    /// Why a node moves nothing, if so.
    fn free(&self, id: NodeId, node: &Node) -> Option<&'static str> {
        match &node.op {
            Op::Identity | Op::Dropout | Op::Cast(_) => Some("passes its input on"),
            Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze => Some("moves nothing"),
            Op::QuantizeLinear(_) | Op::DequantizeLinear(_) => {
                Some("absorbed by its integer neighbours")
            }
            Op::Transpose(it)
                if self.changes_layout(it, node)
                    || matches!(self.folding.role(id), Role::Folded(_)) =>
            {
                Some("the compiled network has one layout, channels last")
            }
            Op::Concat(_) => Some("its inputs are written in place"),
            Op::Split(_) | Op::Slice => Some("its outputs are read in place"),
            Op::Pad(_) if self.pads_windows(node) => Some("fused into the windows that follow"),
            _ => None,
        }
    }

    /// Whether a transpose leads from channels first to channels last or back, or moves axes of extent 1 alone.
    fn changes_layout(&self, transpose: &Transpose, node: &Node) -> bool {
        let dims = node.input(0).and_then(|it| self.shapes.dims(it)).unwrap_or_default();
        let perm = &transpose.perm;
        let moved: Vec<_> =
            perm.iter().filter(|&&it| dims.get(it).is_some_and(|&n| n > 1)).collect();
        moved.is_sorted() || matches!(perm.as_slice(), [0, 3, 1, 2] | [0, 2, 3, 1])
    }

    /// Whether only windows read what was padded.
    fn pads_windows(&self, node: &Node) -> bool {
        let readers = self.consumers.of(node.output());
        let windows = |id: NodeId| matches!(self.graph.node(id).op, Op::Conv(_) | Op::Pool(_));
        !readers.is_empty() && readers.iter().all(|&(id, at)| at == 0 && windows(id))
    }

    pub(super) fn head(&self, value: ValueId) -> ValueId {
        self.heads[value.index()]
    }

    /// How many nodes read a value, through those that move nothing; leaving the graph counts as one.
    fn readers(&self, value: ValueId) -> usize {
        let leaves = usize::from(self.graph.outputs().contains(&value));
        let each = self.consumers.of(value).iter().map(|&(id, _)| {
            let node = self.graph.node(id);
            if self.free(id, node).is_some()
                && node.outputs.len() == 1
                && !matches!(node.op, Op::Concat(_))
            {
                self.readers(node.output())
            } else {
                1
            }
        });
        leaves + each.sum::<usize>()
    }

    /// The operator that makes `value`, if nobody else reads it, so that what follows may melt into it.
    fn sole_maker(&self, value: ValueId) -> Option<usize> {
        let head = self.head(value);
        let at = self.makers.get(&head).copied()?;
        (self.readers(head) == 1).then_some(at)
    }

    /// Height, width and depth of a value whose channels are first (`true`: as windows read it) or last.
    pub(super) fn volume(&self, value: ValueId, first: bool) -> Option<Volume> {
        let dims: Vec<u64> = self.shapes.dims(value)?.iter().map(|&it| it as u64).collect();
        let volume = match dims.as_slice() {
            [] => Volume::new(1, 1, 1),
            &[c] => Volume::new(1, 1, c),
            &[n, c] => Volume::new(1, n, c),
            &[n, c, w] if first => Volume::new(n, w, c),
            &[n, w, c] => Volume::new(n, w, c),
            &[n, c, h, w] => Volume::new(n * h, w, c),
            [all @ .., w, c] => Volume::new(all.iter().product(), *w, *c),
        };
        Some(volume.zip(volume, |it, _| it.max(1)))
    }

    /// A value as an operator reads or writes it.
    pub(super) fn place(&self, value: ValueId, first: bool) -> Option<Place> {
        let fixed = self.folding.is_fixed(value);
        let home = if fixed { Home::Constants } else { Home::Staging };
        let map =
            Map { size: self.volume(value, first)?, bits: self.assumed.bits, linear: fixed, home };
        Some(Place { value: (!fixed).then(|| self.head(value)), map })
    }

    pub(super) fn push(&mut self, draft: Draft) {
        if let Some(value) = draft.last().value {
            self.makers.insert(value, self.drafts.len());
        }
        self.drafts.push(draft);
    }

    /// As [`Lowering::push`], but at the end of the operator before where the array chains.
    pub(super) fn push_or_chain(&mut self, draft: Draft, chained: bool) {
        let Some(before) = self.drafts.last_mut().filter(|_| chained && self.u85) else {
            self.push(draft);
            return;
        };
        let Work::Elementwise(kind) = draft.work else { return };
        before.chain.push((kind, draft.operand, draft.output));
        if let Some(value) = draft.output.value {
            let at = self.drafts.len() - 1;
            self.makers.insert(value, at);
        }
    }

    /// A window over the input.
    fn pool(&mut self, id: NodeId, node: &Node, pool: &Pool) -> Option<()> {
        let work = if pool.kind == PoolKind::Max { Work::MaxPool } else { Work::Pool };
        let (input, output) = (self.place(node.input(0)?, true)?, self.place(node.output(), true)?);
        let mut kernel = kernel(&pool.spatial, None);
        // A window that makes no second step has no stride.
        for (stride, extent) in
            [(&mut kernel.stride_h, output.map.size.h), (&mut kernel.stride_w, output.map.size.w)]
        {
            *stride = if extent == 1 { 1 } else { *stride };
        }
        self.push(Draft { kernel, ..plain(id, work, input, output) });
        Some(())
    }

    /// A reduction over all positions, or over the depth.
    fn window(&mut self, id: NodeId, node: &Node, max: bool) -> Option<()> {
        let (input, output) = (self.place(node.input(0)?, true)?, self.place(node.output(), true)?);
        let (from, to) = (input.map.size, output.map.size);
        let work = match max {
            true => Work::MaxPool,
            false if to.d < from.d => Work::ReduceSum,
            false => Work::Pool,
        };
        // What is left over the positions is one window.
        let side = |all: u64, left: u64| (all / left.max(1)).max(1);
        let (h, w) = (side(from.h, to.h), side(from.w, to.w));
        let window = Kernel { h, w, ..Kernel::POINT };
        let kernel = if work == Work::ReduceSum { Kernel::POINT } else { window };
        let draft = plain(id, work, input, output);
        self.push(Draft { kernel, ..draft });
        Some(())
    }

    /// A copy, by the path of windows.
    fn copy(&mut self, id: NodeId, node: &Node) -> Option<()> {
        let Some(input) = node.reads().find(|&it| !self.folding.is_fixed(it)) else {
            self.melted.insert(id, "reads constants alone");
            return Some(());
        };
        let (input, output) = (self.place(input, true)?, self.place(node.output(), true)?);
        let input = Place { map: Map { size: output.map.size, ..input.map }, ..input };
        self.push(plain(id, Work::Pool, input, output));
        Some(())
    }

    /// An activation: at the end of the operator before, or an operator of its own.
    fn activation(&mut self, id: NodeId, node: &Node, activation: Activation) -> Option<()> {
        let input = node.input(0)?;
        if let Some(at) = self.sole_maker(input) {
            let draft = &mut self.drafts[at];
            if draft.activation == Activation::None || self.u85 && activation == Activation::Clamp {
                draft.activation = activation;
                self.extend(id, node, at, "fused into its producer");
                return Some(());
            }
        }
        let (input, output) = (self.place(input, true)?, self.place(node.output(), true)?);
        self.push(Draft { activation, ..plain(id, Work::Pool, input, output) });
        Some(())
    }

    /// Lets operator `at` make the output of `node`, which needs none of its own.
    fn extend(&mut self, id: NodeId, node: &Node, at: usize, why: &'static str) {
        let output = node.output();
        let last = self.drafts[at].last_mut();
        if let Some(old) = last.value.replace(output) {
            self.makers.remove(&old);
        }
        self.makers.insert(output, at);
        self.melted.insert(id, why);
    }

    /// A sum or product with a constant for each channel goes into the weights before it.
    fn constant_after(&mut self, id: NodeId, node: &Node, constant: usize) -> Option<()> {
        let (input, fixed) = (node.input(1 - constant.min(1))?, node.input(constant)?);
        let count = self.shapes.elements(fixed)?;
        let target = self.sole_maker(input).filter(|&at| {
            let draft = &self.drafts[at];
            let depth = draft.output.map.size.d;
            draft.weights.is_some()
                && draft.activation == Activation::None
                && draft.chain.is_empty()
                && (count == 1 || count == depth)
        });
        if let Some(at) = target {
            let factors = self.factors(node, fixed);
            if let (Some(weights), Some(factors)) = (&mut self.drafts[at].weights, factors) {
                weights.scale(&factors);
            }
            self.extend(id, node, at, "folded into the weights");
            return Some(());
        }
        let kind = match node.op {
            Op::Binary(Binary::Add | Binary::Sub) => Elementwise::Sum,
            Op::Binary(Binary::Div) => Elementwise::Quotient,
            _ => Elementwise::Product,
        };
        self.elementwise(id, node, kind, 1 - constant.min(1), Some(constant))
    }

    /// By what a node multiplies each channel, if it does.
    fn factors(&self, node: &Node, fixed: ValueId) -> Option<Vec<f32>> {
        let values = |value| self.graph.constant(value)?.to_f32().ok();
        match &node.op {
            Op::Binary(Binary::Mul) => values(fixed),
            Op::Binary(Binary::Div) => Some(values(fixed)?.into_iter().map(f32::recip).collect()),
            Op::BatchNormalization(it) => {
                let scale = values(node.input(1)?)?;
                let variance = values(node.input(4)?)?;
                let pairs = scale.into_iter().zip(variance);
                Some(
                    pairs.map(|(scale, variance)| scale / (variance + it.epsilon).sqrt()).collect(),
                )
            }
            _ => None,
        }
    }

    fn binary(&mut self, id: NodeId, node: &Node, op: Binary) -> Option<()> {
        let fixed = |at: usize| node.input(at).is_some_and(|it| self.folding.is_fixed(it));
        let (left, right) = (fixed(0), fixed(1));
        match op {
            Binary::Add | Binary::Mul if left => self.constant_after(id, node, 0),
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div if right => {
                self.constant_after(id, node, 1)
            }
            Binary::Add | Binary::Sub => self.elementwise(id, node, Elementwise::Sum, 0, Some(1)),
            Binary::Mul => self.elementwise(id, node, Elementwise::Product, 0, Some(1)),
            Binary::Div => self.elementwise(id, node, Elementwise::Quotient, 0, Some(1)),
            _ => self.elementwise(id, node, Elementwise::Other, 0, Some(1)),
        }
    }

    fn variadic(&mut self, id: NodeId, node: &Node, op: Variadic) -> Option<()> {
        let kind = match op {
            Variadic::Sum | Variadic::Mean => Elementwise::Sum,
            _ => Elementwise::Other,
        };
        for operand in 1..node.inputs.len().max(2) {
            let operand = (operand < node.inputs.len()).then_some(operand);
            self.elementwise(id, node, kind, 0, operand)?;
        }
        Some(())
    }

    /// An elementwise operator; on the U85 at the end of the operator that makes one of its operands.
    fn elementwise(
        &mut self,
        id: NodeId,
        node: &Node,
        kind: Elementwise,
        input: usize,
        operand: Option<usize>,
    ) -> Option<()> {
        let input = node.input(input)?;
        let operand = operand.and_then(|it| node.input(it));
        let output = self.place(node.output(), true)?;
        let values = [Some(input), operand];
        let chained =
            values.iter().flatten().filter_map(|&it| Some((self.sole_maker(it)?, it))).max();
        if let Some((at, value)) = chained.filter(|it| self.may_chain(it.0, &output)) {
            let other = values.into_iter().flatten().find(|&it| it != value);
            let other = match other {
                Some(it) => Some(self.place(it, true)?),
                None => None,
            };
            let draft = &mut self.drafts[at];
            if let Some(old) = draft.last_mut().value.take() {
                self.makers.remove(&old);
            }
            draft.chain.push((kind, other, output));
            self.extend(id, node, at, "chained to its producer");
            return Some(());
        }
        let (mut input, mut operand) = (
            self.place(input, true)?,
            match operand {
                Some(it) => Some(self.place(it, true)?),
                None => None,
            },
        );
        if let Some(other) = operand.filter(|it| it.map.size.elements() > input.map.size.elements())
        {
            operand = Some(std::mem::replace(&mut input, other));
        }
        let draft = plain(id, Work::Elementwise(kind), input, output);
        self.push(Draft { operand, ..draft });
        Some(())
    }

    fn may_chain(&self, at: usize, output: &Place) -> bool {
        let draft = &self.drafts[at];
        let operands = usize::from(draft.operand.is_some()) + draft.chain.len() + 1;
        self.u85
            && draft.chain.len() + 1 < CHAIN
            && operands < CHAIN_OPERANDS
            && draft.output.map.size == output.map.size
            && draft.activation != Activation::Table(256)
    }

    /// Places all maps and turns drafts into operators.
    fn finish(mut self, machine: &Machine) -> Lowered {
        let mut seen: Vec<Option<Seen>> = Vec::new();
        seen.resize_with(self.graph.value_count(), || None);
        for (at, draft) in self.drafts.iter_mut().enumerate() {
            for place in draft.places_mut() {
                let Some(value) = place.value else { continue };
                let it =
                    seen[value.index()].get_or_insert_with(|| Seen::new(value, at, &place.map));
                it.last = at;
                it.bytes = it.bytes.max(place.map.bytes());
                it.mixed |= (it.size.w, it.size.d) != (place.map.size.w, place.map.size.d);
            }
        }
        let outside: Vec<ValueId> = self
            .graph
            .inputs()
            .iter()
            .chain(self.graph.outputs())
            .map(|&it| self.head(it))
            .collect();
        let far = spilled(machine, &seen, &outside);
        let place = |place: &Place| match place.value {
            Some(value) => Map {
                linear: seen[value.index()].as_ref().is_some_and(|it| it.mixed)
                    || outside.contains(&value),
                home: if far.contains(&value) { Home::Features } else { Home::Staging },
                ..place.map
            },
            None => place.map,
        };
        let task = |draft: &Draft| Task {
            work: draft.work,
            input: place(&draft.input),
            operand: draft.operand.as_ref().map(place),
            output: place(&draft.output),
            kernel: draft.kernel,
            weights: draft.weights.as_ref().map(Floats::quantized),
            activation: draft.activation,
            chain: draft
                .chain
                .iter()
                .map(|(work, operand, output)| Chained {
                    work: *work,
                    operand: operand.as_ref().map(place),
                    output: place(output),
                })
                .collect(),
        };
        let tasks = self.drafts.iter().map(|draft| (draft.node, task(draft))).collect();
        Lowered { tasks, melted: self.melted }
    }
}

/// When a value is used, and how large it is.
struct Seen {
    value: ValueId,
    first: usize,
    last: usize,
    size: Volume,
    bytes: u64,
    /// Whether operators see it in different shapes, so that it cannot lie in bricks.
    mixed: bool,
}

impl Seen {
    fn new(value: ValueId, at: usize, map: &Map) -> Self {
        Seen { value, first: at, last: at, size: map.size, bytes: 0, mixed: false }
    }
}

/// The values that do not lie in the staging memory: what enters and leaves the graph, and, largest first, what finds no room.
fn spilled(machine: &Machine, seen: &[Option<Seen>], outside: &[ValueId]) -> Vec<ValueId> {
    let mut far: Vec<ValueId> = outside.to_vec();
    if !machine.spills() {
        return far;
    }
    let end = seen.iter().flatten().map(|it| it.last + 1).max().unwrap_or(0);
    let mut load = vec![0u64; end];
    let inside: Vec<_> = seen.iter().flatten().filter(|it| !outside.contains(&it.value)).collect();
    for it in &inside {
        load[it.first..=it.last].iter_mut().for_each(|load| *load += it.bytes);
    }
    let mut by_size = inside;
    by_size.sort_by_key(|it| std::cmp::Reverse(it.bytes));
    for it in by_size {
        let span = it.first..=it.last;
        if load[span.clone()].iter().any(|&load| load > machine.staging_limit) {
            load[span].iter_mut().for_each(|load| *load -= it.bytes);
            far.push(it.value);
        }
    }
    far
}

/// An operator without kernel, weights and activation.
pub(super) fn plain(node: NodeId, work: Work, input: Place, output: Place) -> Draft {
    Draft {
        node,
        work,
        input,
        operand: None,
        output,
        kernel: Kernel::POINT,
        weights: None,
        activation: Activation::None,
        chain: Vec::new(),
    }
}

/// What becomes of an elementwise function of one input.
fn activation(unary: &Unary) -> Activation {
    match unary {
        Unary::Relu => Activation::Clamp,
        _ => Activation::Table(256),
    }
}

/// The kernel of a window; `sides`: its extents where the operator does not tell them.
pub(super) fn kernel(spatial: &Spatial, sides: Option<&[usize]>) -> Kernel {
    let extents = sides.unwrap_or(&spatial.kernel);
    let axes = extents.len();
    // One axis is the width; of three, the first is part of the height.
    let at = |list: &[usize], from_end: usize| {
        axes.checked_sub(from_end).and_then(|i| list.get(i)).map_or(1, |&it| it as u64)
    };
    let deep = at(extents, 3);
    Kernel {
        h: at(extents, 2) * deep,
        w: at(extents, 1),
        stride_h: at(&spatial.strides, 2),
        stride_w: at(&spatial.strides, 1),
        dilation_h: at(&spatial.dilations, 2),
        dilation_w: at(&spatial.dilations, 1),
    }
}
