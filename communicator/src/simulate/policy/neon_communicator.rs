//! As Neon's communicator branch does: each request is a task with a stream of its own.
//!
//! - A vector has one n: the largest over its blocks, of which those without an entry count as the global maximum. Its
//!   blocks are entered with that n when the answer comes. Sizes take the global maximum always.
//! - r is the flush LSN, or n if that is higher; and stays what it was over all attempts.
//! - A block that is being read by anybody is waited for, whatever LSN that waits for; then it is found in the cache if
//!   its n is high enough, and asked for otherwise. (Taken to hold up that block alone, not the rest of the vector.)
//! - 10 s an attempt, which drops its stream; 60 s a call, then an error.

use super::lru::Lru;
use super::Policy;
use crate::simulate::connection::{Protocol, Reply, WireReply, WireRequest};
use crate::simulate::ledger::End;
use crate::simulate::scenario::{Scenario, Time, MS, SECOND};
use crate::simulate::wal::noted;
use crate::simulate::world::{Conn, World};
use ::shmuring::lsn::in_flight::Key;
use ::shmuring::request::Lsn;
use std::collections::{BTreeMap, HashMap};

const ATTEMPT: Time = 10 * SECOND;
const CALL: Time = 60 * SECOND;

/// A read of blocks of one shard.
#[derive(Debug)]
struct Call {
    blocks: Vec<usize>,
    keys: Vec<Key>,
    shard: usize,
    n: Lsn,
    r: Lsn,
    /// The largest LSN that it waited for before it began.
    dep: Lsn,
    began: Time,
    attempt: u32,
    /// When the present attempt, or pause, is over.
    until: Time,
    conn: Option<Conn>,
}

/// See the module.
#[derive(Debug)]
pub struct NeonCommunicator {
    lru: Lru,
    /// Blocks that are being read, with who waits: block and the n that it was to be asked with.
    in_progress: HashMap<Key, Vec<(usize, Lsn)>>,
    calls: BTreeMap<u64, Call>,
    idle: Vec<Vec<Conn>>,
    up: Vec<bool>,
    tags: u64,
}

/// 5 ms after the first attempt, twice as long after each, 5 s at most.
fn back_off(world: &mut World<'_>, tag: u64, call: &mut Call) {
    let pause = ((5 * MS) << call.attempt.saturating_sub(1).min(10)).min(5 * SECOND);
    call.until = world.now + pause;
    world.set_timer(call.until, tag);
}

impl NeonCommunicator {
    /// For a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            lru: Lru::new(scenario.entries, scenario.floor),
            in_progress: HashMap::new(),
            calls: BTreeMap::new(),
            idle: vec![Vec::new(); scenario.plans.len()],
            up: vec![true; scenario.plans.len()],
            tags: 0,
        }
    }

    /// Begins a call for blocks whose keys nobody else reads.
    fn call(&mut self, world: &mut World<'_>, shard: usize, blocks: Vec<usize>, n: Lsn, dep: Lsn) {
        let keys: Vec<Key> = blocks.iter().filter_map(|b| world.ledger.block(*b)).map(|b| b.key).collect();
        self.tags += 1;
        let (began, r) = (world.now, world.wal.end().max(n));
        self.calls.insert(self.tags, Call { blocks, keys, shard, n, r, dep, began, attempt: 0, until: 0, conn: None });
        self.attempt(world, self.tags);
    }

    fn attempt(&mut self, world: &mut World<'_>, tag: u64) {
        let Some(call) = self.calls.get_mut(&tag) else { return };
        call.attempt += 1;
        if self.up.get(call.shard) != Some(&true) {
            // The connection is refused.
            return back_off(world, tag, call);
        }
        call.until = world.now + ATTEMPT;
        world.set_timer(call.until, tag);
        let free = self.idle.get_mut(call.shard).and_then(Vec::pop);
        let conn = free.unwrap_or_else(|| world.open(call.shard, Protocol::Stream));
        call.conn = Some(conn);
        let dep = if call.attempt == 1 { call.dep } else { 0 };
        world.send(conn, WireRequest { tag, keys: call.keys.clone(), n: call.n, r: call.r, dep });
    }

    /// A call has ended: its blocks, and those who waited for them.
    fn end(&mut self, world: &mut World<'_>, call: Call, end: End, dep: Lsn) {
        for (number, key) in call.blocks.iter().zip(call.keys) {
            world.end(*number, end, dep);
            if end == End::Answered && matches!(key, Key::Block(..)) {
                self.lru.raise(key, call.n);
            }
            let mut again = Vec::new();
            for (waiter, n) in self.in_progress.remove(&key).unwrap_or_default() {
                if end == End::Answered && n <= call.n {
                    world.end(waiter, End::Answered, dep);
                } else {
                    again.push((waiter, n));
                }
            }
            // The first of them reads it; the others wait for that.
            if let Some((first, n)) = again.first().copied() {
                self.in_progress.insert(key, again.split_off(1));
                self.call(world, call.shard, vec![first], n, dep);
            }
        }
    }
}

