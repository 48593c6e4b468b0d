//! A registered pool that is a file of pages: what stands in for the shared buffers of a database in these commands.
#![allow(unsafe_code)]

use super::Failure;
use crate::service::PAGE_SIZE;
use memmap2::MmapRaw;
use shmuring::layout::MAGIC;
use shmuring::region::Region;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Its number in a region.
pub(super) const POOL: u16 = 1;

/// Maps the file for the rest of the process's life and registers it as pool 1.
pub(super) fn register(region: &mut Region, path: &Path) -> Result<(), Failure> {
    let named = |e: &dyn std::fmt::Display| Failure::from(format!("{}: {e}", path.display()));
    let file = File::options().read(true).write(true).open(path).map_err(|e| named(&e))?;
    let len = file.metadata().map_err(|e| named(&e))?.len();
    let count = u32::try_from(len / PAGE_SIZE as u64).ok().filter(|n| *n > 0 && len % PAGE_SIZE as u64 == 0);
    let count = count.ok_or_else(|| named(&format_args!("{len} bytes are no pool of {PAGE_SIZE} byte blocks")))?;
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).map_err(|e| named(&e))?;
    if u64::from_le_bytes(magic) == MAGIC {
        return Err(named(&"a region is no pool"));
    }
    let map: &'static MmapRaw = Box::leak(Box::new(MmapRaw::map_raw(&file).map_err(|e| named(&e))?));
    // SAFETY: mapped readable and writable for as long as the process lives; who may touch which block is told by the
    // slot words, by which every user of this program goes (I2).
    unsafe { region.register_pool(POOL, map.as_mut_ptr(), PAGE_SIZE, count) }.map_err(|e| named(&e))
}
