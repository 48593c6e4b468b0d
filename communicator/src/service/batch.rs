//! A batch of reads as the scheduler forms it, and what comes of each.

use super::{PageService, Read, ReadLsn, Result, ServiceError, What, PAGE_SIZE};
use bytes::Bytes;
use shmuring::lsn::scheduler::{Batch, Kind};
use shmuring::lsn::shards::Sharding;
use shmuring::request::{Class, Lsn};
use std::sync::Arc;

/// A page that may be given to several readers: clones share the bytes.
#[derive(Clone, Debug)]
pub struct Page {
    bytes: Bytes,
    /// It lies among others in memory, and keeps them there.
    is_part: bool,
}

impl Page {
    /// The pages of a run of blocks, in order.
    #[must_use]
    pub fn cut(run: Vec<u8>) -> Vec<Self> {
        let run = Bytes::from(run);
        let count = run.len() / PAGE_SIZE;
        let page = |i| Self { bytes: run.slice(i * PAGE_SIZE..(i + 1) * PAGE_SIZE), is_part: count > 1 };
        (0..count).map(page).collect()
    }

    /// A page alone.
    #[must_use]
    pub fn one(bytes: Vec<u8>) -> Self {
        let mut bytes = Bytes::from(bytes);
        bytes.truncate(PAGE_SIZE);
        Self { bytes, is_part: false }
    }

    /// A page that lies in a message.
    #[must_use]
    pub fn part(bytes: Bytes) -> Self {
        Self { bytes, is_part: true }
    }

    /// The same page, which keeps nothing else in memory.
    #[must_use]
    pub fn alone(&self) -> Self {
        if self.is_part {
            Self::one(self.bytes.to_vec())
        } else {
            self.clone()
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads to be sent together. READY and FUTURE ones never share a stream or an ordered connection (S3).
#[derive(Clone, Debug)]
pub struct ReadBatch {
    /// READY: no read of it waits for WAL. FUTURE: all of them may, for one LSN.
    pub kind: Kind,
    /// Who waits for them.
    pub class: Class,
    /// The shard that has them.
    pub shard: usize,
    /// The connection of that shard that the batch is meant for.
    pub generation: u64,
    /// The reads, in the order in which they should be served.
    pub reads: Vec<Read>,
}

impl ReadBatch {
    /// The batch for a service.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let read = |m: &shmuring::lsn::scheduler::Member| Read {
            what: What::of(m.key, m.fetch),
            lsns: ReadLsn { request_lsn: (m.r != Lsn::MAX).then_some(m.r), not_modified_since: m.n },
            attempt: m.attempt,
        };
        Self {
            kind: batch.kind,
            class: batch.class,
            shard: batch.shard,
            generation: batch.generation,
            reads: batch.members.iter().map(read).collect(),
        }
    }
}

/// What a read came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The answer.
    pub value: Value,
    /// The LSN as of which it holds, 0 where none matters.
    pub lsn: Lsn,
}

/// The kinds of answers.
#[derive(Clone, Debug)]
pub enum Value {
    /// A page.
    Page(Page),
    /// A block was brought near.
    Near,
    /// Blocks of a fork; `None`: it is missing.
    RelSize(Option<u32>),
    /// Bytes of a database.
    DbSize(u64),
    /// An SLRU segment.
    Segment(Arc<Vec<u8>>),
}

impl Answer {
    const fn value(value: Value) -> Self {
        Self { value, lsn: 0 }
    }
}

/// Where answers go: the index of the read in the batch, and what it came to. Each is given on as soon as it is there.
pub type Answers<'a> = dyn FnMut(usize, Result<Answer>) + Send + 'a;

/// Whether reads can wait for WAL at a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingest {
    /// What was written can be read: everything is READY, always.
    Immediate,
    /// Servers ingest WAL by and by.
    Lags {
        /// How blocks are spread over them.
        sharding: Sharding,
        /// What all of them surely have: the redo LSN of the last checkpoint (S13).
        floor: Lsn,
    },
}

/// Takes what a service hears of its servers' ingest, from any thread; never blocks for long.
pub trait Watermarks: Send + Sync {
    /// The server of a shard says that it has ingested `lsn` (a hint: only answers prove).
    fn ingested(&self, shard: usize, lsn: Lsn);

    /// The connection to a shard is new, with a larger `generation` than before; `durable`: the server's
    /// disk_consistent_lsn as last heard. Batches of older generations are taken back and sent anew (S1).
    fn reconnected(&self, shard: usize, generation: u64, durable: Lsn);

    /// Whether writers have noted that what is read may have changed as late as `lsn`: the last-written table answers no
    /// less. False for an LSN from nowhere, and where nobody notes anything.
    fn is_noted(&self, what: &What, lsn: Lsn) -> bool {
        let _ = (what, lsn);
        false
    }
}