impl Policy for NeonCommunicator {
    fn change(&mut self, world: &mut World<'_>, change: usize) {
        if let Some(change) = world.scenario.changes.get(change) {
            noted(change).filter(|k| matches!(k, Key::Block(..))).for_each(|key| self.lru.raise(key, change.lsn));
            // The global maximum covers what has no entry, such as sizes.
            if noted(change).any(|k| matches!(k, Key::Size(_))) {
                self.lru.raise_global(change.lsn);
            }
        }
    }

    fn arrive(&mut self, world: &mut World<'_>, request: usize) {
        let mut misses: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut largest = 0;
        for number in world.ledger.blocks_of(request) {
            let Some((key, shard)) = world.ledger.block(number).map(|b| (b.key, b.shard)) else { continue };
            let n = match key {
                Key::Block(..) => self.lru.get(key).unwrap_or(self.lru.global()),
                _ => self.lru.global(),
            };
            if let (Key::Block(..), Some(waiters)) = (key, self.in_progress.get_mut(&key)) {
                waiters.push((number, n));
                continue;
            }
            if matches!(key, Key::Block(..)) {
                self.in_progress.insert(key, Vec::new());
            }
            largest = largest.max(n);
            misses.entry(shard).or_default().push(number);
        }
        for (shard, blocks) in misses {
            self.call(world, shard, blocks, largest, 0);
        }
    }

    fn reply(&mut self, world: &mut World<'_>, conn: Conn, reply: WireReply) {
        let Some(call) = self.calls.get_mut(&reply.tag).filter(|c| c.conn == Some(conn)) else { return };
        if reply.stalled {
            call.blocks.iter().for_each(|b| world.ledger.stall(*b));
        }
        call.conn = None;
        if let Some(idle) = self.idle.get_mut(call.shard) {
            idle.push(conn);
        }
        match reply.reply {
            Reply::LsnTimeout => self.attempt(world, reply.tag),
            Reply::Ok | Reply::Rejected => {
                let end = if reply.reply == Reply::Ok { End::Answered } else { End::Failed };
                if let Some(call) = self.calls.remove(&reply.tag) {
                    self.end(world, call, end, reply.dep);
                }
            }
        }
    }

    fn lost(&mut self, world: &mut World<'_>, shard: usize) {
        if let (Some(up), Some(idle)) = (self.up.get_mut(shard), self.idle.get_mut(shard)) {
            *up = false;
            idle.clear();
        }
        for (tag, call) in self.calls.iter_mut().filter(|c| c.1.shard == shard) {
            call.conn = None;
            back_off(world, *tag, call);
        }
    }

    fn up(&mut self, _world: &mut World<'_>, shard: usize, _durable: Lsn) {
        if let Some(up) = self.up.get_mut(shard) {
            *up = true;
        }
    }

    fn timer(&mut self, world: &mut World<'_>, tag: u64) {
        let Some(call) = self.calls.get_mut(&tag).filter(|c| world.now >= c.until) else { return };
        if let Some(conn) = call.conn.take() {
            world.close(conn);
            // Dropped while it waited: the server was made to wait.
            if world.stalls(call.shard, call.n) {
                call.blocks.iter().for_each(|b| world.ledger.stall(*b));
            }
        }
        if world.now.saturating_sub(call.began) >= CALL {
            if let Some(call) = self.calls.remove(&tag) {
                self.end(world, call, End::Failed, 0);
            }
        } else {
            self.attempt(world, tag);
        }
    }
}
