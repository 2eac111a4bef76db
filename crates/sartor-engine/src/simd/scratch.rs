//! One buffer a thread, kept between runs.
#![expect(unsafe_code, reason = "views aligned lines as floats")]

use std::cell::RefCell;

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; 16]);

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` floats of arbitrary values on a 64-byte boundary. `work` must not run other tasks.
pub(super) fn with<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    LINES.with_borrow_mut(|lines| {
        let needed = len.div_ceil(16);
        if lines.len() < needed {
            lines.resize(needed, Line([0.0; 16]));
        }
        // SAFETY: `lines` holds at least `needed` × 16 initialised floats, borrowed exclusively here.
        let floats = unsafe {
            std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), needed * 16)
        };
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
