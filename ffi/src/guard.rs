//! The edge to C: the one place where a panic is caught.

use std::panic::{catch_unwind, AssertUnwindSafe};

/// Runs `f`; should it panic, which is a bug of this library, the caller gets `panicked` and nothing unwinds into C.
///
/// Calls that return an int pass `-libc::ENOTRECOVERABLE`.
pub(crate) fn guard<T>(panicked: T, f: impl FnOnce() -> T) -> T {
    // What the closure borrows may be half changed after a panic: ENOTRECOVERABLE tells the caller so.
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => value,
        Err(payload) => {
            // Dropping a payload may panic once more.
            core::mem::forget(payload);
            panicked
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
