//! Checkpoints: safetensors with all numbers, and in its metadata where the training stands.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sartor_engine::train::Parameters;
use sartor_ir::Graph;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Config, Epoch, TrainError, optimizer::Optimizer, watch::Sums};

/// The key of the metadata.
const KEY: &str = "sartor";

/// Changes whenever the form of a checkpoint does.
const VERSION: u32 = 1;

/// Where a training stands between two iterations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Epochs that are done.
    pub(crate) epoch: u32,
    /// Iterations of this epoch that are done.
    pub(crate) step: u64,
    /// Iterations in all that are done.
    pub(crate) iteration: u64,
    /// Forward passes in all that are done.
    pub(crate) passes: u64,
    /// Over the epoch so far.
    pub(crate) sums: Sums,
    /// Since the last window was told.
    pub(crate) window: Sums,
    /// Every epoch so far.
    pub(crate) history: Vec<Epoch>,
}

#[derive(Serialize, Deserialize)]
struct About {
    version: u32,
    /// Training samples and validation samples.
    samples: [usize; 2],
    config: Value,
    state: State,
}

/// The numbers of a training.
pub(crate) struct Numbers<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) parameters: &'a mut Parameters,
    pub(crate) optimizer: &'a mut Optimizer,
    pub(crate) best: &'a mut Option<Parameters>,
}

/// One tensor of a checkpoint.
#[derive(Clone, Copy)]
enum Slot {
    First(usize),
    Second(usize),
    Parameter(usize),
    Statistic(usize),
    BestParameter(usize),
    BestStatistic(usize),
}

