//! Creation: space, configuration, cells, and the magic last.

use std::os::fd::AsFd;
use std::path::Path;

use super::files::{self, Staged};
use super::mapping::Mapping;
use super::{attach, Options, Origin, Region};
use crate::error::{Error, Result};
use crate::handshake;
use crate::layout::{layout_hash, Cell, Config, Geometry, ABI_VERSION, FEATURES};
use crate::liveness::LockFile;

/// Rounds of "attach, else create" before a name that comes and goes is given up.
const MAX_ROUNDS: u32 = 16;

/// Makes a region of zeroed bytes that nobody else uses yet.
fn format(mapping: &Mapping, g: &Geometry, lock_file: u64) -> Result<()> {
    let [.., cells, _] = g.offsets;
    let cells = mapping.at::<Cell>(cells, u64::from(g.capacity))?;
    let config = Config {
        abi_version: ABI_VERSION,
        slots: g.slots,
        layout_hash: layout_hash(),
        features: FEATURES,
        total_len: g.total_len,
        region_id: files::random()?,
        capacity: g.capacity,
        bounce_per_slot: g.bounce_per_slot,
        block_size: g.block_size,
        time_namespace: files::time_namespace(),
        offsets: g.offsets,
        lock_file,
    };
    // SAFETY: `at` proved that the cells lie inside the mapping, aligned; a Cell is an atomic and any bytes are one.
    handshake::publish(mapping.header(), unsafe { cells.as_ref() }, config);
    Ok(())
}

impl Region {
    /// A region in a memfd of fixed size. It lives as long as the last descriptor or mapping of it; hand
    /// [`Region::fd`] to others.
    pub fn create_memfd(options: &Options) -> Result<Self> {
        let g = options.geometry()?;
        let file = files::sealed_memfd(g.total_len)?;
        format(&Mapping::of_file(&file, g.total_len, true)?, &g, 0)?;
        Self::of_file(file, None, true)
    }

    /// A region for the threads of this process alone: its futexes are private, and no other process can attach.
    ///
    /// It lies in a memfd that is handed to nobody, since that gives both preallocated bytes and a file for the locks.
    pub fn create_private(options: &Options) -> Result<Self> {
        let g = options.geometry()?;
        let file = files::sealed_memfd(g.total_len)?;
        let mapping = Mapping::of_file(&file, g.total_len, true)?;
        format(&mapping, &g, 0)?;
        let checked = attach::check(mapping.header(), mapping.len(), 0)?;
        let watch = LockFile::reopen(file.as_fd())?;
        Self::assemble(mapping, &checked, Origin { file: None, path: None, watch, read_only: false, private: true })
    }

    /// The region named `path`, on any filesystem, and whether it was made by this call: if it exists it is attached.
    ///
    /// Of several who call at once one makes it and the others attach to that one; nobody sees it half made, and a
    /// death in the middle leaves no name behind. Mode 0600. `Exists` if the region that is there has other sizes; a
    /// file that is no region is refused as by [`Region::attach`]. A full filesystem is `Os(ENOSPC)`.
    pub fn create_named(path: &Path, options: &Options) -> Result<(Self, bool)> {
        let g = options.geometry()?;
        for _ in 0..MAX_ROUNDS {
            match Self::attach(path) {
                Ok(found) if found.geometry == g => return Ok((found, false)),
                Ok(_) => return Err(Error::Exists),
                Err(Error::Os(libc::ENOENT)) => {}
                Err(e) => return Err(e),
            }
            let staged = Staged::beside(path)?;
            files::allocate(&staged.file, g.total_len)?;
            format(&Mapping::of_file(&staged.file, g.total_len, true)?, &g, 0)?;
            match staged.link(path) {
                Ok(()) => return Ok((Self::of_file(staged.file, Some(path.to_path_buf()), true)?, true)),
                Err(Error::Os(libc::EEXIST)) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Exists)
    }

    /// Makes a region in the embedder's memory: the first [`Region::size`] bytes are zeroed and initialised. `base`
    /// must be aligned to 128 bytes. The lock file is made, mode 0600, if it is missing, and must stay as long as the
    /// region is used: every process that attaches names the same file.
    ///
    /// # Safety
    /// `len` bytes from `base` on are mapped readable and writable, shared with whoever attaches, for as long as the
    /// Region lives; nobody else uses them during this call, and nobody writes them but through a Region afterwards.
    pub unsafe fn init_adopted(base: *mut u8, len: usize, options: &Options, lock_path: &Path) -> Result<Self> {
        let g = options.geometry()?;
        if (len as u64) < g.total_len {
            return Err(Error::BadMemory);
        }
        // SAFETY: the caller's promise.
        let mapping = unsafe { Mapping::adopt(base, len)? };
        let locks = files::lock_file(lock_path)?;
        let identity = files::identity(&locks)?;
        let bytes = mapping.at::<u8>(0, g.total_len)?;
        // SAFETY: in bounds by `at`; nobody else uses the bytes, by the caller's promise.
        unsafe { core::ptr::write_bytes(bytes.cast::<u8>().as_ptr(), 0, bytes.len()) };
        format(&mapping, &g, identity)?;
        Self::of_adopted(mapping, &locks)
    }
}
