//! How a kernel's tasks are shared among threads.

use std::cell::Cell;

use rayon::prelude::*;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `task` with 0..`count`, in parallel unless the thread works alone ([`alone`]).
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Sync) {
    if count == 1 || ALONE.get() {
        (0..count).for_each(&task);
    } else {
        (0..count).into_par_iter().for_each(&task);
    }
}

/// Calls `work`, whose kernels keep to this thread: others have work of their own.
pub(crate) fn alone<R>(work: impl FnOnce() -> R) -> R {
    let before = ALONE.replace(true);
    let result = work();
    ALONE.set(before);
    result
}

/// Calls `work` with the index and the elements of each chunk of `len` elements of `y`; a task has about `least`
/// elements or more.
pub(crate) fn for_each_chunk(
    y: &mut [f32],
    len: usize,
    least: usize,
    work: impl Fn(usize, &mut [f32]) + Sync,
) {
    let chunks = least.div_ceil(len);
    if ALONE.get() || y.len() <= chunks * len {
        y.chunks_mut(len).enumerate().for_each(|(at, y)| work(at, y));
    } else {
        y.par_chunks_mut(len).enumerate().with_min_len(chunks).for_each(|(at, y)| work(at, y));
    }
}
