//! As this project does: the scheduler of the library, driven as the communicator drives it.
//!
//! READY and FUTURE batches have streams of their own (S3); those of a batch that is recalled are dropped. A batch is
//! sent as one request for each run of blocks of one relation, and one for each size. Nothing is sent to a shard that is
//! not connected.
//!
//! # I12
//! A batch that goes out because something was answered depends on what that had waited for; one that goes out for a
//! read that came, or for the time that passed, on nothing. A FUTURE read that becomes READY by a higher LSN than it
//! needs is let go early, not late, as long as a batch of an LSN that it may wait for is out: it would have gone with
//! that. If there is none, it was waiting for the higher one.

use super::Policy;
use crate::simulate::connection::{Protocol, Reply, WireReply, WireRequest, MAX_BATCH};
use crate::simulate::ledger::End;
use crate::simulate::scenario::{Change, Scenario, Time, MS, US};
use crate::simulate::wal::{noted, Exact};
use crate::simulate::world::{Conn, World};
use ::shmuring::lsn::in_flight::Key;
use ::shmuring::lsn::scheduler::{
    Batch, BatchId, Event, Kind, Member, MemberId, Outcome, ReadPoint, Refused, Request, Scheduler,
};
use ::shmuring::request::{Lsn, Opcode};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Ids from here on are of mutations.
const MUTATION: u64 = 1 << 40;
/// How often the scheduler is told the time; the token of that timer is 0.
const TICK: Time = 4 * MS;

/// A batch in flight.
#[derive(Debug)]
struct Out {
    conn: Conn,
    shard: usize,
    kind: Kind,
    n: Lsn,
    left: usize,
}

/// A member in flight.
#[derive(Clone, Copy, Debug)]
struct SentMember {
    id: MemberId,
    request: u64,
    key: Key,
    n: Lsn,
    /// What it depends on already.
    dep: Lsn,
    /// Mutations of its key that were complete when it was sent.
    version: u64,
}

/// What is known of an answer.
#[derive(Clone, Copy, Debug, Default)]
struct Cause {
    /// The largest LSN that it waited for.
    dep: Lsn,
    /// It made the server wait.
    stalled: bool,
    /// Mutations of its key that were complete when it was asked for.
    version: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Shmuring {
    scheduler: Scheduler,
    written: Exact,
    events: Vec<Event>,
    out: BTreeMap<BatchId, Out>,
    sent: BTreeMap<u64, (BatchId, Vec<SentMember>)>,
    mutations: BTreeMap<u64, (Batch, Lsn)>,
    tags: u64,
    /// The timer runs.
    ticks: bool,
    /// Streams without a batch, by shard: for READY, for FUTURE.
    idle: Vec<[Vec<Conn>; 2]>,
    up: Vec<bool>,
    durable: Vec<Lsn>,
    /// not_modified_since of the blocks of requests that are not submitted yet.
    looked_up: HashMap<u64, Vec<Lsn>>,
    /// What the scheduler had no room for, in order.
    backlog: VecDeque<u64>,
    /// Reads that made a server wait in an attempt that came to nothing.
    stalled: HashSet<(u64, Key)>,
    /// The n that a read was last sent with (S7).
    sent_n: HashMap<(u64, Key), Lsn>,
    /// Completed mutations, by key.
    versions: HashMap<Key, u64>,
    /// The same when a block was asked for.
    born: HashMap<usize, u64>,
}

impl Shmuring {
    /// For a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let shards = scenario.plans.len();
        Self {
            scheduler: Scheduler::new(scenario.options, scenario.floor),
            written: Exact::new(scenario.floor),
            events: Vec::new(),
            out: BTreeMap::new(),
            sent: BTreeMap::new(),
            mutations: BTreeMap::new(),
            tags: 0,
            ticks: false,
            idle: vec![Default::default(); shards],
            up: vec![true; shards],
            durable: vec![scenario.floor; shards],
            looked_up: HashMap::new(),
            backlog: VecDeque::new(),
            stalled: HashSet::new(),
            sent_n: HashMap::new(),
            versions: HashMap::new(),
            born: HashMap::new(),
        }
    }

