//! One claimed request: from the claim to exactly one completion (I4).
#![allow(unsafe_code)]

use crate::buffers::{Pool, BOUNCE};
use crate::clock;
use crate::error::{Error, Result};
use crate::layout::{Control, Shared, Slot};
use crate::memory::Room;
use crate::parts::Parts;
use crate::request::{flags, Class, Completion, Job, Opcode, Words};
use crate::slot::{communicator, Moved, State, Word};
use crate::stats::RoleCounter;
use crate::sync::{Ordering, UnsafeCell};
use core::mem::ManuallyDrop;
use core::ops::Range;

/// The request was cancelled: its slot has been given back, its buffers must not be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawn;

/// A request that this communicator has claimed. Send it to whatever thread serves it; complete it from there. Dropped
/// unanswered it completes with ECANCELED, so that a panicking task hangs nobody.
#[derive(Debug)]
pub struct Claim<'r> {
    parts: &'r Parts<'r>,
    slot: &'r Slot,
    number: u32,
    /// The word as our last transition left it, W aside.
    word: Word,
    job: Job,
    claim_seq: u64,
    claimed_at: u64,
    /// Claimed anew after a death: it may have run before (R4).
    again: bool,
    done: bool,
}

impl<'r> Claim<'r> {
    /// Reads and checks the request of a word just claimed. Hostile or stale requests are refused here: the caller
    /// completes them. The claim is built last, whole, so that it need not be moved on the way to whoever serves it.
    #[inline(always)]
    pub(super) fn read(
        parts: &'r Parts<'r>,
        slot: &'r Slot,
        number: u32,
        word: Word,
        again: bool,
    ) -> core::result::Result<Self, Refused> {
        // SAFETY: claimed, so the request bytes are ours to read, immutable (R10), and visible by SL_1 or the role lock.
        let words = unsafe { slot.load_request() };
        let (job, claim_seq) = match words.plain() {
            Some(opcode) => {
                check_plain(parts, slot, number, again, &words, opcode)?;
                (words.plain_job(opcode), 0)
            }
            None => read_rare(parts, slot, number, again)?,
        };
        Ok(Self { parts, slot, number, word, job, claim_seq, claimed_at: 0, again, done: false })
    }

    /// What is asked for: private memory, validated.
    #[must_use]
    #[inline]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The slot; with [`Claim::generation`] the request's id in logs.
    #[must_use]
    #[inline]
    pub fn slot(&self) -> u32 {
        self.number
    }

    /// The generation of the slot.
    #[must_use]
    #[inline]
    pub fn generation(&self) -> u32 {
        self.word.generation()
    }

    /// Place in the order of claims; 0 for what is not a mutation (R4).
    #[must_use]
    pub fn claim_seq(&self) -> u64 {
        self.claim_seq
    }

    /// Whether an earlier communicator may have run it already: EEXIST of a create and ENOENT of an unlink are success then.
    #[must_use]
    pub fn is_again(&self) -> bool {
        self.again
    }

    /// Whether the owner has given it up, so that work for it is wasted.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        communicator::look(self.slot).is(State::Abandoned)
    }

    /// Notes when a request that is not served at once was claimed.
    #[inline]
    pub(super) fn defer(&mut self, now: u64) {
        self.claimed_at = now;
        // Relaxed: statistics.
        self.slot.claimed_at.store(self.claimed_at, Ordering::Relaxed);
    }

    /// Enters Copying: through the guard the buffers may be touched (I2). The claim stays in Copying until it is completed
    /// or [`Copying::suspend`] is called. Do no I/O, take no lock and allocate nothing meanwhile: a cancel may be waiting.
    #[inline]
    pub fn copying(&mut self) -> core::result::Result<Copying<'_, 'r>, Withdrawn> {
        if !self.word.is(State::Copying) {
            match communicator::begin_copy(self.slot, self.word) {
                Ok(moved) => self.word = moved.word,
                Err(_) => {
                    self.give_back();
                    return Err(Withdrawn);
                }
            }
        }
        Ok(Copying { claim: self })
    }

    /// Completes with a result. If the request was cancelled, the slot is given back instead, and `Withdrawn` says so.
    #[inline(always)]
    pub fn complete(self, completion: Completion) -> core::result::Result<(), Withdrawn> {
        // What may unwind below would drop the claim, for which it would have to lie in memory: this takes it apart first,
        // so that a request that is served at once lives in registers.
        let mut this = ManuallyDrop::new(self);
        drop(this.job.vector.take());
        if this.done {
            return Err(Withdrawn);
        }
        if this.claimed_at != 0 {
            record_deferred(this.parts, this.job.class, this.claimed_at);
        }
        finish(this.parts, this.slot, this.word, completion)
    }

    /// Completes with a positive errno, `value` 0 (or the index of the block it is about).
    pub fn fail(self, errno: i32, value: u64, attempts: u16) -> core::result::Result<(), Withdrawn> {
        let mut completion = Completion::fail(errno);
        completion.value = value;
        completion.attempts = attempts;
        self.complete(completion)
    }

    /// #13: the slot goes back to its owner.
    #[inline]
    fn give_back(&mut self) {
        self.done = true;
        free_claimed(self.parts, self.slot, self.word);
    }
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        // The dead of a model answer nobody.
        #[cfg(any(feature = "loom", feature = "shuttle"))]
        if crate::sync::mortal::is_dying() {
            return;
        }
        if !self.done {
            self.done = true;
            if self.claimed_at != 0 {
                record_deferred(self.parts, self.job.class, self.claimed_at);
            }
            drop_unanswered(self.parts, self.slot, self.word);
        }
    }
}

