//! Sleeping and waking across processes: the only system calls of the I/O path.
//!
//! Futexes of a shared region are shared futexes: the crate atomic-wait always asks for private ones and has no timeout,
//! so it only wakes in private (one-process) regions. Every wait is timed: an untimed FUTEX_WAIT is restarted behind an
//! SA_RESTART handler and would never show a cancel (R16). Under loom and shuttle the kernel is one mutex and one
//! condition variable, with spurious wakes.

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Woken, perhaps for nothing: look at the word again.
    Woken,
    /// The word (or the interrupt word) did not hold the expected value.
    Changed,
    /// The time was up.
    TimedOut,
    /// A signal arrived.
    Interrupted,
}

/// Most words of one wait.
pub const MAX_WORDS: usize = 128;

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub use real::*;

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[allow(unsafe_code)]
mod real {
    use super::{Outcome, MAX_WORDS};
    use crate::clock;
    use crate::sync::{AtomicU32, AtomicU64};
    use core::marker::PhantomData;

    /// A word that can be slept on: 32 bits of shared memory.
    pub trait FutexWord {
        /// Address of the 32 bits.
        fn address(&self) -> *const AtomicU32;
    }

    impl FutexWord for AtomicU32 {
        fn address(&self) -> *const AtomicU32 {
            self
        }
    }

    impl FutexWord for AtomicU64 {
        // The low half: layout.rs asserts little-endian.
        fn address(&self) -> *const AtomicU32 {
            core::ptr::from_ref(self).cast()
        }
    }

    /// One word of a wait for several. As the kernel's `struct futex_waitv`.
    #[derive(Clone, Copy, Debug, Default)]
    #[repr(C)]
    pub struct Watch<'w> {
        value: u64,
        address: u64,
        flags: u32,
        reserved: u32,
        word: PhantomData<&'w AtomicU32>,
    }

    const SIZE_U32: u32 = 2;

    impl<'w> Watch<'w> {
        /// Sleep while `word` holds `expected`. `private`: all sleepers and wakers are this process.
        pub fn new(word: &'w impl FutexWord, expected: u32, private: bool) -> Self {
            let flags = SIZE_U32 | if private { libc::FUTEX_PRIVATE_FLAG as u32 } else { 0 };
            Self { value: u64::from(expected), address: word.address() as u64, flags, reserved: 0, word: PhantomData }
        }
    }

    fn outcome(rc: libc::c_long) -> Outcome {
        if rc >= 0 {
            return Outcome::Woken;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN) => Outcome::Changed,
            Some(libc::ETIMEDOUT) => Outcome::TimedOut,
            Some(libc::EINTR) => Outcome::Interrupted,
            // EFAULT and the like cannot happen for a mapped word; looking again is always allowed.
            _ => Outcome::Woken,
        }
    }

    /// Sleeps for at most `ns` while the word holds `expected`.
    pub fn wait(word: &impl FutexWord, expected: u32, ns: u64, private: bool) -> Outcome {
        let op = libc::FUTEX_WAIT | if private { libc::FUTEX_PRIVATE_FLAG } else { 0 };
        let ts = clock::timespec(ns);
        // SAFETY: the word is mapped for the call, `ts` lives on this stack, and FUTEX_WAIT writes nothing.
        outcome(unsafe { libc::syscall(libc::SYS_futex, word.address(), op, expected, &ts as *const libc::timespec) })
    }

    /// Sleeps until one of the words changes or `until` (ns of CLOCK_MONOTONIC) has come. Needs [`have_waitv`]; at most
    /// [`MAX_WORDS`] words, the rest is not watched.
    pub fn wait_any(watches: &[Watch<'_>], until: u64) -> Outcome {
        let ts = clock::timespec(until);
        let n = watches.len().min(MAX_WORDS);
        // SAFETY: `n` entries that live for the call; the words they name are mapped by the caller's references.
        outcome(unsafe {
            libc::syscall(
                libc::SYS_futex_waitv,
                watches.as_ptr(),
                n as libc::c_uint,
                0 as libc::c_uint,
                &ts as *const libc::timespec,
                libc::CLOCK_MONOTONIC,
            )
        })
    }

    /// Whether the kernel (5.16 and later, no seccomp filter in between) has FUTEX_WAITV. Asked once at attach.
    #[must_use]
    pub fn have_waitv() -> bool {
        let none: *const Watch<'_> = core::ptr::null();
        // SAFETY: no entries; a kernel that knows the call refuses with EINVAL before it looks at anything.
        let rc = unsafe { libc::syscall(libc::SYS_futex_waitv, none, 0, 0, none, libc::CLOCK_MONOTONIC) };
        rc >= 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
    }

    /// Wakes everyone who sleeps on the word (R9).
    pub fn wake_all(word: &impl FutexWord, private: bool) {
        if private {
            atomic_wait::wake_all(word.address());
            return;
        }
        // SAFETY: the word is mapped; FUTEX_WAKE does not even read it.
        unsafe { libc::syscall(libc::SYS_futex, word.address(), libc::FUTEX_WAKE, i32::MAX) };
    }
}

