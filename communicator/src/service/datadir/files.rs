//! From a relation fork to its segment files, and a bounded set of open files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use shmuring::request::RelTag;

use super::SEGMENT_BLOCKS;
use crate::service::error::Rel;
use crate::service::{Result, ServiceError, PAGE_SIZE};

/// The default tablespace: `base/<database>`.
pub const DEFAULT_SPACE: u32 = 1663;
/// The tablespace of shared relations: `global`.
pub const GLOBAL_SPACE: u32 = 1664;

/// What forks append to the file's name.
pub const FORKS: [&str; 4] = ["", "_fsm", "_vm", "_init"];

type Key = (RelTag, u32);

/// Open files by fork and segment, and when each was last used.
struct Cache {
    open: HashMap<Key, (Arc<File>, u64)>,
    clock: u64,
}

pub struct Files {
    root: PathBuf,
    version_dir: String,
    max_open: usize,
    cache: Mutex<Cache>,
}

/// Opens a file for reading: no symbolic link, and nothing that would block.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::from_raw_os_error(libc::EISDIR))
    }
}

impl Files {
    pub fn new(root: &Path, version_dir: String, max_open: usize) -> Self {
        let cache = Mutex::new(Cache { open: HashMap::new(), clock: 0 });
        Self { root: root.to_path_buf(), version_dir, max_open, cache }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn version_dir(&self) -> &str {
        &self.version_dir
    }

    /// The directory of a database in a tablespace.
    fn dir(&self, rel: RelTag) -> Result<String> {
        match (rel.spc_oid, rel.db_oid) {
            (GLOBAL_SPACE, 0) => Ok("global".to_owned()),
            (DEFAULT_SPACE, db) if db > 0 => Ok(format!("base/{db}")),
            (spc, db) if spc > 0 && spc != GLOBAL_SPACE && db > 0 => {
                Ok(format!("pg_tblspc/{spc}/{}/{db}", self.version_dir))
            }
            _ => Err(ServiceError::missing_relation(rel)),
        }
    }

    /// The file of a segment, relative to the data directory.
    fn name(&self, rel: RelTag, segment: u32) -> Result<String> {
        let fork = FORKS.get(usize::from(rel.fork)).ok_or_else(|| ServiceError::missing_relation(rel))?;
        let base = format!("{}/{}{fork}", self.dir(rel)?, rel.rel_number);
        Ok(if segment == 0 { base } else { format!("{base}.{segment}") })
    }

    /// The open file of a segment and its length; `None` if there is no such file.
    fn segment(&self, rel: RelTag, segment: u32) -> Result<Option<(Arc<File>, u64)>> {
        let key = (rel, segment);
        let at = |e: &std::io::Error| ServiceError::io_at(e, format_args!("segment {segment} of {}", Rel(rel)));
        let cached = {
            let mut c = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            c.clock += 1;
            let now = c.clock;
            c.open.get_mut(&key).map(|(f, used)| {
                *used = now;
                Arc::clone(f)
            })
        };
        if let Some(f) = cached {
            let m = f.metadata().map_err(|e| at(&e))?;
            // A file that was removed may have a successor of the same name.
            if m.nlink() > 0 {
                return Ok(Some((f, m.len())));
            }
        }
        let file = match open(&self.root.join(self.name(rel, segment)?)) {
            Ok(f) => Arc::new(f),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                self.cache.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&key);
                return Ok(None);
            }
            Err(e) => return Err(at(&e)),
        };
        let len = file.metadata().map_err(|e| at(&e))?.len();
        self.keep(key, &file);
        Ok(Some((file, len)))
    }

    fn keep(&self, key: Key, file: &Arc<File>) {
        let mut c = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if c.open.len() >= self.max_open && !c.open.contains_key(&key) {
            // Linear, but next to the open() that led here.
            if let Some(oldest) = c.open.iter().min_by_key(|(_, (_, used))| *used).map(|(k, _)| *k) {
                c.open.remove(&oldest);
            }
        }
        let now = c.clock;
        c.open.insert(key, (Arc::clone(file), now));
    }

    /// Files that are open.
    #[cfg(test)]
    pub fn open_files(&self) -> usize {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).open.len()
    }

    /// Whole blocks of a segment; `None` if there is no such file.
    fn segment_blocks(&self, rel: RelTag, segment: u32) -> Result<Option<u32>> {
        let Some((_, len)) = self.segment(rel, segment)? else { return Ok(None) };
        match u32::try_from(len / PAGE_SIZE as u64) {
            Ok(n) if n <= SEGMENT_BLOCKS => Ok(Some(n)),
            _ => {
                let what = format!("segment {segment} of relation {} has {len} bytes, over 1 GiB", Rel(rel));
                Err(ServiceError::corrupt(what))
            }
        }
    }

    /// Blocks of a fork: up to the first segment that is not full, as PostgreSQL counts; `None` if it is missing.
    pub fn size(&self, rel: RelTag) -> Result<Option<u32>> {
        let Some(first) = self.segment_blocks(rel, 0)? else { return Ok(None) };
        let (mut total, mut last, mut segment) = (first, first, 0);
        while last == SEGMENT_BLOCKS {
            segment += 1;
            last = self.segment_blocks(rel, segment)?.unwrap_or(0);
            total = total
                .checked_add(last)
                .ok_or_else(|| ServiceError::corrupt(format!("relation {} has more than 2^32 blocks", Rel(rel))))?;
        }
        Ok(Some(total))
    }

    fn past_end(&self, rel: RelTag, block: u32) -> ServiceError {
        match self.size(rel) {
            Ok(Some(n)) => ServiceError::past_end(rel, block.max(n), n),
            Ok(None) => ServiceError::missing_relation(rel),
            Err(e) => e,
        }
    }

    /// Fills `out` with blocks from `block` on; they lie in one segment.
    pub fn read(&self, rel: RelTag, block: u32, out: &mut [u8]) -> Result<()> {
        let segment = block / SEGMENT_BLOCKS;
        // A segment counts only behind full ones.
        for before in 0..segment {
            if self.segment_blocks(rel, before)? != Some(SEGMENT_BLOCKS) {
                return Err(self.past_end(rel, block));
            }
        }
        let Some((file, _)) = self.segment(rel, segment)? else { return Err(self.past_end(rel, block)) };
        let start = u64::from(block % SEGMENT_BLOCKS) * PAGE_SIZE as u64;
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|r| !r.is_empty()) {
            match file.read_at(rest, start + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    let at = block + (done / PAGE_SIZE) as u32;
                    return Err(ServiceError::io_at(&e, format_args!("block {at} of {}", Rel(rel))).at_block(at));
                }
            }
        }
        let at = block + (done / PAGE_SIZE) as u32;
        if done == out.len() {
            Ok(())
        } else if done % PAGE_SIZE == 0 {
            Err(self.past_end(rel, at))
        } else {
            let what = format!("block {at} of relation {} has only {} bytes", Rel(rel), done % PAGE_SIZE);
            Err(ServiceError::corrupt(what).at_block(at))
        }
    }

    /// A whole small file, `name` relative to the data directory.
    pub fn whole(&self, name: &str, max: u64) -> Result<Vec<u8>> {
        let at = |e: std::io::Error| ServiceError::io_at(&e, name);
        let mut bytes = Vec::new();
        open(&self.root.join(name)).map_err(at)?.take(max + 1).read_to_end(&mut bytes).map_err(at)?;
        if bytes.len() as u64 > max {
            return Err(ServiceError::corrupt(format!("{name} is longer than {max} bytes")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_bounded_and_removed_ones_are_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("base/5")).unwrap();
        let files = Files::new(dir.path(), "PG_15_1".into(), 3);
        let rel = |n| RelTag { spc_oid: DEFAULT_SPACE, db_oid: 5, rel_number: n, fork: 0 };
        let path = |n| dir.path().join(format!("base/5/{n}"));
        for n in 1..8u32 {
            std::fs::write(path(n), vec![n as u8; PAGE_SIZE]).unwrap();
            assert_eq!(files.size(rel(n)), Ok(Some(1)));
        }
        assert_eq!(files.open_files(), 3);
        std::fs::remove_file(path(7)).unwrap();
        assert_eq!(files.size(rel(7)), Ok(None));
        std::fs::write(path(7), vec![9; 2 * PAGE_SIZE]).unwrap();
        assert_eq!(files.size(rel(7)), Ok(Some(2)));
        std::os::unix::fs::symlink(path(1), path(9)).unwrap();
        assert_eq!(files.size(rel(9)).map_err(|e| e.errno), Err(libc::ELOOP));
    }
}
