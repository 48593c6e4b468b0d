//! Waiting, and what ends a request: wait, wait any, wait for a slot, cancel, call.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use shmuring::backend::{Cancelled, Wait};
use shmuring::clock;
use shmuring::error::Error;
use shmuring::request::Completion;
use shmuring::sync::AtomicU32;

use crate::api::{cancel, ApiRequest, ApiWait};
use crate::backend::{guarded, open, ApiBackend};
use crate::fault::{code, number, Fault};
use crate::fill::{refs_of, request_of, slot_ref};

/// The wait behind a pointer from C.
///
/// # Safety
/// `wait` is null or may be read; its interrupt word is null or lives as long as the result is used.
pub(crate) unsafe fn wait_of<'w>(wait: *const ApiWait) -> Result<Wait<'w>, Fault> {
    let wait = NonNull::new(wait.cast_mut()).ok_or(Fault::Null)?;
    // SAFETY: not null, and the caller's promise.
    let ApiWait { until, interrupt, reserved } = unsafe { wait.read() };
    if reserved != 0 {
        return Err(Error::BadRequest.into());
    }
    if !interrupt.is_aligned() {
        // The kernel would refuse to watch it.
        return Err(Error::BadMemory.into());
    }
    // SAFETY: null or valid, by the caller's promise; an int that others change is looked at as an atomic.
    Ok(Wait { until, interrupt: unsafe { interrupt.cast::<AtomicU32>().as_ref() } })
}

/// So many ms from now, ns of CLOCK_MONOTONIC.
#[no_mangle]
pub extern "C" fn shmuring_deadline_ms(ms: u64) -> u64 {
    clock::now().saturating_add(ms.saturating_mul(1_000_000))
}

/// Waits for a free slot, and gives its number.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_wait_free(b: *mut ApiBackend, wait: *const ApiWait) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { guarded(b, |backend| Ok(number(backend.wait_free(&wait_of(wait)?)?))) })
}

/// Waits until the request is complete.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_wait(b: *mut ApiBackend, reference: i64, wait: *const ApiWait) -> c_int {
    // SAFETY: the caller's promise.
    let backend = unsafe { wait_of(wait).and_then(|_| open(b)) };
    if backend.is_ok_and(|backend| backend.try_wait(slot_ref(reference))) {
        return 0;
    }
    wait_rest(b, reference, wait)
}

/// The rest of it, and what is wrong.
#[cold]
#[inline(never)]
extern "C" fn wait_rest(b: *mut ApiBackend, reference: i64, wait: *const ApiWait) -> c_int {
    // SAFETY: the promise of the caller's caller.
    let answer = unsafe {
        guarded(b, |backend| {
            backend.wait_rest(slot_ref(reference), &wait_of(wait)?)?;
            Ok(0)
        })
    };
    code(answer)
}

/// Waits until one of the requests is complete, and gives the index of one that is.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_wait_any(
    b: *mut ApiBackend,
    references: *const i64,
    n: usize,
    wait: *const ApiWait,
) -> c_int {
    // SAFETY: the caller's promise.
    let answer = unsafe {
        guarded(b, |backend| {
            let index = backend.wait_any(refs_of(references, n)?, &wait_of(wait)?)?;
            Ok(c_int::try_from(index).unwrap_or(c_int::MAX))
        })
    };
    code(answer)
}

/// Gives a request up.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_cancel(b: *mut ApiBackend, reference: i64, wait: *const ApiWait) -> c_int {
    // SAFETY: the caller's promise.
    let answer = unsafe {
        guarded(b, |backend| match backend.cancel(slot_ref(reference), &wait_of(wait)?)? {
            Cancelled::Withdrawn => Ok(cancel::WITHDRAWN),
            Cancelled::Abandoned => Ok(cancel::ABANDONED),
        })
    };
    code(answer)
}

/// One request from beginning to end.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_call(
    b: *mut ApiBackend,
    request: *const ApiRequest,
    wait: *const ApiWait,
    to: *mut c_void,
    len: usize,
    out: *mut Completion,
) -> c_int {
    // SAFETY: the caller's promise.
    let answer = unsafe {
        guarded(b, |backend| {
            let out = NonNull::new(out).ok_or(Fault::Null)?;
            if to.is_null() && len > 0 || len > isize::MAX as usize {
                return Err(Fault::Null);
            }
            let to = if len == 0 { &mut [][..] } else { core::slice::from_raw_parts_mut(to.cast(), len) };
            let request = request_of(request, backend.block_size())?;
            let done = backend.call(&request, &wait_of(wait)?, to)?;
            out.write(done);
            Ok(0)
        })
    };
    code(answer)
}
