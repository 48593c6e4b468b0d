//! What `shmuring/inline.h` compiles into its callers, as functions, for languages that cannot compile C.

use core::ffi::{c_int, c_void};
use core::ptr::null;

use shmuring::request::{flags, Class, Opcode};

use crate::api::{ApiRel, ApiRequest};
use crate::backend::{open, ApiBackend};
use crate::fault::code;
use crate::fill::slot_ref;

/// Whether a request is complete.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_poll(b: *mut ApiBackend, reference: i64) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { open(b) }.and_then(|backend| Ok(backend.poll(slot_ref(reference))?)) {
        Ok(is_complete) => is_complete.into(),
        Err(fault) => fault.code(),
    }
}

/// What the inline `shmuring_poll` cannot tell by a look at a word.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[cold]
#[no_mangle]
pub unsafe extern "C" fn shmuring_poll_rare(b: *mut ApiBackend, reference: i64) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { shmuring_poll(b, reference) }
}

/// State of a slot of the range.
///
/// # Safety
/// `b` is null or a handle that was not freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_state(b: *mut ApiBackend, slot: u32) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { open(b) }.and_then(|backend| Ok(backend.state(slot)? as c_int)))
}

/// Slot of a reference.
#[no_mangle]
pub extern "C" fn shmuring_ref_slot(reference: i64) -> u32 {
    slot_ref(reference).slot
}

/// Generation of a reference.
#[no_mangle]
pub extern "C" fn shmuring_ref_generation(reference: i64) -> u32 {
    slot_ref(reference).generation
}

/// What a relation is named by.
#[no_mangle]
pub extern "C" fn shmuring_rel_of(spc_oid: u32, db_oid: u32, rel_number: u32, fork: u8) -> ApiRel {
    ApiRel { spc_oid, db_oid, rel_number, fork, reserved: [0; 3] }
}

/// A request with nothing else set.
const fn request(opcode: u8, rel: ApiRel, lsn: u64) -> ApiRequest {
    ApiRequest {
        lsn,
        spc_oid: rel.spc_oid,
        db_oid: rel.db_oid,
        rel_number: rel.rel_number,
        block: 0,
        arg: 0,
        opcode,
        flags: 0,
        fork: rel.fork,
        count: 0,
        pool: 0,
        reserved: 0,
        reserved2: 0,
        deadline: 0,
        request_lsn: 0,
        block_lsns: null(),
        buffers: null(),
        image: null(),
        reserved3: [0; 2],
    }
}

const NO_REL: ApiRel = ApiRel { spc_oid: 0, db_oid: 0, rel_number: 0, fork: 0, reserved: [0; 3] };

/// Any request.
///
/// # Safety
/// `r` may be written.
#[no_mangle]
pub unsafe extern "C" fn shmuring_prep(r: *mut ApiRequest, opcode: u8, rel: ApiRel, lsn: u64) {
    // SAFETY: the caller's promise.
    unsafe { r.write(request(opcode, rel, lsn)) }
}

/// Defines functions that overwrite a request: the opcode, its relation and LSN, and the fields that are set besides.
macro_rules! preps {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $t:ty),*) = $opcode:ident, $rel:expr, $lsn:expr;
        { $($field:ident: $value:expr),* })*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `r` may be written.
        #[no_mangle]
        pub unsafe extern "C" fn $name(r: *mut ApiRequest $(, $arg: $t)*) {
            let stated = ApiRequest { $($field: $value,)* ..request(Opcode::$opcode as u8, $rel, $lsn) };
            // SAFETY: the caller's promise.
            unsafe { r.write(stated) }
        }
    )*};
}

