//! The embedded engine (fjall): opening it, its errors by name, and waits that end.
//!
//! What the engine does, found in its source and by the tests of this crate:
//!
//! - A batch is in the operating system's page cache when `commit` returns (`PersistMode::Buffer`), so it survives a kill
//!   of this process; it survives a loss of power after `persist(SyncAll)`.
//! - A failed write of its journal, or a failed flush or compaction, *poisons* it: reads go on, writes never do. The
//!   store then opens it anew (`Store::reopen`).
//! - A commit waits without end while flushes or compactions are behind, also when poisoned. So memtables are rotated by
//!   [`Engine::make_room`] alone, which stays below those limits and gives up when poisoned.
//! - Damaged files can make it panic; [`guarded`] turns that into an error.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError, PersistMode};
use xxhash_rust::xxh3::xxh3_128;

use super::StoreOptions;
use crate::service::{Result, ServiceError};

/// Sealed memtables at which no further one is made; the engine halts writers at 4.
const MAX_SEALED: usize = 2;
/// Tables of level 0 at which no memtable is sealed; the engine slows writers at 20 and halts them at 30.
const MAX_L0: usize = 14;
/// How long a write may wait for flushes and compactions that make progress.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// An open database and its keyspaces.
pub struct Engine {
    pub db: Database,
    /// Page versions.
    pub pages: Keyspace,
    /// Metadata versions.
    pub metas: Keyspace,
    /// SLRU segments.
    pub slru: Keyspace,
    /// Sequence number, horizon, store id.
    pub state: Keyspace,
    memtable_bytes: u64,
    /// Bytes committed since memtables were last sealed.
    unsealed: AtomicU64,
}

/// What an engine call ended in.
#[derive(Debug)]
pub enum Failure {
    /// The engine takes no writes, by an earlier failure, and wrote nothing: open it anew.
    Refused(ServiceError),
    /// The engine failed half-way: open it anew; the batch may be there afterwards, whole, or not at all.
    Broke(ServiceError),
    /// Anything else.
    Other(ServiceError),
}

impl Failure {
    pub fn into_error(self) -> ServiceError {
        match self {
            Self::Refused(e) | Self::Broke(e) | Self::Other(e) => e,
        }
    }
}

/// Names an error of the engine.
pub fn name_error(e: &fjall::Error, doing: &str) -> ServiceError {
    match e {
        fjall::Error::Io(io) | fjall::Error::Storage(LsmError::Io(io)) => match io.kind() {
            std::io::ErrorKind::StorageFull => ServiceError::no_space(format!("{doing}: no space left for the store")),
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
                ServiceError::corrupt(format!("{doing}: a file of the store is too short or damaged: {io}"))
            }
            // A file that the store's own records name is gone; or its record of another one is.
            std::io::ErrorKind::NotFound | std::io::ErrorKind::AlreadyExists => {
                ServiceError::corrupt(format!("{doing}: a file of the store is missing"))
            }
            _ => ServiceError::io_at(io, doing),
        },
        fjall::Error::Locked => {
            ServiceError::new(libc::EBUSY, format!("{doing}: the store is in use by another process"))
        }
        fjall::Error::Poisoned => {
            ServiceError::new(libc::EIO, format!("{doing}: an earlier write of the store failed"))
        }
        fjall::Error::InvalidVersion(v) => ServiceError::new(
            libc::EPROTONOSUPPORT,
            format!("{doing}: the engine's files have another format version ({v:?})"),
        ),
        other => ServiceError::corrupt(format!("{doing}: the store is damaged: {other:?}")),
    }
}

/// Runs an engine call; its errors get names, and a panic over damaged files becomes an error.
pub fn guarded<T>(doing: &str, f: impl FnOnce() -> fjall::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(r) => r.map_err(|e| name_error(&e, doing)),
        Err(_) => Err(ServiceError::corrupt(format!("{doing}: the storage engine panicked over its files"))),
    }
}

fn page_options() -> KeyspaceCreateOptions {
    // Pages lie in value files of their own, so that compaction moves keys, not 8 KiB values.
    KeyspaceCreateOptions::default()
        .max_memtable_size(u64::MAX)
        .with_kv_separation(Some(KvSeparationOptions::default().compression(CompressionType::Lz4)))
}

fn small_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(u64::MAX)
}

/// Directories of keyspaces: the engine's own and the four of the store.
const KEYSPACES: u32 = 5;

