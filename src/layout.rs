//! Every byte of a region: the structures, where they lie, and the compile-time proof of it.
//!
//! # What
//! A region is, in this order: [`Header`], [`RoleStats`], the pending bitmap, an [`OwnerStats`] a slot, the request
//! slots, the cells of the submission ring, the bounce buffers, the last-written table, the relation sizes (`tables`).
//! [`Geometry`] computes the offsets from six numbers; an attaching process computes them again and compares, so no
//! offset read from shared memory is ever used.
//!
//! # Invariants
//! Offsets and indexes only, no pointer. Producer-written, consumer-written and read-mostly fields never share a
//! 128-byte pair of cache lines. docs/layout.md draws the byte rulers.

mod geometry;
mod shards;
mod tables;

pub use geometry::{Geometry, MAX_SLOTS};
pub use shards::{ShardMark, Shards, MAX_SHARDS};
pub use tables::{SizeEntry, SizeSet, TableConfig, Tables, WrittenBucket, SET, WAYS};

use crate::request::{Completion, PlainRead, RawExtra, RawRequest, RawVector, Words};
use crate::sync::{AtomicU32, AtomicU64, Tally, UnsafeCell};

/// First eight bytes of a finished region: "shmuring", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"shmuring");
/// Raised whenever the meaning of a byte changes.
pub const ABI_VERSION: u32 = 3;
/// Features that a region can require of whoever attaches. None yet.
pub const FEATURES: u64 = 0;
/// Most buffer pools, the bounce pool (0) included.
pub const MAX_POOLS: usize = 16;
/// The block size unless the creator says otherwise, in bytes: PostgreSQL's.
pub const DEFAULT_BLOCK_SIZE: u32 = 8192;

/// What the creator fixed, copied and checked once at attach; never read again. Its words are plain: written before the
/// magic is, immutable after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`ABI_VERSION`] of the creator.
    pub abi_version: u32,
    /// Request slots.
    pub slots: u32,
    /// [`layout_hash`] of the creator.
    pub layout_hash: u64,
    /// Features an attacher must know.
    pub features: u64,
    /// Bytes of the whole region.
    pub total_len: u64,
    /// Random; tells this region from every other (cache files name it, R13).
    pub region_id: [u64; 2],
    /// Cells of the submission ring, a power of two.
    pub capacity: u32,
    /// Bounce buffers that belong to each slot.
    pub bounce_per_slot: u32,
    /// Bytes of a block, a power of two from 512 to 65536.
    pub block_size: u32,
    /// Inode of the creator's time namespace, 0 if it could not be told: in another one, deadlines mean nothing (R18).
    pub time_namespace: u32,
    /// Offsets of the parts in bytes: role statistics, pending bitmap, owner statistics, slots, cells, bounce buffers.
    pub offsets: [u64; 6],
    /// Identity of the lock file beside adopted memory; 0: the region's own file carries the locks (R3).
    pub lock_file: u64,
}

/// One u64 alone on a 128-byte pair of cache lines.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Alone64(pub AtomicU64);

/// One u32 alone on a 128-byte pair of cache lines.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Alone32(pub AtomicU32);

/// Who serves: written by a communicator when it takes the role, and for each mutation it claims.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Role {
    /// Number of the present term of the role; raised by each communicator under the role lock.
    pub epoch: AtomicU32,
    /// Process id of the holder: for messages only, never for a decision (R3).
    pub pid: AtomicU32,
    /// Last claim number given to a mutation (R4).
    pub claim_seq: AtomicU64,
    /// When the holder took the role, ns of CLOCK_MONOTONIC; for messages only.
    pub since: Tally,
    /// What the role word of private memory without locks would say; unused with locks.
    pub reserved: AtomicU64,
}

/// Which server the region serves (R1).
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Life {
    /// Number of the present server life; slots of older ones are settled before it issues a request.
    pub life: AtomicU32,
    /// Process id of the server, for messages only.
    pub pid: AtomicU32,
    /// PostgreSQL's system identifier; 0: none yet.
    pub system_identifier: AtomicU64,
}

/// What every process agrees on about the registered pools: `stride << 32 | count`; 0 is not registered.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct PoolCheck(pub [AtomicU64; MAX_POOLS]);

