//! The slot word: every transition of a request slot, and nothing else, writes it.
//!
//! # What
//! One `u64`: the low half (state, waiter bit W, generation) is the futex that the owner sleeps on, the high half is the
//! epoch of the communicator that claimed it. The numbers (#1 to #26) are the rows of the transition table in
//! docs/design.md.
//!
//! # States
//! Idle → Filling → Submitted → Processing ⇄ Copying → Completed → Idle (generation + 1); Submitted → Withdrawn,
//! Processing or Copying → Abandoned, and both → Idle by the communicator alone.
//!
//! # Fields
//! Idle, Filling, Completed: the owner's. Submitted: nobody's, immutable. Processing, Copying: the claim's, its buffers
//! in Copying alone (I2). Abandoned, Withdrawn: the communicator's.
//!
//! # Invariants
//! I1, I2, I3. Every communicator transition is a compare-exchange that expects its own epoch and keeps W.
//!
//! # Orderings
//! SL_1 request bytes before the claim. SL_2 result and pages before the owner's read. SL_3 the communicator's last
//! access to the buffers before a cancel's answer. SL_4 the owner's read before the next filling (by itself, or through
//! the range lock). SL_6 the communicator's last access before the next filling. SL_8 the push before the waiter bit.
//!
//! # Recovery
//! The last column of the table; docs/recovery.md.

mod word;

pub use word::{State, Word, GENERATIONS};

use crate::futex;
use crate::layout::Slot;
use crate::parts::Parts;
use crate::sync::{ord, Ordering};

/// What [`Slot::orphan`] holds when the owner of this word's request is dead.
const fn orphan_mark(word: Word) -> u64 {
    word.generation() as u64 + 1
}

/// What a transition owes: a wake-up of every sleeper on the word, if W was set (R9).
#[must_use = "sleepers must be woken"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed(bool);

impl Owed {
    /// Wakes the sleepers, if there are any; returns whether it made a system call.
    #[inline]
    pub fn pay(self, parts: &Parts<'_>, slot: &Slot) -> bool {
        if self.0 {
            futex::wake_all(&slot.word, parts.private);
        }
        self.0
    }

    /// Whether there is anything to pay.
    #[inline]
    #[must_use]
    pub const fn is_due(self) -> bool {
        self.0
    }
}

/// One transition that came about: the word now, and what is owed.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Moved {
    /// The word as the transition left it.
    pub word: Word,
    /// The wake-up that is due.
    pub owed: Owed,
}

/// The word found in place of the one that a transition needs; nothing changed.
pub type Refused = Word;

/// Most tries of a compare-exchange that only a waiter bit may disturb (R9); hostile bytes end it.
const TRIES: usize = 4;

/// A compare-exchange of one word.
trait Cas: Fn(u64, u64) -> Result<u64, u64> {}
impl<F: Fn(u64, u64) -> Result<u64, u64>> Cas for F {}

/// Compare-exchanges `from` to `to(from)` by `cas`, retrying while the waiter bit alone differs.
#[inline(always)]
fn step<T: Fn(Word) -> Word + Copy, C: Cas>(from: Word, to: T, cas: C) -> Result<Moved, Refused> {
    let before = match cas(from.bits(), to(from).bits()) {
        Ok(_) => from,
        Err(found) => step_again(from, Word::from_bits(found), to, cas)?,
    };
    Ok(Moved { word: to(before), owed: Owed(before.waiter()) })
}

/// The compare-exchange of a [`step`] with its orderings, which are constants so.
macro_rules! cas {
    ($slot:ident, $success:expr, $failure:ident) => {
        |old, new| $slot.word.compare_exchange(old, new, $success, Ordering::$failure)
    };
}

/// The rest of a [`step`] that met another word; gives the one that it replaced. (By value: references need memory.)
#[cold]
#[inline(never)]
fn step_again<T: Fn(Word) -> Word, C: Cas>(from: Word, mut found: Word, to: T, cas: C) -> Result<Word, Refused> {
    for _ in 1..TRIES {
        if found.without_waiter() != from.without_waiter() {
            break;
        }
        match cas(found.bits(), to(found).bits()) {
            Ok(_) => return Ok(found),
            Err(now) => found = Word::from_bits(now),
        }
    }
    Err(found)
}

