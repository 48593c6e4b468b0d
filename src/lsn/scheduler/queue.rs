//! Where a read waits: READY units by class, FUTURE ones parked by LSN. The only code that moves a unit between them.

use super::super::in_flight::{Acquired, Mode};
use super::super::slab::{List, NONE};
use super::super::watermark::{Standing, Watermark};
use super::batch::BatchId;
use super::event::Event;
use super::parked::Parked;
use super::unit::Place;
use super::{Options, Scheduler};
use crate::request::Lsn;

/// The queues of a shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) mark: Watermark,
    /// READY units by class.
    pub(super) ready: [List<0>; 3],
    /// The next unit of each class to ask for ahead of its turn.
    pub(super) ahead: [u32; 3],
    /// READY units that hold their keys: they go before all others.
    pub(super) admitted: List<0>,
    /// What each class may still send in this round.
    pub(super) credit: [u32; 3],
    /// Batches that went for their age since demand had its turn.
    pub(super) aged: u8,
    /// FUTURE units by LSN (S4), by class within one.
    pub(super) parked: Parked,
    /// The same units by age.
    pub(super) by_age: List<1>,
    /// READY batches in flight, oldest first.
    pub(super) ready_out: List<0>,
    /// FUTURE batches in flight by their n, ascending.
    pub(super) future_out: Vec<(Lsn, BatchId)>,
    /// The batch that tries the highest hinted LSN.
    pub(super) probe: Option<(Lsn, BatchId)>,
    /// READY answers given since FUTURE reads began to wait: how many, and the sum of their times.
    pub(super) overtaken: (u64, u128),
}

impl Shard {
    pub(super) fn new(mark: Watermark, options: &Options) -> Self {
        Self {
            mark,
            ready: Default::default(),
            ahead: [NONE; 3],
            admitted: List::default(),
            credit: options.weights,
            aged: 0,
            parked: Parked::default(),
            by_age: List::default(),
            ready_out: List::default(),
            future_out: Vec::new(),
            probe: None,
            overtaken: (0, 0),
        }
    }

    /// Whether a read waits for WAL.
    pub(super) fn has_future(&self) -> bool {
        !self.by_age.is_empty() || !self.future_out.is_empty() || self.probe.is_some()
    }
}

impl Scheduler {
    /// Where a unit's n stands on its shard.
    pub(super) fn standing(&self, shard: u16, n: Lsn) -> Standing {
        let rules = &self.options.rules;
        match self.shards.get(usize::from(shard)).map(|s| s.mark.standing(n)) {
            _ if !rules.classify => Standing::Ready,
            Some(Standing::Hinted) if !rules.hints => Standing::Ready,
            Some(standing) => standing,
            None => Standing::Future,
        }
    }

    /// Puts a read that is nowhere where it belongs.
    pub(super) fn enqueue(&mut self, number: u32, now: u64, events: &mut Vec<Event>) {
        let Some(unit) = self.units.get(number) else { return };
        if self.standing(unit.shard, unit.n) == Standing::Ready && !unit.alone {
            self.enqueue_ready(number, now);
        } else {
            self.park(number, now, events);
        }
    }

    fn enqueue_ready(&mut self, number: u32, now: u64) {
        let Some(unit) = self.units.get_mut(number) else { return };
        let Some(shard) = self.shards.get_mut(usize::from(unit.shard)) else { return };
        unit.since = now;
        unit.place = if unit.locked { Place::Admitted } else { Place::Ready };
        let class = unit.class as usize;
        if unit.locked {
            shard.admitted.push(&mut self.units, number);
        } else if let Some(list) = shard.ready.get_mut(class) {
            list.push(&mut self.units, number);
        }
    }

    /// Parks a read by its LSN. It gives its keys back, and lets those go who need less WAL: whoever waits for it from now
    /// on waits for n (I12).
    pub(super) fn park(&mut self, number: u32, now: u64, events: &mut Vec<Event>) {
        self.unlock_read(number, now, events);
        let Some(unit) = self.units.get_mut(number) else { return };
        let Some(shard) = self.shards.get_mut(usize::from(unit.shard)) else { return };
        unit.place = Place::Parked;
        unit.since = now;
        let (n, class) = (unit.n, unit.class as usize);
        if let Some(list) = shard.parked.entry(n).and_then(|lists| lists.get_mut(class)) {
            list.push(&mut self.units, number);
        }
        shard.by_age.push(&mut self.units, number);
        if self.options.rules.join {
            self.let_go(number, now, events);
        }
    }

