//! A page server: one shard's pages from a [`store`](crate::service::store), over the protocol of the page service.
//!
//! | file | role |
//! |---|---|
//! | `gate` | who may ask, and for what: tokens, tenant, timeline, shard |
//! | `reads` | the page service: the read point, pages, sizes, segments, leases |
//! | `pages` | a GetPages stream: strictly in order |
//! | `writes` | the write service: fences, mutations, sync, word of ingest |
//! | `terms` | which term may fence, and which may write |
//! | [`ingest`] | how far the server has ingested, and what holds it back |
//! | `leases` | history that is kept for a while |
//! | `record` | what survives beside the store: shard, fence, where ingest begins |
//!
//! # Durability
//! A mutation that was acknowledged survives a kill of the process, and a loss of power after a sync. A fence survives
//! both when it is acknowledged. After a death ingest begins at the last *checkpoint* (a sync, an orderly stop, or the
//! server's own every few seconds) and takes up what is in the store by the same rules as what comes anew.

mod gate;
pub mod ingest;
mod leases;
mod pages;
mod reads;
mod record;
mod terms;
mod writes;

pub use ingest::Hold;
pub use record::Shard;

use self::gate::Gate;
use self::ingest::{Ingest, PrintLsn};
use self::leases::Leases;
use self::record::Record;
use crate::service::store::{Store, StoreOptions};
use crate::service::{Result, ServiceError};
use crate::wire::metadata::Id;
use crate::wire::proto::page_api::page_service_server::PageServiceServer;
use crate::wire::proto::write::write_service_server::WriteServiceServer;
use crate::wire::{MAX_FRAME, MAX_MESSAGE};
use shmuring::lsn::shards::Sharding;
use shmuring::request::Lsn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{watch, Mutex};
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Status};

/// How often a silent connection is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What a page server is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it listens: HOST:PORT; port 0: any that is free.
    pub listen: String,
    /// Its store, which is made if it is missing.
    pub store: PathBuf,
    /// Bytes of writes that the store gathers in memory.
    pub memtable_bytes: u64,
    /// Which pages it has.
    pub shard: Shard,
    /// The one tenant that it has; `None`: it takes any name for its own.
    pub tenant: Option<Id>,
    /// The one timeline.
    pub timeline: Option<Id>,
    /// Tokens that callers must show one of.
    pub token_file: Option<PathBuf>,
    /// PEM files of the certificate and its key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What holds ingest back at the start.
    pub hold: Hold,
    /// Begin with no more than this ingested.
    pub begin_at: Option<Lsn>,
    /// How long a read waits for its LSN.
    pub wait_limit: Duration,
    /// How long an LSN lease holds.
    pub lease: Duration,
    /// Bytes of WAL as of which reads are possible.
    pub history: u64,
    /// How often older versions are forgotten; zero: never.
    pub forget_every: Duration,
    /// How often what was ingested is made durable; zero: only when a writer or a stop asks for it.
    pub checkpoint_every: Duration,
}

impl Options {
    /// The one shard of a timeline, at this address over this store, with the defaults of `shmuring page-server`: it lets
    /// everybody in, and holds nothing back.
    #[must_use]
    pub fn new(listen: impl Into<String>, store: impl Into<PathBuf>) -> Self {
        Self {
            listen: listen.into(),
            store: store.into(),
            memtable_bytes: 64 << 20,
            shard: Shard { number: 0, count: 1, stripe: Sharding::NONE.stripe },
            tenant: None,
            timeline: None,
            token_file: None,
            tls: None,
            hold: Hold::default(),
            begin_at: None,
            wait_limit: Duration::from_secs(300),
            lease: Duration::from_secs(600),
            history: 1 << 30,
            forget_every: Duration::from_secs(60),
            checkpoint_every: Duration::from_secs(10),
        }
    }
}

