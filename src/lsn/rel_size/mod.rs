//! Sizes of relation forks in the region (R2): the communicator alone writes them ([`Writer`]), backends read them
//! without a round trip ([`Sizes`]).
//!
//! # What
//! Sets of [`SET`](crate::layout::SET) entries; a fork is in one of the entries of its set, or in none. An entry is
//! whole, or being changed: a reader that meets it in the middle of a change has a miss and never waits. An answer
//! that is too small would let an extend overwrite a live block, so whatever is not certain is a miss.
//!
//! # Fields
//! `stamp`: not whole, with a new version, before anything else of the entry changes, and for as long as a mutation of
//! the fork is under way; whole, with a new version, last. The other words: the communicator, while the entry is not
//! whole.
//!
//! # Orderings
//! RS_1: the words before the whole stamp. RS_2: the stamp that is not whole before the words, so that whoever saw a
//! new word sees that the stamp has changed. RS_3: the emptied entries before the number of the life whose sizes
//! follow.
//!
//! # Recovery
//! A communicator that dies leaves entries that are right (nothing was completed since) or not whole. Its successor
//! empties the cache before its first claim ([`crate::communicator::Communicator::over`]). A backend of a new server
//! life has misses until the communicator has emptied the cache for that life.

mod effect;
mod writer;

pub use effect::effect;
pub use writer::{Asked, Change, Outcome, Writer};

use crate::layout::{SizeEntry, SizeSet};
use crate::parts::Parts;
use crate::request::{Lsn, RelTag};
use crate::sync::{ord, AtomicU64, Ordering};

/// Bits of a stamp.
const WHOLE: u64 = 1;
const CHANGED: u64 = 2;
const VERSION: u64 = 1 << 8;
/// Blocks of a fork that does not exist; a fork of so many is not kept.
const NO_FORK: u32 = u32::MAX;
/// Where the fork lies beside an LSN; an LSN that reaches it is not kept.
const FORK_SHIFT: u32 = 56;

/// What is known of a fork's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its blocks; `None`: there is no such fork.
    pub blocks: Option<u32>,
    /// LSN of the change that made it so, or as of which it was read.
    pub lsn: Lsn,
    /// Whether a change made it so: then a page server that lags has not heard of it.
    pub is_changed: bool,
}

/// The relation sizes of a region, for readers. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Sizes<'r> {
    life: &'r AtomicU64,
    sets: &'r [SizeSet],
}

impl<'r> Parts<'r> {
    /// The relation sizes, for readers.
    #[inline]
    #[must_use]
    pub fn rel_sizes(&self) -> Sizes<'r> {
        Sizes { life: &self.header.tables.sizes_life, sets: self.sizes }
    }
}

impl Sizes<'_> {
    /// The size of a fork as of server life `life`; `None`: not known here, ask the communicator. Never waits.
    #[inline]
    #[must_use]
    pub fn get(&self, rel: RelTag, life: u32) -> Option<Size> {
        // ORD(RS_3): pairs with the Release in `Writer::enter`; whoever sees the life sees older sizes gone.
        if self.life.load(ord!(RS_3, Acquire)) != u64::from(life) {
            return None;
        }
        let set = self.sets.get(set_of(rel, self.sets.len()))?;
        set.entries.iter().find_map(|entry| read(entry, rel))
    }
}

/// The size in this entry if it is the fork's, and whole from the first word read to the last.
#[inline]
fn read(entry: &SizeEntry, rel: RelTag) -> Option<Size> {
    // ORD(RS_1): pairs with the Release in `Writer::publish`; the words are at least as new as the stamp.
    let stamp = entry.stamp.load(ord!(RS_1, Acquire));
    if stamp & WHOLE == 0 {
        return None;
    }
    // ORD(RS_2): pairs with the Releases in `Writer::publish`; a newer word makes the second look at the stamp differ.
    let size = entry.size.load(ord!(RS_2, Acquire));
    if size >> 32 != u64::from(rel.rel_number) {
        return None;
    }
    let place = entry.place.load(ord!(RS_2, Acquire));
    let lsn = entry.lsn.load(ord!(RS_2, Acquire));
    if place != place_of(rel) || lsn >> FORK_SHIFT != u64::from(rel.fork) {
        return None;
    }
    // Relaxed: after the words, by their Acquire.
    if entry.stamp.load(Ordering::Relaxed) != stamp {
        return None;
    }
    let blocks = size as u32;
    Some(Size {
        blocks: (blocks != NO_FORK).then_some(blocks),
        lsn: lsn % (1 << FORK_SHIFT),
        is_changed: stamp & CHANGED != 0,
    })
}

/// Makes every entry a miss: for a communicator that takes the role, before its first claim (R2).
pub(crate) fn empty(sets: &[SizeSet]) {
    for entry in sets.iter().flat_map(|set| &set.entries) {
        begin(entry);
    }
}

/// Takes an entry away from readers.
fn begin(entry: &SizeEntry) {
    // Relaxed: we alone write it. To readers it matters only before the words (RS_2) and before a completion, which
    // carries an edge of its own.
    let stamp = entry.stamp.load(Ordering::Relaxed);
    if stamp & WHOLE != 0 {
        entry.stamp.store(next(stamp), Ordering::Relaxed);
    }
}

/// The next version, not whole.
const fn next(stamp: u64) -> u64 {
    (stamp & !(VERSION - 1)).wrapping_add(VERSION)
}

const fn place_of(rel: RelTag) -> u64 {
    (rel.spc_oid as u64) << 32 | rel.db_oid as u64
}

/// The set of a fork; outside of the sets only if there are none.
#[inline]
fn set_of(rel: RelTag, sets: usize) -> usize {
    let name = u64::from(rel.rel_number) << 8 | u64::from(rel.fork);
    let hash = (name ^ place_of(rel).rotate_left(24)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The high half depends on every bit of the name.
    ((hash >> 32).wrapping_mul(sets as u64) >> 32) as usize
}
