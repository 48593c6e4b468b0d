//! Sizes of a region, and where its parts lie.

use super::{Config, TableConfig, SET};
use crate::error::{Error, Result};

/// Most request slots a region can have (a ring cell has 24 bits for one, and one value means "empty").
pub const MAX_SLOTS: u32 = (1 << 24) - 2;
/// Most buckets of a last-written table: 4 GiB.
const MAX_WRITTEN_BUCKETS: u32 = 1 << 26;
/// Most entries of a cache of relation sizes: 512 MiB.
const MAX_REL_SIZES: u32 = 1 << 24;

pub(super) const HEADER_SPAN: u64 = 4096;
const ROLE_STATS_SPAN: u64 = 1024;

/// Sizes of a region and where its parts lie, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Request slots.
    pub slots: u32,
    /// Cells of the submission ring: a power of two, at least twice the slots (R7).
    pub capacity: u32,
    /// Bounce buffers a slot.
    pub bounce_per_slot: u32,
    /// Bytes of a block.
    pub block_size: u32,
    /// Words of the pending bitmap.
    pub pending_words: u32,
    /// Role statistics, pending bitmap, owner statistics, slots, cells, bounce buffers.
    pub offsets: [u64; 6],
    /// Buckets of the last-written table.
    pub written_buckets: u32,
    /// Sets of relation sizes.
    pub size_sets: u32,
    /// The last-written table, the relation sizes.
    pub table_offsets: [u64; 2],
    /// Bytes in all.
    pub total_len: u64,
}

impl Geometry {
    /// The region for so many slots, bounce buffers a slot and bytes a block, without tables; `BadGeometry` for sizes
    /// that make no sense.
    pub const fn new(slots: u32, bounce_per_slot: u32, block_size: u32) -> Result<Self> {
        if slots == 0 || slots > MAX_SLOTS || bounce_per_slot > 1024 {
            return Err(Error::BadGeometry);
        }
        if !block_size.is_power_of_two() || block_size < 512 || block_size > 65536 {
            return Err(Error::BadGeometry);
        }
        // At most 2 * (2^24 - 2), rounded up to a power of two: fits.
        let capacity = if slots < 4 { 8 } else { (slots * 2).next_power_of_two() };
        let pending_words = slots.div_ceil(64);
        let n = slots as u64;
        let role_stats = HEADER_SPAN;
        let pending = role_stats + ROLE_STATS_SPAN;
        let owner_stats = (pending + pending_words as u64 * 8).next_multiple_of(128);
        let first_slot = owner_stats + n * 384;
        let cells = first_slot + n * 512;
        let bounce = (cells + capacity as u64 * 64).next_multiple_of(4096);
        // Largest: 2^24 * 2^10 * 2^16 = 2^50, so no sum here or with tables overflows.
        Ok(Self {
            slots,
            capacity,
            bounce_per_slot,
            block_size,
            pending_words,
            offsets: [role_stats, pending, owner_stats, first_slot, cells, bounce],
            written_buckets: 0,
            size_sets: 0,
            table_offsets: [0; 2],
            total_len: 0,
        }
        .place_tables(0, 0))
    }

    /// The same with a last-written table of so many buckets, and room for so many relation sizes (rounded up to whole
    /// sets of [`SET`]); 0 for none.
    pub const fn with_tables(self, written_buckets: u32, rel_sizes: u32) -> Result<Self> {
        if written_buckets > MAX_WRITTEN_BUCKETS || rel_sizes > MAX_REL_SIZES {
            return Err(Error::BadGeometry);
        }
        Ok(self.place_tables(written_buckets, rel_sizes.div_ceil(SET as u32)))
    }

    /// Puts tables of these sizes behind the bounce buffers.
    const fn place_tables(mut self, written_buckets: u32, size_sets: u32) -> Self {
        let [.., bounce] = self.offsets;
        let blocks = self.slots as u64 * self.bounce_per_slot as u64;
        // Blocks are a multiple of 512 bytes long, so what follows is aligned to a pair of cache lines.
        let written = bounce + blocks * self.block_size as u64;
        let sizes = (written + written_buckets as u64 * 64).next_multiple_of(128);
        self.written_buckets = written_buckets;
        self.size_sets = size_sets;
        self.table_offsets = [written, sizes];
        self.total_len = sizes + size_sets as u64 * 128;
        self
    }

