//! FUTURE batches: which of the parked reads may try now (S4).
//!
//! Each holds one LSN (plus slack), lowest first, on a stream of its own. Lanes are few, but a read waits for lanes of
//! lower or equal LSNs alone: what holds it up then needs no more WAL than it needs itself (I12). If that takes more lanes
//! than there are, the batch of the highest LSN is recalled.
//!
//! Where the watermark is hinted but not proved, one batch tries the highest hinted LSN: its answer makes all below READY.

use super::super::slab::{List, NONE};
use super::batch::{self, Batch, BatchId, InFlight, Kind};
use super::event::Event;
use super::Scheduler;
use crate::request::{Class, Lsn};

const CLASSES: [Class; 3] = [Class::Demand, Class::Prefetch, Class::Background];

/// What to send now.
#[derive(Clone, Copy)]
struct Choice {
    n: Lsn,
    /// This unit alone, since it has been parked for long.
    late: Option<u32>,
    /// It tries the highest hinted LSN.
    probe: bool,
}

impl Scheduler {
    pub(super) fn next_future(&mut self, shard: usize, now: u64, max: usize, events: &mut Vec<Event>) -> Option<Batch> {
        // Each turn sends, or moves at least one unit from parked to blocked: as many turns as there are parked units.
        loop {
            let choice = self.choose(shard, now)?;
            let (n, probe) = (choice.n, choice.probe);
            let id = self.reserve_batch();
            let Some(batch) = self.form_future(id, shard, choice, max, now, events) else {
                self.batches.remove(id.number);
                continue;
            };
            if !probe {
                self.make_room(shard, now, events);
            }
            let s = self.shards.get_mut(shard)?;
            if probe {
                s.probe = Some((n, id));
            } else {
                let at = s.future_out.partition_point(|(m, _)| *m <= n);
                s.future_out.insert(at, (n, id));
            }
            if let Some(b) = self.batches.get_mut(id.number) {
                b.probe = probe;
            }
            return Some(batch);
        }
    }

    /// The LSN to send now.
    fn choose(&self, shard: usize, now: u64) -> Option<Choice> {
        let s = self.shards.get(shard)?;
        let lowest = s.parked.first()?;
        let hint = s.mark.hint();
        if s.probe.is_none() && s.mark.proved() < hint {
            // Not if the lowest is the highest: then it goes as itself.
            if let Some(n) = s.parked.up_to(hint).filter(|n| *n > lowest) {
                return Some(Choice { n, late: None, probe: true });
            }
        }
        let limit = if lowest <= hint { self.options.hinted_lanes } else { self.options.future_lanes };
        if self.lanes_below(shard, lowest) < limit {
            return Some(Choice { n: lowest, late: None, probe: false });
        }
        // A lagging watermark starves nobody: what has been parked for long is tried, alone.
        let unit = self.units.get(s.by_age.head)?;
        let patience = if s.mark.is_heard() { self.options.patience } else { self.options.patience_unheard };
        let is_late = now.saturating_sub(unit.since) >= patience;
        let may = is_late && self.lanes_below(shard, unit.n) < self.options.late_lanes;
        may.then_some(Choice { n: unit.n, late: Some(s.by_age.head), probe: false })
    }

    /// Lanes taken by batches whose LSN is not above `n`.
    fn lanes_below(&self, shard: usize, n: Lsn) -> usize {
        let Some(s) = self.shards.get(shard) else { return usize::MAX };
        if self.options.rules.lanes {
            s.future_out.partition_point(|(m, _)| *m <= n)
        } else {
            s.future_out.len()
        }
    }

    /// The highest LSN that may go with `n`; what is believed to be there never goes with what is not.
    fn up_to(&self, shard: usize, n: Lsn) -> Lsn {
        if !self.options.rules.one_lsn {
            return Lsn::MAX;
        }
        let slack = n.saturating_add(self.options.slack);
        let hint = self.shards.get(shard).map_or(0, |s| s.mark.hint());
        if n <= hint {
            slack.min(hint)
        } else {
            slack
        }
    }

