//! Submitting: the slot word, the ring, the doorbell; in this order.

use super::{Backend, SlotRef};
use crate::clock;
use crate::doorbell::Bell;
use crate::error::{Error, Result};
use crate::layout::Slot;
use crate::ring::FirstTry;
use crate::slot::{owner, State};
use crate::stats::OwnerCounter;

/// Most requests that go to the ring in one push; a longer batch is cut, without a second doorbell.
const BATCH: usize = 32;

/// Every so many requests of a range, a power of two, one is timed: two clock reads would cost a tenth of a round trip.
const SAMPLE_EVERY: u64 = 64;

/// What is rare in a submit, and left to do when its slot is Submitted: for [`Backend::submit_rest`].
#[derive(Clone, Copy, Debug)]
pub enum Rest {
    /// To push the slot.
    Push,
    /// To push it with this ticket, which is taken.
    Ticket(u64),
    /// To look whether to ring.
    Ring,
    /// To time the request.
    Sample,
}

impl<'r> Backend<'r> {
    /// Hands a filled slot to the communicator. Never blocks, never fails for want of room; a system call only if the
    /// communicator sleeps. `NotFilling` or `Stale` if there is nothing to submit.
    #[inline]
    pub fn submit(&mut self, request: SlotRef) -> Result<()> {
        let slot = self.filling(request)?;
        self.hand_over(slot, request, |_| (), |backend, request, rest| backend.submit_rest(request, rest));
        Ok(())
    }

    /// [`Backend::submit`] without a word about errors: `None`, and nothing changed, if it must decide. Gives what
    /// `done` does, or `rest`, which calls [`Backend::submit_rest`]. For callers that have places of their own for what
    /// is rare.
    #[inline(always)]
    pub fn try_submit<T>(
        &mut self,
        request: SlotRef,
        done: impl FnOnce(SlotRef) -> T,
        rest: impl Fn(&mut Self, SlotRef, Rest) -> T,
    ) -> Option<T> {
        let (slot, _) = self.own_home(request.slot)?;
        let is_filling = owner::look(slot).is_just(State::Filling, request.generation);
        is_filling.then(|| self.hand_over(slot, request, done, rest))
    }

    /// Submits a request that is Filling, of a slot of the range.
    #[inline(always)]
    pub(super) fn hand_over<T>(
        &mut self,
        slot: &Slot,
        request: SlotRef,
        done: impl FnOnce(SlotRef) -> T,
        rest: impl Fn(&mut Self, SlotRef, Rest) -> T,
    ) -> T {
        owner::submit(slot, request.filling());
        match self.producer.push_one(&self.parts, request.slot) {
            FirstTry::Pushed => {}
            FirstTry::Ticket(ticket) => return rest(self, request, Rest::Ticket(ticket)),
            FirstTry::Failed => return rest(self, request, Rest::Push),
        }
        if Bell::is_due(&self.parts) {
            return rest(self, request, Rest::Ring);
        }
        let before = self.stats.add(OwnerCounter::Submitted, 1);
        if before % SAMPLE_EVERY == 0 {
            return rest(self, request, Rest::Sample);
        }
        done(request)
    }

    /// The rest of a submit.
    #[cold]
    #[inline(never)]
    pub fn submit_rest(&mut self, request: SlotRef, rest: Rest) {
        let first = match rest {
            Rest::Push => FirstTry::Failed,
            Rest::Ticket(ticket) => FirstTry::Ticket(ticket),
            Rest::Ring => FirstTry::Pushed,
            Rest::Sample => return self.start_sample(request),
        };
        let pending = self.producer.push_again(&self.parts, request.slot, first);
        self.submitted(request, 1, pending);
    }

    /// Hands filled slots to the communicator, with one doorbell for all. If one of them cannot be submitted, or is named
    /// twice (`NotFilling`), none is.
    #[inline]
    pub fn submit_many(&mut self, requests: &[SlotRef]) -> Result<()> {
        self.check_batch(requests)?;
        let mut pending = 0;
        for batch in requests.chunks(BATCH) {
            for r in batch {
                // Checked: it is there.
                if let Some(slot) = self.slots.get(r.slot.wrapping_sub(self.first) as usize) {
                    owner::submit(slot, r.filling());
                }
            }
            pending += self.producer.push_all(&self.parts, batch);
        }
        if let Some(last) = requests.last() {
            self.submitted(*last, requests.len() as u64, pending);
        }
        Ok(())
    }

    /// After the push of `n` requests, `last` the last of them: the doorbell and the counts. `pending` hints went by the
    /// bitmap.
    #[inline]
    fn submitted(&mut self, last: SlotRef, n: u64, pending: u64) {
        if self.bell.ring(&self.parts) {
            self.stats.add(OwnerCounter::DoorbellRings, 1);
        }
        if pending > 0 {
            self.stats.add(OwnerCounter::PendingPushes, pending);
        }
        self.tally(last, n);
    }

    #[inline]
    fn tally(&mut self, last: SlotRef, n: u64) {
        let before = self.stats.add(OwnerCounter::Submitted, n);
        // Whether the first of them, or a later one, is the one in so many that is timed.
        let last_one = before.wrapping_sub(1);
        if (last_one ^ last_one.wrapping_add(n)) >= SAMPLE_EVERY {
            self.start_sample(last);
        }
    }

    /// Each request is Filling and of its generation, and no two are one.
    #[inline]
    fn check_batch(&mut self, requests: &[SlotRef]) -> Result<()> {
        self.check_process()?;
        self.batch = self.batch.wrapping_add(1);
        let (slots, first, batch) = (self.slots, self.first, self.batch);
        for r in requests {
            let index = r.slot.wrapping_sub(first) as usize;
            let (Some(slot), Some(named)) = (slots.get(index), self.named.get_mut(index)) else {
                return Err(Error::BadSlot);
            };
            check_filling(slot, *r)?;
            if *named == batch {
                return Err(Error::NotFilling);
            }
            *named = batch;
        }
        Ok(())
    }

    /// The slot of a request that is Filling and of this generation.
    #[inline]
    fn filling(&self, r: SlotRef) -> Result<&'r Slot> {
        let (slot, _) = self.own(r.slot)?;
        check_filling(slot, r)?;
        Ok(slot)
    }

    /// Times this request, unless one is being timed.
    #[cold]
    #[inline(never)]
    fn start_sample(&mut self, request: SlotRef) {
        if self.sample.is_none() {
            self.sample = Some((request, clock::now()));
        }
    }
}

#[inline]
fn check_filling(slot: &Slot, r: SlotRef) -> Result<()> {
    let word = owner::look(slot);
    if word.is_just(State::Filling, r.generation) {
        Ok(())
    } else if word.generation() != r.generation {
        Err(Error::Stale)
    } else {
        Err(Error::NotFilling)
    }
}
