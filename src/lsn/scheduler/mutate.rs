//! Mutations: in the order of their submits where they conflict, apart from reads of what they change (R4).
//!
//! The caller publishes a mutation's completion **before** it calls `completed`, which releases the keys (R4b). A successor
//! submits what it inherited first, in the order of claims (R4c). With [`MutationOrder::Lane`] the order of the lane keeps
//! mutations apart, and a mutation that waits for a read holds up those behind it: for as long as READY reads take.

use super::super::in_flight::{Access, Acquired, Key, Mode, MutationOrder};
use super::super::slab::{Links, List, NONE};
use super::batch::{Batch, InFlight, Kind, Member, MemberId};
use super::event::Event;
use super::request::{Request, Ticket};
use super::unit::{Place, Unit, Waiter};
use super::Scheduler;
use crate::request::{Class, Lsn};
use std::collections::BTreeMap;

/// Mutations that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct MutationLane {
    queue: List<0>,
    /// Failed ones, which go first, in their order.
    again: BTreeMap<u64, u32>,
    pub(super) out: usize,
}

impl Scheduler {
    pub(super) fn submit_mutation(
        &mut self,
        request: &Request<'_>,
        access: Access,
        now: u64,
        events: &mut Vec<Event>,
    ) -> Ticket {
        self.stats.submitted += 1;
        self.seq += 1;
        let id = request.id;
        let waiter = self.waiters.insert(Waiter {
            id,
            part: 0,
            class: request.class,
            fetch: false,
            n: 0,
            deadline: 0,
            unit: NONE,
            sibling: NONE,
            links: Links::ALONE,
            timer: Links::ALONE,
            slot: NONE,
        });
        let unit = self.units.insert(Unit {
            seq: self.seq,
            id,
            place: Place::Lane,
            class: request.class,
            shard: 0,
            leaf: NONE,
            n: request.lsn,
            at: 0,
            eff: 0,
            fetch: false,
            locked: true,
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
        if let Some(w) = self.waiters.get_mut(waiter) {
            w.unit = unit;
        }
        if let Some(u) = self.units.get_mut(unit) {
            u.waiters.push(&mut self.waiters, waiter);
        }
        let free = self.lock_mutation(unit, id, access, now, events);
        if free || self.options.mutation_order == MutationOrder::Lane {
            self.mutations.queue.push(&mut self.units, unit);
        }
        // Mutations have no cancel: once claimed they are waited for (R4a).
        Ticket { id, first: NONE }
    }

    /// Takes all keys at this moment; reads that wait for WAL give way. True if none must be waited for.
    fn lock_mutation(&mut self, unit: u32, id: u64, access: Access, now: u64, events: &mut Vec<Event>) -> bool {
        let mut locks = Vec::new();
        access.each(|key, mode| locks.push((self.table.enter(key), mode)));
        let mut pending = 0;
        let parent = locks.first().and_then(|l| self.table.node(l.0)).map_or(NONE, |n| n.parent);
        // Once for all of its keys: they lie under the same one.
        let (mut above, mut mode) = (parent, Mode::WritesWithin);
        let own = locks.len();
        for _ in 0..2 {
            let Some(node) = self.table.node(above) else { break };
            let (key, next) = (node.key, node.parent);
            locks.push((self.table.enter(key), mode));
            (above, mode) = (next, mode.above());
        }
        for (number, mode) in &locks {
            if let Acquired::Waits(by) = self.table.acquire(*number, *mode, unit, id) {
                pending += 1;
                let key = self.table.node(*number).map_or(Key::None, |n| n.key);
                events.push(Event::Blocked { id, by, key });
            }
        }
        let keys: Vec<u32> = locks.iter().take(own).map(|l| l.0).collect();
        if let Some(u) = self.units.get_mut(unit) {
            u.locks = locks.into();
        }
        let free = self.wait_for_keys(unit, pending, now);
        match access {
            Access::Whole(key) => self.supersede_within(key, now, events),
            _ => {
                for number in keys {
                    let reads = self.table.node(number).map_or_else(List::default, |n| n.reads);
                    for read in reads.iter(&self.units).collect::<Vec<_>>() {
                        self.supersede(read, now, events);
                    }
                }
            }
        }
        free
    }

    /// Finds the FUTURE reads in flight under a key; they are as many as the lanes hold, and this is rare.
    fn supersede_within(&mut self, whole: Key, now: u64, events: &mut Vec<Event>) {
        let mut found = Vec::new();
        for (_, batch) in self.batches.iter().filter(|(_, b)| b.kind == Kind::Future) {
            for unit in batch.units.iter().filter(|u| **u != NONE) {
                let key = self.units.get(*unit).and_then(|u| self.table.node(u.leaf)).map(|n| n.key);
                let within = key.is_some_and(|k| {
                    let parent = k.parent();
                    parent == Some(whole) || parent.and_then(Key::parent) == Some(whole)
                });
                if within {
                    found.push(*unit);
                }
            }
        }
        for unit in found {
            self.supersede(unit, now, events);
        }
    }

    /// The keys of a mutation are free.
    pub(super) fn mutation_ready(&mut self, unit: u32) {
        if let Some(u) = self.units.get_mut(unit) {
            u.place = Place::Lane;
        }
        if self.options.mutation_order == MutationOrder::Keys {
            self.mutations.queue.push(&mut self.units, unit);
        }
    }

    /// The next mutations to apply, in order; `None` if there are none or as many batches as lanes are in flight.
    pub fn next_mutations(&mut self, now: u64, max: usize) -> Option<Batch> {
        let lanes = match self.options.mutation_order {
            MutationOrder::Lane => 1,
            MutationOrder::Keys => self.options.mutation_lanes,
        };
        if self.mutations.out >= lanes {
            return None;
        }
        let mut members = Vec::new();
        let mut units = self.unit_list();
        let id = self.reserve_batch();
        while units.len() < max {
            let Some(unit) = self.next_mutation() else { break };
            let index = units.len() as u32;
            let member = MemberId { batch: id, index };
            let Some(u) = self.units.get_mut(unit) else { continue };
            u.place = Place::Sent(id.number, index);
            u.attempts += 1;
            let attempt = u.attempts - 1;
            members.push(Member {
                id: member,
                request: u.id,
                key: Key::None,
                n: u.n,
                r: Lsn::MAX,
                fetch: false,
                attempt,
            });
            units.push(unit);
        }
        if units.is_empty() {
            self.batches.remove(id.number);
            self.keep_list(units);
            return None;
        }
        self.mutations.out += 1;
        self.stats.batches[2] += 1;
        self.stats.sent[2] += units.len() as u64;
        self.fill_batch(id, InFlight::mutations(id.seq, now, units));
        Some(Batch { id, kind: Kind::Mutations, shard: 0, generation: 0, class: Class::Demand, n: 0, members })
    }

    fn next_mutation(&mut self) -> Option<u32> {
        if let Some((_, unit)) = self.mutations.again.pop_first() {
            return Some(unit);
        }
        let head = self.mutations.queue.head;
        // In a lane the first one that waits holds up the rest.
        (self.units.get(head)?.place == Place::Lane).then(|| self.mutations.queue.pop(&mut self.units)).flatten()
    }

    /// A mutation that failed keeps its keys and goes first.
    pub(super) fn retry_mutation(&mut self, unit: u32) {
        let Some(u) = self.units.get_mut(unit) else { return };
        u.place = Place::Lane;
        self.mutations.again.insert(u.seq, unit);
    }

    /// A mutation is done, and its completion published: its keys are free (R4b).
    pub(super) fn finish_mutation(&mut self, unit: u32, now: u64, events: &mut Vec<Event>) {
        let Some(u) = self.units.get_mut(unit) else { return };
        for (number, _) in core::mem::take(&mut u.locks).into_vec().into_iter().rev() {
            self.table.release(number, &mut self.granted);
            self.table.leave(number);
        }
        self.units.remove(unit);
        self.admit_granted(now, events);
    }
}
