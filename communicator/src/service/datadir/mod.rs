//! The pages of a PostgreSQL data directory, read-only.
//!
//! | file | role |
//! |---|---|
//! | `control` | `PG_VERSION` and `global/pg_control` |
//! | `condition` | whether its server runs or crashed |
//! | `files` | from a relation fork to its segment files; open files |
//! | `checksum` | checksums of data pages |
//! | `list` | every relation fork of the directory |
//!
//! The directory has one version of each page: reads at an LSN are refused. What is read under a running server is
//! whatever is in the files, and a page may be torn; a stopped server's files are as of its last checkpoint. Path pieces
//! are made of numbers alone, and the last one is never followed if it is a symbolic link.

pub mod checksum;
mod condition;
mod control;
mod files;
mod list;

pub use condition::Condition;
pub use control::{data_checksums_enabled, ControlFile};
pub use list::list_relations;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use shmuring::request::{Lsn, RelTag};

use self::files::Files;
use super::{check_read, MutationRequest, PageService, ReadLsn, Result, ServiceError, PAGE_SIZE};

/// Blocks of a full segment file: 1 GiB.
pub const SEGMENT_BLOCKS: u32 = 131_072;
/// Bytes of the largest SLRU segment: 32 pages.
const SLRU_MAX: u64 = 32 * PAGE_SIZE as u64;

/// How a data directory is read.
#[derive(Clone, Debug)]
pub struct DataDirOptions {
    /// Refuse pages with a wrong checksum (EBADMSG), where the directory has checksums.
    pub verify_checksums: bool,
    /// Files kept open at most.
    pub max_open_files: usize,
}

impl Default for DataDirOptions {
    fn default() -> Self {
        Self { verify_checksums: true, max_open_files: 256 }
    }
}

/// A PostgreSQL data directory, read-only.
#[derive(Clone)]
pub struct DataDir {
    files: Arc<Files>,
    verify: bool,
    as_of: Lsn,
}

impl DataDir {
    /// Opens the data directory in `path`.
    ///
    /// # Errors
    /// ENOENT: no data directory; EUCLEAN: its control file is damaged; EPROTONOSUPPORT: pages or segments of another
    /// size, or a version that is not known.
    pub fn open(path: &Path, opts: &DataDirOptions) -> Result<Self> {
        let control = ControlFile::read(path)?;
        let files = Files::new(path, control.version_dir(path)?, opts.max_open_files.max(1));
        let verify = opts.verify_checksums && control.data_checksums;
        Ok(Self { files: Arc::new(files), verify, as_of: control.redo })
    }

    /// Every relation fork, with its blocks; see [`list_relations`].
    pub fn relations(&self) -> Result<Vec<(RelTag, u32)>> {
        list::relations(&self.files)
    }

    /// Fills `out` with `count` blocks from `block` on.
    pub fn read_pages(&self, rel: RelTag, block: u32, count: u32, out: &mut [u8]) -> Result<()> {
        check_read(rel, block, count, out)?;
        let (mut at, mut rest) = (block, out);
        while !rest.is_empty() {
            // What lies in one segment is one read.
            let in_segment = (SEGMENT_BLOCKS - at % SEGMENT_BLOCKS) as usize * PAGE_SIZE;
            let (part, later) = rest.split_at_mut(in_segment.min(rest.len()));
            self.files.read(rel, at, part)?;
            at += (part.len() / PAGE_SIZE) as u32;
            rest = later;
            if self.verify {
                let first = at - (part.len() / PAGE_SIZE) as u32;
                for (page, b) in part.chunks_exact(PAGE_SIZE).zip(first..) {
                    checksum::verify(page, b).map_err(|m| m.of(rel))?;
                }
            }
        }
        Ok(())
    }

    fn refuse_past(lsns: ReadLsn) -> Result<()> {
        match lsns.request_lsn {
            None => Ok(()),
            Some(_) => Err(ServiceError::unsupported("a read at an LSN")),
        }
    }
}

#[async_trait]
impl PageService for DataDir {
    fn name(&self) -> &'static str {
        "datadir"
    }

    /// Answers the redo LSN of the last checkpoint before the directory was opened: the pages are no older.
    async fn get_pages(&self, rel: RelTag, block: u32, count: u32, lsns: ReadLsn, out: &mut [u8]) -> Result<Lsn> {
        Self::refuse_past(lsns)?;
        self.read_pages(rel, block, count, out)?;
        Ok(self.as_of)
    }

    async fn prefetch(&self, rel: RelTag, block: u32, count: u32) -> Result<()> {
        let files = Arc::clone(&self.files);
        let read = move || {
            let mut page = [0; PAGE_SIZE];
            // Blocks that are not there are no error of a prefetch.
            let _ = (block..block.saturating_add(count.min(1024))).try_for_each(|b| files.read(rel, b, &mut page));
        };
        tokio::task::spawn_blocking(read).await.map_err(|e| ServiceError::new(libc::EIO, e.to_string()))
    }

    async fn rel_size(&self, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>> {
        Self::refuse_past(lsns)?;
        self.files.size(rel)
    }

    async fn db_size(&self, db_oid: u32, lsns: ReadLsn) -> Result<u64> {
        Self::refuse_past(lsns)?;
        let files = Arc::clone(&self.files);
        let sum = move || list::db_size(&files, db_oid);
        tokio::task::spawn_blocking(sum).await.map_err(|e| ServiceError::new(libc::EIO, e.to_string()))?
    }

    async fn read_slru(&self, kind: u32, segno: u32, lsns: ReadLsn) -> Result<Vec<u8>> {
        Self::refuse_past(lsns)?;
        let dir = match kind {
            0 => "pg_xact",
            1 => "pg_multixact/members",
            2 => "pg_multixact/offsets",
            _ => return Err(ServiceError::invalid(format!("SLRU kind {kind}"))),
        };
        self.files.whole(&format!("{dir}/{segno:04X}"), SLRU_MAX)
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
