//! Fast kernels over floats of shapes that are known when a graph is prepared.

pub(crate) mod blocked;
mod conv;
pub(crate) mod integer;
mod layout;
mod matmul;
mod norm;
mod pool;

pub(crate) use conv::plane_shape;
pub(crate) use layout::view;

use std::{fmt::Debug, sync::Arc};

use sartor_ir::{Node, Op};

use crate::{Array, stage::Stage};

/// A prepared kernel: reads floats, fills `y`.
pub(crate) trait Kernel: Debug + Send + Sync {
    /// Computes `y`; `inputs` are those that the kernel asked for in [`Prepared::inputs`], then those of
    /// absorbed stages.
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]);

    /// Multiply-accumulates of one run, 0 where nobody asked.
    fn macs(&self) -> usize {
        0
    }

    /// Takes a stage over as part of the kernel, if it can.
    fn absorb(&mut self, _stage: &Stage) -> bool {
        false
    }
}

/// A kernel and the inputs of the node that it reads at run time.
pub(crate) struct Prepared {
    /// The kernel.
    pub(crate) kernel: Box<dyn Kernel>,
    /// Positions among the node's inputs.
    pub(crate) inputs: Vec<usize>,
}

/// What is known of a node when it is prepared.
pub(crate) struct Site<'a> {
    /// The node.
    pub(crate) node: &'a Node,
    /// Shapes of its inputs, where known.
    pub(crate) shapes: Vec<Option<Vec<usize>>>,
    /// Its constant inputs.
    pub(crate) constants: Vec<Option<Arc<Array>>>,
    /// Shape of output `output`.
    pub(crate) shape: Vec<usize>,
    /// Which output is to be computed.
    pub(crate) output: usize,
}

impl Site<'_> {
    /// The shape of input `i`, if it is known.
    pub(crate) fn shape_of(&self, i: usize) -> Option<&[usize]> {
        self.shapes.get(i)?.as_deref()
    }

    /// The floats of constant input `i`.
    pub(crate) fn floats(&self, i: usize) -> Option<&[f32]> {
        self.constants.get(i)?.as_ref()?.as_f32()
    }

    /// Whether input `i` is left out.
    pub(crate) fn absent(&self, i: usize) -> bool {
        self.node.input(i).is_none()
    }

    /// Whether input `i` is left out or constant.
    pub(crate) fn is_known(&self, i: usize) -> bool {
        self.absent(i) || self.constants.get(i).is_some_and(Option::is_some)
    }

    /// Constant inputs as the reference rules read them.
    pub(crate) fn arrays(&self) -> Vec<Option<&Array>> {
        self.constants.iter().map(Option::as_deref).collect()
    }
}

/// The fast kernel for a node; `None` if it has none and the reference must serve.
pub(crate) fn prepare(site: &Site<'_>) -> Option<Prepared> {
    match &site.node.op {
        Op::Conv(it) => conv::prepare(it, site),
        Op::Gemm(it) => matmul::prepare_gemm(it, site),
        Op::MatMul => matmul::prepare_matmul(site),
        Op::Softmax(it) => norm::prepare_softmax(it.axis, false, site),
        Op::LogSoftmax(it) => norm::prepare_softmax(it.axis, true, site),
        Op::Named(it) if it.domain.is_empty() => norm::prepare_layer_norm(it, site),
        Op::Pool(it) => pool::prepare(it, site),
        Op::GlobalPool(it) => pool::prepare_global(*it, site),
        Op::Reduce(it) => pool::prepare_reduce(it, site),
        Op::Binary(it) if !it.is_predicate() => layout::prepare_broadcast(*it, site),
        _ => layout::prepare(site),
    }
}

/// A kernel that reads input 0 alone.
#[expect(clippy::unnecessary_wraps, reason = "the rules end in it, and have one signature")]
fn of_first(kernel: impl Kernel + 'static) -> Option<Prepared> {
    Some(Prepared { kernel: Box::new(kernel), inputs: vec![0] })
}
