//! From steps by the readable rules to steps by fast kernels, with the additions and activations that
//! follow a kernel fused into it.

use std::collections::BTreeMap;

use sartor_ir::{DType, Op};

use super::{
    fast::{self, Fast, Site},
    tape::{Source, Step},
};
use crate::simd::Tail;

/// What is known of the values.
pub(super) struct Values<'a> {
    pub(super) shapes: &'a [Option<Vec<usize>>],
    pub(super) dtypes: &'a [Option<DType>],
    pub(super) sources: &'a [Source],
    /// Values that must be there as such: watched ones and outputs.
    pub(super) pinned: &'a [bool],
    pub(super) watched: &'a [bool],
    /// As in [`super::TapeOptions`].
    pub(super) unrounded: f32,
}

/// Gives each step its kernel where there is one.
pub(super) fn fuse(steps: Vec<Step>, values: &Values<'_>) -> Vec<Step> {
    let mut readers = vec![0; values.shapes.len()];
    steps.iter().flat_map(|it| it.inputs.iter().flatten()).for_each(|&it| readers[it] += 1);
    let mut it = Fusion {
        values,
        readers,
        steps: Vec::with_capacity(steps.len()),
        makers: BTreeMap::new(),
        quantizers: BTreeMap::new(),
    };
    for step in steps {
        it.add(step);
    }
    it.steps.into_iter().flatten().collect()
}

struct Fusion<'a> {
    values: &'a Values<'a>,
    /// How often steps read a value.
    readers: Vec<usize>,
    /// Steps in order; one that moved into a later one leaves a gap.
    steps: Vec<Option<Step>>,
    /// The fast step that makes a value.
    makers: BTreeMap<usize, usize>,
    /// The step that quantizes to a value.
    quantizers: BTreeMap<usize, usize>,
}

impl Fusion<'_> {
    fn add(&mut self, mut step: Step) {
        let Some(site) = self.site(&step) else { return self.steps.push(Some(step)) };
        let fused = match fast::tail(&site) {
            Some(tail) => self.with_tail(&step, tail),
            None if fast::is_addition(&step.op) => self.with_residual(&step),
            None => self.with_quantizer(&step),
        };
        if let Some(fused) = fused {
            return self.push(fused);
        }
        let made = self.site(&step).and_then(|it| fast::prepare(&it));
        if let Some((fast, inputs)) = made
            && Self::keeps_targets_apart(&step, &*fast, &inputs)
        {
            step.wanted = inputs.iter().map(|&it| step.wanted[it]).collect();
            step.inputs = inputs.iter().map(|&it| step.inputs[it]).collect();
            step.fast = Some(fast);
        }
        self.push(step);
    }

    fn push(&mut self, step: Step) {
        if let (Some(_), Some(Some(output))) = (&step.fast, step.outputs.first()) {
            self.makers.insert(*output, self.steps.len());
        }
        if let (Op::QuantizeLinear(_), Some(Some(output))) = (&step.op, step.outputs.first()) {
            self.quantizers.insert(*output, self.steps.len());
        }
        self.steps.push(Some(step));
    }

    /// What kernels are chosen by; `None` where shapes are not known, several outputs are read or the
    /// gradient of a parameter is watched.
    fn site<'a>(&'a self, step: &'a Step) -> Option<Site<'a>> {
        let values = self.values;
        let shape = |it: Option<usize>| match it {
            Some(it) => values.shapes[it].clone(),
            None => Some(Vec::new()),
        };
        let watched =
            |it: &usize| values.watched[*it] && matches!(values.sources[*it], Source::Parameter(_));
        let single = step.outputs.iter().skip(1).flatten().next().is_none();
        if !single || step.inputs.iter().flatten().any(watched) {
            return None;
        }
        let constant = |it: Option<usize>| match &values.sources[it?] {
            Source::Constant(array) => Some(array),
            _ => None,
        };
        Some(Site {
            step,
            shapes: step.inputs.iter().map(|&it| shape(it)).collect::<Option<_>>()?,
            output: values.shapes[(*step.outputs.first()?)?].clone()?,
            constants: step.inputs.iter().map(|&it| constant(it)).collect(),
            dtypes: step.inputs.iter().map(|&it| values.dtypes[it?]).collect(),
        })
    }

    /// The fast step that makes `value`, if nobody else reads it and it need not be there as such.
    fn maker(&self, value: usize) -> Option<usize> {
        self.alone(value).then(|| self.makers.get(&value).copied()).flatten()
    }

    /// Whether one step reads `value` and nothing else needs it.
    fn alone(&self, value: usize) -> bool {
        self.readers[value] == 1 && !self.values.pinned[value]
    }

    /// The step before `step` with this activation in it.
    fn with_tail(&mut self, step: &Step, tail: Tail) -> Option<Step> {
        let at = self.maker((*step.inputs.first()?)?)?;
        let taken = self.steps[at].as_mut()?.fast.as_mut()?.absorb_tail(tail);
        taken.then(|| self.moved(at, step)).flatten()
    }

    /// The step before one of the operands with the addition of the other in it.
    fn with_residual(&mut self, step: &Step) -> Option<Step> {
        let [Some(a), Some(b)] = *step.inputs.as_slice() else { return None };
        let output = (*step.outputs.first()?)?;
        let same = |it: usize| {
            self.values.shapes[it] == self.values.shapes[output]
                && self.values.dtypes[it] == Some(DType::F32)
        };
        if !(same(a) && same(b)) {
            return None;
        }
        for (i, main, other) in [(0, a, b), (1, b, a)] {
            let Some(at) = self.maker(main) else { continue };
            let maker = self.steps[at].as_mut()?;
            let input = maker.inputs.len();
            if maker.fast.as_mut().is_some_and(|it| it.absorb_residual(input)) {
                maker.inputs.push(Some(other));
                maker.wanted.push(step.wanted[1 - i]);
                return self.moved(at, step);
            }
        }
        None
    }

    /// The quantization before a dequantization, which alone reads it, as one step.
    fn with_quantizer(&mut self, step: &Step) -> Option<Step> {
        let value = (*step.inputs.first()?)?;
        let at = *self.quantizers.get(&value)?;
        if !matches!(step.op, Op::DequantizeLinear(_)) || !self.alone(value) {
            return None;
        }
        let before = self.steps[at].as_ref()?;
        let (fast, inputs) = {
            let (first, second) = (self.site(before)?, self.site(step)?);
            fast::quantize::prepare(&first, &second, self.values.unrounded)?
        };
        let mut it = self.moved(at, step)?;
        it.wanted = inputs.iter().map(|&i| it.wanted[i]).collect();
        it.inputs = inputs.iter().map(|&i| it.inputs[i]).collect();
        it.fast = Some(fast);
        Some(it)
    }

    /// Takes step `at` out of its place, to make what `step` makes.
    fn moved(&mut self, at: usize, step: &Step) -> Option<Step> {
        let mut it = self.steps[at].take()?;
        it.outputs.clone_from(&step.outputs);
        it.dtypes.clone_from(&step.dtypes);
        Some(it)
    }

    /// Whether the gradients that the kernel writes are those of different values.
    fn keeps_targets_apart(step: &Step, fast: &dyn Fast, inputs: &[usize]) -> bool {
        let written = inputs
            .iter()
            .enumerate()
            .filter(|(i, it)| step.wanted[**it] && !fast.passes().contains(i));
        let mut targets: Vec<_> = written.map(|it| step.inputs[*it.1]).collect();
        let count = targets.len();
        targets.sort_unstable();
        targets.dedup();
        targets.len() == count
    }
}
