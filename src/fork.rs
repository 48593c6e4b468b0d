//! Tells a forked child from its parent without a system call (R17).
//!
//! A page that the kernel hands zeroed to every forked child holds the number of slots of the handle: a slot's index
//! must be below it, so the check of the range, which the hot paths make anyway, tells a child too. Where the kernel
//! does not do that (before 4.14, or a sandbox) the number is 0 everywhere, and the C library counts the forks that
//! it makes: a child that was made by a bare clone(2) goes unnoticed there.
#![allow(unsafe_code)]

use crate::sync::{Ordering, Tally};
use core::ptr::NonNull;

/// Bytes of the mapping: the kernel rounds up to its pages.
const LEN: usize = 4096;
/// A count of forks that none is ever equal to.
const NEVER: u64 = u64::MAX;
/// The limit of a guard without a page.
static NO_PAGE: Tally = Tally::new(0);
/// How often this process and its ancestors were forked since they asked to have it counted.
static FORKS: Tally = Tally::new(0);

/// Belongs to the process that made it.
#[derive(Debug)]
pub struct ForkGuard {
    /// The limit: on a page of its own, or [`NO_PAGE`].
    at: NonNull<u64>,
    /// Without a page: [`FORKS`] in the process that made it.
    forks: Option<u64>,
    pid: u32,
}

// SAFETY: the page is private memory that is only read between `new` and `drop`.
unsafe impl Send for ForkGuard {}

impl ForkGuard {
    /// A guard of this process, whose limit is `limit`, at least 1.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        match wiped_page(limit) {
            Some(at) => Self { at, forks: None, pid: std::process::id() },
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
        let forks = if forks == NEVER - 1 { NEVER } else { forks };
        Self { at: NonNull::from(&NO_PAGE).cast(), forks: Some(forks), pid: std::process::id() }
    }

    /// The process that made it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The limit in the process that made it, 0 in a child; also 0 where only [`ForkGuard::is_home`] can tell.
    #[inline(always)]
    pub(crate) fn limit(&self) -> u64 {
        // SAFETY: mapped until drop, or a static; volatile, since a fork changes it behind the compiler's back.
        unsafe { self.at.as_ptr().read_volatile() }
    }

    /// Where the limit is: readable as long as the guard lives.
    pub(crate) fn limit_at(&self) -> *const u64 {
        self.at.as_ptr()
    }

    /// Whether this is the process that made it.
    #[must_use]
    #[inline(always)]
    pub fn is_home(&self) -> bool {
        self.limit() != 0 || self.is_home_by_count()
    }

    #[cold]
    fn is_home_by_count(&self) -> bool {
        self.forks.is_some_and(|forks| FORKS.load(Ordering::Relaxed) == forks)
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if self.forks.is_none() {
            unmap(self.at);
        }
    }
}

/// Runs in each forked child, before fork(3) returns there.
extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

fn wiped_page(limit: u64) -> Option<NonNull<u64>> {
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
    unsafe { page.as_ptr().write_volatile(limit) };
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
        for (guard, limit) in [(ForkGuard::new(7), 7), (ForkGuard::counting(), 0)] {
            assert!(guard.is_home());
            assert_eq!(guard.limit(), limit);
            assert!(child_says(|| guard.limit() == 0), "{guard:?}");
            assert!(!child_says(|| guard.is_home()), "{guard:?}");
            assert!(child_says(|| ForkGuard::counting().is_home()), "a child's own");
            assert!(guard.is_home());
        }
    }
}
