//! Statistics in the region: counters and log2 latency histograms, readable by anyone who maps the region read-only.
//!
//! Each array has one writer (an owner of slots, or the communicator), so a count costs a plain load and store and no
//! cache line moves between writers. Numbers only grow; they survive their writers.

use crate::layout::{OwnerStats, RoleStats, BUCKETS};
use crate::sync::{Ordering, Tally};

/// What an owner of slots counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum OwnerCounter {
    /// Requests submitted.
    Submitted = 0,
    /// Requests whose result was taken.
    Finished = 1,
    /// Of those, results that carried an errno.
    Failed = 2,
    /// Requests cancelled.
    Cancelled = 3,
    /// Doorbells rung: system calls to wake the communicator.
    DoorbellRings = 4,
    /// Sleeps on completion words: system calls.
    FutexWaits = 5,
    /// Hints that went by the pending bitmap.
    PendingPushes = 6,
    /// Leftovers of earlier owners that were settled.
    Leftovers = 7,
    /// Relation sizes found in the region.
    RelSizeHits = 8,
    /// Of those, sizes that a change had set: a page server that had not yet heard of it would have waited.
    RelSizeSpared = 9,
    /// Relation sizes not found there.
    RelSizeMisses = 10,
}

impl OwnerCounter {
    /// Names, in order, as `shmuring stat` and the C header have them.
    pub const NAMES: [&'static str; 11] = [
        "submitted",
        "finished",
        "failed",
        "cancelled",
        "doorbell_rings",
        "futex_waits",
        "pending_pushes",
        "leftovers",
        "rel_size_hits",
        "rel_size_spared",
        "rel_size_misses",
    ];
}

/// What the communicator counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum RoleCounter {
    /// Requests claimed.
    Claimed = 0,
    /// Hints that led to nothing to claim (I7).
    StaleHints = 1,
    /// Tickets stepped over: their producer was late or dead.
    SteppedOver = 2,
    /// Hints found in the pending bitmap.
    PendingHints = 3,
    /// Waited-for requests whose hint is gone: found by the audit. Must stay 0 (R14).
    LostHints = 4,
    /// Times that the ring's counters were beyond belief (R15).
    Damage = 5,
    /// Sleeps: system calls.
    Parks = 6,
    /// Wake-ups of backends: system calls.
    Wakes = 7,
    /// Requests refused because their bytes were not a request (I10).
    Refused = 8,
    /// Requests of an older server life that were dropped (R1).
    OldLife = 9,
    /// Requests failed because their deadline had passed.
    Expired = 10,
    /// Claims dropped without an answer (I4).
    Dropped = 11,
    /// Cancelled slots given back.
    Freed = 12,
    /// Times that the role was taken from a dead holder.
    TakeOvers = 13,
    /// Requests of dead holders that were claimed anew.
    Reclaimed = 14,
    /// Words that no transition ever wrote.
    BadWords = 15,
    /// Results with an errno.
    Failed = 16,
    /// Deferred requests completed.
    Deferred = 17,
    /// Batches reaped.
    Batches = 18,
    /// Requests whose owner stopped or died between Submitted and push: found by the audit.
    Unhinted = 19,
    /// Requests that had to wait for a conflicting one (R4).
    Blocked = 20,
    /// Reads that share another's answer (R11).
    Joined = 21,
    /// Requests sent to the page service after an earlier attempt.
    SentAgain = 22,
    /// Waits for WAL that a page server gave up; the reads are sent again.
    LsnTimeouts = 23,
    /// Pages found in the page cache.
    CacheHits = 24,
    /// Pages found in the prefetch buffer.
    PrefetchHits = 25,
    /// Pages found in neither.
    CacheMisses = 26,
    /// Pages compared with a local copy.
    Compared = 27,
    /// Of those, pages that differed.
    Differed = 28,
}

