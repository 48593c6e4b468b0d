//! Tells a forked child from its parent without a system call (R17).
//!
//! A page that the kernel hands zeroed to every forked child holds a cookie: a load of it is all that the hot paths of a
//! handle pay. Where the kernel cannot do that (before 4.14) each question is a getpid.
#![allow(unsafe_code)]

use core::ptr::NonNull;

const COOKIE: u8 = 1;
/// What is looked at where the kernel wipes no pages: never the cookie.
static NO_COOKIE: u8 = 0;
/// Bytes of the mapping: the kernel rounds up to its pages.
const LEN: usize = 4096;

/// Belongs to the process that made it.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    /// The page, or [`NO_COOKIE`]: always there to be read.
    page: NonNull<u8>,
    is_page: bool,
    pid: u32,
}

// SAFETY: the page is private memory that is only read between `new` and `drop`.
unsafe impl Send for ForkGuard {}

impl ForkGuard {
    /// A guard of this process.
    pub(crate) fn new() -> Self {
        let page = wiped_page();
        Self { page: page.unwrap_or(NonNull::from(&NO_COOKIE)), is_page: page.is_some(), pid: std::process::id() }
    }

    /// The process that made it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether this is the process that made it.
    #[inline]
    pub(crate) fn is_home(&self) -> bool {
        // SAFETY: mapped until drop, or a static; volatile, since a fork changes it behind the compiler's back.
        unsafe { self.page.as_ptr().read_volatile() == COOKIE || self.ask() }
    }

    /// Without the cookie: a child, or a kernel that wipes no pages.
    #[cold]
    fn ask(&self) -> bool {
        !self.is_page && std::process::id() == self.pid
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if self.is_page {
            unmap(self.page);
        }
    }
}

fn wiped_page() -> Option<NonNull<u8>> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing that exists.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), LEN, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return None;
    }
    let page = NonNull::new(base.cast::<u8>())?;
    // SAFETY: the mapping just made, whole.
    if unsafe { libc::madvise(base, LEN, libc::MADV_WIPEONFORK) } != 0 {
        unmap(page);
        return None;
    }
    // SAFETY: mapped writable, and ours alone.
    unsafe { page.as_ptr().write_volatile(COOKIE) };
    Some(page)
}

fn unmap(page: NonNull<u8>) {
    // SAFETY: made by `wiped_page` with this length; nobody reads it any more.
    unsafe { libc::munmap(page.as_ptr().cast(), LEN) };
}
