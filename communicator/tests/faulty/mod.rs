//! A store whose servers lag, fail, panic and stop as a test says, behind a server over a region of its own.

use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::lsn::scheduler::{Kind, Options};
use shmuring::parts::Parts;
use shmuring::region::{self, Region};
use shmuring::request::{Completion, Lsn, RelTag, Request};
use shmuring::stats::RoleCounter;
use shmuring_communicator::cache::{Cache, Sizes};
use shmuring_communicator::server::{Feedback, Server, ServerOptions};
use shmuring_communicator::service::store::{Store, StoreOptions};
use shmuring_communicator::service::{
    Answers, Ingest, Mutation, MutationRequest, PageService, Read, ReadBatch, ReadLsn, Result, Retry, ServiceError,
    Watermarks, What, PAGE_SIZE,
};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

/// A page that tells its block and version.
pub fn page(block: u32, version: u32) -> Vec<u8> {
    let mut page: Vec<u8> = (0..PAGE_SIZE).map(|i| (i as u32 ^ block.wrapping_mul(31)) as u8).collect();
    page[..8].copy_from_slice(&(u64::from(block) << 32 | u64::from(version)).to_le_bytes());
    page
}

/// A request's name in the log.
pub fn name(r: SlotRef) -> String {
    format!("{}.{}", r.slot, r.generation)
}

pub struct Faulty {
    store: Store,
    ingest: Ingest,
    ingested: watch::Sender<Lsn>,
    held: watch::Sender<bool>,
    patience: Mutex<Duration>,
    failing: Mutex<(u32, Retry)>,
    /// Mutations until one fails, once; negative: none does.
    mutations_left: AtomicI64,
    pub panic: AtomicBool,
    reports: Mutex<Option<Arc<dyn Watermarks>>>,
    seen: Mutex<Vec<(Kind, Vec<Read>)>>,
}

impl Faulty {
    pub fn ingest_to(&self, lsn: Lsn) {
        self.ingested.send_replace(lsn);
    }

    pub fn hold_reads(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// How long servers wait for WAL.
    pub fn patience(&self, patience: Duration) {
        *self.patience.lock().unwrap() = patience;
    }

    pub fn fail_reads(&self, n: u32, retry: Retry) {
        *self.failing.lock().unwrap() = (n, retry);
    }

    /// The mutation after so many fails, once.
    pub fn fail_mutation_after(&self, n: u32, retry: Retry) {
        assert_eq!(retry, Retry::Later);
        self.mutations_left.store(n.into(), Ordering::SeqCst);
    }

    pub fn reconnected(&self, shard: usize, generation: u64, durable: Lsn) {
        self.reports.lock().unwrap().as_ref().unwrap().reconnected(shard, generation, durable);
    }

    /// Every batch so far: its kind, and the LSNs of its reads.
    pub fn batches(&self) -> Vec<(Kind, Vec<Lsn>)> {
        let lsns = |reads: &Vec<Read>| reads.iter().map(|r| r.lsns.not_modified_since).collect();
        self.seen.lock().unwrap().iter().map(|(kind, reads)| (*kind, lsns(reads))).collect()
    }

    /// How often this was asked for.
    pub fn asked(&self, what: What) -> usize {
        self.seen.lock().unwrap().iter().flat_map(|(_, reads)| reads).filter(|r| r.what == what).count()
    }

    fn fails(&self) -> Option<ServiceError> {
        let mut failing = self.failing.lock().unwrap();
        let (left, retry) = *failing;
        (left > 0).then(|| {
            failing.0 -= 1;
            ServiceError::new(libc::ECONNRESET, "told to fail").with_retry(retry)
        })
    }
}

#[async_trait::async_trait]
impl PageService for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn ingest(&self) -> Ingest {
        self.ingest
    }

    fn report_to(&self, watermarks: Arc<dyn Watermarks>) {
        *self.reports.lock().unwrap() = Some(watermarks);
    }

    /// As the page server: one wait for the whole batch, in which all fail together.
    async fn read_batch(&self, batch: &ReadBatch, answers: &mut Answers<'_>) {
        self.seen.lock().unwrap().push((batch.kind, batch.reads.clone()));
        assert!(!self.panic.load(Ordering::SeqCst), "told to panic");
        let first = batch.reads.iter().any(|r| r.what == What::Page(REL, 5));
        if !first {
            let _ = self.held.subscribe().wait_for(|held| !held).await;
        }
        if let Some(e) = self.fails() {
            (0..batch.reads.len()).for_each(|i| answers(i, Err(e.clone())));
            return;
        }
        if self.ingest != Ingest::Immediate {
            let n = batch.reads.iter().map(|r| r.lsns.not_modified_since).max().unwrap_or(0);
            let patience = *self.patience.lock().unwrap();
            let mut ingested = self.ingested.subscribe();
            if tokio::time::timeout(patience, ingested.wait_for(|l| *l >= n)).await.is_err() {
                (0..batch.reads.len()).for_each(|i| answers(i, Err(ServiceError::not_yet(n, batch.shard))));
                return;
            }
        }
        self.store.read_batch(batch, answers).await;
    }

    async fn get_pages(&self, rel: RelTag, block: u32, count: u32, lsns: ReadLsn, out: &mut [u8]) -> Result<Lsn> {
        self.store.get_pages(rel, block, count, lsns, out).await
    }

    async fn prefetch(&self, rel: RelTag, block: u32, count: u32) -> Result<()> {
        self.store.prefetch(rel, block, count).await
    }