/// The first page of a region.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Header {
    /// [`MAGIC`], stored last and with Release by the creator.
    pub magic: AtomicU64,
    /// What the creator fixed.
    pub config: UnsafeCell<Config>,
    /// Next ticket of the submission ring. Backends: fetch_add.
    pub tail: Alone64,
    /// Next ticket to reap. The communicator stores.
    pub head: Alone64,
    /// Park number and flag (doorbell.rs). The communicator stores; backends read it after each push.
    pub parked: Alone64,
    /// Wake sequence: the futex that the communicator sleeps on. Backends add when they ring.
    pub sequence: Alone32,
    /// Raised after a bit of the pending bitmap was set.
    pub any: Alone64,
    /// Who serves.
    pub role: Role,
    /// Which server is served.
    pub life: Life,
    /// Cross-check of the registered pools.
    pub pools: PoolCheck,
    /// The tables behind the bounce buffers.
    pub tables: Tables,
    /// How far the page service is.
    pub shards: Shards,
}

/// A cell of the submission ring: `lap << 24 | slot`, alone on its cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Cell(pub AtomicU64);

/// The second line of a slot: what is read or written seldom, so that it stays shared between the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Server life of the owner that filled the slot (R1). Owner, at attach.
    pub life: u32,
    /// First slot of the owner's range. Owner, at attach.
    pub owner_first: u32,
    /// Slots in the owner's range. Owner, at attach.
    pub owner_count: u32,
    /// Process id of the owner, for messages only. Owner, at attach.
    pub owner_pid: u32,
    /// Deadline and request LSN, by the request's flags. Owner, while Filling.
    pub extra: RawExtra,
}

/// A request slot. Who may touch which part, and when, is told by `word` alone (slot.rs).
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    /// State, waiter bit, generation (low half, the futex) and epoch of the claim (high half).
    pub word: AtomicU64,
    /// The request. Owner writes while Filling; the claim reads.
    pub request: UnsafeCell<RawRequest>,
    /// The result. The claim writes; the owner reads when Completed.
    pub result: UnsafeCell<Completion>,
    /// Owner and rare request fields.
    pub control: UnsafeCell<Control>,
    /// Claim number of a mutation; 0: not claimed since it was filled (R4). The owner zeroes it, the claim stores it.
    pub claim_seq: AtomicU64,
    /// When a deferred request was claimed, ns of CLOCK_MONOTONIC; statistics only.
    pub claimed_at: Tally,
    /// When the owner last went to sleep on it, ns of CLOCK_MONOTONIC; statistics only.
    pub waiting_since: Tally,
    /// Generation + 1 of a request whose owner was proved dead before a next owner took the slot's lock; 0: none (R5).
    pub orphan: AtomicU64,
    /// Buffers and LSNs of a vectored request.
    pub vector: UnsafeCell<RawVector>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(0),
            request: UnsafeCell::new(RawRequest::default()),
            result: UnsafeCell::new(Completion::default()),
            control: UnsafeCell::new(Control::default()),
            claim_seq: AtomicU64::new(0),
            claimed_at: Tally::new(0),
            waiting_since: Tally::new(0),
            orphan: AtomicU64::new(0),
            vector: UnsafeCell::new(RawVector::default()),
        }
    }
}

/// The request bytes as words: a load or store for eight of them. They are aligned, at byte 8 of a slot.
#[allow(unsafe_code)]
impl Slot {
    /// Copies the request bytes, which a hostile peer may change meanwhile: each word is read once (I10).
    ///
    /// # Safety
    /// The caller has the right to read them (I1).
    #[inline(always)]
    pub(crate) unsafe fn load_request(&self) -> Words {
        self.request.with(|p| {
            if cfg!(any(feature = "loom", feature = "shuttle")) {
                // The slots of a model have another layout.
                // SAFETY: the right to read is the caller's.
                return Words::from(unsafe { p.read_volatile() });
            }
            let p = p.cast::<u64>();
            // SAFETY: 36 bytes at a multiple of 8, as asserted below; volatile, so that the compiler does not read one
            // again after a check. The right to read is the caller's.
            unsafe {
                let quads =
                    [p.read_volatile(), p.add(1).read_volatile(), p.add(2).read_volatile(), p.add(3).read_volatile()];
                Words { quads, last: p.add(4).cast::<u32>().read_volatile() }
            }
        })
    }

