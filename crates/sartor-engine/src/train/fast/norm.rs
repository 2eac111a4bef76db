//! Batch normalization with addition and activation.

use sartor_ir::BatchNormalization;

use super::{Fast, Made, Reads, Role, Seen, Site, made};
use crate::simd::{Activated, BatchNorm, BatchStatistics, Into, Tail, Target};

#[derive(Debug)]
struct FastNorm {
    shape: (usize, usize, usize),
    epsilon: f32,
    /// Statistics of the last batch, or the stored ones.
    statistics: BatchStatistics,
    stored: bool,
    residual: Option<usize>,
    /// The residual, or the input if there is none.
    passes: [usize; 1],
    tail: Tail,
}

pub(super) fn prepare(it: &BatchNormalization, site: &Site<'_>) -> Option<Made> {
    let x = &site.shapes[0];
    if x.len() < 2 || !site.floats(5) || site.wants(3..5) {
        return None;
    }
    let stored = matches!(site.step.role, Role::Plain);
    let fast = FastNorm {
        shape: (x[0], x[1], x[2..].iter().product()),
        epsilon: it.epsilon,
        statistics: BatchStatistics::default(),
        stored,
        residual: None,
        passes: [0],
        tail: Tail::None,
    };
    made(fast, if stored { &[0, 1, 2, 3, 4] } else { &[0, 1, 2] })
}

impl FastNorm {
    fn kernel<'a>(&self, scale: &'a [f32]) -> BatchNorm<'a> {
        BatchNorm { shape: self.shape, scale, epsilon: self.epsilon, tail: self.tail }
    }
}

impl Fast for FastNorm {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        if self.stored {
            self.statistics.mean.clear();
            self.statistics.mean.extend_from_slice(inputs[3]);
            self.statistics.variance.clear();
            self.statistics.variance.extend_from_slice(inputs[4]);
        }
        let (kernel, residual) = (self.kernel(inputs[1]), self.residual.map(|it| inputs[it]));
        let statistics = (&mut self.statistics, self.stored);
        kernel.forward(inputs[0], inputs[2], statistics, residual, y);
    }

    fn backward(&mut self, seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        let (first, rest) = into.split_at_mut(1);
        let (scale, shift) = rest.split_at_mut(1);
        let target = match first[0].take() {
            Some(into) => Target::Other(into),
            None if self.residual.is_none() && seen.wanted[0] => Target::Place,
            None => Target::None,
        };
        let [dscale, dshift] = [&mut scale[0], &mut shift[0]].map(|it| {
            let it = it.as_mut()?;
            it.start();
            Some(&mut *it.values)
        });
        let activated = match self.residual {
            Some(_) => Activated::Seen(seen.output),
            None => Activated::Follows(seen.inputs[2]),
        };
        self.kernel(seen.inputs[1]).backward(
            (seen.inputs[0], dy),
            (&self.statistics, self.stored),
            activated,
            target,
            (dscale, dshift),
        );
    }

    fn reads(&self) -> Reads {
        let output = self.residual.is_some() && self.tail != Tail::None;
        Reads { inputs: vec![0, 1, 2], output }
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
            self.passes = [input];
        }
        free
    }

    fn statistics(&self) -> Option<&BatchStatistics> {
        (!self.stored).then_some(&self.statistics)
    }
}