    async fn rel_size(&self, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>> {
        self.store.rel_size(rel, lsns).await
    }

    async fn db_size(&self, db_oid: u32, lsns: ReadLsn) -> Result<u64> {
        self.store.db_size(db_oid, lsns).await
    }

    async fn read_slru(&self, kind: u32, segno: u32, lsns: ReadLsn) -> Result<Vec<u8>> {
        self.store.read_slru(kind, segno, lsns).await
    }

    async fn apply(&self, life: u32, epoch: u32, group: Arc<Vec<MutationRequest>>) -> Vec<Result<u64>> {
        assert!(!self.panic.load(Ordering::SeqCst), "told to panic");
        // What is behind the failing one is applied nevertheless, as a server may that lost only one answer.
        let before = self.mutations_left.fetch_sub(group.len() as i64, Ordering::SeqCst);
        let victim = (0..group.len() as i64).contains(&before).then_some(before as usize);
        let mut rest = (*group).clone();
        if let Some(i) = victim {
            rest.remove(i);
        }
        let mut results = self.store.apply(life, epoch, Arc::new(rest)).await;
        if let Some(i) = victim {
            let e = ServiceError::new(libc::ECONNRESET, "told to fail").with_retry(Retry::Later);
            results.insert(i, Err(e));
        }
        results
    }

    async fn sync(&self) -> Result<()> {
        PageService::sync(&self.store).await
    }

    async fn fence(&self, life: u32, epoch: u32) -> Result<()> {
        PageService::fence(&self.store, life, epoch).await
    }
}

/// A server over the service. The relation has 32 blocks of version 0.
pub struct Bed {
    pub service: Arc<Faulty>,
    region: &'static Region,
    server: Option<Server>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Bed {
    pub fn new(ingest: Ingest, scheduler: Options) -> Self {
        Self::with_cache(ingest, scheduler, Sizes::default())
    }

    pub fn with_cache(ingest: Ingest, scheduler: Options, cache: Sizes) -> Self {
        Self::over(ingest, scheduler, Cache::new(cache))
    }

    pub fn over(ingest: Ingest, scheduler: Options, cache: Cache) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        store.fence(0, 0).unwrap();
        let mut group = vec![MutationRequest::first(Mutation::Create { rel: REL, lsn: 1 })];
        group.extend(
            (0..32).map(|b| MutationRequest::first(Mutation::Extend { rel: REL, block: b, lsn: 1, page: page(b, 0) })),
        );
        assert!(store.apply_group(0, 0, &group).iter().all(|r| r.is_ok()));
        let service = Arc::new(Faulty {
            store,
            ingest,
            ingested: watch::Sender::new(0),
            held: watch::Sender::new(false),
            patience: Mutex::new(Duration::from_secs(300)),
            failing: Mutex::new((0, Retry::Never)),
            mutations_left: AtomicI64::new(-1),
            panic: AtomicBool::new(false),
            reports: Mutex::new(None),
            seen: Mutex::default(),
        });
        let region = Box::leak(Box::new(Region::create_private(&region::Options::new(64)).unwrap()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = ServerOptions {
            grace: Duration::from_secs(1),
            scheduler,
            cache: Arc::new(cache),
            ..ServerOptions::default()
        };
        let server = Server::start(region, service.clone(), runtime.handle().clone(), options).unwrap();
        Self { service, region, server: Some(server), runtime, _dir: dir }
    }

    pub fn parts(&self) -> Parts<'_> {
        self.region.parts()
    }

    pub fn counter(&self, counter: RoleCounter) -> u64 {
        self.parts().role_stats.get(counter)
    }

    pub fn feedback(&self) -> &Feedback {
        self.server.as_ref().unwrap().feedback()
    }

    pub fn backend(&self, first: u32, count: u32) -> User<'static> {
        User { backend: Backend::attach(self.region, first, count).unwrap() }
    }

    /// Asks every few milliseconds until it is so; false if that takes too long.
    pub fn soon(&self, mut f: impl FnMut() -> bool) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            if f() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _guard = self.runtime.enter();
        if let Some(server) = self.server.take() {
            self.service.hold_reads(false);
            self.service.ingest_to(Lsn::MAX);
            server.stop();
        }
    }
}

/// A backend with short names.
pub struct User<'r> {
    pub backend: Backend<'r>,
}

impl User<'_> {
    pub fn send(&mut self, request: &Request<'_>) -> SlotRef {
        let slot = self.backend.free_slot().unwrap();
        let r = self.backend.fill(slot, request).unwrap();
        self.backend.submit(r).unwrap();
        r
    }

    /// All at once, with one doorbell.
    pub fn send_all(&mut self, requests: &[Request<'_>]) -> Vec<SlotRef> {
        let mut fill = |request| {
            let slot = self.backend.free_slot().unwrap();
            self.backend.fill(slot, request).unwrap()
        };
        let all: Vec<_> = requests.iter().map(&mut fill).collect();
        self.backend.submit_many(&all).unwrap();
        all
    }

    pub fn end(&mut self, r: SlotRef) -> Completion {
        self.backend.wait(r, &Wait::for_ms(20_000)).unwrap();
        self.backend.finish(r).unwrap()
    }

    pub fn ask(&mut self, request: &Request<'_>) -> Completion {
        let r = self.send(request);
        self.end(r)
    }

    /// errno and value.
    pub fn ask_value(&mut self, request: &Request<'_>) -> (u16, u64) {
        let done = self.ask(request);
        (done.errno, done.value)
    }

    pub fn get(&mut self, block: u32) -> Vec<u8> {
        let mut to = vec![0; PAGE_SIZE];
        let done = self.backend.call(&Request::get_page(REL, block, 1, 0), &Wait::for_ms(20_000), &mut to).unwrap();
        assert_eq!(done.errno, 0);
        to
    }
}

/// What the process logs, from the first call on.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn capture() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Log::default();
            let writer = log.clone();
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
            log
        });
        log.clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
