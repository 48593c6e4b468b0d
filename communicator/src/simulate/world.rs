//! The loop of events, and what a policy sees of the world: connections to page servers, and a clock.

use super::connection::{Connection, Protocol, Step, WireReply, WireRequest};
use super::ledger::{Block, End, Ledger};
use super::policy::Policy;
use super::random::Random;
use super::scenario::{Fault, Scenario, Time, MS, US};
use super::server::Server;
use super::wal::{noted, Exact, Wal};
use shmuring::request::Lsn;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// How often servers look for WAL.
const TICK: Time = 500 * US;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conn(u32);

#[derive(Debug)]
enum What {
    /// A change (index).
    Change(usize),
    /// The WAL writer comes by.
    Flush(Lsn),
    /// A read (index).
    Arrive(usize),
    /// It is submitted.
    Submit(usize),
    /// Servers ingest.
    Ingest,
    /// A request is at the server.
    Deliver(Conn, WireRequest),
    /// A batch (ticket) has waited long enough.
    WaitOver(Conn, u64),
    /// A batch (ticket) is done.
    Ran(Conn, u64),
    /// An answer is at the client.
    Reply(Conn, WireReply),
    /// Something happens to a server (shard, index).
    Fault(usize, usize),
    /// A new process answers for a shard.
    Born(usize),
    /// The client sees that its connections to a shard are broken.
    Lost(usize),
    /// The client has a new connection to a shard, which says what is durable.
    Up(usize, Lsn),
    /// A server says what it has.
    Feedback(usize),
    /// The client hears it: last record and durable.
    Heard(usize, Lsn, Lsn),
    /// The policy asked for it.
    Timer(u64),
}

/// In the order of time; changes before all else, and what was put first first.
#[derive(Debug)]
struct Entry {
    at: Time,
    order: (bool, u64),
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What there is beside the policy.
#[derive(Debug)]
pub struct World<'a> {
    /// What happens.
    pub scenario: &'a Scenario,
    /// The time.
    pub now: Time,
    /// The log.
    pub wal: Wal,
    /// The truth about what was last written when.
    pub exact: Exact,
    /// The account.
    pub ledger: Ledger,
    /// For policies.
    pub random: Random,
    /// Requests as of this LSN and later ones are safe from garbage collection (S8); the policy sets it.
    pub lease: Option<Lsn>,
    /// Changes so far.
    changed: usize,
    queue: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    servers: Vec<Server>,
    conns: Vec<Connection>,
    /// Connections that wait for an LSN, by shard.
    waiting: Vec<BTreeSet<(Lsn, Conn)>>,
    network: Random,
}

