//! What one node asks of the chip.

use sartor_chip::{Bytes, Chip, Cycles, Macs, NumberType, Seconds};
use sartor_ir::{Node, Op};

use super::{Model, Place, Task};
use crate::{
    CostError,
    arithmetic::Arithmetic,
    array::{Occupation, occupation, on_engine},
    crossbar,
    op::{Product, Work, chip_name},
    shapes::Shapes,
    weights::Stored,
};

/// What a node asks of the chip: all that a change of its sizes, types or weights may touch.
#[derive(Clone)]
pub(crate) struct Job<'c> {
    pub(crate) parts: Vec<Part<'c>>,
    /// Constants besides weights.
    pub(crate) constants: Stored<'c>,
    /// Whether no more is read than is written.
    pub(crate) partial: bool,
    /// Time of the array and of elementary steps; on the host, if it runs there and the chip describes it.
    pub(crate) compute: Seconds,
    /// What it takes to start it.
    pub(crate) overhead: Seconds,
}

/// One product of a node.
#[derive(Clone)]
pub(crate) struct Part<'c> {
    pub(crate) product: Product,
    pub(crate) arithmetic: Arithmetic<'c>,
    pub(crate) stored: Stored<'c>,
    pub(crate) occupation: Occupation,
    /// What it asks of arrays that multiply where the weights lie; its time is then theirs.
    pub(crate) arrays: Option<crossbar::Use>,
}

/// What differs from the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tweak {
    /// Types of weights and activations.
    pub(crate) types: Option<(NumberType, NumberType)>,
    /// Which pattern the zeros form.
    pub(crate) pattern: Zeros,
    /// The fraction of zeros.
    pub(crate) zeros: Option<f64>,
}

/// Which pattern zeros form.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Zeros {
    /// That of the graph.
    #[default]
    Own,
    /// None.
    Free,
    /// At most the first number of each second number of weights are not zero.
    Pattern((u64, u64)),
}

impl Job<'_> {
    /// A job that only has to be started.
    fn start(launch: Seconds) -> Self {
        Job {
            parts: Vec::new(),
            constants: Stored::default(),
            partial: false,
            compute: Seconds(0.0),
            overhead: launch,
        }
    }

    pub(crate) fn macs(&self) -> Macs {
        Macs(self.parts.iter().fold(0, |sum, it| sum.saturating_add(it.product.macs())))
    }

    pub(crate) fn slots(&self) -> Macs {
        self.parts.iter().map(|it| it.occupation.slots).sum()
    }

    /// Stored weights and other constants.
    pub(crate) fn stored(&self) -> Bytes {
        self.parts.iter().map(|it| it.stored.bytes).sum::<Bytes>() + self.constants.bytes
    }

    pub(crate) fn parameters(&self) -> u64 {
        self.parts.iter().map(|it| it.stored.parameters).sum::<u64>() + self.constants.parameters
    }

    /// Partial sums that are written and read again.
    pub(crate) fn partial_sums(&self) -> Bytes {
        self.parts.iter().map(|it| it.occupation.partial).sum()
    }
}

