//! What comes back: answers, failures, broken connections, watermarks that move.

use super::super::slab::{List, NONE};
use super::super::watermark::Standing;
use super::batch::{self, BatchId, Kind, MemberId, Outcome};
use super::event::Event;
use super::submit::SUPERSEDED;
use super::unit::Place;
use super::Scheduler;
use crate::request::Lsn;
use core::cmp::Reverse;

/// Where an answer comes from.
#[derive(Clone, Copy)]
struct From {
    shard: u32,
    generation: u64,
    kind: Kind,
}

impl Scheduler {
    /// A member of a batch came to this. Of a mutation, publish the completion **before** this call (R4b). What is not in
    /// flight any more (recalled, superseded, completed before) is ignored; true if it was in flight. A page for which
    /// this is false may be from before a mutation: it must not get into a cache (R13).
    pub fn completed(&mut self, member: MemberId, outcome: Outcome, now: u64, events: &mut Vec<Event>) -> bool {
        let Some(in_flight) = batch::find(&mut self.batches, member.batch) else { return false };
        let (kind, shard, generation) = (in_flight.kind, in_flight.shard, in_flight.generation);
        let Some(slot) = in_flight.units.get_mut(member.index as usize) else { return false };
        let unit = core::mem::replace(slot, NONE);
        if unit == NONE {
            return false;
        }
        in_flight.left = in_flight.left.saturating_sub(1);
        if in_flight.left == 0 {
            let units = self.close(member.batch);
            self.keep_list(units);
        }
        if unit == SUPERSEDED {
            return false;
        }
        if let Some(u) = self.units.get_mut(unit) {
            u.place = Place::Moving;
        }
        if kind == Kind::Mutations {
            self.mutation_done(unit, outcome, now, events);
        } else {
            let from = From { shard, generation, kind };
            self.read_done(unit, from, outcome, now, events);
        }
        true
    }

    fn mutation_done(&mut self, unit: u32, outcome: Outcome, now: u64, events: &mut Vec<Event>) {
        if matches!(outcome, Outcome::Failed | Outcome::Lost | Outcome::LsnTimeout) {
            self.stats.failures += 1;
            self.retry_mutation(unit);
            return;
        }
        self.answer(unit, outcome == Outcome::Answered, events);
        self.finish_mutation(unit, now, events);
    }

    fn read_done(&mut self, unit: u32, from: From, outcome: Outcome, now: u64, events: &mut Vec<Event>) {
        let From { shard, generation, kind } = from;
        let Some(u) = self.units.get(unit) else { return };
        let (n, class) = (u.n, u.class);
        match outcome {
            Outcome::Answered => {
                if kind == Kind::Future {
                    let waited = now.saturating_sub(u.since);
                    self.stats.waited_ns += waited;
                }
                if let Some(s) = self.shards.get_mut(shard as usize) {
                    if kind == Kind::Ready && s.has_future() {
                        s.overtaken.0 += 1;
                        s.overtaken.1 += u128::from(now);
                    }
                }
                if kind == Kind::Ready {
                    self.look_ahead(shard as usize, class);
                }
                self.answer(unit, true, events);
                self.remove_unit(unit, now, events);
                self.prove(shard, generation, n, now);
            }
            Outcome::Refused => {
                self.stats.failures += 1;
                self.answer(unit, false, events);
                self.remove_unit(unit, now, events);
            }
            Outcome::LsnTimeout => {
                self.stats.lsn_timeouts += 1;
                if kind == Kind::Ready {
                    // It was in a batch with others: alone, it is its own LSN that it waits for.
                    self.set_alone(unit);
                }
                self.unlock_read(unit, now, events);
                self.missed(shard, n, now, events);
                self.requeue(unit, now, events);
            }
            Outcome::Failed | Outcome::Lost => self.failed(unit, now, events),
        }
    }

