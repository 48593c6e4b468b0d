//! What is submitted, and why it may be refused.

use crate::request::{Class, Job, Lsn, Opcode, RelTag};

/// A request, as the communicator's copy of a slot says it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The caller's name for it: events say it, and messages show it. Unique among the unanswered.
    pub id: u64,
    /// What to do.
    pub op: Opcode,
    /// Who waits for it.
    pub class: Class,
    /// The relation fork.
    pub rel: RelTag,
    /// First block, segment number, or new size.
    pub block: u32,
    /// Blocks of a block operation, at most 32.
    pub count: u8,
    /// Blocks of a zero_extend.
    pub arg: u32,
    /// not_modified_since (reads), LSN of the change (mutations).
    pub lsn: Lsn,
    /// not_modified_since of each block; empty: `lsn` for all.
    pub block_lsns: &'a [Lsn],
    /// Read as of exactly this LSN.
    pub at: Option<Lsn>,
    /// When to give it up, ns. Mutations are never given up.
    pub deadline: Option<u64>,
    /// Blocks of a read that are wanted, bit i for block i: the others were found in a cache.
    pub wanted: u32,
}

impl Request<'static> {
    /// A request with nothing set but what it is about.
    #[must_use]
    pub const fn new(id: u64, op: Opcode, rel: RelTag, block: u32, lsn: Lsn) -> Self {
        Self {
            id,
            op,
            class: Class::Demand,
            rel,
            block,
            count: if op.max_blocks() > 0 { 1 } else { 0 },
            arg: 0,
            lsn,
            block_lsns: &[],
            at: None,
            deadline: None,
            wanted: u32::MAX,
        }
    }
}

impl<'a> Request<'a> {
    /// The request of a claim. `lsns`: room for its blocks' LSNs.
    #[must_use]
    pub fn of_job(id: u64, job: &Job, lsns: &'a mut [Lsn; crate::request::MAX_BLOCKS]) -> Self {
        for (i, lsn) in lsns.iter_mut().enumerate().take(usize::from(job.count)) {
            *lsn = job.block_lsn(i);
        }
        let block_lsns = lsns.get(..usize::from(job.count)).unwrap_or(&[]);
        Self {
            id,
            op: job.opcode,
            class: job.class,
            rel: job.rel,
            block: job.block,
            count: job.count,
            arg: job.arg,
            lsn: job.lsn,
            block_lsns,
            at: job.request_lsn,
            deadline: job.deadline,
            wanted: u32::MAX,
        }
    }

    /// not_modified_since of block `i`.
    pub(super) fn lsn_of(&self, i: usize) -> Lsn {
        self.block_lsns.get(i).copied().unwrap_or(self.lsn)
    }

    /// The LSNs that it depends on: of all images of a write, and of the blocks of a read that are wanted.
    pub(super) fn lsns(&self) -> impl Iterator<Item = Lsn> + '_ {
        let blocks = usize::from(self.count.clamp(1, 32));
        let is_read = self.op.max_blocks() > 0 && !self.op.is_mutation();
        (0..blocks).filter(move |i| !is_read || self.wanted & 1 << i != 0).map(|i| self.lsn_of(i))
    }

    /// How many units it becomes: one a block for reads of blocks, else one.
    pub(super) fn parts(&self) -> u8 {
        match self.op {
            Opcode::GetPage | Opcode::GetPageAt | Opcode::Prefetch => self.count.min(32),
            _ => 1,
        }
    }
}

/// Names a submitted request, for [`super::Scheduler::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) id: u64,
    pub(super) first: u32,
}

/// Why a request was not taken. Nothing of it is in flight then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// [`super::Options::units`] are in flight: try again when some are answered.
    Full,
    /// It depends on WAL that is not flushed: flush first, then push (S9).
    NotFlushed {
        /// Its not_modified_since.
        n: Lsn,
        /// WAL is flushed up to here.
        flushed: Lsn,
    },
    /// Its deadline has passed.
    Expired,
}
