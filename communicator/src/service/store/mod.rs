//! The default page service: pages versioned by LSN, embedded in the communicator's process.
//!
//! | file | role |
//! |---|---|
//! | `keys` | keys, values, and the rule of which version a read sees |
//! | `dir` | the store's directory: format marker, store id, what was synced |
//! | `engine` | the embedded engine, its errors by name, waits that end |
//! | `write` | groups of mutations, committed together |
//! | `read` | pages, sizes, SLRU segments as of an LSN |
//! | `gc` | drops what no read at or above a horizon can see |
//!
//! # Durability
//!
//! An acknowledged group survives a kill of the process at once, and a loss of power after [`Store::sync`]. What was
//! synced is remembered beside the engine's files, so that a store that lost synced mutations is refused, not served.
//!
//! # Full disk
//!
//! The group that met it fails with ENOSPC and changed nothing that was acknowledged. The engine then takes no more
//! writes, so the store opens it anew by itself, at most once a second, until writes work again.

mod dir;
mod engine;
mod gc;
mod keys;
mod read;
mod write;

pub(crate) use dir::is_store;
#[cfg(feature = "cli")]
pub(crate) use dir::lock_path;
pub use gc::GcStats;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use shmuring::request::{Lsn, RelTag};

use self::engine::{guarded, Engine, Failure};
use self::keys::{seal, unseal};
use super::{MutationRequest, PageService, ReadLsn, Result, ServiceError};

/// How long the store waits between two attempts to open the engine anew.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits for reads that still use the old one.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Sizes of a store; all have defaults.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of the block cache.
    pub cache_bytes: u64,
    /// Bytes of writes that are gathered in memory before they become files. At least 1 MiB.
    pub memtable_bytes: u64,
    /// Threads that flush and compact.
    pub worker_threads: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, memtable_bytes: 64 << 20, worker_threads: 2 }
    }
}

/// Pages versioned by LSN. A handle: clones share the store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    dir: dir::StoreDir,
    opts: StoreOptions,
    /// `None` while the engine could not be opened anew.
    engine: RwLock<Option<Arc<Engine>>>,
    writer: Mutex<Writer>,
    /// Highest effective LSN that was committed.
    last_lsn: AtomicU64,
    /// Reads below it are refused: their versions may be gone.
    horizon: AtomicU64,
    /// See [`Store::whole_from`].
    whole_from: AtomicU64,
}

/// What the one writer knows; the numbers are in the state keyspace too.
struct Writer {
    seq: u64,
    last_lsn: Lsn,
    fence: (u32, u32),
    reopened: Option<Instant>,
}

/// Keys of the state keyspace.
mod state {
    /// Store id, as in the directory's marker.
    pub const ID: &[u8] = b"id";
    /// Sequence number and highest LSN.
    pub const HEAD: &[u8] = b"head";
    /// Horizon of the last gc.
    pub const HORIZON: &[u8] = b"horizon";
    /// Highest effective LSN of a mutation that has a lower one of its own; missing: 0.
    pub const WHOLE: &[u8] = b"whole";
}

/// Two numbers as a state value.
fn pair(key: &[u8], a: u64, b: u64) -> Vec<u8> {
    let mut v = a.to_be_bytes().to_vec();
    v.extend_from_slice(&b.to_be_bytes());
    seal(key, &v)
}

/// Reads two numbers of the state; (0, 0) if they were never written.
fn load_pair(e: &Engine, key: &[u8]) -> Result<(u64, u64)> {
    let Some(v) = guarded("reading the store's state", || e.state.get(key))? else { return Ok((0, 0)) };
    let parse = || {
        let b = unseal(key, &v)?;
        let (a, b) = (b.get(..8)?, b.get(8..16)?);
        Some((u64::from_be_bytes(a.try_into().ok()?), u64::from_be_bytes(b.try_into().ok()?)))
    };
    parse().ok_or_else(|| ServiceError::corrupt("the store's state does not match its checksum"))
}

