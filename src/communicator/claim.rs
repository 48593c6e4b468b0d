//! One claimed request: from the claim to exactly one completion (I4).
#![allow(unsafe_code)]

use crate::buffers::{Pool, BOUNCE};
use crate::clock;
use crate::error::{Error, Result};
use crate::layout::{Control, Shared, Slot};
use crate::parts::Parts;
use crate::request::{flags, Class, Completion, Job, Opcode, RawRequest, RawVector};
use crate::slot::{communicator, State, Word};
use crate::stats::RoleCounter;
use crate::sync::{Ordering, UnsafeCell};
use core::mem::ManuallyDrop;

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
        let raw = unsafe { copy_once(&slot.request) };
        // SAFETY: as above.
        let control: Control = unsafe { copy_once(&slot.control) };
        let opcode = match raw.validate() {
            Ok(opcode) => opcode,
            Err(e) => return Err(Refused::because(e)),
        };
        // SAFETY: as above.
        let vector = raw.needs_vector().then(|| Box::new(unsafe { copy_once(&slot.vector) }));
        // Relaxed: a new life settles every slot itself before it relies on this (R1).
        let life = parts.header.life.life.load(Ordering::Relaxed);
        if control.life != life && !again {
            return Err(Refused { errno: libc::EOWNERDEAD, counter: RoleCounter::OldLife });
        }
        if opcode.has_buffers() {
            if let Err(e) = check_buffers(parts, number, &raw, vector.as_deref(), &control) {
                return Err(Refused::because(e));
            }
        }
        if raw.flags & flags::DEADLINE != 0 && !again && control.extra.deadline <= clock::now() {
            return Err(Refused { errno: libc::ETIMEDOUT, counter: RoleCounter::Expired });
        }
        let claim_seq = if opcode.is_mutation() { number_claim(parts, slot, again) } else { 0 };
        let job = raw.job(opcode, &control.extra, vector);
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
    pub(super) fn defer(&mut self) {
        self.claimed_at = clock::now();
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
        let pool = if self.job.opcode.has_buffers() { self.parts.pools.get(self.job.pool).ok().copied() } else { None };
        Ok(Copying { claim: self, pool })
    }

    /// Completes with a result. If the request was cancelled, the slot is given back instead, and `Withdrawn` says so.
    #[inline]
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

/// Every buffer exists; bounce blocks are the owner's own (R5).
#[inline]
fn check_buffers(
    parts: &Parts<'_>,
    number: u32,
    raw: &RawRequest,
    vector: Option<&RawVector>,
    control: &Control,
) -> Result<()> {
    let pool = parts.pools.get(raw.pool)?;
    let (mut from, mut end) = (0, pool.count());
    if raw.pool == BOUNCE {
        let per_slot = parts.geometry.bounce_per_slot;
        let owner_end = control.owner_first.checked_add(control.owner_count).ok_or(Error::BadBuffer)?;
        if !(control.owner_first..owner_end).contains(&number) || owner_end > parts.geometry.slots {
            return Err(Error::BadBuffer);
        }
        from = control.owner_first.saturating_mul(per_slot);
        end = end.min(owner_end.saturating_mul(per_slot));
    }
    let exists = |index: &u32| (from..end).contains(index);
    let all = match vector {
        None => exists(&{ raw.arg }),
        Some(v) => v.buffers.get(..usize::from(raw.count)).is_some_and(|named| named.iter().all(exists)),
    };
    if all {
        Ok(())
    } else {
        Err(Error::BadBuffer)
    }
}

/// Gives a mutation its place in the order of claims, before anything acts on it (R4). A claim made anew keeps the place
/// it had.
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

/// Writes the result and publishes it (#7, #8); gives the slot back if it was cancelled (#13).
#[inline]
pub(super) fn finish(
    parts: &Parts<'_>,
    slot: &Slot,
    word: Word,
    completion: Completion,
) -> core::result::Result<(), Withdrawn> {
    // SAFETY: claimed and not completed, so the result bytes are ours (I1); an Abandoned slot is still the claim's.
    slot.result.with_mut(|p| unsafe { p.write(completion) });
    if !completion.is_ok() {
        parts.role_stats.add(RoleCounter::Failed, 1);
    }
    match communicator::complete(slot, word) {
        Ok(moved) => {
            if moved.owed.pay(parts, slot) {
                parts.role_stats.add(RoleCounter::Wakes, 1);
            }
            Ok(())
        }
        Err(_) => {
            free_claimed(parts, slot, word);
            Err(Withdrawn)
        }
    }
}

/// #13: gives back the slot of a claim that was cancelled: of its generation and epoch and no other.
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

/// The right to touch the buffers of a claim. Complete the claim next, or go back to Processing with
/// [`Copying::suspend`]; a guard that is only dropped leaves the claim in Copying.
#[derive(Debug)]
pub struct Copying<'c, 'r> {
    claim: &'c mut Claim<'r>,
    pool: Option<Pool>,
}

impl Copying<'_, '_> {
    /// Writes `page` (at most a block) to the buffer of block `i`.
    #[inline]
    pub fn deliver(&mut self, i: usize, page: &[u8]) -> Result<()> {
        let (pool, index) = self.target(i)?;
        if !self.claim.job.opcode.fills_buffers() {
            return Err(Error::BadRequest);
        }
        // SAFETY: in Copying (I2).
        unsafe { pool.write(index, 0, page) }
    }

    /// Copies the image of block `i` (at most a block) out of its buffer.
    #[inline]
    pub fn take_image(&mut self, i: usize, to: &mut [u8]) -> Result<()> {
        let (pool, index) = self.target(i)?;
        if !self.claim.job.opcode.takes_images() {
            return Err(Error::BadRequest);
        }
        // SAFETY: in Copying (I2).
        unsafe { pool.read(index, to) }
    }

    #[inline]
    fn target(&self, i: usize) -> Result<(&Pool, u32)> {
        let pool = self.pool.as_ref().ok_or(Error::BadPool)?;
        Ok((pool, self.claim.job.buffer(i).ok_or(Error::BadBuffer)?))
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
    let raw = unsafe { copy_once(&slot.request) };
    !raw.opcode().is_some_and(Opcode::takes_images) || raw.pool == BOUNCE || owner_lives()
}