    /// The scheduler, to be looked at after a run.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    fn version(&self, key: Key) -> u64 {
        let of = |k: Key| self.versions.get(&k).copied().unwrap_or(0);
        of(key) + key.parent().map_or(0, of)
    }

    /// Submits what waits for room, in order.
    fn submit(&mut self, world: &mut World<'_>) {
        while let Some(id) = self.backlog.front().copied() {
            let result = match id.checked_sub(MUTATION) {
                Some(change) => self.submit_mutation(world, id, change as usize),
                None => self.submit_read(world, id),
            };
            match result {
                Err(Refused::Full) => return,
                Err(Refused::Expired) => {
                    for number in world.ledger.blocks_of(id as usize) {
                        world.end(number, End::Expired, 0);
                    }
                }
                Err(Refused::NotFlushed { n, .. }) => {
                    // S9: the backend flushes, then pushes.
                    world.flush(n);
                    self.scheduler.set_flushed(world.wal.end());
                    continue;
                }
                Ok(()) => {}
            }
            self.backlog.pop_front();
            self.looked_up.remove(&id);
            self.settle(world, Cause::default());
        }
    }

    fn submit_mutation(&mut self, world: &World<'_>, id: u64, change: usize) -> Result<(), Refused> {
        let Some(change) = world.scenario.changes.get(change) else { return Ok(()) };
        let request = Request { arg: 1, ..Request::new(id, change.op, change.rel, change.block, change.lsn) };
        self.scheduler.submit(&request, world.now, &mut self.events).map(|_| ())
    }

    fn submit_read(&mut self, world: &World<'_>, id: u64) -> Result<(), Refused> {
        let Some(arrival) = world.scenario.arrivals.get(id as usize) else { return Ok(()) };
        let numbers = world.ledger.blocks_of(id as usize);
        let keys: Vec<Key> = arrival.keys().collect();
        let Some(lsns) = self.looked_up.get(&id) else { return Ok(()) };
        let op = if arrival.count == 0 { Opcode::RelSize } else { Opcode::GetPage };
        let lsn = lsns.first().copied().unwrap_or(0);
        let request = Request {
            class: arrival.class,
            count: arrival.count,
            block_lsns: lsns,
            deadline: arrival.deadline,
            ..Request::new(id, op, arrival.rel, arrival.block, lsn)
        };
        self.scheduler.submit(&request, world.now, &mut self.events)?;
        for (number, key) in numbers.zip(keys) {
            let version = self.version(key);
            self.born.insert(number, version);
        }
        Ok(())
    }

    /// Does what the scheduler's events say.
    fn settle(&mut self, world: &mut World<'_>, cause: Cause) {
        for event in std::mem::take(&mut self.events) {
            let (id, part, end) = match event {
                Event::Answered { id, part, .. } => (id, part, End::Answered),
                Event::GaveUp { id, part, .. } => (id, part, End::Failed),
                Event::Expired { id, part, .. } => (id, part, End::Expired),
                Event::Recall(batch) => {
                    self.drop_batch(world, batch);
                    continue;
                }
                Event::Blocked { .. } | Event::Unblocked { .. } | Event::Joined { .. } | Event::Stalled { .. } => {
                    continue
                }
            };
            if id >= MUTATION {
                continue;
            }
            let number = world.ledger.blocks_of(id as usize).start + usize::from(part);
            let born = self.born.remove(&number).unwrap_or(0);
            if end == End::Answered && cause.version < born {
                world.ledger.stale += 1;
            }
            if cause.stalled {
                world.ledger.stall(number);
            }
            world.end(number, end, if end == End::Answered { cause.dep } else { 0 });
        }
    }

    /// The stream of a batch that came to nothing is dropped.
    fn drop_batch(&mut self, world: &mut World<'_>, batch: BatchId) {
        let Some(out) = self.out.remove(&batch) else { return };
        world.close(out.conn);
        let (stalled, waits) = (&mut self.stalled, world.stalls(out.shard, out.n));
        self.sent.retain(|_, (of, members)| {
            if *of == batch && waits {
                stalled.extend(members.iter().map(|m| (m.request, m.key)));
            }
            *of != batch
        });
    }

    /// Sends all that may go. `dep`: what that had waited for which was just answered.
    fn pump(&mut self, world: &mut World<'_>, dep: Lsn) {
        if world.scenario.replica {
            self.scheduler.set_read_point(ReadPoint::Replica(world.wal.end()));
        }
        self.submit(world);
        while let Some(batch) = self.scheduler.next_mutations(world.now, MAX_BATCH) {
            self.tags += 1;
            world.set_timer(world.now + 300 * US + 50 * US * batch.members.len() as u64, self.tags);
            self.mutations.insert(self.tags, (batch, dep));
        }
        for shard in 0..self.up.len() {
            let lowest = self.lowest_out(shard);
            while self.up.get(shard) == Some(&true) {
                let Some(batch) = self.scheduler.next(shard, world.now, MAX_BATCH, &mut self.events) else { break };
                self.settle(world, Cause::default());
                self.send(world, &batch, dep, lowest);
            }
        }
        self.settle(world, Cause::default());
        world.lease = self.scheduler.min_read_point();
    }

    /// The lowest LSN of the FUTURE batches that are out.
    fn lowest_out(&self, shard: usize) -> Lsn {
        let future = self.out.values().filter(|o| o.shard == shard && o.kind == Kind::Future);
        future.map(|o| o.n).min().unwrap_or(Lsn::MAX)
    }

    fn send(&mut self, world: &mut World<'_>, batch: &Batch, dep: Lsn, lowest: Lsn) {
        let shard = batch.shard;
        let pool = usize::from(batch.kind == Kind::Future);
        let free = self.idle.get_mut(shard).and_then(|i| i.get_mut(pool)).and_then(Vec::pop);
        let conn = free.unwrap_or_else(|| world.open(shard, Protocol::Stream));
        let left = batch.members.len();
        self.out.insert(batch.id, Out { conn, shard, kind: batch.kind, n: batch.n, left });
        let together =
            |a: &Member, b: &Member| matches!((a.key, b.key), (Key::Block(x, _), Key::Block(y, _)) if x == y);
        for m in &batch.members {
            let before = self.sent_n.insert((m.request, m.key), m.n).filter(|_| m.attempt > 0);
            world.ledger.backwards += u64::from(before.is_some_and(|n| m.n < n));
        }
        for run in batch.members.chunk_by(together) {
            self.tags += 1;
            let n = run.iter().map(|m| m.n).max().unwrap_or(0);
            let r = run.iter().map(|m| m.r).max().unwrap_or(Lsn::MAX);
            let keys = run.iter().map(|m| m.key).collect();
            let sent = run.iter().map(|m| SentMember {
                id: m.id,
                request: m.request,
                key: m.key,
                n: m.n,
                // See the module on I12.
                dep: if lowest <= m.n { 0 } else { dep },
                version: self.version(m.key),
            });
            let sent = sent.collect();
            self.sent.insert(self.tags, (batch.id, sent));
            world.send(conn, WireRequest { tag: self.tags, keys, n, r, dep: 0 });
        }
    }

    /// Members have come to this.
    fn completed(&mut self, world: &mut World<'_>, members: &[SentMember], outcome: Outcome, reply: Option<WireReply>) {
        for m in members {
            let stalled = reply.is_some_and(|r| r.stalled && m.n > 0) || self.stalled.contains(&(m.request, m.key));
            if outcome == Outcome::Answered {
                self.stalled.remove(&(m.request, m.key));
            } else if stalled {
                self.stalled.insert((m.request, m.key));
            }
            let dep = reply.map_or(0, |r| r.dep).max(m.dep);
            self.scheduler.completed(m.id, outcome, world.now, &mut self.events);
            self.settle(world, Cause { dep, stalled, version: m.version });
        }
    }

    /// A batch of mutations is applied, in order; or from some member on it is not.
    fn applied(&mut self, world: &mut World<'_>, batch: &Batch, dep: Lsn) {
        let fails = world.random.chance(world.scenario.mutation_failures);
        let good = if fails { world.random.below(batch.members.len() as u64) as usize } else { batch.members.len() };
        for (i, m) in batch.members.iter().enumerate() {
            let number = m.request.saturating_sub(MUTATION) as usize;
            if let Some(change) = world.scenario.changes.get(number).filter(|_| i < good) {
                world.ledger.applied.push(number);
                for key in touched(change) {
                    *self.versions.entry(key).or_insert(0) += 1;
                }
            }
            let outcome = if i < good { Outcome::Answered } else { Outcome::Failed };
            self.scheduler.completed(m.id, outcome, world.now, &mut self.events);
            self.settle(world, Cause { dep, ..Cause::default() });
        }
    }
}

