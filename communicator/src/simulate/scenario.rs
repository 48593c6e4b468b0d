//! What happens, whatever the policy: who asks for what when, what is written when, what the page servers suffer.

use shmuring::lsn::in_flight::Key;
use shmuring::lsn::scheduler::Options;
use shmuring::lsn::shards::Sharding;
use shmuring::request::{Class, Lsn, Opcode, RelTag};

/// Virtual time, ns since the start.
pub type Time = u64;

/// A microsecond.
pub const US: Time = 1_000;
/// A millisecond.
pub const MS: Time = 1_000_000;
/// A second.
pub const SECOND: Time = 1_000 * MS;

/// A read by a backend.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When.
    pub at: Time,
    /// By whom.
    pub backend: u32,
    /// How urgent.
    pub class: Class,
    /// Of what relation.
    pub rel: RelTag,
    /// First block.
    pub block: u32,
    /// Blocks, at most 32; 0: the size of the relation.
    pub count: u8,
    /// The backend is held up for so long between looking its LSNs up and submitting it.
    pub delay: Time,
    /// When it is of no use any more; kept by `shmuring` alone, since the others have limits of their own.
    pub deadline: Option<Time>,
}

impl Arrival {
    /// What it reads, a key for each block.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let size = (self.count == 0).then_some(Key::Size(self.rel));
        let block = |i| Key::Block(self.rel, self.block.saturating_add(u32::from(i)));
        size.into_iter().chain((0..self.count.min(32)).map(block))
    }
}

/// A change: a record of the WAL, after which the block leaves the buffers of the server at once.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When.
    pub at: Time,
    /// What is done; if mutations go through the ring, this is what the backend submits.
    pub op: Opcode,
    /// To which relation.
    pub rel: RelTag,
    /// First block, or new size.
    pub block: u32,
    /// End of its WAL record. Grows from change to change.
    pub lsn: Lsn,
}

/// What happens to a page server.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process dies, and another begins at what was durable after this time.
    Restart(Time),
    /// All connections break; the process lives on.
    Disconnect,
    /// Another process, at what was durable, takes over all connections without a sign.
    Switch,
}

/// How the page server of a shard behaves.
#[derive(Clone, Debug)]
pub struct Plan {
    /// L at the start.
    pub start: Lsn,
    /// WAL is ingested so long after it was written.
    pub lag: Time,
    /// Most WAL ingested in a millisecond, bytes: how fast it catches up.
    pub rate: u64,
    /// L never passes this.
    pub cap: Lsn,
    /// Times in which L stands still: from, to.
    pub stalls: Vec<(Time, Time)>,
    /// What happens to it.
    pub faults: Vec<(Time, Fault)>,
    /// What is ingested becomes durable so often.
    pub checkpoint: Time,
    /// It says so often what it has; 0: never.
    pub feedback: Time,
}

impl Plan {
    /// A server that has `start` and follows the WAL at once.
    #[must_use]
    pub const fn new(start: Lsn) -> Self {
        Self {
            start,
            lag: 0,
            rate: 64 << 10,
            cap: Lsn::MAX,
            stalls: Vec::new(),
            faults: Vec::new(),
            checkpoint: 5 * SECOND,
            feedback: 50 * MS,
        }
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Of the network's jitter.
    pub seed: u64,
    /// How blocks are spread.
    pub sharding: Sharding,
    /// One a shard.
    pub plans: Vec<Plan>,
    /// Reads, by time.
    pub arrivals: Vec<Arrival>,
    /// Changes, by time.
    pub changes: Vec<Change>,
    /// Redo LSN of the checkpoint before: nothing is known to be older, and servers have it.
    pub floor: Lsn,
    /// WAL position at the start, if above what the changes at time 0 make it.
    pub flushed: Lsn,
    /// Records are flushed so long after they are written, unless somebody flushes them before.
    pub flush_delay: Time,
    /// The reader is a replica, which has replayed what is flushed.
    pub replica: bool,
    /// Garbage collection: from when on, requests as of before which LSN are refused.
    pub cutoffs: Vec<(Time, Lsn)>,
    /// Entries of the last-written cache of Neon's policies.
    pub entries: usize,
    /// How long a page server waits for an LSN (R5).
    pub wait_lsn: Time,
    /// The scheduler's options.
    pub options: Options,
    /// Changes are submitted to the scheduler as mutations too.
    pub mutations: bool,
    /// Of batches of mutations, so many fail once.
    pub mutation_failures: f64,
    /// What is not answered by then hangs.
    pub until: Time,
    /// A wait that is shorter is no dependency: for servers that are switched without a sign, which R11 lets stall for
    /// `stall_after`.
    pub grace: Time,
}

impl Scenario {
    /// Nothing happens on `shards` servers that have WAL up to `start`.
    #[must_use]
    pub fn quiet(shards: u16, start: Lsn) -> Self {
        let sharding = Sharding { count: shards.max(1), stripe: 8 };
        Self {
            seed: 1,
            sharding,
            plans: vec![Plan::new(start); usize::from(shards.max(1))],
            arrivals: Vec::new(),
            changes: Vec::new(),
            floor: 1,
            flushed: 0,
            flush_delay: 0,
            replica: false,
            cutoffs: Vec::new(),
            entries: 131_072,
            wait_lsn: 300 * SECOND,
            options: Options { sharding, ..Options::default() },
            mutations: false,
            mutation_failures: 0.0,
            until: 200 * SECOND,
            grace: 0,
        }
    }

    /// The shard of a key.
    #[must_use]
    pub fn shard(&self, key: Key) -> usize {
        match key {
            Key::Block(rel, block) => usize::from(self.sharding.block(rel, block)),
            _ => 0,
        }
    }
}
