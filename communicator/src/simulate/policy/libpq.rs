//! As Neon's compute does today: each backend sends to each shard over a connection of its own, everything in order.
//!
//! - n of a block: the last-written cache, where a miss answers the global maximum and is entered with it. r: the latest;
//!   on a replica its replay LSN when the read came.
//! - A backend that reads a block which it prefetches takes that answer if its n is not lower.
//! - A backend waits for what it reads, so it reads one thing at a time: a read that comes while its backend is waiting
//!   is taken to be another, idle backend's. Prefetches do not keep a backend waiting.
//! - A connection that owes an answer for 150 s is made anew, and all that it owes is asked again.

use super::lru::Lru;
use super::Policy;
use crate::simulate::connection::{Protocol, Reply, WireReply, WireRequest};
use crate::simulate::ledger::End;
use crate::simulate::scenario::{Scenario, Time, SECOND};
use crate::simulate::wal::noted;
use crate::simulate::world::{Conn, World};
use ::shmuring::lsn::in_flight::Key;
use ::shmuring::request::{Class, Lsn};
use std::collections::BTreeMap;

/// When a connection is given up.
const RECONNECT: Time = 150 * SECOND;

#[derive(Debug, Default)]
struct Backend {
    /// Blocks that it waits for.
    waits: usize,
    conns: BTreeMap<usize, Conn>,
    /// Prefetches in flight: n and tag.
    prefetches: BTreeMap<(u64, u64), (Lsn, u64)>,
}

#[derive(Debug)]
struct Sent {
    backend: usize,
    shard: usize,
    key: Key,
    n: Lsn,
    r: Lsn,
    at: Time,
    /// Who waits for it; the first one asked for it.
    blocks: Vec<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Libpq {
    lru: Lru,
    backends: Vec<Backend>,
    up: Vec<bool>,
    sent: BTreeMap<u64, Sent>,
    tags: u64,
}

/// A block as something that has an order.
fn order(key: Key) -> (u64, u64) {
    match key {
        Key::Block(rel, block) => (u64::from(rel.rel_number), u64::from(block)),
        Key::Size(rel) => (u64::from(rel.rel_number), u64::MAX),
        _ => (u64::MAX, u64::MAX),
    }
}

impl Libpq {
    /// For a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            lru: Lru::new(scenario.entries, scenario.floor),
            backends: Vec::new(),
            up: vec![true; scenario.plans.len()],
            sent: BTreeMap::new(),
            tags: 0,
        }
    }

    /// The backend that sends for `wanted`: it, or an idle one.
    fn backend(&mut self, wanted: usize, waits: bool) -> usize {
        while self.backends.len() <= wanted {
            self.backends.push(Backend::default());
        }
        let is_idle = |b: &Backend| !waits || b.waits == 0;
        if self.backends.get(wanted).is_some_and(is_idle) {
            return wanted;
        }
        self.backends.iter().position(is_idle).unwrap_or_else(|| {
            self.backends.push(Backend::default());
            self.backends.len() - 1
        })
    }

    /// Asks for a block, or joins a prefetch of it by the same backend.
    fn ask(&mut self, world: &mut World<'_>, backend: usize, number: usize) {
        let Some(block) = world.ledger.block(number).copied() else { return };
        let n = self.lru.get_or_enter(block.key);
        // XLogFlush, where it is ahead of what is flushed.
        world.flush(n);
        let Some(b) = self.backends.get_mut(backend) else { return };
        if block.class != Class::Prefetch {
            b.waits += 1;
            let under_way = b.prefetches.get(&order(block.key)).filter(|p| n <= p.0);
            if let Some(sent) = under_way.and_then(|p| self.sent.get_mut(&p.1)) {
                sent.blocks.push(number);
                return;
            }
        }
        self.tags += 1;
        if block.class == Class::Prefetch {
            b.prefetches.insert(order(block.key), (n, self.tags));
        }
        let (shard, key) = (block.shard, block.key);
        let r = if world.scenario.replica { world.wal.end().max(n) } else { Lsn::MAX };
        self.sent.insert(self.tags, Sent { backend, shard, key, n, r, at: 0, blocks: vec![number] });
        self.send(world, self.tags);
    }

    fn send(&mut self, world: &mut World<'_>, tag: u64) {
        let Some(sent) = self.sent.get_mut(&tag) else { return };
        sent.at = world.now;
        if self.up.get(sent.shard) != Some(&true) {
            return;
        }
        let Some(backend) = self.backends.get_mut(sent.backend) else { return };
        let shard = sent.shard;
        let conn = *backend.conns.entry(shard).or_insert_with(|| world.open(shard, Protocol::Pagestream));
        world.send(conn, WireRequest { tag, keys: vec![sent.key], n: sent.n, r: sent.r, dep: 0 });
        world.set_timer(world.now + RECONNECT, tag);
    }

    /// Connects anew, and asks again for all that is owed: of one backend, or of all.
    fn reconnect(&mut self, world: &mut World<'_>, shard: usize, backend: Option<usize>) {
        let is_meant = |i: usize| backend.is_none_or(|b| b == i);
        for (_, b) in self.backends.iter_mut().enumerate().filter(|(i, _)| is_meant(*i)) {
            if let Some(conn) = b.conns.remove(&shard) {
                world.close(conn);
            }
        }
        let owed = self.sent.iter().filter(|(_, s)| s.shard == shard && is_meant(s.backend));
        for tag in owed.map(|s| *s.0).collect::<Vec<_>>() {
            self.send(world, tag);
        }
    }
}