/// Why a claimed request is not served: its owner gets the errno.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) errno: i32,
    pub(super) counter: RoleCounter,
}

impl Refused {
    #[cold]
    fn because(error: Error) -> Self {
        Self { errno: error.errno(), counter: RoleCounter::Refused }
    }

    /// Counts it and completes the request with it.
    #[cold]
    pub(super) fn answer(self, parts: &Parts<'_>, slot: &Slot, word: Word) {
        parts.role_stats.add(self.counter, 1);
        let _ = finish(parts, slot, word, Completion::fail(self.errno));
    }
}

/// What [`Words::plain`] leaves to check of the request that it found well-formed: the server life and the buffer.
#[inline(always)]
fn check_plain(
    parts: &Parts<'_>,
    slot: &Slot,
    number: u32,
    again: bool,
    words: &Words,
    opcode: Opcode,
) -> core::result::Result<(), Refused> {
    check_life(parts, slot, again)?;
    if opcode.has_buffers() && !usable(parts, slot, number, words.pool())?.contains(&words.arg()) {
        return Err(Refused::because(Error::BadBuffer));
    }
    Ok(())
}

/// Every other request: more than a block, a deadline, a mutation and so on; and those that are not well-formed.
#[cold]
#[inline(never)]
fn read_rare(parts: &Parts<'_>, slot: &Slot, number: u32, again: bool) -> core::result::Result<(Job, u64), Refused> {
    // A copy of its own, so that those of plain requests need not lie in memory: the other has decided nothing.
    // SAFETY: claimed, so the request bytes are ours to read, immutable (R10), and visible by SL_1 or the role lock.
    let words = unsafe { slot.load_request() };
    let opcode = words.validate().map_err(Refused::because)?;
    let vector = if words.needs_vector() {
        let room = Room::new().map_err(Refused::because)?;
        // SAFETY: claimed, so the bytes are ours to read, immutable (R10), and visible by SL_1 or the role lock.
        Some(room.put(unsafe { copy_once(&slot.vector) }))
    } else {
        None
    };
    check_life(parts, slot, again)?;
    if opcode.has_buffers() {
        let from = usable(parts, slot, number, words.pool())?;
        let exist = match &vector {
            None => from.contains(&words.arg()),
            Some(v) => v.buffers.get(..usize::from(words.count())).is_some_and(|b| b.iter().all(|i| from.contains(i))),
        };
        if !exist {
            return Err(Refused::because(Error::BadBuffer));
        }
    }
    // SAFETY: as above.
    let Control { extra, .. } = unsafe { copy_once(&slot.control) };
    if words.has_flags(flags::DEADLINE) && !again && extra.deadline <= clock::now() {
        return Err(Refused { errno: libc::ETIMEDOUT, counter: RoleCounter::Expired });
    }
    let claim_seq = if opcode.is_mutation() { number_claim(parts, slot, again) } else { 0 };
    Ok((words.job(opcode, &extra, vector), claim_seq))
}

