//! Which values stay for the backward pass, and when each leaves.

use super::tape::{Role, Step};

/// Values that leave after a step.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// After the forward run of each step.
    pub(super) forward: Vec<Vec<usize>>,
    /// After the backward run of each step.
    pub(super) backward: Vec<Vec<usize>>,
}

impl Retention {
    /// By what the steps read; `pinned` values stay until the end of the backward pass, `watched` ones until
    /// the next forward pass.
    pub(super) fn new(steps: &[Step], pinned: &[bool], watched: &[bool]) -> Self {
        let mut last = vec![None; pinned.len()];
        let mut first = vec![None; pinned.len()];
        for (at, step) in steps.iter().enumerate() {
            step.inputs.iter().chain(&step.outputs).flatten().for_each(|&it| last[it] = Some(at));
        }
        for (at, step) in steps.iter().enumerate().rev() {
            reads(step).for_each(|it| first[it] = Some(at));
        }
        let empty = || vec![Vec::new(); steps.len()];
        let mut it = Retention { forward: empty(), backward: empty() };
        for value in 0..pinned.len() {
            match (first[value], last[value]) {
                _ if watched[value] => {}
                (Some(at), _) => it.backward[at].push(value),
                (None, Some(_)) if pinned[value] => it.backward[0].push(value),
                (None, Some(at)) => it.forward[at].push(value),
                (None, None) => {}
            }
        }
        it
    }
}

/// The values that the backward run of a step reads.
fn reads(step: &Step) -> Box<dyn Iterator<Item = usize> + '_> {
    if !step.wanted.contains(&true) {
        return Box::new(std::iter::empty());
    }
    let Some(fast) = &step.fast else {
        if matches!(step.role, Role::Dropout) {
            return Box::new(std::iter::empty());
        }
        return Box::new(step.inputs.iter().chain(&step.outputs).flatten().copied());
    };
    let reads = fast.reads();
    let output = step.outputs.iter().flatten().copied().filter(move |_| reads.output);
    Box::new(reads.inputs.into_iter().filter_map(|it| step.inputs[it]).chain(output))
}
