//! What the caller is told.

use super::super::in_flight::Key;
use super::batch::BatchId;
use crate::request::Lsn;

/// What a read waits for, for messages: "waiting for LSN `n`, shard `shard` is at `proved`" (S10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The LSN that it needs.
    pub n: Lsn,
    /// The shard.
    pub shard: usize,
    /// What the shard is proved to have.
    pub proved: Lsn,
    /// What the shard is believed to have.
    pub hint: Lsn,
}

/// What happened in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Part `part` (block index) of a request has its answer: the outcome just given to `completed`.
    Answered {
        /// The request.
        id: u64,
        /// Which of its blocks; 0 where it has none.
        part: u8,
        /// Attempts, this one included.
        attempts: u32,
    },
    /// Part `part` of a request is given up: a lasting error, or more failures than its budget.
    GaveUp {
        /// The request.
        id: u64,
        /// Which of its blocks.
        part: u8,
        /// Attempts, the last one included.
        attempts: u32,
    },
    /// The deadline of a request passed before this part was answered.
    Expired {
        /// The request.
        id: u64,
        /// Which of its blocks.
        part: u8,
        /// It was waiting for WAL.
        waiting: Option<Waiting>,
    },
    /// A request must wait for a conflicting one: to be logged at INFO, at a limited rate.
    Blocked {
        /// The request that waits.
        id: u64,
        /// One that it waits for.
        by: u64,
        /// On what.
        key: Key,
    },
    /// A blocked request goes on.
    Unblocked {
        /// The request.
        id: u64,
        /// For how long it was blocked, ns.
        blocked: u64,
    },
    /// Part of a request shares the answer of another.
    Joined {
        /// The request.
        id: u64,
        /// The one that was there first.
        to: u64,
    },
    /// Stop this batch: drop its stream. Its members are scheduled anew; what still comes of them is ignored.
    Recall(BatchId),
    /// A READY batch stalled, so the shard's server is not the one that proved its watermark: all its reads are
    /// classified anew (R11).
    Stalled {
        /// The shard.
        shard: usize,
        /// The largest LSN of the batch.
        n: Lsn,
    },
}
