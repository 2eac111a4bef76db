//! Convolution with bias, addition and activation.

use sartor_ir::Conv;

use super::{Fast, Made, Reads, Seen, Site, made};
use crate::{
    kernel::plane_shape,
    simd::{ConvShape, Into, Tail, TrainConv, activate_backward, bias_gradient},
};

#[derive(Debug)]
struct FastConv {
    shape: ConvShape,
    conv: TrainConv,
    bias: Option<usize>,
    residual: Option<usize>,
    passes: Vec<usize>,
    tail: Tail,
}

pub(super) fn prepare(it: &Conv, site: &Site<'_>) -> Option<Made> {
    let shape = plane_shape(it, &site.shapes[0], &site.shapes[1], &site.output)?;
    let bias = site.given(2).then_some(2);
    let fast = FastConv {
        shape,
        conv: TrainConv::new(&shape),
        bias,
        residual: None,
        passes: Vec::new(),
        tail: Tail::None,
    };
    if !site.floats(3) {
        return None;
    }
    made(fast, if bias.is_some() { &[0, 1, 2] } else { &[0, 1] })
}

impl Fast for FastConv {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        let read = |it: Option<usize>| it.map(|it| inputs[it]);
        let from = (inputs[0], read(self.residual));
        self.conv.forward(inputs[1], read(self.bias), from, self.tail, y);
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        activate_backward(self.tail, seen.output, dy);
        let s = &self.shape;
        if let Some(Some(db)) = self.bias.map(|it| &mut into[it]) {
            db.start();
            bias_gradient((s.batch, s.out_channels, s.out_h * s.out_w), dy, db.values);
        }
        if let Some(dw) = &mut into[1] {
            dw.start();
            self.conv.backward_weight(seen.inputs[0], dy, dw.values);
        }
        if let Some(dx) = &mut into[0] {
            self.conv.backward_input(seen.inputs[1], dy, dx.accumulate, dx.values);
        }
    }

    fn reads(&self) -> Reads {
        Reads::with_tail(&[0, 1], self.tail)
    }

    fn passes(&self) -> &[usize] {
        &self.passes
    }

    fn absorb_tail(&mut self, tail: Tail) -> bool {
        let free = self.tail == Tail::None;
        if free {
            self.tail = tail;
        }
        free
    }

    fn absorb_residual(&mut self, input: usize) -> bool {
        let free = self.tail == Tail::None && self.residual.is_none();
        if free {
            self.residual = Some(input);
            self.passes = vec![input];
        }
        free
    }
}
