//! Convolution with constant weights, one or two spatial axes.

use sartor_ir::{Binary, Conv};

use super::{Kernel, Prepared, Site, of_first};
use crate::{
    reference,
    simd::{ConvShape, PackedConv, Tail},
    stage::Stage,
};

#[derive(Debug)]
struct ConvKernel {
    packed: PackedConv,
    residual: Option<usize>,
    tail: Tail,
}

pub(super) fn prepare(it: &Conv, site: &Site<'_>) -> Option<Prepared> {
    let x = site.shape_of(0)?;
    let w = site.constants.get(1)?.as_ref()?;
    let bias = if site.absent(2) { None } else { Some(site.floats(2)?) };
    let axes = reference::windows(&it.spatial, &w.shape[2..], &x[2..], &site.shape[2..]).ok()?;
    let unit =
        reference::conv::Window { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };
    let (v, h) = match *axes.as_slice() {
        [h] => (unit, h),
        [v, h] => (v, h),
        _ => return None,
    };
    let shape = ConvShape {
        batch: x[0],
        in_channels: x[1],
        in_h: v.input,
        in_w: h.input,
        out_channels: w.shape[0],
        out_h: v.output,
        out_w: h.output,
        kernel: (v.kernel, h.kernel),
        strides: (v.stride, h.stride),
        dilations: (v.dilation, h.dilation),
        pads_begin: (v.pad, h.pad),
        groups: it.group,
    };
    of_first(ConvKernel {
        packed: PackedConv::new(&shape, w.as_f32()?, bias),
        residual: None,
        tail: Tail::None,
    })
}

impl Kernel for ConvKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        self.packed.run(inputs[0], self.residual.map(|it| inputs[it]), self.tail, y);
    }

    fn absorb(&mut self, stage: &Stage) -> bool {
        if self.tail != Tail::None {
            return false;
        }
        match stage {
            Stage::Tensor { op: Binary::Add, with, .. } if self.residual.is_none() => {
                self.residual = Some(*with);
            }
            _ => match stage.as_tail() {
                Some(tail) => self.tail = tail,
                None => return false,
            },
        }
        true
    }
}
