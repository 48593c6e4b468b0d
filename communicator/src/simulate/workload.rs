//! A random workload: reads of cold pages, and of pages that were just written, while the WAL goes on.

use super::random::Random;
use super::scenario::{Arrival, Change, Fault, Scenario, Time, MS, SECOND};
use shmuring::request::{Class, Lsn, Opcode, RelTag};

/// WAL position at the start.
const START: Lsn = 1 << 32;
/// Blocks of a relation.
const BLOCKS: u64 = 4096;

/// What to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Page servers.
    pub shards: u16,
    /// Read requests.
    pub requests: u64,
    /// Time over which they come.
    pub span: Time,
    /// Backends.
    pub backends: u32,
    /// Relations of 4096 blocks.
    pub relations: u32,
    /// Changes a second.
    pub writes: u64,
    /// Share of the blocks read that were written within the last second.
    pub hot: f64,
    /// How far ingest is behind.
    pub lag: Time,
    /// The server of the last shard stands still for so long, from a third of the span on; 0: it does not.
    pub stall: Time,
    /// The server of shard 0 dies at two thirds of the span, and is back after this; 0: it does not.
    pub restart: Time,
    /// Entries of the last-written cache of Neon's policies.
    pub entries: usize,
    /// The scheduler's options.
    pub scheduler: shmuring::lsn::scheduler::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            shards: 4,
            requests: 20_000,
            span: 20 * SECOND,
            backends: 64,
            relations: 16,
            writes: 500,
            hot: 0.02,
            lag: 20 * MS,
            stall: 2 * SECOND,
            restart: 500 * MS,
            entries: 2048,
            scheduler: shmuring::lsn::scheduler::Options::default(),
        }
    }
}

fn relation(number: u64) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16_384 + number as u32, fork: 0 }
}

impl Options {
    /// The scenario of these options.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        let mut scenario = Scenario::quiet(self.shards, START);
        scenario.seed = self.seed;
        scenario.floor = START;
        scenario.flushed = START;
        scenario.entries = self.entries;
        scenario.options = self.scheduler;
        scenario.options.sharding = scenario.sharding;
        scenario.until = self.span + 600 * SECOND;
        for plan in &mut scenario.plans {
            plan.lag = self.lag;
        }
        let (third, restart, stall) = (self.span / 3, self.restart, self.stall);
        if let Some(plan) = scenario.plans.last_mut().filter(|_| stall > 0) {
            plan.stalls.push((third, third + stall));
        }
        if let Some(plan) = scenario.plans.first_mut().filter(|_| restart > 0) {
            plan.faults.push((2 * third, Fault::Restart(restart)));
        }
        scenario.changes = self.changes();
        scenario.arrivals = self.arrivals(&scenario.changes);
        scenario
    }

    /// A tenth of the blocks takes four fifths of the changes.
    fn changes(&self) -> Vec<Change> {
        let mut random = Random::new(self.seed, 1);
        let mean = SECOND as f64 / self.writes.max(1) as f64;
        let (mut at, mut lsn, mut changes) = (0, START, Vec::new());
        loop {
            at += random.wait(mean).max(1);
            if at > self.span || self.writes == 0 {
                return changes;
            }
            lsn += 64 + random.below(8192);
            let number = random.below(u64::from(self.relations.max(1)));
            let some = if random.chance(0.8) { BLOCKS / 10 } else { BLOCKS };
            let block = random.below(some) as u32;
            changes.push(Change { at, op: Opcode::WritePage, rel: relation(number), block, lsn });
        }
    }

    fn arrivals(&self, changes: &[Change]) -> Vec<Arrival> {
        let mut random = Random::new(self.seed, 2);
        let mean = self.span as f64 / self.requests.max(1) as f64;
        let (mut at, mut arrivals) = (0, Vec::new());
        for _ in 0..self.requests {
            at += random.wait(mean).max(1);
            let class = match random.below(10) {
                0..7 => Class::Demand,
                7..9 => Class::Prefetch,
                _ => Class::Background,
            };
            let mut count = match (class, random.below(20)) {
                (Class::Background, _) => 16 + random.below(17) as u8,
                (_, 0) => 0,
                (_, 1..5) => 2 + random.below(31) as u8,
                _ => 1,
            };
            // A vector is hot if one of its blocks is, so that the share is of blocks.
            let wants_hot = count > 0 && random.chance(self.hot * f64::from(count));
            let hot = wants_hot.then(|| recent(&mut random, changes, at)).flatten();
            let (rel, block) = match hot {
                Some(c) => (c.rel, c.block.saturating_sub(random.below(u64::from(count)) as u32)),
                None => (relation(random.below(u64::from(self.relations.max(1)))), random.below(BLOCKS) as u32),
            };
            if u64::from(block) + u64::from(count) > BLOCKS {
                count = (BLOCKS - u64::from(block)) as u8;
            }
            let backend = random.below(u64::from(self.backends.max(1))) as u32;
            arrivals.push(Arrival { at, backend, class, rel, block, count, delay: 0, deadline: None });
        }
        arrivals
    }
}

/// A change of the last second, the later the likelier.
fn recent(random: &mut Random, changes: &[Change], at: Time) -> Option<Change> {
    let end = changes.partition_point(|c| c.at < at);
    let age = random.wait(200.0 * MS as f64).min(SECOND);
    let from = changes.partition_point(|c| c.at < at.saturating_sub(age));
    changes.get(from.min(end.saturating_sub(1))).filter(|c| c.at < at).copied()
}