preps! {
    /// Nothing.
    shmuring_prep_nop() = Nop, NO_REL, 0; {}
    /// Read blocks.
    shmuring_prep_get_page(rel: ApiRel, block: u32, count: u8, lsn: u64) = GetPage, rel, lsn;
        { block: block, count: count }
    /// Bring blocks near.
    shmuring_prep_prefetch(rel: ApiRel, block: u32, count: u8, lsn: u64) = Prefetch, rel, lsn;
        { flags: Class::Prefetch as u8, block: block, count: count }
    /// Size of a relation fork.
    shmuring_prep_rel_size(rel: ApiRel, lsn: u64, allow_missing: c_int) = RelSize, rel, lsn;
        { flags: if allow_missing != 0 { flags::ALLOW_MISSING } else { 0 } }
    /// Whether a relation fork exists.
    shmuring_prep_rel_exists(rel: ApiRel, lsn: u64) = RelExists, rel, lsn; {}
    /// Size of a database.
    shmuring_prep_db_size(db_oid: u32, lsn: u64) = DbSize, ApiRel { db_oid, ..NO_REL }, lsn; {}
    /// Read an SLRU segment.
    shmuring_prep_read_slru(kind: u32, segment: u32, count: u8, lsn: u64)
        = ReadSlru, ApiRel { rel_number: kind, ..NO_REL }, lsn; { block: segment, count: count }
    /// Write blocks that exist.
    shmuring_prep_write_page(rel: ApiRel, block: u32, count: u8, lsn: u64, image: *const c_void) = WritePage, rel, lsn;
        { block: block, count: count, image: image }
    /// Write a block and grow the relation to hold it.
    shmuring_prep_extend(rel: ApiRel, block: u32, lsn: u64, image: *const c_void) = Extend, rel, lsn;
        { block: block, count: 1, image: image }
    /// Grow the relation by zero blocks.
    shmuring_prep_zero_extend(rel: ApiRel, block: u32, blocks: u32, lsn: u64) = ZeroExtend, rel, lsn;
        { block: block, arg: blocks }
    /// Make a relation fork.
    shmuring_prep_create(rel: ApiRel, lsn: u64) = Create, rel, lsn; {}
    /// Cut a relation fork down.
    shmuring_prep_truncate(rel: ApiRel, blocks: u32, lsn: u64) = Truncate, rel, lsn; { block: blocks }
    /// Remove a relation fork.
    shmuring_prep_unlink(rel: ApiRel, lsn: u64) = Unlink, rel, lsn; {}
    /// Tell the size of a relation fork.
    shmuring_prep_update_rel_size(rel: ApiRel, blocks: u32, lsn: u64) = UpdateRelSize, rel, lsn; { block: blocks }
    /// Read blocks as of exactly one LSN.
    shmuring_prep_get_page_at(rel: ApiRel, block: u32, count: u8, request_lsn: u64, lsn: u64) = GetPageAt, rel, lsn;
        { flags: flags::REQUEST_LSN, request_lsn: request_lsn, block: block, count: count }
    /// Make durable what completed before.
    shmuring_prep_sync() = Sync, NO_REL, 0; {}
}

/// Defines functions that change a request which was stated before.
macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $t:ty),*) = |$r:ident| $change:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `r` may be read and written.
        #[no_mangle]
        pub unsafe extern "C" fn $name(r: *mut ApiRequest $(, $arg: $t)*) {
            // SAFETY: the caller's promise.
            let $r = unsafe { &mut *r };
            $change
        }
    )*};
}

sets! {
    /// Who waits for it.
    shmuring_set_class(class: u8) = |r| { r.flags = r.flags & !flags::CLASS | class & flags::CLASS; }
    /// When the communicator may give up.
    shmuring_set_deadline(deadline: u64) = |r| { r.flags |= flags::DEADLINE; r.deadline = deadline; }
    /// Read as of an LSN.
    shmuring_set_request_lsn(lsn: u64) = |r| { r.flags |= flags::REQUEST_LSN; r.request_lsn = lsn; }
    /// not_modified_since of each block.
    shmuring_set_block_lsns(lsns: *const u64) = |r| { r.flags |= flags::BLOCK_LSNS; r.block_lsns = lsns; }
    /// Buffers of a registered pool.
    shmuring_set_buffers(pool: u16, buffers: *const u32) = |r| { r.pool = pool; r.buffers = buffers; }
}
