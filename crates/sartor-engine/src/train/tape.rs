//! The tape: a graph prepared for training, and its runs.

use sartor_ir::{BatchNormalization, DType, Graph, Op, ValueId};

use super::{
    Gradients, Parameters, TapeOptions, dropout, forward, parameters::floats_mut, prepare,
};
use crate::{
    Array, EngineError,
    gradient::{
        self, Context,
        norm::{self, BatchStatistics},
    },
    reference,
};

/// A graph prepared for training at given input shapes. One step is [`Tape::forward`], then
/// [`Tape::backward`].
#[derive(Debug)]
pub struct Tape {
    inputs: Vec<Input>,
    outputs: Vec<usize>,
    sources: Vec<Source>,
    active: Vec<bool>,
    steps: Vec<Step>,
    parameters: Vec<ValueId>,
    statistics: Vec<ValueId>,
    watch: Vec<usize>,
    seed: u64,
    /// Forward passes so far.
    runs: u64,
    /// Whether a forward pass waits for its backward pass.
    ready: bool,
    given: Vec<Array>,
    values: Vec<Option<Array>>,
    gradients: Vec<Option<Array>>,
    /// What a step keeps for its backward pass beside its in- and outputs.
    kept: Vec<Kept>,
    held: usize,
    peak: usize,
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

/// A node at work.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) node: String,
    pub(super) role: Role,
    pub(super) op: Op,
    pub(super) inputs: Vec<Option<usize>>,
    pub(super) outputs: Vec<Option<usize>>,
    pub(super) dtypes: Vec<DType>,
    /// Which inputs get a gradient.
    pub(super) wanted: Vec<bool>,
}

