//! Activations and sums that no step before them took over.

use super::{Fast, Made, Reads, Seen, Site, made};
use crate::simd::{self, Into, Tail, activate_backward};

#[derive(Debug)]
struct Activation(Tail);

pub(super) fn activation(tail: Tail, site: &Site<'_>) -> Option<Made> {
    if site.floats(1) { made(Activation(tail), &[0]) } else { None }
}

impl Fast for Activation {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        simd::activate(self.0, inputs[0], y);
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], _into: &mut [Option<Into<'_>>]) {
        activate_backward(self.0, seen.output, dy);
    }

    fn reads(&self) -> Reads {
        Reads::with_tail(&[], self.0)
    }

    fn passes(&self) -> &[usize] {
        &[0]
    }
}

/// The sum of two tensors of one shape, and the activation that follows.
#[derive(Debug)]
struct Addition(Tail);

pub(super) fn addition(site: &Site<'_>) -> Option<Made> {
    let same = site.shapes.len() == 2 && site.shapes.iter().all(|it| *it == site.output);
    if same && site.floats(2) { made(Addition(Tail::None), &[0, 1]) } else { None }
}

impl Fast for Addition {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        simd::add(self.0, inputs[0], inputs[1], y);
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], _into: &mut [Option<Into<'_>>]) {
        activate_backward(self.0, seen.output, dy);
    }

    fn reads(&self) -> Reads {
        Reads::with_tail(&[], self.0)
    }

    fn passes(&self) -> &[usize] {
        &[0, 1]
    }

    fn absorb_tail(&mut self, tail: Tail) -> bool {
        let free = self.0 == Tail::None;
        if free {
            self.0 = tail;
        }
        free
    }
}