/// Serves a batch by the service's single calls: blocks that follow each other in one.
pub(super) async fn by_calls<S: PageService + ?Sized>(service: &S, batch: &ReadBatch, answers: &mut Answers<'_>) {
    let mut i = 0;
    while let Some(rest) = batch.reads.get(i..).filter(|r| !r.is_empty()) {
        let n = run_length(rest);
        match rest.get(..n) {
            Some([one]) => answers(i, read(service, one).await),
            Some(run) => read_run(service, i, run, answers).await,
            None => return,
        }
        i += n;
    }
}

/// How many reads from the first on are of blocks that follow each other, as of the same LSN.
fn run_length(reads: &[Read]) -> usize {
    let follows = |pair: &&[Read]| match pair {
        [a, b] => match (a.what, b.what) {
            (What::Page(rel, block), What::Page(next_rel, next)) => {
                rel == next_rel && block.checked_add(1) == Some(next) && a.lsns.request_lsn == b.lsns.request_lsn
            }
            _ => false,
        },
        _ => false,
    };
    1 + reads.windows(2).take_while(follows).count()
}

/// A run of pages by one call. If that fails each is read alone, since they may belong to different requests: what is
/// wrong with one block is not to fail the others.
async fn read_run<S: PageService + ?Sized>(service: &S, first: usize, run: &[Read], answers: &mut Answers<'_>) {
    let Some(Read { what: What::Page(rel, block), lsns, .. }) = run.first().copied() else { return };
    let not_modified_since = run.iter().map(|r| r.lsns.not_modified_since).max().unwrap_or(0);
    let mut pages = vec![0; run.len() * PAGE_SIZE];
    let as_of = ReadLsn { not_modified_since, ..lsns };
    match service.get_pages(rel, block, run.len() as u32, as_of, &mut pages).await {
        Ok(lsn) => {
            for (i, page) in Page::cut(pages).into_iter().enumerate() {
                answers(first + i, Ok(Answer { value: Value::Page(page), lsn }));
            }
        }
        Err(_) => {
            for (i, one) in run.iter().enumerate() {
                answers(first + i, read(service, one).await);
            }
        }
    }
}

async fn read<S: PageService + ?Sized>(service: &S, read: &Read) -> Result<Answer> {
    match read.what {
        What::Page(rel, block) => {
            let mut page = vec![0; PAGE_SIZE];
            let lsn = service.get_pages(rel, block, 1, read.lsns, &mut page).await.map_err(|e| e.about(block))?;
            Ok(Answer { value: Value::Page(Page::one(page)), lsn })
        }
        What::Near(rel, block) => service.prefetch(rel, block, 1).await.map(|()| Answer::value(Value::Near)),
        What::RelSize(rel) => service.rel_size(rel, read.lsns).await.map(|n| Answer::value(Value::RelSize(n))),
        What::DbSize(db) => service.db_size(db, read.lsns).await.map(|n| Answer::value(Value::DbSize(n))),
        What::Slru(kind, segno) => {
            let segment = service.read_slru(kind, segno, read.lsns).await?;
            Ok(Answer::value(Value::Segment(Arc::new(segment))))
        }
        What::Nothing => Err(ServiceError::unsupported("reading nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmuring::request::RelTag;

    #[test]
    fn runs_end_where_blocks_relations_or_lsns_do() {
        let rel = |n| RelTag { spc_oid: 1, db_oid: 2, rel_number: n, fork: 0 };
        let read = |what| Read { what, lsns: ReadLsn::LATEST, attempt: 0 };
        let page = |n, block| read(What::Page(rel(n), block));
        assert_eq!(run_length(&[page(1, 4), page(1, 5), page(1, 6)]), 3);
        assert_eq!(run_length(&[page(1, 4), page(1, 5), page(1, 7)]), 2);
        assert_eq!(run_length(&[page(1, 4), page(2, 5)]), 1);
        assert_eq!(run_length(&[page(1, 4), read(What::Near(rel(1), 5))]), 1);
        assert_eq!(run_length(&[page(1, u32::MAX), page(1, 0)]), 1);
        let at = Read { lsns: ReadLsn::at(7), ..page(1, 5) };
        assert_eq!(run_length(&[page(1, 4), at]), 1);
        assert_eq!(run_length(&[read(What::RelSize(rel(1)))]), 1);
    }

    #[test]
    fn pages_of_a_run_are_its_slices() {
        let run: Vec<u8> = (0..3u8).flat_map(|i| vec![i; PAGE_SIZE]).collect();
        let pages = Page::cut(run);
        assert_eq!(pages.len(), 3);
        for (i, page) in pages.iter().enumerate() {
            assert!(page.bytes().len() == PAGE_SIZE && page.bytes().iter().all(|b| usize::from(*b) == i));
        }
    }
}
