//! A prepared graph, and its runs.

mod lower;
mod memory;
mod parts;

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use sartor_ir::{DType, Graph, Op, ValueId};

use crate::{
    Array, Data, EngineError,
    kernel::{
        Kernel,
        integer::{IntegerKernel, Source},
    },
    reference::{
        self,
        named::control::{self, Bodies},
    },
    simd::{Aligned, Sink},
    stage::{self, Stage},
};
use parts::{Feed, Parts};

/// What a program is prepared for, beside the shapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Values that observers want to see: nothing is fused across them.
    pub watch: Vec<ValueId>,
    /// Whether quantized nodes compute in floats, rounding where the graph quantizes, even where there is an integer
    /// kernel. Integer kernels sum exactly: a quantized value differs by at most one step, and only where the exact
    /// number lies within float rounding of the middle between two steps.
    pub float_simulation: bool,
}

/// The numbers that a step computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Floats, or whatever type the values have.
    Native,
    /// Bytes and exact 32-bit sums of their products.
    Integer,
}

/// A graph prepared for concrete input shapes: run it as often as needed, from several threads if wanted.
#[derive(Debug)]
pub struct Program {
    inputs: Vec<Input>,
    constants: Vec<Arc<Array>>,
    steps: Vec<Step>,
    outputs: Vec<Operand>,
    /// Watched inputs and constants.
    first_reports: Vec<Report>,
    /// Floats of each slot of the activation arena.
    slots: Vec<usize>,
    /// Bytes of each slot for values that are held in bytes.
    bytes: Vec<usize>,
    /// Number of values that are kept as arrays of their own.
    others: usize,
    /// How the batch is cut, if the steps are those of a part of it.
    parts: Option<Parts>,
    /// Arenas of past runs, kept so that the next run allocates nothing large.
    frames: Mutex<Vec<Frame>>,
}

#[derive(Clone, Debug)]
struct Input {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
}

/// Where a value lies during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Input(usize),
    Constant(usize),
    /// Floats in the arena.
    Slot(usize),
    /// Bytes in the arena.
    Bytes(usize),
    /// An array of another type, or of a shape that only the run knows.
    Other(usize),
}

/// A value as a step sees it; the shape is `None` where only the run knows it.
#[derive(Clone, Debug)]
struct Operand {
    place: Place,
    shape: Option<Vec<usize>>,
}

/// A watched value that is there after a step.
#[derive(Clone, Debug)]
struct Report {
    value: ValueId,
    operand: Operand,
}

/// What a step does before its stages.
#[derive(Debug)]
enum Action {
    /// A fast kernel fills output 0.
    Fast(Box<dyn Kernel>),
    /// A kernel between bytes and floats fills output 0.
    Integer(Box<dyn IntegerKernel>),
    /// Input 0 is copied to output 0, or is there already.
    Copy,
    /// The reference kernel; `bodies` are those of control flow.
    Reference { op: Op, dtypes: Vec<DType>, bodies: Bodies },
}

/// One unit of work: a node, with the elementwise nodes that were fused into it.
#[derive(Debug)]
struct Step {
    node: String,
    kind: String,
    action: Action,
    inputs: Vec<Option<Operand>>,
    outputs: Vec<Option<Operand>>,
    stages: Vec<Stage>,
    /// Whether output 0 takes the memory of input 0, which dies here.
    in_place: bool,
    reports: Vec<Report>,
    /// Arrays that nobody reads after this step.
    releases: Vec<usize>,
}

/// A step of a program, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSummary {
    /// Name of its node.
    pub node: String,
    /// Its operator, or what it does beside the graph's nodes.
    pub kind: String,
    /// Shape of what it makes, as it lies in memory.
    pub shape: Vec<usize>,
    /// Multiply-accumulates of its kernel, where that knows them.
    pub macs: usize,
    /// Whether it works on bytes, or converts from or to them.
    pub integer: bool,
}

/// Operands of a step that are gathered without allocation.
const FEW: usize = 8;

/// The memory of one run.
#[derive(Debug)]
struct Frame {
    slots: Vec<Aligned>,
    bytes: Vec<Vec<u8>>,
    others: Vec<Option<Array>>,
    /// What observers are shown.
    shown: Vec<f32>,
}

