//! Who lives, proved by locks that the kernel drops at death (R3).
//!
//! # What
//! Every right that outlives a call is an open-file-description write lock on bytes of one file: the communicator's
//! role on byte [`ROLE_BYTE`], the server's life on [`LIFE_BYTE`], an owner's slots on [`OWNER_BYTE`] + slot. Whoever
//! holds the lock lives, even if it is stopped; whoever does not is gone: the kernel drops the lock only after the last
//! thread of the holder has left its memory, so a byte of a dead process can no longer arrive. Process ids, start times
//! and heartbeats prove neither (a zombie has a pid, a stopped process has no heartbeat) and serve messages alone.
//!
//! # Which file
//! - A named region or a memfd: the region file itself.
//! - Private memory, for threads of one process: a memfd of the region's own. Each handle has its own description, so a
//!   handle that is dropped releases its lock and one that is leaked holds it to the end of the process.
//! - Memory adopted from an embedder: a lock file beside it, which the embedder names. Without one the only proof of a
//!   death is a waitpid that has reaped, and only the parent can have that. The region remembers which file it was, so
//!   that a lock file deleted and made anew is refused, and not taken for proof that everybody is dead.
//!
//! # Invariants
//! A [`LockFile`] is a description that no other handle shares: opened anew, by path or through /proc/self/fd (so /proc
//! must be mounted), never duplicated and closed on exec. A forked child does share it: two owners would then both be
//! "granted" the lock, so every call in a child is refused. The lock lives on until the child has closed it too,
//! therefore a holder never forks without exec, or the child drops the handle first thing.
//!
//! # Where it runs
//! In backends too: system calls only, no allocation after opening, and no wait without an end.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The byte whose lock is the communicator's role.
pub const ROLE_BYTE: u64 = 0;
/// The byte whose lock is the server's life.
pub const LIFE_BYTE: u64 = 1;
/// The byte of slot 0; the owner of slots [a, b) holds bytes [`OWNER_BYTE`] + a to [`OWNER_BYTE`] + b.
pub const OWNER_BYTE: u64 = 16;

/// How long [`LockFile::lock_within`] sleeps between two tries.
const POLL: Duration = Duration::from_millis(1);

/// Tells who lives. Answered by the kernel; where the system call fails the answer is "held", since to bypass the
/// living is worse than to wait.
pub trait Liveness: Sync {
    /// Whether a communicator holds the role (asked by a cancel that meets a Copying, R6).
    fn role_held(&self) -> bool;

    /// Whether anyone owns any of these `count` slots; true for none at all, since that is no question about slots.
    fn owner_held(&self, first_slot: u32, count: u32) -> bool;
}

/// A private open file description of a lock file. Dropping it gives up its locks.
#[derive(Debug)]
pub struct LockFile {
    fd: OwnedFd,
    /// Process that opened it; see the module's invariants.
    pid: u32,
}

