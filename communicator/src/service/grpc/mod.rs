//! Page servers across the network, by the page service's protocol. Feature `grpc`.
//!
//! | file | role |
//! |---|---|
//! | [`spec`] | which servers, in a string or a file |
//! | `config` | one reading of what may change, and how long to wait for what |
//! | `shard` | who serves a shard, since when, how far its ingest is |
//! | `link` | the connections to one server, and their streams |
//! | `watch` | word of ingest |
//! | `reads` | one batch of reads |
//! | [`check`] | its requests, and what answers are checked for |
//! | `writes` | fences, mutations, sync |
//! | `plan` | what each shard hears of a group of mutations |
//! | `errors` | what a server's word means |
//!
//! A server that does not know our service for writes is only read from.

pub mod check;
mod config;
mod errors;
mod link;
mod plan;
mod reads;
mod shard;
pub mod spec;
mod watch;
mod writes;

pub use config::GrpcOptions;
pub use spec::{GrpcSpec, ShardMap};

use super::{
    check_read, Answer, Ingest, MutationRequest, PageService, Read, ReadBatch, ReadLsn, Result, ServiceError, Value,
    Watermarks, What, PAGE_SIZE,
};
use async_trait::async_trait;
use config::Config;
use shard::{lock, Shard, Shared};
use shmuring::lsn::scheduler::Kind;
use shmuring::request::{Class, Lsn, RelTag};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::task::AbortHandle;

/// A timeline at its page servers. Connects when it is first asked for something.
pub struct GrpcService {
    spec: GrpcSpec,
    shared: Arc<Shared>,
    shards: Vec<Arc<Shard>>,
    writes: writes::Writes,
    /// Those that follow the servers; started by the first call, since that is on a runtime.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl GrpcService {
    /// The service of these servers. Reads the files that the spec names; nothing is sent yet.
    ///
    /// # Errors
    /// EINVAL: a file that cannot be read, a map that makes no sense.
    pub fn open(spec: &GrpcSpec, options: GrpcOptions) -> Result<Self> {
        let config = Arc::new(Config::load(spec).map_err(ServiceError::invalid)?);
        let count = config.map.servers.len();
        let shared = Arc::new(Shared { options, config: RwLock::new(config), reports: Mutex::default() });
        let shards: Vec<_> = (0..count).map(|n| Arc::new(Shard::new(n, shared.clone()))).collect();
        let writes = writes::Writes::new(&shards);
        Ok(Self { spec: spec.clone(), shared, shards, writes, tasks: Mutex::default() })
    }

    /// Follows the servers from now on.
    fn start(&self) {
        let mut tasks = lock(&self.tasks);
        if tasks.is_empty() {
            tasks.extend(self.shards.iter().map(|s| tokio::spawn(watch::run(s.clone())).abort_handle()));
            tasks.extend(self.writes.tasks().into_iter().map(|t| tokio::spawn(t).abort_handle()));
        }
    }

    /// One read of nobody knows what standing: it may wait for WAL.
    async fn one(&self, what: What, lsns: ReadLsn) -> Result<Answer> {
        let first = self.shards.first().map_or(0, |s| s.generation());
        let reads = vec![Read { what, lsns, attempt: 0 }];
        let batch = ReadBatch { kind: Kind::Future, class: Class::Demand, shard: 0, generation: first, reads };
        let mut result = Err(ServiceError::new(libc::EIO, "no answer"));
        self.read_batch(&batch, &mut |_, answer| result = answer).await;
        result
    }
}

