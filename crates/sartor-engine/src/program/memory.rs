//! Where values lie: slots of the arena are shared by values that do not live at the same time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use sartor_ir::ValueId;

use super::{
    Action, Input, Operand, Place, Program, Report, Step,
    lower::{Draft, Lowering},
};
use crate::{Array, EngineError, array::storage};

/// Gives every value a place and every step its operands.
pub(super) fn place(mut it: Lowering<'_>, shapes: &[Vec<usize>]) -> Result<Program, EngineError> {
    let drafts = std::mem::take(&mut it.drafts);
    let mut planner = Planner::new(&it, &drafts);
    let mut steps = Vec::with_capacity(drafts.len());
    for (at, draft) in drafts.into_iter().enumerate() {
        steps.push(planner.step(at, draft));
    }
    let first_reports = planner.first_reports();
    for (at, report) in planner.later_reports() {
        steps[at].reports.push(report);
    }
    let outputs = it.graph.outputs().iter().map(|&id| planner.operand(id)).collect();
    let inputs = it.graph.inputs().iter().zip(shapes).map(|(&id, shape)| {
        let value = it.graph.value(id);
        let dtype = value.ty.as_ref().map_or(sartor_ir::DType::F32, |it| it.dtype);
        let refuse = || EngineError::ConstantType { name: value.name.clone(), dtype };
        Ok(Input {
            name: value.name.clone(),
            dtype: storage(dtype).ok_or_else(refuse)?,
            shape: shape.clone(),
        })
    });
    Ok(Program {
        inputs: inputs.collect::<Result<_, EngineError>>()?,
        steps,
        outputs,
        first_reports,
        constants: planner.constants,
        slots: planner.slots.sizes,
        bytes: planner.bytes.sizes,
        others: planner.others,
        parts: None,
        frames: Mutex::new(Vec::new()),
    })
}

struct Planner<'a, 'g> {
    it: &'a Lowering<'g>,
    /// The last step that reads a root; outputs live for ever.
    last_use: BTreeMap<ValueId, usize>,
    places: BTreeMap<ValueId, Place>,
    constants: Vec<Arc<Array>>,
    slots: Pool,
    bytes: Pool,
    others: usize,
}

/// Slots of one element type.
#[derive(Default)]
struct Pool {
    /// Elements of each slot.
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Pool {
    /// The smallest free slot that is large enough, else the largest one, grown, else a new one.
    fn take(&mut self, len: usize) -> usize {
        let key = |&i: &usize| {
            let size = self.sizes[self.free[i]];
            if size >= len { (0, size) } else { (1, usize::MAX - size) }
        };
        if let Some(i) = (0..self.free.len()).min_by_key(key) {
            let slot = self.free.swap_remove(i);
            self.sizes[slot] = self.sizes[slot].max(len);
            slot
        } else {
            self.sizes.push(len);
            self.sizes.len() - 1
        }
    }
}

impl<'a, 'g> Planner<'a, 'g> {
    fn new(it: &'a Lowering<'g>, drafts: &[Draft]) -> Self {
        let mut last_use = BTreeMap::new();
        for (at, draft) in drafts.iter().enumerate() {
            for value in draft.inputs.iter().flatten() {
                last_use.insert(it.root[value.index()], at);
            }
        }
        for &output in it.graph.outputs() {
            last_use.insert(it.root[output.index()], usize::MAX);
        }
        let inputs = it.graph.inputs().iter().enumerate();
        let places = inputs.map(|(i, &id)| (id, Place::Input(i))).collect();
        Planner {
            it,
            last_use,
            places,
            constants: Vec::new(),
            slots: Pool::default(),
            bytes: Pool::default(),
            others: 0,
        }
    }

    fn operand(&mut self, id: ValueId) -> Operand {
        let shape = self.it.shape(id);
        if let Some(constant) = &self.it.constants[id.index()] {
            let next = Place::Constant(self.constants.len());
            let place = *self.places.entry(id).or_insert(next);
            if place == next {
                self.constants.push(constant.clone());
            }
            return Operand { place, shape };
        }
        let root = self.it.root[id.index()];
        Operand { place: self.places[&root], shape }
    }

