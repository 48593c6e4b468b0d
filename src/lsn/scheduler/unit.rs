//! A unit: one read of one key with everybody who waits for it, or one mutation.

use super::super::in_flight::Mode;
use super::super::slab::{Linked, Links, List, NONE};
use super::batch::MemberId;
use crate::request::{Class, Lsn};

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a READY queue of its shard.
    Ready,
    /// READY, and holds its keys already: it waited for them.
    Admitted,
    /// Parked by LSN.
    Parked,
    /// In the queue of mutations.
    Lane,
    /// Waits for keys.
    Blocked,
    /// Failed; waits for its next attempt.
    Delayed,
    /// In flight.
    Sent(MemberId),
    /// Nowhere: on the way from one place to another.
    Moving,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) seq: u64,
    /// The request that brought it.
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) class: Class,
    pub(super) shard: u32,
    /// Reads: node of the key. Mutations: NONE.
    pub(super) leaf: u32,
    pub(super) n: Lsn,
    /// Exact LSN to read at, 0: none.
    pub(super) at: Lsn,
    /// As of when its answer will be valid, once sent.
    pub(super) eff: Lsn,
    /// A page is wanted.
    pub(super) fetch: bool,
    /// Holds its keys.
    pub(super) locked: bool,
    /// Keys that it still waits for.
    pub(super) pending: u32,
    /// It stalled in a READY batch: goes alone from now on.
    pub(super) alone: bool,
    pub(super) failures: u8,
    pub(super) attempts: u32,
    /// Since when it is in its place, ns.
    pub(super) since: u64,
    /// Keys of a mutation.
    pub(super) locks: Vec<(u32, Mode)>,
    pub(super) waiters: List<0>,
    /// In a class queue, a bucket, or the mutation lane.
    pub(super) queue: Links,
    /// Among the parked, by age.
    pub(super) age: Links,
    /// Among the reads of its key.
    pub(super) same: Links,
}

impl Unit {
    pub(super) fn is_mutation(&self) -> bool {
        self.leaf == NONE
    }
}

impl Linked<0> for Unit {
    fn links(&mut self) -> &mut Links {
        &mut self.queue
    }
    fn next(&self) -> u32 {
        self.queue.next
    }
}

impl Linked<1> for Unit {
    fn links(&mut self) -> &mut Links {
        &mut self.age
    }
    fn next(&self) -> u32 {
        self.age.next
    }
}

impl Linked<2> for Unit {
    fn links(&mut self) -> &mut Links {
        &mut self.same
    }
    fn next(&self) -> u32 {
        self.same.next
    }
}

/// Part of a request that waits for a unit.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) part: u8,
    pub(super) class: Class,
    pub(super) fetch: bool,
    pub(super) n: Lsn,
    /// 0: none.
    pub(super) deadline: u64,
    pub(super) unit: u32,
    /// The next part of the same request.
    pub(super) sibling: u32,
    /// Among the unit's waiters.
    pub(super) links: Links,
    /// In the timer wheel.
    pub(super) timer: Links,
    pub(super) slot: u32,
}

impl Linked<0> for Waiter {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
    fn next(&self) -> u32 {
        self.links.next
    }
}

impl Linked<1> for Waiter {
    fn links(&mut self) -> &mut Links {
        &mut self.timer
    }
    fn next(&self) -> u32 {
        self.timer.next
    }
}
