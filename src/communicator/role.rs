//! Taking the role of the communicator, and taking over what a dead holder left.
#![allow(unsafe_code)]

use super::claim::{self, Claim};
use crate::clock;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
use crate::error::{Error, Result};
use crate::futex;
use crate::layout::Slot;
use crate::liveness::{Liveness, LockFile};
use crate::lsn::rel_size;
use crate::parts::Parts;
use crate::request::Completion;
use crate::ring::Consumer;
use crate::slot::{communicator, State, Word};
use crate::spin::{self, Spin};
use crate::stats::RoleCounter;
use crate::sync::{ord, Ordering};

/// The holder of the communicator's role. One a region (R3); reaping is one thread's, claims may go to any thread.
///
/// Complete every claim before dropping it. While one is outstanding its thread may touch buffers, and a free role says
/// that nobody does: so the role then stays with this process to its end.
pub struct Communicator<'r> {
    pub(super) parts: &'r Parts<'r>,
    pub(super) epoch: u32,
    pub(super) consumer: Consumer,
    pub(super) spin: Spin,
    /// Hints taken out of the pending bitmap and not yet followed (reap.rs).
    pub(super) hinted: Vec<u32>,
    /// Words that the last audit saw Submitted or Withdrawn (reap.rs).
    pub(super) suspects: Vec<(u32, Word)>,
    pub(super) audited_at: u64,
    /// Whether the writer of relation sizes was given out.
    has_writer: bool,
    /// Keeps the role lock; `None` where the caller proves the role otherwise (the model checks).
    lock: Option<LockFile>,
}

/// What a dead communicator left, in the order in which it must be admitted (R4): mutations in the order of their claims,
/// then reads. Serve all of it, or hand all of it to whatever keeps order, before the first reap.
#[derive(Debug, Default)]
pub struct Inheritance<'r> {
    /// Mutations, oldest claim first.
    pub mutations: Vec<Claim<'r>>,
    /// Reads and prefetches.
    pub reads: Vec<Claim<'r>>,
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
impl<'r> Inheritance<'r> {
    /// Room for whatever is claimed. The caller holds the role, so that nobody claims more.
    fn with_room(parts: &Parts<'r>) -> Result<Self> {
        let is_claimed =
            |slot: &&Slot| matches!(communicator::look(slot).state(), Some(State::Processing | State::Copying));
        let n = parts.slots.iter().filter(is_claimed).count();
        let mut new = Self::default();
        let none = |_| Error::Os(libc::ENOMEM);
        new.mutations.try_reserve_exact(n).map_err(none)?;
        new.reads.try_reserve_exact(n).map_err(none)?;
        Ok(new)
    }
}

impl<'r> Inheritance<'r> {
    /// Takes a claim in. For one that hostile bytes made later there may be no room: it fails.
    fn push(&mut self, claim: Claim<'r>) {
        let list = if claim.job().opcode.is_mutation() { &mut self.mutations } else { &mut self.reads };
        if list.try_reserve(1).is_ok() {
            list.push(claim);
        } else {
            let _ = claim.fail(libc::ENOMEM, 0, 1);
        }
    }
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
impl<'r> Communicator<'r> {
    /// Takes the role of `region`, whose parts are `parts` (they must outlive every claim). `RoleHeld` while a living
    /// communicator holds it; ENOMEM if there is no room for what it inherits, and then nothing was changed. Does not
    /// block.
    pub fn take_role(region: &'r crate::region::Region, parts: &'r Parts<'r>) -> Result<(Self, Inheritance<'r>)> {
        region.check_process()?;
        let lock = region.lock_file()?;
        if !lock.try_lock(crate::liveness::ROLE_BYTE, 1)? {
            return Err(Error::RoleHeld);
        }
        let room = Inheritance::with_room(parts)?;
        // SAFETY: the role lock is ours, and stays with the process.
        Ok(unsafe { Self::over_with(parts, region.liveness(), Some(lock), room) })
    }
}

impl Drop for Communicator<'_> {
    fn drop(&mut self) {
        // In a model there is no lock, and no access in a destructor: it also runs when the model has failed.
        let Some(lock) = self.lock.take() else { return };
        let has_claim = |slot: &Slot| {
            let word = communicator::look_closely(slot);
            let is_claimed = matches!(word.state(), Some(State::Processing | State::Copying | State::Abandoned));
            is_claimed && word.epoch() == self.epoch
        };
        if self.parts.slots.iter().any(has_claim) {
            core::mem::forget(lock);
        } else {
            // Given up, and not died: for messages alone.
            self.parts.header.role.pid.store(0, Ordering::Relaxed);
            drop(lock);
        }
    }
}

impl<'r> Communicator<'r> {
    /// The communicator over parts whose role the caller holds already.
    ///
    /// # Safety
    /// Nobody else holds the role while this and its claims live: `lock` proves it, or the model does.
    pub unsafe fn over(
        parts: &'r Parts<'r>,
        liveness: &dyn Liveness,
        lock: Option<LockFile>,
    ) -> (Self, Inheritance<'r>) {
        // SAFETY: the caller's promise.
        unsafe { Self::over_with(parts, liveness, lock, Inheritance::default()) }
    }

