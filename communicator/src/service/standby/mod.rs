//! A PostgreSQL hot standby as page server: its replay is the ingest, its replay LSN the watermark. Read-only.
//!
//! | file | role |
//! |---|---|
//! | `conninfo` | where a server is, in a string |
//! | `answer` | what the server's functions answer, taken apart |
//! | `link` | one connection: who is there, questions, deadlines |
//! | `links` | the connections, kept up; generations |
//! | `watch` | what has been replayed, and waiting for more |
//!
//! A batch of pages is one round trip, by the functions of the extension (extension/standby.c). READY reads go over
//! connections of their own (S3). FUTURE reads wait here, for the replay LSN that the standby tells, and are sent when
//! they have nothing left to wait for: so nothing ever waits in the standby, where the snapshot of a query that waits
//! could hold up replay. That the standby has replayed what a read needs it checks itself, before it reads.
//!
//! Whoever asks flushes the primary's WAL up to the LSN that it asks for first (S9): else the standby cannot have it.

pub(crate) mod answer;
mod conninfo;
pub(crate) mod link;
mod links;
mod watch;

pub use conninfo::ConnInfo;

use self::answer::{Blocks, Entry, Status};
use self::link::{Link, OnDrop};
use self::links::{Kept, Lane, Links};
use super::{
    check_read, Answer, Answers, Ingest, MutationRequest, Page, PageService, Read, ReadBatch, ReadLsn, Rel, Result,
    Retry, ServiceError, Value, Watermarks, What, PAGE_SIZE,
};
use async_trait::async_trait;
use shmuring::lsn::scheduler::Kind;
use shmuring::lsn::shards::Sharding;
use shmuring::request::{Lsn, RelTag};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Connections for READY reads, and for those that had to wait for WAL.
const LINKS: (usize, usize) = (4, 2);
/// How long a read waits for a connection before its attempt has failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a FUTURE read waits for WAL before it goes back to the scheduler.
const WAL_PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Standby {
    links: Arc<Links>,
    floor: Lsn,
    _tasks: Vec<OnDrop>,
}

/// Splits the reads of a batch by how they are asked for; each with its index.
#[derive(Default)]
struct Sorted {
    pages: Vec<(usize, (RelTag, u32))>,
    near: Vec<(usize, (RelTag, u32))>,
    sizes: Vec<(usize, RelTag)>,
    /// One by one, or not at all.
    others: Vec<usize>,
}

impl Sorted {
    fn of(reads: &[Read]) -> Self {
        let mut sorted = Self::default();
        for (i, read) in reads.iter().enumerate() {
            match read.what {
                _ if read.lsns.request_lsn.is_some() => sorted.others.push(i),
                What::Page(rel, block) => sorted.pages.push((i, (rel, block))),
                What::Near(rel, block) => sorted.near.push((i, (rel, block))),
                What::RelSize(rel) => sorted.sizes.push((i, rel)),
                What::DbSize(_) | What::Slru(..) | What::Nothing => sorted.others.push(i),
            }
        }
        sorted
    }
}

impl Standby {
    /// Connects to the standby. Blocks, for as long as an attempt to connect may take; call it outside of async code.
    ///
    /// # Errors
    /// Those of the connection; ENOSYS: the extension is not there; EPROTO: the server is no standby.
    pub fn open(conninfo: &ConnInfo, runtime: &Handle) -> Result<Self> {
        runtime.block_on(async {
            let first = Link::open(conninfo).await?;
            links::check_recovery(conninfo, first.in_recovery)?;
            let links = Links::new(conninfo.clone(), &first, LINKS.0, LINKS.1);
            let mut tasks = links.keep_up();
            tasks.push(OnDrop(tokio::spawn(watch::run(links.clone())).abort_handle()));
            Ok(Self { links, floor: first.replayed, _tasks: tasks })
        })
    }

    /// A connection for reads of the present generation.
    async fn link(&self, lane: &Lane) -> Result<Kept> {
        self.links.get(lane, PATIENCE).await
    }

    /// Asks for blocks, and gives what became of each: its page, if pages were asked for.
    async fn ask(&self, kept: &Kept, of: &[(RelTag, u32)], n: Lsn, pages: bool) -> Result<Vec<Result<(Page, Lsn)>>> {
        let mut blocks = kept.link.pages(of, n, pages).await?;
        links::check_recovery(&self.links.conninfo, blocks.in_recovery)?;
        self.links.heard(kept.generation, blocks.read_lsn);
        let run = Page::cut(core::mem::take(&mut blocks.pages));
        Ok(each(of, n, &blocks, run))
    }

