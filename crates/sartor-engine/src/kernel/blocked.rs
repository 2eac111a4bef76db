//! Kernels over feature maps in the inner layout of [`crate::simd::blocked`].

use sartor_ir::{Binary, Conv, Op, Pool, PoolKind};

use super::{Kernel, Site, conv::plane_shape};
use crate::{
    reference,
    simd::{
        Level, Tail,
        blocked::{self, BlockedConv, BlockedDepthwise, BlockedSelect, BlockedWinograd},
    },
    stage::Stage,
};

#[derive(Debug)]
enum Packed {
    Dense(BlockedConv),
    Winograd(BlockedWinograd),
    Depthwise(BlockedDepthwise),
}

/// A convolution that writes blocked channels.
#[derive(Debug)]
pub(crate) struct BlockedConvKernel {
    packed: Packed,
    channels: usize,
    plane: usize,
    macs: usize,
    residual: Option<usize>,
    tail: Tail,
}

/// The kernel of a convolution with constant weights, if it has one and gains by it.
pub(crate) fn prepare_conv(it: &Conv, site: &Site<'_>, level: Level) -> Option<BlockedConvKernel> {
    let x = site.shape_of(0)?;
    let w = site.constants.get(1)?.as_ref()?;
    let bias = if site.absent(2) { None } else { Some(site.floats(2)?) };
    let shape = plane_shape(it, x, &w.shape, &site.shape)?;
    let packed = if BlockedWinograd::serves(level, &shape) {
        Packed::Winograd(BlockedWinograd::new(level, &shape, w.as_f32()?, bias))
    } else if BlockedConv::serves(level, &shape) {
        Packed::Dense(BlockedConv::new(level, &shape, w.as_f32()?, bias))
    } else if BlockedDepthwise::serves(level, &shape) {
        Packed::Depthwise(BlockedDepthwise::new(level, &shape, w.as_f32()?, bias))
    } else {
        return None;
    };
    let (channels, plane) = (shape.out_channels, shape.out_h * shape.out_w);
    let macs = shape.batch * channels * plane * shape.terms();
    Some(BlockedConvKernel { packed, channels, plane, macs, residual: None, tail: Tail::None })
}

impl BlockedConvKernel {
    /// Whether the input is plain, [n, c, h, w].
    pub(crate) fn reads_plain(&self) -> bool {
        matches!(&self.packed, Packed::Dense(it) if it.reads_plain())
    }

    /// Takes `x factor + addend` by channel into the weights.
    fn scale(&mut self, factor: &[f32], addend: &[f32]) {
        match &mut self.packed {
            Packed::Dense(it) => it.scale(factor, addend),
            Packed::Winograd(it) => it.scale(factor, addend),
            Packed::Depthwise(it) => it.scale(factor, addend),
        }
    }
}

impl Kernel for BlockedConvKernel {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let residual = self.residual.map(|it| inputs[it]);
        match &self.packed {
            Packed::Dense(it) => it.run(inputs[0], residual, self.tail, y),
            Packed::Winograd(it) => it.run(inputs[0], residual, self.tail, y),
            Packed::Depthwise(it) => it.run(inputs[0], residual, self.tail, y),
        }
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
            Stage::Affine { factor, addend, inner }
                if self.residual.is_none()
                    && factor.len() == self.channels
                    && *inner == self.plane =>
            {
                self.scale(factor, addend);
            }
            Stage::Along { op: Binary::Add, values, inner, .. }
                if self.residual.is_none()
                    && values.len() == self.channels
                    && *inner == self.plane =>
            {
                self.scale(&vec![1.0; values.len()], values);
            }
            _ => match stage.as_tail() {
                Some(tail) => self.tail = tail,
                None => return false,
            },
        }
        true
    }
}

/// A change of layout of [n, channels, plane].
#[derive(Debug)]
pub(crate) struct Reorder {
    pub(crate) lanes: usize,
    pub(crate) channels: usize,
    pub(crate) plane: usize,
    pub(crate) direction: Direction,
}

/// Where a change of layout goes.
#[derive(Debug)]
pub(crate) enum Direction {
    /// From [n, c, h, w].
    In,
    /// To [n, c, h, w].
    Out,
    /// To the means of the planes, [n, c].
    Means,
}

impl Kernel for Reorder {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        let change = match self.direction {
            Direction::In => blocked::to_blocked,
            Direction::Out => blocked::from_blocked,
            Direction::Means => blocked::plane_means,
        };
        change(self.lanes, self.channels, self.plane, inputs[0], y);
    }
}

impl Kernel for BlockedSelect {
    fn run(&self, inputs: &[&[f32]], y: &mut [f32]) {
        self.run(inputs[0], y);
    }
}

/// The kernel of a node that selects or pads channels, rows and columns of [n, c, h, w].
pub(crate) fn prepare_select(site: &Site<'_>, level: Level) -> Option<BlockedSelect> {
    let x = site.shape_of(0)?;
    let [n, c, h, w] = *x else { return None };
    let known = |i: usize| site.absent(i) || site.constants.get(i).is_some_and(Option::is_some);
    let (tables, fill) = match &site.node.op {
        Op::Slice if (1..5).all(known) => {
            let windows = reference::slice_windows(x, &site.arrays()).ok()?;
            let table = |&(start, step, count): &(usize, isize, usize)| {
                (0..count).map(|i| start.checked_add_signed(step * i.cast_signed())).collect()
            };
            (windows.iter().map(table).collect::<Vec<Vec<_>>>(), 0.0)
        }
        Op::Pad(it) if known(1) && known(3) => {
            let fill = if site.absent(2) { 0.0 } else { *site.floats(2)?.first()? };
            (reference::pad_tables(it, x, &site.arrays()).ok()?, fill)
        }
        _ => return None,
    };
    let [images, channels, rows, columns] = tables.as_slice() else { return None };
    let all = images.len() == n && images.iter().enumerate().all(|(i, it)| *it == Some(i));
    let lanes = blocked::lanes(level);
    all.then(|| BlockedSelect::new(lanes, [c, h, w], [channels, rows, columns], fill))
}

/// Whether `op` takes the mean of each whole plane of an input of shape `x` [n, c, …].
pub(crate) fn is_plane_mean(op: &Op, x: &[usize], y: &[usize]) -> bool {
    match op {
        Op::GlobalPool(sartor_ir::GlobalPool::Average) => true,
        Op::Pool(it) if it.kind == PoolKind::Average => covers(it, x, y).unwrap_or(false),
        _ => false,
    }
}

/// Whether the only window is the whole plane.
fn covers(it: &Pool, x: &[usize], y: &[usize]) -> Option<bool> {
    let axes = reference::windows(&it.spatial, &[], x.get(2..)?, y.get(2..)?).ok()?;
    let whole = axes
        .iter()
        .all(|it| it.output == 1 && it.pad == 0 && it.kernel == it.input && it.dilation == 1);
    Some(whole)
}
