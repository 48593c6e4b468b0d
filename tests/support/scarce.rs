//! The system's memory, of which a thread may be told that nothing is left. A test that includes it makes a [`Scarce`]
//! its global allocator.
#![allow(dead_code)] // Each test binary uses its own part.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub struct Scarce;

thread_local! {
    /// How often this thread still gets memory.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

// SAFETY: the system's allocator, but for null, which says that there is no memory.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match LEFT.get() {
            0 => return core::ptr::null_mut(),
            usize::MAX => {}
            left => LEFT.set(left - 1),
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs `f`, which gets memory `times` times and then none any more.
pub fn with<T>(times: usize, f: impl FnOnce() -> T) -> T {
    LEFT.set(times);
    let value = f();
    LEFT.set(usize::MAX);
    value
}

/// Runs `f` without memory.
pub fn without<T>(f: impl FnOnce() -> T) -> T {
    with(0, f)
}
