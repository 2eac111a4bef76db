//! What a tape refuses, and how it says so.

use super::{Gradients, Parameters, Tape};
use crate::{Array, EngineError, reference};

impl Tape {
    pub(super) fn failure(
        &self,
        at: usize,
        parameters: &Parameters,
        problem: String,
    ) -> EngineError {
        EngineError::Kernel {
            node: self.steps[at].node.clone(),
            op: self.steps[at].op.name().to_owned(),
            shapes: reference::shapes_of(&self.operands(at, parameters)),
            problem,
        }
    }

    pub(super) fn check_parameters(&self, parameters: &Parameters) -> Result<(), EngineError> {
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

    pub(super) fn check_inputs(&self, inputs: &[Array]) -> Result<(), EngineError> {
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

    pub(super) fn check_gradients(
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
