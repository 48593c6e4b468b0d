//! Requests to units: splitting a vector, joining reads, upgrading what they meet.

use super::super::in_flight::{may_join, Access, Key, Old};
use super::super::slab::{Links, List, NONE};
use super::super::watermark::Standing;
use super::batch::ReadPoint;
use super::event::Event;
use super::request::{Refused, Request, Ticket};
use super::unit::{Place, Unit, Waiter};
use super::Scheduler;
use crate::request::Lsn;

/// Reads of one key that a new one looks at in search of one to join; more are apart without a look.
const LOOK: usize = 16;
/// In a batch's list: a member whose unit was taken away.
pub(super) const SUPERSEDED: u32 = NONE - 1;

impl Scheduler {
    /// Takes a request: all of it, or none. Reads are cut into one unit a block.
    pub fn submit(&mut self, request: &Request<'_>, now: u64, events: &mut Vec<Event>) -> Result<Ticket, Refused> {
        let parts = usize::from(request.parts());
        if self.units.len().max(self.waiters.len()) + parts > self.options.units {
            return Err(Refused::Full);
        }
        if let Some(n) = request.lsns().find(|n| *n > self.flushed) {
            return Err(Refused::NotFlushed { n, flushed: self.flushed });
        }
        if let Some(access) = Access::of_mutation(request.op, request.rel, request.block, request.count, request.arg) {
            return Ok(self.submit_mutation(request, access, now, events));
        }
        if request.deadline.is_some_and(|d| d <= now) {
            return Err(Refused::Expired);
        }
        let (mut first, mut last) = (NONE, NONE);
        for i in (0..parts).filter(|i| request.wanted & 1 << i != 0) {
            let block = request.block.saturating_add(i as u32);
            let Some(key) = Access::of_read(request.op, request.rel, block) else { continue };
            let waiter = self.waiters.insert(Waiter {
                id: request.id,
                part: i as u8,
                class: request.class,
                fetch: request.op != crate::request::Opcode::Prefetch,
                n: request.lsn_of(i),
                deadline: request.deadline.unwrap_or(0),
                unit: NONE,
                sibling: NONE,
                links: Links::ALONE,
                timer: Links::ALONE,
                slot: NONE,
            });
            match self.waiters.get_mut(last) {
                Some(before) => before.sibling = waiter,
                None => first = waiter,
            }
            last = waiter;
            self.stats.submitted += 1;
            if let Some(deadline) = request.deadline {
                self.wheel.add(&mut self.waiters, waiter, deadline);
            }
            self.attach(waiter, key, request.at.unwrap_or(0), now, events);
        }
        Ok(Ticket { id: request.id, first })
    }

    /// Finds a read for a waiter to join, or makes one.
    pub(super) fn attach(&mut self, waiter: u32, key: Key, at: Lsn, now: u64, events: &mut Vec<Event>) {
        let leaf = self.table.enter(key);
        let Some(w) = self.waiters.get(waiter) else { return };
        let (id, n, class, fetch) = (w.id, w.n, w.class, w.fetch);
        let reads = self.table.node(leaf).map_or_else(List::default, |node| node.reads);
        let found = reads.iter(&self.units).take(LOOK).find(|u| self.joinable(*u, n, at, fetch));
        if let Some(unit) = found {
            // The unit keeps the key already.
            self.table.leave(leaf);
            self.stats.joined += 1;
            self.join(waiter, unit, now, events);
            return;
        }
        if !reads.is_empty() {
            self.stats.apart += 1;
        }
        let shard = match key {
            Key::Block(rel, block) => self.options.sharding.block(rel, block),
            _ => 0,
        };
        let standing = self.standing(shard, n);
        self.stats.standing(standing);
        let eff = match self.read_point {
            ReadPoint::Primary => n,
            // As of the moment at which n was looked up: what is replayed later may change the key.
            ReadPoint::Replica(replay) => replay.max(n),
        };
        self.seq += 1;
        let unit = self.units.insert(Unit {
            seq: self.seq,
            id,
            place: Place::Moving,
            class,
            shard,
            leaf,
            n,
            at,
            eff,
            fetch: fetch || self.options.prefetch_answers,
            locked: false,
            pending: 0,
            alone: false,
            failures: 0,
            attempts: 0,
            since: now,
            locks: Box::default(),
            waiters: List::default(),
            queue: Links::ALONE,
            age: Links::ALONE,
            same: Links::ALONE,
        });
        if let Some(node) = self.table.node_mut(leaf) {
            node.reads.push(&mut self.units, unit);
        }
        self.add_waiter(unit, waiter);
        self.enqueue(unit, now, events);
    }

    fn add_waiter(&mut self, unit: u32, waiter: u32) {
        let Some(u) = self.units.get_mut(unit) else { return };
        u.waiters.push(&mut self.waiters, waiter);
        if let Some(w) = self.waiters.get_mut(waiter) {
            w.unit = unit;
        }
    }

