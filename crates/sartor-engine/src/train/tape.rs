//! The tape: a graph prepared for training, and its runs.

use sartor_ir::{BatchNormalization, DType, Graph, Op, ValueId};

use super::{
    Gradients, Parameters, TapeOptions, fast::Fast, parameters::floats_mut, pool::Pool, prepare,
    retention::Retention,
};
use crate::{Array, EngineError, gradient::norm};

/// A graph prepared for training at given input shapes. One step is [`Tape::forward`], then
/// [`Tape::backward`].
#[derive(Debug)]
pub struct Tape {
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<usize>,
    pub(super) sources: Vec<Source>,
    pub(super) active: Vec<bool>,
    pub(super) steps: Vec<Step>,
    pub(super) parameters: Vec<ValueId>,
    pub(super) statistics: Vec<ValueId>,
    /// Shapes of the values, where they are known.
    pub(super) shapes: Vec<Option<Vec<usize>>>,
    pub(super) watched: Vec<bool>,
    pub(super) retention: Retention,
    pub(super) seed: u64,
    /// Forward passes so far.
    pub(super) runs: u64,
    /// Whether a forward pass waits for its backward pass.
    pub(super) ready: bool,
    pub(super) given: Vec<Array>,
    pub(super) values: Vec<Option<Array>>,
    pub(super) gradients: Vec<Option<Array>>,
    /// What a step by the readable rules keeps for its backward pass beside its in- and outputs.
    pub(super) kept: Vec<Kept>,
    pub(super) pool: Pool,
    /// Bytes of values and gradients.
    pub(super) held: usize,
    pub(super) peak: usize,
}

/// One step of a tape: a node, or several that were fused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInfo {
    /// The node, the first one where several are one step.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Whether a fast kernel does it rather than the readable rules.
    pub fast: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
}

/// Where the array of a value is.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Nothing makes it, or nobody reads it.
    None,
    Constant(Array),
    Input(usize),
    Parameter(usize),
    Statistic(usize),
    /// A step makes it.
    Made,
}

/// What training makes of a node.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// What inference makes of it.
    Plain,
    Dropout,
    /// Statistics of the batch; the positions are those of the running ones.
    BatchNorm {
        it: BatchNormalization,
        mean: usize,
        var: usize,
    },
}

/// A node at work, or several that were fused.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) node: String,
    pub(super) role: Role,
    pub(super) op: Op,
    pub(super) inputs: Vec<Option<usize>>,
    pub(super) outputs: Vec<Option<usize>>,
    pub(super) dtypes: Vec<DType>,
    /// Which inputs get a gradient.
    pub(super) wanted: Vec<bool>,
    /// Its kernel; without one the readable rules serve.
    pub(super) fast: Option<Box<dyn Fast>>,
}

#[derive(Clone, Debug)]
pub(super) enum Kept {
    Nothing,
    Mask(Vec<f32>),
    Statistics(norm::BatchStatistics),
}

impl Tape {
    /// Prepares forward and backward of `graph` for inputs of these shapes, one for each graph input in
    /// order.
    ///
    /// # Errors
    /// An operator or type without kernel, shapes that do not fit. An operator without gradient is
    /// reported when backward reaches it.
    pub fn prepare(
        graph: &Graph,
        shapes: &[Vec<usize>],
        options: &TapeOptions,
    ) -> Result<Tape, EngineError> {
        prepare::prepare(graph, shapes, options, true)
    }

    /// As [`Tape::prepare`], with every step by the readable rules of [`crate::gradient`]: slow, and the oracle
    /// against which the fast steps are tested.
    ///
    /// # Errors
    /// As [`Tape::prepare`].
    pub fn prepare_readable(
        graph: &Graph,
        shapes: &[Vec<usize>],
        options: &TapeOptions,
    ) -> Result<Tape, EngineError> {
        prepare::prepare(graph, shapes, options, false)
    }

    /// Runs forward as training does: `BatchNormalization` by the tape's mode, `Dropout` at work. Keeps
    /// what [`Tape::backward`] needs. The outputs come in the graph's order.
    ///
    /// # Errors
    /// Inputs or parameters that are not those prepared for, or a kernel that refuses its operands.
    pub fn forward(
        &mut self,
        parameters: &mut Parameters,
        inputs: &[Array],
    ) -> Result<Vec<Array>, EngineError> {
        self.forward_observed(parameters, inputs, &mut |_| {})
    }

