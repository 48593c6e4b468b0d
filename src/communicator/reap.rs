//! Reaping: hints become claims, in batches; parking when there is nothing; the audit.

use super::claim::{self, Claim};
use super::role::Communicator;
use crate::clock;
use crate::doorbell::{self, Parked};
use crate::layout::Slot;
use crate::parts::Parts;
use crate::ring::{self, Consumer};
use crate::slot::{communicator, State, Word};
use crate::stats::RoleCounter;

/// How often an idle communicator looks at every slot, in ns (R14).
const AUDIT_EVERY: u64 = 1_000_000_000;

/// How long to collect requests before the first batch is handed on: as io_uring's wait-min.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gather {
    /// Return as soon as so many were claimed.
    pub requests: usize,
    /// Or when this time is up and there is at least one, in ns.
    pub ns: u64,
}

impl<'r> Communicator<'r> {
    /// Claims up to `max` requests and gives each to `each`; returns how many. Never blocks. `to` is Copying for a
    /// communicator that answers inside `each`, Processing for one that hands requests on.
    #[inline]
    pub fn reap(&mut self, max: usize, to: State, mut each: impl FnMut(Claim<'r>)) -> usize {
        let (parts, epoch) = (self.parts, self.epoch);
        if ring::has_pending(parts) {
            self.take_pending();
        }
        let mut now = 0;
        let mut n = 0;
        let mut stale = 0;
        // At most a ring's length of hints a call, however many are stale; those of the bitmap are taken to the last.
        let mut rest = parts.cells.len();
        loop {
            let number = match self.hinted.pop() {
                Some(number) => number,
                None if n >= max || rest == 0 => break,
                None => {
                    rest -= 1;
                    match self.consumer.next(parts) {
                        Some(number) => number,
                        None => break,
                    }
                }
            };
            // Claimed before anything that can fail (R14). One call of `each` in the code, so that it is inlined.
            match claim_hinted(parts, number, to, epoch, &mut now) {
                Some(claim) => {
                    n += 1;
                    each(claim);
                }
                None => stale += 1,
            }
        }
        if n + stale > 0 {
            self.count(n as u64, stale as u64);
        }
        n
    }

    /// Takes over what the pending bitmap hints at. What a panic in `each` leaves is the next reap's.
    #[cold]
    fn take_pending(&mut self) {
        let hinted = &mut self.hinted;
        self.consumer.take_pending(self.parts, |number| {
            // One that there is no memory for is the audit's.
            if hinted.try_reserve(1).is_ok() {
                hinted.push(number);
            }
        });
    }

    fn count(&mut self, claimed: u64, stale: u64) {
        let stats = self.parts.role_stats;
        let counts = core::mem::take(&mut self.consumer.counts);
        stats.add_reaper(RoleCounter::Batches, 1);
        stats.add_reaper(RoleCounter::Claimed, claimed);
        stats.add_reaper(RoleCounter::StaleHints, stale);
        stats.add_reaper(RoleCounter::SteppedOver, counts.stepped_over);
        stats.add_reaper(RoleCounter::PendingHints, counts.pending);
        stats.add_reaper(RoleCounter::Damage, counts.damage);
    }

    /// Claims everything Submitted and gives back everything Withdrawn, without any hint: after the inheritance was
    /// admitted, and after damage (#18, R15).
    pub fn sweep(&mut self, to: State, mut each: impl FnMut(Claim<'r>)) -> usize {
        let (parts, epoch) = (self.parts, self.epoch);
        let mut now = 0;
        let mut n = 0;
        for number in 0..parts.slots.len() as u32 {
            if let Some(claim) = claim_hinted(parts, number, to, epoch, &mut now) {
                n += 1;
                each(claim);
            }
        }
        self.count(n as u64, 0);
        n
    }

    /// Reaps at least one request if there is one within `ns`: spins, then parks. Once the first is there it goes on
    /// collecting as `gather` says. Returns how many; 0 after a quiet time or a wake-up for nothing.
    pub fn reap_or_park(
        &mut self,
        max: usize,
        to: State,
        gather: Gather,
        ns: u64,
        mut each: impl FnMut(Claim<'r>),
    ) -> usize {
        let mut n = self.spin_for(max, to, &mut each);
        if n == 0 {
            self.park(ns);
            n = self.reap(max, to, &mut each);
        }
        let wanted = gather.requests.min(max).saturating_sub(n);
        if n > 0 && wanted > 0 && gather.ns > 0 {
            n += self.gather(max - n, wanted, gather.ns, to, &mut each);
        }
        n
    }

    fn spin_for(&mut self, max: usize, to: State, each: &mut impl FnMut(Claim<'r>)) -> usize {
        let mut spin = core::mem::replace(&mut self.spin, crate::spin::Spin::new(1));
        let n = spin.poll(|| match self.reap(max, to, &mut *each) {
            0 => None,
            n => Some(n),
        });
        self.spin = spin;
        n.unwrap_or(0)
    }

    /// Goes on until `wanted` (at most `max`) more were claimed, or the time is up. Pending hints may bring more than `max`.
    fn gather(&mut self, max: usize, wanted: usize, ns: u64, to: State, each: &mut impl FnMut(Claim<'r>)) -> usize {
        let until = clock::now().saturating_add(ns);
        let mut n = 0;
        while n < wanted {
            n += self.reap(max.saturating_sub(n), to, &mut *each);
            let now = clock::now();
            if n >= wanted || now >= until {
                break;
            }
            self.park((until - now).min(ns));
        }
        n
    }

    /// Sleeps until a backend rings, for at most `ns` and at most a second (R18). Returns early if there is something to
    /// reap.
    pub fn park(&mut self, ns: u64) -> Parked {
        if !self.hinted.is_empty() {
            return Parked::Busy;
        }
        let parked = doorbell::park(self.parts, ns);
        if parked != Parked::Busy {
            self.parts.role_stats.add_reaper(RoleCounter::Parks, 1);
        }
        parked
    }

    /// Looks at every slot, at most once a second (else returns 0 at once): claims what lies Submitted since the last
    /// look, which only a lost hint or an owner that stopped before its push leaves, gives back what lies Withdrawn as
    /// long, and repairs a damaged ring. Call it whenever the communicator is idle.
    pub fn audit(&mut self, to: State, mut each: impl FnMut(Claim<'r>)) -> usize {
        let mut now = clock::now();
        if now.saturating_sub(self.audited_at) < AUDIT_EVERY {
            return 0;
        }
        self.audited_at = now;
        let (parts, epoch) = (self.parts, self.epoch);
        if self.consumer.is_damaged(self.parts) {
            self.consumer.repair(self.parts);
            return self.sweep(to, each);
        }
        let mut n = 0;
        let suspects = core::mem::take(&mut self.suspects);
        for (number, before) in suspects {
            let Some(slot) = ring::slot_at(self.parts, number) else { continue };
            // Closely: with a waiter bit comes the push that was before it (SL_8), so that `is_idle` sees the hint.
            let word = communicator::look_closely(slot);
            let same = word.state() == before.state() && word.generation() == before.generation();
            if !same || !Consumer::is_idle(self.parts) {
                continue;
            }
            if word.is(State::Withdrawn) {
                claim::free(self.parts, slot, word);
                continue;
            }
            // An owner that waits has pushed: its hint is lost. One that does not may have stopped before the push.
            let counter = if word.waiter() { RoleCounter::LostHints } else { RoleCounter::Unhinted };
            self.parts.role_stats.add(counter, 1);
            if let Some(claim) = claim_hinted(parts, number, to, epoch, &mut now) {
                n += 1;
                each(claim);
            }
        }
        self.suspect();
        n
    }

    /// Notes what the next audit looks at: as much as there is memory for.
    fn suspect(&mut self) {
        let hinted = |word: &Word| matches!(word.state(), Some(State::Submitted | State::Withdrawn));
        let words = (0u32..).zip(self.parts.slots).map(|(number, slot)| (number, communicator::look(slot)));
        for suspect in words.filter(|(_, word)| hinted(word)) {
            if self.suspects.try_reserve(1).is_err() {
                break;
            }
            self.suspects.push(suspect);
        }
    }
}

/// Rows 3, 4 and 11: what a hint leads to. `None`: nothing to claim. `now` is the time of the batch, 0 until it is read:
/// one look at the clock for all that are deferred.
#[inline(always)]
fn claim_hinted<'r>(parts: &'r Parts<'r>, number: u32, to: State, epoch: u32, now: &mut u64) -> Option<Claim<'r>> {
    let slot = ring::slot_at(parts, number)?;
    let word = communicator::look(slot);
    if !word.is(State::Submitted) {
        free_withdrawn(parts, slot, word);
        return None;
    }
    let word = match communicator::claim(slot, word, to, epoch) {
        Ok(moved) => moved.word,
        Err(now) => {
            free_withdrawn(parts, slot, now);
            return None;
        }
    };
    match Claim::read(parts, slot, number, word, false) {
        Ok(mut claim) => {
            if to == State::Processing {
                if *now == 0 {
                    *now = clock::now();
                }
                claim.defer(*now);
            }
            Some(claim)
        }
        Err(refused) => {
            refused.answer(parts, slot, word);
            None
        }
    }
}

/// #11, where a hint met no request.
#[cold]
fn free_withdrawn(parts: &Parts<'_>, slot: &Slot, word: Word) {
    if word.is(State::Withdrawn) {
        claim::free(parts, slot, word);
    }
}
