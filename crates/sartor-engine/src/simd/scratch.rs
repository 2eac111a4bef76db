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

/// Calls `work` with `len` bytes of arbitrary values on a 64-byte boundary. `work` must not run other tasks.
pub(super) fn with_bytes<R>(len: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    with(len.div_ceil(4), |floats| {
        // SAFETY: every bit pattern is a byte and a float; the slice is borrowed exclusively.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<u8>(), floats.len() * 4)
        };
        work(&mut bytes[..len])
    })
}