/// Runs a scenario under a policy.
pub fn run(scenario: &Scenario, policy: &mut dyn Policy) -> Ledger {
    let mut world = World::new(scenario);
    while let Some(Reverse(entry)) = world.queue.pop() {
        if entry.at > scenario.until {
            break;
        }
        world.now = entry.at;
        world.ledger.events += 1;
        world.happen(entry.what, policy);
        if world.is_over() && !policy.is_busy() {
            break;
        }
    }
    world.ledger
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut world = Self {
            scenario,
            now: 0,
            wal: Wal::new(scenario.flushed),
            exact: Exact::new(scenario.floor),
            ledger: Ledger::default(),
            random: Random::new(scenario.seed, 3),
            lease: None,
            changed: 0,
            queue: BinaryHeap::new(),
            entries: 0,
            servers: scenario.plans.iter().map(Server::new).collect(),
            conns: Vec::new(),
            waiting: vec![BTreeSet::new(); scenario.plans.len()],
            network: Random::new(scenario.seed, 4),
        };
        world.put_change(0);
        world.put_arrival(0);
        world.put(TICK, What::Ingest);
        for (shard, plan) in scenario.plans.iter().enumerate() {
            for (i, (at, _)) in plan.faults.iter().enumerate() {
                world.put(*at, What::Fault(shard, i));
            }
            if plan.feedback > 0 {
                // Not all at one moment.
                world.put(plan.feedback * (shard as u64 + 1) / scenario.plans.len() as u64, What::Feedback(shard));
            }
        }
        world
    }

    fn put(&mut self, at: Time, what: What) {
        self.entries += 1;
        let order = (!matches!(what, What::Change(_)), self.entries);
        self.queue.push(Reverse(Entry { at: at.max(self.now), order, what }));
    }

    fn put_change(&mut self, i: usize) {
        if let Some(change) = self.scenario.changes.get(i) {
            self.put(change.at, What::Change(i));
        }
    }

    fn put_arrival(&mut self, i: usize) {
        if let Some(arrival) = self.scenario.arrivals.get(i) {
            self.put(arrival.at, What::Arrive(i));
        }
    }

    /// Everything that will happen has, and every read has ended.
    fn is_over(&self) -> bool {
        let (reads, changes) = (self.scenario.arrivals.len(), self.scenario.changes.len());
        self.ledger.open() == 0 && self.ledger.requests() == reads && self.changed == changes
    }

    fn happen(&mut self, what: What, policy: &mut dyn Policy) {
        match what {
            What::Change(i) => self.change(i, policy),
            What::Flush(lsn) => self.flush(lsn),
            What::Arrive(i) => self.arrive(i, policy),
            What::Submit(i) => policy.arrive(self, i),
            What::Ingest => self.ingest(),
            What::Deliver(conn, request) => self.deliver(conn, request),
            What::WaitOver(conn, ticket) => self.wait_over(conn, ticket),
            What::Ran(conn, ticket) => self.ran(conn, ticket, false),
            What::Reply(conn, reply) => {
                if self.is_open(conn) {
                    policy.reply(self, conn, reply);
                }
            }
            What::Fault(shard, i) => self.fault(shard, i),
            What::Born(shard) => self.born(shard),
            What::Lost(shard) => policy.lost(self, shard),
            What::Up(shard, durable) => policy.up(self, shard, durable),
            What::Feedback(shard) => self.feedback(shard),
            What::Heard(shard, lsn, durable) => policy.heard(self, shard, lsn, durable),
            What::Timer(token) => policy.timer(self, token),
        }
    }

    fn change(&mut self, i: usize, policy: &mut dyn Policy) {
        let Some(change) = self.scenario.changes.get(i) else { return };
        self.put_change(i + 1);
        self.changed = i + 1;
        if self.scenario.flush_delay == 0 {
            self.wal.append(self.now, change.lsn);
        } else {
            self.put(self.now + self.scenario.flush_delay, What::Flush(change.lsn));
        }
        for key in noted(change) {
            self.exact.note(key, change.lsn);
        }
        policy.change(self, i);
    }

    fn arrive(&mut self, i: usize, policy: &mut dyn Policy) {
        let Some(arrival) = self.scenario.arrivals.get(i) else { return };
        self.put_arrival(i + 1);
        self.ledger.begin_request();
        for key in arrival.keys() {
            let shard = self.scenario.shard(key);
            let need = self.exact.get(key);
            let ready = self.servers.get(shard).is_some_and(|s| need <= if s.down { s.durable } else { s.at });
            self.ledger.add(Block {
                request: i,
                key,
                class: arrival.class,
                shard,
                arrived: self.now,
                need,
                ready,
                stalled: false,
                end: None,
                dep: 0,
                had: self.now,
            });
        }
        policy.look_up(self, i);
        self.put(self.now + arrival.delay, What::Submit(i));
    }

    fn ingest(&mut self) {
        self.put(self.now + TICK, What::Ingest);
        for shard in 0..self.servers.len() {
            let Some(server) = self.servers.get_mut(shard) else { continue };
            if !server.ingest(&self.wal, self.now) {
                continue;
            }
            let at = server.at;
            while let Some((lsn, conn)) = self.waiting.get(shard).and_then(|w| w.first().copied()) {
                if lsn > at {
                    break;
                }
                self.waiting.get_mut(shard).map(BTreeSet::pop_first);
                let (now, grace) = (self.now, self.scenario.grace);
                let Some(c) = self.conns.get_mut(conn.0 as usize) else { continue };
                let step = c.reached(now, grace);
                self.step(conn, step);
            }
        }
    }

    fn cutoff(&self) -> Lsn {
        let passed = self.scenario.cutoffs.iter().filter(|c| c.0 <= self.now);
        passed.map(|c| c.1).max().unwrap_or(0).min(self.lease.unwrap_or(Lsn::MAX))
    }

    fn deliver(&mut self, conn: Conn, request: WireRequest) {
        if let Some(c) = self.conns.get_mut(conn.0 as usize).filter(|c| c.open) {
            c.arrive(request);
            self.pump(conn);
        }
    }

    fn pump(&mut self, conn: Conn) {
        let (cutoff, now) = (self.cutoff(), self.now);
        let Some(c) = self.conns.get_mut(conn.0 as usize) else { return };
        let at = self.servers.get(c.shard).map_or(0, |s| s.at);
        let step = c.pump(at, cutoff, now);
        self.step(conn, step);
    }

    fn step(&mut self, conn: Conn, step: Step) {
        let Some(c) = self.conns.get(conn.0 as usize) else { return };
        let (ticket, shard) = (c.ticket, c.shard);
        match step {
            Step::Rest => {}
            Step::Wait(lsn) => {
                if let Some(waiting) = self.waiting.get_mut(shard) {
                    waiting.insert((lsn, conn));
                    self.ledger.waiting_peak = self.ledger.waiting_peak.max(waiting.len());
                }
                self.put(self.now + self.scenario.wait_lsn, What::WaitOver(conn, ticket));
            }
            Step::Run(time) => self.put(self.now + time, What::Ran(conn, ticket)),
        }
    }

    fn wait_over(&mut self, conn: Conn, ticket: u64) {
        let Some(c) = self.conns.get(conn.0 as usize).filter(|c| c.open && c.ticket == ticket) else { return };
        if let Some(lsn) = c.waits_for() {
            self.waiting.get_mut(c.shard).map(|w| w.remove(&(lsn, conn)));
            self.ran(conn, ticket, true);
        }
    }

    fn ran(&mut self, conn: Conn, ticket: u64, timed_out: bool) {
        let Some(c) = self.conns.get_mut(conn.0 as usize).filter(|c| c.open && c.ticket == ticket) else { return };
        for reply in c.done(timed_out) {
            let at = self.one_way();
            let Some(c) = self.conns.get_mut(conn.0 as usize) else { return };
            c.last_out = c.last_out.max(at);
            let at = c.last_out;
            self.put(at, What::Reply(conn, reply));
        }
        self.pump(conn);
    }

    /// When a message sent now arrives.
    fn one_way(&mut self) -> Time {
        self.now + 200 * US + self.network.wait(50.0 * US as f64).min(MS)
    }

    fn fault(&mut self, shard: usize, i: usize) {
        let Some((_, fault)) = self.scenario.plans.get(shard).and_then(|p| p.faults.get(i).copied()) else { return };
        let Some(server) = self.servers.get_mut(shard) else { return };
        let down = match fault {
            Fault::Restart(down) => {
                server.down = true;
                down
            }
            Fault::Disconnect => 0,
            Fault::Switch => return server.restart(self.now),
        };
        for c in self.conns.iter_mut().filter(|c| c.shard == shard) {
            c.open = false;
        }
        self.waiting.get_mut(shard).map(BTreeSet::clear);
        let seen = self.one_way();
        self.put(seen, What::Lost(shard));
        // Born after the client has seen the loss, so that it reconnects to the new process.
        self.put((self.now + down).max(seen), What::Born(shard));
    }

    fn born(&mut self, shard: usize) {
        let Some(server) = self.servers.get_mut(shard) else { return };
        if server.down {
            server.down = false;
            server.restart(self.now);
        }
        let durable = server.durable;
        let at = (0..3).fold(self.now, |at, _| at.max(self.one_way()));
        self.put(at, What::Up(shard, durable));
    }

    fn feedback(&mut self, shard: usize) {
        let Some(every) = self.scenario.plans.get(shard).map(|p| p.feedback) else { return };
        self.put(self.now + every, What::Feedback(shard));
        if let Some((at, durable)) = self.servers.get(shard).filter(|s| !s.down).map(|s| (s.at, s.durable)) {
            // By way of another process.
            let heard = self.one_way() + 2 * MS;
            self.put(heard, What::Heard(shard, at, durable));
        }
    }

    // What policies call.

    /// A new connection.
    pub fn open(&mut self, shard: usize, protocol: Protocol) -> Conn {
        let conn = Conn(self.conns.len() as u32);
        let mut connection = Connection::new(shard, protocol);
        connection.open = self.servers.get(shard).is_some_and(|s| !s.down);
        self.conns.push(connection);
        conn
    }

    /// Whether it is neither closed nor broken.
    #[must_use]
    pub fn is_open(&self, conn: Conn) -> bool {
        self.conns.get(conn.0 as usize).is_some_and(|c| c.open)
    }

    /// The WAL is flushed up to `lsn` at once.
    pub fn flush(&mut self, lsn: Lsn) {
        self.wal.append(self.now, lsn);
    }

    /// Drops a connection: nothing more comes from it.
    pub fn close(&mut self, conn: Conn) {
        let Some(c) = self.conns.get_mut(conn.0 as usize) else { return };
        c.open = false;
        if let Some(lsn) = c.waits_for() {
            self.waiting.get_mut(c.shard).map(|w| w.remove(&(lsn, conn)));
        }
    }

    /// Sends a request. On a broken connection it goes nowhere.
    pub fn send(&mut self, conn: Conn, request: WireRequest) {
        self.ledger.sent += 1;
        let at = self.one_way();
        let Some(c) = self.conns.get_mut(conn.0 as usize).filter(|c| c.open) else { return };
        c.last_in = c.last_in.max(at);
        let at = c.last_in;
        self.put(at, What::Deliver(conn, request));
    }

    /// Whether a request with this n makes the server of a shard wait now.
    #[must_use]
    pub fn stalls(&self, shard: usize, n: Lsn) -> bool {
        self.servers.get(shard).is_some_and(|s| n > s.at)
    }

    /// [`Policy::timer`] is called with `token` at `at`.
    pub fn set_timer(&mut self, at: Time, token: u64) {
        self.put(at, What::Timer(token));
    }

    /// A block of a request has come to an end.
    pub fn end(&mut self, number: usize, end: End, dep: Lsn) {
        if !self.ledger.end(number, end, dep, self.now) {
            return;
        }
        let Some(block) = self.ledger.block(number) else { return };
        let had = self.servers.get(block.shard).map_or(0, |s| s.had(block.need, block.arrived, self.now));
        self.ledger.set_had(number, had);
    }
}
