//! CLOCK_MONOTONIC in nanoseconds, the clock of every deadline.
#![allow(unsafe_code)]

#[cfg(any(feature = "loom", feature = "shuttle"))]
pub use model::*;

/// The time of a model, which must not depend on how long it takes: it stands still but for what the test says.
#[cfg(any(feature = "loom", feature = "shuttle"))]
mod model {
    use std::cell::Cell;

    std::thread_local! {
        // The checkers run all threads of a model on the OS thread of the test.
        static NOW: Cell<u64> = const { Cell::new(1) };
    }

    /// Now, in ns.
    #[must_use]
    pub fn now() -> u64 {
        NOW.get()
    }

    /// Makes it `ns` o'clock. Sleepers notice by `futex::pass_time` alone.
    pub fn set(ns: u64) {
        NOW.set(ns);
    }
}

/// Now, in ns of CLOCK_MONOTONIC; 0 if the kernel refuses, which it does not for this clock.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[must_use]
pub fn now() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid place for the answer.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    if rc != 0 {
        return 0;
    }
    (ts.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(ts.tv_nsec as u64)
}

/// Nanoseconds as the kernel takes them.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub(crate) fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long }
}