    /// Tells everybody who waits for a unit.
    fn answer(&mut self, unit: u32, good: bool, events: &mut Vec<Event>) {
        let Some(u) = self.units.get_mut(unit) else { return };
        let attempts = u.attempts;
        let mut waiters = core::mem::take(&mut u.waiters);
        while let Some(number) = waiters.pop(&mut self.waiters) {
            self.wheel.remove(&mut self.waiters, number);
            let Some(w) = self.waiters.remove(number) else { continue };
            let (id, part) = (w.id, w.part);
            events.push(if good {
                Event::Answered { id, part, attempts }
            } else {
                self.stats.gave_up += 1;
                Event::GaveUp { id, part, attempts }
            });
        }
    }

    fn failed(&mut self, unit: u32, now: u64, events: &mut Vec<Event>) {
        self.stats.failures += 1;
        self.unlock_read(unit, now, events);
        let (budget, backoff, most) = (self.options.failures, self.options.backoff, self.options.backoff_max);
        let Some(u) = self.units.get_mut(unit) else { return };
        u.failures = u.failures.saturating_add(1);
        if u.failures > budget {
            self.answer(unit, false, events);
            self.remove_unit(unit, now, events);
            return;
        }
        let doubled = backoff.saturating_mul(1 << u32::from(u.failures - 1).min(32)).min(most);
        u.place = Place::Delayed;
        self.delayed.push(Reverse((now.saturating_add(doubled), unit, u.seq)));
        self.forget_if_unwanted(unit, now, events);
    }

    fn set_alone(&mut self, unit: u32) {
        if let Some(u) = self.units.get_mut(unit) {
            u.alone = true;
        }
    }

    /// Back to a queue, if anybody still waits.
    pub(super) fn requeue(&mut self, unit: u32, now: u64, events: &mut Vec<Event>) {
        self.enqueue(unit, now, events);
        self.forget_if_unwanted(unit, now, events);
    }

    /// An answer with `n` on this connection.
    fn prove(&mut self, shard: u32, generation: u64, n: Lsn, now: u64) {
        let Some(s) = self.shards.get_mut(shard as usize) else { return };
        if s.mark.prove(generation, n, now) {
            self.promote(shard as usize, now);
        }
    }

    /// Feedback: the server of a shard says that it has received and ingested `lsn`. A hint (R11).
    pub fn raise(&mut self, shard: usize, lsn: Lsn, now: u64) {
        let Some(s) = self.shards.get_mut(shard) else { return };
        s.mark.feedback(lsn, now);
        if !self.options.rules.hints {
            self.promote(shard, now);
        }
    }

    /// Everything that became READY goes to the READY queues, at once (S4).
    fn promote(&mut self, shard: usize, now: u64) {
        let Some(s) = self.shards.get_mut(shard) else { return };
        let (overtaken, sum) = core::mem::take(&mut s.overtaken);
        self.stats.hol_avoided_ns += (u128::from(now) * u128::from(overtaken)).saturating_sub(sum) as u64;
        let proved = if self.options.rules.hints { s.mark.proved() } else { s.mark.hint() };
        // Units that go alone stay parked; they are few.
        let mut kept = Vec::new();
        while let Some(n) = s.parked.first().filter(|n| *n <= proved) {
            let lists = s.parked.remove(n).unwrap_or_default();
            for (class, mut list) in lists.into_iter().enumerate() {
                while let Some(number) = list.pop(&mut self.units) {
                    let Some(u) = self.units.get_mut(number) else { continue };
                    if u.alone {
                        kept.push((n, number));
                        continue;
                    }
                    u.place = Place::Ready;
                    u.since = now;
                    s.by_age.remove(&mut self.units, number);
                    if let Some(ready) = s.ready.get_mut(class) {
                        ready.push(&mut self.units, number);
                    }
                    self.stats.promoted += 1;
                }
            }
        }
        for (n, number) in kept {
            let class = self.units.get(number).map_or(0, |u| u.class as usize);
            if let Some(list) = s.parked.entry(n).and_then(|lists| lists.get_mut(class)) {
                list.push(&mut self.units, number);
            }
        }
    }