/// Transitions of the owner of the slot, who holds its range lock.
pub mod owner {
    use super::*;

    /// Looks at the word, with all that its last writer published.
    #[inline]
    pub fn look(slot: &Slot) -> Word {
        // ORD(SL_2): pairs with the Release of `communicator::complete`; the result and the pages are visible.
        Word::from_bits(slot.word.load(ord!(SL_2, Acquire)))
    }

    /// #1 Idle → Filling. No one else writes an Idle word, so a store is enough.
    #[inline]
    pub fn begin_fill(slot: &Slot) -> Result<Word, Refused> {
        // ORD(SL_6): pairs with the Release of `communicator::free`. ORD(SL_4): with that of `finish` and
        // `discard_filling` by an earlier owner, so that nothing rests on what order a file lock gives.
        let word = Word::from_bits(slot.word.load(ord!(SL_4 | SL_6, Acquire)));
        if !word.is_only(State::Idle) {
            return Err(word);
        }
        let next = word.moved(State::Filling, 0);
        // Relaxed: nobody acts on Filling but a later owner, who comes through the range lock.
        slot.word.store(next.bits(), Ordering::Relaxed);
        Ok(next)
    }

    /// #2 Filling → Submitted. The caller pushes a hint next.
    #[inline]
    pub fn submit(slot: &Slot, filling: Word) {
        // ORD(SL_1): pairs with the Acquire of `communicator::claim`; publishes the request bytes and the image.
        slot.word.store(filling.moved(State::Submitted, 0).bits(), ord!(SL_1, Release));
    }

    /// #9 Completed → Idle, once the result has been read.
    #[inline]
    pub fn finish(slot: &Slot, completed: Word) -> Moved {
        let next = completed.freed();
        // ORD(SL_4): the reads of result and pages come before the next filling of this slot, by whomever. A plain store
        // may overwrite a foreign waiter's W that came after our look, so an RMW is used where W may be set late; here
        // W is only ever set on unfinished words (#26), so the one in `completed` is the last.
        slot.word.store(next.bits(), ord!(SL_4, Release));
        Moved { word: next, owed: Owed(completed.waiter()) }
    }

    /// #20 Filling → Idle: what a dead owner was filling. The range lock is held.
    pub fn discard_filling(slot: &Slot, filling: Word) -> Moved {
        let next = filling.freed();
        // ORD(SL_4): pairs with the Acquire of `begin_fill`.
        slot.word.store(next.bits(), ord!(SL_4, Release));
        Moved { word: next, owed: Owed(filling.waiter()) }
    }

