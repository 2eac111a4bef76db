//! What was found once for an operator need not be found again while other operators change.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    block::Block,
    machine::Machine,
    schedule::{Price, Slack},
    store::{Encoded, Format, choose},
    task::{Activation, Kernel, Map, Task, Work},
};

/// A block, a format, and weights stored so.
pub(super) type Choice = (Block, Format, Option<Encoded>);

/// Blocks and stored weights of operators. A copy is cheap; what it finds itself is its own.
#[derive(Clone, Default)]
pub(crate) struct Memo {
    kept: Arc<Found>,
    own: Found,
}

#[derive(Clone, Default)]
struct Found {
    choices: FxHashMap<Key, Option<Choice>>,
    cuts: FxHashMap<(Key, Vec<u64>), Encoded>,
    priced: FxHashMap<(Key, Before), (Arc<Price>, Slack)>,
}

/// What comes before an operator: whether it is the first, and the cycles and bytes that are left to copies.
pub(super) type Before = (bool, Option<(u64, u64)>);

/// All of an operator on which its block and its stored weights depend.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    work: Work,
    maps: [Option<Map>; 3],
    kernel: Kernel,
    activation: Activation,
    chain: usize,
    weights: Option<WeightKey>,
}

/// Which weights: their extents, where they lie in this process (or by how many bytes they are guessed), their pattern.
type WeightKey = ([u64; 4], usize, u64, Option<bool>);

impl Key {
    fn of(task: &Task) -> Self {
        let weights = task.weights.as_ref().map(|it| {
            let place = it.values.as_ref().map_or(0, |it| it.as_ptr().addr());
            ([it.outputs, it.inputs, it.h, it.w], place, it.ratio.to_bits(), it.sparse)
        });
        Key {
            work: task.work,
            maps: [Some(task.input), task.operand, Some(task.output)],
            kernel: task.kernel,
            activation: task.activation,
            chain: task.chain.len(),
            weights,
        }
    }
}

impl Memo {
    /// Makes what was found so far common to all copies.
    pub(super) fn keep(&mut self) {
        let own = std::mem::take(&mut self.own);
        let kept = Arc::make_mut(&mut self.kept);
        kept.choices.extend(own.choices);
        kept.cuts.extend(own.cuts);
        kept.priced.extend(own.priced);
    }

    /// The price of `task` after `before`, from `price` where it was not found before.
    pub(super) fn price(
        &mut self,
        task: &Task,
        before: Before,
        price: impl FnOnce(&mut Self) -> Option<(Price, Slack)>,
    ) -> Option<(Arc<Price>, Slack)> {
        if !task.chain.is_empty() {
            return price(self).map(|it| (Arc::new(it.0), it.1));
        }
        let key = (Key::of(task), before);
        if let Some(known) = self.kept.priced.get(&key).or(self.own.priced.get(&key)) {
            return Some(known.clone());
        }
        let (found, slack) = price(self)?;
        let found = (Arc::new(found), slack);
        self.own.priced.insert(key, found.clone());
        Some(found)
    }

    /// As [`choose`].
    pub(super) fn choose(
        &mut self,
        machine: &Machine,
        task: &Task,
        memories: [usize; 3],
    ) -> Option<Choice> {
        let key = Key::of(task);
        if let Some(known) = self.kept.choices.get(&key).or(self.own.choices.get(&key)) {
            return known.clone();
        }
        let found = choose(machine, task, memories);
        self.own.choices.insert(key, found.clone());
        found
    }

    /// As [`Encoded::new`].
    pub(super) fn cut(
        &mut self,
        machine: &Machine,
        task: &Task,
        block: &Block,
        format: Format,
        cuts: &[u64],
    ) -> Option<Encoded> {
        let weights = task.weights.as_ref()?;
        let key = (Key::of(task), cuts.to_vec());
        if let Some(known) = self.kept.cuts.get(&key).or(self.own.cuts.get(&key)) {
            return Some(known.clone());
        }
        let found = Encoded::new(machine, task, weights, block, format, cuts);
        self.own.cuts.insert(key, found.clone());
        Some(found)
    }
}
