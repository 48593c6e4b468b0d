//! A region in this process: made or attached, checked, and taken apart into its parts.
//!
//! # What
//! `mapping` the bytes, `files` what carries them, `create` and `attach` the two ways in. Slow paths all: they allocate
//! and make system calls. What protocol code needs afterwards is [`Region::parts`], pointers computed at attach.
//!
//! # Life cycle (R17)
//! - A *named* region lives until [`Region::unlink`] takes its name away, across crashes of everyone. Mappings outlive
//!   the name: who is attached stays attached to the old region, while the name may already mean a new one.
//! - A *memfd* lives until the last descriptor and mapping of it are gone.
//! - *Adopted* memory is the embedder's; it is never freed here.
//! - A *private* region ends with its last handle.
//!
//! A last detach destroys nothing: a successor must find the requests that it left. It needs the /proc filesystem.
//! A region file truncated under its users, which only their own user can do, ends them with SIGBUS.
//!
//! # Handles and processes
//! A handle belongs to the process that made it: after a fork the child attaches anew. The mapping itself survives a
//! fork (PostgreSQL forks its backends, so MADV_DONTFORK would tear adopted memory out of their hands); the refusal is
//! [`Region::check_process`], asked on slow paths, and the locks refuse by themselves.
//!
//! # Clocks
//! Deadlines in a region are CLOCK_MONOTONIC, which differs between time namespaces. The creator writes down the inode
//! of its namespace, and an attacher in another one is refused. (The clocks themselves do not tell: CLOCK_BOOTTIME
//! minus CLOCK_MONOTONIC grows with every suspend, and a namespace may shift both alike.) The kernel gives the number
//! of a dead namespace out again, and the initial one has the same number after every boot; deadlines of such dead
//! processes do no harm, since a new life settles their slots whatever their deadlines say (R1).
//!
//! # Invariants
//! Offsets come from sizes that [`Geometry::check`] computed anew, never out of the region. RG_1: `handshake`.
#![allow(unsafe_code)]

mod attach;
mod create;
mod files;
mod mapping;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::buffers::{Pool, Pools};
use crate::error::{Error, Result};
use crate::layout::{Cell, Geometry, Header, OwnerStats, RoleStats, SizeSet, Slot, WrittenBucket, DEFAULT_BLOCK_SIZE};
use crate::liveness::{Liveness, LockFile};
use crate::parts::Parts;
use crate::sync::AtomicU64;
use mapping::Mapping;

/// Buckets of the last-written table of a region for a server, unless it says otherwise: 8 MiB.
pub const DEFAULT_WRITTEN_BUCKETS: u32 = (8 << 20) / size_of::<WrittenBucket>() as u32;
/// Relation sizes of such a region.
pub const DEFAULT_REL_SIZES: u32 = 4096;

/// Sizes of a region to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Request slots, of all backends together.
    pub slots: u32,
    /// Bounce buffers of one block for each slot; 0 where every request uses registered pools.
    pub bounce_per_slot: u32,
    /// Bytes of a block: a power of two from 512 to 65536.
    pub block_size: u32,
    /// Buckets of the last-written table, 64 bytes each; 0: none, so that every write counts for every page
    /// ([`crate::lsn::written`]). At most 2^26.
    pub written_buckets: u32,
    /// Relation sizes that the region has room for, 32 bytes each; 0: none, so that every size is asked for
    /// ([`crate::lsn::rel_size`]). At most 2^24.
    pub rel_sizes: u32,
}

impl Options {
    /// So many slots, with 4 bounce buffers of 8192 bytes each, and no tables.
    #[must_use]
    pub const fn new(slots: u32) -> Self {
        Self { slots, bounce_per_slot: 4, block_size: DEFAULT_BLOCK_SIZE, written_buckets: 0, rel_sizes: 0 }
    }

    fn geometry(&self) -> Result<Geometry> {
        let g = Geometry::new(self.slots, self.bounce_per_slot, self.block_size)?;
        let g = g.with_tables(self.written_buckets, self.rel_sizes)?;
        bounce_blocks(&g)?;
        Ok(g)
    }
}

/// Blocks of the bounce pool; `BadGeometry` if requests have no numbers for so many.
fn bounce_blocks(g: &Geometry) -> Result<u32> {
    g.slots.checked_mul(g.bounce_per_slot).ok_or(Error::BadGeometry)
}

/// Where a region came from: what a handle keeps besides the bytes.
struct Origin {
    file: Option<File>,
    path: Option<PathBuf>,
    watch: LockFile,
    read_only: bool,
    private: bool,
}

/// Addresses of the parts in the mapping.
#[derive(Debug)]
struct Views {
    role_stats: NonNull<RoleStats>,
    pending: NonNull<[AtomicU64]>,
    owner_stats: NonNull<[OwnerStats]>,
    slots: NonNull<[Slot]>,
    cells: NonNull<[Cell]>,
    written: NonNull<[WrittenBucket]>,
    sizes: NonNull<[SizeSet]>,
}

/// A handle of a region: its mapping, this process's pools, and the way to its locks.
///
/// Threads may share it. What it hands out carries its own rules: slots by [`crate::layout::Slot::word`], the role and
/// the slot ranges by locks.
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
    geometry: Geometry,
    views: Views,
    pools: Pools,
    id: [u64; 2],
    /// The region file, if others may attach through it.
    file: Option<File>,
    path: Option<PathBuf>,
    /// A description that never holds a lock, and so sees everybody's.
    watch: LockFile,
    pid: u32,
    read_only: bool,
    private: bool,
}