impl Policy for Libpq {
    fn change(&mut self, world: &mut World<'_>, change: usize) {
        if let Some(change) = world.scenario.changes.get(change) {
            noted(change).for_each(|key| self.lru.raise(key, change.lsn));
        }
    }

    fn arrive(&mut self, world: &mut World<'_>, request: usize) {
        let Some(arrival) = world.scenario.arrivals.get(request) else { return };
        let backend = self.backend(arrival.backend as usize, arrival.class != Class::Prefetch);
        for number in world.ledger.blocks_of(request) {
            self.ask(world, backend, number);
        }
    }

    fn reply(&mut self, world: &mut World<'_>, _conn: Conn, reply: WireReply) {
        let Some(sent) = self.sent.remove(&reply.tag) else { return };
        let end = if reply.reply == Reply::Ok { End::Answered } else { End::Failed };
        for number in sent.blocks {
            if reply.stalled {
                world.ledger.stall(number);
            }
            world.end(number, end, reply.dep);
            let Some(backend) = self.backends.get_mut(sent.backend) else { continue };
            if world.ledger.block(number).is_some_and(|b| b.class != Class::Prefetch) {
                backend.waits = backend.waits.saturating_sub(1);
            }
            if backend.prefetches.get(&order(sent.key)).is_some_and(|p| p.1 == reply.tag) {
                backend.prefetches.remove(&order(sent.key));
            }
        }
    }

    fn lost(&mut self, _world: &mut World<'_>, shard: usize) {
        if let Some(up) = self.up.get_mut(shard) {
            *up = false;
        }
    }

    fn up(&mut self, world: &mut World<'_>, shard: usize, _durable: Lsn) {
        if let Some(up) = self.up.get_mut(shard) {
            *up = true;
        }
        self.reconnect(world, shard, None);
    }

    fn timer(&mut self, world: &mut World<'_>, tag: u64) {
        let Some(sent) = self.sent.get(&tag) else { return };
        if world.now.saturating_sub(sent.at) >= RECONNECT && self.up.get(sent.shard) == Some(&true) {
            let (shard, backend) = (sent.shard, sent.backend);
            self.reconnect(world, shard, Some(backend));
        }
    }
}
