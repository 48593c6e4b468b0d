//! What the process around a host hears of its page servers' ingest, on its way to the scheduler.
//!
//! Whoever tells it is no thread of the server's, and is to do none of the work that a visit of the desk may bring: the
//! LSN is left here, and a task takes it on. It is a hint and proves nothing (S1): no read becomes READY by it.

use super::desk::Desk;
use shmuring::request::Lsn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Where to tell what page servers have ingested. Cheap to clone; without effect once the server has stopped.
#[derive(Clone, Debug)]
pub struct Feedback(Arc<Told>);

#[derive(Debug)]
struct Told {
    /// By shard, the most that was told; 0: nothing since it was taken on.
    lsns: Box<[AtomicU64]>,
    news: Notify,
}

impl Feedback {
    pub(super) fn new(shards: usize) -> Self {
        let lsns = (0..shards).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Told { lsns, news: Notify::new() }))
    }

    /// Tells that the server of `shard` has received and ingested WAL up to `lsn`; false if there is no such shard. One
    /// that is too high, or of a server that was replaced, has reads tried in vain and does no other harm. Any thread;
    /// takes a lock of the runtime for a moment and allocates nothing.
    pub fn tell(&self, shard: usize, lsn: Lsn) -> bool {
        let Some(last) = self.0.lsns.get(shard) else { return false };
        // Relaxed: the number is all that is told, and the notice wakes whoever takes it. The largest of what several
        // threads tell before it is taken: an older one that comes late takes nothing back.
        last.fetch_max(lsn, Ordering::Relaxed);
        self.0.news.notify_one();
        true
    }
}

/// Takes what is told to the desk, for as long as that is there.
pub(super) async fn carry(feedback: Feedback, desk: Weak<Desk>) {
    loop {
        feedback.0.news.notified().await;
        let Some(desk) = desk.upgrade() else { return };
        for (shard, last) in feedback.0.lsns.iter().enumerate() {
            let lsn = last.swap(0, Ordering::Relaxed);
            if lsn > 0 {
                desk.ingested(shard, lsn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lower_than_what_was_told_before_takes_nothing_back_and_there_are_no_other_shards() {
        let feedback = Feedback::new(2);
        let told = |shard: usize| feedback.0.lsns[shard].load(Ordering::Relaxed);
        assert!(feedback.tell(1, 200) && feedback.tell(1, 100) && feedback.tell(1, 0));
        assert_eq!((told(0), told(1)), (0, 200));
        assert!(feedback.tell(1, Lsn::MAX) && feedback.tell(1, 300));
        assert_eq!(told(1), Lsn::MAX);
        assert!(!feedback.tell(2, 1) && !feedback.tell(usize::MAX, 1));
    }
}
