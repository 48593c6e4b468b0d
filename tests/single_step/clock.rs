//! The clock of the victims: CLOCK_MONOTONIC, moved on where something is due once a second. It is read by a system call
//! and not as the C library does, in a loop whose rounds depend on what the kernel does meanwhile: so runs go alike.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Seconds that this process is ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Moves this process on by that many seconds.
pub fn move_on(seconds: i64) {
    AHEAD.fetch_add(seconds, Relaxed);
}

/// In place of the C library's.
///
/// # Safety
/// As clock_gettime(2): `ts` is a place for the answer.
#[no_mangle]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, ts: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's promise.
    let rc = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, ts) };
    if rc == 0 && clock == libc::CLOCK_MONOTONIC {
        // SAFETY: the kernel has just written it.
        unsafe { (*ts).tv_sec += AHEAD.load(Relaxed) };
    }
    rc as libc::c_int
}
