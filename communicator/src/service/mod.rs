//! Page services: where pages come from and where writes go.
//!
//! | file | role |
//! |---|---|
//! | [`spec`] | which service, in a string: `store:DIR` |
//! | `open` | opens it |
//! | `error` | [`ServiceError`]: an errno, a sentence, the block it is about, whether to try again |
//! | `request` | what is asked: reads, mutations |
//! | `batch` | reads that are sent together, and their answers |
//! | [`store`] | embedded pages versioned by LSN: the default |
//! | [`datadir`] | read-only pages of a PostgreSQL data directory |
//! | `grpc` | page servers across the network: feature `grpc` |
//! | `standby` | a PostgreSQL hot standby, read-only: feature `standby`, on by default |
//!
//! The code here runs in the communicator, never in a backend: it may allocate and use threads, but no input may make it
//! panic. Methods are called on a tokio runtime; what takes microseconds runs inline, commits and fsync on its blocking
//! threads.

mod batch;
pub mod datadir;
mod error;
#[cfg(feature = "grpc")]
pub mod grpc;
mod open;
mod request;
pub mod spec;
#[cfg(feature = "standby")]
pub mod standby;
pub mod store;

pub use batch::{Answer, Answers, Ingest, Page, ReadBatch, Value, Watermarks};
pub(crate) use error::Rel;
pub use error::{Result, Retry, ServiceError};
pub use request::{Mutation, MutationRequest, Read, ReadLsn, What, PAGE_SIZE};

use async_trait::async_trait;
use shmuring::request::{Lsn, RelTag};
use std::sync::Arc;

/// What the communicator asks of a place that has pages.
#[async_trait]
pub trait PageService: Send + Sync + 'static {
    /// The name used in logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether reads can wait for WAL here. Asked once, before the first request.
    fn ingest(&self) -> Ingest {
        Ingest::Immediate
    }

    /// Where to tell what is heard of the servers' ingest, from now on. A service that does not lag has nothing to tell.
    fn report_to(&self, watermarks: Arc<dyn Watermarks>) {
        drop(watermarks);
    }

    /// The region that will write, by its own name: whose lives and epochs the fences are of. Told before the first fence.
    fn serves(&self, region: u128) {
        let _ = region;
    }

    /// Reads anew what the service was told by files: where its servers are, say. On an error all stays as it is.
    fn reload(&self) -> Result<()> {
        Ok(())
    }

    /// Most reads that a batch should have: more share a call, fewer run side by side.
    fn batch_size(&self) -> usize {
        32
    }

    /// Serves a batch of reads, and gives each answer on as soon as it is there; one that gets none fails with EIO.
    /// Dropped half-way (a recalled batch) it must stop. Unless a service knows better, its single calls serve it.
    async fn read_batch(&self, batch: &ReadBatch, answers: &mut Answers<'_>) {
        batch::by_calls(self, batch, answers).await;
    }

    /// Fills `out` (`count` pages) with the blocks from `block` on; answers the LSN as of which they are.
    async fn get_pages(&self, rel: RelTag, block: u32, count: u32, lsns: ReadLsn, out: &mut [u8]) -> Result<Lsn>;

    /// Brings blocks near. Only a hint: blocks that are not there are no error.
    async fn prefetch(&self, rel: RelTag, block: u32, count: u32) -> Result<()>;

    /// Blocks of a fork; `None` if it is missing.
    async fn rel_size(&self, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>>;

    /// Bytes of a database.
    async fn db_size(&self, db_oid: u32, lsns: ReadLsn) -> Result<u64>;

    /// An SLRU segment; `kind`: 0 clog, 1 multixact members, 2 multixact offsets.
    async fn read_slru(&self, kind: u32, segno: u32, lsns: ReadLsn) -> Result<Vec<u8>>;

    /// Applies a group in order and commits it together; each mutation has a result of its own. A mutation that fails
    /// changes nothing; a failed commit fails every mutation of the group. (`life`, `epoch`) must be the last fence.
    async fn apply(&self, life: u32, epoch: u32, group: Arc<Vec<MutationRequest>>) -> Vec<Result<u64>>;

    /// Makes every mutation acknowledged before the call survive a loss of power.
    async fn sync(&self) -> Result<()>;

    /// From now on mutations of older (`life`, `epoch`) of the same region are refused with ESTALE (R4d), for as long as a
    /// process that could still send them may live. An error that may be tried again says that a part of the service could
    /// not be told yet: it will be before it is given the first mutation.
    async fn fence(&self, life: u32, epoch: u32) -> Result<()>;

    /// Forgets versions that no read as of the last `history` bytes of WAL can see; answers how many. A service that keeps
    /// no versions has nothing to forget.
    async fn forget(&self, history: u64) -> Result<u64> {
        let _ = history;
        Ok(0)
    }
}

/// Checks that `out` is `count` pages and that the block numbers do not run over.
pub(crate) fn check_read(rel: RelTag, block: u32, count: u32, out: &[u8]) -> Result<()> {
    if count == 0 || out.len() != count as usize * PAGE_SIZE {
        return Err(ServiceError::invalid(format!("{count} blocks into a buffer of {} bytes", out.len())));
    }
    if block.checked_add(count).is_none() {
        return Err(ServiceError::invalid(format!("blocks {block}+{count} of {}", Rel(rel))));
    }
    Ok(())
}
