//! Memory of which each task of a parallel loop writes its own elements.
#![expect(unsafe_code, reason = "one slice, written by several tasks")]

use std::{marker::PhantomData, ops::Range};

/// A slice whose elements are cut among tasks in other ways than by chunks.
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    lent: PhantomData<&'a mut [f32]>,
}

// SAFETY: who takes a slice answers for it being its own.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), lent: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other slice that is in use may hold one of these elements.
    ///
    /// # Panics
    /// If the range reaches beyond the end: a bug of the caller.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        clippy::mut_from_ref,
        reason = "part of a compiled loop; the caller answers for the elements"
    )]
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: the range lies inside the slice that was lent; the caller answers for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