    /// Writes the request bytes.
    ///
    /// # Safety
    /// The slot is Filling, and the caller owns it (I1).
    #[inline(always)]
    pub(crate) unsafe fn store_request(&self, words: &Words) {
        self.request.with_mut(|p| {
            if cfg!(any(feature = "loom", feature = "shuttle")) {
                // SAFETY: the right to write is the caller's.
                return unsafe { p.write(RawRequest::from(*words)) };
            }
            let p = p.cast::<u64>();
            // SAFETY: as in `load_request`; the right to write is the caller's.
            unsafe {
                p.cast::<[u64; 4]>().write(words.quads);
                p.add(4).cast::<u32>().write(words.last);
            }
        });
    }

    /// Writes the request bytes of a read.
    ///
    /// # Safety
    /// As of [`Slot::store_request`].
    #[inline(always)]
    pub(crate) unsafe fn store_read(&self, read: PlainRead) {
        if cfg!(any(feature = "loom", feature = "shuttle")) {
            // SAFETY: the caller's promise.
            return unsafe { self.store_request(&read.into()) };
        }
        self.request.with_mut(|p| {
            let PlainRead { lsn, relation, place: [rel_number, block, arg, head] } = read;
            // SAFETY: as in `load_request`; the right to write is the caller's.
            unsafe {
                p.cast::<[u64; 2]>().write([lsn, relation]);
                p.cast::<u32>().add(4).cast::<[u32; 5]>().write([rel_number, block, arg, head, 0]);
            }
        });
    }
}

/// Buckets of a latency histogram; see [`crate::stats`].
pub const BUCKETS: usize = 24;

/// Counters of one slot owner, at the place of its first slot. Written by that owner alone.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct OwnerStats {
    /// In the order of [`crate::stats::OwnerCounter`].
    pub counters: [Tally; 16],
    /// Sampled latency from submit to result.
    pub latency: [Tally; BUCKETS],
}

/// Counters of the communicator's role, kept over take-overs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct RoleStats {
    /// In the order of [`crate::stats::RoleCounter`].
    pub counters: [Tally; 32],
    /// Time from claim to completion of deferred requests, by class: demand, prefetch, background.
    pub service: [[Tally; BUCKETS]; 3],
    /// Time that requests waited for conflicting ones.
    pub blocked: [Tally; BUCKETS],
}

// SAFETY: every field that two processes touch is an atomic or is handed over by the slot word (I1); the plain words of
// `Config` and `TableConfig` are written before the magic's Release store and never after.
#[allow(unsafe_code)]
unsafe impl Sync for Header {}
// SAFETY: the cells of a slot are reached only by the party that its word names (I1); transitions carry the edges SL_n.
#[allow(unsafe_code)]
unsafe impl Sync for Slot {}

/// Types that may lie in shared memory.
///
/// # Safety
/// `repr(C)`, no pointer, no reference, no bool and no Rust enum; every bit pattern is a value.
#[allow(unsafe_code)]
pub unsafe trait Shared {}

/// Marks types as fit for shared memory, one SAFETY argument for all of them.
macro_rules! shared {
    ($($t:ty),* $(,)?) => {
        $(
            // SAFETY: repr(C), made of integers and atomics of integers only, so every bit pattern is a value.
            #[allow(unsafe_code)]
            unsafe impl Shared for $t {}
        )*
    };
}
shared!(Config, TableConfig, RawRequest, RawExtra, RawVector, Completion, Control);

