//! The last-written table: since when a page was certainly not modified (I11, R12). Anyone notes and asks, from any
//! process: no lock, no allocation, no system call.
//!
//! # What
//! Buckets of one cache line: [`WAYS`] entries of (tag, LSN), and the maximum of what has no entry any more. A note
//! raises the entry of its key, or takes the place of the entry with the smallest LSN, which goes into the maximum
//! first. An answer is the larger of the maximum and of the entries with the key's tag. What is evicted is older than
//! what stays, so the maximum hides no entry: keys written lately are answered exactly, others as old as the newest
//! that had to leave that one bucket.
//!
//! # Keys
//! A block; a chunk of [`CHUNK`] blocks (1 MiB), for ranges; a relation fork's metadata (its size, whether it exists);
//! a database's. [`Written::get`] is the larger of block, chunk and floor.
//!
//! # Invariants
//! W1: for each note that has ended, the bucket's maximum is at least its LSN, or an entry of its tag is. The maximum
//! only grows; an entry changes only to a larger LSN of the same tag, or when the maximum is at least its LSN. So no
//! two notes spoil each other, a false match of tags only raises an answer, and every step may be a process's last.
//! W2: an answer is at most the largest LSN noted (rounded up to a multiple of 8, which every PostgreSQL LSN is), or
//! the floor.
//!
//! # What the embedder owes (R12)
//! Note the page's LSN before the write is submitted, and let the page leave the caches afterwards: then whoever misses
//! it there sees the note. An image without an LSN (new pages, minimal WAL, free space maps) is noted with the insert
//! position.
//!
//! # Progress
//! Bounded loops, but for `fetch_max`, which on x86-64 is a loop of compare-exchanges: notes of smaller LSNs that keep
//! coming in between delay it, and the first larger one ends it.

use crate::layout::WrittenBucket;
use crate::parts::Parts;
use crate::request::{Lsn, RelTag};
use crate::sync::{ord, AtomicU64, Ordering};

/// Blocks of a chunk: 1 MiB of 8 KiB blocks.
pub const CHUNK: u32 = 128;
/// Largest range that is noted block by block.
const MAX_SINGLE: u32 = 8;
/// Most chunks that one note touches; a range of more raises the floor.
const MAX_CHUNKS: u32 = 64;
/// Tries of a note before it goes to the maximum, which is always right.
const MAX_TRIES: u32 = if cfg!(feature = "loom") { 2 } else { 4 };
/// An entry's LSN is in units of 8 bytes, as WAL positions are; 52 bits of them are 32 PiB. What is beyond goes to the
/// maximum.
const UNIT: u64 = 8;
const TAG_SHIFT: u32 = 52;
const LIMIT: u64 = 1 << TAG_SHIFT;
/// More than a bucket has entries; their number fits the bits of a tag.
const MOST_WAYS: usize = 8;

/// Kinds of keys.
const BLOCK: u64 = 0;
const CHUNK_OF_BLOCKS: u64 = 1 << 8;
const RELATION: u64 = 2 << 8;
const DATABASE: u64 = 3 << 8;

/// The last-written table of a region. Cheap to copy; any process and thread may use it.
#[derive(Clone, Copy, Debug)]
pub struct Written<'r> {
    floor: &'r AtomicU64,
    buckets: &'r [WrittenBucket],
}

impl<'r> Parts<'r> {
    /// The last-written table. Without buckets every note raises the floor.
    #[inline]
    #[must_use]
    pub fn last_written(&self) -> Written<'r> {
        Written { floor: &self.header.tables.floor, buckets: self.written }
    }
}

