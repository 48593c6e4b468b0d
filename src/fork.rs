//! Tells a forked child from its parent without a system call (R17).
//!
//! A page that the kernel hands zeroed to every forked child holds a cookie: a load of it is all that the hot paths of a
//! handle pay. Where the kernel does not do that (before 4.14, or a sandbox) the C library counts the forks that it makes:
//! a child that was made by a bare clone(2) goes unnoticed there.
#![allow(unsafe_code)]

use crate::sync::{Ordering, Tally};
use core::ptr::NonNull;

/// Bytes of the mapping: the kernel rounds up to its pages.
const LEN: usize = 4096;
const COOKIE: u64 = 1;
/// What nothing that a guard looks at ever holds.
const NEVER: u64 = u64::MAX;
/// How often this process and its ancestors were forked since they asked to have it counted.
static FORKS: Tally = Tally::new(0);

/// Belongs to the process that made it.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    /// A page of its own, or [`FORKS`]; and what is there in the process that made it.
    at: NonNull<u64>,
    cookie: u64,
    is_page: bool,
    pid: u32,
}

// SAFETY: the page is private memory that is only read between `new` and `drop`.
unsafe impl Send for ForkGuard {}

impl ForkGuard {
    /// A guard of this process.
    pub(crate) fn new() -> Self {
        match wiped_page() {
            Some(at) => Self { at, cookie: COOKIE, is_page: true, pid: std::process::id() },
            None => Self::counting(),
        }
    }

    /// A guard that counts forks. If the C library has no memory for that, the guard is at home nowhere.
    fn counting() -> Self {
        static ASKED: Tally = Tally::new(0);
        // Not std's Once, which has a panic. Two threads may both ask: a fork then counts twice, and is told all the same.
        if ASKED.load(Ordering::Relaxed) == 0 {
            // SAFETY: the handler does nothing but an atomic addition.
            if unsafe { libc::pthread_atfork(None, None, Some(forked)) } != 0 {
                FORKS.store(NEVER - 1, Ordering::Relaxed);
            }
            ASKED.store(1, Ordering::Relaxed);
        }
        // Relaxed: it changes in a child alone, before that runs anything else.
        let forks = FORKS.load(Ordering::Relaxed);
        let cookie = if forks == NEVER - 1 { NEVER } else { forks };
        Self { at: NonNull::from(&FORKS).cast(), cookie, is_page: false, pid: std::process::id() }
    }

    /// The process that made it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether this is the process that made it.
    #[inline(always)]
    pub(crate) fn is_home(&self) -> bool {
        // SAFETY: mapped until drop, or a static; volatile, since a fork changes it behind the compiler's back.
        unsafe { self.at.as_ptr().read_volatile() == self.cookie }
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if self.is_page {
            unmap(self.at);
        }
    }
}

/// Runs in each forked child, before fork(3) returns there.
extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

fn wiped_page() -> Option<NonNull<u64>> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing that exists.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), LEN, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return None;
    }
    let page = NonNull::new(base.cast::<u64>())?;
    // SAFETY: the mapping just made, whole.
    if unsafe { libc::madvise(base, LEN, libc::MADV_WIPEONFORK) } != 0 {
        unmap(page);
        return None;
    }
    // SAFETY: mapped writable, and ours alone.
    unsafe { page.as_ptr().write_volatile(COOKIE) };
    Some(page)
}

fn unmap(page: NonNull<u64>) {
    // SAFETY: made by `wiped_page` with this length; nobody reads it any more.
    unsafe { libc::munmap(page.as_ptr().cast(), LEN) };
}

#[cfg(all(test, not(any(feature = "loom", feature = "shuttle"))))]
mod tests {
    use super::*;

    /// What a forked child says.
    fn child_says(f: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child does nothing but call `f`, which takes no lock, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let answer = i32::from(f());
            // SAFETY: ends the child without running what the parent has set up.
            unsafe { libc::_exit(answer) };
        }
        let mut status = 0;
        // SAFETY: a child of ours, and a place for its status.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        assert!(pid > 0 && waited == pid && libc::WIFEXITED(status), "child ended with {status:#x}");
        libc::WEXITSTATUS(status) == 1
    }

    #[test]
    fn a_guard_is_at_home_in_its_process_alone_with_a_page_and_without() {
        for guard in [ForkGuard::new(), ForkGuard::counting()] {
            assert!(guard.is_home());
            assert!(!child_says(|| guard.is_home()), "{guard:?}");
            assert!(child_says(|| ForkGuard::counting().is_home()), "a child's own");
            assert!(guard.is_home());
        }
    }
}