    async fn pages(&self, lane: &Lane, of: &[(usize, (RelTag, u32))], n: Lsn, pages: bool) -> Vec<Result<(Page, Lsn)>> {
        if of.is_empty() {
            return Vec::new();
        }
        let blocks: Vec<_> = of.iter().map(|(_, block)| *block).collect();
        let result = match self.link(lane).await {
            Ok(kept) => self.ask(&kept, &blocks, n, pages).await,
            Err(e) => Err(e),
        };
        result.unwrap_or_else(|e| blocks.iter().map(|(_, block)| Err(e.clone().about(*block))).collect())
    }

    async fn sizes(&self, lane: &Lane, of: &[RelTag], n: Lsn) -> Result<Vec<Option<u32>>> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let kept = self.link(lane).await?;
        self.still_standby(&kept).await?;
        kept.link.sizes(of, n).await
    }

    /// What does not say by itself that it comes from a standby is asked for after this.
    async fn still_standby(&self, kept: &Kept) -> Result<()> {
        let (lsn, in_recovery) = kept.link.replayed().await?;
        links::check_recovery(&self.links.conninfo, in_recovery)?;
        self.links.heard(kept.generation, lsn);
        Ok(())
    }

    /// Waits until the standby has what a single call needs.
    async fn until(&self, lsns: ReadLsn) -> Result<()> {
        if lsns.request_lsn.is_some() {
            return Err(ServiceError::unsupported("a read at an LSN"));
        }
        watch::until(&self.links, self.links.generation(), lsns.not_modified_since, WAL_PATIENCE).await
    }

    async fn other(&self, read: &Read) -> Result<Answer> {
        match read.what {
            _ if read.lsns.request_lsn.is_some() => Err(ServiceError::unsupported("a read at an LSN")),
            What::DbSize(db) => Ok(Answer { value: Value::DbSize(self.db_size(db, read.lsns).await?), lsn: 0 }),
            What::Slru(kind, segno) => {
                self.read_slru(kind, segno, read.lsns).await?;
                Err(ServiceError::unsupported("reading an SLRU segment"))
            }
            _ => Err(ServiceError::unsupported("reading nothing")),
        }
    }
}

/// What became of each block of an answer.
fn each(of: &[(RelTag, u32)], n: Lsn, blocks: &Blocks, run: Vec<Page>) -> Vec<Result<(Page, Lsn)>> {
    let mut run = run.into_iter();
    let one = |((rel, block), entry): (&(RelTag, u32), &Entry)| match entry.status {
        // Without pages there is nothing to cut: what was brought near.
        Status::Read => Ok((run.next().unwrap_or_else(|| Page::one(Vec::new())), blocks.read_lsn)),
        Status::NoRelation => Err(ServiceError::missing_relation(*rel).at_block(*block)),
        Status::PastEnd => {
            let what = format!("block {block} of relation {} is past its end", Rel(*rel));
            Err(ServiceError::new(libc::ENXIO, what).at_block(*block))
        }
        Status::Damaged => {
            let what = format!("block {block} of relation {} is damaged on the standby", Rel(*rel));
            Err(ServiceError::new(libc::EBADMSG, what).at_block(*block))
        }
        Status::NotYet => Err(ServiceError::not_yet(n, 0).at_block(*block)),
    };
    of.iter().zip(&blocks.entries).map(one).collect()
}