#[derive(Clone, Debug)]
enum Kept {
    Nothing,
    Mask(Vec<f32>),
    Statistics(BatchStatistics),
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
        prepare::prepare(graph, shapes, options)
    }

    pub(super) fn new(
        inputs: Vec<Input>,
        outputs: Vec<usize>,
        sources: Vec<Source>,
        active: Vec<bool>,
        steps: Vec<Step>,
        options: &TapeOptions,
        statistics: Vec<ValueId>,
    ) -> Self {
        let (values, kept) = (vec![None; sources.len()], vec![Kept::Nothing; steps.len()]);
        Tape {
            inputs,
            outputs,
            active,
            steps,
            parameters: options.parameters.clone(),
            statistics,
            watch: options.watch.iter().map(|it| it.index()).collect(),
            seed: options.seed,
            runs: 0,
            ready: false,
            given: Vec::new(),
            gradients: values.clone(),
            values,
            kept,
            sources,
            held: 0,
            peak: 0,
        }
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
        self.check_parameters(parameters)?;
        self.check_inputs(inputs)?;
        self.ready = false;
        self.values.iter_mut().chain(&mut self.gradients).for_each(|it| *it = None);
        self.given = inputs.to_vec();
        self.held = 0;
        for at in 0..self.steps.len() {
            let (made, kept) = self
                .compute(at, parameters)
                .map_err(|problem| self.failure(at, parameters, problem))?;
            if let (Role::BatchNorm { it, mean, var }, Kept::Statistics(batch)) =
                (&self.steps[at].role, &kept)
            {
                let count = made.first().map_or(0, Array::len) / batch.mean.len().max(1);
                update(it, parameters, (*mean, *var), batch, count);
            }
            self.kept[at] = kept;
            for (i, array) in made.into_iter().enumerate() {
                if let Some(Some(index)) = self.steps[at].outputs.get(i) {
                    self.held += array.len() * size_of::<f32>();
                    self.values[*index] = Some(array);
                }
            }
            self.peak = self.peak.max(self.held);
        }
        self.runs += 1;
        self.ready = true;
        let output = |&it: &usize| self.array(it, parameters).cloned();
        let missing = || EngineError::Training("an output was not made".to_owned());
        self.outputs.iter().map(|it| output(it).ok_or_else(missing)).collect()
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
        self.check_parameters(parameters)?;
        self.check_gradients(parameters, output_gradients, gradients)?;
        self.ready = false;
        for (&index, gradient) in self.outputs.clone().iter().zip(output_gradients) {
            if let Some(gradient) = gradient {
                self.receive(index, gradient.clone(), gradients);
            }
        }
        for at in (0..self.steps.len()).rev() {
            let made = self
                .differentiate(at, parameters)
                .map_err(|problem| self.failure(at, parameters, problem))?;
            for (i, array) in made.into_iter().enumerate() {
                if let (Some(array), Some(Some(index))) = (array, self.steps[at].inputs.get(i)) {
                    self.receive(*index, array, gradients);
                }
            }
            self.kept[at] = Kept::Nothing;
            for &index in self.steps[at].outputs.iter().flatten() {
                if !self.watch.contains(&index) {
                    self.gradients[index] = None;
                    self.values[index] = None;
                }
            }
        }
        Ok(())
    }

    /// Lets the next forward pass draw the masks of `Dropout` as pass number `run` does, counted from 0, so
    /// that a training that was paused goes on as if it had not been.
    pub fn seek(&mut self, run: u64) {
        self.runs = run;
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

    /// Bytes of the values and gradients that a step has held at once at most.
    pub fn peak_memory_bytes(&self) -> usize {
        self.peak
    }

    fn array<'a>(&'a self, index: usize, parameters: &'a Parameters) -> Option<&'a Array> {
        match &self.sources[index] {
            Source::None => None,
            Source::Constant(array) => Some(array),
            Source::Input(i) => self.given.get(*i),
            Source::Parameter(i) => parameters.values.get(*i),
            Source::Statistic(i) => parameters.moments.get(*i),
            Source::Made => self.values[index].as_ref(),
        }
    }

    fn operands<'a>(&'a self, at: usize, parameters: &'a Parameters) -> Vec<Option<&'a Array>> {
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
                let stream = self.runs.wrapping_mul(self.steps.len() as u64) + at as u64;
                let mask = dropout::mask(x.len(), dropout::ratio(&inputs)?, self.seed, stream);
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
    fn receive(&mut self, index: usize, array: Array, gradients: &mut Gradients) {
        if let Source::Parameter(i) = self.sources[index] {
            let total = gradients.get_mut(i);
            total.iter_mut().zip(gradient::floats(&array).iter()).for_each(|(sum, it)| *sum += it);
        }
        let keeps = match self.sources[index] {
            Source::Parameter(_) | Source::Input(_) => self.watch.contains(&index),
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
            empty => *empty = Some(array),
        }
    }

    fn failure(&self, at: usize, parameters: &Parameters, problem: String) -> EngineError {
        EngineError::Kernel {
            node: self.steps[at].node.clone(),
            op: self.steps[at].op.name().to_owned(),
            shapes: reference::shapes_of(&self.operands(at, parameters)),
            problem,
        }
    }

    fn check_parameters(&self, parameters: &Parameters) -> Result<(), EngineError> {
        if parameters.ids == self.parameters && parameters.statistics == self.statistics {
            return Ok(());
        }
        Err(EngineError::Training(format!(
            "the tape was prepared for {} parameters and {} running statistics, these are others \
             ({} and {}); make them from the same graph and ids",
            self.parameters.len(),
            self.statistics.len(),
            parameters.ids.len(),
            parameters.statistics.len()
        )))
    }

    fn check_inputs(&self, inputs: &[Array]) -> Result<(), EngineError> {
        if inputs.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), inputs.len());
            return Err(EngineError::InputCount { expected, found });
        }
        for (given, wanted) in inputs.iter().zip(&self.inputs) {
            let name = wanted.name.clone();
            if given.dtype() != wanted.dtype {
                let (expected, found) = (wanted.dtype, given.dtype());
                return Err(EngineError::InputType { name, expected, found });
            }
            // The fields of an array are public: its length is checked with its shape.
            if given.shape != wanted.shape || given.len() != wanted.shape.iter().product::<usize>()
            {
                let expected = format!("{:?}", wanted.shape);
                return Err(EngineError::InputShape { name, expected, found: given.shape.clone() });
            }
        }
        Ok(())
    }

    fn check_gradients(
        &self,
        parameters: &Parameters,
        output_gradients: &[Option<Array>],
        gradients: &Gradients,
    ) -> Result<(), EngineError> {
        let refuse = |it: String| Err(EngineError::Training(it));
        if !self.ready {
            return refuse("a backward pass needs a forward pass of its own before it".to_owned());
        }
        let same = (0..parameters.len()).all(|i| {
            gradients.len() == parameters.len() && gradients.get(i).len() == parameters.get(i).len()
        });
        if !same {
            return refuse("the gradients are not those of these parameters".to_owned());
        }
        if output_gradients.len() != self.outputs.len() {
            let (found, expected) = (output_gradients.len(), self.outputs.len());
            return refuse(format!("{found} output gradients for {expected} outputs"));
        }
        for (i, (&index, gradient)) in self.outputs.iter().zip(output_gradients).enumerate() {
            let (Some(gradient), Some(output)) = (gradient, self.array(index, parameters)) else {
                continue;
            };
            if gradient.shape != output.shape || gradient.as_f32().is_none() {
                return refuse(format!(
                    "the gradient of output {i} must be f32 {:?}, found {} {:?}",
                    output.shape,
                    gradient.dtype(),
                    gradient.shape
                ));
            }
        }
        Ok(())
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
    batch: &BatchStatistics,
    count: usize,
) {
    let unbiased = if count > 1 { count as f32 / (count - 1) as f32 } else { 1.0 };
    let mut mix = |at: usize, values: &[f32], factor: f32| {
        let running = parameters.statistic_mut(at);
        for (running, value) in running.iter_mut().zip(values) {
            *running = it.momentum * *running + (1.0 - it.momentum) * factor * value;
        }
    };
    mix(mean, &batch.mean, 1.0);
    mix(var, &batch.var, unbiased);
}