/// A panic in another thread leaves no half-made state here: every change is one assignment after the commit.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the store in `path`, creating it in a missing or empty directory.
    ///
    /// # Errors
    /// EBUSY: another process has it open; EPROTONOSUPPORT: another format version; EUCLEAN: damaged, or it lost what
    /// was synced; ENOTEMPTY: a directory with something else in it; ENOSPC and other errors of the file system.
    pub fn open(path: &Path, opts: StoreOptions) -> Result<Self> {
        let dir = dir::StoreDir::open(path)?;
        let (engine, writer, horizon) = load(&dir, &opts)?;
        let (whole_from, _) = load_pair(&engine, state::WHOLE)?;
        let inner = Inner {
            last_lsn: AtomicU64::new(writer.last_lsn),
            horizon: AtomicU64::new(horizon),
            whole_from: AtomicU64::new(whole_from),
            dir,
            opts,
            engine: RwLock::new(Some(Arc::new(engine))),
            writer: Mutex::new(writer),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the store lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.inner.dir.path().to_path_buf()
    }

    /// The store's own id: 32 hexadecimal digits, made with it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.inner.dir.id()
    }

    /// Highest LSN that was committed.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.inner.last_lsn.load(Ordering::Acquire)
    }

    /// Reads as of an LSN below it are refused.
    #[must_use]
    pub fn horizon(&self) -> Lsn {
        self.inner.horizon.load(Ordering::Acquire)
    }

    /// A read as of this LSN or a later one sees every acknowledged mutation whose own LSN it covers. One as of an
    /// earlier LSN may not: a mutation takes effect at a higher LSN than its own where the change before it has one, as
    /// do those without any.
    #[must_use]
    pub fn whole_from(&self) -> Lsn {
        self.inner.whole_from.load(Ordering::Acquire)
    }

    /// Makes every acknowledged mutation survive a loss of power.
    pub fn sync(&self) -> Result<()> {
        let (engine, seq) = {
            let w = lock(&self.inner.writer);
            (self.inner.engine()?, w.seq)
        };
        match engine.sync() {
            Ok(()) => self.inner.dir.note_synced(seq),
            Err(f) => {
                drop(engine);
                let mut w = lock(&self.inner.writer);
                Err(self.inner.failed(&mut w, f))
            }
        }
    }

    /// From now on only (`life`, `epoch`) may write; older ones are refused for as long as this store is open.
    ///
    /// Not longer, and so it is not stored: whoever opens a store holds its lock, which proves that every communicator
    /// before is dead. Lives and epochs are numbers of one region, and a new region (after a reboot, say) begins anew.
    pub fn fence(&self, life: u32, epoch: u32) -> Result<()> {
        let mut w = lock(&self.inner.writer);
        if (life, epoch) < w.fence {
            return Err(stale((life, epoch), w.fence));
        }
        w.fence = (life, epoch);
        Ok(())
    }
}

fn stale(by: (u32, u32), fence: (u32, u32)) -> ServiceError {
    ServiceError::stale(format!("life {} epoch {} has a successor: life {} epoch {}", by.0, by.1, fence.0, fence.1))
}

/// Opens the engine and reads its state.
fn load(dir: &dir::StoreDir, opts: &StoreOptions) -> Result<(Engine, Writer, Lsn)> {
    dir.create_engine(|path| {
        let engine = Engine::open(path, opts)?;
        let mut b = engine.db.batch();
        b.insert(&engine.state, state::ID, seal(state::ID, dir.id().as_bytes()));
        engine.commit(b, 64).and_then(|()| engine.sync()).map_err(Failure::into_error)
    })?;
    engine::inspect(&dir.engine_path())?;
    let engine = Engine::open(&dir.engine_path(), opts)?;
    let id = guarded("reading the store's state", || engine.state.get(state::ID))?;
    let (seq, last_lsn) = load_pair(&engine, state::HEAD)?;
    match id {
        Some(v) if unseal(state::ID, &v) == Some(dir.id().as_bytes()) => {}
        Some(_) => return Err(ServiceError::corrupt("the engine's files belong to another store")),
        None => return Err(ServiceError::corrupt("the engine's files lost the id of the store")),
    }
    let synced = dir.synced()?;
    if seq < synced {
        let what = format!("the store lost mutations that were synced: it ends at {seq}, synced were {synced}");
        return Err(ServiceError::corrupt(what));
    }
    let (horizon, _) = load_pair(&engine, state::HORIZON)?;
    let writer = Writer { seq, last_lsn, fence: (0, 0), reopened: None };
    Ok((engine, writer, horizon))
}

impl Inner {
    /// The engine, if it is open.
    fn engine(&self) -> Result<Arc<Engine>> {
        let guard = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        guard.clone().ok_or_else(|| ServiceError::new(libc::EIO, "the store is closed: it could not be opened anew"))
    }

    /// The engine for a read; opens it anew if it is closed and nobody writes.
    fn reader(&self) -> Result<Arc<Engine>> {
        self.engine().or_else(|e| {
            let Ok(mut w) = self.writer.try_lock() else { return Err(e) };
            self.reopen(&mut w)?;
            self.engine()
        })
    }

