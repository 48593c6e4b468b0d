//! READY batches: which class goes next, and which of its units.
//!
//! Classes share by weight, not by strict priority, and what is older than its class's bound goes first: nobody starves.
//! But not for ever: where more is asked for than can be served, all of it is too old, and demand would be the one to
//! starve. So demand has its turn after every two batches that went first for their age.
//! A batch has one class. Units leave a queue in the order in which they came.

use super::super::slab::{List, NONE};
use super::batch::{Batch, BatchId, InFlight, Kind, Member, MemberId, ReadPoint};
use super::event::Event;
use super::unit::Place;
use super::Scheduler;
use crate::request::{Class, Lsn};

const CLASSES: [Class; 3] = [Class::Demand, Class::Prefetch, Class::Background];
/// Batches in a row that go before demand for their age.
const AGED: u8 = 2;
/// Lists of units whose memory is kept.
const SPARE: usize = 64;

impl Scheduler {
    /// The next batch of reads for a shard, of at most `max` members; `None`: nothing may be sent now. Call it until it
    /// gives none after every `submit`, `completed`, `tick` and watermark.
    pub fn next(&mut self, shard: usize, now: u64, max: usize, events: &mut Vec<Event>) -> Option<Batch> {
        let max = max.clamp(1, self.options.batch.max(1));
        let lanes = self.shards.get(shard)?.ready_out.len as usize;
        if lanes < self.options.ready_lanes {
            if let Some(batch) = self.next_ready(shard, now, max, events) {
                return Some(batch);
            }
        }
        self.next_future(shard, now, max, events)
    }

    fn next_ready(&mut self, shard: usize, now: u64, max: usize, events: &mut Vec<Event>) -> Option<Batch> {
        loop {
            let class = self.pick_class(shard, now)?;
            let id = self.reserve_batch();
            let queued =
                self.shards.get(shard).map_or(0, |s| s.admitted.len + s.ready.iter().map(|l| l.len).sum::<u32>());
            let mut batch = self.open(id, shard, Kind::Ready, class, max.min(queued as usize))?;
            let mut units = self.unit_list();
            while units.len() < max {
                let Some(unit) = self.pop_ready(shard, class) else { break };
                if self.lock_read(unit, now, events) {
                    self.add_member(&mut batch, &mut units, unit);
                }
            }
            if units.is_empty() {
                // All of them wait for keys: the next class, until no queue has anything.
                self.keep_list(units);
                self.batches.remove(id.number);
                continue;
            }
            let n = units.len() as u32;
            let list = self.shards.get_mut(shard)?;
            if let Some(credit) = list.credit.get_mut(class as usize) {
                *credit = credit.saturating_sub(n);
            }
            self.stats.batches[0] += 1;
            self.stats.sent[0] += u64::from(n);
            self.fill_batch(id, InFlight::reads(&batch, now, units, self.lease(&batch)));
            if let Some(s) = self.shards.get_mut(shard) {
                s.ready_out.push(&mut self.batches, id.number);
            }
            return Some(batch);
        }
    }

    /// The class to serve: admitted units first (others wait for their keys), then what is too old, then by weight.
    fn pick_class(&mut self, shard: usize, now: u64) -> Option<Class> {
        let weights = self.options.weights;
        let s = self.shards.get_mut(shard)?;
        if let Some(unit) = self.units.get(s.admitted.head) {
            return Some(unit.class);
        }
        if s.ready.iter().all(List::is_empty) {
            s.aged = 0;
            return None;
        }
        let is_late = |class: &Class| {
            let head = s.ready.get(*class as usize).and_then(|l| self.units.get(l.head));
            let bound = self.options.class_bounds.get(*class as usize).copied().unwrap_or(0);
            head.is_some_and(|u| now.saturating_sub(u.since) > bound)
        };
        if s.aged < AGED || s.ready.first().is_some_and(List::is_empty) {
            // In turn, or the one that asks for more would keep the other out.
            let turn = if s.aged % 2 == 0 {
                [Class::Prefetch, Class::Background]
            } else {
                [Class::Background, Class::Prefetch]
            };
            if let Some(class) = turn.into_iter().find(is_late) {
                s.aged = s.aged.wrapping_add(1);
                return Some(class);
            }
        }
        s.aged = 0;
        for _ in 0..2 {
            let waiting = s.ready.iter().zip(s.credit).zip(CLASSES);
            if let Some((_, class)) = waiting.into_iter().find(|((list, credit), _)| !list.is_empty() && *credit > 0) {
                return Some(class);
            }
            s.credit = weights.map(|w| w.max(1));
        }
        None
    }

