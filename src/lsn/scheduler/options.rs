//! Bounds, lanes, weights and budgets. Times are ns.

use super::super::in_flight::MutationOrder;
use super::super::shards::Sharding;

const MS: u64 = 1_000_000;

/// How a scheduler behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How blocks are spread.
    pub sharding: Sharding,
    /// Most units in flight or waiting: blocks of reads, and mutations. About 300 bytes each; a mutation of many blocks
    /// takes about 100 more a block. At least the blocks of all slots: else reads that wait for WAL can take up the room,
    /// and keep out those that need none.
    pub units: usize,
    /// Most members of a batch; `next` may ask for fewer.
    pub batch: usize,
    /// READY batches in flight on a shard.
    pub ready_lanes: usize,
    /// FUTURE batches in flight on a shard while the server is not known to have their LSN: the canaries (S4).
    pub future_lanes: usize,
    /// The same for LSNs that feedback says are there.
    pub hinted_lanes: usize,
    /// The same for what has been parked longer than `patience`. Also most FUTURE batches in all: a lower LSN beyond that
    /// takes the place of the highest, which is recalled.
    pub late_lanes: usize,
    /// How long a FUTURE read stays parked before it is sent alone (S4).
    pub patience: u64,
    /// The same while nothing was heard from a server (S13).
    pub patience_unheard: u64,
    /// Bytes of WAL by which LSNs in a FUTURE batch may differ; 0: one LSN a batch.
    pub slack: u64,
    /// Units of demand, prefetch and background in a round, if all are waiting (R11).
    pub weights: [u32; 3],
    /// How long prefetch and background wait at most for demand; older ones go first. The first entry is not used.
    pub class_bounds: [u64; 3],
    /// A READY batch without any answer for so long has met another server process (R11).
    pub stall_after: u64,
    /// Failures after which a read is given up. Waiting for WAL is no failure (S10).
    pub failures: u8,
    /// Pause after the first failure; doubles up to `backoff_max`.
    pub backoff: u64,
    /// Longest pause.
    pub backoff_max: u64,
    /// Whether the answer to a prefetch can serve reads that meet it after it was sent.
    pub prefetch_answers: bool,
    /// Who keeps conflicting mutations in order.
    pub mutation_order: MutationOrder,
    /// Batches of mutations in flight on a shard, and as many of those that concern several, where their keys keep them in
    /// order. Where a lane does, there is one.
    pub mutation_batches: usize,
    /// Rules that tests turn off to show what each is for.
    #[doc(hidden)]
    pub rules: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sharding: Sharding::NONE,
            units: 1 << 18,
            batch: 32,
            ready_lanes: 16,
            future_lanes: 2,
            hinted_lanes: 16,
            late_lanes: 32,
            patience: 100 * MS,
            patience_unheard: 10 * MS,
            slack: 0,
            weights: [256, 64, 32],
            class_bounds: [0, 100 * MS, 1000 * MS],
            stall_after: 2000 * MS,
            failures: 8,
            backoff: 5 * MS,
            backoff_max: 5000 * MS,
            prefetch_answers: true,
            mutation_order: MutationOrder::Lane,
            mutation_batches: 1,
            rules: Rules::ALL,
        }
    }
}

/// Rules that keep I12. A test turns one off and must see the simulator find a violation.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// S2, S3: FUTURE reads are told from READY ones.
    pub classify: bool,
    /// S4: a FUTURE batch has one LSN.
    pub one_lsn: bool,
    /// R11: a read joins by LSN, and leaves a read that became FUTURE.
    pub join: bool,
    /// S1: a new connection has proved nothing.
    pub lower: bool,
    /// A FUTURE read waits for lanes of lower LSNs alone.
    pub lanes: bool,
    /// R11: feedback hints and proves nothing.
    pub hints: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self { classify: true, one_lsn: true, join: true, lower: true, lanes: true, hints: true };
}
