//! The handle of a backend: attach, the refusals that every call makes first, leftovers, detach.

use core::ffi::{c_int, c_void};
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use shmuring::backend::{Backend, Given, Memory};
use shmuring::error::{self, Error};
use shmuring::layout::Slot;
use shmuring::memory::Room;
use shmuring::region::Region;

use crate::api::{ApiError, ApiLeftover, ApiWait};
use crate::fault::{code, number, told, Answer, Fault};
use crate::guard::guard;
use crate::region::ApiRegion;
use crate::thread;
use crate::wait::wait_of;

/// What the inline functions of the header read: `struct shmuring_backend_head`.
#[derive(Debug)]
#[repr(C)]
pub struct ApiHead {
    /// Where it says how many slots there are; 0 in a forked child.
    pub limit: *const u64,
    /// The first slot of the range.
    pub slots: *const Slot,
    /// Its number.
    pub first: u32,
    /// Slots in the range.
    pub count: u32,
}

/// The limit of a handle that does nothing any more.
static NOTHING: u64 = 0;
/// No thread has this number.
const NOBODY: usize = 0;

/// What a handle is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// `backend` was dropped.
    Detached,
    /// A panic was caught; `backend` is still there, for its locks to be dropped in the end.
    Broken,
}

/// What a `struct shmuring_backend` is.
#[repr(C)]
pub struct ApiBackend {
    head: ApiHead,
    /// The thread that may use it; [`NOBODY`] unless it is open.
    thread: usize,
    state: State,
    /// Whether it lies in memory of the embedder.
    is_given: bool,
    region: *const ApiRegion,
    backend: ManuallyDrop<Backend<'static>>,
}

/// Bytes of memory that was given which the handle itself takes: the rest is the backend's arrays'.
const OWN: usize = size_of::<ApiBackend>().next_multiple_of(Given::ALIGN);
const _: () = assert!(align_of::<ApiBackend>() <= Given::ALIGN);

impl ApiBackend {
    fn close(&mut self, state: State) {
        self.head.limit = &raw const NOTHING;
        self.thread = NOBODY;
        self.state = state;
    }

    /// Why its thread is not the caller's.
    #[cold]
    fn refusal(&self) -> Fault {
        match self.state {
            State::Open => Fault::WrongThread,
            State::Detached => Fault::Detached,
            State::Broken => Fault::Bug,
        }
    }
}

/// The backend behind a pointer from C, for the thread that attached it. Whether this is its process, each call of the
/// library asks.
///
/// # Safety
/// `b` is null or a handle that was not freed, and no other call uses it now.
#[inline(always)]
pub(crate) unsafe fn open<'b>(b: *mut ApiBackend) -> Result<&'b mut Backend<'static>, Fault> {
    // SAFETY: the caller's promise.
    let this = unsafe { b.as_mut() }.ok_or(Fault::Null)?;
    if this.thread != thread::current() {
        return Err(this.refusal());
    }
    Ok(&mut this.backend)
}

