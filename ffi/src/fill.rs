//! The hot functions, from a free slot to the result. No guard: ci/nopanic.sh proves that they cannot panic.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use shmuring::backend::{Backend, SlotRef};
use shmuring::buffers::BOUNCE;
use shmuring::error::Error;
use shmuring::request::{flags, Buffers, Class, Completion, Opcode, RawRequest, RelTag, Request, MAX_BLOCKS};

use crate::api::{ApiRel, ApiRequest};
use crate::backend::{open, ApiBackend};
use crate::fault::{code, number, Fault};
use crate::rest;

/// What a `shmuring_ref` names.
#[inline(always)]
pub(crate) fn slot_ref(reference: i64) -> SlotRef {
    let bits = reference as u64;
    SlotRef { slot: bits as u32, generation: (bits >> 32) as u32 }
}

/// The `shmuring_ref` of a request.
#[inline(always)]
pub(crate) fn reference(r: SlotRef) -> i64 {
    (u64::from(r.generation) << 32 | u64::from(r.slot)) as i64
}

/// References behind a pointer from C.
///
/// # Safety
/// `references` is null or `n` of them may be read as long as the result is used.
pub(crate) unsafe fn refs_of<'r>(references: *const i64, n: usize) -> Result<&'r [SlotRef], Fault> {
    const {
        // Slot in the low half, generation in the high half.
        assert!(size_of::<SlotRef>() == 8 && core::mem::offset_of!(SlotRef, generation) == 4);
    }
    if n == 0 {
        return Ok(&[]);
    }
    if references.is_null() {
        return Err(Fault::Null);
    }
    if n > u32::MAX as usize {
        return Err(Error::TooMany.into());
    }
    // SAFETY: not null, few enough, and the caller's promise; the layout is checked above.
    Ok(unsafe { core::slice::from_raw_parts(references.cast(), n) })
}

/// `n` things behind a pointer from C, which must not be null.
///
/// # Safety
/// `at` is null or `n` of them may be read as long as the result is used.
unsafe fn list<'l, T>(at: *const T, n: usize) -> Result<&'l [T], Fault> {
    if at.is_null() {
        return Err(Fault::Null);
    }
    // SAFETY: not null, and the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(at, n) })
}

/// The request behind a pointer from C, copied once.
///
/// # Safety
/// `request` is null or may be read; what it leads to may be read as long as the result is used.
#[inline]
pub(crate) unsafe fn request_of<'q>(request: *const ApiRequest, block_size: u32) -> Result<Request<'q>, Fault> {
    let request = NonNull::new(request.cast_mut()).ok_or(Fault::Null)?;
    // SAFETY: not null, and the caller's promise.
    let r = unsafe { request.read() };
    let opcode = Opcode::from_u8(r.opcode).ok_or(Error::BadOpcode)?;
    let class = match r.flags & flags::CLASS {
        0 => Class::Demand,
        1 => Class::Prefetch,
        2 => Class::Background,
        _ => return Err(Error::BadRequest.into()),
    };
    let has = |flag| r.flags & flag != 0;
    let reserved = u64::from(r.reserved) | u64::from(r.reserved2) | r.reserved3.iter().fold(0, |all, n| all | n);
    if r.flags & !flags::KNOWN != 0 || reserved != 0 || has(flags::BLOCK_LSNS) == r.block_lsns.is_null() {
        return Err(Error::BadRequest.into());
    }
    let n = usize::from(r.count);
    if n > MAX_BLOCKS {
        return Err(Error::BadCount.into());
    }
    // SAFETY: the caller's promise: as many as there are blocks.
    let block_lsns = if has(flags::BLOCK_LSNS) { unsafe { list(r.block_lsns, n) }? } else { &[] };
    // SAFETY: as above.
    let buffers = unsafe { buffers_of(&r, opcode, n, block_size) }?;
    let ApiRequest { spc_oid, db_oid, rel_number, fork, .. } = r;
    Ok(Request {
        opcode,
        class,
        rel: RelTag { spc_oid, db_oid, rel_number, fork },
        block: r.block,
        count: r.count,
        arg: r.arg,
        lsn: r.lsn,
        block_lsns,
        request_lsn: has(flags::REQUEST_LSN).then_some(r.request_lsn),
        allow_missing: has(flags::ALLOW_MISSING),
        deadline: has(flags::DEADLINE).then_some(r.deadline),
        buffers,
    })
}