#[async_trait]
impl PageService for Standby {
    fn name(&self) -> &'static str {
        "standby"
    }

    fn ingest(&self) -> Ingest {
        Ingest::Lags { sharding: Sharding::NONE, floor: self.floor }
    }

    fn report_to(&self, watermarks: Arc<dyn Watermarks>) {
        self.links.report_to(watermarks);
    }

    async fn read_batch(&self, batch: &ReadBatch, answers: &mut Answers<'_>) {
        let n = batch.reads.iter().map(|r| r.lsns.not_modified_since).max().unwrap_or(0);
        let lane = match batch.kind {
            Kind::Future => &self.links.future,
            _ => &self.links.ready,
        };
        let ready = match batch.kind {
            _ if batch.generation != self.links.generation() => {
                let what = format!("{}: the server process has changed", self.links.conninfo);
                Err(ServiceError::new(libc::ECONNRESET, what).with_retry(Retry::Reconnect))
            }
            Kind::Future => watch::until(&self.links, batch.generation, n, WAL_PATIENCE).await,
            _ => Ok(()),
        };
        if let Err(e) = ready {
            return (0..batch.reads.len()).for_each(|i| answers(i, Err(e.clone())));
        }
        let sorted = Sorted::of(&batch.reads);
        let rels: Vec<_> = sorted.sizes.iter().map(|(_, rel)| *rel).collect();
        let (pages, near, sizes) = tokio::join!(
            self.pages(lane, &sorted.pages, n, true),
            self.pages(lane, &sorted.near, n, false),
            self.sizes(lane, &rels, n)
        );
        for ((i, _), result) in sorted.pages.iter().zip(pages) {
            answers(*i, result.map(|(page, lsn)| Answer { value: Value::Page(page), lsn }));
        }
        for ((i, _), result) in sorted.near.iter().zip(near) {
            answers(*i, result.map(|_| Answer { value: Value::Near, lsn: 0 }));
        }
        for (at, (i, _)) in sorted.sizes.iter().enumerate() {
            let size = sizes.as_ref().map(|s| s.get(at).copied().flatten()).map_err(Clone::clone);
            answers(*i, size.map(|n| Answer { value: Value::RelSize(n), lsn: 0 }));
        }
        for i in sorted.others {
            let Some(read) = batch.reads.get(i) else { continue };
            answers(i, self.other(read).await);
        }
    }

    async fn get_pages(&self, rel: RelTag, block: u32, count: u32, lsns: ReadLsn, out: &mut [u8]) -> Result<Lsn> {
        check_read(rel, block, count, out)?;
        self.until(lsns).await?;
        let mut as_of = Lsn::MAX;
        let blocks: Vec<_> = (block..block + count).map(|b| (rel, b)).collect();
        for (some, to) in blocks.chunks(32).zip(out.chunks_mut(32 * PAGE_SIZE)) {
            let kept = self.link(&self.links.future).await?;
            for (result, to) in
                self.ask(&kept, some, lsns.not_modified_since, true).await?.into_iter().zip(to.chunks_mut(PAGE_SIZE))
            {
                let (page, lsn) = result?;
                to.copy_from_slice(page.bytes());
                as_of = as_of.min(lsn);
            }
        }
        Ok(as_of)
    }

    async fn prefetch(&self, rel: RelTag, block: u32, count: u32) -> Result<()> {
        let kept = self.link(&self.links.future).await?;
        let blocks: Vec<_> = (block..block.saturating_add(count.min(1024))).map(|b| (rel, b)).collect();
        // Blocks that are not there are no error of a prefetch.
        self.ask(&kept, &blocks, 0, false).await.map(|_| ())
    }

    async fn rel_size(&self, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>> {
        self.until(lsns).await?;
        let sizes = self.sizes(&self.links.future, &[rel], lsns.not_modified_since).await?;
        Ok(sizes.first().copied().flatten())
    }

    async fn db_size(&self, db_oid: u32, lsns: ReadLsn) -> Result<u64> {
        self.until(lsns).await?;
        let kept = self.link(&self.links.future).await?;
        self.still_standby(&kept).await?;
        let size = kept.link.db_size(db_oid).await?.and_then(|n| u64::try_from(n).ok());
        size.ok_or_else(|| ServiceError::new(libc::ENOENT, format!("database {db_oid} does not exist")))
    }

    /// Refused: a standby's SLRUs have no function that reads them.
    async fn read_slru(&self, _kind: u32, _segno: u32, _lsns: ReadLsn) -> Result<Vec<u8>> {
        Err(ServiceError::unsupported("reading an SLRU segment"))
    }

    async fn apply(&self, _life: u32, _epoch: u32, group: Arc<Vec<MutationRequest>>) -> Vec<Result<u64>> {
        group.iter().map(|_| Err(ServiceError::read_only())).collect()
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Nothing can be written, so every epoch is fenced.
    async fn fence(&self, _life: u32, _epoch: u32) -> Result<()> {
        Ok(())
    }
}
