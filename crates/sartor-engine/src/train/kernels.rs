//! Steps by fast kernels: their operands, and where their gradients go.

use super::{
    Gradients, Parameters, Tape,
    fast::{Fast, Seen},
    parameters::floats_mut,
    tape::Source,
};
use crate::{
    Array, Data,
    simd::{self, Into, Tail},
};

/// The gradient of an input on its way through a kernel.
struct Target {
    values: Vec<f32>,
    accumulate: bool,
}

impl Tape {
    /// Runs step `at` forward.
    pub(super) fn run_fast(&mut self, at: usize, parameters: &mut Parameters) {
        let (Some(mut fast), Some(Some(output))) =
            (self.steps[at].fast.take(), self.steps[at].outputs.first().copied())
        else {
            return;
        };
        let shape = self.shapes[output].clone().unwrap_or_default();
        let mut y = self.pool.take(shape.iter().product());
        fast.begin(self.seed, self.stream(at));
        let inputs: Vec<&[f32]> =
            self.steps[at].inputs.iter().map(|&it| self.floats(it, parameters)).collect();
        fast.forward(&inputs, &mut y);
        if let Some(batch) = fast.statistics() {
            self.follow(at, parameters, (&batch.mean, &batch.variance));
        }
        self.steps[at].fast = Some(fast);
        self.set_value(output, Array { shape, data: Data::F32(y) });
    }

    /// Runs step `at` backward.
    pub(super) fn differentiate_fast(
        &mut self,
        at: usize,
        parameters: &Parameters,
        gradients: &mut Gradients,
    ) {
        let wanted = self.steps[at].wanted.contains(&true);
        let Some(Some(output)) = self.steps[at].outputs.first().copied() else { return };
        if !wanted || self.gradients[output].is_none() {
            return;
        }
        let watched = self.watched[output].then(|| self.gradients[output].clone()).flatten();
        let (Some(mut fast), Some(mut dy)) =
            (self.steps[at].fast.take(), self.take_gradient(output))
        else {
            return;
        };
        let mut targets = self.targets(at, &*fast, gradients);
        self.call(at, parameters, &mut *fast, floats_mut(&mut dy), &mut targets);
        for (i, target) in targets.into_iter().enumerate() {
            if let Some(target) = target {
                self.deliver(self.steps[at].inputs[i], target.values, gradients);
            }
        }
        self.held += dy.len() * size_of::<f32>();
        self.note_peak();
        self.held -= dy.len() * size_of::<f32>();
        self.pass_on(at, fast.passes(), dy, gradients);
        if let Some(watched) = watched {
            self.set_gradient(output, watched);
        }
        self.steps[at].fast = Some(fast);
    }

    /// Memory for the gradients that the kernel of step `at` writes, by input.
    fn targets(
        &mut self,
        at: usize,
        fast: &dyn Fast,
        gradients: &mut Gradients,
    ) -> Vec<Option<Target>> {
        let count = self.steps[at].inputs.len();
        let mut targets = Vec::with_capacity(count);
        for i in 0..count {
            let (step, written) = (&self.steps[at], !fast.passes().contains(&i));
            let input = step.inputs[i].filter(|_| step.wanted[i] && written);
            targets.push(input.map(|index| {
                if let Source::Parameter(p) = self.sources[index] {
                    let values = std::mem::take(gradients.buffer(p));
                    return Target { values, accumulate: true };
                }
                if let Some(Data::F32(values)) = self.take_gradient(index).map(|it| it.data) {
                    return Target { values, accumulate: true };
                }
                let len = self.shapes[index].iter().flatten().product();
                Target { values: self.pool.take(len), accumulate: false }
            }));
        }
        targets
    }

    fn call(
        &self,
        at: usize,
        parameters: &Parameters,
        fast: &mut dyn Fast,
        dy: &mut [f32],
        targets: &mut [Option<Target>],
    ) {
        let (step, reads) = (&self.steps[at], fast.reads());
        let input = |(i, it): (usize, &Option<usize>)| {
            if reads.inputs.contains(&i) { self.floats(*it, parameters) } else { &[] }
        };
        let inputs: Vec<&[f32]> = step.inputs.iter().enumerate().map(input).collect();
        let output = if reads.output { self.floats(step.outputs[0], parameters) } else { &[] };
        let seen = Seen { inputs: &inputs, output, wanted: &step.wanted };
        let mut into: Vec<_> = targets
            .iter_mut()
            .map(|it| {
                let it = it.as_mut()?;
                Some(Into { values: &mut it.values, accumulate: it.accumulate })
            })
            .collect();
        fast.backward(&seen, dy, &mut into);
    }

    /// Puts a gradient where it belongs.
    fn deliver(&mut self, index: Option<usize>, values: Vec<f32>, gradients: &mut Gradients) {
        let Some(index) = index else { return };
        if let Source::Parameter(p) = self.sources[index] {
            *gradients.buffer(p) = values;
            return;
        }
        let shape = self.shapes[index].clone().unwrap_or_default();
        self.set_gradient(index, Array { shape, data: Data::F32(values) });
    }

    /// Adds `dy` to the gradients of the inputs that get it as it is; the last one that has none yet takes
    /// its memory.
    fn pass_on(&mut self, at: usize, passes: &[usize], dy: Array, gradients: &mut Gradients) {
        let Data::F32(dy) = dy.data else { return };
        let wanted = |i: &&usize| self.steps[at].wanted[**i];
        let to: Vec<usize> =
            passes.iter().filter(wanted).filter_map(|&i| self.steps[at].inputs[i]).collect();
        let mut heirs = Vec::new();
        for index in to {
            match (&self.sources[index], &mut self.gradients[index]) {
                (Source::Parameter(p), _) => {
                    simd::add_in_place(Tail::None, &dy, gradients.get_mut(*p));
                }
                (_, Some(total)) => simd::add_in_place(Tail::None, &dy, floats_mut(total)),
                (_, None) => heirs.push(index),
            }
        }
        let Some(last) = heirs.pop() else { return self.pool.give(dy) };
        for index in heirs {
            if index == last {
                // An operand that stands twice.
                let mut twice = self.pool.take(dy.len());
                simd::add(Tail::None, &dy, &dy, &mut twice);
                self.pool.give(dy);
                return self.deliver(Some(last), twice, gradients);
            }
            let mut copy = self.pool.take(dy.len());
            copy.copy_from_slice(&dy);
            self.deliver(Some(index), copy, gradients);
        }
        self.deliver(Some(last), dy, gradients);
    }

    /// The floats of a value; nothing if it is left out.
    fn floats<'a>(&'a self, index: Option<usize>, parameters: &'a Parameters) -> &'a [f32] {
        index.and_then(|it| self.array(it, parameters)).and_then(Array::as_f32).unwrap_or_default()
    }
}
