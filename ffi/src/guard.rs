//! The edge to C: the one place where a panic is caught. It also leaves errno as it was.

use std::panic::{catch_unwind, AssertUnwindSafe};

/// Runs `f`; should it panic, which is a bug of this library, the caller gets `panicked` and nothing unwinds into C.
///
/// Calls that give an answer pass `Err(Fault::Bug)`.
pub(crate) fn guard<T>(panicked: T, f: impl FnOnce() -> T) -> T {
    let f = || {
        #[cfg(debug_assertions)]
        inject::panic_if_asked();
        f()
    };
    // SAFETY: the address of this thread's errno, which is always there.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { errno.read() };
    // What the closure borrows may be half changed after a panic: ENOTRECOVERABLE tells the caller so, and handles are
    // marked.
    let value = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => value,
        Err(payload) => {
            // Dropping a payload may panic once more.
            core::mem::forget(payload);
            panicked
        }
    };
    // SAFETY: as above.
    unsafe { errno.write(before) };
    value
}

/// A panic on demand, for the test of what becomes of one. In builds with debug assertions alone.
#[cfg(debug_assertions)]
mod inject {
    use core::sync::atomic::{AtomicBool, Ordering};

    static ASKED: AtomicBool = AtomicBool::new(false);

    /// The next call that is guarded panics.
    #[no_mangle]
    pub extern "C" fn shmuring_test_panic() {
        ASKED.store(true, Ordering::Relaxed);
    }

    #[allow(clippy::panic)]
    pub(super) fn panic_if_asked() {
        if ASKED.swap(false, Ordering::Relaxed) {
            panic!("asked for");
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_panic_becomes_an_errno() {
        assert_eq!(guard(-libc::ENOTRECOVERABLE, || panic!("a bug")), -libc::ENOTRECOVERABLE);
        assert_eq!(guard(-libc::ENOTRECOVERABLE, || 7), 7);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_escape() {
        assert_eq!(guard(-1, || std::panic::panic_any(Bomb)), -1);
    }
}
