//! `serve --replace`: kills the holder of the role and waits for its lock (R3). A holder is never bypassed.
#![allow(unsafe_code)]

use super::region::communicator_pid;
use super::Failure;
use shmuring::region::Region;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of the memory of a killed process.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills whoever holds the role of this region, and returns when the lock is free. `Ok(None)` if nobody held it.
pub(super) fn kill_holder(path: &Path, region: &Region) -> Result<Option<u32>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut killed = None;
    while region.liveness().role_held() {
        if killed.is_none() {
            killed = kill(path, communicator_pid(region))?;
        }
        if Instant::now() > deadline {
            return Err(format!("{}: the role is still held; the kernel has not let go of it", path.display()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(killed)
}

/// Kills process `pid` if it has the region open: the pid in the header is a message, not a proof.
fn kill(path: &Path, pid: u32) -> Result<Option<u32>, Failure> {
    let Ok(raw) = i32::try_from(pid) else { return Ok(None) };
    // SAFETY: a system call on numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, raw, 0) };
    let Ok(fd) = i32::try_from(fd) else { return Ok(None) };
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: a descriptor that the kernel has just given us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    // The pidfd pins the process, so what /proc says of the pid now is about the process that will get the signal.
    if !has_open(pid, path) {
        return Ok(None);
    }
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a valid pidfd, and no information attached.
    let rc = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, std::os::fd::AsRawFd::as_raw_fd(&pidfd), libc::SIGKILL, no_info, 0)
    };
    if rc == 0 {
        return Ok(Some(pid));
    }
    let e = std::io::Error::last_os_error();
    Err(format!("{}: cannot kill the communicator (pid {pid}): {e}", path.display()).into())
}

/// Whether the process has the file open.
fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(wanted) = std::fs::metadata(path) else { return false };
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .any(|entry| std::fs::metadata(entry.path()).is_ok_and(|m| m.dev() == wanted.dev() && m.ino() == wanted.ino()))
}