impl Written<'_> {
    /// Notes that `block` is written with page LSN `lsn`. Call it before that write is submitted.
    #[inline]
    pub fn note(&self, rel: RelTag, block: u32, lsn: Lsn) {
        self.note_key(hash(rel, BLOCK, block), lsn);
    }

    /// Notes that `count` blocks from `first` on are written, none with a larger LSN than `lsn`. More than 8 blocks are
    /// noted as whole chunks, more than 64 chunks by raising the floor.
    pub fn note_range(&self, rel: RelTag, first: u32, count: u32, lsn: Lsn) {
        let Some(more) = count.checked_sub(1) else { return };
        let last = first.saturating_add(more);
        if count <= MAX_SINGLE {
            (first..=last).for_each(|block| self.note(rel, block, lsn));
        } else if last / CHUNK - first / CHUNK < MAX_CHUNKS {
            (first / CHUNK..=last / CHUNK).for_each(|c| self.note_key(hash(rel, CHUNK_OF_BLOCKS, c), lsn));
        } else {
            self.note_all(lsn);
        }
    }

    /// Notes a change of the fork's size or existence, for its database as well.
    pub fn note_relation(&self, rel: RelTag, lsn: Lsn) {
        self.note_key(hash(rel, RELATION, 0), lsn);
        self.note_key(hash(database(rel.db_oid), DATABASE, 0), lsn);
    }

    /// Notes that anything may have changed: a whole relation or database. Raises the floor, so every answer.
    pub fn note_all(&self, lsn: Lsn) {
        // Relaxed: the embedder's edges carry it (R12).
        self.floor.fetch_max(lsn, Ordering::Relaxed);
    }

    /// An LSN since when the block was not modified: never lower than the truth.
    #[inline]
    #[must_use]
    pub fn get(&self, rel: RelTag, block: u32) -> Lsn {
        let chunk = hash(rel, CHUNK_OF_BLOCKS, block / CHUNK);
        self.get_key(hash(rel, BLOCK, block)).max(self.get_key(chunk)).max(self.floor())
    }

    /// The same for each of the blocks from `first` on.
    pub fn get_range(&self, rel: RelTag, first: u32, lsns: &mut [Lsn]) {
        for (block, lsn) in (first..=u32::MAX).zip(lsns) {
            *lsn = self.get(rel, block);
        }
    }

    /// An LSN since when neither the fork's size nor its existence changed.
    #[must_use]
    pub fn get_relation(&self, rel: RelTag) -> Lsn {
        self.get_key(hash(rel, RELATION, 0)).max(self.floor())
    }

    /// An LSN since when no fork of the database changed its size or existence.
    #[must_use]
    pub fn get_database(&self, db_oid: u32) -> Lsn {
        self.get_key(hash(database(db_oid), DATABASE, 0)).max(self.floor())
    }

    /// No answer is below it.
    #[inline]
    #[must_use]
    pub fn floor(&self) -> Lsn {
        // Relaxed: as in `note_all`.
        self.floor.load(Ordering::Relaxed)
    }

    /// Forgets every note; from now on nothing counts as older than `floor`. For a new server life alone, before it
    /// issues a request ([`crate::communicator::ServerLife::reset_written`]).
    #[cfg(not(any(feature = "loom", feature = "shuttle")))]
    pub(crate) fn reset(&self, floor: Lsn) {
        // Relaxed, all: nobody of the old life runs any more, and whoever comes is started by this process.
        for bucket in self.buckets {
            bucket.evicted.store(0, Ordering::Relaxed);
            bucket.entries.iter().for_each(|e| e.store(0, Ordering::Relaxed));
        }
        self.floor.store(floor, Ordering::Relaxed);
    }

    #[inline]
    fn note_key(&self, hash: u64, lsn: Lsn) {
        match self.bucket(hash) {
            Some(bucket) => note(bucket, tag(hash), lsn),
            None => self.note_all(lsn),
        }
    }

    #[inline]
    fn get_key(&self, hash: u64) -> Lsn {
        self.bucket(hash).map_or(0, |bucket| newest(bucket, tag(hash)))
    }

    /// `None` only where there are no buckets at all.
    #[inline]
    fn bucket(&self, hash: u64) -> Option<&WrittenBucket> {
        // The high half chooses the bucket, the low bits are the tag. Fewer than 2^32 buckets: the product fits.
        self.buckets.get(((hash >> 32).wrapping_mul(self.buckets.len() as u64) >> 32) as usize)
    }
}

/// The stand-in for a database among relations.
const fn database(db_oid: u32) -> RelTag {
    RelTag { spc_oid: 0, db_oid, rel_number: 0, fork: 0 }
}

