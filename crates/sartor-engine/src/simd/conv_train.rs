//! A convolution whose weights change from run to run, and its gradients.

use super::conv::{ConvShape, PackedConv};
use super::conv_input::ConvInputGradient;
use super::conv_weight::ConvWeightGradient;
use super::{Level, Tail, level};

/// A convolution in training. Each direction is planned when it is first asked for and keeps its buffers.
#[derive(Clone, Debug)]
pub(crate) struct TrainConv {
    shape: ConvShape,
    level: Level,
    forward: Option<PackedConv>,
    input: Option<ConvInputGradient>,
    weight: Option<ConvWeightGradient>,
}

impl TrainConv {
    /// A convolution of this shape.
    pub(crate) fn new(shape: &ConvShape) -> Self {
        Self::at(level(), shape)
    }

    /// [`Self::new`] for a level that this processor has.
    pub(super) fn at(level: Level, shape: &ConvShape) -> Self {
        Self { shape: *shape, level, forward: None, input: None, weight: None }
    }

    /// y [n, o, oh, ow] = tail(x [n, c, h, w] ∗ weights [o, c / groups, kh, kw] + bias [o] + residual [n, o, oh, ow]).
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller. So do the others.
    pub(crate) fn forward(
        &mut self,
        weights: &[f32],
        bias: Option<&[f32]>,
        (x, residual): (&[f32], Option<&[f32]>),
        tail: Tail,
        y: &mut [f32],
    ) {
        let (level, shape) = (self.level, &self.shape);
        let forward = self.forward.get_or_insert_with(|| PackedConv::empty(level, shape));
        forward.pack(weights, bias);
        forward.run(x, residual, tail, y);
    }

    /// dx = gradient of the input, or dx += it if `accumulate`, given the weights and dy.
    pub(crate) fn backward_input(
        &mut self,
        weights: &[f32],
        dy: &[f32],
        accumulate: bool,
        dx: &mut [f32],
    ) {
        let (level, shape) = (self.level, &self.shape);
        self.input
            .get_or_insert_with(|| ConvInputGradient::at(level, shape))
            .run(weights, dy, accumulate, dx);
    }

    /// dw += gradient of the weights, given x and dy.
    pub(crate) fn backward_weight(&mut self, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let (level, shape) = (self.level, &self.shape);
        self.weight.get_or_insert_with(|| ConvWeightGradient::at(level, shape)).run(x, dy, dw);
    }
}
