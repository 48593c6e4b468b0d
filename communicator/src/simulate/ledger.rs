//! The account of all reads: each block of each request ends once, and depends on no WAL beyond its own need (I12).

use super::scenario::Time;
use shmuring::lsn::in_flight::Key;
use shmuring::request::{Class, Lsn};

/// How a read of a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its page.
    Answered,
    /// With an error.
    Failed,
    /// By its deadline.
    Expired,
}

/// A block of a request, or its size.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The request: an index into the scenario's arrivals.
    pub request: usize,
    /// What is read.
    pub key: Key,
    /// For whom.
    pub class: Class,
    /// Where it is.
    pub shard: usize,
    /// When it was asked for.
    pub arrived: Time,
    /// Its own not_modified_since: what the key was last written at, exactly, or the floor.
    pub need: Lsn,
    /// The server had that when it was asked for, whatever the client knew.
    pub ready: bool,
    /// A server had to wait for WAL for it, by the LSN that the policy sent.
    pub stalled: bool,
    /// When and how it ended.
    pub end: Option<(Time, End)>,
    /// The largest LSN that its completion waited for the server to ingest; 0: none.
    pub dep: Lsn,
    /// When the server had what it needs.
    pub had: Time,
}

impl Block {
    /// From the question to the end; `None`: it hangs.
    #[must_use]
    pub fn latency(&self) -> Option<Time> {
        self.end.map(|(at, _)| at - self.arrived)
    }

    /// I12: it was answered after a wait for WAL beyond its need.
    #[must_use]
    pub fn violates_i12(&self, slack: u64) -> bool {
        matches!(self.end, Some((_, End::Answered))) && self.dep > self.need.saturating_add(slack)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    blocks: Vec<Block>,
    /// The first block of each request, and one more.
    first: Vec<usize>,
    open: usize,
    /// Ends of what had ended.
    pub twice: u64,
    /// Answers from before a mutation that was complete when the read was submitted.
    pub stale: u64,
    /// Mutations in the order in which they were applied: indexes into the scenario's changes.
    pub applied: Vec<usize>,
    /// Mutations not applied yet.
    pub unapplied: usize,
    /// Attempts with a lower not_modified_since than the one before (S7).
    pub backwards: u64,
    /// Most requests that waited for WAL on one server at a time.
    pub waiting_peak: usize,
    /// Requests sent, retries included.
    pub sent: u64,
    /// Events of the run: the same for the same scenario and policy.
    pub events: u64,
}

impl Ledger {
    pub(super) fn begin_request(&mut self) {
        self.first.push(self.blocks.len());
    }

    pub(super) fn add(&mut self, block: Block) {
        self.blocks.push(block);
        self.open += 1;
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.first.len()
    }

    /// The numbers of a request's blocks.
    #[must_use]
    pub fn blocks_of(&self, request: usize) -> std::ops::Range<usize> {
        let first = self.first.get(request).copied().unwrap_or(self.blocks.len());
        first..self.first.get(request + 1).copied().unwrap_or(self.blocks.len())
    }

    /// A block by its number.
    #[must_use]
    pub fn block(&self, number: usize) -> Option<&Block> {
        self.blocks.get(number)
    }

    /// All of them.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Blocks that have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    pub(super) fn stall(&mut self, number: usize) {
        if let Some(block) = self.blocks.get_mut(number) {
            block.stalled = true;
        }
    }

    /// A block has ended. False if it had before.
    pub(super) fn end(&mut self, number: usize, end: End, dep: Lsn, now: Time) -> bool {
        let Some(block) = self.blocks.get_mut(number) else { return false };
        if block.end.is_some() {
            self.twice += 1;
            return false;
        }
        block.end = Some((now, end));
        block.dep = dep;
        self.open -= 1;
        true
    }

    pub(super) fn set_had(&mut self, number: usize, had: Time) {
        if let Some(block) = self.blocks.get_mut(number) {
            block.had = had;
        }
    }
}
