//! The life of the server that a region serves: begin, settle, end.

use core::ffi::c_int;
use core::ptr::NonNull;

use shmuring::communicator::{Leftovers, ServerLife};
use shmuring::memory::Room;
use shmuring::region::Region;

use crate::api::{ApiError, ApiLeftover, ApiWait};
use crate::fault::{code, number, told, Answer, Fault};
use crate::guard::guard;
use crate::region::ApiRegion;
use crate::thread;
use crate::wait::wait_of;

/// What a `struct shmuring_server` is.
pub struct ApiServer {
    life: ServerLife,
    /// While they are settled one by one.
    leftovers: Option<Leftovers<'static>>,
    borrowed: &'static Region,
    region: *const ApiRegion,
    thread: usize,
    /// A panic was caught.
    is_broken: bool,
}

/// The server behind a pointer from C, for the thread that began its life.
///
/// # Safety
/// `server` is null or a handle that was not ended, and no other call uses it now.
unsafe fn open<'s>(server: *mut ApiServer) -> Result<&'s mut ApiServer, Fault> {
    // SAFETY: the caller's promise.
    let this = unsafe { server.as_mut() }.ok_or(Fault::Null)?;
    if this.is_broken {
        return Err(Fault::Bug);
    }
    if this.thread != thread::current() {
        return Err(Fault::WrongThread);
    }
    Ok(this)
}

/// Begins a new life: its number.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_server_begin(
    region: *mut ApiRegion,
    system_identifier: u64,
    out: *mut *mut ApiServer,
    err: *mut ApiError,
) -> c_int {
    let make = || {
        let out = NonNull::new(out).ok_or(Fault::Null)?;
        // First, so that an error begins no life.
        let room = Room::new()?;
        // SAFETY: the caller's promise.
        let borrowed = unsafe { ApiRegion::borrow(region) }?;
        let made = ServerLife::begin(borrowed, system_identifier).map(|life| {
            let n = life.life() & c_int::MAX.unsigned_abs();
            let thread = thread::current();
            let server = ApiServer { life, leftovers: None, borrowed, region, thread, is_broken: false };
            (room.put(server), number(n.max(1)))
        });
        match made {
            Ok((handle, n)) => {
                // SAFETY: not null, and the caller's promise.
                unsafe { out.write(Box::into_raw(handle)) };
                Ok(n)
            }
            Err(e) => {
                // SAFETY: borrowed above, and nothing was made that borrows from it.
                unsafe { ApiRegion::put_back(region) };
                Err(e.into())
            }
        }
    };
    // SAFETY: the caller's promise.
    unsafe { told(guard(Err(Fault::Bug), make), err) }
}

/// Settles the slots of older lives: how many there were.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_server_settle(server: *mut ApiServer, wait: *const ApiWait) -> c_int {
    let settle = || -> Answer {
        // SAFETY: the caller's promise.
        let this = unsafe { open(server) }?;
        guard(None, || {
            // SAFETY: the caller's promise.
            let wait = unsafe { wait_of(wait) };
            Some(wait.and_then(|wait| Ok(number(this.life.settle(this.borrowed, &wait)?))))
        })
        .unwrap_or_else(|| {
            this.is_broken = true;
            Err(Fault::Bug)
        })
    };
    code(settle())
}

/// Settles the next slot of older lives: 1 and the leftover in `*out`, or 0.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_server_next_leftover(
    server: *mut ApiServer,
    wait: *const ApiWait,
    out: *mut ApiLeftover,
) -> c_int {
    let next = |this: &mut ApiServer| -> Answer {
        let out = NonNull::new(out).ok_or(Fault::Null)?;
        // SAFETY: the caller's promise.
        let wait = unsafe { wait_of(wait) }?;
        let leftovers = match &mut this.leftovers {
            Some(leftovers) => leftovers,
            none => none.insert(this.life.leftovers(this.borrowed)?),
        };
        let Some(leftover) = leftovers.next(&wait)? else {
            this.leftovers = None;
            return Ok(0);
        };
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(leftover.into()) };
        Ok(1)
    };
    // SAFETY: the caller's promise.
    code(unsafe { open(server) }.and_then(|this| {
        guard(None, || Some(next(this))).unwrap_or_else(|| {
            this.is_broken = true;
            Err(Fault::Bug)
        })
    }))
}

/// Starts the last-written table anew from `floor`.
///
/// # Safety
/// `server` is null or a handle that was not ended.
#[no_mangle]
pub unsafe extern "C" fn shmuring_server_reset_written(server: *mut ApiServer, floor: u64) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { open(server) }.and_then(|this| {
        this.life.reset_written(this.borrowed, floor)?;
        Ok(0)
    }))
}

/// Ends the life.
///
/// # Safety
/// `server` is null or a handle that was not ended, which nobody uses any more.
#[no_mangle]
pub unsafe extern "C" fn shmuring_server_end(server: *mut ApiServer) -> c_int {
    code(guard(Err(Fault::Bug), || {
        if server.is_null() {
            return Ok(0);
        }
        // SAFETY: made by `shmuring_server_begin`, and the caller's promise.
        let this = unsafe { Box::from_raw(server) };
        let region = this.region;
        drop(this);
        // SAFETY: the life is gone, which alone borrowed from it.
        unsafe { ApiRegion::put_back(region) };
        Ok(0)
    }))
}