    /// Notes that the owner of the request in the slot is dead, if there is an unfinished one, for a communicator that
    /// takes over: from then on the range lock may be the next owner's, which proves nothing about the buffers of this
    /// request (R5). Call it before taking that lock. `is_held` asks whether anyone holds it; `false`: somebody does, or
    /// others keep changing the mark.
    pub fn mark_orphan(slot: &Slot, is_held: impl Fn() -> bool) -> bool {
        for _ in 0..TRIES {
            // Relaxed: compare-exchanged below, so that a mark of a later generation is not overwritten.
            let mark = slot.orphan.load(Ordering::Relaxed);
            let word = look(slot);
            if !matches!(word.state(), Some(State::Submitted | State::Processing | State::Copying)) {
                return true;
            }
            // Asked after the look: who submitted this request held the lock then, and is gone if nobody holds it now.
            if is_held() {
                return false;
            }
            // Release: with the lock that the caller takes next, which whoever reads the mark has seen.
            let next = orphan_mark(word);
            if slot.orphan.compare_exchange(mark, next, Ordering::Release, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
        false
    }

    /// #10 Submitted → Withdrawn: reads, and mutations that no communicator has ever claimed (epoch 0).
    pub fn withdraw(slot: &Slot, submitted: Word) -> Result<Moved, Refused> {
        // AcqRel, though no edge hangs off it: the communicator has touched nothing of a Submitted slot, and reads nothing
        // of a Withdrawn one. Acquire on failure: the state that came first.
        step(submitted, |w| w.moved(State::Withdrawn, 0), cas!(slot, Ordering::AcqRel, Acquire))
    }

    /// #12, #14, #15 Processing or Copying → Abandoned, of reads.
    ///
    /// From Processing always. From Copying only where every buffer is a bounce block of the slot's own (#14: the block
    /// stays with the slot until Idle), or where the claim's epoch was proved dead *after* the word was read (#15).
    pub fn abandon(slot: &Slot, claimed: Word) -> Result<Moved, Refused> {
        // ORD(SL_3): pairs with the Release of `communicator::suspend` and `::claim`'s later steps; the communicator's
        // writes to the buffers happened before, so whoever uses them next overwrites and is not overwritten.
        step(claimed, |w| w.moved(State::Abandoned, w.epoch()), cas!(slot, ord!(SL_3, Acquire), Acquire))
    }

    /// #26 sets W on an unfinished word, before sleeping on it. Returns the word to sleep on.
    pub fn set_waiter(slot: &Slot, seen: Word) -> Result<Word, Refused> {
        if seen.waiter() {
            return Ok(seen);
        }
        let next = seen.with_waiter();
        // ORD(SL_8): pairs with the Acquire of `communicator::look_closely` in the audit; whoever waits has pushed, and the
        // audit sees the hint. No other data hangs off the bit; the futex compares the word again in the kernel.
        match slot.word.compare_exchange(seen.bits(), next.bits(), ord!(SL_8, Release), Ordering::Relaxed) {
            Ok(_) => Ok(next),
            Err(found) => Err(Word::from_bits(found)),
        }
    }
}

/// Transitions of the communicator that holds the role with its epoch.
pub mod communicator {
    use super::*;

    /// Looks at a word before a claim. The hint that led here carries the happens-before (R8).
    #[inline]
    pub fn look(slot: &Slot) -> Word {
        // Relaxed: the claim's compare-exchange decides; a stale view is only stale as far as the hint allows.
        Word::from_bits(slot.word.load(Ordering::Relaxed))
    }

    /// Looks at a word that no hint led to, with all that its last writer published: where the role is taken or given up,
    /// and in the audit.
    pub fn look_closely(slot: &Slot) -> Word {
        // ORD(SL_1): pairs with the Release of `owner::submit`; the request bytes are visible before any claim.
        // ORD(SL_8): pairs with that of `owner::set_waiter`; the hint of a request that is waited for is visible.
        Word::from_bits(slot.word.load(ord!(SL_1 | SL_8, Acquire)))
    }

    /// #3, #4 Submitted → Processing or Copying.
    #[inline]
    pub fn claim(slot: &Slot, submitted: Word, to: State, epoch: u32) -> Result<Moved, Refused> {
        // ORD(SL_1): pairs with the Release of `owner::submit`; the request bytes and the image are visible.
        step(submitted, move |w| w.moved(to, epoch), cas!(slot, ord!(SL_1, Acquire), Relaxed))
    }

    /// #16 Processing or Copying of a dead epoch → Processing of ours. The role lock is held.
    pub fn take_over(slot: &Slot, claimed: Word, epoch: u32) -> Result<Moved, Refused> {
        step(claimed, move |w| w.moved(State::Processing, epoch), cas!(slot, Ordering::AcqRel, Acquire))
    }

    /// Whether the owner of this request was proved dead (R5). Ask whether the range lock is held first.
    pub fn is_orphan(slot: &Slot, word: Word) -> bool {
        // Acquire: pairs with `owner::mark_orphan`, by the range lock of the next owner.
        slot.orphan.load(Ordering::Acquire) == orphan_mark(word)
    }

    /// #5 Processing → Copying: from here on the buffers may be touched (I2). Refused by Abandoned.
    #[inline]
    pub fn begin_copy(slot: &Slot, processing: Word) -> Result<Moved, Refused> {
        // Acquire, though no edge hangs off it (a cancel that came first has changed the word): it keeps the accesses to
        // the buffers behind this check.
        step(processing, |w| w.moved(State::Copying, w.epoch()), cas!(slot, Ordering::Acquire, Relaxed))
    }

    /// #6 Copying → Processing: the image is taken, or a part is delivered. Wakes: a cancel may wait for it.
    pub fn suspend(slot: &Slot, copying: Word) -> Result<Moved, Refused> {
        // ORD(SL_3): pairs with the Acquire of `owner::abandon`; our buffer accesses are done.
        step(copying, |w| w.moved(State::Processing, w.epoch()), cas!(slot, ord!(SL_3, Release), Relaxed))
    }

    /// #7, #8 Copying or Processing → Completed; the result has been written. Refused by Abandoned.
    #[inline]
    pub fn complete(slot: &Slot, claimed: Word) -> Result<Moved, Refused> {
        // ORD(SL_2): pairs with the Acquire of `owner::look`; publishes the result and the pages.
        step(claimed, |w| w.moved(State::Completed, w.epoch()), cas!(slot, ord!(SL_2, Release), Relaxed))
    }

    /// #11, #13, #17 Withdrawn or Abandoned → Idle of the next generation.
    pub fn free(slot: &Slot, cancelled: Word) -> Result<Moved, Refused> {
        // ORD(SL_6): pairs with the Acquire of `owner::begin_fill`; our last access to slot and buffers is done.
        step(cancelled, Word::freed, cas!(slot, ord!(SL_6, Release), Acquire))
    }
}

#[cfg(all(test, not(any(feature = "loom", feature = "shuttle"))))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn slot(word: Word) -> Slot {
        let s = Slot::default();
        s.word.store(word.bits(), Ordering::Relaxed);
        s
    }