impl LockFile {
    /// Opens the lock file at `path`, which must exist.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::of(open_file(path, true)?))
    }

    /// Opens the file behind `fd` once more, whether it still has a name or not.
    pub fn reopen(fd: BorrowedFd<'_>) -> Result<Self> {
        Self::reopen_as(fd, true)
    }

    /// As [`LockFile::reopen`]; not `writable`, it can ask about locks and take none.
    pub(crate) fn reopen_as(fd: BorrowedFd<'_>, writable: bool) -> Result<Self> {
        Ok(Self::of(reopen_file(fd, writable)?))
    }

    /// Another description of the same file: for a new holder.
    pub fn another(&self) -> Result<Self> {
        Self::reopen(self.fd.as_fd())
    }

    /// Takes over a file that the caller has just opened and shares with nobody.
    fn of(file: File) -> Self {
        Self { fd: file.into(), pid: std::process::id() }
    }

    /// Tries to lock `len` bytes from `start` on, exclusively; false if another description holds any of them.
    ///
    /// What this description holds already is granted again.
    pub fn try_lock(&self, start: u64, len: u64) -> Result<bool> {
        match self.call(libc::F_OFD_SETLK, libc::F_WRLCK, start, len) {
            Ok(_) => Ok(true),
            Err(Error::Os(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives up these bytes; no error if they were not locked.
    pub fn unlock(&self, start: u64, len: u64) -> Result<()> {
        self.call(libc::F_OFD_SETLK, libc::F_UNLCK, start, len).map(|_| ())
    }

    /// Whether another description, of this process or another, holds any of these bytes.
    pub fn is_locked_by_other(&self, start: u64, len: u64) -> Result<bool> {
        let found = self.call(libc::F_OFD_GETLK, libc::F_WRLCK, start, len)?;
        Ok(found != libc::F_UNLCK)
    }

    /// As [`LockFile::try_lock`], tried every millisecond until `within` has passed; false if it was held all the time.
    ///
    /// Signals do not end it: whoever must answer them asks for a short time, in a loop.
    pub fn lock_within(&self, start: u64, len: u64, within: Duration) -> Result<bool> {
        let begin = Instant::now();
        loop {
            if self.try_lock(start, len)? {
                return Ok(true);
            }
            let left = within.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    /// One fcntl; gives the lock type that the kernel answered.
    fn call(&self, command: libc::c_int, kind: libc::c_int, start: u64, len: u64) -> Result<libc::c_int> {
        if std::process::id() != self.pid {
            return Err(Error::WrongProcess);
        }
        let invalid = Error::Os(libc::EINVAL);
        let l_start = i64::try_from(start).map_err(|_| invalid)?;
        let l_len = i64::try_from(len).map_err(|_| invalid)?;
        // To fcntl a length of 0 means "everything behind start": never what a caller here means.
        if l_len == 0 || l_start.checked_add(l_len).is_none() {
            return Err(invalid);
        }
        let mut lock = libc::flock {
            // Three constants of one digit.
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start,
            l_len,
            // Demanded by the kernel for locks of descriptions.
            l_pid: 0,
        };
        // SAFETY: the descriptor is open while self lives; `lock` is a whole flock that outlives the call.
        if unsafe { libc::fcntl(self.fd.as_raw_fd(), command, &mut lock) } == -1 {
            return Err(Error::last_os());
        }
        Ok(libc::c_int::from(lock.l_type))
    }
}

/// For asking the system which file it is.
impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Never sees the locks of its own description: ask through one that holds none.
impl Liveness for LockFile {
    fn role_held(&self) -> bool {
        self.is_locked_by_other(ROLE_BYTE, 1).unwrap_or(true)
    }

    fn owner_held(&self, first_slot: u32, count: u32) -> bool {
        self.is_locked_by_other(OWNER_BYTE + u64::from(first_slot), u64::from(count)).unwrap_or(true)
    }
}

/// Opens the file behind `fd` once more. With its own call of the kernel: a backend attaches through here, and std's
/// formatting and opening may panic.
pub(crate) fn reopen_file(fd: BorrowedFd<'_>, writable: bool) -> Result<File> {
    let access = if writable { libc::O_RDWR } else { libc::O_RDONLY };
    let flags = access | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let link = link_of(fd.as_raw_fd().unsigned_abs());
    // SAFETY: a C string that outlives the call.
    let opened = unsafe { libc::open(link.as_ptr().cast(), flags) };
    if opened == -1 {
        return Err(Error::last_os());
    }
    // SAFETY: the kernel has just given us this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) }.into())
}

/// The path of a descriptor of this process, as a C string.
fn link_of(fd: u32) -> [u8; 32] {
    let mut digits = [0; 10];
    let mut rest = fd;
    let mut n = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        n += 1;
        if rest == 0 {
            break;
        }
    }
    let number = digits.iter().skip(digits.len() - n);
    let mut path = [0; 32];
    for (to, from) in path.iter_mut().zip(b"/proc/self/fd/".iter().chain(number)) {
        *to = *from;
    }
    path
}

/// Opens an existing file, closed on exec; a FIFO or terminal put in its place does not block or become ours.
pub(crate) fn open_file(path: &Path, writable: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|e| Error::from_io(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_of_a_descriptor_is_its_path() {
        for fd in [0, 3, 10, 99, 1024, i32::MAX.unsigned_abs(), u32::MAX] {
            let path = format!("/proc/self/fd/{fd}");
            let link = link_of(fd);
            let text: Vec<u8> = link.iter().copied().take_while(|b| *b != 0).collect();
            assert_eq!(text, path.as_bytes());
            assert!(link.len() > text.len());
        }
    }
}