impl Drop for GrpcService {
    fn drop(&mut self) {
        lock(&self.tasks).iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl PageService for GrpcService {
    fn name(&self) -> &'static str {
        "grpc"
    }

    /// Nothing is known of the servers before they are heard.
    fn ingest(&self) -> Ingest {
        Ingest::Lags { sharding: self.shared.config().map.sharding(), floor: 0 }
    }

    fn report_to(&self, watermarks: Arc<dyn Watermarks>) {
        *lock(&self.shared.reports) = Some(watermarks);
        // What was heard before goes to nobody else.
        for shard in &self.shards {
            shard.report();
        }
    }

    fn serves(&self, region: u128) {
        self.writes.of_region(region);
    }

    fn reload(&self) -> Result<()> {
        let new = Config::load(&self.spec).map_err(ServiceError::invalid)?;
        let old = self.shared.config();
        old.can_become(&new).map_err(ServiceError::invalid)?;
        let new = Arc::new(new);
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
        for shard in &self.shards {
            if let Some(why) = old.changes(&new, shard.number) {
                tracing::info!(shard = shard.number, server = new.map.servers.get(shard.number), "{why}");
                shard.moved(why);
            }
        }
        Ok(())
    }

    async fn read_batch(&self, batch: &ReadBatch, answers: &mut super::Answers<'_>) {
        self.start();
        reads::batch(self, batch, answers).await;
    }

    async fn get_pages(&self, rel: RelTag, block: u32, count: u32, lsns: ReadLsn, out: &mut [u8]) -> Result<Lsn> {
        check_read(rel, block, count, out)?;
        let sharding = self.shared.config().map.sharding();
        let mut as_of = Lsn::MAX;
        let mut at = 0;
        while at < count {
            let shard = usize::from(sharding.block(rel, block + at));
            let same = |i: &u32| usize::from(sharding.block(rel, block + i)) == shard;
            let run: Vec<u32> = (at..count).take_while(same).collect();
            at += run.len() as u32;
            let reads = run.iter().map(|i| Read { what: What::Page(rel, block + i), lsns, attempt: 0 }).collect();
            let generation = self.shards.get(shard).map_or(0, |s| s.generation());
            let batch = ReadBatch { kind: Kind::Future, class: Class::Demand, shard, generation, reads };
            let mut failed = None;
            let mut pages = 0;
            let mut answers = |i: usize, answer: Result<Answer>| match answer {
                Ok(Answer { value: Value::Page(page), lsn }) => {
                    let block = run.get(i).map_or(usize::MAX, |i| *i as usize);
                    if let Some(to) = out.chunks_exact_mut(PAGE_SIZE).nth(block) {
                        to.copy_from_slice(page.bytes());
                        (as_of, pages) = (as_of.min(lsn), pages + 1);
                    }
                }
                Ok(_) => {}
                Err(e) => failed = Some(e),
            };
            self.read_batch(&batch, &mut answers).await;
            if let Some(e) = failed {
                return Err(e);
            }
            if pages != run.len() {
                return Err(ServiceError::new(libc::EIO, format!("{pages} pages of {}", run.len())));
            }
        }
        Ok(as_of)
    }

    /// Pages cross the network for a reader, or not at all.
    async fn prefetch(&self, _rel: RelTag, _block: u32, _count: u32) -> Result<()> {
        Ok(())
    }

    async fn rel_size(&self, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>> {
        match self.one(What::RelSize(rel), lsns).await?.value {
            Value::RelSize(blocks) => Ok(blocks),
            _ => Err(ServiceError::new(libc::EIO, "another answer")),
        }
    }

    async fn db_size(&self, db_oid: u32, lsns: ReadLsn) -> Result<u64> {
        match self.one(What::DbSize(db_oid), lsns).await?.value {
            Value::DbSize(bytes) => Ok(bytes),
            _ => Err(ServiceError::new(libc::EIO, "another answer")),
        }
    }

    async fn read_slru(&self, kind: u32, segno: u32, lsns: ReadLsn) -> Result<Vec<u8>> {
        match self.one(What::Slru(kind, segno), lsns).await?.value {
            Value::Segment(segment) => Ok((*segment).clone()),
            _ => Err(ServiceError::new(libc::EIO, "another answer")),
        }
    }

    async fn apply(&self, life: u32, epoch: u32, group: Arc<Vec<MutationRequest>>) -> Vec<Result<u64>> {
        self.start();
        self.writes.apply(life, epoch, &group).await
    }

    async fn sync(&self) -> Result<()> {
        self.start();
        self.writes.sync().await
    }

    async fn fence(&self, life: u32, epoch: u32) -> Result<()> {
        self.start();
        self.writes.fence(life, epoch).await
    }
}