    /// R11, and what else makes an answer unfit.
    fn joinable(&self, unit: u32, n: Lsn, at: Lsn, fetch: bool) -> bool {
        let Some(u) = self.units.get(unit) else { return false };
        let sent = matches!(u.place, Place::Sent(..));
        if u.at != at || (at != 0 && u.n != n) || (sent && fetch && !u.fetch) || u.place == Place::Delayed {
            return false;
        }
        let ready = !self.options.rules.join || (self.standing(u.shard, u.n) == Standing::Ready && !u.alone);
        // A mutation takes reads that it overtakes out of their batches, so an answer is never from before one.
        may_join(n, Old { n: u.n, eff: u.eff.max(u.n), ready, mutated: false })
    }

    /// A joined read takes the higher class (S12); the waiter keeps its own deadline.
    fn join(&mut self, waiter: u32, unit: u32, now: u64, events: &mut Vec<Event>) {
        let Some(w) = self.waiters.get(waiter) else { return };
        let (id, class, fetch) = (w.id, w.class, w.fetch);
        self.add_waiter(unit, waiter);
        let Some(u) = self.units.get_mut(unit) else { return };
        events.push(Event::Joined { id, to: u.id });
        u.fetch |= fetch;
        if class >= u.class {
            return;
        }
        self.stats.upgraded += 1;
        let (place, since) = (u.place, u.since);
        if matches!(place, Place::Ready | Place::Admitted | Place::Parked) {
            self.dequeue(unit);
            if let Some(u) = self.units.get_mut(unit) {
                u.class = class;
            }
            self.enqueue(unit, now, events);
            if let Some(u) = self.units.get_mut(unit) {
                u.since = since;
            }
        } else {
            u.class = class;
        }
    }

    /// A read became FUTURE: those who joined it with a lower n are on their own from now on (I12).
    pub(super) fn let_go(&mut self, unit: u32, now: u64, events: &mut Vec<Event>) {
        let Some(u) = self.units.get(unit) else { return };
        if u.waiters.len < 2 {
            return;
        }
        let (n, at) = (u.n, u.at);
        let Some(key) = self.table.node(u.leaf).map(|node| node.key) else { return };
        let lower: Vec<u32> =
            u.waiters.iter(&self.waiters).filter(|w| self.waiters.get(*w).is_some_and(|w| w.n < n)).collect();
        for waiter in lower {
            if let Some(u) = self.units.get_mut(unit) {
                u.waiters.remove(&mut self.waiters, waiter);
            }
            self.stats.left += 1;
            self.attach(waiter, key, at, now, events);
        }
        self.forget_if_unwanted(unit, now, events);
    }

    /// Drops a unit that nobody waits for, where that is possible at once: what is sent or blocked goes later.
    pub(super) fn forget_if_unwanted(&mut self, unit: u32, now: u64, events: &mut Vec<Event>) {
        let Some(u) = self.units.get(unit) else { return };
        if !u.waiters.is_empty() || u.is_mutation() {
            return;
        }
        match u.place {
            Place::Ready | Place::Admitted | Place::Parked => {
                self.dequeue(unit);
                self.remove_unit(unit, now, events);
            }
            Place::Delayed => self.remove_unit(unit, now, events),
            Place::Sent(..) | Place::Blocked | Place::Moving | Place::Lane => {}
        }
    }

    /// Nobody waits for a request any more. Reads that others wait for go on; mutations are never cancelled here. True if
    /// anything of it was left.
    pub fn cancel(&mut self, ticket: Ticket, now: u64, events: &mut Vec<Event>) -> bool {
        let (mut at, mut any) = (ticket.first, false);
        // Each part is followed by a later one of the same request.
        let mut least = 0;
        while let Some(w) = self.waiters.get(at) {
            if w.id != ticket.id || w.part < least {
                break;
            }
            let (waiter, part) = (at, w.part);
            (at, least, any) = (w.sibling, part.saturating_add(1), true);
            self.stats.cancelled += 1;
            self.drop_waiter(waiter, now, events);
        }
        any
    }

    /// Takes a waiter away from its unit.
    pub(super) fn drop_waiter(&mut self, waiter: u32, now: u64, events: &mut Vec<Event>) {
        self.wheel.remove(&mut self.waiters, waiter);
        let Some(w) = self.waiters.get(waiter) else { return };
        let unit = w.unit;
        if let Some(u) = self.units.get_mut(unit) {
            u.waiters.remove(&mut self.waiters, waiter);
        }
        self.waiters.remove(waiter);
        self.forget_if_unwanted(unit, now, events);
    }

    /// A mutation does not wait for FUTURE reads in flight, which may take as long as WAL does: their answers will be
    /// dropped, and they are sent again behind it.
    pub(super) fn supersede(&mut self, unit: u32, now: u64, events: &mut Vec<Event>) {
        let Some(u) = self.units.get_mut(unit) else { return };
        let Place::Sent(number, index) = u.place else { return };
        if u.locked {
            return;
        }
        u.place = Place::Moving;
        if let Some(slot) = self.batches.get_mut(number).and_then(|b| b.units.get_mut(index as usize)) {
            *slot = SUPERSEDED;
        }
        self.stats.superseded += 1;
        self.enqueue(unit, now, events);
        self.forget_if_unwanted(unit, now, events);
    }
}
