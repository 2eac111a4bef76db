//! A network made ready for one chip: everything that stays the same while widths, types and patterns change is found once.

mod evaluate;
mod job;
mod limits;
mod report;

use std::{collections::BTreeSet, sync::Arc};

use sartor_chip::{Artefact, Chip, EngineModel, Fallback, NumberType};
use sartor_ir::{Graph, Node, NodeId, Op};

pub use evaluate::Price;
pub(crate) use job::{Job, Tweak};

use crate::{
    CostError, Options,
    arena::Span,
    arithmetic::Arithmetics,
    buffers::Buffers,
    ethos_u::Schedule,
    fold::{Folding, Role, is_activation},
    inline::{Flat, flatten},
    op::{self, Work},
    shapes::Shapes,
    weights::Contents,
};

/// A network made ready for one chip. [`Model::estimate`] says everything about it, [`Model::price`] quickly prices it with some
/// [`Change`](crate::Change)s.
#[derive(Clone)]
pub struct Model<'a> {
    pub(crate) network: Arc<Network<'a>>,
    pub(crate) chip: &'a Chip,
    pub(crate) options: Options,
    pub(crate) arithmetics: Arithmetics<'a>,
    /// By position: the node as it is.
    pub(crate) jobs: Vec<Option<Job<'a>>>,
    /// Buffers as they are.
    pub(crate) sizes: Vec<Span>,
    /// What nodes take on an Ethos-U, if the chip is one.
    pub(crate) schedule: Option<Schedule>,
}

/// What does not depend on the figures of the chip.
#[derive(Clone)]
pub(crate) struct Network<'a> {
    pub(crate) flat: Flat<'a>,
    pub(crate) shapes: Shapes,
    pub(crate) folding: Folding,
    pub(crate) buffers: Buffers,
    pub(crate) tasks: Vec<Task>,
    /// By value: positions of the nodes that read or make it.
    pub(crate) uses: Vec<Vec<u32>>,
    pub(crate) assumptions: Vec<String>,
    pub(crate) fallbacks: Vec<String>,
}

/// One node, in the order in which they run.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) repeats: u64,
    /// Whether it computes with integers.
    pub(crate) integer: bool,
    /// Buffers that it reads, once each.
    pub(crate) reads: Vec<u32>,
    pub(crate) writes: Vec<u32>,
    /// By product: the types of its weights and its activations.
    pub(crate) own: Vec<(NumberType, NumberType)>,
    /// By product: what its weights say.
    pub(crate) contents: Vec<Option<Contents>>,
}

