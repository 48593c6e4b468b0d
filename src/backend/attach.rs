//! The handle of a backend: a range of slots that it alone owns.
#![allow(unsafe_code)]

use super::bounce::Bounce;
use super::fill::Recent;
use crate::doorbell::Bell;
use crate::error::{Error, Result};
use crate::fork::ForkGuard;
use crate::futex;
use crate::layout::{OwnerStats, Slot};
use crate::liveness::{Liveness, LockFile};
use crate::memory::{Array, Memory};
use crate::parts::Parts;
use crate::ring::Producer;
use crate::slot::{owner, State};
use crate::spin::{self, Spin};
use crate::stats::OwnerCounter;
use crate::sync::Ordering;

/// A backend's hold on a range of request slots. Dropping it gives the range up as a death would: the next owner
/// settles what is unfinished. [`Backend::detach`] does that first.
pub struct Backend<'r> {
    pub(super) parts: Parts<'r>,
    pub(super) liveness: &'r dyn Liveness,
    /// Keeps the range lock; `None` where the caller proves ownership otherwise (the model checks).
    pub(super) lock: Option<LockFile>,
    pub(super) first: u32,
    pub(super) slots: &'r [Slot],
    pub(super) life: u32,
    pub(super) home: ForkGuard,
    pub(super) producer: Producer,
    pub(super) bell: Bell,
    pub(super) spin: Spin,
    pub(super) bounce: Bounce,
    /// Number of the range's first bounce block in its pool.
    pub(super) bounce_base: u32,
    /// The batch that named each slot last, and the number of the last batch.
    pub(super) named: Array<u64>,
    pub(super) batch: u64,
    pub(super) have_waitv: bool,
    /// Slots finished lately, relative to `first`: a hint for [`Backend::free_slot`].
    pub(super) free: Recent,
    /// Slot that it looks at next when there is no hint.
    pub(super) cursor: u32,
    /// Next slot that [`Backend::next_leftover`] settles.
    pub(super) unsettled: u32,
    /// Generation of the request of each slot whose answer nobody will take ([`Backend::forget`]).
    pub(super) forgotten: Array<Option<u32>>,
    /// What a sample of the latency histogram needs: the slot and when it was submitted.
    pub(super) sample: Option<(super::SlotRef, u64)>,
    pub(super) stats: &'r OwnerStats,
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
impl<'r> Backend<'r> {
    /// Attaches to slots `first` to `first + count - 1` of the region; refused with `OwnerAlive` while another living
    /// process owns one of them, with `BadSlot` for a range outside the region. Call [`Backend::next_leftover`] until it
    /// gives `None` before relying on all slots. Allocates; does not block.
    pub fn attach(region: &'r crate::region::Region, first: u32, count: u32) -> Result<Self> {
        Self::attach_in(region, first, count, Memory::System)
    }

    /// The same, with its arrays in `memory`, of which [`Backend::memory`] bytes are needed: ENOMEM if there are fewer.
    /// What the call allocates besides it frees again.
    pub fn attach_in(region: &'r crate::region::Region, first: u32, count: u32, mut memory: Memory) -> Result<Self> {
        region.check_process()?;
        let parts = region.parts();
        check_range(&parts, first, count)?;
        let lock = region.lock_file()?;
        let slots = parts.slots.iter().enumerate().skip(first as usize).take(count as usize);
        for (number, slot) in slots {
            if !owner::mark_orphan(slot, || region.liveness().owner_held(number as u32, 1)) {
                return Err(Error::OwnerAlive);
            }
        }
        if !lock.try_lock(crate::liveness::OWNER_BYTE + u64::from(first), u64::from(count))? {
            return Err(Error::OwnerAlive);
        }
        // SAFETY: the range lock is ours, and stays with the handle.
        unsafe { Self::over_in(parts, region.liveness(), Some(lock), first, count, &mut memory) }
    }

    /// Bytes that [`Backend::attach_in`] takes of the memory that it is given, for so many slots.
    #[must_use]
    pub fn memory(region: &crate::region::Region, count: u32) -> usize {
        use crate::memory::given_bytes;
        let n = count as usize;
        let arrays = given_bytes::<u64>(n) + given_bytes::<Option<u32>>(n) + Recent::bytes(count);
        arrays + Bounce::bytes(count, region.parts().geometry.bounce_per_slot)
    }

    /// Attaches to `count` slots that nobody owns, searched from the end of the region: for tools.
    pub fn attach_any(region: &'r crate::region::Region, count: u32) -> Result<Self> {
        let slots = region.parts().slots.len() as u32;
        let mut first = slots.checked_sub(count.max(1)).ok_or(Error::BadSlot)?;
        loop {
            match Self::attach(region, first, count) {
                Err(Error::OwnerAlive) if first >= count => first -= count,
                // What an earlier owner cancelled comes back only from a communicator: rather take other slots.
                Ok(backend) if backend.usable() == 0 && first >= count => first -= count,
                other => return other,
            }
        }
    }
}

