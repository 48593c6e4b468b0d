//! What time alone brings: deadlines, retries, stalls.
//!
//! Deadlines lie in a wheel of lists, so that adding and removing one costs the same however many there are.

use super::super::slab::{List, Slab, NONE};
use super::super::watermark::Standing;
use super::batch::BatchId;
use super::event::{Event, Waiting};
use super::unit::{Place, Waiter};
use super::Scheduler;
use core::cmp::Reverse;

/// Time that one list of the wheel stands for, ns: deadlines are kept to within so much.
pub(super) const TICK: u64 = 4_194_304;
/// Lists of the wheel; deadlines further away than their sum lie in it for more than one turn.
const SLOTS: usize = 512;

/// Deadlines of waiters.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<List<1>>,
    /// The next tick to look at.
    next: u64,
    len: usize,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { slots: vec![List::default(); SLOTS], next: 0, len: 0 }
    }

    pub(super) fn add(&mut self, waiters: &mut Slab<Waiter>, number: u32, deadline: u64) {
        // The tick after: a deadline is never early. What is past lies where the next look finds it.
        let slot = ((deadline / TICK + 1).max(self.next) % SLOTS as u64) as u32;
        let Some(list) = self.slots.get_mut(slot as usize) else { return };
        list.push(waiters, number);
        self.len += 1;
        if let Some(w) = waiters.get_mut(number) {
            w.slot = slot;
        }
    }

    pub(super) fn remove(&mut self, waiters: &mut Slab<Waiter>, number: u32) {
        let Some(w) = waiters.get_mut(number) else { return };
        let slot = core::mem::replace(&mut w.slot, NONE);
        if let Some(list) = self.slots.get_mut(slot as usize) {
            list.remove(waiters, number);
            self.len -= 1;
        }
    }

    /// Waiters whose deadline has passed.
    fn due(&mut self, waiters: &Slab<Waiter>, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        let until = now / TICK;
        if self.len > 0 {
            // One turn sees every list.
            for tick in self.next..=until.min(self.next.saturating_add(SLOTS as u64)) {
                let Some(list) = self.slots.get((tick % SLOTS as u64) as usize) else { continue };
                due.extend(list.iter(waiters).filter(|n| waiters.get(*n).is_some_and(|w| w.deadline <= now)));
            }
        }
        self.next = self.next.max(until.saturating_add(1));
        due.sort_unstable();
        due.dedup();
        due
    }
}

impl Scheduler {
    /// What is due at `now`. Call it every few milliseconds while anything is in flight.
    pub fn tick(&mut self, now: u64, events: &mut Vec<Event>) {
        for waiter in self.wheel.due(&self.waiters, now) {
            self.expire(waiter, now, events);
        }
        while let Some(Reverse((when, unit, seq))) = self.delayed.peek().copied() {
            if when > now {
                break;
            }
            self.delayed.pop();
            if self.units.get(unit).is_some_and(|u| u.seq == seq && u.place == Place::Delayed) {
                self.requeue(unit, now, events);
            }
        }
        for shard in 0..self.shards.len() {
            self.look_for_stalls(shard, now, events);
        }
    }

    fn expire(&mut self, waiter: u32, now: u64, events: &mut Vec<Event>) {
        let Some(w) = self.waiters.get(waiter) else { return };
        let (id, part) = (w.id, w.part);
        let waiting = self.units.get(w.unit).and_then(|u| {
            let mark = &self.shards.get(usize::from(u.shard))?.mark;
            let (n, shard) = (u.n, usize::from(u.shard));
            let waits = matches!(u.place, Place::Parked | Place::Sent(..)) && mark.standing(n) != Standing::Ready;
            waits.then(|| Waiting { n, shard, proved: mark.proved(), hint: mark.hint() })
        });
        self.stats.expired += 1;
        self.stats.expired_waiting += u64::from(waiting.is_some());
        events.push(Event::Expired { id, part, waiting });
        self.drop_waiter(waiter, now, events);
    }

    /// READY batches lie in the order in which they were sent, or were last seen to get on.
    fn look_for_stalls(&mut self, shard: usize, now: u64, events: &mut Vec<Event>) {
        let limit = self.options.stall_after;
        while let Some(s) = self.shards.get(shard).filter(|s| !s.mark.is_infinite()) {
            let number = s.ready_out.head;
            let Some(batch) = self.batches.get_mut(number) else { return };
            if now.saturating_sub(batch.sent_at) < limit {
                return;
            }
            let id = BatchId { number, seq: batch.seq };
            if core::mem::replace(&mut batch.left_then, batch.left) == batch.left {
                self.stalled(id, now, events);
                continue;
            }
            // Slow, but it gets on.
            batch.sent_at = now;
            if let Some(s) = self.shards.get_mut(shard) {
                s.ready_out.remove(&mut self.batches, number);
                s.ready_out.push(&mut self.batches, number);
            }
        }
    }
}