    /// As [`Tape::forward`], and says after each step of [`Tape::steps`] that it is done.
    ///
    /// # Errors
    /// As [`Tape::forward`].
    pub fn forward_observed(
        &mut self,
        parameters: &mut Parameters,
        inputs: &[Array],
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Array>, EngineError> {
        self.check_parameters(parameters)?;
        self.check_inputs(inputs)?;
        self.begin(inputs);
        for at in 0..self.steps.len() {
            if self.steps[at].fast.is_some() {
                self.run_fast(at, parameters);
            } else {
                self.run_rule(at, parameters)?;
            }
            self.note_peak();
            for i in 0..self.retention.forward[at].len() {
                self.release_value(self.retention.forward[at][i]);
            }
            done(at);
        }
        self.runs += 1;
        self.ready = true;
        let output = |&it: &usize| self.array(it, parameters).cloned();
        let missing = || EngineError::Training("an output was not made".to_owned());
        self.outputs.iter().map(|it| output(it).ok_or_else(missing)).collect()
    }

    /// Forgets the last run and takes the inputs of the next.
    fn begin(&mut self, inputs: &[Array]) {
        self.ready = false;
        for index in 0..self.values.len() {
            self.release_value(index);
            self.release_gradient(index);
        }
        self.pool.next_run();
        if self.given.len() != inputs.len() {
            self.given = inputs.to_vec();
            return;
        }
        for (own, given) in self.given.iter_mut().zip(inputs) {
            match (own.as_f32().is_some(), given.as_f32()) {
                (true, Some(given)) => floats_mut(own).copy_from_slice(given),
                _ => own.clone_from(given),
            }
        }
    }

    /// Adds d loss / d parameter to `gradients`, from d loss / d output for each graph output (`None` for
    /// zero). Values of the forward pass are released on the way, so that a forward pass has one backward
    /// pass.
    ///
    /// # Errors
    /// No forward pass before, gradients of another shape, an operator without gradient.
    pub fn backward(
        &mut self,
        parameters: &Parameters,
        output_gradients: &[Option<Array>],
        gradients: &mut Gradients,
    ) -> Result<(), EngineError> {
        self.backward_observed(parameters, output_gradients, gradients, &mut |_| {})
    }

    /// As [`Tape::backward`], and says after each step of [`Tape::steps`] that it is done.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub fn backward_observed(
        &mut self,
        parameters: &Parameters,
        output_gradients: &[Option<Array>],
        gradients: &mut Gradients,
        done: &mut dyn FnMut(usize),
    ) -> Result<(), EngineError> {
        self.check_parameters(parameters)?;
        self.check_gradients(parameters, output_gradients, gradients)?;
        self.ready = false;
        for (i, gradient) in output_gradients.iter().enumerate() {
            if let Some(gradient) = gradient {
                self.receive(self.outputs[i], gradient.clone(), gradients);
            }
        }
        for at in (0..self.steps.len()).rev() {
            if self.steps[at].fast.is_some() {
                self.differentiate_fast(at, parameters, gradients);
            } else {
                self.differentiate_rule(at, parameters, gradients)?;
            }
            for i in 0..self.steps[at].outputs.len() {
                if let Some(index) = self.steps[at].outputs[i]
                    && !self.watched[index]
                {
                    self.release_gradient(index);
                }
            }
            for i in 0..self.retention.backward[at].len() {
                self.release_value(self.retention.backward[at][i]);
            }
            done(at);
        }
        Ok(())
    }

    /// Lets the next forward pass draw the masks of `Dropout` as pass number `run` does, counted from 0, so
    /// that a training that was paused goes on as if it had not been.
    pub fn seek(&mut self, run: u64) {
        self.runs = run;
    }

    /// What tells the random choices of step `at` in this run from all others.
    pub(super) fn stream(&self, at: usize) -> u64 {
        self.runs.wrapping_mul(self.steps.len() as u64).wrapping_add(at as u64)
    }

