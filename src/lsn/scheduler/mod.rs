//! What to send to the page service next: requests in, batches out, answers back to whoever waits for them.
//!
//! | file | role |
//! |---|---|
//! | `options` | bounds, lanes, weights, budgets |
//! | `request` | what is submitted, what is refused |
//! | `batch` | what goes out together, and what came of it |
//! | `event` | what the caller is told |
//! | `unit` | one read of one key, with everybody who waits for it; or one mutation |
//! | `submit` | requests to units: splitting, joining, upgrading |
//! | `parked` | FUTURE units in the order of their LSNs |
//! | `queue` | where a unit waits: READY by class, FUTURE by LSN |
//! | `ready`, `future`, `mutate` | who goes next, by kind of batch |
//! | `complete` | answers, failures, lost connections, watermarks that move |
//! | `timer` | deadlines, retries, stalls |
//! | `stats` | counters, depths and histograms |
//!
//! # Flow
//! `submit` cuts a vectored read into one unit a block, since each block has its own not_modified_since and shard. `next`
//! forms a batch for a shard; call it until it gives none after every call that may have freed or brought something.
//! `completed` takes what came of each member. `tick` is for time alone. All push onto a list of [`Event`]s, which says who
//! is answered. The caller serialises the calls; none blocks.
//!
//! # Invariants
//! - **I12.** Nothing that a unit waits for waits for WAL beyond the unit's own n: batches (a FUTURE batch has one n, plus
//!   the slack), lanes (a FUTURE unit waits for lanes of lower or equal n alone; READY ones have their own), joins
//!   ([`super::in_flight::may_join`]), keys (only READY reads and mutations hold keys).
//! - A unit's n never changes, over all its attempts; its request LSN is chosen at each send (S7, S8).
//! - A key is released when its answer has been given out, not before (R4b): the caller publishes the answers that
//!   `completed` returns before it calls `next` again.
//! - Memory is bounded by [`Options::units`]. A request that does not fit is refused whole.

mod batch;
mod complete;
mod event;
mod future;
mod mutate;
mod options;
mod parked;
mod queue;
mod ready;
mod request;
mod stats;
mod submit;
mod timer;
mod unit;

pub use batch::{Batch, BatchId, Kind, Member, MemberId, Outcome, ReadPoint};
pub use event::{Event, Waiting};
pub use options::{Options, Rules};
pub use request::{Refused, Request, Ticket};
pub use stats::{Depths, Stats, BUCKETS};

use super::in_flight::Table;
use super::slab::Slab;
use super::watermark::Watermark;
use crate::request::Lsn;
use batch::InFlight;
use mutate::MutationLane;
use queue::Shard;
use std::collections::{BTreeMap, BinaryHeap};
use timer::Wheel;
use unit::{Unit, Waiter};

/// The scheduler of one communicator. See the module's documentation for the flow.
#[derive(Debug)]
pub struct Scheduler {
    options: Options,
    units: Slab<Unit>,
    waiters: Slab<Waiter>,
    table: Table,
    shards: Vec<Shard>,
    mutations: Vec<MutationLane>,
    batches: Slab<InFlight>,
    wheel: Wheel,
    /// Units that are tried again later: (when, unit, its number in the order of submits), earliest first.
    delayed: BinaryHeap<core::cmp::Reverse<(u64, u32, u64)>>,
    read_point: ReadPoint,
    flushed: Lsn,
    /// Request LSNs of batches in flight on a replica, and how many of each.
    read_points: BTreeMap<Lsn, u32>,
    seq: u64,
    stats: Stats,
    /// Lists of units of batches that are over, kept for their memory.
    spare: Vec<Vec<u32>>,
    /// Units let in by a released key; kept for its memory.
    granted: Vec<u32>,
    /// The units of `granted` are being let in, by a call further up.
    admitting: bool,
}

impl Scheduler {
    /// A scheduler for `options.sharding.count` shards (at least one). `floor`: redo LSN of the last checkpoint (S13);
    /// `Lsn::MAX` for a service that never waits for WAL.
    #[must_use]
    pub fn new(options: Options, floor: Lsn) -> Self {
        let mark = if floor == Lsn::MAX { Watermark::infinite() } else { Watermark::new(floor) };
        let shards = (0..options.sharding.count.max(1)).map(|_| Shard::new(mark, &options)).collect();
        Self {
            table: Table::new(options.mutation_order),
            wheel: Wheel::new(),
            options,
            units: Slab::new(),
            waiters: Slab::new(),
            shards,
            mutations: Self::mutation_lanes(&options),
            batches: Slab::new(),
            delayed: BinaryHeap::new(),
            read_point: ReadPoint::Primary,
            flushed: Lsn::MAX,
            read_points: BTreeMap::new(),
            seq: 0,
            stats: Stats::default(),
            spare: Vec::new(),
            granted: Vec::new(),
            admitting: false,
        }
    }

    /// Number of shards.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The watermark of a shard.
    #[must_use]
    pub fn watermark(&self, shard: usize) -> Option<&Watermark> {
        self.shards.get(shard).map(|s| &s.mark)
    }

    /// Requests (blocks of vectored ones) and mutations that are not answered yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether nothing is submitted that is not answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.len() == 0
    }

    /// Keys that are held in memory, idle ones included.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.table.len()
    }

    /// As of when reads without an LSN of their own are sent from now on (S8).
    pub fn set_read_point(&mut self, read_point: ReadPoint) {
        self.read_point = read_point;
    }

    /// WAL is flushed up to here; what depends on later WAL is refused (S9). Never called: everything is flushed.
    pub fn set_flushed(&mut self, lsn: Lsn) {
        self.flushed = lsn;
    }

    /// The lowest request LSN that is in flight on a replica: leases must cover it (S8).
    #[must_use]
    pub fn min_read_point(&self) -> Option<Lsn> {
        self.read_points.keys().next().copied()
    }

    /// Counters and histograms.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