impl<'a> Model<'a> {
    /// The job of the node at a position, with `shapes` and a tweak in place; `None` for one that runs nowhere.
    pub(crate) fn job(
        &self,
        at: usize,
        shapes: &Shapes,
        tweak: &Tweak,
    ) -> Result<Option<Job<'a>>, CostError> {
        let network = &self.network;
        let task = &network.tasks[at];
        let node = network.node(at);
        match task.place {
            Place::Nowhere(_) => return Ok(None),
            Place::View(_) => {
                let launch = self.chip.launch_of(node.op.name());
                return Ok(launch.map(|it| Job::start(it.value)));
            }
            Place::Fused(_) => {
                let steps = self.steps(task, node.op.name(), made(node, shapes) as f64);
                return Ok(Some(Job { compute: steps, ..Job::start(Seconds(0.0)) }));
            }
            Place::Chip | Place::Host { .. } => {}
        }
        let on_host = matches!(task.place, Place::Host { .. });
        let work = network.work(node, &task.name, shapes)?;
        let mut parts = Vec::with_capacity(work.products.len());
        let mut array = Seconds(0.0);
        for (i, product) in work.products.iter().enumerate() {
            let arithmetic = match tweak.types {
                Some((weights, activations)) => self.arithmetics.exactly(weights, activations)?,
                None => self.arithmetics.choose(task.own[i]),
            };
            let stored = task.contents[i].as_ref().map_or_else(Stored::default, |contents| {
                tweaked(contents, self.chip, tweak).stored(self.chip, product, &arithmetic)
            });
            let occupation = occupation(self.chip, node.op.name(), &arithmetic, product);
            let arrays = crossbar::of(self.chip)
                .filter(|_| !on_host)
                .map(|it| crossbar::Use::of(it, product, task.contents[i].is_some()));
            if arrays.is_none() {
                array += occupation.time / stored.pattern.map_or(1.0, |it| it.speedup.value);
            }
            parts.push(Part { product: *product, arithmetic, stored, occupation, arrays });
        }
        let name = chip_name(node, &work);
        let steps = self.steps(task, name, made(node, shapes) as f64 * work.per_element);
        let inner = work.inner.iter().map(|&(name, count)| self.steps(task, name, count as f64));
        let inner: Seconds = inner.sum();
        let constants = self.constants(at, node, shapes, &work.products);
        if on_host {
            let constants = Stored::default();
            let compute = self.host_time(at, node, shapes, &work);
            let overhead = Seconds(0.0);
            return Ok(Some(Job { parts, constants, partial: work.partial, compute, overhead }));
        }
        let compute = array.max(steps) + inner;
        let overhead = self.chip.overhead_of(name);
        Ok(Some(Job { parts, constants, partial: work.partial, compute, overhead }))
    }

    /// Time of so many elementary steps of an operator; none where the chip states no rate.
    fn steps(&self, task: &Task, name: &str, count: f64) -> Seconds {
        let rate = if task.integer {
            self.chip.cycles_per_integer(name)
        } else {
            self.chip.cycles_per_element(name)
        };
        let cycles = Cycles(rate.map_or(0.0, |it| it.value.0) * count);
        cycles / self.chip.clock_of(self.chip.engine()).value
    }

    /// Time of a node on the host: its products in the host's mode for their types, or else its first; elementary steps at its rates.
    /// None where the chip does not describe its host.
    fn host_time(&self, at: usize, node: &Node, shapes: &Shapes, work: &Work) -> Seconds {
        let Some(host) = self.chip.host() else { return Seconds(0.0) };
        let clock = self.chip.clock_of(host).value;
        let products = work.products.iter().zip(&self.network.tasks[at].own).map(|(it, own)| {
            let mode = host.modes.iter().find(|it| (it.weights, it.activations) == *own);
            let mode = mode.or(host.modes.first());
            mode.map_or(Seconds(0.0), |mode| on_engine(self.chip, host, mode, 1.0, it).time)
        });
        let name = chip_name(node, work);
        let rate = host.op_rates.iter().find(|it| it.ops.iter().any(|known| known == name));
        let rate = rate.and_then(|it| it.cycles_per_element.as_ref()).map_or(0.0, |it| it.value.0);
        let outputs = made(node, shapes);
        products.sum::<Seconds>() + Cycles(rate * outputs as f64 * work.per_element) / clock
    }

    /// Floating-point constants besides the weights: those of a normalization, for instance.
    fn constants(
        &self,
        at: usize,
        node: &Node,
        shapes: &Shapes,
        products: &[Product],
    ) -> Stored<'a> {
        let network = &self.network;
        let mut stored = Stored::default();
        let quantizing = matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_));
        let weights = |i: usize| {
            products
                .iter()
                .zip(&network.tasks[at].contents)
                .any(|(it, contents)| contents.is_some() && (it.weights == i || it.bias_input == i))
        };
        for (i, value) in node.inputs.iter().enumerate() {
            let Some(value) = value.filter(|&it| network.folding.is_fixed(it) && !weights(i))
            else {
                continue;
            };
            let (Some(elements), Some(dtype)) = (shapes.elements(value), shapes.dtype(value))
            else {
                continue;
            };
            let bits = self.arithmetics.activation_bits(dtype);
            stored.bytes += Bytes((elements * bits).div_ceil(8));
            stored.parameters += if dtype.is_float() && !quantizing { elements } else { 0 };
        }
        stored
    }
}

/// Elements of the outputs of a node.
fn made(node: &Node, shapes: &Shapes) -> u64 {
    node.outputs.iter().flatten().filter_map(|&it| shapes.elements(it)).sum()
}

/// The contents of weights after a tweak.
fn tweaked<'t>(
    contents: &'t crate::weights::Contents,
    chip: &Chip,
    tweak: &Tweak,
) -> std::borrow::Cow<'t, crate::weights::Contents> {
    let mut contents = std::borrow::Cow::Borrowed(contents);
    if let Some(zeros) = tweak.zeros.filter(|_| chip.core.weight_store.is_some()) {
        contents.to_mut().zeros = zeros;
    }
    if tweak.pattern != Zeros::Own {
        let holds = |it: &sartor_chip::SparsityPattern| match tweak.pattern {
            Zeros::Pattern((n, m)) if m > 0 => it.m.is_multiple_of(m) && n * (it.m / m) <= it.n,
            _ => false,
        };
        contents.to_mut().patterns = chip.core.sparsity.iter().map(holds).collect();
    }
    contents
}
