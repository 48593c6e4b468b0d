//! Attach: checks everything that the creator wrote, once, and trusts its own copy from then on.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::files;
use super::mapping::Mapping;
use super::{Origin, Region};
use crate::error::{Error, Result};
use crate::handshake;
use crate::layout::{layout_hash, Geometry, Header, ABI_VERSION, FEATURES};
use crate::liveness::{open_file, reopen_file, LockFile};

/// What of a header survives the checks.
pub(super) struct Checked {
    pub(super) geometry: Geometry,
    pub(super) id: [u64; 2],
}

/// Checks a header against this build, this process and the `len` bytes that are really there; `lock_file` as in
/// [`Config::lock_file`].
pub(super) fn check(header: &Header, len: u64, lock_file: u64) -> Result<Checked> {
    let config = handshake::read(header)?;
    if config.abi_version != ABI_VERSION {
        return Err(Error::WrongAbi);
    }
    if config.layout_hash != layout_hash() {
        return Err(Error::WrongLayout);
    }
    if config.features & !FEATURES != 0 {
        return Err(Error::UnknownFeature);
    }
    let geometry = Geometry::check(&config)?;
    if geometry.total_len > len {
        return Err(Error::TooShort);
    }
    let here = files::time_namespace();
    if config.time_namespace != 0 && here != 0 && config.time_namespace != here {
        return Err(Error::ForeignClock);
    }
    if config.lock_file != lock_file {
        return Err(Error::WrongLockFile);
    }
    Ok(Checked { geometry, id: config.region_id })
}

impl Region {
    /// Attaches to the named region at `path`.
    pub fn attach(path: &Path) -> Result<Self> {
        Self::of_file(open_file(path, true)?, Some(path.to_path_buf()), true)
    }

    /// Attaches to the region in the file or memfd behind `fd`, which is opened once more and stays the caller's.
    pub fn attach_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        Self::of_file(reopen_file(fd, true)?, None, true)
    }

    /// Maps the named region at `path` for reading alone: for tools that show counters. Needs no right to write.
    ///
    /// The bytes it maps cannot be written: whoever means to write asks [`Region::is_read_only`] first.
    pub fn observe(path: &Path) -> Result<Self> {
        Self::of_file(open_file(path, false)?, Some(path.to_path_buf()), false)
    }

    /// Attaches to a region that [`Region::init_adopted`] made in the embedder's memory, mapped at any address. The
    /// lock file must be the very file that it was made with: `WrongLockFile` for another, ENOENT if it is gone.
    ///
    /// # Safety
    /// As for [`Region::init_adopted`], but for who else uses the bytes.
    pub unsafe fn attach_adopted(base: *mut u8, len: usize, lock_path: &Path) -> Result<Self> {
        // SAFETY: the caller's promise.
        let mapping = unsafe { Mapping::adopt(base, len)? };
        let locks = open_file(lock_path, true)?;
        Self::of_adopted(mapping, &locks)
    }

    /// The region in a file of ours.
    pub(super) fn of_file(file: File, path: Option<PathBuf>, writable: bool) -> Result<Self> {
        let len = file.metadata().map_err(|e| Error::from_io(&e))?.len();
        let mapping = Mapping::of_file(&file, len, writable)?;
        let checked = check(mapping.header(), mapping.len(), 0)?;
        let watch = LockFile::reopen_as(file.as_fd(), writable)?;
        Self::assemble(
            mapping,
            &checked,
            Origin { file: Some(file), path, watch, read_only: !writable, private: false },
        )
    }

    /// The region in the embedder's memory.
    pub(super) fn of_adopted(mapping: Mapping, locks: &File) -> Result<Self> {
        let checked = check(mapping.header(), mapping.len(), files::identity(locks)?)?;
        let watch = LockFile::reopen(locks.as_fd())?;
        Self::assemble(mapping, &checked, Origin { file: None, path: None, watch, read_only: false, private: false })
    }
}