    fn pop_ready(&mut self, shard: usize, class: Class) -> Option<u32> {
        let s = self.shards.get_mut(shard)?;
        let admitted = self.units.get(s.admitted.head).is_some_and(|u| u.class == class);
        let list = if admitted { &mut s.admitted } else { s.ready.get_mut(class as usize)? };
        let unit = list.pop(&mut self.units)?;
        if let Some(u) = self.units.get_mut(unit) {
            u.place = Place::Moving;
        }
        Some(unit)
    }

    /// Asks for the lines of one more unit that goes soon, of its key, and of who waits for it: with many outstanding none of
    /// them is near. Called for each answer, since as many go then; a line comes while the next answers are worked on.
    pub(super) fn look_ahead(&mut self, shard: usize, class: Class) {
        let Some(s) = self.shards.get_mut(shard) else { return };
        let (Some(list), Some(ahead)) = (s.ready.get(class as usize), s.ahead.get_mut(class as usize)) else { return };
        // Only a hint: what has left the queue since, or has come to another one, costs nothing but the hint.
        match self.units.get(*ahead).filter(|u| u.place == Place::Ready) {
            Some(u) => {
                self.table.ask_ahead(u.leaf);
                self.waiters.ask_ahead(u.waiters.head);
                *ahead = u.queue.next;
            }
            None => *ahead = list.head,
        }
        self.units.ask_ahead(*ahead);
    }

    /// A name for a batch that is being formed.
    pub(super) fn reserve_batch(&mut self) -> BatchId {
        self.seq += 1;
        let seq = self.seq;
        BatchId { number: self.batches.insert(InFlight::empty(seq)), seq }
    }

    pub(super) fn fill_batch(&mut self, id: BatchId, in_flight: InFlight) {
        if in_flight.r != 0 {
            *self.read_points.entry(in_flight.r).or_insert(0) += 1;
        }
        if let Some(batch) = self.batches.get_mut(id.number) {
            *batch = in_flight;
        }
    }

    /// An empty list for the units of a batch, with the memory of one that is over.
    pub(super) fn unit_list(&mut self) -> Vec<u32> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps the memory of a list whose batch is over.
    pub(super) fn keep_list(&mut self, mut units: Vec<u32>) {
        if self.spare.len() < SPARE {
            units.clear();
            self.spare.push(units);
        }
    }

    /// A batch without members, and with room for so many.
    pub(super) fn open(&self, id: BatchId, shard: usize, kind: Kind, class: Class, room: usize) -> Option<Batch> {
        let generation = self.shards.get(shard)?.mark.generation();
        Some(Batch { id, kind, shard, generation, class, n: 0, members: Vec::with_capacity(room) })
    }

    /// Sends a unit with a batch.
    pub(super) fn add_member(&mut self, batch: &mut Batch, units: &mut Vec<u32>, unit: u32) {
        let Some(u) = self.units.get_mut(unit) else { return };
        let id = MemberId { batch: batch.id, index: units.len() as u32 };
        let r = match (u.at, self.read_point) {
            (0, ReadPoint::Primary) => Lsn::MAX,
            // Asked anew at each send, and never below n (S8).
            (0, ReadPoint::Replica(replay)) => replay.max(u.n),
            (at, _) => at,
        };
        u.place = Place::Sent(id.batch.number, id.index);
        u.attempts += 1;
        let attempt = u.attempts - 1;
        let key = self.table.node(u.leaf).map_or(super::super::in_flight::Key::None, |n| n.key);
        batch.n = batch.n.max(u.n);
        batch.members.push(Member { id, request: u.id, key, n: u.n, r, fetch: u.fetch, attempt });
        units.push(unit);
    }

    /// The lowest request LSN of a batch, for leases: 0 on a primary.
    pub(super) fn lease(&self, batch: &Batch) -> Lsn {
        match self.read_point {
            ReadPoint::Primary => 0,
            ReadPoint::Replica(_) => batch.members.iter().map(|m| m.r).min().unwrap_or(0),
        }
    }
}

impl InFlight {
    pub(super) fn empty(seq: u64) -> Self {
        Self {
            seq,
            shard: NONE,
            kind: Kind::Mutations,
            generation: 0,
            n: 0,
            r: 0,
            sent_at: 0,
            probe: false,
            units: Vec::new(),
            left: 0,
            left_then: 0,
            links: super::super::slab::Links::ALONE,
        }
    }

    pub(super) fn mutations(seq: u64, lane: u32, now: u64, units: Vec<u32>) -> Self {
        let left = units.len() as u32;
        Self { shard: lane, sent_at: now, left, left_then: left, units, ..Self::empty(seq) }
    }

    pub(super) fn reads(batch: &Batch, now: u64, units: Vec<u32>, r: Lsn) -> Self {
        Self {
            kind: batch.kind,
            generation: batch.generation,
            n: batch.n,
            r,
            ..Self::mutations(batch.id.seq, batch.shard as u32, now, units)
        }
    }
}
