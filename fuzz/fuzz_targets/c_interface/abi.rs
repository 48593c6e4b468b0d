//! The functions of `shmuring.h` and `shmuring/host.h`, declared as a C caller sees them: handles are pointers to nothing
//! that it knows.

use std::ffi::{c_char, c_int, c_void};

use shmuring::request::Completion;
pub use shmuring_ffi::api::{ApiError, ApiInfo, ApiLeftover, ApiOptions, ApiRel, ApiRelSize, ApiRequest, ApiWait};
// So that the functions are linked.
use shmuring_ffi as _;

/// A handle.
pub type Handle = *mut c_void;

/// `struct shmuring_claim`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Claim {
    pub name: i64,
    pub lsn: u64,
    pub rel: [u32; 3],
    pub block: u32,
    pub arg: u32,
    pub opcode: u8,
    pub flags: u8,
    pub fork: u8,
    pub count: u8,
    pub pool: u16,
    pub claim_flags: u16,
    pub reserved: u32,
    pub deadline: u64,
    pub request_lsn: u64,
    pub claim_seq: u64,
}

const _: () = assert!(size_of::<Claim>() == 72);

extern "C" {
    pub fn shmuring_strerror(code: c_int) -> *const c_char;
    pub fn shmuring_region_size(options: *const ApiOptions, bytes: *mut u64) -> c_int;
    pub fn shmuring_region_init(
        base: *mut c_void,
        len: usize,
        options: *const ApiOptions,
        lock_path: *const c_char,
        out: *mut Handle,
        err: *mut ApiError,
    ) -> c_int;
    pub fn shmuring_region_attach_memory(
        base: *mut c_void,
        len: usize,
        lock_path: *const c_char,
        out: *mut Handle,
        err: *mut ApiError,
    ) -> c_int;
    pub fn shmuring_region_fd(region: Handle) -> c_int;
    pub fn shmuring_region_info(region: Handle, info: *mut ApiInfo) -> c_int;
    pub fn shmuring_region_register_pool(
        region: Handle,
        pool: u16,
        base: *mut c_void,
        stride: usize,
        count: u32,
        err: *mut ApiError,
    ) -> c_int;
    pub fn shmuring_region_detach(region: Handle) -> c_int;
    pub fn shmuring_written_note(region: Handle, rel: ApiRel, block: u32, lsn: u64) -> c_int;
    pub fn shmuring_written_note_range(region: Handle, rel: ApiRel, first: u32, count: u32, lsn: u64) -> c_int;
    pub fn shmuring_written_note_relation(region: Handle, rel: ApiRel, lsn: u64) -> c_int;
    pub fn shmuring_written_note_all(region: Handle, lsn: u64) -> c_int;
    pub fn shmuring_written_get(region: Handle, rel: ApiRel, block: u32, lsn: *mut u64) -> c_int;
    pub fn shmuring_written_get_range(region: Handle, rel: ApiRel, first: u32, count: u32, lsns: *mut u64) -> c_int;
    pub fn shmuring_written_get_relation(region: Handle, rel: ApiRel, lsn: *mut u64) -> c_int;
    pub fn shmuring_written_get_database(region: Handle, db_oid: u32, lsn: *mut u64) -> c_int;
    pub fn shmuring_written_floor(region: Handle, lsn: *mut u64) -> c_int;
    pub fn shmuring_server_reset_written(server: Handle, floor: u64) -> c_int;
    pub fn shmuring_shard_of(region: Handle, rel: ApiRel, block: u32) -> c_int;
    pub fn shmuring_cached_rel_size(b: Handle, rel: ApiRel, out: *mut ApiRelSize) -> c_int;
    pub fn shmuring_owner_statistics(region: Handle, first: u32, out: *mut u64) -> c_int;
    pub fn shmuring_role_statistics(region: Handle, out: *mut u64) -> c_int;

    pub fn shmuring_server_begin(region: Handle, identifier: u64, out: *mut Handle, err: *mut ApiError) -> c_int;
    pub fn shmuring_server_settle(server: Handle, wait: *const ApiWait) -> c_int;
    pub fn shmuring_server_end(server: Handle) -> c_int;

    pub fn shmuring_backend_attach(
        region: Handle,
        first: u32,
        count: u32,
        out: *mut Handle,
        err: *mut ApiError,
    ) -> c_int;
    pub fn shmuring_backend_attach_any(region: Handle, count: u32, out: *mut Handle, err: *mut ApiError) -> c_int;
    pub fn shmuring_backend_usable(b: Handle) -> c_int;
    pub fn shmuring_next_leftover(b: Handle, wait: *const ApiWait, out: *mut ApiLeftover) -> c_int;
    pub fn shmuring_backend_detach(b: Handle, wait: *const ApiWait) -> c_int;
    pub fn shmuring_backend_free(b: Handle) -> c_int;

    pub fn shmuring_free_slot(b: Handle) -> c_int;
    pub fn shmuring_wait_free(b: Handle, wait: *const ApiWait) -> c_int;
    pub fn shmuring_fill(b: Handle, slot: u32, request: *const ApiRequest) -> i64;
    pub fn shmuring_fill_get_page(b: Handle, slot: u32, rel: ApiRel, block: u32, lsn: u64) -> i64;
    pub fn shmuring_submit(b: Handle, reference: i64) -> c_int;
    pub fn shmuring_start(b: Handle, request: *const ApiRequest) -> i64;
    pub fn shmuring_start_get_page(b: Handle, rel: ApiRel, block: u32, lsn: u64) -> i64;
    pub fn shmuring_submit_many(b: Handle, references: *const i64, n: usize) -> c_int;
    pub fn shmuring_poll(b: Handle, reference: i64) -> c_int;
    pub fn shmuring_state(b: Handle, slot: u32) -> c_int;
    pub fn shmuring_wait(b: Handle, reference: i64, wait: *const ApiWait) -> c_int;
    pub fn shmuring_wait_any(b: Handle, references: *const i64, n: usize, wait: *const ApiWait) -> c_int;
    pub fn shmuring_result(b: Handle, reference: i64, out: *mut Completion) -> c_int;
    pub fn shmuring_page(b: Handle, reference: i64, i: u32, page: *mut *const c_void) -> c_int;
    pub fn shmuring_finish(b: Handle, reference: i64, out: *mut Completion) -> c_int;
    pub fn shmuring_cancel(b: Handle, reference: i64, wait: *const ApiWait) -> c_int;
    pub fn shmuring_forget(b: Handle, reference: i64) -> c_int;
    pub fn shmuring_call(
        b: Handle,
        request: *const ApiRequest,
        wait: *const ApiWait,
        to: *mut c_void,
        len: usize,
        out: *mut Completion,
    ) -> c_int;

    pub fn shmuring_communicator_take_role(region: Handle, out: *mut Handle, err: *mut ApiError) -> c_int;
    pub fn shmuring_communicator_release_role(c: Handle) -> c_int;
    pub fn shmuring_communicator_epoch(c: Handle) -> u32;
    pub fn shmuring_communicator_inherited(c: Handle) -> c_int;
    pub fn shmuring_communicator_sweep(c: Handle, claims: *mut Claim, max: u32) -> c_int;
    pub fn shmuring_communicator_reap(c: Handle, to: u32, claims: *mut Claim, max: u32) -> c_int;
    pub fn shmuring_communicator_reap_or_park(c: Handle, to: u32, claims: *mut Claim, max: u32, ns: u64) -> c_int;
    pub fn shmuring_communicator_audit(c: Handle, claims: *mut Claim, max: u32) -> c_int;
    pub fn shmuring_communicator_wake(c: Handle) -> c_int;
    pub fn shmuring_communicator_keep_sizes(c: Handle, flags: u32) -> c_int;

    pub fn shmuring_claim_is_cancelled(c: Handle, claim: i64) -> c_int;
    pub fn shmuring_claim_block_lsn(c: Handle, claim: i64, i: u32, lsn: *mut u64) -> c_int;
    pub fn shmuring_claim_begin_copy(c: Handle, claim: i64) -> c_int;
    pub fn shmuring_claim_deliver(c: Handle, claim: i64, i: u32, page: *const c_void, bytes: usize) -> c_int;
    pub fn shmuring_claim_take_image(c: Handle, claim: i64, i: u32, page: *mut c_void, bytes: usize) -> c_int;
    pub fn shmuring_claim_suspend(c: Handle, claim: i64) -> c_int;
    pub fn shmuring_claim_complete(c: Handle, claim: i64, value: u64, lsn: u64) -> c_int;
    pub fn shmuring_claim_fail(c: Handle, claim: i64, error: c_int, value: u64, attempts: u16) -> c_int;
    pub fn shmuring_claim_drop(c: Handle, claim: i64) -> c_int;
    pub fn shmuring_claim_forget_size(c: Handle, claim: i64) -> c_int;
}