/// What every call needs.
struct Shared {
    gate: Gate,
    store: Store,
    ingest: Ingest,
    leases: Leases,
    /// Held while a group is applied, a fence set, a checkpoint made.
    record: Arc<Mutex<Record>>,
    /// Number of the writer's connection that fenced last. Read and written under the record's lock alone.
    attachment: AtomicU64,
    /// The record's LSN, for those that do not wait for the lock.
    disk_consistent: AtomicU64,
    wait_limit: Duration,
    /// Another number each time a server starts.
    incarnation: u64,
    stop: watch::Sender<bool>,
}

impl Shared {
    /// Comes when the server is to stop.
    async fn stopping(&self) {
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    fn unavailable() -> Status {
        Status::unavailable("the page server is shutting down")
    }

    fn disk_consistent(&self) -> Lsn {
        self.disk_consistent.load(Ordering::Acquire)
    }

    /// Makes every acknowledged mutation survive a loss of power, and what is ingested by now a death.
    async fn checkpoint(self: &Arc<Self>) -> Result<()> {
        let at = self.ingest.last_record();
        let store = self.store.clone();
        blocking(move || store.sync()).await?;
        // Not while the store syncs: mutations go on beside it.
        let mut record = self.record.clone().lock_owned().await;
        let shared = self.clone();
        blocking(move || {
            if at > record.disk_consistent {
                let synced = Record { disk_consistent: at, ..*record };
                synced.save(&shared.store.path(), shared.store.id())?;
                *record = synced;
                shared.disk_consistent.store(at, Ordering::Release);
            }
            Ok(())
        })
        .await
    }
}

/// A page server that runs, in tasks of the runtime that it was started on.
pub struct PageServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: JoinHandle<std::result::Result<(), tonic::transport::Error>>,
    /// Ends with the handle.
    helpers: Vec<JoinHandle<()>>,
}

impl PageServer {
    /// Opens the store, listens, and serves. In a runtime's context; blocks on the file system.
    ///
    /// # Errors
    /// Those of [`Store::open`]; EINVAL: the store has another shard's pages; EUCLEAN: its record is damaged; and those of
    /// listening, and of the files named.
    pub async fn start(options: &Options) -> Result<Self> {
        let gate = Gate::new(options.shard, options.tenant, options.timeline, options.token_file.clone())?;
        let tls = options.tls.as_ref().map(read_tls).transpose()?;
        let store_options = StoreOptions { memtable_bytes: options.memtable_bytes, ..StoreOptions::default() };
        let store = Store::open(&options.store, store_options)?;
        let shared = Arc::new(open(options, gate, store)?);
        let at = |e: std::io::Error| ServiceError::io_at(&e, format_args!("listening on {}", options.listen));
        let listener = TcpListener::bind(&options.listen).await.map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        // Peers that are gone without a word are found.
        let mut server = Server::builder().http2_keepalive_interval(Some(KEEPALIVE)).max_frame_size(MAX_FRAME);
        if let Some(tls) = tls {
            server = server.tls_config(tls).map_err(|e| ServiceError::invalid(format!("TLS: {}", causes(&e))))?;
        }
        let reads = PageServiceServer::new(reads::Reads(shared.clone())).accept_compressed(CompressionEncoding::Gzip);
        let writes = WriteServiceServer::new(writes::Writes(shared.clone())).max_decoding_message_size(MAX_MESSAGE);
        // Before a message is read: whoever is not let in has none of it kept in memory.
        let keeper = shared.clone();
        let admit = move |call: Request<()>| keeper.gate.admit(call.metadata()).map(|()| call);
        let (reads, writes) = (InterceptedService::new(reads, admit.clone()), InterceptedService::new(writes, admit));
        let stopping = shared.clone();
        let serving = server.add_service(reads).add_service(writes).serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async move {
                stopping.stopping().await;
            },
        );
        let helpers = vec![
            tokio::spawn({
                let shared = shared.clone();
                async move { shared.ingest.run().await }
            }),
            tokio::spawn(checkpoint(shared.clone(), options.checkpoint_every)),
            tokio::spawn(forget(shared.clone(), options.history, options.forget_every)),
        ];
        Ok(Self { shared, address, serving: tokio::spawn(serving), helpers })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How far it has ingested.
    #[must_use]
    pub fn last_record(&self) -> Lsn {
        self.shared.ingest.last_record()
    }