/// Where the pages of the request are.
///
/// # Safety
/// As for [`request_of`].
#[inline]
unsafe fn buffers_of<'q>(r: &ApiRequest, opcode: Opcode, n: usize, block_size: u32) -> Result<Buffers<'q>, Fault> {
    if r.pool != BOUNCE {
        if !opcode.has_buffers() || !r.image.is_null() {
            return Err(Error::BadRequest.into());
        }
        // SAFETY: the caller's promise.
        return Ok(Buffers::Pool(r.pool, unsafe { list(r.buffers, n) }?));
    }
    if !r.buffers.is_null() || r.image.is_null() == opcode.takes_images() {
        return Err(Error::BadRequest.into());
    }
    if opcode.takes_images() {
        // SAFETY: the caller's promise: so many whole blocks.
        return Ok(Buffers::Image(unsafe { list(r.image.cast(), n * block_size as usize) }?));
    }
    Ok(if opcode.fills_buffers() { Buffers::Bounce } else { Buffers::None })
}

/// A slot that can be filled.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_free_slot(b: *mut ApiBackend) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { open(b) }.and_then(|backend| Ok(number(backend.free_slot()?))))
}

/// What a call that gives a reference gives.
fn reference_or_code(filled: Result<SlotRef, Fault>) -> i64 {
    match filled {
        Ok(r) => reference(r),
        Err(fault) => fault.code().into(),
    }
}

/// Writes a request into a slot, and gives its reference.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_fill(b: *mut ApiBackend, slot: u32, request: *const ApiRequest) -> i64 {
    // SAFETY: the caller's promise.
    let filled = unsafe { open(b) }.ok().and_then(|backend| backend.try_fill_raw(slot, unsafe { raw_of(request) }?));
    match filled {
        Some(r) => reference(r),
        None => fill_rare(b, slot, request),
    }
}

/// The same, from the beginning: what the short way refuses, it has not touched.
#[cold]
#[inline(never)]
extern "C" fn fill_rare(b: *mut ApiBackend, slot: u32, request: *const ApiRequest) -> i64 {
    // SAFETY: the promise of the caller's caller.
    reference_or_code(unsafe { open(b) }.and_then(|backend| {
        // SAFETY: as above.
        let request = unsafe { request_of(request, backend.block_size()) }?;
        Ok(backend.fill(slot, &request)?)
    }))
}

/// The first bytes of a request of which nothing else is set.
///
/// # Safety
/// `request` is null or may be read.
#[inline(always)]
unsafe fn raw_of(request: *const ApiRequest) -> Option<RawRequest> {
    const {
        // The first fields of an ApiRequest are those of a RawRequest; `abi` checks each.
        assert!(core::mem::offset_of!(ApiRequest, reserved2) == size_of::<RawRequest>());
    }
    // SAFETY: the caller's promise.
    let r = unsafe { request.as_ref() }?;
    let pointers = r.block_lsns.addr() | r.buffers.addr() | r.image.addr();
    let [a, b] = r.reserved3;
    if pointers as u64 | u64::from(r.reserved2) | a | b != 0 {
        return None;
    }
    // SAFETY: as above; the fields are the same.
    Some(unsafe { request.cast::<RawRequest>().read() })
}

/// What a relation fork is named by, and its fork with what is reserved behind it: one number, which is no fork unless
/// the reserved bytes are 0.
#[inline(always)]
pub(crate) fn rel_of(rel: ApiRel) -> (RelTag, u32) {
    // As it comes in registers.
    // SAFETY: both are 16 bytes of which every bit pattern is a value; the layout is checked in `abi`.
    let [names, place] = unsafe { core::mem::transmute::<ApiRel, [u64; 2]>(rel) };
    let (spc_oid, db_oid, fork) = (names as u32, (names >> 32) as u32, (place >> 32) as u32);
    (RelTag { spc_oid, db_oid, rel_number: place as u32, fork: fork as u8 }, fork)
}

/// The request of a read.
fn read_of(rel: ApiRel, block: u32, lsn: u64) -> Result<Request<'static>, Fault> {
    let (tag, fork) = rel_of(rel);
    if fork != u32::from(tag.fork) {
        return Err(Error::BadRequest.into());
    }
    Ok(Request::get_page(tag, block, 1, lsn))
}

/// Writes a read of one block into a slot, and gives its reference.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_fill_get_page(
    b: *mut ApiBackend,
    slot: u32,
    rel: ApiRel,
    block: u32,
    lsn: u64,
) -> i64 {
    let (tag, fork) = rel_of(rel);
    // SAFETY: the caller's promise.
    let filled = unsafe { open(b) }.ok().and_then(|backend| backend.try_fill_read(slot, tag, fork, block, lsn));
    match filled {
        Some(r) => reference(r),
        None => fill_get_page_rare(b, slot, rel, block, lsn),
    }
}

/// The same, from the beginning.
#[cold]
#[inline(never)]
extern "C" fn fill_get_page_rare(b: *mut ApiBackend, slot: u32, rel: ApiRel, block: u32, lsn: u64) -> i64 {
    // SAFETY: the promise of the caller's caller.
    reference_or_code(unsafe { open(b) }.and_then(|backend| Ok(backend.fill(slot, &read_of(rel, block, lsn)?)?)))
}

