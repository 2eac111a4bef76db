//! Steps by the readable rules, where there is no fast kernel.

use super::{
    Gradients, Parameters, Tape, dropout, forward,
    parameters::floats_mut,
    tape::{Kept, Role, Source},
};
use crate::{
    Array, EngineError,
    gradient::{self, Context, norm},
};

impl Tape {
    /// Runs step `at` forward.
    pub(super) fn run_rule(
        &mut self,
        at: usize,
        parameters: &mut Parameters,
    ) -> Result<(), EngineError> {
        let made = self.compute(at, parameters).and_then(|it| self.as_inferred(at, it));
        let (made, kept) = made.map_err(|problem| self.failure(at, parameters, problem))?;
        if let Kept::Statistics(batch) = &kept {
            self.follow(at, parameters, (&batch.mean, &batch.var));
        }
        self.kept[at] = kept;
        for (i, array) in made.into_iter().enumerate() {
            if let Some(Some(index)) = self.steps[at].outputs.get(i) {
                self.set_value(*index, array);
            }
        }
        Ok(())
    }

    /// Refuses outputs of another shape than was inferred, by which kernels were prepared.
    fn as_inferred(&self, at: usize, it: (Vec<Array>, Kept)) -> Result<(Vec<Array>, Kept), String> {
        for (index, array) in self.steps[at].outputs.iter().zip(&it.0) {
            if let Some(expected) = index.and_then(|it| self.shapes[it].as_ref())
                && *expected != array.shape
            {
                return Err(format!("made {:?}, expected {expected:?}", array.shape));
            }
        }
        Ok(it)
    }

    /// Runs step `at` backward.
    pub(super) fn differentiate_rule(
        &mut self,
        at: usize,
        parameters: &Parameters,
        gradients: &mut Gradients,
    ) -> Result<(), EngineError> {
        let made = self
            .differentiate(at, parameters)
            .map_err(|problem| self.failure(at, parameters, problem))?;
        for (i, array) in made.into_iter().enumerate() {
            if let (Some(array), Some(Some(index))) = (array, self.steps[at].inputs.get(i)) {
                self.receive(*index, array, gradients);
            }
        }
        self.kept[at] = Kept::Nothing;
        self.note_peak();
        Ok(())
    }

    pub(super) fn operands<'a>(
        &'a self,
        at: usize,
        parameters: &'a Parameters,
    ) -> Vec<Option<&'a Array>> {
        let one = |it: &Option<usize>| it.and_then(|it| self.array(it, parameters));
        self.steps[at].inputs.iter().map(one).collect()
    }

    fn compute(&self, at: usize, parameters: &Parameters) -> Result<(Vec<Array>, Kept), String> {
        let (step, inputs) = (&self.steps[at], self.operands(at, parameters));
        match &step.role {
            Role::Plain => {
                forward::evaluate(&step.op, &inputs, &step.dtypes).map(|it| (it, Kept::Nothing))
            }
            Role::BatchNorm { it, .. } => {
                let [x, scale, shift] = [0, 1, 2].map(|i| inputs.get(i).copied().flatten());
                let (Some(x), Some(scale), Some(shift)) = (x, scale, shift) else {
                    return Err("an input is missing".to_owned());
                };
                let (scale, shift) = (gradient::floats(scale), gradient::floats(shift));
                let (y, statistics) = norm::batch_norm_train(it, x, &scale, &shift);
                Ok((vec![y], Kept::Statistics(statistics)))
            }
            Role::Dropout => {
                let x = inputs.first().copied().flatten().ok_or("input 0 is missing")?;
                let ratio = dropout::ratio(&inputs)?;
                let mask = dropout::mask(x.len(), ratio, self.seed, self.stream(at));
                let values = gradient::floats(x);
                let y = values.iter().zip(&mask).map(|(x, factor)| x * factor).collect();
                let stays = mask.iter().map(|&it| it != 0.0).collect();
                let stays = Array { shape: x.shape.clone(), data: crate::Data::Bool(stays) };
                Ok((vec![Array::f32(&x.shape, y), stays], Kept::Mask(mask)))
            }
        }
    }

    fn differentiate(
        &self,
        at: usize,
        parameters: &Parameters,
    ) -> Result<Vec<Option<Array>>, String> {
        let step = &self.steps[at];
        let gradients: Vec<Option<&Array>> =
            step.outputs.iter().map(|it| it.and_then(|it| self.gradients[it].as_ref())).collect();
        if gradients.iter().all(Option::is_none) || !step.wanted.contains(&true) {
            return Ok(Vec::new());
        }
        let inputs = self.operands(at, parameters);
        match (&self.kept[at], gradients.first().copied().flatten()) {
            (Kept::Mask(mask), Some(g)) => {
                let dy = gradient::floats(g);
                let dx = dy.iter().zip(mask).map(|(g, factor)| g * factor).collect();
                Ok(vec![Some(Array::f32(&g.shape, dx))])
            }
            (Kept::Statistics(statistics), Some(g)) => {
                let (Some(Some(x)), Some(Some(scale))) = (inputs.first(), inputs.get(1)) else {
                    return Err("an input is missing".to_owned());
                };
                let scale = gradient::floats(scale);
                let made = norm::batch_norm_train_backward(x, &scale, statistics, g);
                let wanted = made.into_iter().zip(&step.wanted);
                Ok(wanted.map(|(it, wanted)| wanted.then_some(it)).collect())
            }
            _ => {
                let output = |it: &Option<usize>| it.and_then(|it| self.values[it].as_ref());
                let outputs: Vec<_> = step.outputs.iter().map(output).collect();
                let context = Context {
                    inputs: &inputs,
                    outputs: &outputs,
                    gradients: &gradients,
                    wanted: &step.wanted,
                };
                gradient::backward(&step.op, &context)
            }
        }
    }

    /// Adds a contribution to the gradient of a value.
    pub(super) fn receive(&mut self, index: usize, array: Array, gradients: &mut Gradients) {
        if let Source::Parameter(i) = self.sources[index] {
            let total = gradients.get_mut(i);
            total.iter_mut().zip(gradient::floats(&array).iter()).for_each(|(sum, it)| *sum += it);
        }
        let keeps = match self.sources[index] {
            Source::Parameter(_) | Source::Input(_) => self.watched[index],
            _ => self.active[index],
        };
        if !keeps {
            return;
        }
        match &mut self.gradients[index] {
            Some(total) => {
                let part = gradient::floats(&array);
                floats_mut(total).iter_mut().zip(part.iter()).for_each(|(sum, it)| *sum += it);
            }
            None => self.set_gradient(index, array),
        }
    }
}
