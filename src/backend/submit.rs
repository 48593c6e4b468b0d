//! Submitting: the slot word, the ring, the doorbell; in this order.

use super::{Backend, SlotRef};
use crate::clock;
use crate::error::{Error, Result};
use crate::layout::Slot;
use crate::slot::owner;
use crate::stats::OwnerCounter;

/// Most requests that go to the ring in one push; a longer batch is cut, without a second doorbell.
const BATCH: usize = 32;

/// Every so many requests of a range one is timed: two clock reads would cost a tenth of a round trip.
const SAMPLE_EVERY: u64 = 64;

impl<'r> Backend<'r> {
    /// Hands a filled slot to the communicator. Never blocks, never fails for want of room; a system call only if the
    /// communicator sleeps. `NotFilling` or `Stale` if there is nothing to submit.
    #[inline]
    pub fn submit(&mut self, request: SlotRef) -> Result<()> {
        let slot = self.filling(request)?;
        owner::submit(slot, request.filling());
        let pending = self.producer.push(&self.parts, &[request.slot]);
        self.submitted(core::slice::from_ref(&request), pending);
        Ok(())
    }

    /// Hands filled slots to the communicator, with one doorbell for all. If one of them cannot be submitted, or is named
    /// twice (`NotFilling`), none is.
    #[inline]
    pub fn submit_many(&mut self, requests: &[SlotRef]) -> Result<()> {
        self.check_batch(requests)?;
        let mut pending = 0;
        for batch in requests.chunks(BATCH) {
            let mut numbers = [0; BATCH];
            let mut n = 0;
            for r in batch {
                let (slot, _) = self.own(r.slot)?;
                if let Some(number) = numbers.get_mut(n) {
                    owner::submit(slot, r.filling());
                    *number = r.slot;
                    n += 1;
                }
            }
            pending += self.producer.push(&self.parts, numbers.get(..n).unwrap_or(&[]));
        }
        self.submitted(requests, pending);
        Ok(())
    }

    /// After the push: the doorbell and the counts. `pending` hints went by the bitmap.
    #[inline]
    fn submitted(&mut self, requests: &[SlotRef], pending: u64) {
        let rang = self.bell.ring(&self.parts);
        let before = self.stats.get(OwnerCounter::Submitted);
        let n = requests.len() as u64;
        self.stats.add(OwnerCounter::Submitted, n);
        if pending > 0 {
            self.stats.add(OwnerCounter::PendingPushes, pending);
        }
        if rang {
            self.stats.add(OwnerCounter::DoorbellRings, 1);
        }
        if before / SAMPLE_EVERY != before.wrapping_add(n) / SAMPLE_EVERY {
            self.start_sample(requests);
        }
    }

    /// Each request is Filling and of its generation, and no two are one.
    #[inline]
    fn check_batch(&mut self, requests: &[SlotRef]) -> Result<()> {
        let verdict = requests.iter().try_for_each(|r| {
            self.filling(*r)?;
            match self.named.get_mut(r.slot.wrapping_sub(self.first) as usize) {
                Some(named) if !*named => *named = true,
                _ => return Err(Error::NotFilling),
            }
            Ok(())
        });
        for r in requests {
            if let Some(named) = self.named.get_mut(r.slot.wrapping_sub(self.first) as usize) {
                *named = false;
            }
        }
        verdict
    }

    /// The slot of a request that is Filling and of this generation.
    #[inline]
    fn filling(&self, r: SlotRef) -> Result<&'r Slot> {
        let (slot, _) = self.own(r.slot)?;
        let word = owner::look(slot);
        if word.generation() != r.generation {
            Err(Error::Stale)
        } else if word != r.filling() {
            Err(Error::NotFilling)
        } else {
            Ok(slot)
        }
    }

    /// Times the last of these requests, unless one is being timed.
    #[cold]
    fn start_sample(&mut self, requests: &[SlotRef]) {
        if let (None, Some(last)) = (self.sample, requests.last()) {
            self.sample = Some((*last, clock::now()));
        }
    }
}
