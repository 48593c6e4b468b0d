//! Sizes of a region, as `serve` and `region create` take them.

use super::region::{attach, explain};
use super::Failure;
use shmuring::error::Error;
use shmuring::layout::{WrittenBucket, DEFAULT_BLOCK_SIZE, SET};
use shmuring::region::{Options, Region, DEFAULT_REL_SIZES, DEFAULT_WRITTEN_BUCKETS};
use std::path::Path;

/// Buckets of a last-written table in a MiB.
const BUCKETS_PER_MIB: u32 = (1 << 20) / size_of::<WrittenBucket>() as u32;

/// Sizes of a region that is made.
#[derive(Debug, clap::Args)]
pub(super) struct Sizes {
    /// Request slots of a region that is made [default: 1024]; one that exists must have as many.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(shmuring::layout::MAX_SLOTS)))]
    slots: Option<u32>,
    /// Bounce buffers of 8 KiB for each slot of a region that is made [default: 4]; as above.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1024))]
    bounce: Option<u32>,
    /// MiB of the last-written table of a region that is made [default: 8]; as above. 0: any write makes every page
    /// look new.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(0..=4096))]
    written: Option<u32>,
    /// Relation sizes that a region that is made has room for [default: 4096]; as above. 0: none are kept.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1 << 24))]
    rel_sizes: Option<u32>,
}

/// A region, and whether it was made now.
pub(super) struct Found {
    pub(super) region: Region,
    pub(super) is_new: bool,
    pub(super) bytes: u64,
}

impl Sizes {
    /// The region at `path`, which is made if it is not there.
    pub(super) fn attach_or_create(&self, path: &Path) -> Result<Found, Failure> {
        // What is not asked for is as it is found: a take-over need not know the sizes that the region was made with.
        let found = if path.exists() { Some(*attach(path)?.parts().geometry) } else { None };
        let or_found = |asked: Option<u32>, found: Option<u32>, default| asked.or(found).unwrap_or(default);
        let written = self.written.map(|mib| mib * BUCKETS_PER_MIB);
        let options = Options {
            slots: or_found(self.slots, found.map(|g| g.slots), 1024),
            bounce_per_slot: or_found(self.bounce, found.map(|g| g.bounce_per_slot), 4),
            block_size: found.map_or(DEFAULT_BLOCK_SIZE, |g| g.block_size),
            written_buckets: or_found(written, found.map(|g| g.written_buckets), DEFAULT_WRITTEN_BUCKETS),
            rel_sizes: or_found(self.rel_sizes, found.map(|g| g.size_sets * SET as u32), DEFAULT_REL_SIZES),
        };
        let (region, is_new) = Region::create_named(path, &options).map_err(|e| match e {
            Error::Os(libc::ENOENT) => format!("{}: there is no such directory", path.display()).into(),
            e => explain(path, e),
        })?;
        let bytes = Region::size(&options).map_err(|e| explain(path, e))?;
        Ok(Found { region, is_new, bytes })
    }
}