/// Where a node runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// It costs nothing, and why.
    Nowhere(&'static str),
    /// It gives its input another form, and costs nothing but its start where the chip states one; why.
    View(&'static str),
    /// It melts into its producer on vector units, and costs its steps there but neither traffic nor a start; why.
    Fused(&'static str),
    Chip,
    /// On the host; with a reason where it leaves the chip anew, and whether all after it does so too.
    Host {
        reason: Option<String>,
        suffix: bool,
    },
}

impl<'a> Model<'a> {
    /// Prepares `graph` for `chip`. The graph's inputs get the batch wherever their first extent, or its name, stands.
    ///
    /// # Errors
    /// Shapes that cannot be inferred, types that the chip does not multiply when they are asked for, a batch above the chip's, an
    /// operator for which the chip refuses the network.
    pub fn new(graph: &'a Graph, chip: &'a Chip, options: &Options) -> Result<Self, CostError> {
        let most = chip.core.operators.batch_max.as_ref().map_or(u64::MAX, |it| it.value);
        if options.batch == 0 || options.batch as u64 > most {
            return Err(CostError::Batch { chip: chip.id.clone(), most, found: options.batch });
        }
        let arithmetics = Arithmetics::new(chip, options.precision)?;
        let (flat, mut assumptions) = flatten(graph, options.batch)?;
        let (shapes, extents) = Shapes::infer(&flat.graph, options.batch)?;
        assumptions.extend(extents);
        let channels_last = chip.runtime.accepts.contains(&Artefact::TfliteInt8);
        let folding = Folding::of(
            &flat.graph,
            &shapes,
            channels_last,
            chip.core.operators.fusions.as_deref(),
        );
        let buffers = Buffers::of(&flat.graph, &folding, &shapes, &arithmetics);
        let unknown: BTreeSet<String> = buffers
            .unknown(&shapes)
            .map(|it| {
                format!(
                    "the size of `{}` is not known and counts nothing",
                    flat.graph.value(it).name
                )
            })
            .collect();
        assumptions.extend(unknown);
        let mut uses = vec![Vec::new(); flat.graph.value_count()];
        for (at, (_, node)) in flat.graph.nodes().enumerate() {
            for value in node.reads().chain(node.outputs.iter().flatten().copied()) {
                uses[value.index()].push(at as u32);
            }
        }
        let mut network = Network {
            flat,
            shapes,
            folding,
            buffers,
            tasks: Vec::new(),
            uses,
            assumptions,
            fallbacks: Vec::new(),
        };
        network.place(chip)?;
        Self::priced(Arc::new(network), chip, options, arithmetics)
    }

    /// The same network with other figures of the same chip.
    ///
    /// # Errors
    /// Types that the chip does not multiply when they are asked for.
    pub fn on<'b>(&self, chip: &'b Chip) -> Result<Model<'b>, CostError>
    where
        'a: 'b,
    {
        let arithmetics = Arithmetics::new(chip, self.options.precision)?;
        Model::priced(self.network.clone(), chip, &self.options, arithmetics)
    }

    fn priced(
        network: Arc<Network<'a>>,
        chip: &'a Chip,
        options: &Options,
        arithmetics: Arithmetics<'a>,
    ) -> Result<Self, CostError> {
        let sizes = network.buffers.sizes(&network.shapes, |_| None);
        let mut model = Model {
            network,
            chip,
            options: *options,
            arithmetics,
            jobs: Vec::new(),
            sizes,
            schedule: None,
        };
        let tasks = 0..model.network.tasks.len();
        model.jobs = tasks
            .map(|at| model.job(at, &model.network.shapes, &Tweak::default()))
            .collect::<Result<_, _>>()?;
        let (network, bits) = (&model.network, model.activation_bits(&[]));
        let (graph, host) = (&network.flat.graph, network.on_host());
        model.schedule = Schedule::of(chip, graph, &network.folding, &network.shapes, bits, &host);
        Ok(model)
    }

    /// The widest activations of all products, in bits; `changed`: those of nodes that changed.
    pub(crate) fn activation_bits(&self, changed: &[(u32, Job<'a>)]) -> u64 {
        let jobs = self.jobs.iter().enumerate().filter_map(|(at, job)| {
            let new = changed.iter().find(|it| it.0 as usize == at).map(|it| &it.1);
            new.or(job.as_ref())
        });
        let bits = jobs.flat_map(|it| &it.parts).map(|it| it.arithmetic.mode.activations.bits());
        bits.max().map_or(8, u64::from)
    }
}

impl Network<'_> {
    /// The nodes that do not run on the chip.
    pub(crate) fn on_host(&self) -> BTreeSet<NodeId> {
        let host = |it: &&Task| matches!(it.place, Place::Host { .. });
        self.tasks.iter().filter(host).map(|it| it.id).collect()
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        self.flat.graph.node(self.tasks[at].id)
    }

    /// Finds out where each node runs, and what there is to know of it once and for all.
    fn place(&mut self, chip: &Chip) -> Result<(), CostError> {
        let graph = self.flat.graph.clone();
        let mut suffix = false;
        let on_vectors = matches!(chip.engine().model, EngineModel::Simd);
        let count = graph.node_count();
        for (at, (id, node)) in graph.nodes().enumerate() {
            let name = self.name(node);
            let role = self.folding.role(id);
            let asked = !suffix && role != Role::Ahead && !absorbed(role, node);
            let refused = if asked { limits::refused(chip, node, &self.shapes) } else { None };
            let reason = match refused {
                Some(why) => self.off_chip(chip, node, &name, &why, count - at)?,
                None => None,
            };
            suffix |= reason.is_some() && chip.core.operators.fallback == Fallback::CpuSuffix;
            let place = match role {
                Role::Ahead => Place::Nowhere("computed ahead"),
                _ if suffix || reason.is_some() => Place::Host { reason, suffix },
                Role::Folded(why) if is_view(&node.op) => Place::View(why),
                Role::Folded(why) if on_vectors && is_activation(&node.op) => Place::Fused(why),
                Role::Folded(why) => Place::Nowhere(why),
                Role::Runs => Place::Chip,
            };
            let task = self.task(chip, id, node, name, place)?;
            self.tasks.push(task);
        }
        Ok(())
    }

    /// The name of a node, or that of its first output.
    fn name(&self, node: &Node) -> String {
        match node.outputs.iter().flatten().next() {
            Some(&output) if node.name.is_empty() || node.name.ends_with('/') => {
                format!("{}{}", node.name, self.flat.graph.value(output).name)
            }
            _ => node.name.clone(),
        }
    }

    /// Why `node`, which the chip does not run, leaves it, if it does.
    fn off_chip(
        &mut self,
        chip: &Chip,
        node: &Node,
        name: &str,
        why: &str,
        rest: usize,
    ) -> Result<Option<String>, CostError> {
        let (op, id) = (node.op.name(), &chip.id);
        match chip.core.operators.fallback {
            Fallback::Split => {
                self.fallbacks.push(format!(
                    "`{name}` ({op}) runs by other means of {id}, counted by its traffic"
                ));
                Ok(None)
            }
            Fallback::CpuPerOp => Ok(Some(format!("{why}: host and back"))),
            Fallback::CpuSuffix => {
                Ok(Some(format!("{why}: it and all after it ({rest} nodes) run on the host")))
            }
            Fallback::Reject => Err(CostError::Rejected {
                chip: id.clone(),
                node: name.to_owned(),
                op: op.to_owned(),
            }),
        }
    }

    fn task(
        &mut self,
        chip: &Chip,
        id: NodeId,
        node: &Node,
        name: String,
        place: Place,
    ) -> Result<Task, CostError> {
        let graph = &self.flat.graph;
        let mut reads: Vec<u32> = node.reads().filter_map(|it| self.buffers.buffer(it)).collect();
        reads.sort_unstable();
        reads.dedup();
        let writes =
            node.outputs.iter().flatten().filter_map(|&it| self.buffers.buffer(it)).collect();
        let mut task = Task {
            id,
            place,
            repeats: self.flat.repeats(id),
            integer: self.folding.is_integer(id),
            reads,
            writes,
            own: Vec::new(),
            contents: Vec::new(),
            name,
        };
        if matches!(task.place, Place::Nowhere(_) | Place::View(_) | Place::Fused(_)) {
            return Ok(task);
        }
        let work = self.work(node, &task.name, &self.shapes)?;
        for product in &work.products {
            let own = Arithmetics::own(graph, &self.folding, &self.shapes, node, product);
            task.own.push(own);
            task.contents.push(Contents::read(
                chip,
                graph,
                &self.folding,
                &self.shapes,
                node,
                product,
            ));
        }
        Ok(task)
    }

    /// The work of a node.
    pub(crate) fn work(&self, node: &Node, name: &str, shapes: &Shapes) -> Result<Work, CostError> {
        match op::work(node, shapes) {
            Some(work) => Ok(work),
            None if !multiplies(node) => Ok(Work::elementwise(1.0)),
            None => Err(self.unknown_operand(node, name, shapes)),
        }
    }

    /// The error for a product of which an operand's shape is not known: it names who should have told it.
    fn unknown_operand(&self, node: &Node, name: &str, shapes: &Shapes) -> CostError {
        let graph = &self.flat.graph;
        let operand = node.reads().find(|&it| shapes.dims(it).is_none());
        let maker = operand.and_then(|it| graph.producer(it)).map(|it| graph.node(it));
        let value = operand.map_or_else(|| name.to_owned(), |it| graph.value(it).name.clone());
        let reader = format!("which `{name}` ({}) reads", node.op.name());
        let origin = match maker {
            Some(maker) => format!(
                "node `{}` ({}) does not tell it; declare in the file the shape of this value, {reader}",
                self.name(maker),
                maker.op.name()
            ),
            None => format!("declare in the file the shape of this value, {reader}"),
        };
        CostError::UnknownShape { value, origin }
    }
}

/// Whether a node that the chip does not run is none of its business: it melted into a neighbour.
fn absorbed(role: Role, node: &Node) -> bool {
    matches!(role, Role::Folded(_)) && matches!(node.op, Op::Transpose(_))
}

/// Operators whose products are not to be missed.
fn multiplies(node: &Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul)
        || matches!(&node.op, Op::Named(it) if matches!(
            it.name.as_str(),
            "ConvTranspose" | "ConvInteger" | "MatMulInteger" | "MatMulNBits" | "LSTM" | "GRU" | "RNN" | "Einsum" | "Attention"
        ))
}

/// Whether an operator only gives its input another form.
fn is_view(op: &Op) -> bool {
    matches!(
        op,
        Op::Identity | Op::Dropout | Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze
    )
}