    #[test]
    fn the_way_through_keeps_the_waiter_bit_and_ends_in_the_next_generation() {
        let s = slot(Word::new(State::Idle, 7, 0));
        let filling = owner::begin_fill(&s).unwrap();
        owner::submit(&s, filling);
        let submitted = communicator::look(&s);
        let waiting = owner::set_waiter(&s, submitted).unwrap();
        let claimed = communicator::claim(&s, submitted, State::Copying, 3).unwrap();
        assert!(claimed.word.waiter() && claimed.word.epoch() == 3 && waiting.waiter());
        let back = communicator::suspend(&s, claimed.word).unwrap();
        assert!(back.owed.is_due());
        let again = communicator::begin_copy(&s, back.word).unwrap();
        let done = communicator::complete(&s, again.word).unwrap();
        assert!(done.word.is(State::Completed) && done.owed.is_due());
        let idle = owner::finish(&s, owner::look(&s));
        assert!(idle.owed.is_due());
        assert_eq!(owner::look(&s), Word::new(State::Idle, 8, 0));
    }

    #[test]
    fn generations_wrap() {
        let last = Word::new(State::Withdrawn, GENERATIONS - 1, 0);
        assert_eq!(communicator::free(&slot(last), last).unwrap().word, Word::new(State::Idle, 0, 0));
    }

    #[test]
    fn another_epoch_or_generation_is_refused_and_changes_nothing() {
        let now = Word::new(State::Processing, 5, 9);
        let s = slot(now);
        for other in [Word::new(State::Processing, 5, 8), Word::new(State::Processing, 4, 9)] {
            assert_eq!(communicator::complete(&s, other).unwrap_err(), now);
            assert_eq!(communicator::begin_copy(&s, other).unwrap_err(), now);
            assert_eq!(owner::abandon(&s, other).unwrap_err(), now);
        }
        assert_eq!(owner::look(&s), now);
    }

    #[test]
    fn a_completion_after_an_abandon_is_refused() {
        let (s, w) = (slot(Word::new(State::Processing, 1, 2)), Word::new(State::Processing, 1, 2));
        let _ = owner::abandon(&s, w).unwrap();
        assert!(communicator::complete(&s, w).unwrap_err().is(State::Abandoned));
    }

    #[test]
    fn bytes_that_no_transition_wrote_have_no_state() {
        for word in (8..16).map(Word::from_bits) {
            assert!(word.state().is_none() && owner::begin_fill(&slot(word)).is_err());
        }
    }
}
