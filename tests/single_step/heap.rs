//! The heap of the victims: they take memory from a row of their own and give none back. What the C library does depends
//! on all that was allocated before, so that no two runs would go alike.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// More than any victim takes.
const BYTES: usize = 1 << 20;

struct Heap {
    row: UnsafeCell<[u8; BYTES]>,
    taken: AtomicUsize,
    is_victims: AtomicBool,
}

#[global_allocator]
static HEAP: Heap =
    Heap { row: UnsafeCell::new([0; BYTES]), taken: AtomicUsize::new(0), is_victims: AtomicBool::new(false) };

// SAFETY: bytes of the row are given out once, by an atomic count.
unsafe impl Sync for Heap {}

// SAFETY: each piece of the row is aligned, and nobody else's; everything else is the C library's.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !self.is_victims.load(Relaxed) {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let first = self.row.get() as usize;
        let begin = self.taken.fetch_add(layout.size() + layout.align(), Relaxed);
        let at = (first + begin).next_multiple_of(layout.align());
        if at + layout.size() > first + BYTES {
            return std::ptr::null_mut();
        }
        at as *mut u8
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let first = self.row.get() as usize;
        if !(first..first + BYTES).contains(&(at as usize)) {
            // SAFETY: not of the row, so the C library gave it; the rest is the caller's promise.
            unsafe { System.dealloc(at, layout) };
        }
    }
}

/// What this process allocates from here on comes from the row.
pub fn begin() {
    HEAP.is_victims.store(true, Relaxed);
}
