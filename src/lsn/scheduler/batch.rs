//! What goes out together, and what came of it.

use super::super::in_flight::Key;
use super::super::slab::{Linked, Links, Slab};
use crate::request::{Class, Lsn};

/// How reads without an LSN of their own are sent (S8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPoint {
    /// A primary reads the latest: a concrete LSN could fall behind garbage collection in the queue.
    Primary,
    /// A replica reads as of its replay LSN, asked anew at each send.
    Replica(Lsn),
}

/// What kind of batch; the kinds never share a stream or an ordered connection (S3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads that cannot wait for WAL. LSNs may differ.
    Ready,
    /// Reads of one LSN (plus slack) that may. The stream carries nothing else meanwhile.
    Future,
    /// Mutations, to be applied in order.
    Mutations,
}

/// Names a batch in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    pub(super) number: u32,
    pub(super) seq: u64,
}

/// Names a member of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId {
    pub(super) batch: BatchId,
    pub(super) index: u32,
}

/// One thing to do.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// For [`super::Scheduler::completed`].
    pub id: MemberId,
    /// The request that brought it; others may have joined.
    pub request: u64,
    /// What to read; [`Key::None`] for mutations, which the caller knows by `request`.
    pub key: Key,
    /// not_modified_since to send.
    pub n: Lsn,
    /// Request LSN to send; `Lsn::MAX`: the latest.
    pub r: Lsn,
    /// Whether a page is wanted; else it is only to be brought near.
    pub fetch: bool,
    /// Attempts before this one.
    pub attempt: u32,
}

/// Members to send together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// READY, FUTURE or mutations.
    pub kind: Kind,
    /// The shard; 0 for mutations.
    pub shard: usize,
    /// The connection of that shard to use; on an older or newer one the batch is lost.
    pub generation: u64,
    /// The class of all members.
    pub class: Class,
    /// The largest n.
    pub n: Lsn,
    /// The members, in the order in which they should be served.
    pub members: Vec<Member>,
}

/// What came of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, to be given to everybody who waits. An error that a retry would not change is an answer too, but then
    /// proves nothing: see `Refused`.
    Answered,
    /// A lasting error, to be given to everybody who waits.
    Refused,
    /// An error that a retry may mend.
    Failed,
    /// The connection broke before the answer came.
    Lost,
    /// The server gave up waiting for the LSN. Not a failure (S10).
    LsnTimeout,
}

/// A batch in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) seq: u64,
    /// Of mutations: their lane.
    pub(super) shard: u32,
    pub(super) kind: Kind,
    pub(super) generation: u64,
    pub(super) n: Lsn,
    /// Request LSN of its reads on a replica, else 0.
    pub(super) r: Lsn,
    pub(super) sent_at: u64,
    /// Takes an ordinary FUTURE lane; else it is the probe.
    pub(super) probe: bool,
    /// Units; `NONE` once completed, `SUPERSEDED` once taken away.
    pub(super) units: Vec<u32>,
    pub(super) left: u32,
    /// How many were left when it was last asked whether it stalls.
    pub(super) left_then: u32,
    pub(super) links: Links,
}

impl Linked<0> for InFlight {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
    fn next(&self) -> u32 {
        self.links.next
    }
}

/// The batch of this name, if it is still in flight.
pub(super) fn find(batches: &mut Slab<InFlight>, id: BatchId) -> Option<&mut InFlight> {
    batches.get_mut(id.number).filter(|b| b.seq == id.seq)
}