    /// Takes a unit out of the queue that it is in; it is nowhere then.
    pub(super) fn dequeue(&mut self, number: u32) {
        let Some(unit) = self.units.get_mut(number) else { return };
        let (place, n, class, shard) = (unit.place, unit.n, unit.class as usize, usize::from(unit.shard));
        unit.place = Place::Moving;
        let Some(shard) = self.shards.get_mut(shard) else { return };
        match place {
            Place::Ready => {
                if let Some(list) = shard.ready.get_mut(class) {
                    list.remove(&mut self.units, number);
                }
            }
            Place::Admitted => shard.admitted.remove(&mut self.units, number),
            Place::Parked => {
                shard.by_age.remove(&mut self.units, number);
                let mut empty = false;
                if let Some(bucket) = shard.parked.get_mut(n) {
                    if let Some(list) = bucket.get_mut(class) {
                        list.remove(&mut self.units, number);
                    }
                    empty = bucket.iter().all(List::is_empty);
                }
                if empty {
                    shard.parked.remove(n);
                }
            }
            // Mutations, and units that are in no queue.
            Place::Lane | Place::Blocked | Place::Delayed | Place::Sent(..) | Place::Moving => {}
        }
    }

    /// Takes the keys of a read, to be sent now. False: it waits for some, and comes back by itself.
    pub(super) fn lock_read(&mut self, number: u32, now: u64, events: &mut Vec<Event>) -> bool {
        let Some(unit) = self.units.get_mut(number) else { return false };
        if unit.locked {
            return true;
        }
        unit.locked = true;
        let (id, leaf) = (unit.id, unit.leaf);
        let (mut at, mut mode, mut pending) = (leaf, Mode::Read, 0);
        // A key has at most two above it.
        for _ in 0..3 {
            let Some((key, parent)) = self.table.node(at).map(|n| (n.key, n.parent)) else { break };
            if let Acquired::Waits(by) = self.table.acquire(at, mode, number, id) {
                pending += 1;
                events.push(Event::Blocked { id, by, key });
            }
            (at, mode) = (parent, mode.above());
        }
        self.wait_for_keys(number, pending, now)
    }

    /// Notes for how many keys a unit waits. True if for none.
    pub(super) fn wait_for_keys(&mut self, number: u32, pending: u8, now: u64) -> bool {
        if pending == 0 {
            return true;
        }
        self.stats.blocked += 1;
        if let Some(unit) = self.units.get_mut(number) {
            unit.pending = pending;
            unit.place = Place::Blocked;
            unit.since = now;
        }
        false
    }

    /// Gives the keys of a read back.
    pub(super) fn unlock_read(&mut self, number: u32, now: u64, events: &mut Vec<Event>) {
        let Some(unit) = self.units.get_mut(number) else { return };
        if !unit.locked || unit.is_mutation() {
            return;
        }
        unit.locked = false;
        let mut at = unit.leaf;
        for _ in 0..3 {
            let Some(parent) = self.table.node(at).map(|n| n.parent) else { break };
            self.table.release(at, &mut self.granted);
            at = parent;
        }
        self.admit_granted(now, events);
    }

    /// Lets units go on whose keys came free. Releasing can let in more: a loop, not a recursion.
    pub(super) fn admit_granted(&mut self, now: u64, events: &mut Vec<Event>) {
        if self.admitting {
            return;
        }
        self.admitting = true;
        while let Some(number) = self.granted.pop() {
            let Some(unit) = self.units.get_mut(number) else { continue };
            unit.pending = unit.pending.saturating_sub(1);
            if unit.pending > 0 || unit.place != Place::Blocked {
                continue;
            }
            unit.place = Place::Moving;
            let blocked = now.saturating_sub(unit.since);
            let (id, is_mutation, gone) = (unit.id, unit.is_mutation(), unit.waiters.is_empty());
            self.stats.unblocked(blocked);
            events.push(Event::Unblocked { id, blocked });
            if is_mutation {
                self.mutation_ready(number);
            } else if gone {
                self.remove_unit(number, now, events);
            } else {
                self.enqueue(number, now, events);
            }
        }
        self.admitting = false;
    }

    /// Forgets a unit that nobody waits for any more and that is in no queue.
    pub(super) fn remove_unit(&mut self, number: u32, now: u64, events: &mut Vec<Event>) {
        self.unlock_read(number, now, events);
        let Some(unit) = self.units.get(number) else { return };
        let leaf = unit.leaf;
        if leaf != NONE {
            if let Some(node) = self.table.node_mut(leaf) {
                node.reads.remove(&mut self.units, number);
            }
            self.table.leave(leaf);
        }
        self.units.remove(number);
    }
}
