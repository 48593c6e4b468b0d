//! Which process holds a lock: for messages, and for `serve --replace`.
//!
//! Locks prove that somebody lives (R3), not who. The kernel lists in /proc/PID/fdinfo the locks that a process has by each
//! of its open files: so a holder is found by the pid that it has here. What a process wrote of its own pid may be old, and
//! in another pid namespace it is somebody else's.

use std::fs::{self, File, Metadata};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use shmuring::liveness::ROLE_BYTE;
use shmuring::region::Region;

/// What is said of a holder that [`of_role`] or [`of_file`] does not find.
pub const NOT_HERE: &str =
    "its process is not in /proc here: it is ending, or in another pid namespace, or another user's";

/// A kind of lock.
#[derive(Clone, Copy, Debug)]
enum Lock {
    /// flock(2) on the whole file.
    Whole,
    /// An open-file-description lock on this byte.
    Byte(u64),
}

/// The process that holds the role of `region`; `None` if none does, or it cannot be seen from here. Looks at every process:
/// for slow paths.
#[must_use]
pub fn of_role(region: &Region) -> Option<u32> {
    find(&metadata(region.lock_fd())?, Lock::Byte(ROLE_BYTE))
}

/// The process that has locked `file` whole by flock(2); as [`of_role`].
#[must_use]
pub fn of_file(file: &Metadata) -> Option<u32> {
    find(file, Lock::Whole)
}

/// Whether process `pid` holds the role of `region`.
#[must_use]
pub fn has_role(pid: u32, region: &Region) -> bool {
    metadata(region.lock_fd()).is_some_and(|file| holds(pid, &file, Lock::Byte(ROLE_BYTE)))
}

/// Whether process `pid` has locked `file` whole, and has `region` open.
#[must_use]
pub fn has_file_and_region(pid: u32, file: &Metadata, region: &Region) -> bool {
    let Some(region) = region.fd().and_then(metadata) else { return false };
    holds(pid, file, Lock::Whole) && numbers(pid, &region).next().is_some()
}

fn find(file: &Metadata, lock: Lock) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| holds(*pid, file, lock))
}

fn holds(pid: u32, file: &Metadata, lock: Lock) -> bool {
    numbers(pid, file).any(|fd| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        info.lines().any(|line| is_lock(line, lock))
    })
}

/// Numbers of the descriptors by which the process has the file open.
fn numbers(pid: u32, file: &Metadata) -> impl Iterator<Item = String> {
    let (dev, ino) = (file.dev(), file.ino());
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok();
    let same = move |entry: &fs::DirEntry| fs::metadata(entry.path()).is_ok_and(|m| (m.dev(), m.ino()) == (dev, ino));
    entries.into_iter().flatten().flatten().filter(same).filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether a line of fdinfo, as `lock: 1: OFDLCK ADVISORY  WRITE -1 00:1b:16387 0 0`, is such a lock.
fn is_lock(line: &str, lock: Lock) -> bool {
    let mut words = line.split_whitespace();
    if words.next() != Some("lock:") {
        return false;
    }
    let kind = words.nth(1);
    match lock {
        Lock::Whole => kind == Some("FLOCK"),
        Lock::Byte(byte) => {
            let mut range = words.skip(4);
            let first = range.next().and_then(|n| n.parse::<u64>().ok());
            // The end is a number, or EOF.
            let last = range.next().map(|n| n.parse().unwrap_or(u64::MAX));
            kind == Some("OFDLCK") && first.zip(last).is_some_and(|(first, last)| (first..=last).contains(&byte))
        }
    }
}

fn metadata(fd: BorrowedFd<'_>) -> Option<Metadata> {
    File::from(fd.try_clone_to_owned().ok()?).metadata().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmuring::liveness::{LIFE_BYTE, OWNER_BYTE};
    use shmuring::region::Options;

    #[test]
    fn lines_of_fdinfo_are_read_as_the_kernel_writes_them() {
        let role = "lock:\t1: OFDLCK ADVISORY  WRITE -1 00:1b:16387 0 0";
        let slots = "lock:\t2: OFDLCK ADVISORY  WRITE -1 00:1b:16387 16 19";
        let all = "lock:\t1: OFDLCK ADVISORY  WRITE -1 00:1b:16387 0 EOF";
        let whole = "lock:\t1: FLOCK  ADVISORY  WRITE 8707 fe:00:10018861 0 EOF";
        let byte = |line, byte| is_lock(line, Lock::Byte(byte));
        assert!(byte(role, 0) && !byte(role, 1) && byte(all, 5) && !byte(whole, 0));
        assert_eq!([15, 16, 19, 20].map(|b| byte(slots, b)), [false, true, true, false]);
        assert!(is_lock(whole, Lock::Whole) && !is_lock(role, Lock::Whole));
        for nonsense in ["", "lock:", "pos:\t0", "lock:\t1: OFDLCK", "lock:\t1: OFDLCK ADVISORY WRITE -1 x y z"] {
            assert!(!byte(nonsense, 0) && !is_lock(nonsense, Lock::Whole), "{nonsense}");
        }
    }

    #[test]
    fn a_holder_is_found_by_its_lock_and_nobody_where_nobody_holds_it() {
        let region = Region::create_memfd(&Options::new(8)).unwrap();
        let me = std::process::id();
        assert_eq!(of_role(&region), None);
        let lock = region.lock_file().unwrap();
        assert!(lock.try_lock(LIFE_BYTE, 1).unwrap() && lock.try_lock(OWNER_BYTE, 4).unwrap());
        assert!(of_role(&region).is_none() && !has_role(me, &region));
        assert!(lock.try_lock(ROLE_BYTE, 1).unwrap());
        assert!(of_role(&region) == Some(me) && has_role(me, &region));
        // Through a region of the same sizes that is another.
        let other = Region::create_memfd(&Options::new(8)).unwrap();
        assert_eq!(of_role(&other), None);
        let file = tempfile::tempfile().unwrap();
        let seen = file.metadata().unwrap();
        assert_eq!(of_file(&seen), None);
        file.try_lock().unwrap();
        assert!(of_file(&seen) == Some(me) && has_file_and_region(me, &seen, &region));
    }
}