#[cfg(any(feature = "loom", feature = "shuttle"))]
pub use model::*;

#[cfg(any(feature = "loom", feature = "shuttle"))]
#[allow(clippy::unwrap_used)]
mod model {
    use super::Outcome;
    use crate::clock;
    use crate::sync::{mortal, AtomicU32, AtomicU64};
    #[cfg(feature = "loom")]
    use loom::{
        lazy_static,
        sync::{Condvar, Mutex},
    };
    #[cfg(all(feature = "shuttle", not(feature = "loom")))]
    use shuttle::{
        lazy_static,
        sync::{Condvar, Mutex},
    };

    lazy_static! {
        static ref KERNEL: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    }

    /// A word that can be slept on.
    pub trait FutexWord {
        /// The 32 bits now, as the kernel reads them under its lock.
        fn value(&self) -> u32;
    }

    impl FutexWord for AtomicU32 {
        fn value(&self) -> u32 {
            self.peek()
        }
    }

    impl FutexWord for AtomicU64 {
        fn value(&self) -> u32 {
            self.peek() as u32
        }
    }

    /// Sleeps until somebody wakes anyone, or [`pass_time`] reaches `until`.
    fn sleep(has_changed: impl Fn() -> bool, until: u64) -> Outcome {
        let guard = KERNEL.0.lock().unwrap();
        if has_changed() {
            return Outcome::Changed;
        }
        if clock::now() >= until {
            return Outcome::TimedOut;
        }
        drop(KERNEL.1.wait(guard).unwrap());
        if clock::now() >= until {
            Outcome::TimedOut
        } else {
            Outcome::Woken
        }
    }

    /// Sleeps while the word holds `expected`. Time passes by [`pass_time`] alone, so that a lost wake-up is a deadlock of
    /// the model.
    pub fn wait(word: &impl FutexWord, expected: u32, ns: u64, _private: bool) -> Outcome {
        mortal::step();
        sleep(|| word.value() != expected, clock::now().saturating_add(ns))
    }

    /// One word of a wait for several.
    #[derive(Clone, Copy, Default)]
    pub struct Watch<'w>(Option<(&'w dyn FutexWord, u32)>);

    impl<'w> Watch<'w> {
        /// Sleep while `word` holds `expected`.
        pub fn new(word: &'w impl FutexWord, expected: u32, _private: bool) -> Self {
            Self(Some((word, expected)))
        }
    }

    /// Sleeps until one of the words changes or `until` has come.
    pub fn wait_any(watches: &[Watch<'_>], until: u64) -> Outcome {
        mortal::step();
        sleep(|| watches.iter().filter_map(|w| w.0).any(|(word, expected)| word.value() != expected), until)
    }

    /// The model has it.
    #[must_use]
    pub fn have_waitv() -> bool {
        true
    }

    /// Wakes everyone: one condition variable for all words, so other sleepers see a spurious wake.
    pub fn wake_all(_word: &impl FutexWord, _private: bool) {
        mortal::step();
        let _guard = KERNEL.0.lock().unwrap();
        KERNEL.1.notify_all();
    }

    /// Lets so many ns pass: for sleepers too.
    pub fn pass_time(ns: u64) {
        let _guard = KERNEL.0.lock().unwrap();
        clock::set(clock::now().saturating_add(ns));
        KERNEL.1.notify_all();
    }
}
