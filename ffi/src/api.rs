//! The structures that calls take and give: those of `shmuring/types.h`, checked field by field in `abi`.
//!
//! They come from C, so every bit pattern is a value of each: no enum, no bool, no reference.

use core::ffi::{c_char, c_int, c_void};

use shmuring::backend::{Fate, Leftover};
use shmuring::request::{Completion, RawRequest};

/// An error in words.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiError {
    /// What the call returned.
    pub code: c_int,
    /// A sentence, ended by a 0 byte.
    pub text: [c_char; 252],
}

/// Sizes of a region to be made.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiOptions {
    /// Request slots.
    pub slots: u32,
    /// Bounce buffers a slot.
    pub bounce_per_slot: u32,
    /// Bytes of a block.
    pub block_size: u32,
    /// Buckets of the last-written table; 0: the default, [`NONE`]: no table.
    pub written_buckets: u32,
    /// Relation sizes; the same.
    pub rel_sizes: u32,
    /// 0.
    pub reserved: [u32; 3],
}

/// A table that a region is to be without.
pub const NONE: u32 = u32::MAX;

/// What there is to know of a region.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiInfo {
    /// Request slots.
    pub slots: u32,
    /// Bounce buffers a slot.
    pub bounce_per_slot: u32,
    /// Bytes of a block.
    pub block_size: u32,
    /// Number of the server life.
    pub life: u32,
    /// Bytes of the region.
    pub bytes: u64,
    /// Random number of the region.
    pub id: [u64; 2],
    /// Features of the region.
    pub features: u64,
    /// Term of the communicator.
    pub epoch: u32,
    /// 1 if a living process holds the role.
    pub communicator: u32,
    /// 1 if it is mapped for reading alone.
    pub is_read_only: u32,
    /// 0.
    pub reserved: [u32; 5],
}

/// What a relation is named by.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ApiRel {
    /// Tablespace OID.
    pub spc_oid: u32,
    /// Database OID.
    pub db_oid: u32,
    /// File number of the relation.
    pub rel_number: u32,
    /// Fork.
    pub fork: u8,
    /// 0.
    pub reserved: [u8; 3],
}

/// A request as the caller states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ApiRequest {
    /// not_modified_since, or the LSN of the change.
    pub lsn: u64,
    /// Tablespace OID.
    pub spc_oid: u32,
    /// Database OID.
    pub db_oid: u32,
    /// File number of the relation.
    pub rel_number: u32,
    /// First block, segment number, or new size.
    pub block: u32,
    /// Number of blocks of a `zero_extend`.
    pub arg: u32,
    /// An opcode.
    pub opcode: u8,
    /// Bits of `shmuring::request::flags`.
    pub flags: u8,
    /// Fork.
    pub fork: u8,
    /// Number of blocks.
    pub count: u8,
    /// The pool of `buffers`.
    pub pool: u16,
    /// 0.
    pub reserved: u16,
    /// 0.
    pub reserved2: u32,
    /// Deadline, ns of CLOCK_MONOTONIC.
    pub deadline: u64,
    /// LSN to read at.
    pub request_lsn: u64,
    /// not_modified_since of each block, or null.
    pub block_lsns: *const u64,
    /// Buffer index of each block, or null.
    pub buffers: *const u32,
    /// Images of a write by bounce buffers, or null.
    pub image: *const c_void,
    /// 0.
    pub reserved3: [u64; 2],
}

/// How long a wait may last, and what else ends it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiWait {
    /// When to give up, ns of CLOCK_MONOTONIC.
    pub until: u64,
    /// A word that ends the wait once it is not 0, or null.
    pub interrupt: *const c_int,
    /// 0.
    pub reserved: u64,
}

/// The size of a relation fork.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiRelSize {
    /// Its blocks; `shmuring::request::MISSING`: there is no such fork.
    pub blocks: u64,
    /// LSN of the change that made it so, or as of which it was read.
    pub lsn: u64,
    /// 1 if a change made it so.
    pub is_changed: u32,
    /// 0.
    pub reserved: u32,
}

/// A settled leftover.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiLeftover {
    /// Its slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// What it asked for.
    pub request: RawRequest,
    /// One of [`fate`].
    pub fate: u32,
    /// Its result, if it has one.
    pub result: Completion,
}

impl From<Leftover> for ApiLeftover {
    fn from(leftover: Leftover) -> Self {
        let none = Completion { errno: 0, attempts: 0, value: 0, lsn: 0 };
        let (fate, result) = match leftover.fate {
            Fate::Completed(result) => (fate::COMPLETED, result),
            Fate::Withdrawn => (fate::WITHDRAWN, none),
            Fate::Abandoned => (fate::ABANDONED, none),
            Fate::OwnerDead => (fate::OWNER_DEAD, none),
        };
        Self { slot: leftover.slot, generation: leftover.generation, request: leftover.request, fate, result }
    }
}

/// What a cancel came to; also the first two fates.
pub mod cancel {
    /// It never ran.
    pub const WITHDRAWN: i32 = 1;
    /// Its answer will be dropped.
    pub const ABANDONED: i32 = 2;
}

/// What became of a leftover.
pub mod fate {
    /// A read that did not run.
    pub const WITHDRAWN: u32 = super::cancel::WITHDRAWN as u32;
    /// A read whose answer will be dropped.
    pub const ABANDONED: u32 = super::cancel::ABANDONED as u32;
    /// It ran to its end.
    pub const COMPLETED: u32 = 3;
    /// A mutation that did not run and never will.
    pub const OWNER_DEAD: u32 = 4;
}

/// Errnos of what the C interface alone refuses.
pub mod errno {
    /// The handle is another thread's.
    pub const WRONG_THREAD: i32 = libc::EPERM;
    /// The handle was detached.
    pub const DETACHED: i32 = libc::EBADF;
    /// Backends are attached by way of this region handle.
    pub const IN_USE: i32 = libc::EBUSY;
    /// A bug was caught.
    pub const BUG: i32 = libc::ENOTRECOVERABLE;
}

/// Most requests of one `shmuring_wait_any`.
pub const MAX_WAIT_ANY: usize = shmuring::futex::MAX_WORDS - 1;