    fn step(&mut self, at: usize, draft: Draft) -> Step {
        let inputs: Vec<_> = draft.inputs.iter().map(|it| it.map(|id| self.operand(id))).collect();
        let inherited =
            if matches!(draft.action, Action::Copy) { self.dying_slot(at, &draft) } else { None };
        let outputs =
            draft.outputs.iter().map(|it| it.map(|id| self.output(id, inherited))).collect();
        let mut releases = Vec::new();
        let mut ended: Vec<ValueId> =
            draft.inputs.iter().flatten().map(|it| self.it.root[it.index()]).collect();
        // An output that nobody reads (it is only watched) ends here too.
        ended.extend(draft.outputs.iter().flatten().filter(|it| !self.last_use.contains_key(it)));
        ended.sort_unstable();
        ended.dedup();
        for root in
            ended.into_iter().filter(|it| self.last_use.get(it).is_none_or(|&last| last == at))
        {
            match self.places.get(&root) {
                Some(&Place::Slot(slot))
                    if Some(slot) != inherited || draft.outputs.contains(&Some(root)) =>
                {
                    self.slots.free.push(slot);
                }
                Some(&Place::Bytes(slot)) => self.bytes.free.push(slot),
                Some(&Place::Other(i)) => releases.push(i),
                _ => {}
            }
        }
        Step {
            node: draft.node,
            kind: draft.kind,
            action: draft.action,
            inputs,
            outputs,
            stages: draft.stages,
            in_place: inherited.is_some(),
            reports: Vec::new(),
            releases,
        }
    }

    /// The slot of input 0 if nothing but this step reads it from now on, and only as input 0.
    fn dying_slot(&self, at: usize, draft: &Draft) -> Option<usize> {
        let roots: Vec<_> =
            draft.inputs.iter().flatten().map(|it| self.it.root[it.index()]).collect();
        let first = roots.first()?;
        let once = roots.iter().filter(|it| *it == first).count() == 1;
        match self.places.get(first) {
            Some(&Place::Slot(slot)) if once && self.last_use.get(first) == Some(&at) => Some(slot),
            _ => None,
        }
    }

    /// A place for the output of a step.
    fn output(&mut self, id: ValueId, inherited: Option<usize>) -> Operand {
        let shape = self.it.shape(id);
        let place = match &shape {
            Some(shape) if self.it.is_held(id) => {
                Place::Bytes(self.bytes.take(shape.iter().product()))
            }
            Some(shape) if self.it.is_float(id) => {
                let slot = inherited.unwrap_or_else(|| self.slots.take(shape.iter().product()));
                Place::Slot(slot)
            }
            _ => {
                self.others += 1;
                Place::Other(self.others - 1)
            }
        };
        self.places.insert(id, place);
        Operand { place, shape }
    }

    /// Watched values that are there before the first step.
    fn first_reports(&mut self) -> Vec<Report> {
        let watched: Vec<_> = self.it.watched.iter().copied().collect();
        let early =
            watched.into_iter().filter(|&id| self.made_at(id).is_none()).collect::<Vec<_>>();
        early.into_iter().map(|value| Report { value, operand: self.operand(value) }).collect()
    }

    /// The other watched values with the step after which they are there, in the graph's order.
    fn later_reports(&mut self) -> Vec<(usize, Report)> {
        let nodes = self.it.graph.nodes();
        let made: Vec<ValueId> =
            nodes.flat_map(|(_, node)| node.outputs.iter().flatten().copied()).collect();
        let watched = made.into_iter().filter(|id| self.it.watched.contains(id));
        let placed: Vec<_> = watched.filter_map(|id| Some((self.made_at(id)?, id))).collect();
        placed
            .into_iter()
            .map(|(at, value)| (at, Report { value, operand: self.operand(value) }))
            .collect()
    }

    fn made_at(&self, id: ValueId) -> Option<usize> {
        if self.it.constants[id.index()].is_some() {
            return None;
        }
        self.it.maker.get(&self.it.root[id.index()]).copied()
    }
}
