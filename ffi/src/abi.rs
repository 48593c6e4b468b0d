//! The layout that the C headers repeat: every structure, every field, its offset, checked by this compiler here and by
//! the C compiler there.
//!
//! A field that is added, removed or moved in the library stops this file from compiling; the test `header` demands
//! that the C headers say the same as [`LAYOUT`] and [`CALLS`].

use core::mem::{offset_of, size_of};

use shmuring::layout::{
    Alone32, Alone64, Cell, Config, Control, Header, Life, OwnerStats, PoolCheck, Role, RoleStats, ShardMark, Shards,
    SizeEntry, SizeSet, Slot, TableConfig, Tables, WrittenBucket,
};
use shmuring::request::{Completion, RawExtra, RawRequest, RawVector};

use crate::api::{ApiError, ApiInfo, ApiLeftover, ApiOptions, ApiRel, ApiRelSize, ApiRequest, ApiWait};
use crate::backend::ApiHead;

/// A structure: its name in C, its bytes, and its fields' names in C and offsets.
pub type Layout = (&'static str, usize, &'static [(&'static str, usize)]);

/// States the layout of structures: `RustName = c_name: bytes { rust_field = c_field @ offset, ... }`.
macro_rules! layouts {
    ($(#[$doc:meta])* $all:ident:
        $($t:ident = $c:ident: $size:literal { $($field:tt = $cfield:ident @ $at:literal),* $(,)? })*) => {
        $(
            const _: () = {
                assert!(size_of::<$t>() == $size);
                $(assert!(offset_of!($t, $field) == $at);)*
            };
            const _: fn($t) = |all| {
                // No `..`: a field that is not listed here is an error.
                let $t { $($field: _),* } = all;
            };
        )*
        $(#[$doc])*
        pub const $all: &[Layout] = &[
            $((stringify!($c), $size, &[$((stringify!($cfield), $at)),*])),*
        ];
    };
}

#[cfg(feature = "communicator")]
pub(crate) use layouts;

layouts! {
    /// Every structure that lies in a region.
    LAYOUT:
    Config = shmuring_config: 120 {
        abi_version = abi_version @ 0, slots = slots @ 4, layout_hash = layout_hash @ 8, features = features @ 16,
        total_len = total_len @ 24, region_id = region_id @ 32, capacity = capacity @ 48,
        bounce_per_slot = bounce_per_slot @ 52, block_size = block_size @ 56, time_namespace = time_namespace @ 60,
        offsets = offsets @ 64, lock_file = lock_file @ 112,
    }
    Alone64 = shmuring_alone64: 128 { 0 = value @ 0 }
    Alone32 = shmuring_alone32: 128 { 0 = value @ 0 }
    Role = shmuring_role: 128 {
        epoch = epoch @ 0, pid = pid @ 4, claim_seq = claim_seq @ 8, since = since @ 16, reserved = reserved @ 24,
    }
    Life = shmuring_life: 128 { life = life @ 0, pid = pid @ 4, system_identifier = system_identifier @ 8 }
    PoolCheck = shmuring_pool_check: 128 { 0 = stride_and_count @ 0 }
    TableConfig = shmuring_table_config: 24 {
        written_buckets = written_buckets @ 0, size_sets = size_sets @ 4, offsets = offsets @ 8,
    }
    Tables = shmuring_tables: 128 { config = config @ 0, floor = floor @ 24, sizes_life = sizes_life @ 32 }
    ShardMark = shmuring_shard_mark: 32 {
        proved = proved @ 0, told = told @ 8, raised_at = raised_at @ 16, waiting = waiting @ 24,
    }
    Shards = shmuring_shards: 2176 {
        epoch = epoch @ 0, count = count @ 8, stripe = stripe @ 16, written_at = written_at @ 24, marks = marks @ 32,
    }
    Header = shmuring_header: 3456 {
        magic = magic @ 0, config = config @ 8, tail = tail @ 128, head = head @ 256, parked = parked @ 384,
        sequence = sequence @ 512, any = any @ 640, role = role @ 768, life = life @ 896, pools = pools @ 1024,
        tables = tables @ 1152, shards = shards @ 1280,
    }
    RoleStats = shmuring_role_stats: 1024 { counters = counters @ 0, service = service @ 256, blocked = blocked @ 832 }
    OwnerStats = shmuring_owner_stats: 384 { counters = counters @ 0, latency = latency @ 128 }
    RawRequest = shmuring_raw_request: 36 {
        lsn = lsn @ 0, spc_oid = spc_oid @ 8, db_oid = db_oid @ 12, rel_number = rel_number @ 16, block = block @ 20,
        arg = arg @ 24, opcode = opcode @ 28, flags = flags @ 29, fork = fork @ 30, count = count @ 31,
        pool = pool @ 32, reserved = reserved @ 34,
    }
    Completion = shmuring_completion: 20 {
        errno = error @ 0, attempts = attempts @ 2, value = value @ 4, lsn = lsn @ 12,
    }
    RawExtra = shmuring_raw_extra: 16 { deadline = deadline @ 0, request_lsn = request_lsn @ 8 }
    Control = shmuring_control: 32 {
        life = life @ 0, owner_first = owner_first @ 4, owner_count = owner_count @ 8, owner_pid = owner_pid @ 12,
        extra = extra @ 16,
    }
    RawVector = shmuring_raw_vector: 384 { lsns = lsns @ 0, buffers = buffers @ 256 }
    Slot = shmuring_slot: 512 {
        word = word @ 0, request = request @ 8, result = result @ 44, control = control @ 64,
        claim_seq = claim_seq @ 96, claimed_at = claimed_at @ 104, waiting_since = waiting_since @ 112,
        orphan = orphan @ 120, vector = vector @ 128,
    }
    Cell = shmuring_cell: 64 { 0 = value @ 0 }
    WrittenBucket = shmuring_written_bucket: 64 { evicted = evicted @ 0, entries = entries @ 8 }
    SizeEntry = shmuring_size_entry: 32 { stamp = stamp @ 0, place = place @ 8, size = size @ 16, lsn = lsn @ 24 }
    SizeSet = shmuring_size_set: 128 { entries = entries @ 0 }
}

layouts! {
    /// Every structure that a call takes or gives.
    CALLS:
    ApiError = shmuring_error: 256 { code = code @ 0, text = text @ 4 }
    ApiOptions = shmuring_region_options: 32 {
        slots = slots @ 0, bounce_per_slot = bounce_per_slot @ 4, block_size = block_size @ 8,
        written_buckets = written_buckets @ 12, rel_sizes = rel_sizes @ 16, reserved = reserved @ 20,
    }
    ApiInfo = shmuring_region_info: 80 {
        slots = slots @ 0, bounce_per_slot = bounce_per_slot @ 4, block_size = block_size @ 8, life = life @ 12,
        bytes = bytes @ 16, id = id @ 24, features = features @ 40, epoch = epoch @ 48,
        communicator = communicator @ 52, is_read_only = is_read_only @ 56, reserved = reserved @ 60,
    }
    ApiRel = shmuring_rel: 16 {
        spc_oid = spc_oid @ 0, db_oid = db_oid @ 4, rel_number = rel_number @ 8, fork = fork @ 12,
        reserved = reserved @ 13,
    }
    ApiRequest = shmuring_request: 96 {
        lsn = lsn @ 0, spc_oid = spc_oid @ 8, db_oid = db_oid @ 12, rel_number = rel_number @ 16, block = block @ 20,
        arg = arg @ 24, opcode = opcode @ 28, flags = flags @ 29, fork = fork @ 30, count = count @ 31,
        pool = pool @ 32, reserved = reserved @ 34, reserved2 = reserved2 @ 36, deadline = deadline @ 40,
        request_lsn = request_lsn @ 48, block_lsns = block_lsns @ 56, buffers = buffers @ 64, image = image @ 72,
        reserved3 = reserved3 @ 80,
    }
    ApiWait = shmuring_wait: 24 { until = until @ 0, interrupt = interrupt @ 8, reserved = reserved @ 16 }
    ApiRelSize = shmuring_rel_size: 24 {
        blocks = blocks @ 0, lsn = lsn @ 8, is_changed = is_changed @ 16, reserved = reserved @ 20,
    }
    ApiHead = shmuring_backend_head: 24 { limit = limit @ 0, slots = slots @ 8, first = first @ 16, count = count @ 20 }
    ApiLeftover = shmuring_leftover: 68 {
        slot = slot @ 0, generation = generation @ 4, request = request @ 8, fate = fate @ 44, result = result @ 48,
    }
}
