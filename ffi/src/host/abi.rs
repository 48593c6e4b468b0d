//! The layout that `shmuring/host.h` repeats; see the crate's `abi`.

use core::mem::{offset_of, size_of};

use super::claims::ApiClaim;
#[cfg(feature = "host")]
use super::{config::ApiHostConfig, record::ApiLogRecord};
use crate::abi::{layouts, Layout};

layouts! {
    /// What a communicator in C is told.
    CLAIMS:
    ApiClaim = shmuring_claim: 72 {
        name = ref @ 0, lsn = lsn @ 8, spc_oid = spc_oid @ 16, db_oid = db_oid @ 20, rel_number = rel_number @
        24, block = block @ 28, arg = arg @ 32, opcode = opcode @ 36, flags = flags @ 37, fork = fork @ 38,
        count = count @ 39, pool = pool @ 40, claim_flags = claim_flags @ 42, reserved = reserved @ 44, deadline
        = deadline @ 48, request_lsn = request_lsn @ 56, claim_seq = claim_seq @ 64,
    }
}

#[cfg(feature = "host")]
layouts! {
    /// What starting and listening to a host takes and gives.
    HOST:
    ApiLogRecord = shmuring_log_record: 1024 {
        level = level @ 0, reserved = reserved @ 4, dropped = dropped @ 8, when = when @ 16, target = target @
        24, text = text @ 88,
    }
    ApiHostConfig = shmuring_host_config: 120 {
        size = size @ 0, region = region @ 8, region_path = region_path @ 16, service = service @ 24, log = log
        @ 32, user = user @ 40, log_level = log_level @ 48, threads = threads @ 52, grace_ms = grace_ms @ 56,
        gather = gather @ 60, gather_us = gather_us @ 64, forget_every_s = forget_every_s @ 68, memtable_bytes =
        memtable_bytes @ 72, history_bytes = history_bytes @ 80, cache_bytes = cache_bytes @ 88,
        prefetch_bytes = prefetch_bytes @ 96, cache_file = cache_file @ 104, cache_file_bytes = cache_file_bytes @ 112,
    }
}

/// Numbers of the header, by name.
pub const NUMBERS: &[(&str, i64)] = &[
    ("SHMURING_CLAIM_AGAIN", super::claims::AGAIN as i64),
    ("SHMURING_ERR_WITHDRAWN", super::claims::WITHDRAWN as i64),
    ("SHMURING_SIZES_OF_READS", super::sizes::OF_READS as i64),
    #[cfg(feature = "host")]
    ("SHMURING_LOG_ERROR", super::record::ERROR as i64),
    #[cfg(feature = "host")]
    ("SHMURING_LOG_WARN", super::record::WARN as i64),
    #[cfg(feature = "host")]
    ("SHMURING_LOG_INFO", super::record::INFO as i64),
    #[cfg(feature = "host")]
    ("SHMURING_LOG_DEBUG", super::record::DEBUG as i64),
    #[cfg(feature = "host")]
    ("SHMURING_LOG_TARGET", super::record::TARGET as i64),
    #[cfg(feature = "host")]
    ("SHMURING_LOG_TEXT", super::record::TEXT as i64),
];
