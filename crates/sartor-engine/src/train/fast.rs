//! Steps by fast kernels: what the tape asks of them, and which nodes have one.

mod conv;
mod elementwise;
mod layout;
mod norm;
mod pool;
mod product;
pub(super) mod quantize;

use std::fmt::Debug;

use sartor_ir::{Binary, DType, Op, Unary, Variadic};

use super::tape::{Role, Step};
use crate::{
    Array,
    simd::{BatchStatistics, Into, Tail},
};

/// An operator in training by fast kernels, with what was fused into it. It reads floats and makes one output.
pub(super) trait Fast: Debug + Send + Sync {
    /// A forward run begins; what is drawn by chance in it follows from `seed` and `stream`, which tells the
    /// steps of a run and the runs of a step apart.
    fn begin(&mut self, _seed: u64, _stream: u64) {}

    /// Fills `y`.
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]);

    /// Fills `into`, one for each input whose gradient is asked for and which is not in [`Fast::passes`], given
    /// what [`Fast::reads`] names (the rest is empty) and d loss / d output, which it may change.
    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]);

    /// What backward reads.
    fn reads(&self) -> Reads;

    /// Inputs whose gradient is `dy` as backward leaves it.
    fn passes(&self) -> &[usize] {
        &[]
    }

    /// Takes over the activation that follows, if it can.
    fn absorb_tail(&mut self, _tail: Tail) -> bool {
        false
    }

    /// Takes over the addition of input `input`, of the output's shape, before any activation, if it can.
    fn absorb_residual(&mut self, _input: usize) -> bool {
        false
    }

    /// The statistics of the batch, where running ones follow them.
    fn statistics(&self) -> Option<&BatchStatistics> {
        None
    }
}

/// The forward run as backward sees it.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) inputs: &'a [&'a [f32]],
    pub(super) output: &'a [f32],
    /// Which inputs get a gradient.
    pub(super) wanted: &'a [bool],
}

/// What a backward run reads of the forward run.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    pub(super) inputs: Vec<usize>,
    pub(super) output: bool,
}

impl Reads {
    fn inputs(inputs: &[usize]) -> Self {
        Reads { inputs: inputs.to_vec(), output: false }
    }

    /// These, and the output if there is an activation.
    fn with_tail(inputs: &[usize], tail: Tail) -> Self {
        Reads { inputs: inputs.to_vec(), output: tail != Tail::None }
    }
}

/// What is known of a step when its kernel is chosen.
pub(super) struct Site<'a> {
    pub(super) step: &'a Step,
    /// Shapes of its inputs and of its first output, all of known shape.
    pub(super) shapes: Vec<Vec<usize>>,
    pub(super) output: Vec<usize>,
    /// Its inputs that are constants; parameters are none.
    pub(super) constants: Vec<Option<&'a Array>>,
    /// Element types of its inputs.
    pub(super) dtypes: Vec<Option<DType>>,
}

impl Site<'_> {
    fn given(&self, i: usize) -> bool {
        self.step.inputs.get(i).is_some_and(Option::is_some)
    }

    /// Whether inputs `0..count` that are given hold floats.
    fn floats(&self, count: usize) -> bool {
        let float = |i: usize| !self.given(i) || self.dtypes[i] == Some(DType::F32);
        (0..count.min(self.step.inputs.len())).all(float)
    }

    fn wants(&self, inputs: std::ops::Range<usize>) -> bool {
        inputs.into_iter().any(|i| self.step.wanted.get(i) == Some(&true))
    }
}

/// A kernel and the inputs of the node that it reads.
pub(super) type Made = (Box<dyn Fast>, Vec<usize>);

#[expect(clippy::unnecessary_wraps, reason = "the rules end in it, and have one signature")]
fn made(fast: impl Fast + 'static, inputs: &[usize]) -> Option<Made> {
    Some((Box::new(fast), inputs.to_vec()))
}

/// The kernel of a step, `None` if it has none and the readable rules must serve.
pub(super) fn prepare(site: &Site<'_>) -> Option<Made> {
    if matches!(site.step.role, Role::Dropout) || site.step.dtypes.first() != Some(&DType::F32) {
        return None;
    }
    match &site.step.op {
        Op::Conv(it) => conv::prepare(it, site),
        Op::BatchNormalization(it) => norm::prepare(it, site),
        Op::Gemm(it) => product::prepare_gemm(it, site),
        Op::MatMul => product::prepare_matmul(site),
        Op::GlobalPool(_) | Op::Pool(_) | Op::Reduce(_) => pool::prepare(site),
        Op::Identity | Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze | Op::Unsqueeze => {
            layout::prepare_reshape(site)
        }
        Op::Transpose(_) | Op::Slice | Op::Pad(_) | Op::Concat(_) => layout::prepare(site),
        _ => match (tail(site), is_addition(&site.step.op)) {
            (Some(tail), _) => elementwise::activation(tail, site),
            (None, true) => elementwise::addition(site),
            (None, false) => None,
        },
    }
}

/// The activation that a step is, if its bounds do not change.
pub(super) fn tail(site: &Site<'_>) -> Option<Tail> {
    match &site.step.op {
        Op::Unary(Unary::Relu) => Some(Tail::Relu),
        Op::Clip if !site.wants(1..3) && site.floats(3) => {
            let bound = |i: usize, open: f32| {
                if site.given(i) {
                    site.constants[i]?.as_f32()?.first().copied()
                } else {
                    Some(open)
                }
            };
            Some(Tail::Clip(bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?))
        }
        _ => None,
    }
}

/// Whether a step adds; its operands may still differ in shape.
pub(super) fn is_addition(op: &Op) -> bool {
    matches!(op, Op::Binary(Binary::Add) | Op::Variadic(Variadic::Sum))
}
