//! How often keys were changed. Keys share counts, so one may seem changed that was not: that costs a read, never a wrong
//! page.

use shmuring::request::RelTag;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts of blocks, each with the lock under which pages of its blocks come and go.
const BLOCKS: usize = 1 << 12;
/// Counts of relations. Void pages stay until they are evicted, so a shared count costs more: there are many.
const RELATIONS: usize = 1 << 16;

/// The counts of a block when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub(super) block: u64,
    pub(super) relation: u64,
}

#[derive(Debug)]
pub(super) struct Counts {
    blocks: Vec<Mutex<u64>>,
    relations: Vec<AtomicU64>,
    hasher: RandomState,
}

impl Counts {
    pub(super) fn new() -> Self {
        let blocks = (0..BLOCKS).map(|_| Mutex::new(0)).collect();
        let relations = (0..RELATIONS).map(|_| AtomicU64::new(0)).collect();
        Self { blocks, relations, hasher: RandomState::new() }
    }

    fn place(&self, of: impl Hash, places: usize) -> usize {
        self.hasher.hash_one(of) as usize % places
    }

    /// The count of a block, and its lock.
    pub(super) fn lock(&self, rel: RelTag, block: u32) -> MutexGuard<'_, u64> {
        // The place is below the length; and a count is whole whatever panicked.
        #[allow(clippy::indexing_slicing)]
        self.blocks[self.place((rel, block), BLOCKS)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relation_count(&self, rel: RelTag) -> &AtomicU64 {
        #[allow(clippy::indexing_slicing)] // The place is below the length.
        &self.relations[self.place(rel, RELATIONS)]
    }

    /// Changes of a relation as a whole. Acquire, with the Release of the change: who sees a completed change's effects
    /// sees its count.
    pub(super) fn relation(&self, rel: RelTag) -> u64 {
        self.relation_count(rel).load(Ordering::Acquire)
    }

    pub(super) fn change_relation(&self, rel: RelTag) {
        self.relation_count(rel).fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn change_all(&self) {
        for count in &self.relations {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn sent(&self, rel: RelTag, block: u32) -> Sent {
        Sent { block: *self.lock(rel, block), relation: self.relation(rel) }
    }
}
