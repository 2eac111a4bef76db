//! One buffer a thread, kept between runs.

use std::cell::RefCell;

use super::aligned::Aligned;

thread_local! {
    static FLOATS: RefCell<Aligned> = RefCell::default();
}

/// Calls `work` with `len` floats of arbitrary values on a 64-byte boundary. `work` must not run other tasks.
pub(super) fn with<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    FLOATS.with_borrow_mut(|floats| {
        floats.reserve(len);
        work(&mut floats[..len])
    })
}