    /// The connection to a shard is new: its process has proved nothing, and may be further back than the last one.
    /// `durable`: its disk_consistent_lsn as last heard. Batches of older connections are lost: complete them so, or
    /// leave them to this call, which takes back whatever is still out.
    pub fn reconnected(&mut self, shard: usize, generation: u64, durable: Lsn, now: u64, events: &mut Vec<Event>) {
        let lower = self.options.rules.lower;
        let Some(s) = self.shards.get_mut(shard) else { return };
        if generation <= s.mark.generation() {
            return;
        }
        let before = s.mark;
        s.mark.reconnected(generation, durable);
        if !lower {
            s.mark.prove(generation, before.proved(), now);
            s.mark.feedback(before.hint(), now);
        }
        s.overtaken = (0, 0);
        for id in self.batches_of(shard) {
            let units = self.close(id);
            for unit in units {
                self.unlock_read(unit, now, events);
                self.requeue(unit, now, events);
            }
        }
        self.reclassify(shard, now, events);
    }

    fn batches_of(&self, shard: usize) -> Vec<BatchId> {
        let of = |(number, b): (u32, &batch::InFlight)| {
            (b.shard as usize == shard && b.kind != Kind::Mutations).then_some(BatchId { number, seq: b.seq })
        };
        self.batches.iter().filter_map(of).collect()
    }

    /// The server of a shard does not have `n`, or has changed.
    pub(super) fn missed(&mut self, shard: u32, n: Lsn, now: u64, events: &mut Vec<Event>) {
        let Some(s) = self.shards.get_mut(shard as usize) else { return };
        if s.mark.missed(n) {
            self.reclassify(shard as usize, now, events);
        }
    }

    /// Parks what is READY no more.
    pub(super) fn reclassify(&mut self, shard: usize, now: u64, events: &mut Vec<Event>) {
        let Some(s) = self.shards.get(shard) else { return };
        let lists = s.ready.iter().chain(core::iter::once(&s.admitted));
        let queued: Vec<u32> = lists.flat_map(|l: &List<0>| l.iter(&self.units)).collect();
        for number in queued {
            let Some(u) = self.units.get(number) else { continue };
            if self.standing(u.shard, u.n) != Standing::Ready {
                self.dequeue(number);
                self.requeue(number, now, events);
            }
        }
        // Who joined a FUTURE read in flight while its LSN was proved does not wait for it any longer.
        if self.options.rules.join {
            let in_flight = |(_, b): &(u32, &batch::InFlight)| b.shard as usize == shard && b.kind == Kind::Future;
            let sent: Vec<u32> = self.batches.iter().filter(in_flight).flat_map(|(_, b)| b.units.clone()).collect();
            for number in sent {
                let waits = self.units.get(number).is_some_and(|u| self.standing(u.shard, u.n) != Standing::Ready);
                if waits {
                    self.let_go(number, now, events);
                }
            }
        }
    }

    /// A READY batch without an answer: another process answers for the shard now. Its members are sent again, alone.
    pub(super) fn stalled(&mut self, id: BatchId, now: u64, events: &mut Vec<Event>) {
        let Some(batch) = batch::find(&mut self.batches, id) else { return };
        let shard = batch.shard;
        // What was answered did not stall.
        let out = batch.units.iter().filter_map(|u| self.units.get(*u));
        let n = out.map(|u| u.n).max().unwrap_or(batch.n);
        self.stats.stalls += 1;
        events.push(Event::Stalled { shard: shard as usize, n });
        events.push(Event::Recall(id));
        let units = self.close(id);
        for unit in &units {
            self.set_alone(*unit);
        }
        self.missed(shard, n, now, events);
        for unit in units {
            self.unlock_read(unit, now, events);
            self.requeue(unit, now, events);
        }
    }
}
