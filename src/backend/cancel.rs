//! Cancelling: after it has succeeded, no byte of the request's buffers is written (I2).

use super::wait::Wait;
use super::{Backend, SlotRef};
use crate::buffers::BOUNCE;
use crate::clock;
use crate::error::{Error, Result};
use crate::futex::Outcome;
use crate::layout::Slot;
use crate::request::RawRequest;
use crate::slot::{owner, State, Word};
use crate::stats::OwnerCounter;
use crate::sync::{ord, Ordering};

/// How often proof of the communicator's death is asked for while its copying is waited out (R6), in ns.
const PROOF_EVERY: u64 = 10_000_000;
/// Most looks, without a sleep, at a word that keeps moving between Processing and Copying.
const TRIES: u32 = 1000;

/// What a cancel came to. Either way the reference is stale and the slot comes back once the communicator says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// No communicator had claimed it: it never ran.
    Withdrawn,
    /// It was claimed; its answer will be dropped.
    Abandoned,
}

impl<'r> Backend<'r> {
    /// Gives a request up. With bounce buffers this is one compare-exchange and never waits; with a registered pool it
    /// waits (as `wait` allows) until the communicator's copying is over or the communicator is proved dead.
    /// `AlreadyCompleted`: take the result. `InProgress`: a claimed mutation runs to its end, wait for it. `TimedOut`,
    /// `Interrupted`: the copying is not over, the request stands.
    pub fn cancel(&mut self, request: SlotRef, wait: &Wait<'_>) -> Result<Cancelled> {
        let (slot, _) = self.own(request.slot)?;
        let cancelled = self.give_up(slot, request, wait)?;
        self.stats.add(OwnerCounter::Cancelled, 1);
        if self.sample.is_some_and(|(sampled, _)| sampled == request) {
            self.sample = None;
        }
        Ok(cancelled)
    }

    /// Rows 10, 12, 14, 15 and the discarding of a slot that was never submitted.
    pub(super) fn give_up(&mut self, slot: &Slot, request: SlotRef, wait: &Wait<'_>) -> Result<Cancelled> {
        let raw = own_request(slot);
        let is_mutation = raw.opcode().is_none_or(|op| op.is_mutation());
        let mut tries = 0;
        while tries < TRIES {
            tries += 1;
            let word = owner::look(slot);
            if word.generation() != request.generation {
                return Err(Error::Stale);
            }
            let moved = match word.state() {
                Some(State::Filling) => {
                    owner::discard_filling(slot, word).owed.pay(&self.parts, slot);
                    return Ok(Cancelled::Withdrawn);
                }
                Some(State::Completed) => return Err(Error::AlreadyCompleted),
                // Relaxed: a claim that stored it has left Submitted for good.
                Some(State::Submitted) if is_mutation && slot.claim_seq.load(Ordering::Relaxed) != 0 => {
                    return Err(Error::InProgress)
                }
                Some(State::Submitted) => owner::withdraw(slot, word),
                Some(State::Processing | State::Copying) if is_mutation => return Err(Error::InProgress),
                Some(State::Processing) => owner::abandon(slot, word),
                Some(State::Copying) if raw.pool == BOUNCE || self.is_proved_dead(word) => owner::abandon(slot, word),
                Some(State::Copying) => {
                    if self.wait_out_copying(slot, word, wait)? {
                        // The deadline bounds sleeps.
                        tries = 0;
                    }
                    continue;
                }
                _ => return Err(Error::Stale),
            };
            if let Ok(moved) = moved {
                moved.owed.pay(&self.parts, slot);
                let withdrawn = moved.word.is(State::Withdrawn);
                return Ok(if withdrawn { Cancelled::Withdrawn } else { Cancelled::Abandoned });
            }
        }
        Err(Error::TimedOut)
    }

    /// Whether the holder of this claim's epoch is dead: a later epoch has begun, or nobody holds the role. The word was
    /// read before (R6, #15).
    fn is_proved_dead(&self, claimed: Word) -> bool {
        // ORD(RL_1): pairs with the Release of the epoch in the communicator's `take_role`, which comes after the role
        // lock, which comes after the last holder left its memory.
        let epoch = self.parts.header.role.epoch.load(ord!(RL_1, Acquire));
        epoch.wrapping_sub(claimed.epoch()) as i32 > 0 || !self.liveness.role_held()
    }

    /// One sleep, until the word moves or proof of death is to be asked for again; `false`: it had moved already.
    fn wait_out_copying(&self, slot: &Slot, copying: Word, wait: &Wait<'_>) -> Result<bool> {
        let now = clock::now();
        self.check_wait(wait, now)?;
        let Ok(marked) = owner::set_waiter(slot, copying) else { return Ok(false) };
        let until = wait.until.min(now.saturating_add(PROOF_EVERY));
        match self.sleep_on(slot, marked, &Wait { until, interrupt: wait.interrupt }, now) {
            Outcome::Interrupted => Err(Error::Interrupted),
            Outcome::TimedOut | Outcome::Woken => Ok(true),
            _ => Ok(false),
        }
    }
}

/// The request bytes of a slot of our own range.
#[allow(unsafe_code)]
pub(super) fn own_request(slot: &Slot) -> RawRequest {
    // SAFETY: only the owner writes them, while Filling; this is the owner, and from Submitted to Idle they are
    // immutable (R10).
    slot.request.with(|p| unsafe { p.read() })
}