    /// Builds a batch and commits it, on an engine opened anew if the present one takes no writes. `build` tells the
    /// batch and about its bytes; it may run twice.
    fn commit(
        &self,
        w: &mut Writer,
        build: &mut dyn FnMut(&Engine) -> Result<(fjall::OwnedWriteBatch, u64)>,
    ) -> Result<()> {
        let mut retried = false;
        loop {
            let engine = match self.engine() {
                Ok(e) => e,
                Err(_) => {
                    self.reopen(w)?;
                    retried = true;
                    self.engine()?
                }
            };
            let (batch, bytes) = build(&engine)?;
            let Err(failure) = engine.commit(batch, bytes) else { return Ok(()) };
            drop(engine);
            // Refused for an earlier failure: its cause may be gone, so once more on an engine opened anew.
            let again = matches!(failure, Failure::Refused(_)) && !retried && !self.just_reopened(w);
            let e = self.failed(w, failure);
            if !again || self.engine().is_err() {
                return Err(e);
            }
            retried = true;
        }
    }

    fn just_reopened(&self, w: &Writer) -> bool {
        w.reopened.is_some_and(|t| t.elapsed() < REOPEN_INTERVAL)
    }

    /// After a failed write: opens the engine anew where it needs that. Answers the failure, by its cause if known.
    fn failed(&self, w: &mut Writer, failure: Failure) -> ServiceError {
        let mut e = match failure {
            Failure::Other(e) => return e,
            Failure::Refused(e) | Failure::Broke(e) => e,
        };
        if e.errno == libc::EIO && self.dir.is_full() {
            e = ServiceError::no_space("a background write of the store found no space left");
        }
        if !self.just_reopened(w) {
            if let Err(r) = self.reopen(w) {
                e.detail = format!("{}; opening the store anew: {}", e.detail, r.detail);
            }
        }
        e
    }

    /// Closes the engine and opens it again. Reads wait meanwhile.
    fn reopen(&self, w: &mut Writer) -> Result<()> {
        if self.just_reopened(w) {
            return Err(ServiceError::new(libc::EAGAIN, "the store is closed: the next attempt to open it is due"));
        }
        let mut slot = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        w.reopened = Some(Instant::now());
        if let Some(mut old) = slot.take() {
            let start = Instant::now();
            loop {
                match Arc::try_unwrap(old) {
                    Ok(e) => break drop(e),
                    Err(still) if start.elapsed() > DRAIN_LIMIT => {
                        *slot = Some(still);
                        return Err(ServiceError::new(libc::EBUSY, "reads still use the store"));
                    }
                    Err(still) => old = still,
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // What has gone is not made anew: an empty store would answer as if nothing had ever been written.
        self.dir.check()?;
        let (engine, fresh, _) = load(&self.dir, &self.opts)?;
        // A batch that failed may be whole in the journal after all; its numbers are then taken.
        w.seq = w.seq.max(fresh.seq);
        w.last_lsn = w.last_lsn.max(fresh.last_lsn);
        w.reopened = Some(Instant::now());
        *slot = Some(Arc::new(engine));
        Ok(())
    }
}

/// Runs what may write or fsync on a blocking thread.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f)
        .await
        .map_err(|e| ServiceError::new(libc::EIO, format!("a task of the store ended early: {e}")))
}

#[async_trait]
impl PageService for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn get_pages(&self, rel: RelTag, block: u32, count: u32, lsns: ReadLsn, out: &mut [u8]) -> Result<Lsn> {
        self.read_pages(rel, block, count, lsns, out)
    }

    async fn prefetch(&self, rel: RelTag, block: u32, count: u32) -> Result<()> {
        let store = self.clone();
        blocking(move || store.warm(rel, block, count)).await?
    }

    async fn rel_size(&self, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>> {
        self.size_of(rel, lsns)
    }

    async fn db_size(&self, db_oid: u32, lsns: ReadLsn) -> Result<u64> {
        let store = self.clone();
        blocking(move || store.size_of_db(db_oid, lsns)).await?
    }

    async fn read_slru(&self, kind: u32, segno: u32, _lsns: ReadLsn) -> Result<Vec<u8>> {
        self.slru(kind, segno)
    }

    async fn apply(&self, life: u32, epoch: u32, group: Arc<Vec<MutationRequest>>) -> Vec<Result<u64>> {
        let (store, n) = (self.clone(), group.len());
        match blocking(move || store.apply_group(life, epoch, &group)).await {
            Ok(results) => results,
            Err(e) => vec![Err(e); n],
        }
    }

    async fn sync(&self) -> Result<()> {
        let store = self.clone();
        blocking(move || Store::sync(&store)).await?
    }

    async fn fence(&self, life: u32, epoch: u32) -> Result<()> {
        let store = self.clone();
        blocking(move || Store::fence(&store, life, epoch)).await?
    }

    async fn forget(&self, history: u64) -> Result<u64> {
        let store = self.clone();
        let horizon = store.last_lsn().saturating_sub(history);
        let stats = blocking(move || store.gc(horizon)).await??;
        Ok(stats.pages + stats.metas)
    }
}