/// The keys whose readers must see a mutation.
fn touched(change: &Change) -> Vec<Key> {
    let (rel, block) = (change.rel, Key::Block(change.rel, change.block));
    match change.op {
        Opcode::WritePage => vec![block],
        Opcode::Extend | Opcode::ZeroExtend => vec![block, Key::Size(rel)],
        _ => vec![Key::Relation(rel)],
    }
}

impl Policy for Shmuring {
    fn change(&mut self, world: &mut World<'_>, change: usize) {
        let Some(changed) = world.scenario.changes.get(change) else { return };
        // R12: noted before it is submitted.
        noted(changed).for_each(|key| self.written.note(key, changed.lsn));
        self.scheduler.set_flushed(world.wal.end());
        if world.scenario.mutations {
            self.backlog.push_back(MUTATION + change as u64);
            self.pump(world, 0);
        }
    }

    fn look_up(&mut self, world: &World<'_>, request: usize) {
        let Some(arrival) = world.scenario.arrivals.get(request) else { return };
        let lsns = arrival.keys().map(|k| self.written.get(k)).collect();
        self.looked_up.insert(request as u64, lsns);
    }

    fn arrive(&mut self, world: &mut World<'_>, request: usize) {
        if !std::mem::replace(&mut self.ticks, true) {
            world.set_timer(world.now + TICK, 0);
        }
        self.backlog.push_back(request as u64);
        self.pump(world, 0);
    }