impl Program {
    /// Prepares `graph` for inputs of these shapes, one for each graph input in order.
    ///
    /// # Errors
    /// An operator or type without kernel, shapes that do not fit, a constant of a type that the engine
    /// does not hold.
    pub fn prepare(
        graph: &Graph,
        shapes: &[Vec<usize>],
        options: &Options,
    ) -> Result<Program, EngineError> {
        lower::lower(graph, shapes, options)
    }

    /// Runs one batch; the outputs come in the graph's order.
    ///
    /// # Errors
    /// Inputs that are not those prepared for, or a kernel that refuses what only the run can know.
    pub fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, EngineError> {
        // In the pool from the start: a kernel's tasks then wait for no thread to take them over.
        rayon::scope(|_| self.run_observed(inputs, &mut |_, _| {}))
    }

    /// As [`Program::run`], and calls `after` behind each step with its position in [`Program::steps`]; a batch that is
    /// cut into parts goes through the steps once a part.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_traced(
        &self,
        inputs: &[Array],
        after: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Array>, EngineError> {
        self.check_inputs(inputs)?;
        rayon::scope(|_| match self.parts {
            Some(parts) => self.run_parts(parts, inputs, Some(after)),
            None => self.run_whole(inputs, &mut |_, _| {}, after),
        })
    }

    /// What one run does, in order.
    pub fn steps(&self) -> Vec<StepSummary> {
        let summary = |step: &Step| {
            let output = step.outputs.iter().flatten().next();
            StepSummary {
                node: step.node.clone(),
                kind: step.kind.clone(),
                shape: output.and_then(|it| it.shape.clone()).unwrap_or_default(),
                macs: match &step.action {
                    Action::Fast(kernel) => kernel.macs(),
                    Action::Integer(kernel) => kernel.macs(),
                    _ => 0,
                },
                integer: matches!(step.action, Action::Integer(_)),
            }
        };
        self.steps.iter().map(summary).collect()
    }

