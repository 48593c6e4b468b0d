//! Registered buffers: pools of blocks that requests name by (pool, index).
//!
//! # What
//! Pool 0 is the bounce pool inside the region; others (PostgreSQL's shared buffers, say) are registered by each process
//! for itself, since they may be mapped anywhere. The table of pools is private memory, validated against the process's
//! own mapping; the region holds only a cross-check of stride and count (R15).
//!
//! # Invariants
//! I2: the communicator touches a block only in Copying. R5: a bounce block named by a slot that is not Idle belongs to
//! that slot; slots partition the blocks, `bounce_per_slot` each, and an owner may use any block of its range.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::layout::MAX_POOLS;
use crate::sync::{AtomicU64, Ordering};

/// The pool of bounce buffers inside the region.
pub const BOUNCE: u16 = 0;

/// A row of equally spaced blocks that this process has mapped.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    base: *mut u8,
    stride: usize,
    count: u32,
    block: usize,
    /// A cell for each block, so that loom checks who touches it when.
    #[cfg(feature = "loom")]
    watch: Option<*const crate::sync::UnsafeCell<()>>,
}

// SAFETY: a pool is an address range; who may touch which block, and when, is told by slot words (I2, R5).
unsafe impl Send for Pool {}
// SAFETY: as above; a `&Pool` gives no access by itself.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool of `count` blocks of `block` bytes, `stride` bytes apart.
    ///
    /// # Safety
    /// The range is mapped readable and writable for as long as the pool is used, by whoever uses it.
    pub unsafe fn new(base: *mut u8, stride: usize, count: u32, block: usize) -> Result<Self> {
        let bytes = stride.checked_mul(count as usize);
        let fits = bytes.is_some_and(|b| b <= isize::MAX as usize && (base as usize).checked_add(b).is_some());
        if base.is_null() || stride < block || block == 0 || !fits || stride > u32::MAX as usize {
            return Err(Error::BadPool);
        }
        Ok(Self {
            base,
            stride,
            count,
            block,
            #[cfg(feature = "loom")]
            watch: None,
        })
    }

    /// The same pool with every access to a block told to that block's cell: loom cannot see raw memory.
    ///
    /// # Safety
    /// The cells live as long as any copy of the pool is used.
    #[cfg(feature = "loom")]
    pub unsafe fn watched_by(self, cells: &[crate::sync::UnsafeCell<()>]) -> Result<Self> {
        if cells.len() != self.count as usize {
            return Err(Error::BadPool);
        }
        Ok(Self { watch: Some(cells.as_ptr()), ..self })
    }

    /// Tells loom of an access to block `index`, which is in range.
    #[cfg(feature = "loom")]
    fn tell(&self, index: u32, writes: bool) {
        if let Some(cells) = self.watch {
            // SAFETY: one live cell a block by the contract of `watched_by`; index < count.
            let cell = unsafe { &*cells.add(index as usize) };
            if writes {
                cell.with_mut(|_| ());
            } else {
                cell.with(|_| ());
            }
        }
    }

    /// Blocks in the pool.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Address of block `index`; valid for [`Pool::block_size`] bytes.
    #[inline]
    #[must_use]
    pub fn at(&self, index: u32) -> Option<*mut u8> {
        if index >= self.count {
            return None;
        }
        // SAFETY: index < count, and `new` proved that count * stride bytes lie in one mapped range.
        Some(unsafe { self.base.add(index as usize * self.stride) })
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block
    }

    /// Copies `from` into block `index`, from byte `offset` of the block on.
    ///
    /// # Safety
    /// The caller has the right to write that block (I2: a communicator in Copying; R5: the owner, while Filling).
    #[inline]
    pub unsafe fn write(&self, index: u32, offset: usize, from: &[u8]) -> Result<()> {
        let to = self.at(index).ok_or(Error::BadBuffer)?;
        if offset > self.block || from.len() > self.block - offset {
            return Err(Error::BadBuffer);
        }
        #[cfg(feature = "loom")]
        self.tell(index, true);
        // SAFETY: in bounds by the checks above; private source, so no overlap; the right to write is the caller's.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.add(offset), from.len()) };
        Ok(())
    }

    /// Copies block `index` into `to`, which may be shorter than a block.
    ///
    /// # Safety
    /// The caller has the right to read that block (I2: a communicator in Copying; R5: the owner, when Completed).
    #[inline]
    pub unsafe fn read(&self, index: u32, to: &mut [u8]) -> Result<()> {
        let from = self.at(index).ok_or(Error::BadBuffer)?;
        if to.len() > self.block {
            return Err(Error::BadBuffer);
        }
        #[cfg(feature = "loom")]
        self.tell(index, false);
        // SAFETY: in bounds by the checks above; private target, so no overlap; the right to read is the caller's.
        unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }
}

/// The pools that this process has registered. Private memory.
#[derive(Debug)]
pub struct Pools {
    pools: [Option<Pool>; MAX_POOLS],
}

impl Pools {
    /// A table with the bounce pool alone; `None` where the region has no bounce buffers.
    #[must_use]
    pub const fn new(bounce: Option<Pool>) -> Self {
        let mut pools = [None; MAX_POOLS];
        let [first, ..] = &mut pools;
        *first = bounce;
        Self { pools }
    }

    /// The pool of that number.
    #[inline]
    pub fn get(&self, id: u16) -> Result<&Pool> {
        match self.pools.get(usize::from(id)) {
            Some(Some(p)) => Ok(p),
            _ => Err(Error::BadPool),
        }
    }

    /// Registers pool `id` (1 to 15) for this process. The first process writes stride and count into `check`, the
    /// region's cross-check; others must agree.
    pub fn register(&mut self, id: u16, pool: Pool, check: &[AtomicU64; MAX_POOLS]) -> Result<()> {
        let n = usize::from(id);
        let (Some(entry), Some(word)) = (self.pools.get_mut(n), check.get(n)) else { return Err(Error::BadPool) };
        if id == BOUNCE || entry.is_some() || pool.count == 0 {
            return Err(Error::BadPool);
        }
        let want = (pool.stride as u64) << 32 | u64::from(pool.count);
        // Relaxed: the word carries nothing but itself.
        match word.compare_exchange(0, want, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {}
            Err(found) if found == want => {}
            Err(_) => return Err(Error::BadPool),
        }
        *entry = Some(pool);
        Ok(())
    }
}