// memoffset's span_of! is not const, so the spans are checked by the test below and the rest by the compiler.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
const _: () = {
    use core::mem::{align_of, offset_of, size_of};

    assert!(size_of::<Config>() == 120 && align_of::<Config>() == 8);
    assert!(size_of::<Header>() == 3456 && size_of::<Header>() <= geometry::HEADER_SPAN as usize);
    assert!(offset_of!(Header, magic) == 0 && offset_of!(Header, config) == 8);
    assert!(offset_of!(Header, tail) == 128 && offset_of!(Header, head) == 256);
    assert!(offset_of!(Header, parked) == 384 && offset_of!(Header, sequence) == 512);
    assert!(offset_of!(Header, any) == 640 && offset_of!(Header, role) == 768);
    assert!(offset_of!(Header, life) == 896 && offset_of!(Header, pools) == 1024);
    assert!(offset_of!(Header, tables) == 1152 && offset_of!(Header, shards) == 1280);
    assert!(size_of::<ShardMark>() == 32 && offset_of!(Shards, marks) == 32);

    assert!(size_of::<Cell>() == 64 && size_of::<Slot>() == 512 && align_of::<Slot>() == 64);
    assert!(size_of::<RawRequest>() == 36 && size_of::<Completion>() == 20);
    assert!(offset_of!(Slot, word) == 0 && offset_of!(Slot, request) == 8 && offset_of!(Slot, result) == 44);
    assert!(offset_of!(Slot, control) == 64 && offset_of!(Slot, claim_seq) == 96);
    assert!(offset_of!(Slot, vector) == 128 && size_of::<RawVector>() == 384);
    assert!(size_of::<OwnerStats>() == 384 && size_of::<RoleStats>() == 1024);
    assert!(size_of::<TableConfig>() == 24 && size_of::<Tables>() == 128);
    assert!(offset_of!(Tables, floor) == 24 && offset_of!(Tables, sizes_life) == 32);
    assert!(size_of::<WrittenBucket>() == 64 && offset_of!(WrittenBucket, entries) == 8);
    assert!(size_of::<SizeEntry>() == 32 && size_of::<SizeSet>() == 128);
    assert!(cfg!(target_endian = "little"), "the futex is the low half of the slot word");
};

/// A hash of every size and offset that two processes must agree on.
#[must_use]
pub const fn layout_hash() -> u64 {
    use core::mem::size_of;
    let facts = [
        ABI_VERSION as usize,
        size_of::<Header>(),
        size_of::<Config>(),
        size_of::<Tables>(),
        size_of::<RoleStats>(),
        size_of::<OwnerStats>(),
        size_of::<Slot>(),
        size_of::<Cell>(),
        size_of::<Control>(),
        core::mem::offset_of!(Slot, result),
        core::mem::offset_of!(Slot, control),
        core::mem::offset_of!(Slot, vector),
        core::mem::offset_of!(Header, tail),
        core::mem::offset_of!(Header, head),
        core::mem::offset_of!(Header, parked),
        core::mem::offset_of!(Header, role),
        core::mem::offset_of!(Header, tables),
        core::mem::offset_of!(Header, shards),
        core::mem::offset_of!(Shards, marks),
        size_of::<ShardMark>(),
        core::mem::offset_of!(RawRequest, opcode),
        core::mem::offset_of!(RawRequest, pool),
        BUCKETS,
        MAX_POOLS,
        MAX_SHARDS,
        WAYS,
        SET,
    ];
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < facts.len() {
        // In bounds by the loop condition; const code has no iterators.
        #[allow(clippy::indexing_slicing)]
        {
            h = (h ^ facts[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        }
        i += 1;
    }
    h
}

#[cfg(all(test, not(any(feature = "loom", feature = "shuttle"))))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use memoffset::span_of;

    #[test]
    fn a_one_block_request_with_its_result_and_word_fits_one_line() {
        assert_eq!(span_of!(Slot, word..control), 0..64);
        assert_eq!(span_of!(Slot, control..vector), 64..128);
    }

    #[test]
    fn fields_of_different_writers_are_on_different_pairs_of_lines() {
        let spans = [
            span_of!(Header, magic..tail),
            span_of!(Header, tail),
            span_of!(Header, head),
            span_of!(Header, parked),
            span_of!(Header, sequence),
            span_of!(Header, any),
            span_of!(Header, role),
            span_of!(Header, life),
            span_of!(Header, pools),
            span_of!(Header, tables),
            span_of!(Header, shards),
        ];
        for pair in spans.windows(2) {
            assert!((pair[0].end - 1) / 128 < pair[1].start / 128, "{pair:?}");
        }
    }
}