    /// The same, with room for what it inherits.
    ///
    /// # Safety
    /// As of [`Communicator::over`].
    unsafe fn over_with(
        parts: &'r Parts<'r>,
        liveness: &dyn Liveness,
        lock: Option<LockFile>,
        room: Inheritance<'r>,
    ) -> (Self, Inheritance<'r>) {
        let role = &parts.header.role;
        // Relaxed: only holders of the role lock write it, one after the other.
        let last = role.epoch.load(Ordering::Relaxed);
        let epoch = last.wrapping_add(1).max(1);
        // ORD(RL_1): pairs with the Acquire in the backends' proof of death (#15); the lock came before.
        role.epoch.store(epoch, ord!(RL_1, Release));
        role.pid.store(std::process::id(), Ordering::Relaxed);
        role.since.store(clock::now(), Ordering::Relaxed);
        let mut new = Self {
            parts,
            epoch,
            consumer: Consumer::new(parts),
            spin: Spin::new(spin::cpus()),
            hinted: Vec::new(),
            suspects: Vec::new(),
            audited_at: clock::now(),
            has_writer: false,
            lock,
        };
        // Before the first claim: what a dead holder changed and did not say may be in there (R2).
        rel_size::empty(parts.sizes);
        if last != 0 {
            parts.role_stats.add(RoleCounter::TakeOvers, 1);
        }
        let inheritance = new.inherit(liveness, room);
        (new, inheritance)
    }

    /// Number of this term of the role.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The parts that it serves.
    #[must_use]
    pub fn parts(&self) -> &'r Parts<'r> {
        self.parts
    }

    /// The writer of the relation sizes (R2), once: `None` if it was given out already, or there is no memory for it.
    pub fn rel_size_writer(&mut self) -> Option<rel_size::Writer<'r>> {
        if self.has_writer {
            return None;
        }
        let writer = rel_size::Writer::new(self.parts);
        self.has_writer = writer.is_some();
        writer
    }

    /// The lock that proves the role, if there is one.
    #[must_use]
    pub fn lock(&self) -> Option<&LockFile> {
        self.lock.as_ref()
    }

    /// Rows 11, 16, 17 and 19. What is Submitted is left to [`Communicator::sweep`], after the inheritance was admitted;
    /// only writes whose image is lost end here (R5).
    fn inherit(&mut self, liveness: &dyn Liveness, mut inherited: Inheritance<'r>) -> Inheritance<'r> {
        let parts = self.parts;
        for (number, slot) in (0u32..).zip(parts.slots) {
            let word = communicator::look_closely(slot);
            match word.state() {
                Some(State::Abandoned | State::Withdrawn) => {
                    claim::free(parts, slot, word);
                }
                Some(State::Completed) if word.waiter() => {
                    // #19: the last holder may have died between publishing and waking.
                    futex::wake_all(&slot.word, parts.private);
                }
                // #11, #13, #17: or between giving a slot back and waking, and then the word does not tell.
                Some(State::Idle) => futex::wake_all(&slot.word, parts.private),
                Some(State::Submitted) => self.refuse_orphan(number, slot, word, liveness),
                Some(State::Processing | State::Copying) => {
                    if let Some(claim) = self.reclaim(number, slot, word, liveness) {
                        inherited.push(claim);
                    }
                }
                _ => {}
            }
        }
        // Not the stable sort, which allocates: no two have the same number, but by hostile bytes.
        inherited.mutations.sort_unstable_by_key(Claim::claim_seq);
        inherited
    }

    /// A write from a registered pool whose owner died while nobody served: its buffer means nothing any more (R5).
    fn refuse_orphan(&self, number: u32, slot: &'r Slot, submitted: Word, liveness: &dyn Liveness) {
        if claim::is_image_safe(slot, || is_owned(number, slot, submitted, liveness)) {
            return;
        }
        if let Ok(moved) = communicator::claim(slot, submitted, State::Processing, self.epoch) {
            let _ = claim::finish(self.parts, slot, moved.word, Completion::fail(libc::EOWNERDEAD));
        }
    }

    /// #16: a request claimed by a dead holder becomes ours, unless its image is lost (R5). Wakes whoever sleeps on it.
    fn reclaim(&self, number: u32, slot: &'r Slot, found: Word, liveness: &dyn Liveness) -> Option<Claim<'r>> {
        let parts = self.parts;
        let word = match communicator::take_over(slot, found, self.epoch) {
            Ok(moved) => {
                // A cancel may sleep on the dead holder's Copying; this ends it (R9). If the holder died in `suspend`,
                // after the transition and before its wake, this is that wake.
                if moved.owed.pay(parts, slot) {
                    parts.role_stats.add(RoleCounter::Wakes, 1);
                }
                moved.word
            }
            Err(now) => {
                // Cancelled meanwhile: nobody else gives it back.
                if matches!(now.state(), Some(State::Abandoned | State::Withdrawn)) {
                    claim::free(parts, slot, now);
                }
                return None;
            }
        };
        parts.role_stats.add(RoleCounter::Reclaimed, 1);
        match Claim::read(parts, slot, number, word, true) {
            Ok(mut claim) => {
                if !claim::is_image_safe(slot, || is_owned(number, slot, word, liveness)) {
                    let _ = claim.fail(libc::EOWNERDEAD, 0, 1);
                    return None;
                }
                claim.defer(clock::now());
                Some(claim)
            }
            Err(refused) => {
                refused.answer(parts, slot, word);
                None
            }
        }
    }
}

/// Whether the owner that submitted this request lives.
fn is_owned(number: u32, slot: &Slot, word: Word, liveness: &dyn Liveness) -> bool {
    // In this order: the mark comes before the lock of a next owner.
    liveness.owner_held(number, 1) && !communicator::is_orphan(slot, word)
}
