//! Counters, depths and histograms (S14).

use super::super::watermark::Standing;
use super::Scheduler;

/// Buckets of a histogram: bucket i counts times below 2^(i+10) ns (1 µs, 2 µs, ... and all above in the last).
pub const BUCKETS: usize = 28;

/// What happened since the scheduler was made. Numbers only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Units submitted: blocks of reads, other reads, mutations.
    pub submitted: u64,
    /// Of the reads, those that were READY when they came.
    pub ready: u64,
    /// Those that feedback said were there.
    pub hinted: u64,
    /// Those that would have made the server wait.
    pub future: u64,
    /// Reads that share another's answer (R11).
    pub joined: u64,
    /// Reads of a key that was being read at an LSN that forbids joining.
    pub apart: u64,
    /// Waiters that had to leave a read which became FUTURE.
    pub left: u64,
    /// Prefetches and background reads that a read of a higher class met (S12).
    pub upgraded: u64,
    /// Parked reads that became READY by a watermark (S4).
    pub promoted: u64,
    /// Batches sent.
    pub batches: [u64; 3],
    /// Units sent, by kind of batch as above: READY, FUTURE, mutations.
    pub sent: [u64; 3],
    /// FUTURE batches that made room for one of a lower LSN.
    pub recalled: u64,
    /// FUTURE reads in flight that a mutation of their key overtook; they are sent again.
    pub superseded: u64,
    /// READY batches that stalled (R11).
    pub stalls: u64,
    /// Waits for WAL that the server gave up.
    pub lsn_timeouts: u64,
    /// Failures and lost connections.
    pub failures: u64,
    /// Parts given up after failures.
    pub gave_up: u64,
    /// Parts whose deadline passed.
    pub expired: u64,
    /// Of those, parts that waited for WAL.
    pub expired_waiting: u64,
    /// Parts cancelled.
    pub cancelled: u64,
    /// Units that had to wait for a conflicting request.
    pub blocked: u64,
    /// For how long, ns.
    pub blocked_ns: u64,
    /// The same as a histogram.
    pub blocked_histogram: [u64; BUCKETS],
    /// Time that FUTURE reads took, ns: not failure time (S10).
    pub waited_ns: u64,
    /// Head-of-line time avoided, ns: for each READY read answered while FUTURE reads of its shard waited, the time
    /// from its answer to the next rise of the watermark that let one of them go.
    pub hol_avoided_ns: u64,
}

impl Stats {
    pub(super) fn unblocked(&mut self, ns: u64) {
        self.blocked_ns += ns;
        let bucket = (64 - (ns >> 10).leading_zeros()) as usize;
        if let Some(n) = self.blocked_histogram.get_mut(bucket.min(BUCKETS - 1)) {
            *n += 1;
        }
    }

    pub(super) fn standing(&mut self, standing: Standing) {
        match standing {
            Standing::Ready => self.ready += 1,
            Standing::Hinted => self.hinted += 1,
            Standing::Future => self.future += 1,
        }
    }
}

/// What waits on a shard now, and how far its server is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// READY units by class.
    pub ready: [u32; 3],
    /// Parked units.
    pub parked: u32,
    /// Units of FUTURE batches in flight.
    pub future: u32,
    /// READY and FUTURE batches in flight.
    pub in_flight: [u32; 2],
    /// Bytes of WAL between the watermark and the highest LSN that is waited for.
    pub lag: u64,
    /// ns since the watermark last rose.
    pub age: u64,
}

impl Scheduler {
    /// Depths of a shard at `now`.
    #[must_use]
    pub fn depths(&self, shard: usize, now: u64) -> Depths {
        let Some(s) = self.shards.get(shard) else { return Depths::default() };
        let late = s.future_out.iter().chain(&s.probe).filter_map(|(_, id)| self.batches.get(id.number));
        let highest = s.parked.last().unwrap_or(0).max(s.future_out.last().map_or(0, |b| b.0));
        Depths {
            ready: s.ready.map(|l| l.len),
            parked: s.by_age.len,
            future: late.fold(0, |sum, batch| batch.left.saturating_add(sum)),
            in_flight: [s.ready_out.len, s.future_out.len() as u32 + u32::from(s.probe.is_some())],
            lag: highest.saturating_sub(s.mark.proved()),
            age: now.saturating_sub(s.mark.raised_at()),
        }
    }
}
