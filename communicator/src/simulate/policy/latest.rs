//! Everything as of the end of the WAL, first in first out: what a communicator does that knows nothing of LSNs.
//!
//! A queue and some streams for each shard; a free stream takes up to 32 blocks from the head of the queue, as long as
//! they are of one relation, since a request of the page service has one.

use super::Policy;
use crate::simulate::connection::{Protocol, Reply, WireReply, WireRequest, MAX_BATCH};
use crate::simulate::ledger::End;
use crate::simulate::scenario::Scenario;
use crate::simulate::world::{Conn, World};
use ::shmuring::lsn::in_flight::Key;
use ::shmuring::request::Lsn;
use std::collections::{BTreeMap, VecDeque};

/// A block and the n that it was given when it came.
type Queued = (usize, Lsn);

/// See the module.
#[derive(Debug)]
pub struct Latest {
    streams: usize,
    queues: Vec<VecDeque<Queued>>,
    idle: Vec<Vec<Conn>>,
    up: Vec<bool>,
    sent: BTreeMap<u64, (usize, Vec<Queued>)>,
    tags: u64,
}

impl Latest {
    /// For a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let shards = scenario.plans.len();
        Self {
            streams: scenario.options.ready_lanes,
            queues: vec![VecDeque::new(); shards],
            idle: vec![Vec::new(); shards],
            up: vec![true; shards],
            sent: BTreeMap::new(),
            tags: 0,
        }
    }

    /// Sends what can be. `dep`: what the stream that came free had waited for.
    fn pump(&mut self, world: &mut World<'_>, shard: usize, dep: Lsn) {
        while self.up.get(shard) == Some(&true) {
            let batch = self.take(world, shard);
            if batch.is_empty() {
                return;
            }
            let free = self.idle.get_mut(shard).and_then(Vec::pop);
            let out = self.sent.values().filter(|s| s.0 == shard).count();
            if free.is_none() && out >= self.streams {
                self.give_back(shard, batch);
                return;
            }
            let conn = free.unwrap_or_else(|| world.open(shard, Protocol::Stream));
            let keys = batch.iter().filter_map(|b| world.ledger.block(b.0)).map(|b| b.key).collect();
            let n = batch.iter().map(|b| b.1).max().unwrap_or(0);
            self.tags += 1;
            world.send(conn, WireRequest { tag: self.tags, keys, n, r: Lsn::MAX, dep });
            self.sent.insert(self.tags, (shard, batch));
        }
    }

    /// The head of the queue: blocks of one relation, or a size.
    fn take(&mut self, world: &World<'_>, shard: usize) -> Vec<Queued> {
        let Some(queue) = self.queues.get_mut(shard) else { return Vec::new() };
        let mut batch: Vec<Queued> = Vec::new();
        let mut of = None;
        while let Some(block) = queue.front().and_then(|q| world.ledger.block(q.0)) {
            let alone = !matches!(block.key, Key::Block(..));
            let parent = Some(block.key.parent());
            if batch.len() >= MAX_BATCH || !batch.is_empty() && (alone || of != parent) {
                break;
            }
            of = if alone { None } else { parent };
            batch.extend(queue.pop_front());
        }
        batch
    }

    fn give_back(&mut self, shard: usize, batch: Vec<Queued>) {
        if let Some(queue) = self.queues.get_mut(shard) {
            batch.into_iter().rev().for_each(|b| queue.push_front(b));
        }
    }
}

impl Policy for Latest {
    fn change(&mut self, _world: &mut World<'_>, _change: usize) {}

    fn arrive(&mut self, world: &mut World<'_>, request: usize) {
        let n = world.wal.end();
        for number in world.ledger.blocks_of(request) {
            let shard = world.ledger.block(number).map_or(0, |b| b.shard);
            if let Some(queue) = self.queues.get_mut(shard) {
                queue.push_back((number, n));
            }
        }
        for shard in 0..self.queues.len() {
            self.pump(world, shard, 0);
        }
    }

    fn reply(&mut self, world: &mut World<'_>, conn: Conn, reply: WireReply) {
        let Some((shard, batch)) = self.sent.remove(&reply.tag) else { return };
        if let Some(idle) = self.idle.get_mut(shard) {
            idle.push(conn);
        }
        for (number, _) in &batch {
            if reply.stalled {
                world.ledger.stall(*number);
            }
            match reply.reply {
                Reply::Ok => world.end(*number, End::Answered, reply.dep),
                Reply::Rejected => world.end(*number, End::Failed, reply.dep),
                Reply::LsnTimeout => {}
            }
        }
        if reply.reply == Reply::LsnTimeout {
            self.give_back(shard, batch);
        }
        self.pump(world, shard, reply.dep);
    }

    fn lost(&mut self, _world: &mut World<'_>, shard: usize) {
        if let (Some(up), Some(idle)) = (self.up.get_mut(shard), self.idle.get_mut(shard)) {
            *up = false;
            idle.clear();
        }
        let tags: Vec<u64> = self.sent.iter().filter(|s| s.1 .0 == shard).map(|s| *s.0).rev().collect();
        for tag in tags {
            if let Some((_, batch)) = self.sent.remove(&tag) {
                self.give_back(shard, batch);
            }
        }
    }

    fn up(&mut self, world: &mut World<'_>, shard: usize, _durable: Lsn) {
        if let Some(up) = self.up.get_mut(shard) {
            *up = true;
        }
        self.pump(world, shard, 0);
    }
}