    /// Holds ingest back by another rule from now on.
    pub fn set_hold(&self, hold: Hold) {
        self.shared.ingest.set_hold(hold);
    }

    /// Reads the token file anew; on an error the tokens stay as they are.
    pub fn read_tokens(&self) -> Result<()> {
        self.shared.gate.read_tokens()
    }

    /// Whether it still serves: not so if its listener failed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.serving.is_finished()
    }

    /// Ends streams with UNAVAILABLE, lets calls end for up to `grace`, and makes all durable. False: some did not end.
    pub async fn stop(mut self, grace: Duration) -> Result<bool> {
        self.shared.stop.send_replace(true);
        let drained = tokio::time::timeout(grace, &mut self.serving).await.is_ok();
        self.serving.abort();
        self.shared.checkpoint().await?;
        Ok(drained)
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.helpers.iter().for_each(JoinHandle::abort);
        self.serving.abort();
    }
}

/// The server's state as its store and its record have it.
fn open(options: &Options, gate: Gate, store: Store) -> Result<Shared> {
    let found = Record::load(&store.path(), store.id(), options.shard)?;
    let record = found.unwrap_or(Record { shard: options.shard, term: None, disk_consistent: 0 });
    if found.is_none() {
        record.save(&store.path(), store.id())?;
    }
    let wanted = options.begin_at.unwrap_or(record.disk_consistent);
    // Below the one reads would miss what was acknowledged, below the other versions may be gone. LSN 0 is none.
    let begin = wanted.max(store.whole_from()).max(store.horizon()).max(1);
    if options.begin_at.is_some_and(|lsn| lsn < begin) {
        tracing::warn!("ingest begins at {}, not at {}: reads need what is before", PrintLsn(begin), PrintLsn(wanted));
    }
    let ingest = Ingest::new(begin, options.hold);
    ingest.receive(store.last_lsn().max(record.disk_consistent), 0);
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Shared {
        gate,
        leases: Leases::new(options.lease, store.horizon()),
        store,
        ingest,
        record: Arc::new(Mutex::new(record)),
        attachment: AtomicU64::new(0),
        disk_consistent: AtomicU64::new(record.disk_consistent),
        wait_limit: options.wait_limit,
        incarnation: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
        stop: watch::Sender::new(false),
    })
}

fn read_tls((cert, key): &(PathBuf, PathBuf)) -> Result<ServerTlsConfig> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| ServiceError::io_at(&e, path.display()));
    Ok(ServerTlsConfig::new().identity(Identity::from_pem(read(cert)?, read(key)?)))
}

/// Runs what takes long on a blocking thread, to its end.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(f).await;
    ended.map_err(|e| ServiceError::new(libc::EIO, format!("a task of the server ended early: {e}")))?
}

/// An error with what caused it: tonic's own text is "transport error".
fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

/// Makes what is ingested durable by and by.
async fn checkpoint(shared: Arc<Shared>, every: Duration) {
    if every.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(every).await;
        if shared.ingest.last_record() == shared.disk_consistent() {
            continue;
        }
        if let Err(e) = shared.checkpoint().await {
            tracing::warn!("a checkpoint failed: {e}");
        }
    }
}

/// Forgets versions that no read may ask for.
async fn forget(shared: Arc<Shared>, history: u64, every: Duration) {
    if every.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(every).await;
        let wanted = shared.ingest.last_record().saturating_sub(history);
        let Some(horizon) = shared.leases.move_horizon(wanted) else { continue };
        let store = shared.store.clone();
        match blocking(move || store.gc(horizon)).await {
            Ok(stats) if stats.pages > 0 => tracing::debug!(pages = stats.pages, "forgot versions"),
            Ok(_) => {}
            Err(e) => tracing::warn!("forgetting failed: {e}"),
        }
    }
}
