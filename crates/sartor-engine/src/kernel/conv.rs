//! Convolution with constant weights, one or two spatial axes.

use sartor_ir::{Binary, Conv};

use super::{Kernel, Prepared, Site, of_first};
use crate::{
    reference::{self, conv::Window},
    simd::{ConvShape, PackedConv, Tail},
    stage::Stage,
};

#[derive(Debug)]
struct ConvKernel {
    packed: PackedConv,
    macs: usize,
    residual: Option<usize>,
    tail: Tail,
}

pub(super) fn prepare(it: &Conv, site: &Site<'_>) -> Option<Prepared> {
    let x = site.shape_of(0)?;
    let w = site.constants.get(1)?.as_ref()?;
    let bias = if site.absent(2) { None } else { Some(site.floats(2)?) };
    let shape = plane_shape(it, x, &w.shape, &site.shape)?;
    of_first(ConvKernel {
        macs: site.shape.iter().product::<usize>() * shape.terms(),
        packed: PackedConv::new(&shape, w.as_f32()?, bias),
        residual: None,
        tail: Tail::None,
    })
}

/// The geometry of a convolution over one or two spatial axes, from the shapes of its operands.
pub(crate) fn plane_shape(it: &Conv, x: &[usize], w: &[usize], y: &[usize]) -> Option<ConvShape> {
    let axes = reference::windows(&it.spatial, w.get(2..)?, x.get(2..)?, y.get(2..)?).ok()?;
    ConvShape::of_windows(&axes, (x[0], x[1], w[0]), it.group)
}

impl ConvShape {
    /// The geometry over one or two axes, for so many images, input channels and output channels.
    pub(crate) fn of_windows(
        axes: &[Window],
        (batch, in_channels, out_channels): (usize, usize, usize),
        groups: usize,
    ) -> Option<Self> {
        let unit = Window { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };
        let (v, h) = match *axes {
            [h] => (unit, h),
            [v, h] => (v, h),
            _ => return None,
        };
        Some(ConvShape {
            batch,
            in_channels,
            in_h: v.input,
            in_w: h.input,
            out_channels,
            out_h: v.output,
            out_w: h.output,
            kernel: (v.kernel, h.kernel),
            strides: (v.stride, h.stride),
            dilations: (v.dilation, h.dilation),
            pads_begin: (v.pad, h.pad),
            groups,
        })
    }
}

impl Kernel for ConvKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        self.packed.run(inputs[0], self.residual.map(|it| inputs[it]), self.tail, y);
    }

    fn macs(&self) -> usize {
        self.macs
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
