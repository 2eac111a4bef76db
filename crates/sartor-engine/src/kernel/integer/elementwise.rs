//! Arithmetic on bytes, element by element.

use sartor_ir::Binary;

use super::{Held, IntegerKernel, Source, planes, turned};
use crate::simd::{self, Affine, Sink};

/// What is known of the arithmetic of two tensors when it is prepared.
pub(crate) struct PairSite {
    /// Addition, subtraction or multiplication.
    pub(crate) op: Binary,
    /// The operands.
    pub(crate) operands: (Held, Held),
    /// The shape of the first.
    pub(crate) shape: Vec<usize>,
    /// Whether the second holds one number for each channel of each image; else it has the shape of the first.
    pub(crate) by_channel: bool,
    /// Real limits of the result.
    pub(crate) limits: (f32, f32),
    /// The result, which lies as the first operand.
    pub(crate) y: Held,
}

#[derive(Debug)]
struct PairKernel {
    product: bool,
    by: Affine,
    shape: Vec<usize>,
    by_channel: bool,
    layouts: (bool, bool),
}

/// The kernel; `None` for other operators, and for numbers by channel where channels do not lie last.
pub(crate) fn prepare_pair(site: &PairSite) -> Option<Box<dyn IntegerKernel>> {
    let (a, b) = site.operands;
    let ratio = |scale: f32| scale / site.y.scale;
    let factors = match site.op {
        Binary::Add => (ratio(a.scale), ratio(b.scale)),
        Binary::Sub => (ratio(a.scale), -ratio(b.scale)),
        Binary::Mul => (ratio(a.scale * b.scale), 1.0),
        _ => return None,
    };
    let laid = !site.by_channel || a.channels_last;
    if !factors.0.is_finite() || !factors.1.is_finite() || !laid {
        return None;
    }
    let by = Affine {
        zeros: (f32::from(a.zero), f32::from(b.zero)),
        factors,
        bounds: site.y.bounds(site.limits),
        zero: site.y.zero,
    };
    Some(Box::new(PairKernel {
        product: site.op == Binary::Mul,
        by,
        shape: site.shape.clone(),
        by_channel: site.by_channel,
        layouts: (a.channels_last, b.channels_last),
    }))
}

impl IntegerKernel for PairKernel {
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>) {
        let Sink::Bytes(y) = y else { return };
        if self.by_channel {
            let operands = (inputs[0].bytes(), inputs[1].bytes());
            simd::pair_by_channel(self.by, self.product, planes(&self.shape), operands, y);
            return;
        }
        let b = turned(inputs[1].bytes(), &self.shape, self.layouts.1, self.layouts.0);
        if self.product {
            simd::mul_bytes(self.by, inputs[0].bytes(), &b, y);
        } else {
            simd::add_bytes(self.by, inputs[0].bytes(), &b, y);
        }
    }
}

#[derive(Debug)]
struct TableKernel(Vec<u8>);

/// Any function of one byte.
pub(crate) fn prepare_table(table: Vec<u8>) -> Box<dyn IntegerKernel> {
    Box::new(TableKernel(table))
}

impl IntegerKernel for TableKernel {
    fn run(&self, inputs: &[Source<'_>], y: Sink<'_>) {
        let Sink::Bytes(y) = y else { return };
        for (y, &x) in y.iter_mut().zip(inputs[0].bytes()) {
            *y = self.0[usize::from(x)];
        }
    }
}
