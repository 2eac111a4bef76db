//! Where weights and activations lie, and for how long.

use sartor_chip::{Bytes, Chip, Content, Seconds};

use crate::{
    arena::{Arena, Span, alive, peak},
    estimate::Placement,
};

/// Which memories hold what.
pub(crate) struct Residence<'c> {
    chip: &'c Chip,
    at: At,
    /// The nearest memory for activations.
    nearest: usize,
    /// The farthest memory that holds activations.
    pub(crate) activations: usize,
    home: usize,
    /// The memories that keep weights, near to far, and what is left in them.
    keepers: Vec<(usize, Option<Bytes>)>,
    /// Weights that stay in one of them.
    kept: Bytes,
    /// The farthest of them that holds any.
    reached: Option<usize>,
}

/// The memories of the buffers.
enum At {
    /// One holds all.
    All(usize),
    /// By buffer.
    Each(Vec<usize>),
}

impl<'c> Residence<'c> {
    /// All buffers lie in the nearest memory that takes the whole `arena`. If none does, each lies in the nearest one in which, all
    /// the time that it lives, no more lives than fits; the last one takes the rest.
    pub(crate) fn new(chip: &'c Chip, buffers: &[Span], arena: &Arena) -> Self {
        let holding = |content| {
            let memories = chip.system.memories.iter().enumerate();
            memories.filter(move |(_, memory)| memory.holds.contains(&content)).map(|(i, _)| i)
        };
        let far = chip.system.memories.len() - 1;
        let capacity = |i: usize| chip.system.memories[i].capacity.as_ref().map(|it| it.value);
        let whole =
            holding(Content::Activations).find(|&i| capacity(i).is_none_or(|it| it >= arena.size));
        let nearest = holding(Content::Activations).next().unwrap_or(far);
        let at = match whole {
            Some(i) => At::All(i),
            None => Self::spill(buffers, holding(Content::Activations).collect(), capacity, far),
        };
        let activations = match &at {
            At::All(i) => *i,
            At::Each(each) => each.iter().copied().max().unwrap_or(far),
        };
        let keeping = holding(Content::Weights).filter(|&i| chip.system.memories[i].keeps_weights);
        let keepers = keeping
            .map(|i| {
                let taken = match &at {
                    At::All(all) if *all == i => arena.size,
                    At::All(_) => Bytes(0),
                    At::Each(each) => {
                        let mine = buffers.iter().zip(each).filter(|it| *it.1 == i);
                        peak(&mine.map(|it| *it.0).collect::<Vec<_>>())
                    }
                };
                (i, capacity(i).map(|it| it - taken))
            })
            .collect();
        let home = holding(Content::Weights).next_back().unwrap_or(far);
        Residence { chip, at, nearest, activations, home, keepers, kept: Bytes(0), reached: None }
    }

    fn spill(
        buffers: &[Span],
        levels: Vec<usize>,
        capacity: impl Fn(usize) -> Option<Bytes>,
        far: usize,
    ) -> At {
        let last = levels.last().copied().unwrap_or(far);
        let mut each = vec![last; buffers.len()];
        let mut rest = buffers.to_vec();
        for level in levels {
            let room = capacity(level).unwrap_or(Bytes(u64::MAX));
            let alive = alive(&rest);
            for (i, buffer) in rest.iter_mut().enumerate() {
                let (first, end) = buffer.1;
                let most = alive[first as usize..=end as usize].iter().max();
                if buffer.0 > Bytes(0) && most.is_some_and(|it| *it <= room) {
                    each[i] = level;
                    buffer.0 = Bytes(0);
                }
            }
        }
        At::Each(each)
    }

    /// The memory in which a buffer lies.
    pub(crate) fn of(&self, buffer: u32) -> usize {
        match &self.at {
            At::All(i) => *i,
            At::Each(each) => each[buffer as usize],
        }
    }

    /// The memory from which a node's weights are read: in node order, the nearest keeping memory that has room takes them.
    pub(crate) fn place(&mut self, weights: Bytes) -> usize {
        let mut keepers = self.keepers.iter_mut();
        let keeper = keepers.find(|(_, room)| room.is_none_or(|it| it >= weights));
        let Some((at, room)) = keeper else { return self.home };
        *room = room.map(|it| it - weights);
        self.kept += weights;
        self.reached = self.reached.max(Some(*at));
        *at
    }

    /// Where the weights lie, for a total of `needed` bytes.
    pub(crate) fn weights(&self, needed: Bytes) -> Placement {
        let nearest = self.keepers.first().map(|it| it.0);
        let all_kept = self.reached.or(nearest).filter(|_| self.kept == needed);
        let at = all_kept.unwrap_or(self.home);
        let fits = all_kept.is_some()
            || self.chip.system.memories[at].capacity.as_ref().is_none_or(|it| it.value >= needed);
        let spilled = if self.keepers.is_empty() { Bytes(0) } else { needed - self.kept };
        self.placement(at, needed, fits, spilled)
    }

    /// Where the activations lie.
    pub(crate) fn activations(&self, buffers: &[Span], arena: &Arena) -> Placement {
        let capacity = self.chip.system.memories[self.activations].capacity.as_ref();
        let (needed, spilled) = match &self.at {
            At::All(i) => (arena.size, if *i == self.nearest { Bytes(0) } else { arena.size }),
            At::Each(each) => {
                let beyond = |from: usize| {
                    let far = buffers.iter().zip(each).filter(|it| *it.1 >= from);
                    peak(&far.map(|it| *it.0).collect::<Vec<_>>())
                };
                (beyond(self.activations), beyond(self.nearest + 1))
            }
        };
        let fits = capacity.is_none_or(|it| it.value >= needed);
        self.placement(self.activations, arena.size, fits, spilled)
    }

    fn placement(&self, at: usize, needed: Bytes, fits: bool, spilled: Bytes) -> Placement {
        let memory = &self.chip.system.memories[at];
        Placement {
            memory: memory.name.clone(),
            capacity: memory.capacity.as_ref().map(|it| it.value),
            needed,
            fits,
            spilled,
        }
    }

    /// Time to bring activations to the host and back: through the nearest memory, from theirs outwards, of known bandwidth.
    pub(crate) fn host_transfer(&self, bytes: Bytes) -> Seconds {
        let mut outward = self.chip.system.memories[self.activations..].iter();
        let bandwidth = outward.find_map(|it| it.read.as_ref());
        bandwidth.map_or(Seconds(0.0), |it| bytes / it.value)
    }
}
