//! `serve --replace`: kills the holder of the role, or of the store before it has the role, and waits for its lock (R3). A
//! holder is never bypassed.
#![allow(unsafe_code)]

use super::failure::Kind;
use super::Failure;
use crate::holder;
use crate::service::spec::ServiceSpec;
use shmuring::region::Region;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of the memory of a killed process.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a holder may be looked for that nobody has killed: it may be ending, or have just begun.
const SEARCH: Duration = Duration::from_secs(1);

/// Kills whoever holds the role of this region, and returns when the lock is free. `Ok(None)` if nobody held it.
pub(super) fn kill_holder(path: &Path, region: &Region) -> Result<Option<u32>, Failure> {
    let begin = Instant::now();
    let mut killed = None;
    while region.liveness().role_held() {
        if killed.is_none() {
            if let Some(pid) = holder::of_role(region) {
                killed = kill(path, pid, || holder::has_role(pid, region))?;
            } else if begin.elapsed() > SEARCH {
                let why = holder::NOT_HERE;
                return Err(
                    Kind::Refused.because(format!("{}: cannot replace its communicator: {why}", path.display()))
                );
            }
        }
        wait(path, "role", begin)?;
    }
    Ok(killed)
}

/// The same for a communicator that hangs before it has the role, and holds its store: one that has this region open.
pub(super) fn kill_holder_of_store(
    path: &Path,
    region: &Region,
    service: &ServiceSpec,
) -> Result<Option<u32>, Failure> {
    let ServiceSpec::Store(dir) = service else { return Ok(None) };
    let lock = crate::service::store::lock_path(dir);
    let Ok(marker) = lock.metadata() else { return Ok(None) };
    let begin = Instant::now();
    let mut killed = None;
    loop {
        match holder::of_file(&marker) {
            Some(pid) if killed != Some(pid) => {
                let is_ours = || holder::has_file_and_region(pid, &marker, region);
                if !is_ours() {
                    // Another region's: opening the store says so.
                    break;
                }
                killed = kill(path, pid, is_ours)?.or(killed);
            }
            // A process that ends is gone from /proc a little before its locks are.
            None if killed.is_none() || is_free(&lock) => break,
            _ => {}
        }
        wait(path, "store", begin)?;
    }
    Ok(killed)
}

/// Whether nobody has locked the file.
fn is_free(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// A moment, unless it has been too long.
fn wait(path: &Path, what: &str, begin: Instant) -> Result<(), Failure> {
    if begin.elapsed() > PATIENCE {
        let why = format!("{}: the {what} is still held; the kernel has not let go of it", path.display());
        return Err(Kind::Refused.because(why));
    }
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}

/// Kills process `pid` if it is the holder.
fn kill(path: &Path, pid: u32, is_holder: impl Fn() -> bool) -> Result<Option<u32>, Failure> {
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
    if !is_holder() {
        return Ok(None);
    }
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a valid pidfd, and no information attached.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, no_info, 0) };
    if rc == 0 {
        return Ok(Some(pid));
    }
    let e = std::io::Error::last_os_error();
    Err(format!("{}: cannot kill the communicator (pid {pid}): {e}", path.display()).into())
}
