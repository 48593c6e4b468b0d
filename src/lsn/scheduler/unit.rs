//! A unit: one read of one key with everybody who waits for it, or one mutation.

use super::super::in_flight::Mode;
use super::super::slab::{Linked, Links, List, NONE};
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
    /// In flight: number of the batch, and place in it. It leaves here before the batch does.
    Sent(u32, u32),
    /// Nowhere: on the way from one place to another.
    Moving,
}

/// See the module. Two lines of a cache.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Unit {
    pub(super) seq: u64,
    /// The request that brought it.
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) class: Class,
    /// Of a mutation: its lane.
    pub(super) shard: u16,
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
    /// It stalled in a READY batch: goes alone from now on.
    pub(super) alone: bool,
    pub(super) failures: u8,
    /// Keys that it still waits for.
    pub(super) pending: u8,
    pub(super) attempts: u32,
    /// Since when it is in its place, ns.
    pub(super) since: u64,
    /// Keys of a mutation.
    pub(super) locks: Box<[(u32, Mode)]>,
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

/// Part of a request that waits for a unit. One line of a cache.
#[derive(Debug)]
#[repr(align(64))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_in_flight_is_three_lines_of_a_cache_besides_its_key() {
        assert_eq!([size_of::<Unit>(), size_of::<Option<Unit>>()], [128; 2]);
        assert_eq!([size_of::<Waiter>(), size_of::<Option<Waiter>>()], [64; 2]);
    }
}
