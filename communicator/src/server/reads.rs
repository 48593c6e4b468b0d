//! One batch of reads, at the page service.

use super::desk::Desk;
use super::sizes::Asked;
use crate::cache::{Sent, Tier};
use crate::compare::{Answered, Mode};
use crate::service::{Answer, Read, ReadBatch, ReadLsn, Result, Retry, ServiceError, Value, What};
use shmuring::lsn::scheduler::{Batch, Member};
use shmuring::request::{Class, RelTag};
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
    /// The counts of their blocks when they were sent; empty where nothing is kept.
    sent: Vec<Option<Sent>>,
    /// Questions for relation sizes, by member.
    asked: Vec<Option<Asked>>,
}

impl Serving {
    fn came(&mut self, index: usize, result: &Result<Answer>) {
        if let Some(member) = self.left.get_mut(index).and_then(Option::take) {
            self.desk.came(self.batch.shard, member, result);
        }
    }

    /// A page for its readers and the caches; first it is compared with the local copy, if that is asked for.
    fn answer(&mut self, index: usize, read: Option<&Read>, result: Result<Answer>) {
        let result = match (read, result) {
            (Some(Read { what: What::Page(rel, block), lsns, .. }), Ok(answer)) => {
                self.look_at((*rel, *block), lsns, &answer, index).map(|()| answer)
            }
            (Some(read), Ok(answer)) => {
                self.keep_size(index, read, &answer);
                Ok(answer)
            }
            (_, result) => result,
        };
        self.came(index, &result);
    }

    /// Makes a size known that no change has overtaken.
    fn keep_size(&mut self, index: usize, read: &Read, answer: &Answer) {
        let asked = self.asked.get_mut(index).and_then(Option::take);
        if let (Some(asked), Value::RelSize(blocks)) = (asked, &answer.value) {
            asked.fill(*blocks, read.lsns.not_modified_since);
        }
    }

    fn look_at(&self, (rel, block): (RelTag, u32), lsns: &ReadLsn, answer: &Answer, index: usize) -> Result<()> {
        let Value::Page(page) = &answer.value else { return Ok(()) };
        let n = lsns.not_modified_since;
        if let Some(compare) =
            self.desk.compare.as_ref().filter(|c| c.mode() == Mode::All && lsns.request_lsn.is_none())
        {
            let answered = Answered { rel, block, page: page.bytes(), as_of: n.max(answer.lsn), from: "page service" };
            compare.check(&answered, self.desk.parts.role_stats)?;
        }
        // Before its readers have it, and while its key is held.
        if let Some(sent) = self.sent.get(index).copied().flatten() {
            let tier = if self.batch.class == Class::Prefetch { Tier::Prefetched } else { Tier::Cache };
            self.desk.cache.insert((rel, block), page, n, sent, tier);
        }
        Ok(())
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

/// The counts of the blocks whose pages will be kept. Reads as of a given LSN are of no use to others.
fn sent(desk: &Desk, batch: &ReadBatch) -> Vec<Option<Sent>> {
    if !desk.cache.is_there() {
        return Vec::new();
    }
    let one = |read: &Read| match read.what {
        What::Page(rel, block) if read.lsns.request_lsn.is_none() => Some(desk.cache.sent(rel, block)),
        _ => None,
    };
    batch.reads.iter().map(one).collect()
}

/// Questions for sizes of the latest.
fn asked(desk: &Desk, batch: &ReadBatch) -> Vec<Option<Asked>> {
    let one = |read: &Read| match read.what {
        What::RelSize(rel) if read.lsns.request_lsn.is_none() => Some(desk.sizes.ask(rel)),
        _ => None,
    };
    batch.reads.iter().map(one).collect()
}

/// Serves a batch to its end.
pub(super) async fn run(desk: Arc<Desk>, batch: Batch) {
    let begin = Instant::now();
    let reads = ReadBatch::of(&batch);
    let service = desk.service.clone();
    let left = batch.members.iter().copied().map(Some).collect();
    let (sent, asked) = (sent(&desk, &reads), asked(&desk, &reads));
    let mut serving = Serving { desk, batch, left, sent, asked };
    let mut early = Vec::new();
    let mut answer = |index: usize, result: Result<_>| match result {
        Err(e) if e.retry == Retry::NotYet && begin.elapsed() < LEAST_WAIT => early.push((index, e)),
        result => serving.answer(index, reads.reads.get(index), result),
    };
    service.read_batch(&reads, &mut answer).await;
    if !early.is_empty() {
        tokio::time::sleep(LEAST_WAIT.saturating_sub(begin.elapsed())).await;
        for (index, e) in early {
            serving.came(index, &Err(e));
        }
    }
}