// SAFETY: the pointers lead into a mapping that the Region owns (or that its adopter promised to keep), at the same
// address for all threads; what lies there is atomics, and cells whose use the slot word governs (I1).
unsafe impl Send for Region {}
// SAFETY: as above; a `&Region` gives shared references to those types only, which are Sync.
unsafe impl Sync for Region {}

impl Region {
    /// Bytes that a region of these sizes takes.
    pub fn size(options: &Options) -> Result<u64> {
        Ok(options.geometry()?.total_len)
    }

    /// Removes the name of a region. Who is attached stays attached; the bytes go with the last of them.
    pub fn unlink(path: &Path) -> Result<()> {
        std::fs::remove_file(path).map_err(|e| Error::from_io(&e))
    }

    fn assemble(mapping: Mapping, checked: &attach::Checked, origin: Origin) -> Result<Self> {
        let g = checked.geometry;
        let n = u64::from(g.slots);
        let [role_stats, pending, owner_stats, slots, cells, bounce] = g.offsets;
        let [written, sizes] = g.table_offsets;
        let views = Views {
            role_stats: mapping.at::<RoleStats>(role_stats, 1)?.cast(),
            pending: mapping.at(pending, u64::from(g.pending_words))?,
            owner_stats: mapping.at(owner_stats, n)?,
            slots: mapping.at(slots, n)?,
            cells: mapping.at(cells, u64::from(g.capacity))?,
            written: mapping.at(written, u64::from(g.written_buckets))?,
            sizes: mapping.at(sizes, u64::from(g.size_sets))?,
        };
        let blocks = bounce_blocks(&g)?;
        let block = g.block_size as usize;
        let bytes = mapping.at::<u8>(bounce, u64::from(blocks) * u64::from(g.block_size))?;
        let pool = if blocks == 0 || origin.read_only {
            None
        } else {
            // SAFETY: `at` proved that the range lies in the mapping, which is writable and lives as long as the pool.
            Some(unsafe { Pool::new(bytes.cast::<u8>().as_ptr(), block, blocks, block)? })
        };
        let Origin { file, path, watch, read_only, private } = origin;
        let pid = std::process::id();
        let pools = Pools::new(pool);
        Ok(Self { mapping, geometry: g, views, pools, id: checked.id, file, path, watch, pid, read_only, private })
    }

    /// The parts, for protocol code. A few loads.
    #[inline]
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        let v = &self.views;
        // SAFETY: `assemble` made every view lie inside the mapping, aligned, and the mapping lives as long as self;
        // the types are atomics and cells, for which any bytes are a value and which others may change at any time.
        let (role_stats, pending, owner_stats, slots, cells) = unsafe {
            (v.role_stats.as_ref(), v.pending.as_ref(), v.owner_stats.as_ref(), v.slots.as_ref(), v.cells.as_ref())
        };
        // SAFETY: as above.
        let (written, sizes) = unsafe { (v.written.as_ref(), v.sizes.as_ref()) };
        Parts {
            header: self.header(),
            role_stats,
            pending,
            owner_stats,
            slots,
            cells,
            written,
            sizes,
            pools: &self.pools,
            geometry: &self.geometry,
            private: self.private,
        }
    }

    fn header(&self) -> &Header {
        self.mapping.header()
    }

    /// Registers buffer pool `id` (1 to 15) of this process: `count` blocks, `stride` bytes apart. Every process
    /// registers for itself, wherever it has mapped them; stride and count must be what the first one said.
    ///
    /// # Safety
    /// The range is mapped readable and writable for as long as this handle lives, and nobody else touches a block that
    /// a request names, by the rules of the slot word (I2).
    pub unsafe fn register_pool(&mut self, id: u16, base: *mut u8, stride: usize, count: u32) -> Result<()> {
        self.check_writable()?;
        // SAFETY: the caller's promise.
        let pool = unsafe { Pool::new(base, stride, count, self.geometry.block_size as usize)? };
        let check = &self.mapping.header().pools.0;
        self.pools.register(id, pool, check)
    }

    /// A new private description of the lock file, to hold a role, a life or slots with.
    pub fn lock_file(&self) -> Result<LockFile> {
        self.check_process()?;
        self.check_writable()?;
        self.watch.another()
    }

    /// Who lives, seen from a description that never holds a lock itself.
    #[must_use]
    pub fn liveness(&self) -> &dyn Liveness {
        &self.watch
    }

    /// The file whose locks tell who lives, by a description that never holds one: for asking the system which file it is.
    #[must_use]
    pub fn lock_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Refuses a handle that was carried over a fork: `WrongProcess`. One system call, so for slow paths.
    pub fn check_process(&self) -> Result<()> {
        if std::process::id() == self.pid {
            Ok(())
        } else {
            Err(Error::WrongProcess)
        }
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only {
            Err(Error::Os(libc::EROFS))
        } else {
            Ok(())
        }
    }

    /// The file that others can attach through: of named regions and memfds. Closed on exec.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// The name that the region was made or attached by. It may mean another region by now.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Random number that tells this region from every other.
    #[must_use]
    pub fn id(&self) -> [u64; 2] {
        self.id
    }

    /// Whether the mapping cannot be written ([`Region::observe`]): a store through [`Region::parts`] is then a
    /// SIGSEGV.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether all users are threads of this process, so that futexes are private.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }
}