impl Numbers<'_> {
    /// The tensors by name, with their shapes.
    fn slots(&self) -> Vec<(String, Vec<usize>, Slot)> {
        let mut slots = Vec::new();
        for (i, &id) in self.parameters.ids().iter().enumerate() {
            let (name, shape) = (&self.graph.value(id).name, self.parameters.shape(i).to_vec());
            let mut add =
                |kind: &str, slot| slots.push((format!("{kind}/{name}"), shape.clone(), slot));
            add("parameter", Slot::Parameter(i));
            add("first-moment", Slot::First(i));
            if i < self.optimizer.second.len() {
                add("second-moment", Slot::Second(i));
            }
            if self.best.is_some() {
                add("best-parameter", Slot::BestParameter(i));
            }
        }
        for (i, &id) in self.parameters.statistic_ids().iter().enumerate() {
            let (name, shape) =
                (&self.graph.value(id).name, vec![self.parameters.statistic(i).len()]);
            slots.push((format!("statistic/{name}"), shape.clone(), Slot::Statistic(i)));
            if self.best.is_some() {
                slots.push((format!("best-statistic/{name}"), shape, Slot::BestStatistic(i)));
            }
        }
        slots
    }

    fn get(&self, slot: Slot) -> &[f32] {
        match slot {
            Slot::First(i) => &self.optimizer.first[i],
            Slot::Second(i) => &self.optimizer.second[i],
            Slot::Parameter(i) => self.parameters.get(i),
            Slot::Statistic(i) => self.parameters.statistic(i),
            Slot::BestParameter(i) => self.best.as_ref().map_or(&[], |it| it.get(i)),
            Slot::BestStatistic(i) => self.best.as_ref().map_or(&[], |it| it.statistic(i)),
        }
    }

    fn get_mut(&mut self, slot: Slot) -> &mut [f32] {
        match slot {
            Slot::First(i) => &mut self.optimizer.first[i],
            Slot::Second(i) => &mut self.optimizer.second[i],
            Slot::Parameter(i) => self.parameters.get_mut(i),
            Slot::Statistic(i) => self.parameters.statistic_mut(i),
            Slot::BestParameter(i) => self.best.as_mut().map_or(&mut [], |it| it.get_mut(i)),
            Slot::BestStatistic(i) => self.best.as_mut().map_or(&mut [], |it| it.statistic_mut(i)),
        }
    }

    /// A checkpoint as the bytes of a file.
    ///
    /// # Errors
    /// Numbers that the format cannot hold.
    pub(crate) fn encode(
        &self,
        config: &Config,
        samples: [usize; 2],
        state: &State,
    ) -> Result<Vec<u8>, TrainError> {
        let problem = |it: String| TrainError::Checkpoint(format!("cannot be made: {it}"));
        let config = serde_json::to_value(config).map_err(|it| problem(it.to_string()))?;
        let about = About { version: VERSION, samples, config, state: state.clone() };
        let about = serde_json::to_string(&about).map_err(|it| problem(it.to_string()))?;
        let slots = self.slots();
        let bytes: Vec<Vec<u8>> = slots
            .iter()
            .map(|it| self.get(it.2).iter().flat_map(|it| it.to_le_bytes()).collect())
            .collect();
        let mut views = Vec::new();
        for ((name, shape, _), bytes) in slots.iter().zip(&bytes) {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            views.push((name, view.map_err(|it| problem(it.to_string()))?));
        }
        let metadata = std::iter::once((KEY.to_owned(), about)).collect();
        safetensors::serialize(views, Some(metadata)).map_err(|it| problem(it.to_string()))
    }

    /// Takes the numbers of a checkpoint over and returns where its training stood.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for a damaged file and one of another training: other options, other
    /// samples or another network.
    pub(crate) fn restore(
        &mut self,
        file: &[u8],
        config: &Config,
        samples: [usize; 2],
    ) -> Result<State, TrainError> {
        let damaged = |it: String| {
            TrainError::Checkpoint(format!("is damaged or no checkpoint of Sartor: {it}"))
        };
        let tensors = SafeTensors::deserialize(file).map_err(|it| damaged(it.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(file).map_err(|it| damaged(it.to_string()))?;
        let about = header.metadata().as_ref().and_then(|it| it.get(KEY));
        let about = about.ok_or_else(|| damaged(format!("its metadata have no `{KEY}`")))?;
        let about: About = serde_json::from_str(about).map_err(|it| damaged(it.to_string()))?;
        about.check(config, samples)?;
        if config.keep == crate::Keep::Best && !about.state.history.is_empty() {
            *self.best = Some(self.parameters.clone());
        }
        let slots = self.slots();
        if slots.len() != tensors.len() {
            let (found, expected) = (tensors.len(), slots.len());
            return Err(other(&format!("network: it has {found} tensors, expected {expected}")));
        }
        for (name, shape, slot) in slots {
            let tensor = tensors
                .tensor(&name)
                .map_err(|_| other(&format!("network: it has no tensor `{name}`")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
                return Err(other(&format!("network: tensor `{name}` is not float32 {shape:?}")));
            }
            let numbers = tensor.data().as_chunks().0.iter().map(|it| f32::from_le_bytes(*it));
            self.get_mut(slot).iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
        }
        Ok(about.state)
    }
}

fn other(what: &str) -> TrainError {
    TrainError::Checkpoint(format!("is of another {what}"))
}

impl About {
    /// Whether it is of the training with this configuration and numbers of samples.
    fn check(&self, config: &Config, samples: [usize; 2]) -> Result<(), TrainError> {
        if self.version != VERSION {
            let text = format!("has version {}, expected {VERSION}: begin anew", self.version);
            return Err(TrainError::Checkpoint(text));
        }
        let now = serde_json::to_value(config).unwrap_or_default();
        let empty = serde_json::Map::new();
        let (old, now) =
            (self.config.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
        let differs = now.iter().find(|(key, value)| old.get(*key) != Some(value));
        if let Some((key, value)) = differs {
            let old = old.get(key).unwrap_or(&Value::Null);
            return Err(other(&format!(
                "training: `{key}` was {old} and is {value} now; resume with the options that it began with"
            )));
        }
        if self.samples != samples {
            let [train, validation] = self.samples;
            return Err(other(&format!(
                "training: it had {train} samples and {validation} for validation, now there are {} and {}",
                samples[0], samples[1]
            )));
        }
        Ok(())
    }
}