    /// A watched value as the last forward pass made it.
    pub fn value(&self, id: ValueId) -> Option<&Array> {
        match self.sources.get(id.index())? {
            Source::Input(i) => self.given.get(*i),
            _ => self.values.get(id.index())?.as_ref(),
        }
    }

    /// d loss / d a watched value, after a backward pass; `None` where the loss does not depend on it.
    pub fn value_gradient(&self, id: ValueId) -> Option<&Array> {
        self.gradients.get(id.index())?.as_ref()
    }

    /// Bytes of the values and gradients that a step has held at once at most, with what is kept for the
    /// next ones.
    pub fn peak_memory_bytes(&self) -> usize {
        self.peak
    }

    /// The steps in the order in which forward runs them; backward takes them from the last to the first.
    pub fn steps(&self) -> Vec<StepInfo> {
        let one = |it: &Step| StepInfo {
            node: it.node.clone(),
            op: it.op.name().to_owned(),
            fast: it.fast.is_some(),
        };
        self.steps.iter().map(one).collect()
    }

    pub(super) fn array<'a>(
        &'a self,
        index: usize,
        parameters: &'a Parameters,
    ) -> Option<&'a Array> {
        match &self.sources[index] {
            Source::None => None,
            Source::Constant(array) => Some(array),
            Source::Input(i) => self.given.get(*i),
            Source::Parameter(i) => parameters.values.get(*i),
            Source::Statistic(i) => parameters.moments.get(*i),
            Source::Made => self.values[index].as_ref(),
        }
    }

    pub(super) fn set_value(&mut self, index: usize, array: Array) {
        self.held += bytes(&array);
        self.values[index] = Some(array);
    }

    pub(super) fn set_gradient(&mut self, index: usize, array: Array) {
        self.held += bytes(&array);
        self.gradients[index] = Some(array);
    }

    pub(super) fn take_gradient(&mut self, index: usize) -> Option<Array> {
        let array = self.gradients[index].take()?;
        self.held -= bytes(&array);
        Some(array)
    }

    fn release_value(&mut self, index: usize) {
        if let Some(array) = self.values[index].take() {
            self.held -= bytes(&array);
            self.pool.give_array(array);
        }
    }

    pub(super) fn release_gradient(&mut self, index: usize) {
        if let Some(array) = self.take_gradient(index) {
            self.pool.give_array(array);
        }
    }

    pub(super) fn note_peak(&mut self) {
        self.peak = self.peak.max(self.held + self.pool.bytes());
    }

    /// Moves the running statistics behind step `at` towards those of its batch.
    pub(super) fn follow(
        &self,
        at: usize,
        parameters: &mut Parameters,
        (batch_mean, batch_variance): (&[f32], &[f32]),
    ) {
        let step = &self.steps[at];
        let Role::BatchNorm { it, mean, var } = &step.role else { return };
        let shape = step.inputs.first().copied().flatten().and_then(|it| self.shapes[it].as_ref());
        let count = shape.map_or(0, |it| it.iter().product()) / batch_mean.len().max(1);
        update(it, parameters, (*mean, *var), (batch_mean, batch_variance), count);
    }
}

/// Moves running statistics towards those of a batch of `count` elements a channel:
/// `running = momentum running + (1 - momentum) batch` (ONNX's form). The running variance takes the
/// unbiased estimate, as `PyTorch` does, because it stands for the population that inference will see;
/// ONNX's own training form would take the biased one.
fn update(
    it: &BatchNormalization,
    parameters: &mut Parameters,
    (mean, var): (usize, usize),
    (batch_mean, batch_variance): (&[f32], &[f32]),
    count: usize,
) {
    let unbiased = if count > 1 { count as f32 / (count - 1) as f32 } else { 1.0 };
    let mut mix = |at: usize, values: &[f32], factor: f32| {
        let running = parameters.statistic_mut(at);
        for (running, value) in running.iter_mut().zip(values) {
            *running = it.momentum * *running + (1.0 - it.momentum) * factor * value;
        }
    };
    mix(mean, batch_mean, 1.0);
    mix(var, batch_variance, unbiased);
}

fn bytes(array: &Array) -> usize {
    match &array.data {
        crate::Data::F32(values) => values.capacity() * size_of::<f32>(),
        other => other.len(),
    }
}