impl RoleCounter {
    /// Names, in order.
    pub const NAMES: [&'static str; 29] = [
        "claimed",
        "stale_hints",
        "stepped_over",
        "pending_hints",
        "lost_hints",
        "damage",
        "parks",
        "wakes",
        "refused",
        "old_life",
        "expired",
        "dropped",
        "freed",
        "take_overs",
        "reclaimed",
        "bad_words",
        "failed",
        "deferred",
        "batches",
        "unhinted",
        "blocked",
        "joined",
        "sent_again",
        "lsn_timeouts",
        "cache_hits",
        "prefetch_hits",
        "cache_misses",
        "compared",
        "differed",
    ];
}

/// Adds to a counter that only the caller writes; gives what it was.
#[inline]
fn add_own(counter: Option<&Tally>, n: u64) -> u64 {
    let Some(c) = counter else { return 0 };
    // Relaxed, load and store: one writer, and nothing hangs off a count.
    let before = c.load(Ordering::Relaxed);
    c.store(before.wrapping_add(n), Ordering::Relaxed);
    before
}

/// Bucket of a duration: 0 is below 256 ns, then a bucket for each doubling, the last from 2^30 ns (1.07 s) up.
#[inline]
#[must_use]
pub const fn bucket(ns: u64) -> usize {
    let log = (ns >> 7 | 1).ilog2() as usize;
    if log < BUCKETS {
        log
    } else {
        BUCKETS - 1
    }
}

/// Largest duration of a bucket, in ns; the last has none.
#[must_use]
pub const fn bucket_end(bucket: usize) -> u64 {
    if bucket + 1 < BUCKETS {
        (1 << (bucket + 8)) - 1
    } else {
        u64::MAX
    }
}

impl OwnerStats {
    /// Adds `n`, and gives what the counter was; the owner alone calls it.
    #[inline]
    pub(crate) fn add(&self, counter: OwnerCounter, n: u64) -> u64 {
        add_own(self.counters.get(counter as usize), n)
    }

    /// Records a latency in ns; the owner alone calls it.
    #[inline]
    pub(crate) fn record(&self, ns: u64) {
        add_own(self.latency.get(bucket(ns)), 1);
    }

    /// The counter now.
    #[inline]
    #[must_use]
    pub fn get(&self, counter: OwnerCounter) -> u64 {
        self.counters.get(counter as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}

impl RoleStats {
    /// Adds `n` from any thread of the communicator: for what is rare.
    #[inline]
    pub fn add(&self, counter: RoleCounter, n: u64) {
        if let Some(c) = self.counters.get(counter as usize) {
            // Relaxed: nothing hangs off a count.
            c.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Adds `n` from the reaper alone: for what happens in every batch. Counters are either the reaper's or anyone's.
    #[inline]
    pub(crate) fn add_reaper(&self, counter: RoleCounter, n: u64) {
        if n != 0 {
            add_own(self.counters.get(counter as usize), n);
        }
    }

    /// Records the time from claim to completion of a deferred request of class `class`, in ns.
    pub fn record_service(&self, class: u8, ns: u64) {
        if let Some(c) = self.service.get(usize::from(class)).and_then(|h| h.get(bucket(ns))) {
            c.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds `n` requests to a bucket ([`bucket`]) of the time that requests waited for conflicting ones.
    pub fn add_blocked(&self, bucket: usize, n: u64) {
        if let Some(c) = self.blocked.get(bucket.min(BUCKETS - 1)).filter(|_| n > 0) {
            c.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The counter now.
    #[inline]
    #[must_use]
    pub fn get(&self, counter: RoleCounter) -> u64 {
        self.counters.get(counter as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}

/// The counts of a histogram now.
#[must_use]
pub fn histogram(of: &[Tally; BUCKETS]) -> [u64; BUCKETS] {
    let mut out = [0; BUCKETS];
    for (o, c) in out.iter_mut().zip(of) {
        *o = c.load(Ordering::Relaxed);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double_and_their_ends_fall_into_them() {
        assert_eq!((bucket(0), bucket(255), bucket(256), bucket(511), bucket(512)), (0, 0, 1, 1, 2));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for b in 0..BUCKETS {
            assert_eq!(bucket(bucket_end(b)), b);
        }
    }
}
