//! Tells the region how far each shard of the page service is, and what waits for it.
//!
//! Whoever explains a wait reads it there, also when this process hangs: words that are written as they change, at the
//! desk's clock and at each word of a service about its servers.

use shmuring::layout::Shards;
use shmuring::lsn::scheduler::Scheduler;
use shmuring::lsn::shards::Sharding;
use std::sync::atomic::Ordering;

/// Begins a term: nothing of an older one stays.
pub(super) fn begin(to: &Shards, sharding: Sharding, epoch: u32) {
    // Relaxed, all of it: each word stands for itself, and nothing is decided by one.
    to.count.store(0, Ordering::Relaxed);
    for mark in &to.marks {
        for word in [&mark.proved, &mark.told, &mark.raised_at, &mark.waiting] {
            word.store(0, Ordering::Relaxed);
        }
    }
    to.stripe.store(sharding.stripe.into(), Ordering::Relaxed);
    to.epoch.store(epoch.into(), Ordering::Relaxed);
    to.count.store(sharding.count.max(1).into(), Ordering::Relaxed);
}

/// Tells how all shards are at `now`. Called under the desk's lock, so that no older word follows a newer one.
pub(super) fn tell(to: &Shards, scheduler: &Scheduler, now: u64) {
    for (shard, mark) in to.marks.iter().enumerate().take(scheduler.shard_count()) {
        let Some(watermark) = scheduler.watermark(shard) else { continue };
        let depths = scheduler.depths(shard, now);
        let batches = depths.in_flight.iter().fold(0u32, |sum, n| sum.saturating_add(*n));
        mark.proved.store(watermark.proved(), Ordering::Relaxed);
        mark.told.store(watermark.hint(), Ordering::Relaxed);
        mark.raised_at.store(watermark.raised_at(), Ordering::Relaxed);
        let waiting = depths.parked.saturating_add(depths.future);
        mark.waiting.store(u64::from(waiting) << 32 | u64::from(batches), Ordering::Relaxed);
    }
    to.written_at.store(now, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmuring::lsn::scheduler::{Options, Request};
    use shmuring::request::{Opcode, RelTag};

    #[test]
    fn a_term_begins_with_nothing_and_tells_of_watermarks_and_of_reads_that_wait_for_wal() {
        let to = Shards::default();
        to.marks[2].told.store(9, Ordering::Relaxed);
        let sharding = Sharding { count: 2, stripe: 8 };
        begin(&to, sharding, 7);
        let words = |i: usize| {
            let m = &to.marks[i];
            [&m.proved, &m.told, &m.raised_at, &m.waiting].map(|w| w.load(Ordering::Relaxed))
        };
        assert_eq!([&to.epoch, &to.count, &to.stripe].map(|w| w.load(Ordering::Relaxed)), [7, 2, 8]);
        assert_eq!(words(2), [0; 4]);
        let options = Options { sharding, ..Options::default() };
        let mut scheduler = Scheduler::new(options, 100);
        scheduler.raise(1, 500, 40);
        let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 1, fork: 0 };
        let block = (0..1000).find(|b| to.shard_of(rel, *b) == 1).unwrap_or(0);
        assert_eq!(sharding.block(rel, block), 1);
        let late = Request::new(1, Opcode::GetPage, rel, block, 900);
        assert!(scheduler.submit(&late, 45, &mut Vec::new()).is_ok());
        tell(&to, &scheduler, 50);
        assert_eq!((words(0), words(1)), ([0, 100, 0, 0], [0, 500, 40, 1 << 32]));
        // Sent, for the server to wait.
        assert!(scheduler.next(1, u64::MAX / 2, 32, &mut Vec::new()).is_some());
        tell(&to, &scheduler, 50);
        assert_eq!(words(1), [0, 500, 40, 1 << 32 | 1]);
        assert_eq!(to.written_at.load(Ordering::Relaxed), 50);
    }
}
