//! Looks at, and writes to, blocks of a pool that are this process's own: of a completed request, or of no request.
#![allow(unsafe_code)]

use super::super::content;
use super::super::pool::POOL;
use crate::service::PAGE_SIZE;
use shmuring::buffers::{Pool, BOUNCE};
use shmuring::parts::Parts;
use shmuring::region::Region;
use xxhash_rust::xxh3::xxh3_64;

/// Blocks of the registered pool that belong to each slot.
pub(super) const POOL_PER_SLOT: u32 = 2;

/// The blocks of both pools, by slot: a request uses those of its slot alone, so nobody else's request may touch them.
pub(super) struct Blocks<'r> {
    parts: Parts<'r>,
    page: Vec<u8>,
}

impl<'r> Blocks<'r> {
    pub(super) fn new(region: &'r Region) -> Self {
        Self { parts: region.parts(), page: vec![0; PAGE_SIZE] }
    }

    /// Blocks of `slot`: as many bounce blocks as a slot has (the library gives a slot its own first, and no request here
    /// takes more), or its share of the registered pool.
    pub(super) fn of_slot(&self, pool: u16, slot: u32, count: u8) -> std::ops::Range<u32> {
        let share = if pool == BOUNCE { self.parts.geometry.bounce_per_slot } else { POOL_PER_SLOT };
        slot * share..slot * share + u32::from(count).min(share)
    }

    fn pool(&self, id: u16) -> &'r Pool {
        self.parts.pools.get(id).unwrap_or_else(|e| unreachable!("pool {id} was registered at attach: {e}"))
    }

    /// The bytes of a block, now.
    pub(super) fn look(&mut self, pool: u16, block: u32) -> &[u8] {
        let from = self.pool(pool);
        // SAFETY: the block is of our own slot, so it is mapped and ours to read. A communicator may still be writing a
        // bounce block whose request was cancelled a moment ago (R6): a mix of bytes is then what we are to find.
        let _ = unsafe { from.read(block, &mut self.page) };
        &self.page
    }

    /// Hash of a row of blocks, now.
    pub(super) fn hash(&mut self, pool: u16, blocks: std::ops::Range<u32>) -> u64 {
        blocks.fold(0, |sum: u64, b| sum.rotate_left(1) ^ xxh3_64(self.look(pool, b)))
    }

    /// Fills a block that no request uses with bytes that nobody else writes; their hash.
    pub(super) fn plant(&mut self, pool: u16, block: u32, seed: u64) -> u64 {
        content::fill(&mut self.page, u32::MAX, block, seed | 1);
        let to = self.pool(pool);
        // SAFETY: no request uses the block: the one that did was cancelled, and its slot, which we own, has come back
        // (bounce, R5), or its cancel has returned (registered pool, I2).
        let _ = unsafe { to.write(block, 0, &self.page) };
        xxh3_64(&self.page)
    }

    /// Puts an image into the registered pool, for a write of a slot that is ours and Idle.
    pub(super) fn put_image(&self, block: u32, image: &[u8]) {
        // SAFETY: as above: the slot is Idle, so no request uses the block.
        let _ = unsafe { self.pool(POOL).write(block, 0, image) };
    }
}