/// Submits a read of one block, and gives its reference.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_start_get_page(b: *mut ApiBackend, rel: ApiRel, block: u32, lsn: u64) -> i64 {
    let (tag, fork) = rel_of(rel);
    // SAFETY: the caller's promise.
    let started = unsafe { open(b) }
        .ok()
        .and_then(|backend| backend.try_start_read((tag, fork), block, lsn, reference, rest::finish));
    started.unwrap_or_else(|| start_get_page_rare(b, rel, block, lsn))
}

/// The same, from the beginning.
#[cold]
#[inline(never)]
extern "C" fn start_get_page_rare(b: *mut ApiBackend, rel: ApiRel, block: u32, lsn: u64) -> i64 {
    // SAFETY: the promise of the caller's caller.
    reference_or_code(unsafe { open(b) }.and_then(|backend| start(backend, &read_of(rel, block, lsn)?)))
}

fn start(backend: &mut Backend<'static>, request: &Request<'_>) -> Result<SlotRef, Fault> {
    let slot = backend.free_slot()?;
    let filled = backend.fill(slot, request)?;
    backend.submit(filled)?;
    Ok(filled)
}

/// Submits a request, and gives its reference.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_start(b: *mut ApiBackend, request: *const ApiRequest) -> i64 {
    // SAFETY: the caller's promise.
    reference_or_code(unsafe { open(b) }.and_then(|backend| {
        // SAFETY: the caller's promise.
        start(backend, &unsafe { request_of(request, backend.block_size()) }?)
    }))
}

/// Hands a filled slot to the communicator.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_submit(b: *mut ApiBackend, reference: i64) -> c_int {
    // SAFETY: the caller's promise.
    let submitted =
        unsafe { open(b) }.ok().and_then(|backend| backend.try_submit(slot_ref(reference), |_| 0, rest::finish));
    submitted.unwrap_or_else(|| submit_rare(b, reference))
}

/// The same, from the beginning.
#[cold]
#[inline(never)]
extern "C" fn submit_rare(b: *mut ApiBackend, reference: i64) -> c_int {
    // SAFETY: the promise of the caller's caller.
    code(unsafe { open(b) }.and_then(|backend| {
        backend.submit(slot_ref(reference))?;
        Ok(0)
    }))
}

/// Hands filled slots to the communicator.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_submit_many(b: *mut ApiBackend, references: *const i64, n: usize) -> c_int {
    // SAFETY: the caller's promise.
    let submitted = unsafe { open(b) }.and_then(|backend| {
        // SAFETY: the caller's promise.
        backend.submit_many(unsafe { refs_of(references, n) }?)?;
        Ok(0)
    });
    code(submitted)
}

/// Gives up the answer of a request.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_forget(b: *mut ApiBackend, reference: i64) -> c_int {
    // SAFETY: the caller's promise.
    let forgotten = unsafe { open(b) }.and_then(|backend| {
        backend.forget(slot_ref(reference))?;
        Ok(0)
    });
    code(forgotten)
}

/// The result of a complete request, into `*out`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_result(b: *mut ApiBackend, reference: i64, out: *mut Completion) -> c_int {
    // SAFETY: the caller's promise.
    let result = unsafe { open(b) }.and_then(|backend| {
        let out = NonNull::new(out).ok_or(Fault::Null)?;
        let result = backend.result(slot_ref(reference))?;
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(result) };
        Ok(0)
    });
    code(result)
}

/// The address of a page, into `*page`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_page(b: *mut ApiBackend, reference: i64, i: u32, page: *mut *const c_void) -> c_int {
    // SAFETY: the caller's promise.
    let found = unsafe { open(b) }.and_then(|backend| {
        let to = NonNull::new(page).ok_or(Fault::Null)?;
        let bytes = backend.page(slot_ref(reference), i as usize)?;
        // SAFETY: not null, and the caller's promise.
        unsafe { to.write(bytes.as_ptr().cast()) };
        Ok(0)
    });
    code(found)
}

/// Takes the result, into `*out` if that is not null, and gives the slot back.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_finish(b: *mut ApiBackend, reference: i64, out: *mut Completion) -> c_int {
    // SAFETY: the caller's promise.
    let Some(result) = unsafe { open(b) }.ok().and_then(|backend| backend.try_finish(slot_ref(reference))) else {
        return finish_rare(b, reference, out);
    };
    if let Some(out) = NonNull::new(out) {
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(result) };
    }
    0
}

/// The same, from the beginning.
#[cold]
#[inline(never)]
extern "C" fn finish_rare(b: *mut ApiBackend, reference: i64, out: *mut Completion) -> c_int {
    // SAFETY: the promise of the caller's caller.
    match unsafe { open(b) }.and_then(|backend| Ok(backend.finish(slot_ref(reference))?)) {
        Ok(result) => {
            if let Some(out) = NonNull::new(out) {
                // SAFETY: not null, and the caller's promise.
                unsafe { out.write(result) };
            }
            0
        }
        Err(fault) => fault.code(),
    }
}