    /// As [`Program::run`], and shows every watched value once, in an order in which the graph computes them.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_observed(
        &self,
        inputs: &[Array],
        observe: &mut dyn FnMut(ValueId, &Array),
    ) -> Result<Vec<Array>, EngineError> {
        self.check_inputs(inputs)?;
        match self.parts {
            Some(parts) => self.run_parts(parts, inputs, None),
            None => self.run_whole(inputs, observe, &mut |_| {}),
        }
    }

    fn run_whole(
        &self,
        inputs: &[Array],
        observe: &mut dyn FnMut(ValueId, &Array),
        after: &mut dyn FnMut(usize),
    ) -> Result<Vec<Array>, EngineError> {
        let feed = Feed::whole(inputs);
        self.with_frame(|frame| {
            self.execute(frame, feed, observe, after)?;
            Ok(self.outputs.iter().map(|it| self.array(it, frame, feed).into_owned()).collect())
        })
    }

    /// Calls `work` with memory that no other run uses.
    fn with_frame<R>(&self, work: impl FnOnce(&mut Frame) -> R) -> R {
        let kept = self.frames.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut frame = kept.unwrap_or_else(|| self.new_frame());
        let result = work(&mut frame);
        frame.others.iter_mut().for_each(|it| *it = None);
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        result
    }

    /// Bytes of the activation arenas of one run; each thread that works on a part of the batch has one.
    pub fn peak_memory_bytes(&self) -> usize {
        let arenas = self.parts.map_or(1, |it| it.count().min(rayon::current_num_threads()));
        let floats = self.slots.iter().sum::<usize>() * size_of::<f32>();
        arenas * (floats + self.bytes.iter().sum::<usize>())
    }

    /// What each step computes with, in order, under the name of its first node. Steps between floats and bytes, which
    /// only convert, are not listed as integer.
    pub fn arithmetic(&self) -> impl Iterator<Item = (&str, Arithmetic)> {
        self.steps.iter().map(|step| {
            let integer = match &step.action {
                Action::Integer(kernel) => kernel.computes(),
                _ => false,
            };
            (step.node.as_str(), if integer { Arithmetic::Integer } else { Arithmetic::Native })
        })
    }

    fn new_frame(&self) -> Frame {
        let slots = self.slots.iter().map(|&it| Aligned::zeros(it)).collect();
        let bytes = self.bytes.iter().map(|&it| vec![0; it]).collect();
        Frame { slots, bytes, others: vec![None; self.others], shown: Vec::new() }
    }

    fn check_inputs(&self, inputs: &[Array]) -> Result<(), EngineError> {
        if inputs.len() != self.inputs.len() {
            return Err(EngineError::InputCount {
                expected: self.inputs.len(),
                found: inputs.len(),
            });
        }
        for (given, wanted) in inputs.iter().zip(&self.inputs) {
            let name = || wanted.name.clone();
            if given.dtype() != wanted.dtype {
                return Err(EngineError::InputType {
                    name: name(),
                    expected: wanted.dtype,
                    found: given.dtype(),
                });
            }
            // The fields of an array are public: its length is checked with its shape.
            if given.shape != wanted.shape || given.len() != wanted.shape.iter().product::<usize>()
            {
                let expected = format!("{:?}", wanted.shape);
                return Err(EngineError::InputShape {
                    name: name(),
                    expected,
                    found: given.shape.clone(),
                });
            }
        }
        Ok(())
    }

    fn execute(
        &self,
        frame: &mut Frame,
        inputs: Feed<'_>,
        observe: &mut dyn FnMut(ValueId, &Array),
        after: &mut dyn FnMut(usize),
    ) -> Result<(), EngineError> {
        for report in &self.first_reports {
            self.show(report, frame, inputs, observe);
        }
        for (at, step) in self.steps.iter().enumerate() {
            match &step.action {
                Action::Reference { op, dtypes, bodies } => {
                    self.run_reference(step, (op, dtypes, bodies), frame, inputs)?;
                }
                Action::Integer(kernel) => self.run_integer(step, &**kernel, frame, inputs),
                Action::Fast(_) | Action::Copy => self.run_fast(step, frame, inputs),
            }
            for report in &step.reports {
                self.show(report, frame, inputs, observe);
            }
            for &it in &step.releases {
                frame.others[it] = None;
            }
            after(at);
        }
        Ok(())
    }

    fn run_fast(&self, step: &Step, frame: &mut Frame, inputs: Feed<'_>) {
        let Some(Some(Operand { place: Place::Slot(slot), shape: Some(shape) })) =
            step.outputs.first()
        else {
            return;
        };
        let len = shape.iter().product();
        let mut memory = std::mem::take(&mut frame.slots[*slot]);
        let operand = |(i, it): (usize, &Option<Operand>)| match it {
            Some(it) if i > 0 || !step.in_place => self.floats(it, frame, inputs),
            _ => &[],
        };
        let (mut few, many);
        let operands = if step.inputs.len() <= FEW {
            few = [[].as_slice(); FEW];
            let given = step.inputs.iter().enumerate().map(operand);
            few.iter_mut().zip(given).for_each(|(slot, it)| *slot = it);
            &few[..step.inputs.len()]
        } else {
            many = step.inputs.iter().enumerate().map(operand).collect::<Vec<_>>();
            &many
        };
        let y = &mut memory[..len];
        let from = match &step.action {
            Action::Fast(kernel) => {
                kernel.run(operands, y);
                None
            }
            _ if step.in_place => None,
            _ => operands.first().copied(),
        };
        stage::apply(&step.stages, from, operands, y);
        frame.slots[*slot] = memory;
    }

    fn run_integer(
        &self,
        step: &Step,
        kernel: &dyn IntegerKernel,
        frame: &mut Frame,
        inputs: Feed<'_>,
    ) {
        let Some(Some(Operand { place, shape: Some(shape) })) = step.outputs.first() else {
            return;
        };
        let len = shape.iter().product();
        match *place {
            Place::Bytes(slot) => {
                let mut memory = std::mem::take(&mut frame.bytes[slot]);
                kernel.run(&self.sources(step, frame, inputs), Sink::Bytes(&mut memory[..len]));
                frame.bytes[slot] = memory;
            }
            Place::Slot(slot) => {
                let mut memory = std::mem::take(&mut frame.slots[slot]);
                let sources = self.sources(step, frame, inputs);
                kernel.run(&sources, Sink::Floats(&mut memory[..len]));
                let floats: Vec<_> = sources.iter().map(|it| it.floats()).collect();
                stage::apply(&step.stages, None, &floats, &mut memory[..len]);
                frame.slots[slot] = memory;
            }
            _ => {}
        }
    }

    /// What an integer kernel reads.
    fn sources<'a>(&'a self, step: &Step, frame: &'a Frame, inputs: Feed<'a>) -> Vec<Source<'a>> {
        let source = |operand: &Option<Operand>| match operand {
            Some(Operand { place: Place::Bytes(slot), shape: Some(shape) }) => {
                Source::Bytes(&frame.bytes[*slot][..shape.iter().product()])
            }
            Some(operand) => Source::Floats(self.floats(operand, frame, inputs)),
            None => Source::Floats(&[]),
        };
        step.inputs.iter().map(source).collect()
    }

    fn run_reference(
        &self,
        step: &Step,
        (op, dtypes, bodies): (&Op, &[DType], &Bodies),
        frame: &mut Frame,
        inputs: Feed<'_>,
    ) -> Result<(), EngineError> {
        let given: Vec<_> = step
            .inputs
            .iter()
            .map(|it| it.as_ref().map(|it| self.array(it, frame, inputs)))
            .collect();
        let borrowed: Vec<_> = given.iter().map(|it| it.as_deref()).collect();
        let refuse = |problem| EngineError::Kernel {
            node: step.node.clone(),
            op: op.name().to_owned(),
            shapes: reference::shapes_of(&borrowed),
            problem,
        };
        let prepared = match op {
            Op::Named(named) => control::evaluate_with(named, &borrowed, dtypes, bodies),
            _ => None,
        };
        let made = prepared.unwrap_or_else(|| reference::evaluate(op, &borrowed, dtypes));
        let made = made.map_err(refuse)?;
        for (operand, array) in step.outputs.iter().zip(&made) {
            if let Some(expected) = operand.as_ref().and_then(|it| it.shape.as_ref())
                && *expected != array.shape
            {
                return Err(refuse(format!("made {:?}, expected {expected:?}", array.shape)));
            }
        }
        drop(given);
        for (operand, array) in step.outputs.iter().zip(made) {
            match (operand.as_ref().map(|it| it.place), array.data) {
                (Some(Place::Slot(slot)), Data::F32(values)) => {
                    frame.slots[slot][..values.len()].copy_from_slice(&values);
                }
                (Some(Place::Other(i)), data) => {
                    frame.others[i] = Some(Array { shape: array.shape, data });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The floats of an operand of known shape.
    fn floats<'a>(&'a self, operand: &Operand, frame: &'a Frame, inputs: Feed<'a>) -> &'a [f32] {
        let array = match operand.place {
            Place::Slot(slot) => {
                let len = operand.shape.iter().flatten().product();
                return &frame.slots[slot][..len];
            }
            Place::Input(i) => {
                return inputs.floats(i, operand.shape.iter().flatten().product());
            }
            Place::Constant(i) => Some(&*self.constants[i]),
            Place::Other(i) => frame.others[i].as_ref(),
            Place::Bytes(_) => None,
        };
        array.and_then(Array::as_f32).unwrap_or_default()
    }

    /// An operand as an array, copied only out of the arena or under another shape.
    fn array<'a>(
        &'a self,
        operand: &Operand,
        frame: &'a Frame,
        inputs: Feed<'a>,
    ) -> Cow<'a, Array> {
        let array = match operand.place {
            Place::Input(i) if inputs.is_whole() => &inputs.arrays[i],
            Place::Constant(i) => &*self.constants[i],
            Place::Other(i) => {
                frame.others[i].as_ref().expect("an array is made before it is read")
            }
            Place::Slot(_) | Place::Bytes(_) | Place::Input(_) => {
                let shape = operand.shape.clone().unwrap_or_default();
                return Cow::Owned(Array {
                    shape,
                    data: Data::F32(self.floats(operand, frame, inputs).to_vec()),
                });
            }
        };
        match &operand.shape {
            Some(shape) if *shape != array.shape => {
                Cow::Owned(Array { shape: shape.clone(), data: array.data.clone() })
            }
            _ => Cow::Borrowed(array),
        }
    }

    fn show(
        &self,
        report: &Report,
        frame: &mut Frame,
        inputs: Feed<'_>,
        observe: &mut dyn FnMut(ValueId, &Array),
    ) {
        if let Operand { place: Place::Slot(_), shape: Some(shape) } = &report.operand {
            let mut shown = std::mem::take(&mut frame.shown);
            shown.clear();
            shown.extend_from_slice(self.floats(&report.operand, frame, inputs));
            let array = Array { shape: shape.clone(), data: Data::F32(shown) };
            observe(report.value, &array);
            if let Data::F32(shown) = array.data {
                frame.shown = shown;
            }
            return;
        }
        observe(report.value, &self.array(&report.operand, frame, inputs));
    }
}
