//! Mutations: in the order of their submits where they conflict, apart from reads of what they change (R4).
//!
//! The caller publishes a mutation's completion **before** it calls `completed`, which releases the keys (R4b). A successor
//! submits what it inherited first, in the order of claims (R4c). With [`MutationOrder::Lane`] the order of the one lane
//! keeps mutations apart, and a mutation that waits for a read holds up those behind it: for as long as READY reads take.
//! With [`MutationOrder::Keys`] their keys do, and there is a lane for each shard and one for what concerns several: a
//! shard that cannot be reached holds up no writes of others.

use super::super::in_flight::{Access, Acquired, Key, Mode, MutationOrder};
use super::super::slab::{Links, List, NONE};
use super::batch::{Batch, InFlight, Kind, Member, MemberId};
use super::event::Event;
use super::options::Options;
use super::request::{Request, Ticket};
use super::unit::{Place, Unit, Waiter};
use super::Scheduler;
use crate::request::{Class, Lsn, Opcode};
use std::collections::BTreeMap;

/// Mutations that wait to be sent, to one shard or to several.
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
            shard: self.mutation_lane(request),
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
            self.queue_mutation(unit);
        }
        // Mutations have no cancel: once claimed they are waited for (R4a).
        Ticket { id, first: NONE }
    }

    /// The lanes: one, or one for each shard and the last for what concerns several.
    pub(super) fn mutation_lanes(options: &Options) -> Vec<MutationLane> {
        let count = usize::from(options.sharding.count);
        let lanes = if options.mutation_order == MutationOrder::Keys && count > 1 { count + 1 } else { 1 };
        (0..lanes).map(|_| MutationLane::default()).collect()
    }

    fn mutation_lane(&self, request: &Request<'_>) -> u16 {
        let sharding = self.options.sharding;
        let last = self.mutations.len().saturating_sub(1) as u16;
        match request.op {
            Opcode::Sync => last,
            _ if !sharding.spreads(request.rel) => 0,
            Opcode::WritePage => {
                let shard = |i: u16| sharding.block(request.rel, request.block.wrapping_add(u32::from(i)));
                let first = shard(0);
                let is_one = (1..u16::from(request.count)).all(|i| shard(i) == first);
                if is_one {
                    first.min(last)
                } else {
                    last
                }
            }
            _ => last,
        }
    }

    fn queue_mutation(&mut self, unit: u32) {
        let lane = self.units.get(unit).map_or(0, |u| usize::from(u.shard));
        if let Some(lane) = self.mutations.get_mut(lane) {
            lane.queue.push(&mut self.units, unit);
        }
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
            self.queue_mutation(unit);
        }
    }

    /// The next mutations to apply, in order; `None` if there are none or as many batches as may be are in flight. With
    /// [`MutationOrder::Keys`] those of a batch are for one shard, or each of them for several.
    pub fn next_mutations(&mut self, now: u64, max: usize) -> Option<Batch> {
        (0..self.mutations.len()).find_map(|lane| self.next_in_lane(lane, now, max))
    }

    fn next_in_lane(&mut self, lane: usize, now: u64, max: usize) -> Option<Batch> {
        let batches = match self.options.mutation_order {
            MutationOrder::Lane => 1,
            MutationOrder::Keys => self.options.mutation_batches,
        };
        if self.mutations.get(lane)?.out >= batches {
            return None;
        }
        let mut members = Vec::new();
        let mut units = self.unit_list();
        let id = self.reserve_batch();
        while units.len() < max {
            let Some(unit) = self.next_mutation(lane) else { break };
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
        if let Some(lane) = self.mutations.get_mut(lane) {
            lane.out += 1;
        }
        self.stats.batches[2] += 1;
        self.stats.sent[2] += units.len() as u64;
        self.fill_batch(id, InFlight::mutations(id.seq, lane as u32, now, units));
        Some(Batch { id, kind: Kind::Mutations, shard: 0, generation: 0, class: Class::Demand, n: 0, members })
    }

    fn next_mutation(&mut self, lane: usize) -> Option<u32> {
        let lane = self.mutations.get_mut(lane)?;
        if let Some((_, unit)) = lane.again.pop_first() {
            return Some(unit);
        }
        // In order of the lane the first one that waits holds up the rest.
        (self.units.get(lane.queue.head)?.place == Place::Lane).then(|| lane.queue.pop(&mut self.units)).flatten()
    }

    /// A mutation that failed keeps its keys and goes first.
    pub(super) fn retry_mutation(&mut self, unit: u32) {
        let Some(u) = self.units.get_mut(unit) else { return };
        u.place = Place::Lane;
        if let Some(lane) = self.mutations.get_mut(usize::from(u.shard)) {
            lane.again.insert(u.seq, unit);
        }
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
