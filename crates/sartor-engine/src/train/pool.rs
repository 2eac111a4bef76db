//! Memory that goes round: what one value leaves the next one takes, so that a step like the last one
//! allocates nothing.

use crate::{Array, Data};

/// Lists of floats that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Free lists, each with the run in which it was given back.
    free: Vec<(u64, Vec<f32>)>,
    run: u64,
    floats: usize,
}

impl Pool {
    /// Begins the next run: what lay unused through the last one goes.
    pub(super) fn next_run(&mut self) {
        self.run += 1;
        let run = self.run;
        self.free.retain(|it| it.0 + 1 >= run);
        self.floats = self.free.iter().map(|it| it.1.capacity()).sum();
    }

    /// `len` floats of any value: the smallest list that holds them without much waste, or a new one.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        let fits = |it: &(u64, Vec<f32>)| (len..=len + len / 2 + 64).contains(&it.1.capacity());
        let free = self.free.iter().enumerate().filter(|it| fits(it.1));
        let Some((at, _)) = free.min_by_key(|it| it.1.1.capacity()) else {
            return vec![0.0; len];
        };
        let (_, mut list) = self.free.swap_remove(at);
        self.floats -= list.capacity();
        list.resize(len, 0.0);
        list
    }

    /// Takes a list back.
    pub(super) fn give(&mut self, list: Vec<f32>) {
        self.floats += list.capacity();
        self.free.push((self.run, list));
    }

    /// Takes the elements of an array back, if they are floats.
    pub(super) fn give_array(&mut self, array: Array) {
        if let Data::F32(list) = array.data {
            self.give(list);
        }
    }

    /// Bytes that lie unused.
    pub(super) fn bytes(&self) -> usize {
        self.floats * size_of::<f32>()
    }
}