/// Checks the list of files of each keyspace. The engine takes a keyspace without one for a new one and starts it empty,
/// and does not check the list's checksum, so that files could be lost in silence.
///
/// `current` is the list's version (u64), its checksum (u128, XXH3) and the kind of checksum (0), little-endian; the list
/// is `v<version>`.
pub fn inspect(path: &Path) -> Result<()> {
    for n in 0..KEYSPACES {
        let dir = path.join(format!("keyspaces/{n}"));
        let damaged = || ServiceError::corrupt(format!("the list of files in {} is damaged or lost", dir.display()));
        let read = |name: &str| match std::fs::read(dir.join(name)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(damaged()),
            r => r.map_err(|e| ServiceError::io_at(&e, dir.display())),
        };
        let current: [u8; 25] = read("current")?.try_into().map_err(|_| damaged())?;
        let (version, sum) = (current.first_chunk::<8>(), current[8..].first_chunk::<16>());
        let list = read(&format!("v{}", version.map_or(0, |v| u64::from_le_bytes(*v))))?;
        if current[24] != 0 || sum.map(|s| u128::from_le_bytes(*s)) != Some(xxh3_128(&list)) {
            return Err(damaged());
        }
    }
    Ok(())
}

impl Engine {
    /// Opens the database in `path`, creating it if there is none.
    pub fn open(path: &Path, opts: &StoreOptions) -> Result<Self> {
        let doing = "opening the store";
        guarded(doing, || {
            let db = Database::builder(path)
                .cache_size(opts.cache_bytes)
                .journal_compression(CompressionType::None)
                .worker_threads(opts.worker_threads.max(1))
                .open()?;
            Ok(Self {
                pages: db.keyspace("pages", page_options)?,
                metas: db.keyspace("metas", small_options)?,
                slru: db.keyspace("slru", small_options)?,
                state: db.keyspace("state", small_options)?,
                unsealed: AtomicU64::new(db.write_buffer_size()),
                db,
                memtable_bytes: opts.memtable_bytes.max(1 << 20),
            })
        })
    }

    /// Whether writes are refused for good.
    fn poisoned(&self) -> bool {
        matches!(self.db.persist(PersistMode::Buffer), Err(fjall::Error::Poisoned))
    }

    /// Commits `batch`: afterwards it survives the death of this process.
    /// `bytes` is about its size.
    pub fn commit(&self, batch: fjall::OwnedWriteBatch, bytes: u64) -> std::result::Result<(), Failure> {
        self.make_room()?;
        // Relaxed: only the one writer commits.
        self.unsealed.fetch_add(bytes, Ordering::Relaxed);
        let batch = batch.durability(Some(PersistMode::Buffer));
        match catch_unwind(AssertUnwindSafe(|| batch.commit())) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fjall::Error::Poisoned)) => Err(Failure::Refused(name_error(&fjall::Error::Poisoned, "committing"))),
            // The journal may end in half a batch: only opening it anew mends that.
            Ok(Err(e)) => Err(Failure::Broke(name_error(&e, "committing"))),
            Err(_) => Err(Failure::Broke(ServiceError::corrupt("committing: the storage engine panicked"))),
        }
    }

    /// Makes all that was committed survive a loss of power.
    pub fn sync(&self) -> std::result::Result<(), Failure> {
        guarded("syncing", || self.db.persist(PersistMode::SyncAll)).map_err(Failure::Broke)
    }

    /// Seals full memtables; waits, within limits, while the engine is behind.
    fn make_room(&self) -> std::result::Result<(), Failure> {
        let start = Instant::now();
        while self.unsealed.load(Ordering::Relaxed) > self.memtable_bytes {
            let behind = [&self.pages, &self.metas, &self.slru, &self.state]
                .iter()
                .any(|k| k.sealed_memtable_count() >= MAX_SEALED || k.l0_table_count() >= MAX_L0);
            if !behind {
                return self.rotate();
            }
            if self.poisoned() {
                let e = ServiceError::new(libc::EIO, "a background write of the store failed");
                return Err(Failure::Refused(e));
            }
            // Up to four times the size costs memory only.
            if self.db.write_buffer_size() < self.memtable_bytes.saturating_mul(4) {
                return Ok(());
            }
            if start.elapsed() > STALL_LIMIT {
                let e = ServiceError::new(libc::EAGAIN, "the store's flushes and compactions are behind");
                return Err(Failure::Other(e));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Seals every memtable that has something, so that old journals can go.
    pub fn rotate(&self) -> std::result::Result<(), Failure> {
        self.unsealed.store(0, Ordering::Relaxed);
        for k in [&self.pages, &self.metas, &self.slru, &self.state] {
            guarded("sealing a memtable", || k.rotate_memtable()).map_err(Failure::Refused)?;
        }
        Ok(())
    }

    /// Gives the space of removed page versions back to the file system: merges keys, and rewrites value files that are
    /// mostly removed; the old files go when memtables are next sealed. Takes time; reads and writes go on beside it.
    pub fn reclaim(&self) -> Result<()> {
        let start = Instant::now();
        while self.pages.sealed_memtable_count() > 0 && start.elapsed() < STALL_LIMIT && !self.poisoned() {
            std::thread::sleep(Duration::from_millis(5));
        }
        guarded("reclaiming space", || self.pages.major_compact())
    }
}
