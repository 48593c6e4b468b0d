//! The tables behind the bounce buffers: when pages were last written, and how many blocks relations have.

use crate::sync::{AtomicU64, UnsafeCell};

/// Entries of a bucket of the last-written table: with its maximum they fill a cache line. (Models have few, so that
/// something is evicted within a few steps.)
pub const WAYS: usize = if cfg!(any(feature = "loom", feature = "shuttle")) { 1 } else { 7 };
/// Relation sizes of a set: a pair of cache lines.
pub const SET: usize = if cfg!(any(feature = "loom", feature = "shuttle")) { 1 } else { 4 };

/// What the creator fixed about the tables: as [`super::Config`], plain words that never change after the magic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TableConfig {
    /// Buckets of the last-written table.
    pub written_buckets: u32,
    /// Sets of relation sizes.
    pub size_sets: u32,
    /// Offsets in bytes: the last-written table, the relation sizes.
    pub offsets: [u64; 2],
}

/// Sizes of the tables, and the words that hold for all of one. Read by every lookup, written seldom.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Tables {
    /// What the creator fixed.
    pub config: UnsafeCell<TableConfig>,
    /// No page counts as written before this LSN. Anyone raises it; a new server life sets it (R12).
    pub floor: AtomicU64,
    /// The server life whose relation sizes are in the cache. The communicator stores.
    pub sizes_life: AtomicU64,
}

/// A bucket of the last-written table (lsn/written.rs): one cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct WrittenBucket {
    /// The largest LSN that has no entry any more. Only grows.
    pub evicted: AtomicU64,
    /// `tag << 52 | LSN / 8`; 0: empty.
    pub entries: [AtomicU64; WAYS],
}

/// The size of a relation fork (lsn/rel_size). The communicator alone writes it.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SizeEntry {
    /// Bit 0: the other words are whole; bit 1: set by a change; from bit 8 on the number of the version.
    pub stamp: AtomicU64,
    /// Tablespace and database: `spc_oid << 32 | db_oid`.
    pub place: AtomicU64,
    /// `rel_number << 32 | blocks`; the largest number of blocks: no such relation.
    pub size: AtomicU64,
    /// `fork << 56 | LSN`: of the change that made it so, or as of which it was read.
    pub lsn: AtomicU64,
}

/// The entries that a relation fork may be in.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct SizeSet {
    /// The entries.
    pub entries: [SizeEntry; SET],
}
