//! An eventfd for a communicator that lives in an epoll loop (R18).
//!
//! The shared doorbell is a futex, which epoll cannot watch. A bridge is local to the communicator: a thread of its own
//! sleeps on the doorbell and makes an eventfd readable. The eventfd is never shared with backends: it would die with its
//! communicator, and they would ring into nothing.
//!
//! # Protocol
//! The loop reaps until nothing comes, then [`Bridge::arm`]s; the thread parks once for each arming and makes the eventfd
//! readable when it wakes, at least once a second so that the loop can audit. Between wake-up and arming nobody parks,
//! so backends make no system call while the loop is busy.
#![allow(unsafe_code)]

use crate::doorbell;
use crate::error::{Error, Result};
use crate::futex;
use crate::parts::Parts;
use crate::sync::{AtomicU32, Ordering};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const IDLE: u32 = 0;
const ARMED: u32 = 1;
const STOPPED: u32 = 2;

/// A doorbell that epoll can watch. While one runs, do not park by other means.
#[derive(Debug)]
pub struct Bridge {
    fd: OwnedFd,
    /// A futex of this process: the loop's word to the thread.
    order: AtomicU32,
}

impl Bridge {
    /// Makes the eventfd (non-blocking, closed on exec). Not armed yet.
    pub fn new() -> Result<Self> {
        // SAFETY: a system call on numbers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os());
        }
        // SAFETY: a descriptor that the kernel has just given to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, order: AtomicU32::new(IDLE) })
    }

    /// Sleeps on the doorbell whenever armed, until [`Bridge::stop`]. Call it on a thread of its own.
    pub fn run(&self, parts: &Parts<'_>) {
        loop {
            // Acquire: pairs with the Release of `give`; what the loop did before it armed is done.
            match self.order.compare_exchange(ARMED, IDLE, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    doorbell::park(parts, doorbell::LONGEST_SLEEP);
                    self.signal();
                }
                Err(STOPPED) => return,
                Err(_) => {
                    futex::wait(&self.order, IDLE, doorbell::LONGEST_SLEEP, true);
                }
            }
        }
    }

    /// Asks for the next wake-up. The loop calls it when it has reaped everything; what came since makes the eventfd
    /// readable at once.
    pub fn arm(&self) {
        // Release: see `run`. A stop that came first stands.
        if self.order.compare_exchange(IDLE, ARMED, Ordering::Release, Ordering::Relaxed).is_ok() {
            futex::wake_all(&self.order, true);
        }
    }

    /// Ends [`Bridge::run`], at the latest when its sleep does (a second), and wakes the loop a last time.
    pub fn stop(&self) {
        self.order.store(STOPPED, Ordering::Release);
        futex::wake_all(&self.order, true);
        self.signal();
    }

    /// Takes a wake-up back, so that the eventfd is readable again only after the next. Never blocks.
    pub fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: a buffer of the eight bytes that an eventfd gives. EAGAIN: there was nothing to take.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    fn signal(&self) {
        let one = 1u64;
        // SAFETY: eight bytes, as an eventfd takes them. It fails only when the count is full, and then it is readable.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl AsFd for Bridge {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