/// Runs a call that is not worth its nanoseconds under the guard: a panic marks the handle.
///
/// # Safety
/// As for [`open`].
pub(crate) unsafe fn guarded(b: *mut ApiBackend, f: impl FnOnce(&mut Backend<'static>) -> Answer) -> Answer {
    // SAFETY: the caller's promise.
    let backend = unsafe { open(b) }?;
    guard(None, || Some(f(backend))).unwrap_or_else(|| {
        // SAFETY: `open` found it not null; the borrow has ended.
        unsafe { (*b).close(State::Broken) };
        Err(Fault::Bug)
    })
}

/// Where a handle will lie.
enum Place {
    /// In a box.
    Room(Room<ApiBackend>),
    /// In memory of the embedder, which is as it has to be if it can be attached to.
    Given(*mut ApiBackend),
}

impl Place {
    /// # Safety
    /// In memory that was given there is room for it.
    unsafe fn put(self, handle: ApiBackend) -> *mut ApiBackend {
        match self {
            Self::Room(room) => Box::into_raw(room.put(handle)),
            Self::Given(at) => {
                // SAFETY: the caller's promise.
                unsafe { at.write(ApiBackend { is_given: true, ..handle }) };
                at
            }
        }
    }
}

/// Makes a handle of what `attach` gives: the number of usable slots. It will lie in memory `given`, or if that is none
/// in a box.
///
/// # Safety
/// `region` is null or a handle that was not detached; `out` and `err` are null or may be written; if `attach` succeeds,
/// there is room in what was given.
unsafe fn hand_out(
    region: *mut ApiRegion,
    out: *mut *mut ApiBackend,
    err: *mut ApiError,
    given: Option<*mut ApiBackend>,
    attach: impl FnOnce(&'static Region) -> error::Result<Backend<'static>>,
) -> c_int {
    let make = || {
        let out = NonNull::new(out).ok_or(Fault::Null)?;
        // First, so that an error leaves no slots held.
        let place = match given {
            Some(at) => Place::Given(at),
            None => Place::Room(Room::new()?),
        };
        // SAFETY: the caller's promise.
        let borrowed = unsafe { ApiRegion::borrow(region) }?;
        let made = attach(borrowed).map(|backend| {
            let (first, count, usable) = (backend.first(), backend.count(), backend.usable());
            let head = ApiHead { limit: backend.limit(), slots: backend.slots().as_ptr(), first, count };
            let (thread, backend) = (thread::current(), ManuallyDrop::new(backend));
            let handle = ApiBackend { head, thread, state: State::Open, is_given: false, region, backend };
            // SAFETY: the caller's promise.
            (unsafe { place.put(handle) }, usable)
        });
        match made {
            Ok((handle, usable)) => {
                // SAFETY: not null, and the caller's promise.
                unsafe { out.write(handle) };
                Ok(number(usable))
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

/// Attaches to a range of slots: how many can be used at once.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_backend_attach(
    region: *mut ApiRegion,
    first: u32,
    count: u32,
    out: *mut *mut ApiBackend,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { hand_out(region, out, err, None, |region| Backend::attach(region, first, count)) }
}

/// Attaches to slots that nobody holds.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_backend_attach_any(
    region: *mut ApiRegion,
    count: u32,
    out: *mut *mut ApiBackend,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { hand_out(region, out, err, None, |region| Backend::attach_any(region, count)) }
}

/// Bytes that a backend of so many slots takes of memory of the caller, into `*bytes`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_backend_memory(region: *const ApiRegion, count: u32, bytes: *mut usize) -> c_int {
    // SAFETY: the caller's promise.
    let asked = unsafe { ApiRegion::look(region) }.and_then(|region| {
        let to = NonNull::new(bytes).ok_or(Fault::Null)?;
        if count == 0 || count > region.parts().geometry.slots {
            return Err(Error::BadSlot.into());
        }
        // SAFETY: not null, and the caller's promise.
        unsafe { to.write(OWN + Backend::memory(region, count)) };
        Ok(0)
    });
    code(asked)
}

/// Attaches to a range of slots, with the handle in memory of the caller: how many can be used at once.
///
/// # Safety
/// Each pointer is null or may be used as the header says; nobody else uses the memory as long as the handle lives.
#[no_mangle]
pub unsafe extern "C" fn shmuring_backend_attach_in(
    region: *mut ApiRegion,
    first: u32,
    count: u32,
    memory: *mut c_void,
    len: usize,
    out: *mut *mut ApiBackend,
    err: *mut ApiError,
) -> c_int {
    let attach = |region: &'static Region| {
        let rest = len
            .checked_sub(OWN)
            .filter(|n| !memory.is_null() && memory.addr() % Given::ALIGN == 0 && fits(region, count, *n));
        let rest = rest.ok_or(Error::BadMemory)?;
        // SAFETY: what is behind the handle itself, and long enough; the caller's promise.
        let given = unsafe { Given::new(memory.cast::<u8>().add(OWN), rest) };
        Backend::attach_in(region, first, count, Memory::Given(given))
    };
    // SAFETY: not null, aligned and long enough, or nothing would be attached; the caller's promise.
    unsafe { hand_out(region, out, err, Some(memory.cast()), attach) }
}

/// Whether the arrays of so many slots fit into `bytes`. Ranges that no region has are told elsewhere.
fn fits(region: &Region, count: u32, bytes: usize) -> bool {
    count > region.parts().geometry.slots || Backend::memory(region, count) <= bytes
}

/// Slots that could be filled now.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_backend_usable(b: *mut ApiBackend) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { open(b) }.map(|backend| number(backend.usable())))
}

/// Settles the next leftover: 1 and the leftover in `*out`, or 0.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_next_leftover(
    b: *mut ApiBackend,
    wait: *const ApiWait,
    out: *mut ApiLeftover,
) -> c_int {
    // SAFETY: the caller's promise.
    let answer = unsafe {
        guarded(b, |backend| {
            let out = NonNull::new(out).ok_or(Fault::Null)?;
            let Some(leftover) = backend.next_leftover(&wait_of(wait)?)? else { return Ok(0) };
            out.write(leftover.into());
            Ok(1)
        })
    };
    code(answer)
}

/// Settles what is in flight, and gives the slots up: how many requests were settled.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_backend_detach(b: *mut ApiBackend, wait: *const ApiWait) -> c_int {
    // SAFETY: the caller's promise.
    let answer = unsafe { guarded(b, |backend| Ok(number(backend.detach(&wait_of(wait)?)?))) };
    if answer.is_ok() {
        // SAFETY: it was open, so it is not null and its backend is there; it is not looked at once it is detached.
        unsafe {
            (*b).close(State::Detached);
            ManuallyDrop::drop(&mut (*b).backend);
        }
    }
    code(answer)
}

/// Frees the handle, by any thread and in any process.
///
/// # Safety
/// `b` is null or a handle that was not freed, which nobody uses any more.
#[no_mangle]
pub unsafe extern "C" fn shmuring_backend_free(b: *mut ApiBackend) -> c_int {
    code(guard(Err(Fault::Bug), || {
        if b.is_null() {
            return Ok(0);
        }
        // SAFETY: made by `hand_out`, and the caller's promise.
        let this = unsafe { &mut *b };
        let (region, is_given) = (this.region, this.is_given);
        if this.state != State::Detached {
            // SAFETY: it is dropped in `shmuring_backend_detach` and here alone.
            unsafe { ManuallyDrop::drop(&mut this.backend) };
        }
        if !is_given {
            // SAFETY: a box that `Place::put` made; nobody uses it any more.
            drop(unsafe { Box::from_raw(b) });
        }
        // SAFETY: the backend is gone, which alone borrowed from it.
        unsafe { ApiRegion::put_back(region) };
        Ok(0)
    }))
}