    /// What a header says of the tables.
    #[must_use]
    pub const fn table_config(&self) -> TableConfig {
        TableConfig { written_buckets: self.written_buckets, size_sets: self.size_sets, offsets: self.table_offsets }
    }

    /// Checks a header's own numbers against these, computed anew from its six sizes.
    pub fn check(config: &Config, tables: &TableConfig) -> Result<Self> {
        let g = Self::new(config.slots, config.bounce_per_slot, config.block_size)?;
        let rel_sizes = tables.size_sets.checked_mul(SET as u32).ok_or(Error::BadGeometry)?;
        let g = g.with_tables(tables.written_buckets, rel_sizes)?;
        let same = g.capacity == config.capacity
            && g.offsets == config.offsets
            && g.total_len == config.total_len
            && g.table_config() == *tables;
        if same {
            Ok(g)
        } else {
            Err(Error::BadGeometry)
        }
    }
}

#[cfg(all(test, not(any(feature = "loom", feature = "shuttle"))))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::layout::DEFAULT_BLOCK_SIZE;

    #[test]
    fn a_thousand_backends_of_eight_slots_take_less_than_8_mib() {
        let g = Geometry::new(8000, 0, DEFAULT_BLOCK_SIZE).unwrap();
        assert!(g.total_len < 8 << 20, "{} bytes", g.total_len);
        assert_eq!(g.capacity, 16384);
    }

    #[test]
    fn the_largest_region_does_not_overflow_and_larger_ones_are_refused() {
        let g = Geometry::new(MAX_SLOTS, 1024, 65536).unwrap();
        assert!(g.total_len > 1 << 49);
        assert_eq!(Geometry::new(MAX_SLOTS + 1, 0, 8192), Err(Error::BadGeometry));
        assert_eq!(Geometry::new(0, 0, 8192), Err(Error::BadGeometry));
        assert_eq!(Geometry::new(1, 1025, 8192), Err(Error::BadGeometry));
        assert_eq!(Geometry::new(1, 1, 8191), Err(Error::BadGeometry));
    }

    #[test]
    fn parts_are_aligned_and_do_not_overlap() {
        for slots in [1, 3, 4, 63, 64, 65, 8000] {
            let g = Geometry::new(slots, 2, 8192).unwrap();
            let n = u64::from(slots);
            let ends = [
                g.offsets[0] + 896,
                g.offsets[1] + u64::from(g.pending_words) * 8,
                g.offsets[2] + n * 384,
                g.offsets[3] + n * 512,
                g.offsets[4] + u64::from(g.capacity) * 64,
                g.offsets[5] + n * 2 * 8192,
            ];
            for (i, end) in ends.iter().enumerate() {
                let next = g.offsets.get(i + 1).copied().unwrap_or(g.total_len);
                assert!(*end <= next && g.offsets[i] % 64 == 0, "{slots} slots, part {i}");
            }
            assert!(g.capacity >= 2 * slots && g.capacity.is_power_of_two());
        }
    }

    #[test]
    fn tables_follow_the_bounce_buffers_and_none_take_no_byte() {
        let bare = Geometry::new(3, 1, 512).unwrap();
        assert_eq!(bare.with_tables(0, 0), Ok(bare));
        let g = bare.with_tables(5, 2 * SET as u32 + 1).unwrap();
        assert_eq!((g.written_buckets, g.size_sets), (5, 3));
        assert_eq!(g.table_offsets, [bare.total_len, bare.total_len + 384]);
        assert_eq!(g.total_len, bare.total_len + 384 + 3 * 128);
        assert_eq!(bare.with_tables(MAX_WRITTEN_BUCKETS + 1, 0), Err(Error::BadGeometry));
        assert_eq!(bare.with_tables(0, MAX_REL_SIZES + 1), Err(Error::BadGeometry));
        assert!(bare.with_tables(MAX_WRITTEN_BUCKETS, MAX_REL_SIZES).is_ok());
    }
}