/// Two rounds of a folded multiplication; the same in every process of a region (layout hash). A poor spread would make
/// answers younger, never wrong.
#[inline]
fn hash(rel: RelTag, kind: u64, number: u32) -> u64 {
    let fold = |a: u64, b: u64| {
        let wide = u128::from(a).wrapping_mul(u128::from(b));
        (wide >> 64) as u64 ^ wide as u64
    };
    let place = u64::from(rel.spc_oid) << 32 | u64::from(rel.db_oid);
    let block = u64::from(rel.rel_number) << 32 | u64::from(number);
    let kind = kind | u64::from(rel.fork);
    let first = fold(block ^ 0x8bb8_4b93_962e_acc9, place.rotate_left(16) ^ 0x2d35_8dcc_aa6c_78a5);
    fold(first ^ kind, 0x9e37_79b9_7f4a_7c15)
}

#[inline]
fn tag(hash: u64) -> u64 {
    hash << TAG_SHIFT
}

/// The answer of one bucket: 0 if nothing of this tag was ever noted in it.
#[inline]
fn newest(bucket: &WrittenBucket, tag: u64) -> Lsn {
    // With its LSN inverted and its tag taken away, an entry is below LIMIT if the tag is equal, and the newest is the
    // least: an exclusive-or and a minimum for each.
    let mut least = u64::MAX;
    for entry in &bucket.entries {
        // ORD(LW_1): pairs with the Release in `note`; whoever misses an entry sees the maximum that it went into.
        least = least.min(entry.load(ord!(LW_1, Acquire)) ^ (tag | (LIMIT - 1)));
    }
    let newest = if least < LIMIT { LIMIT - 1 - least } else { 0 };
    // Relaxed: after the entries, by their Acquire.
    (newest * UNIT).max(bucket.evicted.load(Ordering::Relaxed))
}

/// Makes sure of W1 for this tag and LSN.
#[inline]
fn note(bucket: &WrittenBucket, tag: u64, lsn: Lsn) {
    let units = lsn.div_ceil(UNIT);
    for _ in 0..if units < LIMIT { MAX_TRIES } else { 0 } {
        let Some((entry, found)) = place(bucket, tag, units) else { return };
        if (found ^ tag) >= LIMIT {
            // Another key's, or empty: it leaves, if this one is not the older.
            let leaves = found % LIMIT;
            // Relaxed: read-modify-writes and one's own reads are in order; who reads later comes by the embedder's
            // edges.
            if bucket.evicted.load(Ordering::Relaxed) >= lsn {
                return;
            }
            if leaves >= units {
                break;
            }
            if leaves != 0 {
                bucket.evicted.fetch_max(leaves * UNIT, Ordering::Relaxed);
            }
        }
        // ORD(LW_1): pairs with the Acquire in `newest`; publishes the maximum that the replaced entry went into.
        if entry.compare_exchange(found, tag | units, ord!(LW_1, Release), Ordering::Relaxed).is_ok() {
            return;
        }
    }
    bucket.evicted.fetch_max(lsn, Ordering::Relaxed);
}

/// The entry to raise, and its word: the tag's own, else the one with the smallest LSN. `None`: noted already.
#[inline]
fn place(bucket: &WrittenBucket, tag: u64, units: u64) -> Option<(&AtomicU64, u64)> {
    // The LSN without its tag, and the number of the entry in the bits that the tag leaves.
    let mut least = u64::MAX;
    for (number, entry) in (0u64..).zip(&bucket.entries) {
        // Relaxed: what is seen here and still there counts, and the compare-exchange tells the rest.
        let word = entry.load(Ordering::Relaxed);
        let own = word ^ tag;
        if own < LIMIT {
            return (own < units).then_some((entry, word));
        }
        least = least.min(word << (64 - TAG_SHIFT) | number);
    }
    let entry = bucket.entries.get(least as usize % MOST_WAYS)?;
    // It may have changed, so it is looked at anew.
    let word = entry.load(Ordering::Relaxed);
    let own = word ^ tag;
    (own >= LIMIT || own < units).then_some((entry, word))
}