/// The request is of the present server life, or was claimed in it before (R1).
#[inline(always)]
fn check_life(parts: &Parts<'_>, slot: &Slot, again: bool) -> core::result::Result<(), Refused> {
    // SAFETY: claimed, so the control line is ours to read, immutable, and visible by SL_1 or the role lock. Volatile as
    // in `copy_once`.
    let of = slot.control.with(|p| unsafe { (&raw const (*p).life).read_volatile() });
    // Relaxed: a new life settles every slot itself before it relies on this (R1).
    let now = parts.header.life.life.load(Ordering::Relaxed);
    if of != now && !again {
        return Err(Refused { errno: libc::EOWNERDEAD, counter: RoleCounter::OldLife });
    }
    Ok(())
}

/// The blocks of the pool that the request of this slot may name: all, or the bounce blocks of the owner's own range (R5).
#[inline(always)]
fn usable(parts: &Parts<'_>, slot: &Slot, number: u32, pool: u16) -> core::result::Result<Range<u32>, Refused> {
    let Ok(all) = parts.pools.get(pool) else { return Err(Refused::because(Error::BadPool)) };
    if pool != BOUNCE {
        return Ok(0..all.count());
    }
    // SAFETY: as in `check_life`.
    let first = slot.control.with(|p| unsafe { (&raw const (*p).owner_first).read_volatile() });
    // SAFETY: as in `check_life`.
    let count = slot.control.with(|p| unsafe { (&raw const (*p).owner_count).read_volatile() });
    let (end, wraps) = first.overflowing_add(count);
    if wraps || end > parts.geometry.slots || number.wrapping_sub(first) >= count {
        return Err(Refused::because(Error::BadBuffer));
    }
    // No product wraps: a geometry has fewer than 2^32 blocks. If one did, the pool's count bounds it all the same.
    let per_slot = parts.geometry.bounce_per_slot;
    Ok(first.wrapping_mul(per_slot)..end.wrapping_mul(per_slot).min(all.count()))
}

/// Gives a mutation its place in the order of claims, before anything acts on it (R4). A claim made anew keeps the place
/// it had.
#[cold]
fn number_claim(parts: &Parts<'_>, slot: &Slot, again: bool) -> u64 {
    // Relaxed: one communicator at a time, and a successor comes through the role lock.
    let before = slot.claim_seq.load(Ordering::Relaxed);
    if again && before != 0 {
        return before;
    }
    let next = parts.header.role.claim_seq.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    slot.claim_seq.store(next, Ordering::Relaxed);
    next
}

/// Counts a deferred request and the time that it took.
#[cold]
fn record_deferred(parts: &Parts<'_>, class: Class, claimed_at: u64) {
    parts.role_stats.record_service(class as u8, clock::now().saturating_sub(claimed_at));
    parts.role_stats.add(RoleCounter::Deferred, 1);
}

/// The answer to a claim that nobody answered (I4).
#[cold]
fn drop_unanswered(parts: &Parts<'_>, slot: &Slot, word: Word) {
    parts.role_stats.add(RoleCounter::Dropped, 1);
    let _ = finish(parts, slot, word, Completion::fail(libc::ECANCELED));
}

#[cold]
fn count_failed(parts: &Parts<'_>) {
    parts.role_stats.add(RoleCounter::Failed, 1);
}

/// Writes the result and publishes it (#7, #8); gives the slot back if it was cancelled (#13).
#[inline(always)]
pub(super) fn finish(
    parts: &Parts<'_>,
    slot: &Slot,
    word: Word,
    completion: Completion,
) -> core::result::Result<(), Withdrawn> {
    // SAFETY: claimed and not completed, so the result bytes are ours (I1); an Abandoned slot is still the claim's.
    slot.result.with_mut(|p| unsafe { p.write(completion) });
    if !completion.is_ok() {
        count_failed(parts);
    }
    match communicator::complete(slot, word) {
        Ok(moved) => {
            if moved.owed.is_due() {
                wake(parts, slot, moved);
            }
            Ok(())
        }
        Err(_) => {
            free_claimed(parts, slot, word);
            Err(Withdrawn)
        }
    }
}

/// Wakes whoever sleeps on the word.
#[cold]
#[inline(never)]
fn wake(parts: &Parts<'_>, slot: &Slot, moved: Moved) {
    if moved.owed.pay(parts, slot) {
        parts.role_stats.add(RoleCounter::Wakes, 1);
    }
}

/// #13: gives back the slot of a claim that was cancelled: of its generation and epoch and no other.
#[cold]
fn free_claimed(parts: &Parts<'_>, slot: &Slot, claimed: Word) {
    free(parts, slot, Word::new(State::Abandoned, claimed.generation(), claimed.epoch()));
}