    fn reply(&mut self, world: &mut World<'_>, _conn: Conn, reply: WireReply) {
        let Some((batch, members)) = self.sent.remove(&reply.tag) else { return };
        let outcome = match reply.reply {
            Reply::Ok => Outcome::Answered,
            Reply::LsnTimeout => Outcome::LsnTimeout,
            Reply::Rejected => Outcome::Refused,
        };
        if let Some(out) = self.out.get_mut(&batch) {
            out.left = out.left.saturating_sub(members.len());
            if out.left == 0 {
                let (shard, conn, pool) = (out.shard, out.conn, usize::from(out.kind == Kind::Future));
                self.out.remove(&batch);
                if let Some(idle) = self.idle.get_mut(shard).and_then(|i| i.get_mut(pool)) {
                    idle.push(conn);
                }
            }
        }
        self.completed(world, &members, outcome, Some(reply));
        let dep = members.iter().map(|m| m.dep).fold(reply.dep, Lsn::max);
        // What the server gave up is not waited for any more.
        self.pump(world, if outcome == Outcome::Answered { dep } else { 0 });
    }

    fn lost(&mut self, world: &mut World<'_>, shard: usize) {
        if let (Some(up), Some(idle)) = (self.up.get_mut(shard), self.idle.get_mut(shard)) {
            *up = false;
            *idle = Default::default();
        }
        let batches: Vec<BatchId> = self.out.iter().filter(|o| o.1.shard == shard).map(|o| *o.0).collect();
        for batch in batches {
            self.out.remove(&batch);
            let tags: Vec<u64> = self.sent.iter().filter(|s| s.1 .0 == batch).map(|s| *s.0).collect();
            for (_, members) in tags.iter().filter_map(|t| self.sent.remove(t)).collect::<Vec<_>>() {
                self.completed(world, &members, Outcome::Lost, None);
            }
        }
        self.pump(world, 0);
    }

    fn up(&mut self, world: &mut World<'_>, shard: usize, _durable: Lsn) {
        if let Some(up) = self.up.get_mut(shard) {
            *up = true;
        }
        let generation = self.scheduler.watermark(shard).map_or(0, |w| w.generation()) + 1;
        let durable = self.durable.get(shard).copied().unwrap_or(0);
        self.scheduler.reconnected(shard, generation, durable, world.now, &mut self.events);
        self.settle(world, Cause::default());
        self.pump(world, 0);
    }

    fn heard(&mut self, world: &mut World<'_>, shard: usize, lsn: Lsn, durable: Lsn) {
        if let Some(known) = self.durable.get_mut(shard) {
            *known = durable;
        }
        self.scheduler.raise(shard, lsn, world.now);
        self.pump(world, 0);
    }

    fn timer(&mut self, world: &mut World<'_>, token: u64) {
        if let Some((batch, dep)) = self.mutations.remove(&token) {
            self.applied(world, &batch, dep);
            return self.pump(world, dep);
        }
        if token == 0 {
            world.set_timer(world.now + TICK, 0);
            self.scheduler.tick(world.now, &mut self.events);
            self.settle(world, Cause::default());
            self.pump(world, 0);
        }
    }

    fn is_busy(&self) -> bool {
        !self.scheduler.is_empty() || !self.backlog.is_empty()
    }

    fn hol_avoided(&self) -> Time {
        self.scheduler.stats().hol_avoided_ns
    }
}