    fn form_future(
        &mut self,
        id: BatchId,
        shard: usize,
        choice: Choice,
        max: usize,
        now: u64,
        events: &mut Vec<Event>,
    ) -> Option<Batch> {
        let Choice { n, late, .. } = choice;
        let up_to = self.up_to(shard, n);
        let room = if late.is_some() { 1 } else { max.min(self.parked_at(shard, n)) };
        let mut batch = self.open(id, shard, Kind::Future, Class::Background, room)?;
        let mut units = self.unit_list();
        while units.len() < max {
            let unit = match late {
                Some(unit) if units.is_empty() => unit,
                Some(_) => break,
                None => match self.first_parked(shard, n, up_to) {
                    Some(unit) => unit,
                    None => break,
                },
            };
            let Some(u) = self.units.get(unit) else { break };
            let (leaf, class, alone) = (u.leaf, u.class, u.alone);
            if alone && !units.is_empty() {
                break;
            }
            self.dequeue(unit);
            if self.table.read_must_wait(leaf) {
                // Takes its place behind the mutation; it gives the keys back when it is let in (I12).
                if self.lock_read(unit, now, events) {
                    self.park(unit, now, events);
                    break;
                }
                if late.is_some() {
                    break;
                }
                continue;
            }
            batch.class = batch.class.min(class);
            self.add_member(&mut batch, &mut units, unit);
            if alone {
                break;
            }
        }
        if units.is_empty() {
            self.keep_list(units);
            return None;
        }
        self.stats.batches[1] += 1;
        self.stats.sent[1] += units.len() as u64;
        let lease = self.lease(&batch);
        self.fill_batch(id, InFlight::reads(&batch, now, units, lease));
        Some(batch)
    }

    /// How many units wait for an LSN.
    fn parked_at(&self, shard: usize, n: Lsn) -> usize {
        let lists = self.shards.get(shard).and_then(|s| s.parked.from(n)).filter(|(m, _)| *m == n);
        lists.map_or(0, |(_, lists)| lists.iter().map(|l| l.len as usize).sum())
    }

    /// The parked unit that goes first among those of LSNs from `n` to `up_to`.
    fn first_parked(&self, shard: usize, n: Lsn, up_to: Lsn) -> Option<u32> {
        let (_, lists) = self.shards.get(shard)?.parked.from(n).filter(|(m, _)| *m <= up_to.max(n))?;
        CLASSES.iter().filter_map(|c| lists.get(*c as usize)).find(|l| !l.is_empty()).map(|l: &List<0>| l.head)
    }

    /// Recalls the batch of the highest LSN if all lanes are taken.
    fn make_room(&mut self, shard: usize, now: u64, events: &mut Vec<Event>) {
        let Some(s) = self.shards.get_mut(shard) else { return };
        if s.future_out.len() < self.options.late_lanes.max(1) {
            return;
        }
        let Some((_, id)) = s.future_out.pop() else { return };
        self.stats.recalled += 1;
        self.recall(id, now, events);
    }

    /// Takes a batch back: the caller drops its stream, its members are queued anew.
    pub(super) fn recall(&mut self, id: BatchId, now: u64, events: &mut Vec<Event>) {
        events.push(Event::Recall(id));
        for unit in self.close(id) {
            self.unlock_read(unit, now, events);
            self.enqueue(unit, now, events);
            self.forget_if_unwanted(unit, now, events);
        }
    }

    /// Forgets a batch and its lane; gives the units that were still out, which are nowhere then.
    pub(super) fn close(&mut self, id: BatchId) -> Vec<u32> {
        if batch::find(&mut self.batches, id).is_none() {
            return Vec::new();
        }
        let Some(kind) = self.batches.get(id.number).map(|b| (b.kind, b.shard as usize)) else { return Vec::new() };
        match kind {
            (Kind::Mutations, lane) => {
                if let Some(lane) = self.mutations.get_mut(lane) {
                    lane.out = lane.out.saturating_sub(1);
                }
            }
            (kind, shard) => {
                if let Some(s) = self.shards.get_mut(shard) {
                    match kind {
                        Kind::Ready => s.ready_out.remove(&mut self.batches, id.number),
                        _ if s.probe.is_some_and(|p| p.1 == id) => s.probe = None,
                        _ => s.future_out.retain(|(_, b)| *b != id),
                    }
                }
            }
        }
        let Some(batch) = self.batches.remove(id.number) else { return Vec::new() };
        if let Some(count) = self.read_points.get_mut(&batch.r) {
            *count -= 1;
            if *count == 0 {
                self.read_points.remove(&batch.r);
            }
        }
        let mut units = batch.units;
        units.retain(|u| *u != NONE && *u != super::submit::SUPERSEDED);
        for unit in &units {
            if let Some(u) = self.units.get_mut(*unit) {
                u.place = super::unit::Place::Moving;
            }
        }
        units
    }
}