fn check_range(parts: &Parts<'_>, first: u32, count: u32) -> Result<()> {
    let end = first.checked_add(count).ok_or(Error::BadSlot)?;
    if count == 0 || end as usize > parts.slots.len() {
        return Err(Error::BadSlot);
    }
    Ok(())
}

impl<'r> Backend<'r> {
    /// A handle over parts whose range the caller owns already.
    ///
    /// # Safety
    /// Nobody else owns a slot of the range while the handle lives: `lock` proves it, or the model does.
    pub unsafe fn over(
        parts: Parts<'r>,
        liveness: &'r dyn Liveness,
        lock: Option<LockFile>,
        first: u32,
        count: u32,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::over_in(parts, liveness, lock, first, count, &mut Memory::System) }
    }

    /// The same, with its arrays in `memory`.
    ///
    /// # Safety
    /// As of [`Backend::over`].
    unsafe fn over_in(
        parts: Parts<'r>,
        liveness: &'r dyn Liveness,
        lock: Option<LockFile>,
        first: u32,
        count: u32,
        memory: &mut Memory,
    ) -> Result<Self> {
        check_range(&parts, first, count)?;
        let range = first as usize..first as usize + count as usize;
        let slots = parts.slots.get(range).ok_or(Error::BadSlot)?;
        let stats = parts.owner_stats.get(first as usize).ok_or(Error::BadSlot)?;
        // Does not wrap: a geometry has fewer than 2^32 blocks.
        let bounce_base = first.wrapping_mul(parts.geometry.bounce_per_slot);
        let mut backend = Self {
            bounce: Bounce::new(count, parts.geometry.bounce_per_slot, bounce_base, memory)?,
            parts,
            liveness,
            lock,
            first,
            slots,
            // Relaxed: a new life begins before its backends are started.
            life: parts.header.life.life.load(Ordering::Relaxed),
            home: ForkGuard::new(count.into()),
            producer: Producer::new(),
            bell: Bell::default(),
            spin: Spin::new(spin::cpus()),
            bounce_base,
            named: Array::filled(count as usize, 0, memory)?,
            batch: 0,
            have_waitv: futex::have_waitv(),
            free: Recent::new(count, memory)?,
            cursor: 0,
            unsettled: first,
            forgotten: Array::filled(count as usize, None, memory)?,
            sample: None,
            stats,
        };
        backend.derive_bounce();
        Ok(backend)
    }

    /// First slot of the range.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Slots in the range.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Slots that could be filled now: those that no request, and no unfinished cancel, holds.
    #[must_use]
    pub fn usable(&self) -> u32 {
        self.slots.iter().filter(|s| owner::look(s).is(State::Idle)).count() as u32
    }

    /// A counter of this range, also of its earlier owners.
    #[must_use]
    pub fn counter(&self, counter: OwnerCounter) -> u64 {
        self.stats.get(counter)
    }

    /// State of a slot of the range; `BadRequest` for bytes that are none.
    pub fn state(&self, slot: u32) -> Result<State> {
        let (slot, _) = self.own(slot)?;
        owner::look(slot).state().ok_or(Error::BadRequest)
    }

    /// The slots of the range: for the C interface, whose inline functions look at them.
    #[must_use]
    pub fn slots(&self) -> &'r [Slot] {
        self.slots
    }

    /// Where the number of slots is, which is 0 in a forked child (and where the kernel cannot do that): readable as
    /// long as the handle lives. For the same.
    #[must_use]
    pub fn limit(&self) -> *const u64 {
        self.home.limit_at()
    }

    /// Bytes of a block of the region.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.parts.geometry.block_size
    }

    /// A slot of the range and its number within it; `BadSlot` for others. Every call that names a slot comes through
    /// here, so a forked child is refused here (R17).
    #[inline(always)]
    pub(super) fn own(&self, slot: u32) -> Result<(&'r Slot, usize)> {
        match self.own_home(slot) {
            Some(own) => Ok(own),
            None => self.own_rarely(slot),
        }
    }

    /// The same where the kernel tells a child: one compare for the range and the process.
    #[inline(always)]
    pub(super) fn own_home(&self, slot: u32) -> Option<(&'r Slot, usize)> {
        let index = slot.wrapping_sub(self.first) as usize;
        // SAFETY: the limit is the length of `slots`, or 0.
        ((index as u64) < self.home.limit()).then(|| (unsafe { self.slots.get_unchecked(index) }, index))
    }

    #[cold]
    fn own_rarely(&self, slot: u32) -> Result<(&'r Slot, usize)> {
        self.check_process()?;
        let index = slot.wrapping_sub(self.first) as usize;
        self.slots.get(index).map(|s| (s, index)).ok_or(Error::BadSlot)
    }

    /// Refuses work in a forked child (R17), as every call does that names a slot: `WrongProcess`.
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.home.is_home() {
            Ok(())
        } else {
            Err(Error::WrongProcess)
        }
    }

    /// The lock that proves ownership, if there is one.
    #[must_use]
    pub fn lock(&self) -> Option<&LockFile> {
        self.lock.as_ref()
    }
}
