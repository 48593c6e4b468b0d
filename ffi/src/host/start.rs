//! Starting and stopping a host from C.

use core::ffi::c_int;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use shmuring::error::Error;
use shmuring::fork::ForkGuard;
use shmuring::memory::Room;

use super::config::{self, ApiHostConfig};
use super::log::Log;
use super::place::{bug, failure, report, Failure};
use super::record::ApiLogRecord;
use super::run::{run, Serving, Shared};
use super::signals::AllBlocked;
use crate::api::ApiError;
use crate::guard::guard;

const PANICKED: c_int = -libc::ENOTRECOVERABLE;

/// A running communicator with its threads.
pub struct HostHandle {
    shared: Arc<Shared>,
    log: Arc<Log>,
    thread: JoinHandle<()>,
    serving: Serving,
    home: ForkGuard,
}

/// Starts a host on threads of its own, and waits until it serves.
fn start(config: config::Config) -> Result<HostHandle, Failure> {
    let log = Arc::new(Log::new(config.log).map_err(|e| (-e.errno(), format!("no eventfd: {e}").into()))?);
    let shared = Arc::new(Shared::new());
    let thread = {
        let (log, shared) = (log.clone(), shared.clone());
        // Its thread inherits the mask, and hands it on to all that it starts.
        let _blocked = AllBlocked::here();
        let builder = std::thread::Builder::new().name("shmuring-host".into());
        let started = builder.spawn(move || run(config, &log, &shared));
        started.map_err(|e| (-e.raw_os_error().unwrap_or(libc::EAGAIN), format!("no thread: {e}").into()))?
    };
    match shared.wait_for_start() {
        Ok(serving) => Ok(HostHandle { shared, log, thread, serving, home: ForkGuard::new(1) }),
        Err(e) => {
            // It may have served for a moment; then it waits for this.
            let _ = shared.stop(Duration::ZERO);
            let _ = thread.join();
            log.close();
            Err(e)
        }
    }
}

/// Runs `f` on the handle; gives what it gives, or the negative errno.
fn enter(host: *const HostHandle, f: impl FnOnce(&HostHandle) -> c_int) -> c_int {
    // SAFETY: null, or a handle that lives, by the promise of whoever called from C.
    let Some(host) = (unsafe { host.as_ref() }) else { return -Error::BadMemory.errno() };
    if !host.home.is_home() {
        return -Error::WrongProcess.errno();
    }
    guard(PANICKED, || f(host))
}

/// Starts the communicator.
///
/// # Safety
/// `config` is null or a configuration of the size that it says, whose pointers are null or what the header says;
/// `out` and `error` are null or may be written.
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_start(
    config: *const ApiHostConfig,
    out: *mut *mut HostHandle,
    error: *mut ApiError,
) -> c_int {
    let begin = || {
        if out.is_null() {
            return Err((-Error::BadMemory.errno(), "there is no place for the handle".into()));
        }
        let room = Room::new().map_err(|e| failure(e, format_args!("{e}")))?;
        // SAFETY: the caller's promise.
        let host = start(unsafe { config::read(config) }?)?;
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(Box::into_raw(room.put(host))) };
        Ok(0)
    };
    // SAFETY: the caller's promise.
    guard(Err(bug()), begin).unwrap_or_else(|failure| unsafe { report(error, &failure) })
}

/// Asks for the end and waits for it.
///
/// # Safety
/// `host` is null or a handle; `error` is null or may be written.
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_stop(host: *mut HostHandle, timeout_ms: u64, error: *mut ApiError) -> c_int {
    enter(host, |host| {
        let failure = match host.shared.stop(Duration::from_millis(timeout_ms)) {
            Some(Ok(unanswered)) => return c_int::try_from(unanswered).unwrap_or(c_int::MAX),
            Some(Err(failure)) => failure,
            None => (-libc::ETIMEDOUT, "the host has not ended yet".into()),
        };
        // SAFETY: the caller's promise.
        unsafe { report(error, &failure) }
    })
}

/// Frees the handle of a host that has ended.
///
/// # Safety
/// `host` is null or a handle, which nobody uses any more.
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_free(host: *mut HostHandle) -> c_int {
    let ended = enter(host, |host| if host.shared.has_ended() { 0 } else { -libc::EBUSY });
    if ended != 0 {
        return ended;
    }
    guard(PANICKED, || {
        // SAFETY: made by `shmuring_host_start`, and the caller's promise.
        let host = unsafe { Box::from_raw(host) };
        // It has ended, or is about to: the end is the last thing that it says.
        let _ = host.thread.join();
        // Threads that do not end may still have something to say, and `user` is the embedder's again.
        host.log.close();
        0
    })
}

/// Whether it serves.
///
/// # Safety
/// As of [`shmuring_host_stop`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_is_running(host: *const HostHandle) -> c_int {
    enter(host, |host| c_int::from(host.shared.is_running()))
}

/// Number of this term of the role.
///
/// # Safety
/// As of [`shmuring_host_stop`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_epoch(host: *const HostHandle) -> u32 {
    // SAFETY: null, or a handle that lives, by the caller's promise.
    unsafe { host.as_ref() }.map_or(0, |host| host.serving.epoch)
}

/// Requests that a dead communicator had claimed.
///
/// # Safety
/// As of [`shmuring_host_stop`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_inherited(host: *const HostHandle) -> u64 {
    // SAFETY: null, or a handle that lives, by the caller's promise.
    unsafe { host.as_ref() }.map_or(0, |host| host.serving.inherited as u64)
}

/// Tells what the server of a shard has ingested.
///
/// # Safety
/// As of [`shmuring_host_stop`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_feedback(host: *const HostHandle, shard: u32, lsn: u64) -> c_int {
    enter(host, |host| match host.serving.feedback.tell(shard as usize, lsn) {
        true => 0,
        false => -Error::BadRequest.errno(),
    })
}

/// Takes a line out of the log.
///
/// # Safety
/// As of [`shmuring_host_stop`]; `record` is null or may be written.
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_next_log(host: *mut HostHandle, record: *mut ApiLogRecord) -> c_int {
    enter(host, |host| {
        if record.is_null() {
            return -Error::BadMemory.errno();
        }
        match host.log.next() {
            Some(line) => {
                // SAFETY: not null, and the caller's promise.
                unsafe { record.write(line) };
                1
            }
            None => 0,
        }
    })
}

/// The descriptor that is readable while lines wait.
///
/// # Safety
/// As of [`shmuring_host_stop`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_host_log_fd(host: *const HostHandle) -> c_int {
    enter(host, |host| host.log.fd())
}