/// #11, #13, #17: gives a Withdrawn or Abandoned slot back; anything else stays (hostile bytes, R9).
#[cold]
pub(super) fn free(parts: &Parts<'_>, slot: &Slot, cancelled: Word) -> bool {
    let Ok(moved) = communicator::free(slot, cancelled) else {
        parts.role_stats.add(RoleCounter::BadWords, 1);
        return false;
    };
    parts.role_stats.add(RoleCounter::Freed, 1);
    if moved.owed.pay(parts, slot) {
        parts.role_stats.add(RoleCounter::Wakes, 1);
    }
    true
}

/// Why a claim of this opcode has no page to deliver, or no image to take. (By value: a claim whose address is given
/// away does not stay in registers.)
#[cold]
fn misused(opcode: Opcode) -> Error {
    if opcode.has_buffers() {
        Error::BadRequest
    } else {
        Error::BadPool
    }
}

/// The right to touch the buffers of a claim. Complete the claim next, or go back to Processing with
/// [`Copying::suspend`]; a guard that is only dropped leaves the claim in Copying.
#[derive(Debug)]
pub struct Copying<'c, 'r> {
    claim: &'c mut Claim<'r>,
}

impl Copying<'_, '_> {
    /// Writes `page` (at most a block) to the buffer of block `i`.
    #[inline]
    pub fn deliver(&mut self, i: usize, page: &[u8]) -> Result<()> {
        if !self.claim.job.opcode.fills_buffers() {
            return Err(misused(self.claim.job.opcode));
        }
        let (pool, index) = self.target(i)?;
        // SAFETY: in Copying (I2).
        unsafe { pool.write(index, 0, page) }
    }

    /// Copies the image of block `i` (at most a block) out of its buffer.
    #[inline]
    pub fn take_image(&mut self, i: usize, to: &mut [u8]) -> Result<()> {
        if !self.claim.job.opcode.takes_images() {
            return Err(misused(self.claim.job.opcode));
        }
        let (pool, index) = self.target(i)?;
        // SAFETY: in Copying (I2).
        unsafe { pool.read(index, to) }
    }

    /// The buffer of block `i` of a request that has buffers.
    #[inline]
    fn target(&self, i: usize) -> Result<(&Pool, u32)> {
        let index = self.claim.job.named(i).ok_or(Error::BadBuffer)?;
        Ok((self.claim.parts.pools.get(self.claim.job.pool)?, index))
    }

    /// #6: back to Processing, with the image taken or a part delivered.
    pub fn suspend(self) -> core::result::Result<(), Withdrawn> {
        let claim = self.claim;
        match communicator::suspend(claim.slot, claim.word) {
            Ok(moved) => {
                claim.word = moved.word;
                if moved.owed.pay(claim.parts, claim.slot) {
                    claim.parts.role_stats.add(RoleCounter::Wakes, 1);
                }
                Ok(())
            }
            Err(_) => {
                claim.give_back();
                Err(Withdrawn)
            }
        }
    }
}

/// Copies bytes that a hostile peer may change meanwhile: each word is read once, and only the copy is looked at (I10).
///
/// # Safety
/// The pointer of the cell is valid, and nothing writes the bytes but a peer that breaks the protocol.
#[inline]
unsafe fn copy_once<T: Shared + Copy>(cell: &UnsafeCell<T>) -> T {
    // SAFETY: valid by the contract; volatile, so that the compiler does not read it again after a check; every bit
    // pattern is a value of a `Shared` type. ThreadSanitizer does not see a volatile read of more than a few words.
    cell.with(|p| unsafe {
        if cfg!(shmuring_tsan) {
            p.read()
        } else {
            p.read_volatile()
        }
    })
}

/// Whether the image of the request in the slot, if it has one, can still be taken although nobody served it for a while
/// (R5). At a take-over, when nobody else claims.
pub(super) fn is_image_safe(slot: &Slot, owner_lives: impl FnOnce() -> bool) -> bool {
    // SAFETY: unfinished, so the request bytes are immutable (R10): only a communicator could make the slot Idle, and that
    // is the caller. Visible by the Acquire of its look.
    let words = unsafe { slot.load_request() };
    !words.opcode().is_some_and(Opcode::takes_images) || words.pool() == BOUNCE || owner_lives()
}
