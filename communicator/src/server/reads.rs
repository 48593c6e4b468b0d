//! One batch of reads, at the page service.

use super::desk::Desk;
use crate::service::{ReadBatch, Result, Retry, ServiceError};
use shmuring::lsn::scheduler::{Batch, Member};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server that gives a wait for WAL up sooner than this is asked again only after the rest of it.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// A batch that is being served. However it ends, each member comes to something: no request hangs on a panic.
struct Serving {
    desk: Arc<Desk>,
    batch: Batch,
    /// Members that are to come to something.
    left: Vec<Option<Member>>,
}

impl Serving {
    fn came(&mut self, index: usize, result: &Result<crate::service::Answer>) {
        if let Some(member) = self.left.get_mut(index).and_then(Option::take) {
            self.desk.came(self.batch.shard, member, result);
        }
    }

    /// Those that got no answer.
    fn rest(&mut self, why: &ServiceError) {
        for index in 0..self.left.len() {
            self.came(index, &Err(why.clone()));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.desk.is_closed() {
            // A panic, or a batch that was recalled: of that nothing is in flight any more, and the desk ignores it.
            self.rest(&ServiceError::new(libc::EIO, "the page service ended without an answer"));
        }
        self.desk.served(self.batch.id);
    }
}

/// Serves a batch to its end.
pub(super) async fn run(desk: Arc<Desk>, batch: Batch) {
    let begin = Instant::now();
    let reads = ReadBatch::of(&batch);
    let service = desk.service.clone();
    let left = batch.members.iter().copied().map(Some).collect();
    let mut serving = Serving { desk, batch, left };
    let mut early = Vec::new();
    let mut answer = |index: usize, result: Result<_>| match result {
        Err(e) if e.retry == Retry::NotYet && begin.elapsed() < LEAST_WAIT => early.push((index, e)),
        result => serving.came(index, &result),
    };
    service.read_batch(&reads, &mut answer).await;
    if !early.is_empty() {
        tokio::time::sleep(LEAST_WAIT.saturating_sub(begin.elapsed())).await;
        for (index, e) in early {
            serving.came(index, &Err(e));
        }
    }
}
